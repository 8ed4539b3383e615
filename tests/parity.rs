//! One digest, wherever and by whomever the same recipes are built.

use std::process::Command;

use crate::support::cli::{Project, Ran, Who};
use crate::support::registry::Registry;

fn small(who: Who) -> Project {
    let project = Project::with_tiny_base(who);
    project.fixture("odd").fixture("later").definition("small", &["odd", "later"]);
    project
}

/// The digest that a plain build of root gives, which all the others must give too.
fn expected() -> String {
    small(Who::Root).build("small")
}

#[test]
fn two_stores_give_one_digest() {
    assert_eq!(small(Who::Root).build("small"), expected());
}

#[test]
fn root_and_an_ordinary_user_give_one_digest() {
    let user = small(Who::Range);
    let built = user.build("small");
    assert_eq!(built, expected());
    assert_eq!(user.build("small"), built);
    assert!(user.running().is_empty());
}

/// Owners, device nodes and links to what a user with one id can't give to anybody; and a layer on
/// top, over the fresh one and over the one that comes from its blob.
#[test]
fn a_user_with_one_id_gives_the_digest_of_root() {
    let owners = |who: Who| -> Project {
        let project = Project::with_tiny_base(who);
        let layers = ["owners", "owners-later"];
        project.fixture("owners").fixture("owners-later").definition("owners", &layers);
        project
    };
    let expected = owners(Who::Root).build("owners");
    for who in [Who::Range, Who::Single] {
        let user = owners(who);
        let ran = user.run(&["build", "owners"]);
        let said = ran.stderr();
        assert_eq!(ran.ok(), expected, "{who:?}: {said}");
        let mode = if who == Who::Range { "mode range" } else { "mode single" };
        assert!(said.contains(mode), "{said}");
        assert_eq!(user.build("owners"), expected, "{who:?}, cached");
        let again = ["build", "owners", "--refresh", "owners-later"];
        assert_eq!(user.run(&again).ok(), expected, "{who:?}, on an unpacked parent");
        let on_disk = ["build", "owners", "--no-cache", "--memory", "0"];
        assert_eq!(user.run(&on_disk).ok(), expected, "{who:?}, on disk");
        let copied = [&on_disk[..], &["--tree", "plain"]].concat();
        let ran = user.run(&copied);
        assert!(ran.stderr().contains("tree plain"), "{}", ran.stderr());
        assert_eq!(ran.ok(), expected, "{who:?}, in a copy on disk");
        let copied = ["build", "owners", "--no-cache", "--tree", "plain"];
        assert_eq!(user.run(&copied).ok(), expected, "{who:?}, in a copy in memory");
    }
}

/// Owners that are thrown away never pass for true ones.
#[test]
fn discarded_owners_are_told_and_have_another_digest() {
    let owned = |who: Who| -> Project {
        let project = Project::with_tiny_base(who);
        let script = "chown 5:6 /srv/kept; chmod 600 /srv/of-jovyan";
        project.script("owned", script).definition("small", &["owned"]);
        project
    };
    let user = owned(Who::Single);
    let kept = user.build("small");
    let ran = user.run(&["--mode", "single", "build", "small", "--ownership", "discard"]);
    assert!(ran.stderr().contains("mode single, owners discarded"), "{}", ran.stderr());
    let last = ran.stderr().lines().last().unwrap_or_default().to_owned();
    assert!(last.contains("localhost/small:latest was built with owners discarded"), "{last}");
    assert_ne!(ran.ok(), kept);
    let report =
        user.run(&["--mode", "single", "build", "small", "--ownership", "discard", "--json"]);
    assert_eq!(report.json()[0]["ownership"], "discarded");
    let shown = user.run(&["show", "localhost/small", "--json"]).ok();
    assert!(shown.contains("dev.ocibuild.ownership"), "{shown}");
    let range = owned(Who::Range);
    let refused = range.run(&["build", "small", "--ownership", "discard"]).fails(2);
    assert!(refused.contains("--mode=single"), "{refused}");
}

