//! Steps of another architecture, by an emulator that the build registers for itself.

use crate::support::base;
use crate::support::cli::{Project, Who};
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
             test \"$(sh -c 'echo $0' of-its-own)\" = of-its-own"
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
