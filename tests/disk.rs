//! How much of an image lies on disk: trees without their blobs, a bound that is kept.

use std::path::Path;

use crate::support::cli::{Project, Who, names};
use crate::support::registry::Registry;

/// Builds an image of two layers over the tiny base, pushes it, and returns its digest.
fn publish(name: &str) -> String {
    let project = Project::with_tiny_base(Who::Root);
    project
        .script("large", "head -c 6000000 /dev/urandom > /srv/large")
        .script("small", "echo 1 > /srv/small")
        .definition("below", &["large", "small"]);
    let digest = project.build("below");
    project.run(&["push", "localhost/below", "--to", name]).ok();
    digest
}

/// The bytes of the largest blob in a store.
fn largest_blob(store: &Path) -> u64 {
    let blobs = store.join("blobs/sha256");
    let size = |name: &String| std::fs::metadata(blobs.join(name)).unwrap().len();
    names(&blobs).iter().map(size).max().unwrap_or(0)
}

/// Writes a definition over an image of a registry.
fn over(project: &Project, base: &str) {
    project.script("on-top", "test -s /srv/large && echo 2 > /srv/two").write(
        "manifests/over.toml",
        format!(
            "image = \"localhost/over\"\nbase = \"{base}\"\nplatforms = [\"linux/amd64\"]\n\
             layers = [\"on-top\"]\n"
        ),
    );
}

#[test]
fn what_can_be_fetched_again_is_unpacked_from_the_stream_and_not_kept() {
    let (registry, other) = (Registry::plain(), Registry::plain());
    let base = registry.image("below:1");
    let below = publish(&base);
    for who in [Who::Root, Who::Range, Who::Single] {
        let project = Project::of(who);
        let pulled = project.run(&["pull", &base, "--unpack", "--json"]).json();
        assert_eq!(pulled["digest"], below.as_str(), "{who:?}");
        assert!(pulled["bytes"].as_u64().unwrap() > 6_000_000, "{who:?}: {pulled}");
        assert!(largest_blob(&project.store()) < 100_000, "{who:?}: a layer's blob was kept");
        let again = project.run(&["pull", &base, "--unpack", "--json"]).json();
        assert_eq!((&again["blobs"], &again["bytes"]), (&0.into(), &0.into()), "{who:?}");
        assert_eq!(project.run(&["verify"]).ok(), "every blob is whole", "{who:?}");

        over(&project, &base);
        let built = project.build("over");
        assert!(largest_blob(&project.store()) < 100_000, "{who:?}: a layer's blob was kept");
        // In its own registry the base is mounted, to another it goes from there.
        let name = format!("over-{who:?}").to_lowercase();
        let to = registry.image(&name);
        let pushed = project.run(&["push", "localhost/over", "--to", &to, "--json"]).json();
        assert_eq!(pushed[0]["mounted"], 3, "{who:?}: {pushed}");
        let to = other.image(&name);
        let pushed = project.run(&["push", "localhost/over", "--to", &to, "--json"]).json();
        assert_eq!(pushed[0]["digest"], built.as_str(), "{who:?}");
        assert!(largest_blob(&project.store()) < 100_000, "{who:?}: a layer's blob was kept");
        let fresh = Project::of(who);
        assert_eq!(fresh.run(&["pull", &to]).ok(), built, "{who:?}");
        assert!(largest_blob(&fresh.store()) > 6_000_000, "{who:?}: blobs without their layers");
        // With the blobs here nothing is fetched, and they stay.
        let unpacked = fresh.run(&["pull", &to, "--unpack", "--json"]).json();
        assert_eq!((&unpacked["blobs"], &unpacked["unpacked"]), (&0.into(), &4.into()), "{who:?}");
        assert!(largest_blob(&fresh.store()) > 6_000_000, "{who:?}");

        // What needs the blobs fetches them.
        project.run(&["export", "localhost/over", "over.tar", "--format", "oci-archive"]).ok();
        assert!(std::fs::metadata(project.path("over.tar")).unwrap().len() > 6_000_000);
    }
}
