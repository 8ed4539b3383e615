//! The real stack on Debian, as `layers/` and `manifests/` say: built twice from inputs that a proxy
//! freezes, by root and by an ordinary user, pushed, and used as its users do; its R for another
//! architecture, too.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use crate::packages;
use crate::support::cli::{Project, Who, require_root};
use crate::support::freezer::Freezer;
use crate::support::podman::Podman;
use crate::support::registry::Registry;
use crate::support::{browser, free_port, image, run};

const IMAGE: &str = "localhost:5000/rocker/debian-ml";
const PACKAGES: &str = "localhost:5000/rocker/packages";
const TOPMOST: &str = "python";

/// The repository's definitions over the Debian base of this machine; `emulation` builds for others.
fn repository(who: Who) -> Project {
    let project = Project::of_the_repository(who);
    let manifest = project.path("manifests/debian-ml.toml");
    let text = std::fs::read_to_string(manifest).unwrap();
    project.write("manifests/debian-ml.toml", text.replace(", \"linux/arm64\"]", "]"));
    packages::add(&project);
    project
}

/// Other surroundings than the machine's own: a tool that takes the build's command line, and the
/// environment.
struct Surroundings {
    tool: &'static [&'static str],
    environment: &'static [(&'static str, &'static str)],
}

const HERE: Surroundings = Surroundings {
    tool: &[],
    environment: &[("TZ", "Pacific/Chatham"), ("LANG", "de_DE.UTF-8"), ("LC_ALL", "de_DE.UTF-8")],
};

/// An ordinary user's: another host name, umask and zone.
const ELSEWHERE: Surroundings = Surroundings {
    tool: &[
        "unshare",
        "--uts",
        "sh",
        "-euc",
        "hostname elsewhere.example; umask 077; exec \"$@\"",
        "sh",
    ],
    environment: &[("TZ", "America/Caracas"), ("LC_ALL", "C")],
};

/// Root's: years behind, and a umask that lets everything through.
const LONG_AGO: Surroundings = Surroundings {
    tool: &[
        "sh",
        "-euc",
        "umask 0
        exec env LD_PRELOAD=\"$(ls /usr/lib/*/faketime/libfaketimeMT.so.1)\" \"$@\"",
        "sh",
    ],
    environment: &[
        ("FAKETIME", "-900d"),
        ("FAKETIME_DONT_RESET", "1"),
        ("DONT_FAKE_MONOTONIC", "1"),
        ("NO_FAKE_STAT", "1"),
    ],
};

fn build(project: &Project, freezer: &Freezer, around: &Surroundings, line: &[&str]) -> String {
    freezer.build(project, around.tool, line, around.environment)
}

