//! `registries.conf`: mirrors, other places, blocked and insecure registries; what skopeo makes of the
//! same file is what we make of it.

use std::process::Command;

use crate::support::cli::{Project, Ran, Who, names};
use crate::support::cutter::Cutter;
use crate::support::free_port;
use crate::support::podman::Podman;
use crate::support::registry::{Auth, Registry, Tls};

/// Writes the user's file, in which `PRIMARY` and `MIRROR` stand for registries.
fn write(project: &Project, text: &str, registries: &[(&str, &Registry)]) {
    let fill =
        |text: String, (name, registry): &(&str, &Registry)| text.replace(name, &registry.host());
    let text = registries.iter().fold(text.to_owned(), fill);
    project.write("home/.config/containers/registries.conf", text);
}

/// What skopeo reads under a name, with the same home.
fn skopeo(project: &Project, name: &str) -> Ran {
    let mut command = Command::new("skopeo");
    command.args(["inspect", "--raw", &format!("docker://{name}")]);
    Ran::of(command.env("HOME", project.path("home")).env_remove("XDG_CONFIG_HOME"))
}

/// A project with the tiny base in its store, and its digest.
fn tiny() -> (Project, String) {
    let project = Project::with_tiny_base(Who::Root);
    let shown = project.run(&["show", "localhost/tiny:1", "--json"]).json();
    (project, shown["digest"].as_str().unwrap().to_owned())
}

/// Pulls into an empty store, as another machine would.
fn pull(project: &Project, name: &str) -> Ran {
    std::fs::remove_dir_all(project.path("other")).ok();
    let store = project.path("other");
    project.run(&["pull", name, "--store", store.to_str().unwrap()])
}

fn asked(registry: &Registry, what: &str) -> usize {
    registry.log().lines().filter(|line| line.contains(what)).count()
}

#[test]
fn a_mirror_that_has_an_image_is_read_and_one_that_lacks_it_is_passed_over() {
    let (primary, mirror) = (Registry::plain(), Registry::plain());
    let (project, digest) = tiny();
    write(
        &project,
        "[[registry]]\nprefix = \"images.test/ns\"\nlocation = \"PRIMARY/real\"\ninsecure = true\n\
         [[registry.mirror]]\nlocation = \"127.0.0.1:1/dead\"\n\
         [[registry.mirror]]\nlocation = \"MIRROR/cache\"\ninsecure = true\n",
        &[("PRIMARY", &primary), ("MIRROR", &mirror)],
    );
    for to in
        [mirror.image("cache/both:1"), primary.image("real/both:1"), primary.image("real/only:1")]
    {
        project.run(&["push", "localhost/tiny:1", "--to", &to]).ok();
    }
    let (reads, blobs) = ("\"GET /v2/real/both/", "\"GET /v2/cache/both/blobs/");
    let before = asked(&primary, reads);
    assert_eq!(pull(&project, "images.test/ns/both:1").ok(), digest);
    assert_eq!(asked(&primary, reads), before);
    assert!(asked(&mirror, blobs) > 0);
    assert!(project.path("other").exists());
    // It is known by its name, wherever it came from.
    let store = project.path("other");
    let listed = project.run(&["list", "--store", store.to_str().unwrap()]).ok();
    assert!(listed.contains("images.test/ns/both:1") && !listed.contains("cache"), "{listed}");

    assert_eq!(pull(&project, "images.test/ns/only:1").ok(), digest);
    for name in ["both", "only"] {
        let raw = skopeo(&project, &format!("images.test/ns/{name}:1")).ok();
        assert_eq!(crate::support::image::digest(raw.as_bytes()), digest);
    }
    let stderr = pull(&project, "images.test/ns/none:1").fails(1);
    assert!(stderr.contains(&primary.image("real/none")), "{stderr}");
    assert!(
        stderr.contains("warning: ") && stderr.contains(&mirror.image("cache/none")),
        "{stderr}"
    );
    assert_eq!(skopeo(&project, "images.test/ns/none:1").code(), Some(1));

    // A blob that the mirror lost comes from the primary place.
    let folder = mirror.storage().join("docker/registry/v2/repositories/cache/both/_layers/sha256");
    for blob in names(&folder) {
        std::fs::remove_dir_all(folder.join(blob)).unwrap();
    }
    assert_eq!(pull(&project, "images.test/ns/both:1").ok(), digest);
    assert!(asked(&primary, reads) > before);

    // A base is read the same way.
    project.script("own", "echo own > /own");
    project.write(
        "manifests/based.toml",
        "image = \"localhost/based\"\nbase = \"images.test/ns/only:1\"\nplatforms = [\"linux/amd64\"]\n\
         layers = [\"own\"]\n",
    );
    project.run(&["build", "based"]).ok();
}

