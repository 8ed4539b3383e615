//! Locks played back when their time has passed: lists that are no longer valid or lie ahead, keys
//! and algorithms that have expired since they were recorded.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use crate::support::cli::{Project, Ran, Who, copy_tree, require_root};
use crate::support::upstream::Upstream;
use crate::support::{TempDir, base, image, package, run, temp_dir};

/// How many seconds a list and a key are good for: enough to record them on a busy machine.
const GOOD_FOR: u64 = 30;
const DAY: u64 = 24 * 60 * 60;

/// A web of small archives, a package in each, signed by keys of the test's own.
struct Archives {
    web: Upstream,
    keys: TempDir,
    package: Vec<u8>,
    index: String,
}

impl Archives {
    fn new() -> Archives {
        let (package, index) = package::of_the_test();
        Archives { web: Upstream::new(), keys: temp_dir(), package, index }
    }

    fn gpg(&self, arguments: &[&str]) -> Vec<u8> {
        let mut command = Command::new("gpg");
        command.env("GNUPGHOME", self.keys.path()).args(["--batch", "--quiet", "--passphrase", ""]);
        run(command.args(arguments)).stdout
    }

    /// Makes a key that expires, and returns it in the form in which machines trust it.
    fn key(&self, name: &str, expires: &str) -> Vec<u8> {
        self.gpg(&["--quick-gen-key", name, "rsa2048", "sign", expires]);
        self.gpg(&["--export", name])
    }

    /// Puts an archive's signed list up, and what it lists.
    fn serve(&self, archive: &str, key: &str, dates: &str, forge: impl FnOnce(String) -> String) {
        let (digest, size) = (image::digest(self.index.as_bytes()), self.index.len());
        let file = self.keys.path().join("Release");
        std::fs::write(&file, format!("{dates}SHA256:\n {} {size} Packages\n", &digest[7..]))
            .unwrap();
        let file = file.to_str().unwrap();
        let signed = self.gpg(&["--local-user", key, "--clearsign", "--output", "-", file]);
        let signed = forge(String::from_utf8(signed).unwrap());
        let dated = "Mon, 02 Jun 2025 12:00:00 GMT";
        for (name, body) in [
            ("InRelease", signed.as_bytes()),
            ("Packages", self.index.as_bytes()),
            ("of-the-test_1_all.deb", &self.package),
        ] {
            self.web.page(&format!("http://apt.example/{archive}/{name}"), body, dated);
        }
    }

    fn online(&self, project: &Project, arguments: &[&str]) -> Ran {
        Ran::of(project.command(arguments).env("http_proxy", self.web.address()))
    }
}

impl Drop for Archives {
    fn drop(&mut self) {
        let mut command = Command::new("gpgconf");
        command.env("GNUPGHOME", self.keys.path()).args(["--kill", "all"]).status().ok();
    }
}

/// A field of a list, so many seconds from now.
fn date(field: &str, seconds: u64) -> String {
    let ahead = format!("{seconds} seconds");
    let text = run(Command::new("date").args(["--utc", "-R", "-d", &ahead])).stdout;
    let text = String::from_utf8(text).unwrap().replace("+0000", "UTC");
    format!("{field}: {text}")
}

/// A script that installs the package of an archive once apt has its lists.
fn installs(archive: &str, update: &str) -> String {
    format!(
        "set -e
        cp $OCIBUILD_RECIPE/keys.gpg /usr/share/keyrings/of-the-test.gpg
        echo 'deb [signed-by=/usr/share/keyrings/of-the-test.gpg] http://apt.example/{archive} ./' \
            >/etc/apt/sources.list.d/{archive}.list
        only='-o Dir::Etc::sourcelist=sources.list.d/{archive}.list -o Dir::Etc::sourceparts=-'
        replayed() {{ grep -q Check-Date $APT_CONFIG; }}
        {update}
        apt-get $only install -y of-the-test
        dpkg --purge of-the-test
        echo {archive} >/srv/{archive}"
    )
}

const UPDATE: &str = "apt-get $only update";

