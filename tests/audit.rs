//! Images built again from their locks, by others, elsewhere and without a network; and what an audit
//! says where that fails.

use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ocibuild::oci::{Digest, Platform};
use serde_json::Value;

use crate::describe::get_json;
use crate::support::cli::{Project, Ran, Who, binary, copy_tree};
use crate::support::registry::Registry;
use crate::support::upstream::Upstream;
use crate::support::{run, schema};

const PAGE: &str = "http://pages.example/page";
const EARLY: &str = "Mon, 02 Jun 2025 12:00:00 GMT";

/// A definition `built` with a layer that writes down a page and one that runs `script`, locked and
/// built.
fn published(who: Who, script: &str) -> (Project, Upstream, String) {
    let web = Upstream::new();
    web.page(PAGE, "a page", EARLY);
    let project = Project::with_tiny_base(who);
    project
        .script("page", &format!("wget -q -O /srv/page {PAGE}"))
        .script("local", script)
        .definition("built", &["page", "local"]);
    online(&project, &web, &["lock", "built"]).ok();
    let digest = online(&project, &web, &["build", "built", "--locked"]).ok();
    (project, web, digest)
}

fn online(project: &Project, web: &Upstream, arguments: &[&str]) -> Ran {
    Ran::of(project.command(arguments).env("http_proxy", web.address()))
}

/// Makes a pair of keys without a password.
fn keygen(project: &Project, prefix: &str) {
    Ran::of(project.command(&["keygen", prefix]).env("COSIGN_PASSWORD", "")).ok();
}

/// Audits where no route leads out, and returns the report with its exit code.
fn audit(project: &Project, arguments: &[&str]) -> (Option<i32>, Value, Ran) {
    let line: Vec<&str> = ["audit"].into_iter().chain(arguments.iter().copied()).collect();
    let line: Vec<&str> = line.into_iter().chain(["--json"]).collect();
    let ran = Ran::of(&mut project.command_under(&["unshare", "--net"], &line));
    let report: Value =
        serde_json::from_str(&ran.stdout()).unwrap_or_else(|error| panic!("{error}: {ran}"));
    if let Err(error) = schema("audit.schema.json").validate(&report) {
        panic!("{error}: {report:#}");
    }
    assert_eq!(report["exit_code"].as_i64(), ran.code().map(i64::from), "{ran}");
    (ran.code(), report, ran)
}

/// Brings an image and what an auditor needs of it to another project: the definition with its lock
/// and recipes, and the recorded bodies as a store of inputs.
fn handed_over(from: &Project, who: Who, bodies: bool) -> Project {
    from.run(&["export", "localhost/built", "out.tar", "--format", "oci-archive"]).ok();
    let to = Project::with_tiny_base(who);
    for folder in ["layers", "manifests"] {
        copy_tree(&from.path(folder), &to.path(folder));
    }
    to.write("out.tar", std::fs::read(from.path("out.tar")).unwrap());
    if bodies {
        let name = format!("blobs/sha256/{}", Digest::of(b"a page").hex());
        let (body, there) = (from.store().join(&name), to.store().join(&name));
        std::fs::copy(body, &there).unwrap();
        run(Command::new("chown").arg("--reference").arg(to.store()).arg(&there));
    }
    to
}

#[test]
fn an_image_is_reproduced_by_another_user_in_another_mode_without_a_network() {
    let (project, web, digest) =
        published(Who::Root, "echo local >/srv/local; chown 1000:100 /srv/local");
    // By its definition, where it was built, with the page gone.
    web.cut();
    let (code, report, ran) = audit(&project, &["built"]);
    assert_eq!(code, Some(0), "{ran}");
    assert_eq!(report["verdict"], "reproduced");
    assert_eq!(report["rebuilt"], digest.as_str());
    assert_eq!(report["mode"], "root");
    assert_eq!(report["inputs"]["bodies"], 1);
    assert!(report["comparison"].is_null());
    let text = project.run(&["audit", "localhost/built"]);
    assert_eq!(text.stdout(), format!("REPRODUCED  localhost/built:latest {digest}\n"), "{text}");
    for phase in ["1/5", "2/5", "3/5 inputs: 1 of 1 bodies here", "4/5", "5/5"] {
        assert!(text.stderr().contains(phase), "{phase}: {text}");
    }
    for who in [Who::Range, Who::Single] {
        let other = handed_over(&project, who, true);
        let (code, report, ran) = audit(&other, &["oci-archive:out.tar"]);
        assert_eq!(code, Some(0), "{who:?}: {ran}");
        assert_eq!(report["rebuilt"], digest.as_str(), "{ran}");
        assert_eq!(report["mode"], if who == Who::Range { "range" } else { "single" });
        // The auditor's store has no name for it, and nothing of the run is left.
        assert!(!other.run(&["list"]).ok().contains("localhost/built"));
        assert!(other.running().is_empty(), "{:?}", other.running());
    }
}

