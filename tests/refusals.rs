//! What waiting for a registry comes to, and what its refusals mean; a double refuses on purpose.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ocibuild::fault::Fault;
use ocibuild::http::{Client, Config, Patience};
use ocibuild::oci::{Platform, media_type};
use ocibuild::registry::{Keychain, Registries};
use ocibuild::report::{Event, Report};
use ocibuild::transfer::Sink;

use crate::double::{Double, Reply};
use crate::faults::{login, open, open_as, put};
use crate::support::cli::{Project, Ran, Who};
use crate::support::memory::Memory;
use crate::support::noise;

/// Keeps what is said at normal verbosity.
#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Report for Notes {
    fn event(&self, event: Event<'_>) {
        if let Event::Note(text) = event {
            self.0.lock().unwrap().push(text.to_owned());
        }
    }
}

#[test]
fn waiting_has_an_end_in_all_however_many_tries_are_left() {
    let double = Double::start(|request, _| match request.method.as_str() {
        "GET" if request.target == "/v2/" => Reply::new(200),
        _ => Reply::new(503),
    });
    let notes = Arc::new(Notes::default());
    let config = Config {
        backoff: Duration::from_millis(50),
        tries: 1000,
        patience: Patience::new(Duration::from_millis(400)),
        report: notes.clone(),
        ..Config::default()
    };
    let registries = Registries::new(Client::new(config), Keychain::new(&BTreeMap::new()));
    let repository = registries.open(&format!("{}/a/b:1", double.host()).parse().unwrap());
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let repository = &repository;
            scope.spawn(move || put(repository, &noise(100, 40 + seed)).unwrap_err());
        }
    });
    assert!(double.seen().len() < 200, "{}", double.seen().len());
    let notes = notes.0.lock().unwrap();
    assert!(notes.iter().any(|note| note.contains("no more tries")), "{notes:?}");
    assert!(notes.iter().any(|note| note.contains("503") && note.contains("trying again in")));
}

#[test]
fn a_wait_is_shown_and_a_network_that_is_down_is_one_line() {
    let project = Project::with_tiny_base(Who::Root);
    let double = Double::start(|request, number| match request.target.as_str() {
        "/v2/" => Reply::new(200),
        _ if number < 3 => Reply::new(429).with("Retry-After", "1"),
        _ => Reply::new(404),
    });
    let stderr = project.run(&["pull", &format!("{}/a:1", double.host())]).fails(1);
    assert!(stderr.contains("429") && stderr.contains("trying again in 1.0 s"), "{stderr}");

    let mut command = project.command(&[
        "push",
        "localhost/tiny:1",
        "--to",
        "registry.test/a:1",
        "--to",
        "registry.test/b:1",
        "--jobs",
        "32",
    ]);
    let nobody = format!("http://127.0.0.1:{}", crate::support::free_port());
    let stderr = Ran::of(command.env("https_proxy", nobody)).fails(3);
    let lines: Vec<&str> = stderr.lines().collect();
    let about = lines.iter().filter(|line| line.contains("cannot be reached")).count();
    assert_eq!(about, 1, "{stderr}");
    assert!(lines.len() <= 8, "{stderr}");
    assert!(stderr.contains("https_proxy"), "{stderr}");
}

