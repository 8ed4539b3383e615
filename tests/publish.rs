//! `copy` from registry to registry, with what refers to an image, and `push` to several destinations.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Mutex;

use ocibuild::http::{Client, Config};
use ocibuild::oci::{Descriptor, Digest, Document, Platform, Reference, media_type};
use ocibuild::registry::{Keychain, Registries, Repository};
use ocibuild::report::Silent;
use ocibuild::transfer::{Options, Sink, Source, copy};

use crate::double::{Double, Reply};
use crate::support::cli::{Project, Ran, Who};
use crate::support::memory::Memory;
use crate::support::registry::Registry;
use crate::support::run;

fn open(name: &str) -> Repository {
    let registries =
        Registries::new(Client::new(Config::default()), Keychain::new(&BTreeMap::new()));
    registries.open(&name.parse::<Reference>().unwrap())
}

fn push(memory: &Memory, root: &Document, name: &str) {
    let tags: Vec<String> =
        name.parse::<Reference>().unwrap().tag().map(str::to_owned).into_iter().collect();
    copy(memory, &open(name), root, &tags, &Options::default(), &Silent).unwrap();
}

/// The very bytes that a name stands for, as skopeo gets them.
fn raw(name: &str) -> Vec<u8> {
    let name = format!("docker://{name}");
    run(Command::new("skopeo").args(["inspect", "--raw", "--tls-verify=false", &name])).stdout
}

/// An artifact with a blob of its own that refers to `subject`.
fn referrer(memory: &Memory, subject: &Document, text: &str) -> Document {
    let layer = memory.add_blob("text/plain", text.as_bytes());
    let config = memory.add_blob("application/vnd.oci.empty.v1+json", b"{}");
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type::MANIFEST, "artifactType": "test/sbom",
        "config": config, "layers": [layer], "subject": subject.descriptor(),
        "annotations": {"says": text},
    });
    memory.add_document(Document::read(manifest.to_string().into_bytes(), None).unwrap())
}

#[test]
fn an_image_is_copied_with_what_refers_to_it() {
    let (one, two) = (Registry::plain(), Registry::plain());
    let memory = Memory::default();
    let index = memory.add_index(&[2_000_000, 700_000], 41);
    let from = one.image("some/image:v1");
    push(&memory, &index, &from);
    // One that refers to the index, one to that one, one to a platform.
    let sbom = referrer(&memory, &index, "sbom");
    let signature = referrer(&memory, &sbom, "signature of the sbom");
    let platform = memory.document(&index.index().unwrap().manifests[0]).unwrap();
    let of_platform = referrer(&memory, &platform, "of a platform");
    for document in [&sbom, &signature, &of_platform] {
        push(&memory, document, &one.image("some/image"));
    }
    let again = referrer(&memory, &index, "a second one");
    push(&memory, &again, &one.image("some/image"));

    let project = Project::new();
    let to = two.image("other/name:v2");
    let copied = project
        .run(&["copy", &from, &to, "--referrers", "--tag", "also", "--digest-file", "d", "--json"])
        .json();
    assert_eq!(copied["digest"], index.digest().to_string());
    assert_eq!(copied["referrers"].as_array().unwrap().len(), 4, "{copied}");
    assert_eq!(
        std::fs::read_to_string(project.path("d")).unwrap().trim(),
        index.digest().to_string()
    );
    assert_eq!(raw(&to), index.bytes());
    assert_eq!(raw(&two.image("other/name:also")), index.bytes());
    let there = open(&to);
    let listed = there.referrers(index.digest()).unwrap();
    let digests: Vec<Digest> = listed.iter().map(|entry| entry.digest).collect();
    assert_eq!(digests, [sbom.digest(), again.digest()]);
    assert_eq!(listed[0].rest["artifactType"], "test/sbom");
    assert_eq!(listed[0].annotations["says"], "sbom");
    let tag = format!("other/name:sha256-{}", sbom.digest().hex());
    let list: serde_json::Value = serde_json::from_slice(&raw(&two.image(&tag))).unwrap();
    assert_eq!(list["manifests"][0]["digest"], signature.digest().to_string());
    assert_eq!(there.referrers(platform.digest()).unwrap()[0].digest, of_platform.digest());
    assert!(!project.store().join("blobs").exists(), "something was written to the store");

    // Once more: nothing is sent. Within a registry: nothing but names.
    let once_more = project.run(&["copy", &from, &to, "--referrers", "--json"]).json();
    assert_eq!((&once_more["blobs"], &once_more["bytes"]), (&0.into(), &0.into()), "{once_more}");
    let beside = project.run(&["copy", &to, &two.image("third:1"), "--json"]).json();
    assert_eq!((&beside["blobs"], &beside["mounted"]), (&0.into(), &6.into()), "{beside}");
    assert_eq!(beside["referrers"], serde_json::json!([]));
}

