//! Steps behind the recorder, in whole builds: every client gets through, in every mode and on every
//! kind of tree, with the digest that the machine's own network gives; what can't be recorded is
//! refused and named; and nothing of the recorder reaches a layer.

use serde_json::Value;

use crate::support::cli::{Project, Ran, Who, names, require_root};
use crate::support::files::Files;
use crate::support::image;
use crate::support::web::Web;

/// A build whose only way to the network is a web of doubles.
fn build_on(web: &Web, project: &Project, line: &[&str]) -> Ran {
    let mut command = project.command(line);
    for name in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"] {
        command.env(name, web.url());
    }
    command.env_remove("no_proxy").env_remove("NO_PROXY");
    project.write("authority.crt", std::fs::read(web.authority()).unwrap());
    command.env("SSL_CERT_FILE", project.path("authority.crt"));
    Ran::of(&mut command)
}

/// What the layers of a store have on record, by URL.
fn records(project: &Project) -> Vec<Value> {
    let folder = project.store().join("fetches");
    let mut all: Vec<Value> = Vec::new();
    for name in names(&folder) {
        let text = std::fs::read(folder.join(name)).unwrap();
        all.extend(serde_json::from_slice::<Vec<Value>>(&text).unwrap());
    }
    all
}

fn host_of(files: &Files) -> String {
    let url = files.url("");
    url.strip_prefix("http://").unwrap().to_owned()
}

#[test]
fn a_recorded_layer_is_the_same_in_every_mode_and_as_on_the_machines_network() {
    require_root();
    let many: Vec<(String, Vec<u8>)> = (0..100)
        .map(|number| (format!("/many/{number}"), format!("number {number}\n").into_bytes()))
        .collect();
    let mut served: Vec<(&str, &[u8])> =
        many.iter().map(|(path, content)| (path.as_str(), content.as_slice())).collect();
    served.push(("/plain", b"plain\n"));
    let files = Files::serve(&served);
    let web = Web::start(&[("files.example", host_of(&files))]);
    let script = "mkdir /srv/many; cd /srv/many
        for i in $(seq 0 99); do wget -q http://files.example/many/$i & done; wait
        wget -q -O /srv/plain http://files.example/plain
        cat /etc/resolv.conf /etc/hosts >/dev/null";
    let project = |who: Who| {
        let project = Project::with_tiny_base(who);
        project.script("talks", script).definition("talks", &["talks"]);
        project
    };
    let open = build_on(&web, &project(Who::Root), &["build", "talks", "--network", "host"]).ok();
    for who in [Who::Root, Who::Range, Who::Single] {
        let project = project(who);
        for tree in ["overlay", "plain"] {
            let line = ["build", "talks", "--no-cache", "--tree", tree];
            assert_eq!(build_on(&web, &project, &line).ok(), open, "{who:?} {tree}");
            let records = records(&project);
            assert_eq!(records.len(), 101, "{records:?}");
            let plain = records.iter().find(|one| one["url"] == "http://files.example/plain");
            let digest = plain.unwrap()["digest"].as_str().unwrap();
            assert_eq!(digest, image::digest(b"plain\n"));
            let body = project.store().join("blobs/sha256").join(&digest[7..]);
            assert_eq!(std::fs::read(body).unwrap(), b"plain\n");
        }
        assert_eq!(project.running(), Vec::<String>::new());
    }
}

#[test]
fn what_is_not_for_the_recorder_is_refused_at_once_and_named() {
    let files = Files::serve(&[("/plain", b"plain\n")]);
    let web = Web::start(&[("192.0.2.80", host_of(&files)), ("files.example", host_of(&files))]);
    let script = "
        wget -q -O /srv/bare http://192.0.2.80/plain
        wget -q -O /srv/name http://files.example/plain
        nc ssh.example 22 </dev/null || echo refused ssh
        nc 192.0.2.80 22 </dev/null || echo refused bare
        nslookup files.example | grep -q 127.0.0.1 && echo looked up
        nc -l -p 8080 -e echo own & sleep 0.3; nc 127.0.0.1 8080 </dev/null";
    for who in [Who::Root, Who::Single] {
        let project = Project::with_tiny_base(who);
        project.script("talks", script).definition("talks", &["talks"]);
        let ran = build_on(&web, &project, &["build", "talks", "-v"]);
        let told = ran.stderr();
        for line in ["refused ssh", "refused bare", "looked up", "own"] {
            assert!(told.contains(&format!("| {line}\n")), "{line}: {told}");
        }
        let warning = "talks/only: `ssh.example`, which was looked up and then not asked over HTTP \
                       can't be recorded";
        assert!(told.contains(warning), "{told}");
        ran.ok();
    }
}

#[test]
fn without_the_name_of_a_server_a_step_fails_as_on_a_network_that_lacks_it() {
    let web = Web::start(&[]);
    let project = Project::with_tiny_base(Who::Root);
    project.script("talks", "wget -O /srv/x http://absent.example/x").definition("t", &["talks"]);
    let told = build_on(&web, &project, &["build", "t"]).fails(1);
    assert!(told.contains("absent.example") && told.contains("talks"), "{told}");
    assert_eq!(records(&project), Vec::<Value>::new(), "a layer that failed has no record");
}
