//! How an image was built: what is written down, what a push sends of it, and how long it stays.

use serde_json::{Value, json};

use super::{get, get_json, keeps_to, listing, schema};
use crate::support::cli::{Project, Ran, Who, binary};
use crate::support::image::digest;
use crate::support::registry::Registry;

const SPDX: &str = "application/spdx+json";
const STATEMENT: &str = "application/vnd.in-toto+json";

/// A recipe with a file of its own, and one whose step may use the network.
fn project(who: Who) -> Project {
    let project = Project::with_tiny_base(who);
    project
        .definition("one", &["quiet", "loud"])
        .write("layers/quiet/data", "data\n")
        .write(
            "layers/quiet/layer.toml",
            "[[step]]\ncopy = \"data\"\nto = \"/srv/data\"\n\
             [[step]]\nscript = \"echo a > /srv/a\"\nnetwork = false\n",
        )
        .script("loud", "echo b > /srv/b");
    project
}

fn statement(project: &Project) -> Value {
    serde_json::from_str(&project.run(&["provenance", "localhost/one"]).ok()).unwrap()
}

/// The manifest below an index of one platform, in a registry.
fn manifest_of(host: &str, index: &str) -> String {
    let index = get_json(host, &format!("one/manifests/{index}"));
    assert_eq!(index["manifests"].as_array().unwrap().len(), 1, "no entry is added");
    index["manifests"][0]["digest"].as_str().unwrap().to_owned()
}

#[test]
fn a_build_says_what_it_stands_on() {
    let root = project(Who::Root);
    root.run(&["build", "one"]).ok();
    let text = root.run(&["provenance", "localhost/one"]).ok();
    let said: Value = serde_json::from_str(&text).unwrap();
    keeps_to(&schema("slsa-provenance-1.json"), &said);
    let shown = root.run(&["show", "localhost/one", "--json"]).json();
    let manifest = shown["platforms"][0]["manifest"].as_str().unwrap().to_owned();
    assert_eq!(said["subject"][0]["digest"]["sha256"], manifest["sha256:".len()..]);
    assert_eq!(said["subject"][0]["name"], "localhost/one");
    let definition = &said["predicate"]["buildDefinition"];
    let expected = json!({ "definition": "one", "platform": "linux/amd64" });
    assert_eq!(definition["externalParameters"], expected);
    let internal = &definition["internalParameters"];
    assert_eq!(internal["compression"], "gzip-1");
    assert_eq!(internal["mode"], "root");
    let networks: Vec<&Value> =
        internal["layers"].as_array().unwrap().iter().map(|layer| &layer["network"]).collect();
    assert_eq!(networks[0], "off");
    // Without a lock, whatever upstream has comes in.
    assert!(networks[1] == "open" || networks[1] == "recorded", "{networks:?}");
    assert_eq!(internal["hermetic"], false);
    assert_eq!(internal["dependenciesComplete"], networks[1] == "recorded");
    let of = |name: &str| {
        let mut all = definition["resolvedDependencies"].as_array().unwrap().iter();
        let found = all.find(|one| one["name"] == name).unwrap_or_else(|| panic!("{name}: {text}"));
        format!("sha256:{}", found["digest"]["sha256"].as_str().unwrap())
    };
    for name in [
        "manifests/one.toml",
        "layers/quiet/layer.toml",
        "layers/quiet/data",
        "layers/loud/layer.toml",
    ] {
        assert_eq!(of(name), digest(&std::fs::read(root.path(name)).unwrap()), "{name}");
    }
    let base = root.run(&["show", "localhost/tiny:1", "--json"]).json();
    assert_eq!(of("base"), base["platforms"][0]["manifest"].as_str().unwrap());
    let program = &said["predicate"]["runDetails"]["builder"]["builderDependencies"][0]["digest"];
    let own = digest(&std::fs::read(binary()).unwrap());
    assert_eq!(program["sha256"], own["sha256:".len()..]);

    // Whoever does the same says the same, but for how she is root.
    root.run(&["build", "one", "--no-cache"]).ok();
    assert_eq!(root.run(&["provenance", "localhost/one"]).ok(), text);
    for (who, mode) in [(Who::Range, "range"), (Who::Single, "single")] {
        let other = project(who);
        other.run(&["build", "one"]).ok();
        let mut hers = statement(&other);
        let mode_of = &mut hers["predicate"]["buildDefinition"]["internalParameters"]["mode"];
        assert_eq!(mode_of.take(), mode);
        *mode_of = json!("root");
        assert_eq!(hers, said, "{mode}");
    }
}

