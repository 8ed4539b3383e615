//! Ways out of a step, each tried by a program that is root in there, and each seen to fail.

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::support::base;
use crate::support::cli::{Project, Ran, Who};
use crate::support::driver::{Driver, Step, lines};
use crate::support::run;

/// The program that tries, linked statically, since the tree is not the machine's.
fn compiled(driver: &Driver) -> PathBuf {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/drivers/escape.c");
    let program = driver.path("home/escape");
    run(Command::new("cc").args(["-O1", "-w", "-static", source, "-o"]).arg(&program));
    run(Command::new("chmod").arg("755").arg(&program));
    program
}

/// The tiny base as a namespace with one id unpacks it.
fn tiny_with_one_id(who: Who) -> Driver {
    let driver = Driver::of(who);
    let tar = driver.path("home/tiny.tar");
    std::fs::write(&tar, base::tiny()).unwrap();
    let folder = driver.path("base");
    let script = format!(
        "mkdir {0} && tar -xpf {1} -C {0} --no-same-owner --exclude='./dev/*'",
        folder.display(),
        tar.display()
    );
    let told = Ran::of(&mut driver.command("single", &[json!({ "shell": script })])).json();
    assert_eq!(told["results"][0]["code"], 0, "{told}");
    driver
}

fn nothing_gets_out(who: Who, request: &str) {
    let driver =
        if request == "single" { tiny_with_one_id(who) } else { Driver::with_tiny_base(who) };
    let program = compiled(&driver);
    let secret = driver.path("outside");
    std::fs::write(&secret, "x").unwrap();
    // What is only in the network's namespace, and not in any folder.
    let name = format!("ocibuild-escape-{}-{request}-{who:?}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let _listener = UnixListener::bind_addr(&address).unwrap();
    let mut victim = Command::new("sleep").arg("600").spawn().unwrap();
    let mut acts = driver.stack();
    let bind = json!({ "bind": { "source": program, "access": "read-only" } });
    let argv = json!(["/run/escape", secret, victim.id().to_string(), name]);
    acts.push(Step::new("").mounting("/run/escape", &bind).with("argv", argv).act());
    // The caller of a build may have left anything open: its folder, the root, a file to write.
    let inner = driver.command(request, &acts);
    let mut command = Command::new("sh");
    command.args(["-c", "exec 7</ 8<. 9>>outside; exec \"$@\"", "sh"]).arg(inner.get_program());
    command.args(inner.get_args()).current_dir(driver.path(".")).stdin(Stdio::null());
    command.env_clear().envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    for name in ["GITHUB_TOKEN", "REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "AWS_SECRET_ACCESS_KEY"] {
        command.env(name, "canary");
    }
    let told = Ran::of(&mut command).json();
    victim.kill().unwrap();
    victim.wait().unwrap();
    let mut said = lines(&told["results"][2]);
    let tried = said.pop().unwrap();
    assert_eq!(said, Vec::<String>::new(), "{who:?} {request}");
    let tried: u32 = tried.strip_prefix("tried ").unwrap().parse().unwrap();
    assert!(tried > 500, "only {tried} attempts were made");
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "x");
}

#[test]
fn nothing_gets_out_of_a_step_of_roots() {
    nothing_gets_out(Who::Root, "root");
}

#[test]
fn nothing_gets_out_of_a_step_of_an_ordinary_users() {
    nothing_gets_out(Who::Range, "range");
}

#[test]
fn nothing_gets_out_of_a_step_with_one_id() {
    nothing_gets_out(Who::Range, "single");
}

#[test]
fn credentials_of_the_caller_reach_no_step() {
    for who in [Who::Root, Who::Range] {
        let project = Project::with_tiny_base(who);
        project
            .script(
                "look",
                "env; (cat /proc/[0-9]*/environ || true) | tr '\\0' '\\n'; ls -a ~ /run /tmp",
            )
            .definition("look", &["look"])
            .write("home/.docker/config.json", "{\"auths\": {}}")
            .write("home/.netrc", "machine x");
        let mut command = project.command(&["build", "look"]);
        let names = [
            "GITHUB_TOKEN",
            "REGISTRY_AUTH_FILE",
            "DOCKER_CONFIG",
            "DOCKER_AUTH_CONFIG",
            "AWS_SECRET_ACCESS_KEY",
            "SSH_AUTH_SOCK",
            "DBUS_SESSION_BUS_ADDRESS",
            "XDG_RUNTIME_DIR",
            "PIP_INDEX_URL",
            "GITHUB_PAT",
            "LD_PRELOAD_OF_THE_CALLER",
        ];
        command.envs(names.map(|name| (name, OsStr::new("/canary/of/the/caller"))));
        let ran = Ran::of(&mut command);
        let told = ran.stderr();
        assert!(told.contains("look/only | PWD=/"), "the step's output is shown: {ran}");
        assert!(!told.contains("canary") && !told.contains(".docker"), "{told}");
        ran.ok();
    }
}
