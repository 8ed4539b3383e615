//! How much of an image lies on disk: trees without their blobs, a bound that is kept.

use std::path::Path;
use std::process::Command;

use crate::support::cli::{Project, Ran, Who, names};
use crate::support::registry::Registry;
use crate::support::run;

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

#[test]
fn what_the_target_has_of_a_base_is_asked_of_nobody() {
    let (theirs, target) = (Registry::plain(), Registry::plain());
    let base = theirs.image("below:1");
    publish(&base);
    let project = Project::of(Who::Root);
    over(&project, &base);
    project.build("over");
    assert!(largest_blob(&project.store()) < 100_000);
    let first = target.image("first");
    project.run(&["push", "localhost/over", "--to", &first]).ok();
    drop(theirs);
    project.run(&["push", "localhost/over", "--to", &first, "--tag", "two"]).ok();
    let beside = target.image("beside");
    let pushed = project.run(&["push", "localhost/over", "--to", &beside, "--json"]).json();
    assert!(pushed[0]["bytes"].as_u64().unwrap() < 10_000, "{pushed}");
    assert!(pushed[0]["mounted"].as_u64().unwrap() >= 4, "{pushed}");
}

/// The bytes that a store takes, by another's count.
fn size(project: &Project) -> u64 {
    let output = run(Command::new("du").args(["-s", "-B1"]).arg(project.store()));
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

/// Pushes an image with a layer of so many bytes that shrink, or do not.
fn publish_layer(name: &str, what: &str, bytes: u64) {
    let project = Project::with_tiny_base(Who::Root);
    project
        .script("only", &format!("head -c {bytes} /dev/{what} > /srv/{what}"))
        .definition("below", &["only"]);
    project.build("below");
    project.run(&["push", "localhost/below", "--to", name]).ok();
}

#[test]
fn what_cannot_fit_is_refused_with_the_figures_before_anything_comes() {
    let registry = Registry::plain();
    let base = registry.image("below:1");
    publish(&base);
    for who in [Who::Root, Who::Single] {
        let project = Project::of(who);
        over(&project, &base);
        let plan = project.run(&["build", "over", "--dry-run", "--json"]).json();
        let disk = &plan[0]["platforms"][0]["disk"];
        assert!(disk["fetch"].as_u64().unwrap() > 6_000_000, "{plan}");
        assert!(disk["trees_least"].as_u64().unwrap() > 5_900_000, "{plan}");
        assert_eq!((&disk["blobs"], &disk["layers_to_make"]), (&0.into(), &1.into()), "{plan}");
        for command in [&["build", "over", "--disk", "5M"][..], &["pull", &base, "--disk", "5M"]] {
            let refused = project.run(command).fails(3);
            assert!(
                refused.contains("MB to fetch, 0.0 kB of it kept") || command[0] == "pull",
                "{who:?}: {refused}"
            );
            assert!(refused.contains("5.0 MB are allowed"), "{who:?}: {refused}");
            assert!(size(&project) < 1_000_000, "{who:?}: something came");
        }
        let built = project.run(&["build", "over", "--disk", "40M"]);
        assert!(built.stderr().contains("disk: "), "{who:?}: {built}");
        built.ok();
        assert!(size(&project) < 12_000_000, "{who:?}: {}", size(&project));
        // Trees that are there count once, and their size is known.
        project.run(&["build", "over", "--no-cache", "--disk", "12M"]).ok();
    }
}

#[test]
fn a_bound_that_is_met_half_way_leaves_nothing_half_done() {
    let registry = Registry::plain();
    let base = registry.image("zeros:1");
    publish_layer(&base, "zero", 30_000_000);
    for who in [Who::Root, Who::Range, Who::Single] {
        let project = Project::of(who);
        // Nobody can know that the few bytes that come are so many.
        let full = project.run(&["pull", &base, "--unpack", "--disk", "15M"]).fails(3);
        assert!(full.contains("15000000 bytes"), "{who:?}: {full}");
        assert!(full.contains("--disk"), "{who:?}: {full}");
        assert!(size(&project) < 8_000_000, "{who:?}: {}", size(&project));
        assert!(project.run(&["list"]).ok().is_empty(), "{who:?}: a name of what is not there");
        project.run(&["pull", &base, "--unpack", "--disk", "40M"]).ok();
        let taken = size(&project);
        assert!((34_000_000..38_000_000).contains(&taken), "{who:?}: {taken}");
    }
    // What a step writes, in its tree on disk and in the store.
    for options in [&["--memory", "0"][..], &[], &["--memory", "0", "--tree", "plain"]] {
        let project = Project::with_tiny_base(Who::Root);
        project
            .script("random", "head -c 9000000 /dev/urandom > /srv/random")
            .definition("large", &["random"]);
        let build = [&["build", "large", "--disk", "12M"], options].concat();
        let full = project.run(&build).fails(3);
        assert!(full.contains("12000000 bytes"), "{options:?}: {full}");
        assert_eq!(project.running(), Vec::<String>::new(), "{options:?}");
        assert!(size(&project) < 8_000_000, "{options:?}: {}", size(&project));
        project.run(&[&["build", "large", "--disk", "30M"], options].concat()).ok();
    }
}

#[test]
fn room_is_made_by_freeing_what_no_image_needs() {
    let registry = Registry::plain();
    let (one, two) = (registry.image("one:1"), registry.image("two:1"));
    publish_layer(&one, "urandom", 8_000_000);
    publish_layer(&two, "urandom", 8_000_000);
    for who in [Who::Root, Who::Range] {
        let project = Project::of(who);
        project.run(&["pull", &one, "--unpack"]).ok();
        // Its name stays, and so do its documents; the tree is the least that is needed.
        let pulled = project.run(&["pull", &two, "--unpack", "--disk", "28M"]);
        assert!(pulled.stderr().contains("freed 8.0 MB"), "{who:?}: {pulled}");
        pulled.ok();
        assert!(size(&project) < 14_000_000, "{who:?}: {}", size(&project));
        assert!(largest_blob(&project.store()) < 100_000, "{who:?}: a layer's blob was kept");
        let again = project.run(&["pull", &one, "--unpack", "--json"]).json();
        assert!(again["bytes"].as_u64().unwrap() > 8_000_000, "{who:?}: {again}");
        assert!(size(&project) > 16_000_000, "{who:?}");
        // What a step will write nobody knows, so that some room is made for it.
        project.script("on-top", "test -s /srv/urandom && echo 2 > /srv/two");
        project.write(
            "manifests/over.toml",
            format!(
                "image = \"localhost/over\"\nbase = \"{two}\"\nplatforms = [\"linux/amd64\"]\n\
                 layers = [\"on-top\"]\n"
            ),
        );
        let built = project.run(&["build", "over", "--disk", "24M"]);
        assert!(built.stderr().contains("freed 8.0 MB"), "{who:?}: {built}");
        built.ok();
        project.run(&["pull", &one, "--unpack"]).ok();
        let freed = project.run(&["gc", "--disk", "15M", "--json"]).json();
        assert!(freed["freed_bytes"].as_u64().unwrap() > 8_000_000, "{who:?}: {freed}");
        assert!(size(&project) < 15_000_000, "{who:?}: {}", size(&project));
        assert!(project.run(&["list"]).ok().contains("two:1"), "{who:?}");
    }
}

/// Runs a command, and writes the most memory that one of its processes had, in KiB, to a file.
const PEAK: &str = "import resource, subprocess, sys
code = subprocess.run(sys.argv[2:]).returncode
with open(sys.argv[1], 'w') as file:
    file.write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
sys.exit(code)";

#[test]
fn a_large_layer_takes_its_tree_on_disk_and_little_memory() {
    const LAYER: u64 = 150_000_000;
    let (registry, other) = (Registry::plain(), Registry::plain());
    let image = registry.image("large:1");
    publish_layer(&image, "urandom", LAYER);
    let project = Project::new();
    let peak = project.path("peak");
    let peak_of = |tool: &[&str], command: &[&str]| -> u64 {
        let tool = [tool, &["python3", "-c", PEAK, peak.to_str().unwrap()]].concat();
        Ran::of(&mut project.command_under(&tool, command)).ok();
        std::fs::read_to_string(&peak).unwrap().parse().unwrap()
    };
    // On a disk of its own that a blob beside the tree would not fit on, or a second copy of it; the
    // tree of the tiny base below takes up to 5 MB.
    std::fs::create_dir(project.store()).unwrap();
    let small = format!(
        "mount -t tmpfs -o size={} tmpfs {}; exec \"$@\"",
        (LAYER + 5_000_000) / 100 * 105,
        project.store().display()
    );
    let alone =
        ["unshare", "--mount", "--propagation", "private", "--", "sh", "-euc", &small, "sh"];
    let to = other.image("large:1");
    for (tool, command) in [
        (&alone[..], &["pull", &image, "--unpack"][..]),
        (&[], &["copy", &image, &to]),
        (&[], &["pull", &image]),
        (&[], &["push", &image, "--to", &other.image("large-again:1")]),
    ] {
        let peak = peak_of(tool, command);
        assert!(peak < 128 << 10, "{command:?}: {peak} KiB");
        eprintln!("{}: {peak} KiB", command[0]);
    }
}
