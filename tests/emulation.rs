//! Images for another architecture, by an emulator that the build registers for itself.

use crate::support::base;
use crate::support::cli::{Project, Ran, Who, require_root};
use crate::support::image::{self, entry};
use crate::support::registry::Registry;

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