#[test]
fn a_mirror_for_digests_is_not_asked_for_tags() {
    let (primary, mirror) = (Registry::plain(), Registry::plain());
    let (project, digest) = tiny();
    project.run(&["push", "localhost/tiny:1", "--to", &mirror.image("m/a:1")]).ok();
    let name = primary.image("p/a");
    let (tag, pinned) = (format!("{name}:1"), format!("{name}@{digest}"));
    for (rule, by_tag, by_digest) in [
        ("", true, true),
        ("pull-from-mirror = \"digest-only\"", false, true),
        ("pull-from-mirror = \"tag-only\"", true, false),
    ] {
        write(
            &project,
            &format!(
                "[[registry]]\nlocation = \"PRIMARY/p\"\ninsecure = true\n\
                 [[registry.mirror]]\nlocation = \"MIRROR/m\"\ninsecure = true\n{rule}\n"
            ),
            &[("PRIMARY", &primary), ("MIRROR", &mirror)],
        );
        for (name, works) in [(&tag, by_tag), (&pinned, by_digest)] {
            assert_eq!(pull(&project, name).code(), Some(i32::from(!works)), "{rule} {name}");
        }
    }
    write(
        &project,
        "[[registry]]\nlocation = \"PRIMARY/p\"\ninsecure = true\nmirror-by-digest-only = true\n\
         [[registry.mirror]]\nlocation = \"MIRROR/m\"\ninsecure = true\n",
        &[("PRIMARY", &primary), ("MIRROR", &mirror)],
    );
    for (name, works) in [(&tag, false), (&pinned, true)] {
        assert_eq!(pull(&project, name).code(), Some(i32::from(!works)), "{name}");
        assert_eq!(skopeo(&project, name).code(), Some(i32::from(!works)), "{name}");
    }
}

#[test]
fn a_blocked_registry_is_neither_read_nor_written_but_its_mirror_is() {
    let (primary, mirror) = (Registry::plain(), Registry::plain());
    let (project, digest) = tiny();
    let name = primary.image("p/a:1");
    project.run(&["push", "localhost/tiny:1", "--to", &name]).ok();
    project.run(&["push", "localhost/tiny:1", "--to", &mirror.image("m/a:1")]).ok();
    let blocked = "[[registry]]\nlocation = \"PRIMARY\"\nblocked = true\ninsecure = true\n";
    let both = [("PRIMARY", &primary), ("MIRROR", &mirror)];
    write(&project, blocked, &both);
    let before = primary.log().len();
    for arguments in [
        &["pull", &name] as &[&str],
        &["show", "--remote", &name],
        &["copy", &name, &mirror.image("m/b:1")],
        &["copy", &mirror.image("m/a:1"), &primary.image("p/b:1")],
        &["push", "localhost/tiny:1", "--to", &primary.image("p/b:1")],
        &["push", "localhost/tiny:1", "--to", &primary.image("p/b:1"), "--dry-run"],
    ] {
        let stderr = project.run(arguments).fails(1);
        assert!(stderr.contains("is blocked by"), "{stderr}");
        assert!(stderr.contains("containers/registries.conf"), "{stderr}");
    }
    assert_eq!(skopeo(&project, &name).code(), Some(1));
    let mirrored =
        format!("{blocked}[[registry.mirror]]\nlocation = \"MIRROR/m\"\ninsecure = true\n");
    write(&project, &mirrored.replace("PRIMARY", "PRIMARY/p"), &both);
    assert_eq!(pull(&project, &name).ok(), digest);
    assert_eq!(skopeo(&project, &name).code(), Some(0));
    assert_eq!(primary.log().len(), before, "it was not even asked");
}

