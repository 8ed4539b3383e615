//! Blobs that go up while they are made: ahead of their end, over a wire that breaks or hangs, and
//! given up.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ocibuild::http::{Client, Config};
use ocibuild::oci::{Descriptor, Digest, media_type};
use ocibuild::registry::{Keychain, Registries, Repository};
use ocibuild::report::{Silent, Task, Unit};
use ocibuild::store::Store;
use ocibuild::transfer::Sink;

use crate::support::cli::{Project, Who, names, wait_for};
use crate::support::cutter::{Cutter, Then};
use crate::support::registry::Registry;
use crate::support::{image, noise, run, temp_dir};

fn open(name: &str) -> Repository {
    let registries =
        Registries::new(Client::new(Config::default()), Keychain::new(&BTreeMap::new()));
    registries.open(&name.parse().unwrap())
}

/// The bytes that lie in the registry's uploads that have not ended.
fn under_way(registry: &Registry) -> u64 {
    fn all(folder: &Path, found: &mut Vec<PathBuf>) {
        for name in names(folder) {
            let path = folder.join(name);
            if path.is_dir() {
                all(&path, found);
            } else {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    all(&registry.storage(), &mut found);
    let of_uploads = |path: &&PathBuf| path.to_string_lossy().contains("/_uploads/");
    let data = found.iter().filter(of_uploads).filter(|path| path.ends_with("data"));
    data.filter_map(|path| path.metadata().ok()).map(|metadata| metadata.len()).sum()
}

#[test]
fn a_blob_goes_up_before_its_end_is_known() {
    let registry = Registry::plain();
    let repository = open(&registry.image("growing:1"));
    let dir = temp_dir();
    let store = Store::open(dir.path()).unwrap();
    let bytes = noise(24 << 20, 3);
    let mut writer = store.raw_writer().unwrap();
    let growing = writer.share().unwrap();
    let (digest, size) = (Digest::of(&bytes), bytes.len() as u64);
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let task = Task::start(&Silent, String::new(), None, Unit::Bytes);
            repository.put_growing(growing.open(), || growing.digest(), &task)
        });
        let (half, rest) = bytes.split_at(16 << 20);
        writer.write_all(half).unwrap();
        wait_for("the registry to have most of the first part", || under_way(&registry) > 8 << 20);
        writer.write_all(rest).unwrap();
        writer.commit_hashed(digest, size).unwrap();
        assert_eq!(sending.join().unwrap().unwrap(), Some(digest));
    });
    let blob = Descriptor::new(media_type::LAYER_GZIP, digest, size);
    assert!(repository.has_blob(&blob).unwrap());
    assert_eq!(under_way(&registry), 0);
}

#[test]
fn a_blob_that_is_given_up_leaves_nothing_in_the_registry() {
    let registry = Registry::plain();
    let repository = open(&registry.image("growing:1"));
    let dir = temp_dir();
    let store = Store::open(dir.path()).unwrap();
    let mut writer = store.raw_writer().unwrap();
    let growing = writer.share().unwrap();
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let task = Task::start(&Silent, String::new(), None, Unit::Bytes);
            repository.put_growing(growing.open(), || growing.digest(), &task)
        });
        writer.write_all(&noise(16 << 20, 4)).unwrap();
        wait_for("the upload to begin", || under_way(&registry) > 1 << 20);
        drop(writer);
        assert!(!matches!(sending.join().unwrap(), Ok(Some(_))));
    });
    let blobs = registry.storage().join("docker/registry/v2/blobs/sha256");
    assert_eq!(names(&blobs), Vec::<String>::new());
}

/// A project whose image `big` has one layer of 60 MB that does not shrink, at `host`.
fn big(host: &str, compression: &str) -> Project {
    let project = Project::with_tiny_base(Who::Root);
    project.script("big", "head -c 60000000 /dev/urandom > /big");
    project.write(
        "manifests/big.toml",
        format!(
            "image = \"{host}/big\"\nbase = \"localhost/tiny:1\"\nplatforms = [\"linux/amd64\"]\n\
             layers = [\"big\"]\ncompression = \"{compression}\"\n"
        ),
    );
    project
}

#[test]
fn an_upload_that_breaks_is_done_again_from_the_store() {
    for compression in ["gzip", "zstd"] {
        let registry = Registry::plain();
        let wire = Cutter::to(&registry.host(), 20_000_000, Then::Cut);
        let project = big(&wire.host(), compression);
        let ran = project.run(&["build", "big", "--push", "-v"]);
        let said = ran.stderr();
        let built = ran.ok();
        assert!(wire.happened());
        assert!(said.contains("big could not be sent to"), "{said}");
        assert_eq!(image::check(&registry.host(), "big", "latest").0, built);
    }
}

#[test]
fn an_interrupt_of_an_upload_ends_at_once_and_leaves_no_tag() {
    let registry = Registry::plain();
    let wire = Cutter::to(&registry.host(), 10_000_000, Then::Hang);
    let project = big(&wire.host(), "gzip");
    let blobs = names(&project.store().join("blobs/sha256"));
    let child = project
        .command(&["build", "big", "--push"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for("the upload to hang", || wire.happened());
    let start = Instant::now();
    run(Command::new("kill").args(["-INT", &child.id().to_string()]));
    let output = child.wait_with_output().unwrap();
    assert!(start.elapsed() < Duration::from_secs(5));
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(project.running(), Vec::<String>::new());
    project.run(&["show", "--remote", &registry.image("big")]).fails(1);
    // Whole blobs may have come; a part of one has not.
    for name in names(&project.store().join("blobs/sha256")) {
        let bytes = std::fs::read(project.store().join("blobs/sha256").join(&name)).unwrap();
        assert!(blobs.contains(&name) || image::digest(&bytes) == format!("sha256:{name}"));
    }
}
