//! Images for another architecture, by an emulator that the build registers for itself.

use crate::support::base;
use crate::support::cli::{Project, Ran, Who, require_root};
use crate::support::freezer::Freezer;
use crate::support::image::{self, entry};
use crate::support::podman::Podman;
use crate::support::registry::Registry;
use crate::support::run;

/// An architecture that isn't this machine's, and its name for `uname`.
const OTHER: (&str, &str) =
    if cfg!(target_arch = "aarch64") { ("amd64", "x86_64") } else { ("arm64", "aarch64") };

fn project(who: Who) -> Project {
    let (arch, machine) = OTHER;
    let project = Project::of(who);
    project.write("foreign.tar", base::foreign(arch));
    let platform = format!("linux/{arch}");
    let base = "localhost/foreign:1";
    project.run(&["import", "foreign.tar", "--name", base, "--platform", &platform]).ok();
    project.script(
        "foreign",
        &format!(
            "test \"$(uname -m)\" = {machine}\n\
             echo made > /srv/made; chown 7:8 /srv/made; chmod 4755 /srv/made; mknod /srv/null c 1 3\n\
             test \"$(stat -c %u:%g:%a /srv/made)\" = 7:8:4755\n\
             test \"$(sh -c 'echo $0' of-its-own)\" = of-its-own\n\
             # Nothing of the registration is in reach.\n\
             test -z \"$(ls /proc/sys/fs/binfmt_misc)\"\n\
             test -z \"$(find / -xdev -name '*qemu*')\""
        ),
    );
    project.write(
        "manifests/foreign.toml",
        format!(
            "image = \"localhost/foreign-made\"\nbase = \"{base}\"\n\
             platforms = [\"{platform}\"]\nlayers = [\"foreign\"]\n"
        ),
    );
    project
}

#[test]
fn steps_of_another_architecture_give_one_digest_whoever_runs_them() {
    let registry = Registry::plain();
    let root = project(Who::Root);
    let built = root.build("foreign");
    root.run(&["push", "localhost/foreign-made", "--to", &registry.image("foreign:1")]).ok();
    let (digest, platforms) = image::check(&registry.host(), "foreign", "1");
    assert_eq!(digest, built);
    let made = image::entries(&platforms[0].layers[1]);
    let file = entry(&made, "srv/made");
    assert_eq!((file.owner, file.mode), ((7, 8), 0o4755));
    assert_eq!(entry(&made, "srv/null").kind, 'c');
    for who in [Who::Range, Who::Single] {
        assert_eq!(project(who).build("foreign"), built, "{who:?}");
    }
}

#[test]
fn who_has_no_emulator_is_told_how_to_get_one() {
    require_root();
    let hide = "for q in $(ls /usr/bin/qemu-* /usr/local/bin/qemu-* 2>/dev/null); \
                do mount --bind /dev/null $q; done; exec \"$@\"";
    let tool = ["unshare", "--mount", "--propagation", "private", "sh", "-c", hide, "sh"];
    let project = project(Who::Root);
    let told = Ran::of(&mut project.command_under(&tool, &["build", "foreign"])).fails(3);
    assert!(told.contains("cannot be run on this machine"), "{told}");
    assert!(told.contains("install qemu-user-static"), "{told}");
    assert!(told.contains("with the flag F"), "{told}");
    assert!(told.contains("`ocibuild index`"), "{told}");
}

#[test]
fn cuda_is_not_for_arm64_and_says_so() {
    let project = Project::of_the_repository(Who::Root);
    for name in ["cuda", "cuda-tensorflow", "cuda11", "cuda-spatial"] {
        let told = project.run(&["build", name, "--platform", "linux/arm64"]).fails(2);
        assert!(told.contains("not made for linux/arm64") && told.contains(name), "{told}");
        assert!(told.contains("linux/amd64"), "which it is made for: {told}");
    }
}

/// The repository's own R image for both architectures in one index by root; for arm64 by a user
/// with one id and nothing else, which is what podman starts: in a namespace that emulates and ends.
#[test]
fn debian_r_for_both_architectures_is_one_index_and_runs() {
    require_root();
    let repository = |who| {
        let project = Project::of_the_repository(who);
        project.add_debian_arm64();
        project
    };
    let freezer = Freezer::of_the_repository();
    let name = "localhost:5000/rocker/debian-r";
    let single = repository(Who::Single);
    let built = freezer.build(&single, &[], &["build", "debian-r"], &[]);

    let registry = Registry::plain();
    let pushed = registry.image("rocker/debian-r:latest");
    single.run(&["push", name, "--only", "--to", &pushed]).ok();
    let (digest, platforms) = image::check(&registry.host(), "rocker/debian-r", "latest");
    assert_eq!(digest, built);
    assert_eq!(platforms.len(), 2, "one entry for each");
    let shown = single.run(&["show", name, "--json"]).json();
    let arm = shown["platforms"][1].clone();
    assert_eq!(arm["platform"]["architecture"], "arm64", "{shown}");
    let apart = arm["manifest"].as_str().unwrap().to_owned();

    // Root makes the smallest of its layers again, over what it has from the registry.
    let root = repository(Who::Root);
    root.run(&["pull", &pushed]).ok();
    root.learn(&single);
    let line = ["build", "debian-r", "--platform", "linux/arm64", "--refresh", "opt-share"];
    assert_eq!(freezer.build(&root, &[], &line, &[]), apart);

    let by_digest = registry.image(&format!("rocker/debian-r@{apart}"));
    let podman = Podman::new();
    let platform = ["--platform", "linux/arm64"];
    let pull = [&["pull", "--quiet", "--tls-verify=false"], &platform[..], &[&by_digest]].concat();
    run(&mut podman.command(&pull));
    let words = ["Rscript", "-e", "cat(sum(solve(diag(4)) * 1:4), R.version[['arch']])"];
    let line = [&["run", "--rm", "--network=host"], &platform[..], &[&by_digest], &words].concat();
    let said = run(&mut podman.command_emulating("linux/arm64", &line)).stdout;
    assert_eq!(String::from_utf8(said).unwrap(), "10 aarch64");
}