#[test]
fn a_docker_image_is_copied_byte_for_byte_and_a_digest_moves_no_tag() {
    let (one, two) = (Registry::plain(), Registry::plain());
    let memory = Memory::default();
    let image = memory.add_manifest(&Platform::host(), &[300_000, 10], 42);
    let config = image.manifest().unwrap().config;
    let docker = |kind: &str, has: &Descriptor| Descriptor::new(kind, has.digest, has.size);
    let layers: Vec<Descriptor> = image.manifest().unwrap().layers;
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type::DOCKER_MANIFEST,
        "config": docker(media_type::DOCKER_CONFIG, &config),
        "layers": layers.iter().map(|layer| docker(media_type::DOCKER_LAYER_GZIP, layer)).collect::<Vec<_>>(),
    });
    let bytes = serde_json::to_vec_pretty(&manifest).unwrap();
    let document = memory.add_document(Document::read(bytes, None).unwrap());
    push(&memory, &document, &one.image("old:1"));

    let project = Project::new();
    let by_digest = format!("{}@{}", two.image("old"), document.digest());
    assert_eq!(project.run(&["copy", &one.image("old:1"), &by_digest]).ok(), by_digest);
    assert!(
        open(&two.image("old:latest")).resolve(&two.image("old:latest").parse().unwrap()).is_err()
    );
    assert_eq!(raw(&by_digest), document.bytes());
    project.run(&["copy", &one.image("old:1"), &two.image("old:1")]).ok();
    assert_eq!(raw(&two.image("old:1")), document.bytes());

    let wrong = format!("{}@{}", two.image("old"), config.digest);
    project.run(&["copy", &one.image("old:1"), &wrong]).fails(2);
    let stderr = project.run(&["copy", &one.image("absent:1"), &two.image("x:1")]).fails(1);
    assert!(stderr.contains("absent"), "{stderr}");
}

#[test]
fn a_registry_that_lists_referrers_itself_is_believed_page_by_page() {
    let subject = Digest::of(b"subject");
    let entry = |text: &str| {
        let mut entry = Descriptor::of(media_type::MANIFEST, text.as_bytes());
        entry.annotations.insert("says".to_owned(), text.to_owned());
        entry
    };
    let page = move |text: &str| {
        let index = serde_json::json!({
            "schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": [entry(text)],
        });
        Reply::new(200).with("Content-Type", media_type::INDEX).body(index.to_string())
    };
    let double = Double::start(move |request, _| match request.method.as_str() {
        "GET" if request.target.ends_with(&format!("referrers/{subject}")) => {
            page("first").with("Link", &format!("</v2/a/referrers/{subject}?page=2>; rel=\"next\""))
        }
        "GET" if request.target.contains("/referrers/") => page("second"),
        "GET" if request.target == "/v2/" => Reply::new(200),
        "PUT" => Reply::new(201).with("OCI-Subject", &subject.to_string()),
        _ => Reply::new(404),
    });
    let repository = open(&format!("{}/a", double.host()));
    let listed = repository.referrers(subject).unwrap();
    let says: Vec<&str> = listed.iter().map(|entry| entry.annotations["says"].as_str()).collect();
    assert_eq!(says, ["first", "second"]);

    let memory = Memory::default();
    let image = memory.add_manifest(&Platform::host(), &[10], 43);
    repository.put_document(&referrer(&memory, &image, "x"), None).unwrap();
    let puts: Vec<String> = double
        .seen()
        .iter()
        .filter(|seen| seen.method == "PUT")
        .map(crate::double::Request::line)
        .collect();
    assert_eq!(puts.len(), 1, "the registry said that it lists it: {puts:?}");
}

