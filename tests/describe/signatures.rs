//! `keygen`, `sign` and `verify`: what a registry gets, checked by openssl and by cosign.

use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;

use super::{get, get_json, listing};
use crate::support::base;
use crate::support::cli::{Project, Ran, Who};
use crate::support::image::digest;
use crate::support::registry::Registry;
use crate::support::run;

const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// A project with an image and its index, and the index's digest.
fn built() -> (Project, String) {
    let project = Project::with_tiny_base(Who::Root);
    project.definition("one", &["a"]).script("a", "echo a > /srv/a");
    let digest = project.build("one");
    (project, digest)
}

fn with_password(project: &Project, password: &str, line: &[&str]) -> Ran {
    Ran::of(project.command(line).env("COSIGN_PASSWORD", password))
}

/// Whether openssl takes a signature for the key's.
fn openssl_verifies(project: &Project, key: &str, message: &[u8], signature: &[u8]) -> bool {
    let (of_message, of_signature) = (project.path("message"), project.path("signature"));
    std::fs::write(&of_message, message).unwrap();
    std::fs::write(&of_signature, signature).unwrap();
    let line = ["dgst", "-sha256", "-verify", key, "-signature"];
    let mut command = Command::new("openssl");
    command.args(line).arg(of_signature).arg(of_message).current_dir(project.path(""));
    command.output().unwrap().status.success()
}

/// The one bundle that refers to a digest, as a plain client finds it.
fn bundle(host: &str, list: &Value) -> (Value, Value) {
    let entries = list["manifests"].as_array().unwrap();
    let entry = entries.iter().find(|entry| entry["artifactType"] == BUNDLE).unwrap();
    assert_eq!(
        entry["annotations"]["dev.sigstore.bundle.predicateType"],
        "https://sigstore.dev/cosign/sign/v1"
    );
    let manifest = get_json(host, &format!("one/manifests/{}", entry["digest"].as_str().unwrap()));
    assert_eq!(manifest["artifactType"], BUNDLE);
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.oci.empty.v1+json");
    let blob = manifest["layers"][0]["digest"].as_str().unwrap();
    assert_eq!(manifest["layers"][0]["mediaType"], BUNDLE);
    (get_json(host, &format!("one/blobs/{blob}")), manifest)
}

#[test]
fn a_signature_is_what_the_specifications_say_and_openssl_agrees() {
    let (project, index) = built();
    let registry = Registry::plain();
    let (host, name) = (registry.host(), registry.image("one"));
    project.run(&["push", "-q", "localhost/one", "--to", &name, "--attest", "none"]).ok();
    with_password(&project, "open sesame", &["keygen", "keys/mine"]).fails(1);
    std::fs::create_dir(project.path("keys")).unwrap();
    with_password(&project, "open sesame", &["keygen", "keys/mine"]).ok();
    let mode = run(Command::new("stat").args(["-c", "%a"]).arg(project.path("keys/mine.key")));
    assert_eq!(mode.stdout, b"600\n");
    let again = with_password(&project, "x", &["keygen", "keys/mine"]).fails(2);
    assert!(again.contains("mine.key is there already"), "{again}");

    let sign = ["sign", "-q", "--key", "keys/mine.key", "--tag", &name];
    let wrong = with_password(&project, "x", &sign).fails(2);
    assert!(wrong.contains("the password does not open it"), "{wrong}");
    let none = project.run(&sign).fails(2);
    assert!(none.contains("COSIGN_PASSWORD"), "{none}");
    with_password(&project, "open sesame", &sign).ok();

    // The image is what it was, and only the fallback's tags have come.
    assert_eq!(digest(&get(&host, "one/manifests/latest")), index);
    let tags = get_json(&host, "one/tags/list")["tags"].as_array().unwrap().len();
    assert_eq!(tags, 5, "latest; a list and an older signature of index and image");

    let hex = index.strip_prefix("sha256:").unwrap();
    let (bundle, manifest) =
        bundle(&host, &get_json(&host, &format!("one/manifests/sha256-{hex}")));
    assert_eq!(manifest["subject"]["digest"], index);
    assert_eq!(bundle["mediaType"], BUNDLE);
    let envelope = &bundle["dsseEnvelope"];
    let decode = |value: &Value| BASE64.decode(value.as_str().unwrap()).unwrap();
    let (payload, signature) =
        (decode(&envelope["payload"]), decode(&envelope["signatures"][0]["sig"]));
    assert_eq!(envelope["payloadType"], "application/vnd.in-toto+json");
    let head = format!("DSSEv1 28 application/vnd.in-toto+json {} ", payload.len());
    let message = [head.as_bytes(), &payload].concat();
    assert!(openssl_verifies(&project, "keys/mine.pub", &message, &signature));
    let statement: Value = serde_json::from_slice(&payload).unwrap();
    assert_eq!(statement["_type"], "https://in-toto.io/Statement/v1");
    assert_eq!(statement["predicateType"], "https://sigstore.dev/cosign/sign/v1");
    assert_eq!(statement["subject"][0]["digest"]["sha256"], hex);
    let der = run(Command::new("openssl")
        .args(["pkey", "-pubin", "-in", "keys/mine.pub", "-outform", "DER"])
        .current_dir(project.path("")))
    .stdout;
    let hash: Vec<u8> = (0..64)
        .step_by(2)
        .map(|at| u8::from_str_radix(&digest(&der)["sha256:".len()..][at..at + 2], 16).unwrap())
        .collect();
    assert_eq!(bundle["verificationMaterial"]["publicKey"]["hint"], BASE64.encode(hash));

    // The older form.
    let older = get_json(&host, &format!("one/manifests/sha256-{hex}.sig"));
    let layer = &older["layers"][0];
    assert_eq!(layer["mediaType"], "application/vnd.dev.cosign.simplesigning.v1+json");
    let payload = get(&host, &format!("one/blobs/{}", layer["digest"].as_str().unwrap()));
    let signature = decode(&layer["annotations"]["dev.cosignproject.cosign/signature"]);
    assert!(openssl_verifies(&project, "keys/mine.pub", &payload, &signature));
    let payload: Value = serde_json::from_slice(&payload).unwrap();
    assert_eq!(payload["critical"]["image"]["docker-manifest-digest"], index);
    assert_eq!(payload["critical"]["type"], "cosign container image signature");

    // Signed again, nothing is added.
    let twice = with_password(&project, "open sesame", &sign).ok();
    assert_eq!(twice.matches("(was there)").count(), 4, "{twice}");
}