/// A digest alone is enough: lock, recipes, inputs and the base's documents are attached to the image.
#[test]
fn a_stranger_reproduces_an_image_from_its_registry_alone() {
    let (project, web, digest) = published(Who::Root, "echo local >/srv/local");
    let registry = Registry::plain();
    let name = registry.image("built");
    project.run(&["push", "-q", "localhost/built", "--to", &name, "--inputs"]).ok();
    keygen(&project, "ours");
    let mut sign = project.command(&["sign", "--key", "ours.key", &name]);
    Ran::of(sign.env("COSIGN_PASSWORD", "")).ok();
    web.cut();
    let other = Project::new();
    other.write("ours.pub", std::fs::read(project.path("ours.pub")).unwrap());
    let pinned = format!("{name}@{digest}");
    let ran = other.run(&["audit", &pinned, "--key", "ours.pub"]);
    assert_eq!(ran.code(), Some(0), "{ran}");
    assert_eq!(ran.stdout(), format!("REPRODUCED  {pinned}\n"), "{ran}");
    assert!(ran.stderr().contains("3/5 inputs: 1 of 1 bodies here"), "{ran}");
    assert!(other.running().is_empty(), "{:?}", other.running());
    // By another key nothing is signed.
    keygen(&other, "theirs");
    let ran = other.run(&["audit", &pinned, "--key", "theirs.pub"]);
    assert_eq!(ran.code(), Some(17), "{ran}");
    assert!(ran.stdout().starts_with("SIGNATURE INVALID  "), "{ran}");
}

/// Runs `audit --attest` with a key without a password.
fn attest(project: &Project, key: &str, image: &str) -> Ran {
    let line = ["audit", image, "--attest", key];
    Ran::of(project.command(&line).env("COSIGN_PASSWORD", ""))
}

/// The predicate of the one statement that is attached to a digest, as a plain client finds it.
fn predicate(host: &str, digest: &str) -> Value {
    let list = get_json(host, &format!("built/manifests/{}", digest.replacen(':', "-", 1)));
    let of = |entry: &&Value| {
        let annotations = &entry["annotations"];
        annotations["dev.sigstore.bundle.predicateType"]
            .as_str()
            .is_some_and(|kind| kind == "https://in-toto.io/attestation/test-result/v0.1")
    };
    let entries: Vec<&Value> = list["manifests"].as_array().unwrap().iter().filter(of).collect();
    let [entry] = entries.as_slice() else { panic!("{list:#}") };
    let manifest =
        get_json(host, &format!("built/manifests/{}", entry["digest"].as_str().unwrap()));
    let blob = manifest["layers"][0]["digest"].as_str().unwrap();
    let bundle = get_json(host, &format!("built/blobs/{blob}"));
    let payload = bundle["dsseEnvelope"]["payload"].as_str().unwrap();
    let statement: Value = serde_json::from_slice(&BASE64.decode(payload).unwrap()).unwrap();
    let hex = digest.strip_prefix("sha256:").unwrap();
    let subjects = statement["subject"].as_array().unwrap();
    assert!(subjects.iter().any(|subject| subject["digest"]["sha256"] == hex), "{statement:#}");
    if let Err(error) = schema("audited.schema.json").validate(&statement["predicate"]) {
        panic!("{error}: {statement:#}");
    }
    statement["predicate"].clone()
}