#[test]
fn an_insecure_registry_may_have_any_certificate_or_none() {
    let tls = Tls::new();
    let (secure, plain) = (Registry::start(Some(&tls), &Auth::None), Registry::plain());
    let (project, digest) = tiny();
    let name = secure.image("a:1");
    let push = ["push", "localhost/tiny:1", "--to", &name];
    project.run(&push).fails(3);
    let rule = "[[registry]]\nlocation = \"SECURE\"\ninsecure = true\n\
                [[registry]]\nlocation = \"plain.test\"\ninsecure = true\n";
    write(&project, rule, &[("SECURE", &secure)]);
    project.run(&push).ok();
    assert_eq!(pull(&project, &name).ok(), digest);
    assert_eq!(skopeo(&project, &name).code(), Some(0));

    // Off this machine plain HTTP has to be allowed; a proxy stands for the way there.
    let through = |name: &str| {
        let mut command = project.command(&["push", "localhost/tiny:1", "--to", name]);
        command.env("http_proxy", format!("http://{}", plain.host()));
        Ran::of(command.env("https_proxy", format!("http://127.0.0.1:{}", free_port())))
    };
    through("plain.test/b:1").ok();
    assert!(plain.log().contains("PUT http://plain.test/v2/b/manifests/1"), "{}", plain.log());
    through("other.test/b:1").fails(3);
}

#[test]
fn a_file_that_makes_no_sense_is_named_and_one_that_was_named_has_to_be_there() {
    let (project, _) = tiny();
    let registry = Registry::plain();
    write(&project, "[[registry]]\nlocation = \"https://PRIMARY\"\n", &[("PRIMARY", &registry)]);
    let stderr = project.run(&["pull", &registry.image("a:1")]).fails(2);
    assert!(stderr.contains("registries.conf") && stderr.contains("HOST[:PORT]"), "{stderr}");
    let mut command = project.command(&["pull", &registry.image("a:1")]);
    let stderr =
        Ran::of(command.env("CONTAINERS_REGISTRIES_CONF", "/nowhere/registries.conf")).fails(1);
    assert!(stderr.contains("/nowhere/registries.conf"), "{stderr}");
}

#[test]
fn what_a_mirror_breaks_off_or_has_wrong_comes_from_the_next_place() {
    let (primary, mirror) = (Registry::plain(), Registry::plain());
    let project = Project::with_tiny_base(Who::Root);
    project.script("big", "head -c 9000000 /dev/urandom > /srv/big").definition("big", &["big"]);
    let digest = project.build("big");
    for to in [primary.image("real/big:1"), mirror.image("cache/big:1")] {
        project.run(&["push", "localhost/big", "--to", &to]).ok();
    }
    let by_mirror = |host: &str| {
        let text = format!(
            "[[registry]]\nlocation = \"PRIMARY/real\"\n\
             [[registry.mirror]]\nlocation = \"{host}/cache\"\n"
        );
        write(&project, &text, &[("PRIMARY", &primary)]);
    };
    let name = primary.image("real/big:1");
    for unpack in [false, true] {
        std::fs::remove_dir_all(project.path("other")).ok();
        let wire = Cutter::dying(&mirror.host(), 5_000_000);
        by_mirror(&wire.host());
        let before = primary.log().len();
        let store = project.path("other");
        let mut arguments = vec!["pull", &name, "--store", store.to_str().unwrap()];
        arguments.extend(unpack.then_some("--unpack"));
        let ran = project.run(&arguments);
        let told = ran.stderr();
        assert_eq!(ran.ok(), digest);
        assert!(wire.happened());
        assert!(told.contains("going on from there in 127.0.0.1"), "{told}");
        let log = primary.log()[before..].to_owned();
        // Not from its start: the answer is a part.
        let rest = log
            .lines()
            .any(|line| line.contains("GET /v2/real/big/blobs") && line.contains("\" 206 "));
        assert!(rest, "{log}");
    }

    // One byte of it is another one.
    let blob = |sized: u64| {
        let all = mirror.storage().join("docker/registry/v2/blobs/sha256");
        let folders = names(&all).into_iter().map(|name| all.join(name));
        let mut blobs = folders.flat_map(|folder| {
            names(&folder).into_iter().map(move |name| folder.join(name).join("data"))
        });
        blobs.find(|data| data.metadata().unwrap().len() > sized).unwrap()
    };
    let path = blob(8_000_000);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[4_000_000] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    by_mirror(&mirror.host());
    for unpack in [&[][..], &["--unpack"]] {
        std::fs::remove_dir_all(project.path("other")).ok();
        let store = project.path("other");
        let mut arguments = vec!["pull", &name, "--store", store.to_str().unwrap()];
        arguments.extend(unpack);
        assert_eq!(project.run(&arguments).ok(), digest);
    }
}