fn json(text: &str) -> serde_json::Value {
    text.into()
}

#[test]
fn a_dry_run_says_what_exists_is_mounted_and_sent_and_which_tags_move_and_writes_nothing() {
    let (one, two) = (Registry::plain(), Registry::plain());
    let project = Project::with_tiny_base(Who::Root);
    project.script("own", "head -c 200000 /dev/urandom > /own").definition("d", &["own"]);
    let digest = project.build("d");
    // The base's layer is where it can be mounted from, and under the tag stands something else.
    project.run(&["push", "localhost/tiny:1", "--to", &one.image("base:1")]).ok();
    project.run(&["copy", &one.image("base:1"), &two.image("full:old")]).ok();
    let old = open(&two.image("full:old")).tagged("old").unwrap().unwrap();
    let (a, b, c) = (one.image("a:1"), two.image("full:old"), one.image("again:x"));
    let to = ["push", "localhost/d", "--to", &a, "--to", &b, "--to", &c, "--dry-run"];
    let before = [one.log(), two.log()].map(|log| log.len());

    let plans = project.run(&[&to[..], &["--json", "--tag", "more"]].concat()).json();
    let how = |plan: usize, how: &str| {
        let blobs = plans[plan]["blobs"].as_array().unwrap().iter();
        blobs.filter(|blob| blob["how"] == how).collect::<Vec<_>>()
    };
    for plan in 0..3 {
        assert_eq!(plans[plan]["digest"], json(&digest));
        assert_eq!(plans[plan]["blobs"].as_array().unwrap().len(), 3, "{plans}");
        assert_eq!(
            (&plans[plan]["manifests"], &plans[plan]["manifests_existing"]),
            (&2.into(), &0.into())
        );
    }
    assert_eq!((how(0, "exists").len(), how(0, "mount").len(), how(0, "upload").len()), (0, 1, 2));
    assert_eq!(how(0, "mount")[0]["from"], json(&one.image("base")));
    assert_eq!((how(1, "exists").len(), how(1, "mount").len(), how(1, "upload").len()), (1, 0, 2));
    // What comes to the first repository of a registry, the next one takes from there.
    assert_eq!((how(2, "mount").len(), how(2, "upload").len()), (3, 0), "{plans}");
    assert!(plans[1]["upload_bytes"].as_u64().unwrap() > 200_000);
    assert_eq!(plans[2]["upload_bytes"], 0);
    let tags = &plans[1]["tags"];
    assert_eq!(
        (&tags[0]["tag"], &tags[0]["now"], &tags[0]["moves"]),
        (&json("old"), &json(&old.to_string()), &true.into())
    );
    assert_eq!((&tags[1]["tag"], &tags[1]["now"]), (&json("more"), &serde_json::Value::Null));

    let text = project.run(&to).ok();
    for part in [
        format!("localhost/d:latest -> {a}@{digest}"),
        format!("from {}", one.image("base")),
        format!("old moves from {old}"),
        "1 is new".to_owned(),
    ] {
        assert!(text.contains(&part), "{part}: {text}");
    }
    for (registry, before) in [(&one, before[0]), (&two, before[1])] {
        let log = &registry.log()[before..];
        assert!(log.contains("\"HEAD /v2/"), "{log}");
        for method in ["POST", "PUT", "PATCH", "DELETE"] {
            assert!(!log.contains(&format!("\"{method} ")), "{log}");
        }
    }
    assert!(open(&a).tagged("1").unwrap().is_none());
    assert_eq!(open(&b).tagged("old").unwrap(), Some(old));

    // It was true: the push sends what was said, and afterwards there is nothing to do.
    let pushed =
        project.run(&["push", "localhost/d", "--to", &a, "--to", &b, "--to", &c, "--json"]).json();
    for plan in 0..3 {
        assert_eq!(pushed[plan]["bytes"], plans[plan]["upload_bytes"]);
        assert_eq!(pushed[plan]["mounted"], how(plan, "mount").len());
    }
    let text = project.run(&to).ok();
    assert!(text.contains("old stays") && text.contains("0 to send, 2 there"), "{text}");
    assert!(!text.contains("upload"), "{text}");
}