#[test]
fn what_an_audit_comes_to_is_attested_beside_the_image_and_asked_for() {
    let (project, _web, digest) = published(Who::Root, "echo local >/srv/local");
    let registry = Registry::plain();
    let name = registry.image("built");
    for prefix in ["ours", "theirs"] {
        keygen(&project, prefix);
    }
    // Before anything is built, it is asked whether there is where to say it.
    let early = attest(&project, "ours.key", &name).fails(1);
    assert!(!early.contains("4/5"), "{early}");
    project.run(&["push", "-q", "localhost/built", "--to", &name, "--inputs"]).ok();
    let verified = |keys: &[&str]| {
        let line: Vec<&str> = ["verify", &name].into_iter().chain(keys.iter().copied()).collect();
        project.run(&line)
    };
    let none = verified(&["--auditor", "ours.pub"]).fails(1);
    assert!(none.contains("is not reproduced by the auditor of"), "{none}");

    let pinned = format!("{name}@{digest}");
    let ran = attest(&project, "ours.key", &pinned);
    assert_eq!(ran.code(), Some(0), "{ran}");
    assert_eq!(ran.stdout().matches("  attested  sha256:").count(), 2, "index and image: {ran}");
    let again = attest(&project, "ours.key", &pinned);
    assert_eq!(again.stdout().matches("  (was there)").count(), 2, "{again}");

    let predicate = predicate(&registry.host(), &digest);
    assert_eq!(predicate["result"], "PASSED");
    let platform = Platform::host().to_string();
    assert_eq!(predicate["passedTests"], serde_json::json!(["index", platform]));
    let program = Digest::of(&std::fs::read(binary()).unwrap());
    let of_program = predicate["configuration"].as_array().unwrap().last().unwrap();
    assert_eq!(of_program["digest"]["sha256"], program.hex());
    let lock = project.run(&["show", "localhost/built", "--json"]).json();
    let lock = &lock["platforms"][0]["parameters"]["Labels"]["dev.ocibuild.lock"];
    let details = &predicate["https://github.com/rocker-org/ocibuild/audit/v1"];
    assert_eq!(&details["platforms"][0]["lock"], lock, "{predicate:#}");

    let shown = verified(&["--auditor", "ours.pub"]).ok();
    assert!(shown.starts_with(&pinned), "{shown}");
    assert!(shown.contains("  reproduced in mode root by "), "{shown}");
    let other = verified(&["--auditor", "ours.pub", "--auditor", "theirs.pub"]).fails(1);
    assert!(other.contains("theirs.pub"), "{other}");
    // An audit is no signature of the image, and the other way round.
    let unsigned = verified(&["--key", "ours.pub"]).fails(1);
    assert!(unsigned.contains("is not signed by"), "{unsigned}");
    let mut sign = project.command(&["sign", "-q", "--key", "theirs.key", &name]);
    Ran::of(sign.env("COSIGN_PASSWORD", "")).ok();
    verified(&["--key", "theirs.pub", "--auditor", "ours.pub"]).ok();
    verified(&["--key", "theirs.pub", "--auditor", "theirs.pub"]).fails(1);
}

#[test]
fn an_audit_that_finds_other_content_says_so_beside_the_image() {
    let (project, _web, digest) = published(Who::Root, "head -c 16 /dev/urandom >/srv/drawn");
    let registry = Registry::plain();
    let name = registry.image("built");
    keygen(&project, "ours");
    project.run(&["push", "-q", "localhost/built", "--to", &name]).ok();
    let ran = attest(&project, "ours.key", &name);
    assert_eq!(ran.code(), Some(11), "{ran}");
    let predicate = predicate(&registry.host(), &digest);
    assert_eq!(predicate["result"], "FAILED");
    let details = &predicate["https://github.com/rocker-org/ocibuild/audit/v1"];
    assert_eq!(details["platforms"][0]["differing"]["paths"], 1, "{predicate:#}");
    let error = project.run(&["verify", &name, "--auditor", "ours.pub"]).fails(1);
    assert!(error.contains("who says: ") && error.contains(" differs"), "{error}");
    // Where nothing can be compared nothing is said.
    project.script("local", "exit 3");
    let ran = attest(&project, "ours.key", &name);
    assert!(ran.code() != Some(0) && !ran.stdout().contains("attested"), "{ran}");
    assert!(ran.stderr().contains("nothing is attested"), "{ran}");
}