#[test]
fn users_pull_and_build_on_what_others_pushed() {
    let registry = Registry::plain();
    let root = small(Who::Root);
    let below = root.definition("below", &["odd"]).build("below");
    root.run(&["push", "localhost/below", "--to", &registry.image("below:1")]).ok();
    let base = registry.image("below:1");
    let over = |project: &Project| -> String {
        project.fixture("later").write(
            "manifests/over.toml",
            format!("image = \"localhost/over\"\nbase = \"{base}\"\nplatforms = [\"linux/amd64\"]\nlayers = [\"later\"]\n"),
        );
        project.build("over")
    };
    let user = Project::of(Who::Range);
    assert_eq!(user.run(&["pull", &base, "--unpack"]).ok(), below);
    let built = over(&user);
    assert_eq!(over(&Project::new()), built, "on a base that root pulled");
    assert_eq!(over(&root), built, "on a base that was built here");
}

/// A way to run the same build.
#[derive(Default)]
struct Variant {
    what: &'static str,
    /// A tool that takes the build's command line.
    tool: &'static [&'static str],
    options: &'static [&'static str],
    environment: &'static [(&'static str, &'static str)],
    /// Whether the tool preloads a library.
    preloads: bool,
}

const FAKETIME: &[(&str, &str)] = &[("NO_FAKE_STAT", "1"), ("FAKETIME_DONT_RESET", "1")];

fn variants() -> Vec<Variant> {
    let none = Variant::default;
    vec![
        Variant {
            what: "a strict umask",
            tool: &["sh", "-c", "umask 077; exec \"$@\"", "sh"],
            ..none()
        },
        Variant { what: "no umask", tool: &["sh", "-c", "umask 000; exec \"$@\"", "sh"], ..none() },
        Variant {
            what: "another zone and tongue",
            environment: &[
                ("TZ", "Pacific/Kiritimati"),
                ("LANG", "tr_TR.UTF-8"),
                ("LC_ALL", "tr_TR.UTF-8"),
            ],
            ..none()
        },
        Variant {
            what: "another host",
            tool: &[
                "unshare",
                "--uts",
                "sh",
                "-c",
                "hostname elsewhere.example; exec \"$@\"",
                "sh",
            ],
            ..none()
        },
        Variant { what: "one thread", options: &["--threads", "1"], ..none() },
        Variant { what: "seven threads", options: &["--threads", "7"], ..none() },
        Variant { what: "trees on disk", options: &["--memory", "0"], ..none() },
        Variant { what: "a plain tree in memory", options: &["--tree", "plain"], ..none() },
        Variant {
            what: "a plain tree on disk",
            options: &["--tree", "plain", "--memory", "0"],
            ..none()
        },
        Variant { what: "one processor", tool: &["taskset", "1"], ..none() },
        Variant { what: "fixed addresses", tool: &["setarch", "-R"], ..none() },
        Variant {
            what: "foreign variables",
            environment: &[("ARCH", "vax"), ("PYTHONHASHSEED", "7"), ("USER", "me")],
            ..none()
        },
        Variant {
            what: "a fast clock",
            tool: &["faketime", "-m", "--exclude-monotonic", "-f", "+40d"],
            environment: FAKETIME,
            preloads: true,
            ..none()
        },
        Variant {
            what: "a slow clock",
            tool: &["faketime", "-m", "--exclude-monotonic", "-f", "-900d"],
            environment: FAKETIME,
            preloads: true,
            ..none()
        },
    ]
}

#[test]
fn surroundings_do_not_matter() {
    let expected = expected();
    for variant in variants() {
        let project = small(Who::Root);
        let project = if variant.preloads { project.preloading() } else { project };
        let mut line = vec!["build", "small"];
        line.extend_from_slice(variant.options);
        let mut command = project.command_under(variant.tool, &line);
        command.envs(variant.environment.iter().copied());
        assert_eq!(Ran::of(&mut command).ok(), expected, "under {}", variant.what);
    }
}