#[test]
fn tags_move_everywhere_but_where_a_destination_fails_or_the_branch_is_another() {
    let (one, two) = (Registry::plain(), Registry::plain());
    let refusing = Double::start(|request, _| match request.target.as_str() {
        "/v2/" => Reply::new(200),
        _ if request.method == "HEAD" => Reply::new(404),
        _ => Reply::new(403).body(r#"{"errors":[{"code":"DENIED","message":"not you"}]}"#),
    });
    let project = Project::with_tiny_base(Who::Root);
    let (a, b, c) = (one.image("a:1"), two.image("b:2"), format!("{}/c:3", refusing.host()));
    let push = |more: &[&str], reference: &str| {
        let arguments = [&["push", "localhost/tiny:1", "--to", &a, "--to", &b], more].concat();
        let mut command = project.command(&arguments);
        for name in ["GITHUB_REF", "GITHUB_REF_NAME", "GITLAB_CI", "CI_COMMIT_BRANCH"] {
            command.env_remove(name);
        }
        Ran::of(command.env("GITHUB_REF", reference))
    };
    let has = |name: &str| open(name).resolve(&name.parse().unwrap()).is_ok();

    let stderr = push(&["--require-branch", "main"], "refs/heads/other").fails(1);
    assert!(stderr.contains("no tag was moved") && stderr.contains("`other`"), "{stderr}");
    assert!(!has(&a) && !has(&b));
    let ran = push(&["--to", &c, "--digest-file", "d", "--json"], "refs/heads/main");
    let finished: serde_json::Value = serde_json::from_str(&ran.stdout()).unwrap();
    assert_eq!(finished.as_array().unwrap().len(), 2, "{finished}");
    assert_eq!((&finished[0]["destination"], &finished[1]["destination"]), (&json(&a), &json(&b)));
    assert_eq!(std::fs::read_to_string(project.path("d")).unwrap().lines().count(), 2);
    assert_eq!(ran.code(), Some(1), "{ran}");
    assert!(ran.stderr().contains("not you"), "{ran}");
    assert!(has(&a) && has(&b));
    assert_eq!(raw(&a), raw(&b));
    let again = push(&["--require-branch", "main", "--json"], "refs/heads/main").json();
    assert_eq!(again[0]["bytes"], 0, "{again}");
    assert_eq!(
        (&again[0]["tags"], &again[1]["tags"]),
        (&serde_json::json!(["1"]), &serde_json::json!(["2"]))
    );
}

#[test]
fn what_is_built_or_joined_moves_its_tags_from_one_branch_only_and_names_where_it_came() {
    let registry = Registry::plain();
    let refusing = Double::start(|request, _| match request.target.as_str() {
        "/v2/" => Reply::new(200),
        _ if request.method == "HEAD" => Reply::new(404),
        _ => Reply::new(403).body(r#"{"errors":[{"code":"DENIED","message":"not you"}]}"#),
    });
    let project = Project::with_tiny_base(Who::Root);
    project.script("own", "echo own > /own");
    let definition = |name: &str, more: &str| {
        let image = registry.image(name);
        let text = format!(
            "image = \"{image}\"\n{more}base = \"localhost/tiny:1\"\nplatforms = [\"linux/amd64\"]\n\
             layers = [\"own\"]\n"
        );
        project.write(&format!("manifests/{name}.toml"), text);
        image
    };
    let image = definition("held", "");
    let also = format!("also = [\"{}/no\"]\n", refusing.host());
    let half = definition("half", &also);
    let on = |reference: &str, arguments: &[&str]| {
        let mut command = project.command(arguments);
        command.env_remove("GITLAB_CI").env_remove("CI_COMMIT_BRANCH");
        Ran::of(command.env("GITHUB_REF", reference))
    };
    let has = |name: &str| open(name).tagged("latest").unwrap().is_some();
    let (main, other) = ("refs/heads/main", "refs/pull/7/merge");

    let built = ["build", "held", "--push", "--require-branch", "main", "--digest-file", "d"];
    let stderr = on(other, &built).fails(1);
    assert!(stderr.contains("no tag was moved"), "{stderr}");
    assert!(!has(&image));
    let digest = std::fs::read_to_string(project.path("d")).unwrap();
    let at = open(&image).resolve(&format!("{image}@{}", digest.trim()).parse().unwrap());
    assert!(at.is_ok(), "everything but the tag is there");
    let built = project.run(&["build", "held", "--json"]).json();
    let part = format!("{image}@{}", built[0]["platforms"][0]["manifest"].as_str().unwrap());
    let joined = ["index", "held", &part, "--push", "--require-branch", "main", "--json"];
    let ran = on(other, &joined);
    assert_eq!(ran.code(), Some(1), "{ran}");
    assert!(ran.stderr().contains("no tag was moved"), "{ran}");
    assert!(!has(&image));
    let told = on(main, &joined).json();
    assert_eq!(told["pushed"][0]["tags"], serde_json::json!(["latest"]), "{told}");
    assert!(has(&image));
    project.run(&["build", "held", "--require-branch", "main"]).fails(2);

    // Where one of two destinations refuses, the other is named, and the exit code tells.
    let ran = on(main, &["build", "half", "--push", "--json", "--digest-file", "h"]);
    let told: serde_json::Value = serde_json::from_str(&ran.stdout()).unwrap();
    assert_eq!(told[0]["pushed"].as_array().unwrap().len(), 1, "{ran}");
    assert_eq!(told[0]["pushed"][0]["destination"], json(&format!("{half}:latest")));
    let digest = std::fs::read_to_string(project.path("h")).unwrap();
    assert_eq!(told[0]["digest"], json(digest.trim()));
    assert_eq!(ran.code(), Some(1), "{ran}");
    assert!(ran.stderr().contains("not you"), "{ran}");
}

#[test]
fn a_destination_that_lost_a_platform_keeps_every_tag_where_it_is() {
    let registry = Registry::plain();
    // Takes everything and gives manifests back, but denies to have any.
    let kept: Mutex<BTreeMap<String, Vec<u8>>> = Mutex::default();
    let forgetful = Double::start(move |request, _| {
        let name = request.target.split('/').next_back().unwrap().to_owned();
        let is_manifest = request.target.contains("/manifests/");
        match request.method.as_str() {
            "PUT" if is_manifest => {
                kept.lock().unwrap().insert(name, request.body.clone());
                Reply::new(201)
            }
            "GET" if is_manifest => match kept.lock().unwrap().get(&name) {
                Some(bytes) => Reply::new(200)
                    .with("Content-Type", Document::read(bytes.clone(), None).unwrap().media_type())
                    .body(bytes.clone()),
                None => Reply::new(404),
            },
            "HEAD" if is_manifest => Reply::new(404),
            _ => Reply::new(200),
        }
    });
    let project = Project::with_tiny_base(Who::Root);
    let (good, bad) = (registry.image("a:1"), format!("{}/b:1", forgetful.host()));
    let told = project.run(&["push", "localhost/tiny:1", "--to", &good, "--to", &bad]).fails(1);
    assert!(told.contains("no tag was moved anywhere") && told.contains(&bad), "{told}");
    assert!(open(&good).resolve(&good.parse().unwrap()).is_err());
    assert_eq!(forgetful.count("PUT /v2/b/manifests/1"), 0);
    assert_eq!(forgetful.count("PUT /v2/b/manifests/sha256:"), 2, "the image and its index");
}
