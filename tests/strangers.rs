//! Images that other tools made: pulled, copied, carried as a base and pushed on, byte for byte.

use std::collections::BTreeMap;
use std::process::Command;

use ocibuild::http::{Client, Config};
use ocibuild::oci::{Document, Manifest, media_type};
use ocibuild::registry::{Keychain, Registries};
use ocibuild::report::Silent;
use ocibuild::transfer::{Options, Source, copy};

use crate::support::cli::{Project, Who};
use crate::support::image;
use crate::support::memory::Memory;
use crate::support::podman::Podman;
use crate::support::registry::Registry;
use crate::support::run;

/// A registry with `many` in the forms in which others push: an OCI image of 61 layers, the same as
/// Docker's schema 2 and with layers of zstd, and an index that lists statements, as buildx makes it.
fn strangers() -> Registry {
    let registry = Registry::plain();
    let project = Project::with_tiny_base(Who::Root);
    project.run(&["export", "localhost/tiny:1", "layout", "--format", "oci"]).ok();
    let script = "set -eu
        skopeo copy -q oci:layout dir:tiny && skopeo copy -q dir:tiny oci:many:1
        for number in $(seq 60); do
            echo $number > file
            umoci insert --image many:1 file /srv/file$number >/dev/null
        done
        push() { skopeo copy -q --dest-tls-verify=false \"$@\"; }
        push oci:many:1 docker://$1/oci:1
        push --format v2s2 oci:many:1 docker://$1/v2s2:1
        skopeo copy -q --dest-decompress oci:many:1 dir:plain
        # By another name, or skopeo would take over the layers that it knows to be there.
        push --dest-compress-format zstd dir:plain docker://localhost:${1#*:}/zstd:1";
    run(Command::new("sh")
        .args(["-c", script, "sh", &registry.host()])
        .current_dir(project.path("")));

    let registries =
        Registries::new(Client::new(Config::default()), Keychain::new(&BTreeMap::new()));
    let open = |name: &str| registries.open(&registry.image(name).parse().unwrap());
    let (oci, index) = (open("oci:1"), open("index:1"));
    let many = oci.document(&oci.resolve(&registry.image("oci:1").parse().unwrap()).unwrap());
    let many = many.unwrap();
    copy(&oci, &index, &many, &[], &Options::default(), &Silent).unwrap();
    let memory = Memory::default();
    memory.add_document(many.clone());
    let layer = memory.add_blob("application/vnd.in-toto+json", b"{\"_type\":\"statement\"}");
    let config = memory.add_blob(media_type::CONFIG, b"{\"architecture\":\"unknown\",\"os\":\"unknown\",\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[]}}");
    let statement = Manifest::new(config, vec![layer], BTreeMap::new());
    let statement = memory.add_document(Document::of_manifest(&statement).unwrap());
    let text = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": media_type::INDEX,
        "manifests": [
            {"mediaType": many.media_type(), "digest": many.digest().to_string(),
             "size": many.bytes().len(), "platform": {"architecture": "amd64", "os": "linux"}},
            {"mediaType": statement.media_type(), "digest": statement.digest().to_string(),
             "size": statement.bytes().len(),
             "annotations": {"vnd.docker.reference.type": "attestation-manifest",
                             "vnd.docker.reference.digest": many.digest().to_string()},
             "platform": {"architecture": "unknown", "os": "unknown"}},
        ],
    });
    let bytes = serde_json::to_vec_pretty(&text).unwrap();
    let root = memory.add_document(Document::read(bytes, Some(media_type::INDEX)).unwrap());
    copy(&memory, &index, &root, &["1".to_owned()], &Options::default(), &Silent).unwrap();
    registry
}

/// A document as skopeo gets it.
fn document(name: &str) -> Vec<u8> {
    let mut command = Command::new("skopeo");
    command.args(["inspect", "--raw", "--tls-verify=false", &format!("docker://{name}")]);
    run(&mut command).stdout
}

fn raw(name: &str) -> serde_json::Value {
    serde_json::from_slice(&document(name)).unwrap()
}

fn digest(name: &str) -> String {
    image::digest(&document(name))
}

