//! The real stack on Debian, as `layers/` and `manifests/` say: built twice from inputs that a proxy
//! freezes, by root and by an ordinary user, pushed, and used as its users do.

use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use crate::support::cli::{Project, Who, copy_tree};
use crate::support::freezer::Freezer;
use crate::support::podman::Podman;
use crate::support::registry::Registry;
use crate::support::{browser, free_port, image, run};

/// The repository's own recipes and definitions, over the base that `scripts/base` makes.
fn repository(who: Who) -> Project {
    let project = Project::of(who);
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    for folder in ["layers", "manifests"] {
        copy_tree(&package.join(folder), &project.path(folder));
    }
    project.import_debian();
    project
}

/// A zone and a tongue that are nobody's default.
const TONGUE: &[(&str, &str)] = &[("TZ", "Pacific/Chatham"), ("LANG", "de_DE.UTF-8")];

/// What differs from one build to the next in other surroundings.
const ELSEWHERE: &[&str] =
    &["unshare", "--uts", "sh", "-c", "hostname elsewhere.example; umask 077; exec \"$@\"", "sh"];

fn freezer() -> Freezer {
    Freezer::start(&Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-cache/frozen"))
}

/// Runs a server of an image until it is dropped.
struct Served {
    child: Child,
}

impl Served {
    fn start(podman: &Podman, image: &str, arguments: &[&str], url: &str) -> Served {
        let log = std::fs::File::create(podman.folder().join("served.log")).unwrap();
        let mut line = vec!["run", "--rm", "--network=host", image];
        line.extend_from_slice(arguments);
        let child =
            podman.command(&line).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let mut served = Served { child };
        let start = Instant::now();
        while start.elapsed() < Duration::from_mins(2) {
            let asked =
                Command::new("curl").args(["-sfL", "-o", "/dev/null", url]).status().unwrap();
            if asked.success() {
                return served;
            }
            if served.child.try_wait().unwrap().is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(300));
        }
        let log = std::fs::read_to_string(podman.folder().join("served.log")).unwrap();
        panic!("{image} {arguments:?} does not answer at {url}:\n{log}");
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn fetched(url: &str) -> String {
    String::from_utf8_lossy(&run(Command::new("curl").args(["-sfL", url])).stdout).into_owned()
}

#[test]
fn debian_ml_is_one_digest_and_does_its_work() {
    crate::support::cli::require_root();
    let freezer = freezer();
    let registry = Registry::plain();

    // Both cold, side by side: by root, and by an ordinary user in other surroundings. Whichever
    // comes first to an address has it frozen for the other.
    let (root, user) = (repository(Who::Root), repository(Who::Range));
    let (built, again) = std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            freezer.build(&user, ELSEWHERE, &["build", "debian-ml", "--threads", "3"], TONGUE)
        });
        let built = freezer.build(&root, &[], &["build", "debian-ml"], TONGUE);
        (built, other.join().unwrap())
    });
    let missed = freezer.missed();
    assert_eq!(
        again,
        built,
        "not to be had: {missed:?}\n{}",
        image::difference(&root, &user, "localhost:5000/rocker/debian-ml")
    );

    let name = registry.image("rocker/debian-ml:latest");
    root.run(&["push", "localhost:5000/rocker/debian-ml", "--only", "--to", &name]).ok();
    assert_eq!(image::check(&registry.host(), "rocker/debian-ml", "latest").0, built);
    // Cached: nothing to do, and no network needed.
    assert_eq!(root.build("debian-ml"), built);

    let podman = Podman::new();
    podman.pull(&name);
    r_computes(&podman, &name);
    packages_install(&podman, &name);
    jupyter_answers(&podman, &name);
    code_server_answers(&podman, &name);
}

fn r_computes(podman: &Podman, image: &str) {
    let said = podman
        .run(image, &["Rscript", "-e", "cat(sum(solve(diag(4)) * 1:4), Sys.info()[['user']])"]);
    assert_eq!(said, "10 jovyan");
    let said = podman.run(image, &["python", "-c", "import jupyterlab, sys; print(sys.prefix)"]);
    assert_eq!(said.trim(), "/opt/conda");
}

fn packages_install(podman: &Podman, image: &str) {
    let script = r#"
        set -eu
        mkdir -p /tmp/repo/src/contrib /tmp/ours/R
        printf 'Package: ours\nVersion: 1.2.3\nTitle: Of A Test\nDescription: Answers.\nLicense: GPL-2\nAuthor: A\nMaintainer: A <a@b.c>\n' > /tmp/ours/DESCRIPTION
        echo 'export(answer)' > /tmp/ours/NAMESPACE
        echo 'answer <- function() 42' > /tmp/ours/R/answer.R
        cd /tmp/repo/src/contrib
        R CMD build /tmp/ours >/dev/null
        Rscript -e 'tools::write_PACKAGES(".", type = "source")'
        install2.r --error --repos file:///tmp/repo ours
        Rscript -e 'cat("answer", ours::answer(), "\n")'
    "#;
    for user in ["0", "1000"] {
        let mut line =
            vec!["run", "--rm", "--network=none", "--user", user, "--entrypoint", "", image];
        line.extend(["bash", "-c", script]);
        let said = String::from_utf8(run(&mut podman.command(&line)).stdout).unwrap();
        assert!(said.contains("answer 42"), "as {user}: {said}");
    }
}

fn jupyter_answers(podman: &Podman, image: &str) {
    let port = free_port().to_string();
    let url = format!("http://127.0.0.1:{port}/lab?token=of-the-tests");
    let line = ["start-notebook.py", "--port", &port, "--IdentityProvider.token=of-the-tests"];
    let _served = Served::start(podman, image, &line, &url);
    let status = fetched(&format!("http://127.0.0.1:{port}/api/status?token=of-the-tests"));
    assert!(status.contains("\"kernels\""), "{status}");
    let kernels = fetched(&format!("http://127.0.0.1:{port}/api/kernelspecs?token=of-the-tests"));
    assert!(kernels.contains("\"ir\"") && kernels.contains("\"python3\""), "{kernels}");
    let mut page = browser::Page::open(&url);
    page.wait_for(&["Launcher", "Notebook", "Python 3", "R File"]);
    page.picture("jupyter-lab");
}

fn code_server_answers(podman: &Podman, image: &str) {
    let port = free_port();
    let url = format!("http://127.0.0.1:{port}/");
    let bind = format!("127.0.0.1:{port}");
    let line = ["code-server", "--auth", "none", "--bind-addr", &bind, "/tmp"];
    let _served = Served::start(podman, image, &line, &url);
    assert!(fetched(&format!("{url}healthz")).contains("status"));
    let mut page = browser::Page::open(&url);
    page.wait_for(&["Explorer", "Welcome", "Get Started with VS Code"]);
    assert!(
        page.evaluate("document.querySelector('.monaco-workbench') !== null").as_bool().unwrap()
    );
    page.picture("code-server");
}