#[test]
fn lost_owners_are_told() {
    let single = project(Who::Single);
    single.run(&["build", "one", "--mode", "single", "--ownership", "discard"]).ok();
    let said = statement(&single);
    let definition = &said["predicate"]["buildDefinition"];
    assert_eq!(definition["externalParameters"]["ownership"], "discard");
}

#[test]
fn a_push_sends_it_along_and_the_image_stays_as_it_is() {
    let project = project(Who::Root);
    let index = project.build("one");
    let registry = Registry::plain();
    let (host, name) = (registry.host(), registry.image("one"));
    let pushed = project.run(&["push", "--json", "localhost/one", "--to", &name]).json();
    assert_eq!(pushed[0]["attached"].as_array().unwrap().len(), 3, "{pushed}");
    assert_eq!(digest(&get(&host, "one/manifests/latest")), index);
    let manifest = manifest_of(&host, &index);
    // Debian's registry lists nothing: the list is under a tag.
    let listed = |subject: &str| -> Vec<String> {
        let list = get_json(&host, &format!("one/manifests/{}", subject.replacen(':', "-", 1)));
        let entries = list["manifests"].as_array().unwrap();
        entries.iter().map(|one| one["artifactType"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(listed(&manifest), [STATEMENT, SPDX]);
    assert_eq!(listed(&index), [STATEMENT]);
    // skopeo reads such an artifact, too, and finds it whole.
    let tag = manifest.replacen(':', "-", 1);
    let list = get_json(&host, &format!("one/manifests/{tag}"));
    for entry in list["manifests"].as_array().unwrap() {
        let artifact = format!("docker://{name}@{}", entry["digest"].as_str().unwrap());
        let line = ["copy", "--src-tls-verify=false", &artifact];
        let layout = format!("oci:{}", project.path("artifact").display());
        let mut command = std::process::Command::new("skopeo");
        crate::support::run(command.args(line).arg(layout));
    }

    // From the registry it is what it is from the store; a second push changes nothing.
    let here = project.run(&["provenance", "localhost/one"]).ok();
    assert_eq!(project.run(&["provenance", "--remote", &name]).ok(), here);
    let sbom = project.run(&["sbom", "-q", "localhost/one"]).ok();
    assert_eq!(project.run(&["sbom", "-q", "--remote", &name]).ok(), sbom);
    assert_eq!(project.run(&["sbom", "-q", "--remote", "--read", &name]).ok(), sbom);
    let again = project.run(&["push", "--json", "localhost/one", "--to", &name]).json();
    assert_eq!(again[0]["attached"], pushed[0]["attached"]);
    assert_eq!(listed(&manifest).len(), 2);

    let bare = registry.image("bare");
    project.run(&["push", "localhost/one", "--to", &bare, "--attest", "none"]).ok();
    assert_eq!(get_json(&host, "bare/tags/list")["tags"], json!(["latest"]));
    let error = project.run(&["provenance", "--remote", &bare]).fails(1);
    assert!(error.contains("has no provenance beside it"), "{error}");
}

#[test]
fn what_is_attached_is_signed_if_asked_for() {
    let project = project(Who::Root);
    project.build("one");
    let double = listing::start();
    let name = format!("{}/one", double.host());
    project.run(&["push", "localhost/one", "--to", &name]).ok();
    let with_key = |line: &[&str]| Ran::of(project.command(line).env("COSIGN_PASSWORD", ""));
    with_key(&["keygen", "k"]).ok();
    let claims = || -> Vec<String> {
        let checked = project.run(&["verify", "--json", "--key", "k.pub", &name]).json();
        let list = checked["attestations"].as_array().unwrap();
        let mut claims: Vec<String> =
            list.iter().map(|claim| claim["claim"].as_str().unwrap().to_owned()).collect();
        claims.sort();
        claims
    };
    with_key(&["sign", "--key", "k.key", &name]).ok();
    assert_eq!(claims(), Vec::<String>::new());
    with_key(&["sign", "--key", "k.key", "--attached", &name]).ok();
    let provenance = "https://slsa.dev/provenance/v1";
    assert_eq!(claims(), [provenance, provenance, "https://spdx.dev/Document"]);
    let twice = with_key(&["sign", "--key", "k.key", "--attached", &name]).ok();
    assert_eq!(twice.lines().filter(|line| line.ends_with("(was there)")).count(), 5, "{twice}");
}

#[test]
fn it_goes_with_its_image() {
    let project = project(Who::Root);
    project.build("one");
    project.run(&["gc"]).ok();
    project.run(&["provenance", "localhost/one"]).ok();
    project.run(&["verify"]).ok();
    project.run(&["remove", "localhost/one"]).ok();
    project.run(&["gc"]).ok();
    let index = std::fs::read_to_string(project.store().join("index.json")).unwrap();
    assert!(!index.contains("refers-to"), "{index}");
}
