//! Memory does not grow with a layer but by its list of changes.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use ocibuild::changes::from_upper;
use ocibuild::layer::{Profile, pack, write_tar};
use ocibuild::rootfs::{Ledger, Plain};

const THREADS: usize = 2;

/// The promise: 64 MiB, and 4 MiB for each thread.
const BOUND_KIB: u64 = (64 + 4 * THREADS as u64) * 1024;

/// Tells the child which tree to make a layer of.
const TREE: &str = "OCIBUILD_TEST_TREE";

/// Makes a layer of a tree as a build does, and returns how many entries it has.
fn commit(tree: &Path) -> usize {
    let changes = from_upper(tree, Path::new("/nowhere"), &[], &Plain).unwrap();
    let write = |out: &mut dyn std::io::Write| write_tar(tree, &changes, &Ledger::default(), out);
    for profile in [Profile::Gzip1, Profile::Zstd1] {
        pack(profile, THREADS, write, &mut std::io::sink()).unwrap();
    }
    changes.len()
}

fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Fills a folder: half of the files in one folder, half in folders of a hundred.
fn fill(tree: &Path, files: usize) -> usize {
    let mut entries = 0;
    let flat = tree.join("usr/share/a-folder-with-very-many-files");
    fs::create_dir_all(&flat).unwrap();
    for number in 0..files / 2 {
        fs::write(flat.join(format!("file-{number:07}.txt")), b"").unwrap();
    }
    for folder in 0..files / 200 {
        let folder = tree.join(format!("usr/lib/package-{folder:05}/with/folders"));
        fs::create_dir_all(&folder).unwrap();
        for number in 0..100 {
            fs::write(folder.join(format!("module_{number}.py")), b"").unwrap();
        }
        entries += 3 + 100;
    }
    // And usr, share, the folder, lib.
    entries + files / 2 + 4
}

/// The part that runs alone in a process, so that the peak is the layer's.
#[test]
fn a_layer_of_very_many_entries_fits_into_the_memory_promised() {
    if let Some(tree) = std::env::var_os(TREE).map(PathBuf::from) {
        let entries = commit(&tree);
        eprintln!("peak {} of {entries}", peak_kib());
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let files = std::env::var("OCIBUILD_TEST_ENTRIES").map_or(200_000, |n| n.parse().unwrap());
    let expected = fill(dir.path(), files);
    let name = "memory::a_layer_of_very_many_entries_fits_into_the_memory_promised";
    let done = Command::new("/proc/self/exe")
        .arg0("tests")
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(TREE, dir.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&done.stderr).into_owned();
    let line = text
        .lines()
        .find_map(|line| line.split_once("peak "))
        .unwrap_or_else(|| panic!("{text}"))
        .1;
    eprintln!("peak {line} KiB");
    let (peak, entries) = line.split_once(" of ").unwrap();
    assert_eq!(entries.trim().parse::<usize>().unwrap(), expected);
    let peak: u64 = peak.parse().unwrap();
    assert!(peak <= BOUND_KIB, "{peak} KiB, which is more than {BOUND_KIB}");
}