#[test]
fn what_differs_is_told_by_file_and_cause() {
    // What no rule covers: a random number and the time with it.
    let script = "head -c 16 /dev/urandom | od -An -tx1 | tr -d ' ' >/srv/drawn; mkdir -p /etc/ssh";
    let (project, _web, _) = published(Who::Root, script);
    let (code, report, ran) = audit(&project, &["built"]);
    assert_eq!(code, Some(11), "{ran}");
    assert_eq!(report["verdict"], "differs");
    let layers = report["comparison"]["platforms"][0]["layers"].as_array().unwrap();
    let differing: Vec<&Value> =
        layers.iter().filter(|layer| layer["verdict"] == "differs").collect();
    assert_eq!(differing.len(), 1, "{report:#}");
    assert_eq!(differing[0]["made_by"], "local");
    let found = &differing[0]["differences"][0];
    assert_eq!((&found["path"], &found["cause"]), (&"/srv/drawn".into(), &"random".into()));
    let text = project.run(&["audit", "built", "--html", "why.html"]);
    assert!(text.stdout().starts_with("DIFFERS  localhost/built:latest sha256:"), "{text}");
    assert!(
        text.stdout()
            .contains("RANDOM  random values in its content  by step only 1 path  /srv/drawn"),
        "{text}"
    );
    assert!(std::fs::read_to_string(project.path("why.html")).unwrap().contains("/srv/drawn"));
}

#[test]
fn a_difference_names_the_step_that_wrote_it() {
    let (project, web, _) = published(Who::Root, "true");
    let steps = [
        ("first", "echo first >/srv/first; echo first >/srv/again; sleep 0.1"),
        ("second", "mkdir /srv/new; head -c 16 /dev/urandom | tee /srv/drawn >/srv/new/too"),
        // It touches the others' files, and writes one of its own.
        (
            "third",
            "chmod 600 /srv/drawn; cp -p /srv/first /srv/new/copy; head -c 16 /dev/urandom >>/srv/again",
        ),
    ];
    let mut recipe = "about = \"three steps\"\n".to_owned();
    for (name, script) in steps {
        recipe.push_str(&format!("[[step]]\nname = \"{name}\"\nscript = '''\n{script}\n'''\n"));
    }
    project.write("layers/local/layer.toml", recipe);
    online(&project, &web, &["lock", "built"]).ok();
    online(&project, &web, &["build", "built", "--locked"]).ok();
    let steps_of = |report: &Value| -> Vec<(String, String)> {
        let layers = report["comparison"]["platforms"][0]["layers"].as_array().unwrap();
        let found = layers.iter().flat_map(|layer| layer["differences"].as_array().unwrap());
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        found.map(|one| (text(&one["path"]), text(&one["step"]))).collect()
    };
    let expected = [("/srv/again", "third"), ("/srv/drawn", "second"), ("/srv/new/too", "second")]
        .map(|(path, step)| (path.to_owned(), step.to_owned()));
    for tree in ["overlay", "plain"] {
        let (code, report, ran) = audit(&project, &["built", "--tree", tree]);
        assert_eq!(code, Some(11), "{tree}: {ran}");
        assert_eq!(steps_of(&report), expected, "{tree}: {report:#}");
    }
    let text = project.run(&["audit", "built"]);
    assert!(text.stdout().contains("by step second 1 path  /srv/drawn"), "{text}");
    let twice = online(&project, &web, &["audit", "--twice", "built", "--json", "--mode", "root"]);
    assert_eq!(twice.code(), Some(11), "{twice}");
    let report: Value = serde_json::from_str(&twice.stdout()).unwrap();
    assert_eq!(steps_of(&report), expected, "{report:#}");
}