#[test]
fn a_cache_that_pulls_through_is_filled_once() {
    let primary = Registry::plain();
    let cache = Registry::caching(&primary);
    let (project, digest) = tiny();
    let name = primary.image("a/b:1");
    project.run(&["push", "localhost/tiny:1", "--to", &name]).ok();
    write(
        &project,
        "[[registry]]\nlocation = \"PRIMARY\"\n[[registry.mirror]]\nlocation = \"CACHE\"\n",
        &[("PRIMARY", &primary), ("CACHE", &cache)],
    );
    for (reads, unpack) in [(true, &[][..]), (false, &["--unpack"])] {
        let before = (primary.log().len(), cache.log().len());
        std::fs::remove_dir_all(project.path("other")).ok();
        let store = project.path("other");
        let pull = ["pull", &name, "--store", store.to_str().unwrap()];
        assert_eq!(project.run(&[&pull[..], unpack].concat()).ok(), digest);
        // The cache may still be keeping what it has passed on.
        let mut length = 0;
        while length != primary.log().len() {
            length = primary.log().len();
            std::thread::sleep(std::time::Duration::from_secs(1));
        }
        let (theirs, ours) = (&primary.log()[before.0..], &cache.log()[before.1..]);
        assert!(ours.contains("\"GET /v2/a/b/blobs/sha256:"), "{ours}");
        assert_eq!(theirs.contains("\"GET /v2/a/b/blobs/sha256:"), reads, "{theirs}");
    }
}

#[test]
fn a_name_without_a_registry_is_an_alias_or_in_the_one_registry_that_is_searched() {
    let (one, two) = (Registry::plain(), Registry::plain());
    let (project, digest) = tiny();
    for to in [one.image("team/thing:1"), two.image("thing:1")] {
        project.run(&["push", "localhost/tiny:1", "--to", &to]).ok();
    }
    let both = [("ONE", &one), ("TWO", &two)];
    write(&project, "[aliases]\nthing = \"ONE/team/thing\"\n", &both);
    let full = one.image("team/thing:1");
    let ran = project.run(&["pull", "thing:1"]);
    assert!(ran.stderr().contains(&format!("`thing:1` is {full}, by ")), "{ran}");
    assert_eq!(ran.ok(), digest);
    // The store has it by its full name, and finds it by the short one.
    assert!(project.run(&["list"]).ok().contains(&full));
    assert_eq!(project.run(&["show", "thing:1", "--json"]).json()["digest"], *digest);
    let to = two.image("copied:1");
    assert_eq!(project.run(&["copy", "thing:1", &to]).ok(), format!("{to}@{digest}"));
    // podman makes the same of it.
    let podman = Podman::new();
    let mut theirs = podman.command(&["pull", "-q", "--tls-verify=false", "thing:1"]);
    let conf = project.path("home/.config/containers/registries.conf");
    Ran::of(theirs.env("CONTAINERS_REGISTRIES_CONF", conf)).ok();
    project.run(&["remove", "thing:1"]).ok();
    assert!(!project.run(&["list"]).ok().contains(&full));

    write(&project, "unqualified-search-registries = [\"TWO\"]\n", &both);
    assert_eq!(pull(&project, "thing:1").ok(), digest);
    let shown = project.run(&["show", "--remote", "thing:1", "--json"]).json();
    assert_eq!(shown["digest"], *digest);
    project.run(&["sbom", "--remote", "--read", "thing:1"]).ok();
    let text = "unqualified-search-registries = [\"ONE\", \"TWO\"]\n";
    write(&project, text, &both);
    let before = (one.log().len(), two.log().len());
    let stderr = pull(&project, "thing:1").fails(2);
    for part in ["registries.conf", &one.image("thing:1"), &two.image("thing:1")] {
        assert!(stderr.contains(part), "{stderr}");
    }
    assert_eq!((one.log().len(), two.log().len()), before, "nobody was asked");
    // What names its registry needs none of it.
    assert_eq!(pull(&project, &two.image("thing:1")).ok(), digest);
}