/// Puts a filter with a listener before all that follows, as a container's runtime may.
const WATCHED: &str = "
import ctypes, os, platform, struct, sys
allow = ctypes.create_string_buffer(struct.pack('HBBI', 6, 0, 0, 0x7fff0000))
program = ctypes.create_string_buffer(struct.pack('HxxxxxxP', 1, ctypes.addressof(allow)))
libc = ctypes.CDLL(None, use_errno=True)
listener = libc.syscall(277 if platform.machine() == 'aarch64' else 317, 1, 8, program)
assert listener >= 0, os.strerror(ctypes.get_errno())
os.set_inheritable(listener, True)
os.execvp(sys.argv[1], sys.argv[1:])
";

#[test]
fn another_supervisor_of_the_build_costs_device_nodes_and_nothing_else() {
    let project = small(Who::Root);
    let under =
        |line: &[&str]| Ran::of(&mut project.command_under(&["python3", "-c", WATCHED], line));
    assert_eq!(under(&["build", "small"]).ok(), expected());
    project.script("nodes", "mknod /node c 1 3").definition("nodes", &["nodes"]);
    under(&["build", "nodes"]).fails(1);
    project.build("nodes");
}

#[test]
fn the_place_of_the_store_does_not_matter() {
    let expected = expected();
    // A file system that lists folders in another order, and one of another kind.
    let scripts: &[(&str, &str)] = &[
        ("tmpfs", "mount -t tmpfs -o size=500m none \"$OCIBUILD_STORE\""),
        (
            "xfs",
            "truncate -s 400M \"$TMPDIR/disk\"; mkfs.xfs -q \"$TMPDIR/disk\"
             mount -o loop \"$TMPDIR/disk\" \"$OCIBUILD_STORE\"",
        ),
        (
            "bindfs, with a copy of the layers elsewhere",
            "mkdir \"$TMPDIR/below\"; bindfs \"$TMPDIR/below\" \"$OCIBUILD_STORE\"
             set -- \"$@\" --memory 0 --tree plain",
        ),
        (
            "ext4 without a tree in memory",
            "truncate -s 400M \"$TMPDIR/disk\"; mkfs.ext4 -q \"$TMPDIR/disk\"
             mount -o loop \"$TMPDIR/disk\" \"$OCIBUILD_STORE\"; set -- \"$@\" --memory 0 --scratch \"$OCIBUILD_STORE/scratch\"
             mkdir \"$OCIBUILD_STORE/scratch\"",
        ),
    ];
    for (what, script) in scripts {
        let project = small(Who::Root);
        std::fs::rename(project.store(), project.path("moved")).unwrap();
        std::fs::create_dir(project.store()).unwrap();
        let script = format!(
            "{script}; cp -a \"$TMPDIR/../moved/.\" \"$OCIBUILD_STORE/\"; \"$@\"; umount \"$OCIBUILD_STORE\""
        );
        let tool = ["unshare", "--mount", "--propagation", "private", "sh", "-euc", &script, "sh"];
        let ran = Ran::of(&mut project.command_under(&tool, &["build", "small"]));
        assert_eq!(ran.ok(), expected, "with the store on {what}");
    }
    let project = small(Who::Root);
    let deep = project.path(&format!("a folder/{}", "deep/".repeat(20)));
    std::fs::create_dir_all(&deep).unwrap();
    project
        .run(&[
            "import",
            "tiny.tar",
            "--name",
            "localhost/tiny:1",
            "--store",
            deep.to_str().unwrap(),
        ])
        .ok();
    let ran = project.run(&["build", "small", "--store", deep.to_str().unwrap()]);
    assert_eq!(ran.ok(), expected, "with the store at a long path");
}

