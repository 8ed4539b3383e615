//! What an image was built from goes with it: from a registry alone the same image is built again,
//! without the network.

use std::process::Command;

use serde_json::{Value, json};

use super::get_json;
use crate::support::cli::{Project, Ran, Who, names};
use crate::support::registry::Registry;
use crate::support::upstream::Upstream;

const PAGE: &str = "http://pages.example/one";
const EARLY: &str = "Mon, 02 Jun 2025 12:00:00 GMT";

const INPUTS: &str = "application/vnd.ocibuild.inputs.v1";
const SOURCES: &str = "application/vnd.ocibuild.sources.v1+tar";

/// A locked definition whose one step writes down a page; its digest.
fn locked() -> (Project, Upstream, String) {
    let web = Upstream::new();
    web.page(PAGE, "first one", EARLY);
    let project = Project::with_tiny_base(Who::Root);
    project
        .write("layers/one/conf/file", "of the recipe\n")
        .write("layers/one/go.sh", format!("#!/bin/sh\nwget -q -O /one {PAGE}\n"))
        .write(
            "layers/one/layer.toml",
            "[[step]]\nrun = \"go.sh\"\n[[step]]\ncopy = \"conf\"\nto = \"/etc/conf\"\n",
        )
        .definition("one", &["one"]);
    let script = project.path("layers/one/go.sh");
    std::fs::set_permissions(script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    online(&project, &web, &["lock", "one"]).ok();
    let digest = online(&project, &web, &["build", "one", "--locked"]).ok();
    (project, web, digest)
}

fn online(project: &Project, web: &Upstream, arguments: &[&str]) -> Ran {
    Ran::of(project.command(arguments).env("http_proxy", web.address()))
}

fn types(host: &str, name: &str, subject: &str) -> Vec<String> {
    let tag = subject.replacen(':', "-", 1);
    let list = get_json(host, &format!("{name}/manifests/{tag}"));
    let entries = list["manifests"].as_array().unwrap();
    let mut types: Vec<String> =
        entries.iter().map(|entry| entry["artifactType"].as_str().unwrap().to_owned()).collect();
    types.sort();
    types
}

#[test]
fn an_image_is_built_again_from_its_registry_alone() {
    let (project, web, digest) = locked();
    let registry = Registry::plain();
    let (host, name) = (registry.host(), registry.image("one"));
    project.run(&["push", "-q", "localhost/one", "--to", &name, "--inputs"]).ok();
    let index = get_json(&host, &format!("one/manifests/{digest}"));
    let manifest = index["manifests"][0]["digest"].as_str().unwrap().to_owned();
    let attached = types(&host, "one", &manifest);
    assert!(attached.iter().any(|one| one == INPUTS), "{attached:?}");
    assert!(attached.iter().any(|one| one == SOURCES), "{attached:?}");
    web.cut();

    // A stranger, with a store of her own and no base in it.
    let other = Project::new();
    other.run(&["pull", "-q", "--inputs", &name]).ok();
    let folder = other.run(&["provenance", &name, "--unpack", "again"]).ok();
    assert_eq!(names(&other.path("again")), ["layers", "manifests"]);
    let mut build = other.command(&["build", "one", "--locked", "--offline"]);
    build.current_dir(folder).env("http_proxy", web.address());
    assert_eq!(Ran::of(&mut build).ok(), digest);
    // What it was built from stays as long as the image does.
    other.run(&["gc"]).ok();
    let bodies =
        other.store().join("blobs/sha256").join(ocibuild::oci::Digest::of(b"first one").hex());
    assert!(bodies.exists());

    // Unpacked is the very project, and never over another.
    let diff = Command::new("diff")
        .args(["-r", "-x", "*.lock"])
        .args([project.path("layers/one"), other.path("again/layers/one")])
        .output()
        .unwrap();
    assert!(diff.status.success(), "{}", String::from_utf8_lossy(&diff.stdout));
    let again = other.run(&["provenance", &name, "--unpack", "again"]).fails(1);
    assert!(again.contains("again"), "{again}");
}

#[test]
fn inputs_go_along_only_if_asked_for() {
    let (project, _web, digest) = locked();
    let registry = Registry::plain();
    let (host, name) = (registry.host(), registry.image("one"));
    project.run(&["push", "-q", "localhost/one", "--to", &name]).ok();
    let index = get_json(&host, &format!("one/manifests/{digest}"));
    let manifest = index["manifests"][0]["digest"].as_str().unwrap().to_owned();
    assert_eq!(types(&host, "one", &manifest).iter().filter(|one| *one == INPUTS).count(), 0);
    let other = Project::new();
    let error = other.run(&["pull", "-q", "--inputs", &name]).fails(1);
    assert!(error.contains("has no inputs beside it"), "{error}");

    // Once they are kept for one push, the next still needs the word.
    project.run(&["push", "-q", "localhost/one", "--to", &registry.image("two"), "--inputs"]).ok();
    project.run(&["push", "-q", "localhost/one", "--to", &registry.image("three")]).ok();
    assert!(types(&host, "two", &manifest).iter().any(|one| one == INPUTS));
    assert!(!types(&host, "three", &manifest).iter().any(|one| one == INPUTS));

    // Without a lock nobody knows what they are.
    let tiny = registry.image("tiny");
    let error = project.run(&["push", "localhost/tiny:1", "--to", &tiny, "--inputs"]).fails(2);
    assert!(error.contains("was not built here with a lock"), "{error}");
}

#[test]
fn what_came_with_credentials_needs_a_word() {
    let (project, web, _) = locked();
    let lock = project.path("manifests/one.lock");
    let text = std::fs::read_to_string(&lock).unwrap();
    // As the recorder writes it down of a request with a token.
    std::fs::write(&lock, text.replace("method = \"GET\"", "credentials = true, method = \"GET\""))
        .unwrap();
    online(&project, &web, &["build", "one", "--locked"]).ok();
    let registry = Registry::plain();
    let name = registry.image("one");
    let error = project.run(&["push", "localhost/one", "--to", &name, "--inputs"]).fails(1);
    assert!(error.contains(PAGE) && error.contains("--yes"), "{error}");
    project.run(&["push", "localhost/one", "--to", &name, "--inputs", "--yes"]).ok();
    let said: Value =
        serde_json::from_str(&project.run(&["provenance", "localhost/one"]).ok()).unwrap();
    let definition = &said["predicate"]["buildDefinition"];
    assert_eq!(definition["internalParameters"]["hermetic"], json!(true));
    let mut dependencies = definition["resolvedDependencies"].as_array().unwrap().iter();
    assert!(dependencies.any(|one| one["uri"] == PAGE), "{said}");
    super::keeps_to(&super::schema("slsa-provenance-1.json"), &said);
}