#[test]
fn cosign_takes_what_we_sign_and_we_take_what_it_signs() {
    let (project, _) = built();
    let registry = Registry::plain();
    let (ours, theirs) = (registry.image("ours"), registry.image("theirs"));
    project.run(&["push", "-q", "localhost/one", "--to", &ours]).ok();
    project.run(&["push", "-q", "localhost/one", "--to", &theirs, "--attest", "none"]).ok();
    // An empty one: nobody vouches for these keys, and nothing is asked for over the network.
    let root = r#"{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}"#;
    std::fs::write(project.path("root.json"), root).unwrap();
    let program = base::newest("cosign");
    let cosign = |line: &[&str]| {
        let mut command = Command::new(&program);
        command.args(line).current_dir(project.path("")).env("COSIGN_PASSWORD", "open sesame");
        command.env("HOME", project.path("")).output().unwrap()
    };
    let bundles = ["--trusted-root", "root.json"];
    let older = ["--new-bundle-format=false"];
    let verify = ["verify", "--insecure-ignore-tlog", "--allow-http-registry", "--key"];

    with_password(&project, "open sesame", &["keygen", "mine"]).ok();
    with_password(&project, "open sesame", &["keygen", "other"]).ok();
    let sign = ["sign", "-q", "--key", "mine.key", "--attached", "--tag", &ours];
    with_password(&project, "open sesame", &sign).ok();
    for form in [&bundles[..], &older] {
        let with = |key| cosign(&[&verify[..], &[key], form, &[&ours]].concat());
        let found = with("mine.pub");
        assert!(found.status.success(), "{form:?}: {}", String::from_utf8_lossy(&found.stderr));
        assert!(!with("other.pub").status.success(), "{form:?}");
    }
    // The provenance is of the image, the list of packages of its platform.
    let index = get_json(&registry.host(), "ours/manifests/latest");
    let platform = format!("{ours}@{}", index["manifests"][0]["digest"].as_str().unwrap());
    let line = ["verify-attestation", "--insecure-ignore-tlog", "--allow-http-registry", "--key"];
    for (kind, name) in [("slsaprovenance1", &ours), ("spdxjson", &platform)] {
        let what = ["mine.pub", "--type", kind, name];
        let found = cosign(&[&line[..], &what, &bundles].concat());
        assert!(found.status.success(), "{kind}: {}", String::from_utf8_lossy(&found.stderr));
    }

    assert!(cosign(&["generate-key-pair"]).status.success());
    let sign =
        ["sign", "-y", "--key", "cosign.key", "--tlog-upload=false", "--allow-http-registry"];
    let check = ["verify", "--key", "cosign.pub", &theirs];
    let mut signed = 0;
    for form in [&["--use-signing-config=false"][..], &["--use-signing-config=false", older[0]]] {
        project.run(&["verify", "--key", "mine.pub", &theirs]).fails(1);
        let done = cosign(&[&sign[..], form, &[&theirs]].concat());
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        signed += 1;
        let said = project.run(&check).ok();
        assert_eq!(said.matches("  signed  ").count(), signed, "{said}");
    }
    // Its key signs for us, too.
    let sign = ["sign", "-q", "--key", "cosign.key", &ours];
    with_password(&project, "open sesame", &sign).ok();
    assert!(cosign(&[&verify[..], &["cosign.pub"], &bundles, &[&ours]].concat()).status.success());
}