#[test]
fn a_copy_of_the_layers_is_refused_where_its_owners_or_programs_would_be_wrong() {
    for (who, mount, why) in [
        (Who::Root, "mount -t tmpfs -o nosuid,mode=1777 none scratch", "mounted nosuid"),
        (Who::Single, "bindfs -o allow_other below scratch", "no numbers that last"),
    ] {
        let project = small(who);
        for folder in ["below", "scratch"] {
            std::fs::create_dir(project.path(folder)).unwrap();
            crate::support::run(Command::new("chmod").arg("1777").arg(project.path(folder)));
        }
        let script =
            format!("{mount}; status=0; \"$@\" || status=$?; umount scratch; exit $status");
        let tool = ["unshare", "--mount", "--propagation", "private", "sh", "-euc", &script, "sh"];
        let scratch = project.path("scratch");
        let line = ["build", "small", "--memory", "0", "--tree", "plain", "--scratch"];
        let line = [&line[..], &[scratch.to_str().unwrap()]].concat();
        let told = Ran::of(&mut project.command_under(&tool, &line)).fails(3);
        assert!(told.contains(why) && told.contains("hint: "), "{told}");
    }
}

#[test]
fn the_recipes_own_times_and_owners_do_not_matter() {
    let expected = expected();
    let project = small(Who::Root);
    crate::support::run(Command::new("find").arg(project.path("layers")).args([
        "-exec",
        "touch",
        "-h",
        "-d",
        "2011-11-11",
        "{}",
        "+",
    ]));
    crate::support::run(Command::new("chown").args(["-R", "12:34"]).arg(project.path("layers")));
    crate::support::run(Command::new("chmod").args(["-R", "go-r"]).arg(project.path("layers")));
    assert_eq!(project.build("small"), expected);
}

#[test]
fn zstd_has_one_digest_too() {
    let build = |options: &[&str]| {
        let project = Project::with_tiny_base(Who::Root);
        project.fixture("odd").write(
            "manifests/packed.toml",
            "image = \"localhost/packed\"\nbase = \"localhost/tiny:1\"\nplatforms = [\"linux/amd64\"]\n\
             layers = [\"odd\"]\ncompression = \"zstd\"\n",
        );
        let mut line = vec!["build", "packed"];
        line.extend_from_slice(options);
        let built = project.run(&line).ok();
        let shown = project.run(&["show", "localhost/packed", "--json"]).json();
        assert!(shown.to_string().contains("tar+zstd"), "{shown}");
        built
    };
    assert_eq!(build(&["--threads", "1"]), build(&["--threads", "5"]));
}

#[test]
fn a_layer_that_outgrows_the_memory_is_begun_again_on_disk() {
    let build = |options: &[&str]| {
        let project = Project::with_tiny_base(Who::Root);
        project
            .script("middle", "head -c 20000000 /dev/zero > /middle\n")
            .script("large", "head -c 60000000 /dev/zero > /large\necho made\n")
            .script("small", "echo s > /small\nwc -c </middle > /counted\n");
        project.definition("both", &["middle", "large", "small"]);
        let mut line = vec!["build", "both", "-v"];
        line.extend_from_slice(options);
        project.run(&line)
    };
    let expected = build(&["--memory", "0"]).ok();
    // A copy of the middle layer has no room beside the plain tree, and goes to disk alone.
    for tree in ["overlay", "plain"] {
        let ran = build(&["--memory", "60M", "--tree", tree]);
        assert_eq!(ran.stderr().matches("once more on disk").count(), 1, "{}", ran.stderr());
        assert_eq!(ran.ok(), expected, "{tree}");
    }
}

#[test]
fn another_compression_runs_no_step() {
    let project = small(Who::Root);
    let gzip = project.build("small");
    let definition = project.path("manifests/small.toml");
    let text = std::fs::read_to_string(&definition).unwrap();
    std::fs::write(&definition, format!("compression = \"zstd\"\n{text}")).unwrap();
    let ran = project.run(&["build", "small"]);
    assert_eq!(ran.stderr().matches(": cached").count(), 2, "{}", ran.stderr());
    let fresh = small(Who::Root);
    std::fs::copy(&definition, fresh.path("manifests/small.toml")).unwrap();
    let zstd = ran.ok();
    assert_eq!(fresh.build("small"), zstd);
    std::fs::write(&definition, text).unwrap();
    assert_ne!(gzip, zstd);
    assert_eq!(project.build("small"), gzip);
}