/// Builds in two projects side by side, and returns both digests.
fn both(freezer: &Freezer, builds: [(&Project, &Surroundings, &[&str]); 2]) -> [String; 2] {
    std::thread::scope(|scope| {
        builds
            .map(|(project, around, line)| scope.spawn(|| build(project, freezer, around, line)))
            .map(|build| build.join().unwrap())
    })
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
fn ml_is_one_digest_and_does_its_work() {
    require_root();
    let freezer = Freezer::of_the_repository();
    let registry = Registry::plain();

    // Both cold: by root in memory, and by an ordinary user in other surroundings on disk. Whichever
    // comes first to an address has it frozen for the other.
    let (root, user) = (repository(Who::Root), repository(Who::Range));
    let line = ["build", "debian-ml", "--threads", "3", "--memory", "0"];
    let builds = [(&root, &HERE, &line[..2]), (&user, &ELSEWHERE, &line[..])];
    let [built, again] = both(&freezer, builds);
    let missed = freezer.missed();
    let difference = || image::difference(&root, &user, IMAGE);
    assert_eq!(again, built, "not to be had: {missed:?}\n{}", difference());

    let name = registry.image("rocker/debian-ml:latest");
    root.run(&["push", IMAGE, "--only", "--to", &name]).ok();
    assert_eq!(image::check(&registry.host(), "rocker/debian-ml", "latest").0, built);
    // Cached: nothing to do, and no network needed.
    assert_eq!(root.build("debian-ml"), built);
    assert_eq!(user.build("debian-ml"), built);

    // Under another clock a layer in the middle again, and what compiles.
    let root = root.preloading();
    let line = ["build", "debian-ml", "--refresh", "opt-share"];
    assert_eq!(build(&root, &freezer, &LONG_AGO, &line), built);
    let line = ["build", "packages", "--threads", "1", "--memory", "0"];
    let builds = [(&root, &LONG_AGO, &line[..4]), (&user, &ELSEWHERE, &line[..])];
    let [compiled, again] = both(&freezer, builds);
    assert_eq!(again, compiled, "{}", image::difference(&root, &user, PACKAGES));
    drop(user);
    // What runs the image leaves a processor idle.
    std::thread::scope(|scope| {
        for who in [Who::Root, Who::Single] {
            let (root, freezer, name, built) = (&root, &freezer, &name, &built);
            scope.spawn(move || on_pulled_parents(who, root, freezer, name, built));
        }
        let podman = Podman::new();
        podman.pull(&name);
        r_computes(&podman, &name);
        packages_install(&podman, &name);
        jupyter_answers(&podman, &name);
        code_server_answers(&podman, &name);
    });
}

/// In a store that has the layers from a registry and only knows what they are made of, builds a
/// layer in the middle and, with one id, the topmost again.
fn on_pulled_parents(who: Who, root: &Project, freezer: &Freezer, name: &str, built: &str) {
    let pulled = repository(who);
    assert_eq!(pulled.run(&["pull", name]).ok(), built);
    pulled.learn(root);
    let line = ["build", "debian-ml", "-v", "--refresh", "opt-share", "--refresh", TOPMOST];
    let line = if who == Who::Root { &line[..5] } else { &line[..] };
    assert_eq!(build(&pulled, freezer, &ELSEWHERE, line), built, "by {who:?}");
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

/// The repository's own R image for both architectures in one index by a user with one id and nothing
/// else; a layer of it again by root. For arm64 it is what podman starts, in a namespace that emulates
/// and ends.
#[test]
fn debian_r_for_both_architectures_is_one_index_and_runs() {
    require_root();
    let repository = |who| {
        let project = Project::of_the_repository(who);
        project.add_debian_arm64();
        project
    };
    let freezer = Freezer::of_the_repository();
    let name = "localhost:5000/rocker/debian-r";
    let single = repository(Who::Single);
    let built = freezer.build(&single, &[], &["build", "debian-r"], &[]);

    let registry = Registry::plain();
    let pushed = registry.image("rocker/debian-r:latest");
    single.run(&["push", name, "--only", "--to", &pushed]).ok();
    let (digest, platforms) = image::check(&registry.host(), "rocker/debian-r", "latest");
    assert_eq!(digest, built);
    assert_eq!(platforms.len(), 2, "one entry for each");
    let shown = single.run(&["show", name, "--json"]).json();
    let arm = shown["platforms"][1].clone();
    assert_eq!(arm["platform"]["architecture"], "arm64", "{shown}");
    let apart = arm["manifest"].as_str().unwrap().to_owned();

    // Root makes the smallest of its layers again, over what it has from the registry.
    let root = repository(Who::Root);
    root.run(&["pull", &pushed]).ok();
    root.learn(&single);
    let line = ["build", "debian-r", "--platform", "linux/arm64", "--refresh", "opt-share"];
    assert_eq!(freezer.build(&root, &[], &line, &[]), apart);

    let by_digest = registry.image(&format!("rocker/debian-r@{apart}"));
    let podman = Podman::new();
    let platform = ["--platform", "linux/arm64"];
    let pull = [&["pull", "--quiet", "--tls-verify=false"], &platform[..], &[&by_digest]].concat();
    run(&mut podman.command(&pull));
    let words = ["Rscript", "-e", "cat(sum(solve(diag(4)) * 1:4), R.version[['arch']])"];
    let line = [&["run", "--rm", "--network=host"], &platform[..], &[&by_digest], &words].concat();
    let said = run(&mut podman.command_emulating("linux/arm64", &line)).stdout;
    assert_eq!(String::from_utf8(said).unwrap(), "10 aarch64");
}