#[test]
fn what_stops_an_audit_is_a_verdict_with_its_reason() {
    let (project, _web, _) = published(Who::Root, "test ! -e /srv/never");
    // The body is not to be had.
    let other = handed_over(&project, Who::Root, false);
    let (code, report, ran) = audit(&other, &["oci-archive:out.tar", "--offline"]);
    assert_eq!(code, Some(15), "{ran}");
    assert!(report["reason"].to_string().contains(PAGE), "{report:#}");
    let (code, _, ran) = audit(&other, &["oci-archive:out.tar"]);
    assert_eq!(code, Some(15), "{ran}");
    // It is not what was recorded.
    let other = handed_over(&project, Who::Root, true);
    let body = other.store().join("blobs/sha256").join(Digest::of(b"a page").hex());
    std::fs::remove_file(&body).unwrap();
    std::fs::write(&body, "b page").unwrap();
    let (code, report, ran) = audit(&other, &["oci-archive:out.tar"]);
    assert_eq!(code, Some(15), "{report:#} {ran}");
    // Another lock, and none.
    let other = handed_over(&project, Who::Root, true);
    let lock = std::fs::read_to_string(other.path("manifests/built.lock")).unwrap();
    other.write("manifests/built.lock", lock.replace("source-date = ", "source-date = 1"));
    let (code, report, ran) = audit(&other, &["oci-archive:out.tar"]);
    assert_eq!(code, Some(14), "{ran}");
    assert!(report["reason"].to_string().contains("is the one that the image names"), "{report:#}");
    let (code, report, ran) = audit(&other, &["oci-archive:out.tar", "--definition", "built"]);
    assert_eq!(code, Some(14), "{ran}");
    assert!(report["reason"].to_string().contains("built.lock is not the lock"), "{report:#}");
    let (code, report, ran) = audit(&other, &["localhost/tiny:1"]);
    assert_eq!(code, Some(14), "{ran}");
    assert!(report["hint"].to_string().contains("ocibuild lock"), "{report:#}");
    // A recipe that now fails.
    let other = handed_over(&project, Who::Root, true);
    other.script("local", "echo broken >&2; exit 7");
    let (code, report, ran) = audit(&other, &["oci-archive:out.tar"]);
    assert_eq!(code, Some(16), "{ran}");
    let reason = report["reason"].to_string();
    assert!(reason.contains("ended with status 7") && reason.contains("broken"), "{report:#}");
    // And what is no matter of the image.
    other.run(&["audit", "nothing"]).fails(2);
    other.run(&["audit", "./absent"]).fails(2);
}

#[test]
fn two_builds_under_different_circumstances_show_what_is_not_reproducible() {
    let project = Project::with_tiny_base(Who::Root);
    project
        .script("fine", "mkdir -p /srv/many /var/log; for i in $(seq 50); do echo $i >/srv/many/$i; done; date >/var/log/dpkg.log")
        .script("order", "nproc >/srv/processors")
        .script("around", "hostname >/srv/host; umask >/srv/umask; date +%Z >/srv/zone; env | sort >/srv/env")
        .definition("around", &["around"])
        .definition("fine", &["fine"])
        .definition("order", &["fine", "order"]);
    let ran = project.run(&["audit", "--twice", "fine"]);
    assert_eq!(ran.code(), Some(0), "{ran}");
    let told = ran.stdout();
    assert!(told.starts_with("REPRODUCED  fine sha256:"), "{ran}");
    for line in [
        "varied      user mode",
        "varied      processors",
        "varied      folders' order",
        "varied      kind of trees",
        "varied      the builder's umask",
        "varied      the builder's zone and locale",
        "varied      the store's path",
        "varied      threads",
        "not varied  host name",
        "not varied  kernel and kind of processor",
        "not varied  clock",
    ] {
        assert!(told.contains(line), "{line}: {ran}");
    }
    assert!(!project.run(&["list"]).ok().contains("localhost/fine"), "nothing gets a name");
    let ran = project.run(&["audit", "--twice", "order", "--json", "--mode", "root"]);
    assert_eq!(ran.code(), Some(11), "{ran}");
    let report: Value = serde_json::from_str(&ran.stdout()).unwrap();
    let layer = &report["comparison"]["platforms"][0]["layers"][2];
    assert_eq!(layer["differences"][0]["path"], "/srv/processors", "{report:#}");
    // What is not varied, since steps never see it; and what is, and they don't see either.
    let ran = project.run(&["audit", "--twice", "around", "--json"]);
    assert_eq!(ran.code(), Some(0), "{ran}");
    let around: Value = serde_json::from_str(&ran.stdout()).unwrap();
    let elsewhere = ["unshare", "--uts", "sh", "-euc", "hostname elsewhere; exec \"$@\"", "sh"];
    let built = Ran::of(&mut project.command_under(&elsewhere, &["build", "around"])).ok();
    assert_eq!(around["first"], built.as_str());
    project.script("fine", "exit 3");
    project.run(&["audit", "--twice", "fine"]).fails(1);
    assert!(project.running().is_empty(), "{:?}", project.running());
}
