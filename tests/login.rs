//! Logging in and out at real registries, and skopeo with the credential that was kept.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use crate::support::cli::{Project, Ran, Who, binary};
use crate::support::registry::{Auth, Registry, Tls};
use crate::support::token::TokenServer;

/// Runs `login` with a password on stdin.
fn login(project: &Project, host: &str, user: &str, password: &str, env: &[(&str, &str)]) -> Ran {
    project.write("password", format!("{password}\n"));
    let mut command = project.command(&["login", host, "--username", user, "--password-stdin"]);
    command.stdin(fs::File::open(project.path("password")).unwrap());
    command.envs(env.iter().copied());
    Ran::of(&mut command)
}

#[test]
fn a_login_is_tried_and_kept_and_skopeo_has_it() {
    let project = Project::with_tiny_base(Who::Root);
    let registry = Registry::start(None, &Auth::Basic("someone", "pass:word"));
    let (host, image) = (registry.host(), registry.image("a/b:1"));
    let file = project.path("home/.docker/config.json");

    let stderr = login(&project, &host, "someone", "hushhush", &[]).fails(1);
    assert!(stderr.contains(&host) && stderr.contains("401"), "{stderr}");
    assert!(!stderr.contains("hushhush"), "{stderr}");
    assert!(!file.exists(), "a refused password was kept");
    let push = ["push", "localhost/tiny:1", "--to", &image];
    let stderr = project.run(&push).fails(1);
    assert!(stderr.contains(&format!("ocibuild login {host}")), "{stderr}");

    let said = login(&project, &host, "someone", "pass:word", &[]).ok();
    assert!(said.contains(&*file.to_string_lossy()) && !said.contains("pass:word"), "{said}");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o600);
    project.run(&push).ok();
    let skopeo = |home: &str| {
        let mut command = Command::new("skopeo");
        command.args(["inspect", "--tls-verify=false", &format!("docker://{image}")]);
        project.surroundings(&mut command);
        Ran::of(command.env("HOME", project.path(home)))
    };
    skopeo("home").ok();
    assert_ne!(skopeo("tmp").code(), Some(0), "skopeo needs no credential, so this shows nothing");

    let said = project.run(&["logout", &host]).ok();
    assert!(said.contains("logged out") && said.contains("config.json"), "{said}");
    project.run(&push).fails(1);
    assert_ne!(skopeo("home").code(), Some(0));
    assert!(project.run(&["logout", &host]).ok().contains("no login"));
    let stderr = login(&project, "ghcr.io/me", "a", "b", &[]).fails(2);
    assert!(stderr.contains("HOST:PORT"), "{stderr}");
}

#[test]
fn what_skopeo_kept_is_kept_up_and_the_other_way_round() {
    let project = Project::new();
    let registry = Registry::start(None, &Auth::Basic("someone", "word"));
    let host = registry.host();
    let file = project.path("home/own.json");
    let env = [("REGISTRY_AUTH_FILE", file.to_str().unwrap())];
    let skopeo = |arguments: &[&str]| {
        let mut command = Command::new("skopeo");
        command.args(arguments);
        project.surroundings(&mut command);
        Ran::of(command.envs(env))
    };
    let who = ["-u", "someone", "-p", "word", "--tls-verify=false", &host];
    skopeo(&[&["login"][..], &who].concat()).ok();
    login(&project, &host, "someone", "word", &env).ok();
    let text = fs::read_to_string(&file).unwrap();
    assert_eq!(text.matches(&host).count(), 1, "{text}");
    assert_eq!(skopeo(&["login", "--get-login", &host]).ok(), "someone");
    skopeo(&["logout", &host]).ok();
    let ran = Ran::of(project.command(&["logout", &host]).envs(env));
    assert!(ran.ok().contains("no login"));
}