/// The digests of an image's layers, and their kinds.
fn layers(registry: &Registry, name: &str) -> (Vec<String>, Vec<String>) {
    let mut manifest = raw(&registry.image(name));
    if let Some(entry) = manifest["manifests"].get(0) {
        let repository = name.split(':').next().unwrap();
        let digest = entry["digest"].as_str().unwrap();
        manifest = raw(&registry.image(&format!("{repository}@{digest}")));
    }
    let of = |field: &str| -> Vec<String> {
        let layers = manifest["layers"].as_array().unwrap().iter();
        layers.map(|layer| layer[field].as_str().unwrap().to_owned()).collect()
    };
    (of("digest"), of("mediaType"))
}

#[test]
fn what_others_pushed_goes_on_unchanged_and_can_be_built_upon() {
    crate::support::cli::require_root();
    let (theirs, ours) = (strangers(), Registry::plain());
    let podman = Podman::new();
    for name in ["zstd", "index", "oci", "v2s2"] {
        let (from, tag) = (theirs.image(&format!("{name}:1")), format!("{name}:1"));
        let expected = digest(&from);
        let (base, kinds) = layers(&theirs, &tag);
        assert_eq!(base.len(), 61, "{name}");
        match name {
            "v2s2" => assert!(kinds[0].contains("docker"), "{kinds:?}"),
            "zstd" => assert!(kinds[0].ends_with("zstd"), "{kinds:?}"),
            _ => assert!(kinds[0].ends_with("gzip"), "{kinds:?}"),
        }
        let project = Project::of(Who::Root);
        assert_eq!(project.run(&["pull", &from]).ok(), expected, "{name}");
        let pushed = ours.image(&format!("pushed-{name}:1"));
        project.run(&["push", &from, "--to", &pushed]).ok();
        assert_eq!(digest(&pushed), expected, "{name}");
        let copied = ours.image(&format!("copied-{name}:1"));
        project.run(&["copy", &from, &copied]).ok();
        assert_eq!(digest(&copied), expected, "{name}");
        if name == "index" {
            let statement = raw(&copied)["manifests"][1]["digest"].as_str().unwrap().to_owned();
            let repository = copied.trim_end_matches(":1");
            assert_eq!(digest(&format!("{repository}@{statement}")), statement);
        }

        let project = Project::of(Who::Root);
        project.script("own", "cat /srv/file60 > /srv/own").write(
            "manifests/over.toml",
            format!(
                "image = \"localhost/over\"\nbase = \"{from}\"\nplatforms = [\"linux/amd64\"]\n\
                 layers = [\"own\"]\n"
            ),
        );
        project.build("over");
        let over = ours.image(&format!("over-{name}:1"));
        project.run(&["push", "localhost/over", "--to", &over]).ok();
        let (built, kinds) = layers(&ours, &format!("over-{name}:1"));
        assert_eq!(built[..61], base, "{name}");
        assert!(kinds.iter().all(|kind| kind.starts_with("application/vnd.oci.")), "{kinds:?}");
        podman.pull(&over);
        assert_eq!(podman.run(&over, &["cat", "/srv/own"]).trim(), "60", "{name}");
    }
}

#[test]
fn buildah_builds_on_what_was_pushed_and_skopeo_makes_schema_2_of_it() {
    crate::support::cli::require_root();
    let registry = Registry::plain();
    let project = Project::with_tiny_base(Who::Root);
    project.script("own", "echo own > /srv/own").definition("small", &["own"]);
    project.build("small");
    let name = registry.image("small:1");
    project.run(&["push", "localhost/small", "--to", &name]).ok();
    let script = "set -eu
        c=$(buildah from --tls-verify=false docker://$1/small:1)
        m=$(buildah mount $c); cat $m/srv/own; echo theirs > $m/srv/theirs; buildah umount $c >/dev/null
        buildah commit -q $c more >/dev/null; buildah rm $c >/dev/null
        buildah push -q --tls-verify=false localhost/more docker://$1/more:1
        skopeo copy -q --format v2s2 --src-tls-verify=false --dest-tls-verify=false \
            docker://$1/small:1 docker://$1/docker:1";
    let podman = Podman::new();
    let mut command = podman.buildah(script, &registry.host(), &project.path(""));
    assert_eq!(String::from_utf8_lossy(&run(&mut command).stdout), "own\n");
    let (small, _) = layers(&registry, "small:1");
    assert_eq!(
        layers(&registry, "more:1").0[..small.len()],
        small,
        "buildah took the layers as they are"
    );
    assert_eq!(layers(&registry, "docker:1").0, small);
}
