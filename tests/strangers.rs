//! Images that other tools made: pulled, copied, carried as a base and pushed on, byte for byte.

use std::process::Command;

use crate::support::cli::{Project, Who};
use crate::support::image;
use crate::support::podman::Podman;
use crate::support::registry::Registry;
use crate::support::run;

/// A registry with what others pushed: an OCI image of 61 layers, and the same as Docker's schema 2.
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
        push --format v2s2 oci:many:1 docker://$1/v2s2:1";
    run(Command::new("sh")
        .args(["-c", script, "sh", &registry.host()])
        .current_dir(project.path("")));
    registry
}

fn raw(name: &str) -> serde_json::Value {
    let output = run(Command::new("skopeo").args([
        "inspect",
        "--raw",
        "--tls-verify=false",
        &format!("docker://{name}"),
    ]));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn digest(name: &str) -> String {
    let output = run(Command::new("skopeo").args([
        "inspect",
        "--raw",
        "--tls-verify=false",
        &format!("docker://{name}"),
    ]));
    image::digest(&output.stdout)
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
    for name in ["oci", "v2s2"] {
        let (from, tag) = (theirs.image(&format!("{name}:1")), format!("{name}:1"));
        let expected = digest(&from);
        let (base, kinds) = layers(&theirs, &tag);
        assert_eq!(base.len(), 61, "{name}");
        assert_eq!(kinds[0].contains("docker"), name == "v2s2", "{kinds:?}");
        let project = Project::of(Who::Root);
        assert_eq!(project.run(&["pull", &from]).ok(), expected, "{name}");
        let pushed = ours.image(&format!("pushed-{name}:1"));
        project.run(&["push", &from, "--to", &pushed]).ok();
        assert_eq!(digest(&pushed), expected, "{name}");
        let copied = ours.image(&format!("copied-{name}:1"));
        project.run(&["copy", &from, &copied]).ok();
        assert_eq!(digest(&copied), expected, "{name}");

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
    let folder = project.path("");
    project.write(
        "storage.conf",
        format!(
            "[storage]\ndriver = \"overlay\"\nrunroot = \"{0}run\"\ngraphroot = \"{0}graph\"\n",
            folder.display()
        ),
    );
    let script = "set -eu
        c=$(buildah from --tls-verify=false docker://$1/small:1)
        m=$(buildah mount $c); cat $m/srv/own; echo theirs > $m/srv/theirs; buildah umount $c >/dev/null
        buildah commit -q $c more >/dev/null; buildah rm $c >/dev/null
        buildah push -q --tls-verify=false localhost/more docker://$1/more:1
        skopeo copy -q --format v2s2 --src-tls-verify=false --dest-tls-verify=false \
            docker://$1/small:1 docker://$1/docker:1";
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "sh", "-c", script, "sh", &registry.host()])
        .current_dir(&folder)
        .env("STORAGE_DRIVER", "overlay")
        .env("BUILDAH_ISOLATION", "chroot")
        .env("CONTAINERS_STORAGE_CONF", project.path("storage.conf"));
    assert_eq!(String::from_utf8_lossy(&run(&mut command).stdout), "own\n");
    let (small, _) = layers(&registry, "small:1");
    assert_eq!(
        layers(&registry, "more:1").0[..small.len()],
        small,
        "buildah took the layers as they are"
    );
    assert_eq!(layers(&registry, "docker:1").0, small);
}