#[test]
fn a_login_by_token_is_tried_behind_tls() {
    let project = Project::new();
    let tls = Tls::new();
    let server = TokenServer::start(30, None, "me", "secret");
    let plain = server.registry(None);
    let stderr = login(&project, &plain.host(), "me", "wrong", &[]).fails(1);
    assert!(stderr.contains("incorrect username or password"), "{stderr}");
    login(&project, &plain.host(), "me", "secret", &[]).ok();
    assert!(server.double.seen().iter().any(|request| request.target.contains("service=registry")));

    let authority = tls.authority();
    let env = [("SSL_CERT_FILE", authority.to_str().unwrap())];
    // A realm without TLS is none that a registry behind TLS may send us to.
    let behind = server.registry(Some(&tls));
    let asked = server.asked().len();
    let stderr = login(&project, &behind.host(), "me", "secret", &env).fails(1);
    assert!(stderr.contains("not encrypted"), "{stderr}");
    assert_eq!(server.asked().len(), asked, "the password went out in the clear");
}

/// As `docker login` keeps it where a token server gives one.
#[test]
fn an_identity_token_is_exchanged_for_one_that_pushes() {
    let server = TokenServer::start(300, None, "me", "secret");
    let registry = server.registry(None);
    let project = Project::with_tiny_base(Who::Root);
    let file = |identity: &str| {
        let host = registry.host();
        let entry = format!("{{\"auth\":\"PHRva2VuPjo=\",\"identitytoken\":\"{identity}\"}}");
        let text = format!("{{\"auths\":{{\"{host}\":{entry}}}}}");
        project.write("home/.docker/config.json", text);
    };
    let name = registry.image("private/tiny:1");
    let push = ["push", "localhost/tiny:1", "--to", &name];
    file("none");
    let stderr = project.run(&push).fails(1);
    assert!(stderr.contains("no such identity"), "{stderr}");
    file("secret-identity");
    project.run(&push).ok();
    let seen = server.double.seen();
    assert!(seen.iter().all(|request| request.header("authorization").is_none()));
    assert!(seen.iter().any(|request| request.method == "POST"));
    project.run(&["copy", &name, &registry.image("private/again:1")]).ok();
}

#[test]
fn a_password_that_is_typed_is_not_shown() {
    let project = Project::new();
    let registry = Registry::start(None, &Auth::Basic("someone", "typed-word"));
    let line = format!("{} login {}", binary().display(), registry.host());
    let mut command = Command::new("script");
    command.args(["-qec", &line, "/dev/null"]);
    project.surroundings(&mut command);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut keys, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut shown = String::new();
    let mut until = |what: &str| {
        let mut byte = [0];
        while !shown.ends_with(what) && screen.read(&mut byte).unwrap() == 1 {
            shown.push(char::from(byte[0]));
        }
        assert!(shown.ends_with(what), "{shown}");
    };
    until("user: ");
    keys.write_all(b"someone\n").unwrap();
    until("password: ");
    keys.write_all(b"typed-word\n").unwrap();
    until("config.json");
    drop(keys);
    assert!(child.wait().unwrap().success());
    assert!(shown.contains("logged in") && !shown.contains("typed-word"), "{shown}");
    // Without a terminal there is nobody to ask.
    let mut command = Command::new("setsid");
    command.args(["--wait", &binary().display().to_string(), "login", "localhost:1"]);
    project.surroundings(&mut command);
    assert!(Ran::of(&mut command).fails(2).contains("--password-stdin"));
}

#[test]
fn a_crash_writes_no_core_with_the_password() {
    let project = Project::new();
    // It lets connect, and never says a word.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = silent.local_addr().unwrap().to_string();
    project.write("password", "word\n");
    let mut command = Command::new("sh");
    let line = "ulimit -S -c unlimited; exec \"$0\" login \"$1\" --username me --password-stdin";
    command.args(["-c", line, &binary().display().to_string(), &host]);
    project.surroundings(&mut command);
    let mut child =
        command.stdin(fs::File::open(project.path("password")).unwrap()).spawn().unwrap();
    silent.accept().unwrap();
    let limits = fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("1"), "{core}");
}
