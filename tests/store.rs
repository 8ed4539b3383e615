//! The store on real disks: other readers of the layout, several processes, kills, damage, no space.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use ocibuild::fault::{Fault, Kind};
use ocibuild::oci::{
    ConfigDocument, Descriptor, Document, Index, Manifest, Platform, Reference, media_type,
};
use ocibuild::report::Silent;
use ocibuild::store::{Error, GcOptions, Problem, Store};
use ocibuild::transfer::{self, Options};
use ocidir::OciRead;

use crate::support::{noise, run, temp_dir};

/// Tells the re-executed test binary what to do, and where.
const CHILD: &str = "OCIBUILD_TEST_STORE_CHILD";

/// Keeps an image of one layer under a name, and returns the layer and the image.
pub(crate) fn image(store: &Store, name: &str, seed: u64) -> (Descriptor, Descriptor) {
    let mut tar = tar::Builder::new(Vec::new());
    let content = noise(100_000, seed);
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, "file", &content[..]).unwrap();
    let tar = tar.into_inner().unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar).unwrap();
    let put = |media_type: &str, bytes: &[u8]| {
        let mut writer = store.writer().unwrap();
        writer.write_all(bytes).unwrap();
        let (digest, size) = writer.commit(None).unwrap();
        Descriptor::new(media_type, digest, size)
    };
    let layer = put(media_type::LAYER_GZIP, &gzip.finish().unwrap());
    let mut config = ConfigDocument::empty(&Platform::linux("amd64"));
    let history = serde_json::from_value(serde_json::json!({"created_by": "test"})).unwrap();
    config.push_layer(ocibuild::oci::Digest::of(&tar), &history);
    let config = put(media_type::CONFIG, &config.encode().unwrap());
    let manifest = Manifest::new(config, vec![layer.clone()], BTreeMap::new());
    let manifest = Document::of_manifest(&manifest).unwrap();
    store.put_document(&manifest).unwrap();
    store.tag(&name.parse().unwrap(), &manifest.descriptor()).unwrap();
    (layer, manifest.descriptor())
}