/// Has a day come until the replay from which on sqv's policy lets no such key through.
const UPDATE_AFTER_ITS_DAY: &str = "policies=/etc/crypto-policies/back-ends
        if replayed; then
            mkdir -p $policies
            printf '[asymmetric_algorithms]\\nrsa2048 = 2025-01-01\\n' >$policies/apt-sequoia.config
        fi
        apt-get $only update
        rm -rf /etc/crypto-policies";

/// Records what apt refuses, as a machine would whose clock goes wrong.
const UPDATE_AHEAD: &str = "if ! replayed; then
            if apt-get $only update; then exit 9; fi
            only=\"$only -o Acquire::Check-Date=false\"
        fi
        apt-get $only update";

/// A project whose base is unpacked already, so that what follows does not take long.
fn project(who: Who, base: &Path) -> Project {
    let project = Project::of(who);
    std::fs::copy(base, project.path("base.tar")).unwrap();
    project.script("warm", "true");
    define(&project, "warm", &["warm"]);
    project.run(&["import", "base.tar", "--name", "localhost/base:1"]).ok();
    project.build("warm");
    project
}

fn define(project: &Project, name: &str, layers: &[&str]) {
    let text = format!(
        "image = \"localhost/{name}\"\nbase = \"localhost/base:1\"\n\
         platforms = [\"linux/amd64\"]\nlayers = {layers:?}\n"
    );
    project.write(&format!("manifests/{name}.toml"), text);
}

/// `refusals` are the layers that can't be recorded any more later, and why; `bad` is how the
/// verifier puts it that a list is not what was signed.
fn the_digest_is_the_same_later(base: &Path, refusals: &[(&str, &str)], bad: &str) {
    require_root();
    let archives = Archives::new();
    let (root, single) = (project(Who::Root, base), project(Who::Single, base));
    let lasting = archives.key("lasting@b.c", "10y");

    let began = SystemTime::now();
    let passing = archives.key("passing@b.c", &format!("seconds={GOOD_FOR}"));
    let now = date("Date", 0);
    let passes = format!("{now}{}", date("Valid-Until", GOOD_FOR));
    archives.serve("dated", "lasting@b.c", &passes, |text| text);
    archives.serve("signed", "passing@b.c", &now, |text| text);
    archives.serve("ahead", "lasting@b.c", &date("Date", DAY), |text| text);
    archives.serve("forged", "passing@b.c", &now, |text| text.replace("Packages", "packages"));

    let refused = format!(
        "if apt-get $only update >/tmp/told 2>&1; then exit 9; fi
        grep '{bad}' /tmp/told
        exit"
    );
    let layers = [
        ("dated", UPDATE_AFTER_ITS_DAY),
        ("signed", UPDATE),
        ("ahead", UPDATE_AHEAD),
        ("forged", &refused),
    ];
    for (layer, update) in layers {
        root.script(layer, &installs(layer, update));
        root.write(&format!("layers/{layer}/keys.gpg"), [&lasting[..], &passing].concat());
    }
    define(&root, "locked", &layers.map(|layer| layer.0));
    archives.online(&root, &["lock", "locked"]).ok();

    while began.elapsed().unwrap() <= Duration::from_secs(GOOD_FOR + 2) {
        std::thread::sleep(Duration::from_millis(200));
    }
    let digest = root.run(&["build", "locked", "--locked", "--offline"]).ok();
    for folder in ["layers", "manifests"] {
        copy_tree(&root.path(folder), &single.path(folder));
    }
    let other = archives.online(&single, &["build", "locked", "--locked"]).ok();
    assert_eq!(other, digest);
    for (layer, why) in refusals {
        let told = archives.online(&root, &["lock", "locked", "--update", layer]).fails(1);
        assert!(told.contains(why), "{told}");
    }
}

#[test]
fn the_digest_is_the_same_when_lists_and_keys_have_expired() {
    let refusals = [("dated", "is expired"), ("signed", "EXPKEYSIG")];
    the_digest_is_the_same_later(base::debian(), &refusals, "BADSIG");
}

#[test]
fn the_digest_is_the_same_when_lists_and_algorithms_have_expired() {
    // A key that has expired since it signed is as good as ever to sqv.
    the_digest_is_the_same_later(
        base::new_debian(),
        &[("dated", "is expired")],
        "has been manipulated",
    );
}
