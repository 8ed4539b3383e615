//! `registries.conf`: mirrors, other places, blocked and insecure registries; what skopeo makes of the
//! same file is what we make of it.

use std::process::Command;

use crate::support::cli::{Project, Ran, Who, names};
use crate::support::free_port;
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