fn blobs(store: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(store.join("blobs/sha256"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths
}

/// Runs this test binary again, to do what [`child_process`] reads from its environment.
fn child(work: &str, store: &Path) -> Child {
    child_under(&mut Command::new(std::env::current_exe().unwrap()), work, store)
}

fn child_under(command: &mut Command, work: &str, store: &Path) -> Child {
    command
        .args(["--exact", "store::child_process", "--nocapture"])
        .env(CHILD, format!("{work} {}", store.display()))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Not a test: the other process of several.
#[test]
fn child_process() {
    let Ok(work) = std::env::var(CHILD) else { return };
    let mut words = work.splitn(3, ' ');
    let (work, argument, path) =
        (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
    let store = Store::open(Path::new(path)).unwrap();
    match work {
        "tag" => {
            for number in 0..50 {
                image(&store, &format!("a.example/{argument}:{number}"), number);
            }
        }
        "write" => {
            let run = store.begin_run(&Silent).unwrap();
            std::fs::write(run.path().join("temporary"), noise(1 << 20, 1)).unwrap();
            let mut writer = store.writer().unwrap();
            writer.write_all(&noise(4 << 20, 2)).unwrap();
            writer.flush().unwrap();
            std::io::stdout().write_all(b"\nwriting\n").unwrap();
            std::thread::sleep(std::time::Duration::from_mins(1));
        }
        other => panic!("{other}"),
    }
}

#[test]
fn ocidir_reads_and_checks_what_is_written() {
    let dir = temp_dir();
    let store = Store::open(dir.path()).unwrap();
    image(&store, "ghcr.io/rocker-org/ml:1", 1);
    image(&store, "ghcr.io/rocker-org/ml:2", 2);
    let open = || {
        let dir = ocidir::cap_std::fs::Dir::open_ambient_dir(
            dir.path(),
            ocidir::cap_std::ambient_authority(),
        );
        ocidir::OciDir::open(dir.unwrap()).unwrap()
    };
    assert_eq!(open().fsck().unwrap(), 6);
    let index = open().read_index().unwrap();
    let names: Vec<_> = index
        .manifests()
        .iter()
        .map(|entry| {
            entry.annotations().as_ref().unwrap()["org.opencontainers.image.ref.name"].clone()
        })
        .collect();
    assert_eq!(names, ["ghcr.io/rocker-org/ml:1", "ghcr.io/rocker-org/ml:2"]);
}

#[test]
fn skopeo_and_umoci_read_the_store_itself() {
    let dir = temp_dir();
    let store = Store::open(&dir.path().join("store")).unwrap();
    let (_, manifest) = image(&store, "ghcr.io/rocker-org/ml:1", 1);
    // An index, as builds make them.
    let mut entry = manifest.clone();
    entry.platform = Some(Platform::linux("amd64"));
    let index = Document::of_index(&Index::new(vec![entry], BTreeMap::new())).unwrap();
    store.put_document(&index).unwrap();
    store.tag(&"ghcr.io/rocker-org/ml:all".parse().unwrap(), &index.descriptor()).unwrap();
    let at = |tag: &str| format!("{}:ghcr.io/rocker-org/ml:{tag}", store.root().display());
    for tag in ["1", "all"] {
        let copy = dir.path().join(format!("copy-{tag}"));
        let to = format!("dir:{}", copy.display());
        run(Command::new("skopeo").args([
            "copy",
            "--preserve-digests",
            &format!("oci:{}", at(tag)),
            &to,
        ]));
        let bytes = std::fs::read(copy.join("manifest.json")).unwrap();
        assert_eq!(ocibuild::oci::Digest::of(&bytes), manifest.digest);
    }
    let tags = run(Command::new("umoci").args(["ls", "--layout"]).arg(store.root())).stdout;
    assert!(String::from_utf8(tags).unwrap().contains("ghcr.io/rocker-org/ml:1"));
    let bundle = dir.path().join("bundle");
    run(Command::new("umoci").args(["unpack", "--image", &at("all")]).arg(&bundle));
    assert_eq!(std::fs::read(bundle.join("rootfs/file")).unwrap(), noise(100_000, 1));
}

#[test]
fn two_processes_that_name_images_at_once_lose_none() {
    let dir = temp_dir();
    // They make the store, too, at once.
    let children = ["one", "two"].map(|name| child(&format!("tag {name}"), dir.path()));
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.names().unwrap().len(), 100);
    assert_eq!(store.verify(2, &Silent).unwrap(), []);
    assert_eq!(blobs(dir.path()).len(), 150, "each blob once, whoever wrote it");
}

#[test]
fn a_killed_writer_leaves_nothing_once_the_next_begins() {
    let plain = Command::new(std::env::current_exe().unwrap());
    // Without /proc a file cannot be given its name later, as on NFS: it has one in the run folder.
    let mut without = Command::new("unshare");
    without.args(["--mount", "sh", "-c", "mount -t tmpfs none /proc && exec \"$@\"", "sh"]);
    without.arg(std::env::current_exe().unwrap());
    for (mut command, runs) in [(plain, 1), (without, 2)] {
        let dir = temp_dir();
        let mut child = child_under(&mut command, "write -", dir.path());
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap() == "writing"));
        let folders = || {
            let entries = std::fs::read_dir(dir.path().join("run")).unwrap();
            entries.map(|entry| entry.unwrap().path()).collect::<Vec<_>>()
        };
        assert_eq!(folders().len(), runs);
        let store = Store::open(dir.path()).unwrap();
        // While it lives it is neither swept nor collected.
        let own = store.begin_run(&Silent).unwrap();
        assert!(dir.path().join("run/1/temporary").exists());
        assert_eq!(folders().len(), runs + 1);
        assert!(matches!(store.gc(&GcOptions::default(), &Silent), Err(Error::Busy { .. })));
        child.kill().unwrap();
        child.wait().unwrap();
        drop(own);
        assert_eq!(blobs(dir.path()), Vec::<PathBuf>::new());
        let own = store.begin_run(&Silent).unwrap();
        assert_eq!(folders(), [own.path()]);
        store.gc(&GcOptions::default(), &Silent).unwrap();
    }
}

#[test]
fn a_damaged_blob_is_found_by_who_reads_it() {
    let dir = temp_dir();
    let store = Store::open(&dir.path().join("from")).unwrap();
    let name: Reference = "ghcr.io/rocker-org/ml:1".parse().unwrap();
    let (layer, manifest) = image(&store, &name.to_string(), 1);
    let path = store.blob_path(&layer.digest);
    let good = std::fs::read(&path).unwrap();
    let mut tampered = good.clone();
    tampered[5000] ^= 1;
    let copy = |to: &Store| {
        let root = store.document(&manifest).unwrap();
        transfer::copy(&store, to, &root, &[name.to_string()], &Options::default(), &Silent)
    };
    for bad in [&tampered[..], &good[..good.len() - 1]] {
        std::fs::write(&path, bad).unwrap();
        let to = Store::open(&dir.path().join("to")).unwrap();
        let error = copy(&to).unwrap_err().to_string();
        assert!(error.contains(&layer.digest.to_string()), "{error}");
        assert!(!to.has(&layer.digest) && to.names().unwrap().is_empty());
        let problems = store.verify(1, &Silent).unwrap();
        assert!(
            matches!(&problems[..], [Problem::Corrupt { digest, .. }] if *digest == layer.digest)
        );
    }
    std::fs::write(&path, good).unwrap();
    let to = Store::open(&dir.path().join("to")).unwrap();
    let summary = copy(&to).unwrap();
    assert!(summary.written >= 1 && summary.documents == 1, "{summary:?}");
    assert_eq!(to.resolve(&name).unwrap(), Some(manifest.clone()));
    assert_eq!(copy(&to).unwrap().written, 0);
}

/// A small file system of its own, gone with the value.
pub(crate) struct SmallDisk {
    mount: PathBuf,
    _dir: tempfile::TempDir,
}

impl SmallDisk {
    pub(crate) fn new(megabytes: u64) -> SmallDisk {
        crate::support::cli::require_root();
        let dir = temp_dir();
        let (file, mount) = (dir.path().join("disk"), dir.path().join("mount"));
        std::fs::File::create(&file).unwrap().set_len(megabytes << 20).unwrap();
        run(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(&file));
        std::fs::create_dir(&mount).unwrap();
        run(Command::new("mount").args(["-o", "loop"]).arg(&file).arg(&mount));
        SmallDisk { mount, _dir: dir }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.mount
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        Command::new("umount").arg(&self.mount).status().ok();
    }
}

#[test]
fn a_full_disk_is_told_and_harms_nothing() {
    let disk = SmallDisk::new(16);
    let store = Store::open(&disk.path().join("store")).unwrap();
    let (_, before) = image(&store, "a.example/b:1", 1);
    let files = blobs(store.root());
    let mut writer = store.writer().unwrap();
    let content = noise(1 << 20, 3);
    let error = (0..64).find_map(|_| writer.write_all(&content).err()).unwrap();
    let text = format!(
        "{error} {}",
        std::error::Error::source(&error).map_or(String::new(), ToString::to_string)
    );
    assert!(text.contains("store/blobs/sha256") && text.contains("space"), "{text}");
    drop(writer);
    // The way through a transfer tells what to do.
    let other_dir = temp_dir();
    let other = Store::open(other_dir.path()).unwrap();
    let mut writer = other.writer().unwrap();
    for seed in 0..20 {
        writer.write_all(&noise(1 << 20, seed)).unwrap();
    }
    let (digest, size) = writer.commit(None).unwrap();
    let layer = Descriptor::new(media_type::LAYER, digest, size);
    let config = Descriptor::new(media_type::CONFIG, other.put_bytes(b"{}").unwrap().0, 2);
    let large =
        Document::of_manifest(&Manifest::new(config, vec![layer], BTreeMap::new())).unwrap();
    let tags = ["a.example/large:1".to_owned()];
    let error =
        transfer::copy(&other, &store, &large, &tags, &Options::default(), &Silent).unwrap_err();
    assert_eq!(error.kind(), Kind::Environment);
    assert!(error.hint().unwrap().contains("ocibuild gc"), "{error:?}");
    store.gc(&GcOptions::default(), &Silent).unwrap();
    assert_eq!(blobs(store.root()), files);
    assert_eq!(store.verify(1, &Silent).unwrap(), []);
    assert_eq!(store.names().unwrap().len(), 1);
    // Not even the index can be written when nothing is left.
    let filler = disk.path().join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while file.write_all(&content).is_ok() {}
    while file.write_all(&[1]).is_ok() {}
    let names: Vec<String> =
        (0..200).map(|number| format!("a.example/{}:{number}", "x".repeat(100))).collect();
    let error =
        names.iter().find_map(|name| store.tag(&name.parse().unwrap(), &before).err()).unwrap();
    assert_eq!(error.kind(), Kind::Environment);
    let kept = store.names().unwrap();
    drop(file);
    std::fs::remove_file(&filler).unwrap();
    // ext4 gives freed blocks back when its journal is written.
    run(Command::new("sync").arg("-f").arg(disk.path()));
    store.tag(&"a.example/b:2".parse().unwrap(), &before).unwrap();
    assert_eq!(store.names().unwrap().len(), kept.len() + 1);
    assert_eq!(Store::open(store.root()).unwrap().verify(1, &Silent).unwrap(), []);
}