#[test]
fn an_image_is_verified_by_the_key_that_signed_it_and_no_other() {
    let (project, index) = built();
    let double = listing::start();
    let name = format!("{}/one", double.host());
    project.run(&["push", "-q", "localhost/one", "--to", &name, "--attest", "none"]).ok();
    for (number, line) in [
        "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out 0.key",
        "ecparam -name prime256v1 -genkey -out 1.key",
        "genpkey -algorithm ed25519 -out 2.key",
        "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out 3.key",
    ]
    .iter()
    .enumerate()
    {
        let folder = project.path("");
        run(Command::new("openssl").args(line.split(' ')).current_dir(&folder));
        let (key, public) = (format!("{number}.key"), format!("{number}.pub"));
        let line = ["pkey", "-in", &key, "-pubout", "-out", &public];
        run(Command::new("openssl").args(line).current_dir(&folder));
    }
    let nobody = project.run(&["verify", "--key", "0.pub", &name]).fails(1);
    assert!(nobody.contains("is not signed by anyone"), "{nobody}");
    for number in 0..3 {
        let (key, public) = (format!("{number}.key"), format!("{number}.pub"));
        project.run(&["sign", "-q", "--key", &key, &name]).ok();
        let shown = project.run(&["verify", "--key", &public, &name]).ok();
        assert!(shown.starts_with(&format!("{name}@{index}\n")), "{shown}");
    }
    let all = project.run(&["verify", "--json", "--key", "2.pub", "--key", "0.pub", &name]).json();
    assert_eq!(all["digest"], index);
    assert_eq!(all["signatures"].as_array().unwrap().len(), 2, "{all}");
    let other = project.run(&["verify", "--key", "3.pub", &name]).fails(1);
    assert!(other.contains("is not signed by the given key"), "{other}");
    // It lists them itself: no tag is made.
    let puts: Vec<String> = double
        .seen()
        .iter()
        .filter(|request| request.method == "PUT" && request.target.contains("/manifests/sha256-"))
        .map(crate::double::Request::line)
        .collect();
    assert_eq!(puts, Vec::<String>::new());
}

#[test]
fn a_signature_of_one_image_is_none_of_another() {
    let (project, _) = built();
    project.definition("two", &["b"]).script("b", "echo b > /srv/b");
    let other = project.build("two");
    let registry = Registry::plain();
    let host = registry.host();
    let name = registry.image("one");
    project.run(&["push", "-q", "localhost/one", "--to", &name, "--attest", "none"]).ok();
    project.run(&["push", "-q", "localhost/two", "--to", &registry.image("one:two")]).ok();
    with_password(&project, "", &["keygen", "k"]).ok();
    with_password(&project, "", &["sign", "-q", "--key", "k.key", "--tag", &name]).ok();
    // Somebody who may write puts the first image's signatures beside the second.
    let (one, two) = (digest(&get(&host, "one/manifests/latest")), other);
    for (from, to) in [(&one, &two)] {
        let tag = |digest: &str, suffix: &str| format!("{}{suffix}", digest.replacen(':', "-", 1));
        for suffix in ["", ".sig"] {
            let bytes = get(&host, &format!("one/manifests/{}", tag(from, suffix)));
            put(&project.path("stolen"), &host, &tag(to, suffix), &bytes);
        }
    }
    let stolen = registry.image("one:two");
    let error = project.run(&["verify", "--key", "k.pub", &stolen]).fails(1);
    assert!(error.contains("is not signed by the given key"), "{error}");
    project.run(&["verify", "--key", "k.pub", &name]).ok();
}

fn put(scratch: &Path, host: &str, tag: &str, bytes: &[u8]) {
    std::fs::write(scratch, bytes).unwrap();
    let value: Value = serde_json::from_slice(bytes).unwrap();
    let media_type = value["mediaType"].as_str().unwrap();
    let url = format!("http://{host}/v2/one/manifests/{tag}");
    run(Command::new("curl")
        .args(["-sSf", "-X", "PUT", "-H", &format!("Content-Type: {media_type}"), &url])
        .arg("--data-binary")
        .arg(format!("@{}", scratch.display())));
}