#[test]
fn a_no_is_heard_at_once_and_its_meaning_is_told() {
    let memory = Memory::default();
    let image = memory.add_manifest(&Platform::host(), &[1000], 50);
    let told = |status: u16, body: &'static str, refuses: fn(&crate::double::Request) -> bool| {
        let double = Double::start(move |request, _| match request.method.as_str() {
            _ if refuses(request) => Reply::new(status).body(body),
            "POST" => Reply::new(202).with("Location", "/up/1"),
            "PUT" | "DELETE" => Reply::new(201),
            "GET" if request.target == "/v2/" => Reply::new(200),
            _ => Reply::new(404),
        });
        let repository = open(&double);
        let of_blobs = refuses(&double_request("POST", "/v2/a/b/blobs/uploads/"))
            || refuses(&double_request("PUT", "/up/1"));
        let error = if of_blobs {
            put(&repository, b"bytes").unwrap_err()
        } else {
            repository.put_document(&image, Some("v1")).unwrap_err()
        };
        let asked = double.seen().iter().filter(|request| refuses(request)).count();
        assert_eq!(asked, 1, "{error}");
        (error.to_string(), error.hint().unwrap())
    };
    let uploads = |request: &crate::double::Request| request.method == "POST";
    let blobs = |request: &crate::double::Request| request.line() == "PUT /up/1";
    let tags = |request: &crate::double::Request| {
        request.line().ends_with("/manifests/v1") && request.method == "PUT"
    };
    for (status, body, refuses, says, means) in [
        // ECR, Harbor and Docker Hub, of a tag that is there.
        (
            400,
            r#"{"errors":[{"code":"TAG_INVALID","message":"The image tag 'v1' already exists in the 'b' repository and cannot be overwritten because the repository is immutable."}]}"#,
            tags as fn(&crate::double::Request) -> bool,
            "already exists",
            "lets nobody move it",
        ),
        (
            412,
            r#"{"errors":[{"code":"PRECONDITION","message":"Failed to process request due to 'b:v1' configured as immutable."}]}"#,
            tags,
            "configured as immutable",
            "lets nobody move it",
        ),
        (
            403,
            r#"{"errors":[{"code":"DENIED","message":"tag is immutable"}]}"#,
            tags,
            "tag is immutable",
            "lets nobody move it",
        ),
        // From before OCI's manifests: docker's registry, Artifactory, ECR.
        (
            400,
            r#"{"errors":[{"code":"MANIFEST_INVALID","message":"manifest invalid"}]}"#,
            tags,
            "manifest invalid",
            "nothing but Docker's own",
        ),
        (415, "unsupported content type", tags, "415", "nothing but Docker's own"),
        (
            405,
            r#"{"errors":[{"code":"UNSUPPORTED","message":"Invalid parameter at 'ImageManifest'"}]}"#,
            tags,
            "405",
            "nothing but Docker's own",
        ),
        // Harbor and Quay, where no room is left.
        (
            403,
            r#"{"errors":[{"code":"DENIED","message":"adding 29.0 MiB of storage resource, which when updated to current usage of 152.4 MiB will exceed the configured upper limit of 10.0 MiB."}]}"#,
            blobs,
            "152.4 MiB",
            "used up",
        ),
        (
            403,
            r#"{"errors":[{"code":"DENIED","message":"Quota has been exceeded on namespace"}]}"#,
            uploads,
            "exceeded",
            "used up",
        ),
        // GitHub's, of a token that may not.
        (
            403,
            r#"{"errors":[{"code":"DENIED","message":"permission_denied: write_package"}]}"#,
            uploads,
            "write_package",
            "packages: write",
        ),
        (
            403,
            r#"{"errors":[{"code":"DENIED","message":"permission_denied: The token provided does not match expected scopes."}]}"#,
            uploads,
            "expected scopes",
            "packages: write",
        ),
        (
            413,
            "<html><head><title>413 Request Entity Too Large</title></head></html>",
            tags,
            "Too Large",
            "4 MiB",
        ),
        (413, "", tags, "413", "4 MiB"),
        (
            405,
            r#"{"errors":[{"code":"UNSUPPORTED","message":"The operation is unsupported."}]}"#,
            uploads,
            "unsupported",
            "read-only",
        ),
    ] {
        let (error, hint) = told(status, body, refuses);
        assert!(error.contains(says), "{error}");
        assert!(hint.contains(means), "{error}: {hint}");
    }
}

/// A request as the double would see it, to find out whom a test's rule is for.
fn double_request(method: &str, target: &str) -> crate::double::Request {
    crate::double::Request {
        method: method.to_owned(),
        target: target.to_owned(),
        headers: Vec::new(),
        body: Vec::new(),
    }
}

#[test]
fn who_asked_for_what_is_named_where_that_is_denied() {
    let tokens = Double::start(|_, _| Reply::new(200).body(r#"{"token":"t","expires_in":600}"#));
    let realm = format!(r#"Bearer realm="http://{}/token",service="s""#, tokens.host());
    let double = Double::start(move |request, _| match request.header("authorization") {
        None => Reply::new(401).with("WWW-Authenticate", &realm),
        Some(_) => Reply::new(403)
            .body(r#"{"errors":[{"code":"DENIED","message":"requested access is denied"}]}"#),
    });
    let keychain = login(&double);
    let hint = put(&open_as(&double, keychain), b"bytes").unwrap_err().hint().unwrap();
    assert!(hint.contains("`repository:a/b:pull,push`"), "{hint}");
    assert!(hint.contains("as `me` from the command line"), "{hint}");
    let hint = put(&open(&double), b"bytes").unwrap_err().hint().unwrap();
    assert!(hint.contains("`repository:a/b:pull,push`") && hint.contains("login"), "{hint}");
}

#[test]
fn an_immutable_tag_that_stands_for_the_same_already_is_no_failure() {
    let memory = Memory::default();
    let image = memory.add_manifest(&Platform::host(), &[1000], 51);
    let other = memory.add_manifest(&Platform::host(), &[1000], 52);
    let (digest, bytes) = (image.digest().to_string(), image.bytes().to_vec());
    let double = Double::start(move |request, _| match request.method.as_str() {
        "PUT" => {
            Reply::new(400).body(r#"{"errors":[{"code":"TAG_INVALID","message":"immutable"}]}"#)
        }
        "HEAD" | "GET" if request.target.contains("/manifests/v1") => Reply::new(200)
            .with("Content-Type", media_type::MANIFEST)
            .with("Docker-Content-Digest", &digest)
            .body(bytes.clone()),
        _ => Reply::new(200),
    });
    open(&double).put_document(&image, Some("v1")).unwrap();
    assert!(open(&double).put_document(&other, Some("v1")).is_err());
}
