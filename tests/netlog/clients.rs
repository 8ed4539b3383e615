//! Programs that fetch: each through the recorder, and again from what it kept.

use std::process::Command;

use ocibuild::netlog::Mode;

use super::{Bench, Step, ok, urls};
use crate::double::{Double, Reply, Request};
use crate::support::web::Web;
use crate::support::{noise, temp_dir};

/// Runs `git http-backend` for a request, as a web server does.
fn git_backend(root: &std::path::Path, request: &Request) -> Reply {
    use std::io::Write;
    let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
    let mut command = Command::new("git");
    command
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", &request.method)
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("CONTENT_LENGTH", request.body.len().to_string())
        .env("CONTENT_TYPE", request.header("content-type").unwrap_or_default())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped());
    for (name, variable) in
        [("git-protocol", "GIT_PROTOCOL"), ("content-encoding", "HTTP_CONTENT_ENCODING")]
    {
        if let Some(value) = request.header(name) {
            command.env(variable, value);
        }
    }
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(&request.body).unwrap();
    let output = child.wait_with_output().unwrap().stdout;
    let end = output.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let mut reply = Reply::new(200);
    for line in String::from_utf8_lossy(&output[..end]).lines() {
        let (name, value) = line.split_once(": ").unwrap();
        match name {
            "Status" => reply = Reply::new(value[..3].parse().unwrap()),
            _ => reply = reply.with(name, value),
        }
    }
    reply.body(&output[end + 4..])
}

#[test]
fn git_clones_over_https_and_again_without_the_server() {
    let dir = temp_dir();
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        git.current_dir(dir.path()).args(["-c", "user.name=t", "-c", "user.email=t@t"]);
        ok(git.args(arguments))
    };
    git(&["init", "--quiet", "work"]);
    for n in 0..200 {
        std::fs::write(dir.path().join(format!("work/{n}")), noise(5_000, n)).unwrap();
    }
    git(&["-C", "work", "add", "."]);
    git(&["-C", "work", "commit", "--quiet", "-m", "first"]);
    git(&["clone", "--quiet", "--bare", "work", "repo.git"]);
    let root = dir.path().to_owned();
    let double = Double::start(move |request, _| git_backend(&root, request));
    let web = Web::start(&[("git.test", double.host())]);
    let bench = Bench::new();
    let clone = |step: &Step<'_>, to: &str| {
        let to = bench.dir.path().join(to);
        ok(step.inside("git").args(["clone", "--quiet", "https://git.test/repo.git"]).arg(&to));
        let mut log = Command::new("git");
        ok(log.arg("-C").arg(to).args(["log", "--format=%H"]))
    };
    let step = bench.room(&web, Mode::Record);
    let head = clone(&step, "one");
    let record = step.end();
    assert!(record.troubles.is_empty() && record.refused.is_empty(), "{record:?}");
    assert!(urls(&record).contains(&"https://git.test/repo.git/git-upload-pack"));
    drop(double);
    let step = bench.room(&web, Mode::Replay { fetches: record.fetches.clone(), upstream: false });
    assert_eq!(clone(&step, "two"), head);
    let replayed = step.end();
    assert_eq!((replayed.fetches, replayed.unlisted), (record.fetches, Vec::new()));
}

#[test]
fn programs_need_no_more_than_the_authority() {
    let double = Double::start(|request, _| match request.target.as_str() {
        "/from" => Reply::new(301).with("Location", "https://b.test/to"),
        _ => Reply::new(200).with("Content-Type", "text/plain").body(request.target.clone()),
    });
    let web = Web::start(&[("a.test", double.host()), ("b.test", double.host())]);
    let bench = Bench::new();
    let step = bench.room(&web, Mode::Record);
    let get = |program: &str, arguments: &[&str]| {
        String::from_utf8(ok(step.inside(program).args(arguments))).unwrap()
    };
    assert_eq!(get("curl", &["-sSL", "http://a.test/from"]), "/to");
    assert_eq!(get("wget", &["-qO-", "https://a.test/wget"]), "/wget");
    let python = "import urllib.request, sys\n\
                  print(urllib.request.urlopen('https://b.test/python').read().decode(), end='')";
    assert_eq!(get("python3", &["-c", python]), "/python");
    let strict = "import ssl, urllib.request\n\
                  context = ssl.create_default_context()\n\
                  context.verify_flags |= ssl.VERIFY_X509_STRICT\n\
                  url = urllib.request.urlopen('https://b.test/strict', context=context)\n\
                  print(url.read().decode(), end='')";
    assert_eq!(get("python3", &["-c", strict]), "/strict");
    // An address in place of a name, in a namespace where all addresses are local.
    let mut route = step.inside("ip");
    ok(route.args(["route", "add", "local", "default", "dev", "lo"]));
    assert_eq!(get("getent", &["ahostsv4", "any.example"]).lines().count(), 3);
    let record = step.end();
    assert_eq!(
        urls(&record),
        [
            "http://a.test/from",
            "https://a.test/wget",
            "https://b.test/python",
            "https://b.test/strict",
            "https://b.test/to",
        ]
    );
    let what: Vec<&str> = record.refused.iter().map(|refused| refused.what.as_str()).collect();
    assert_eq!(what, ["`any.example`, which was looked up and then not asked over HTTP"]);
}
