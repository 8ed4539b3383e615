//! Layers as trees, `unpacked/FLAVOUR/DIFFID/{tree/,sidecar.json}`: made once, by one process, used
//! by all. A tree is not synced when it is made, for that costs more than the unpacking; instead it
//! is counted, and counted again after a restart of the machine, since a crash cuts files short.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::run::remove_tree;
use super::{Error, Store, error, records};
use crate::disk::{self, At, Lock};
use crate::oci::Digest;

/// The kernel's name for this start of the machine.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// What is known of a finished tree.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Tally {
    /// Starts of machines in which the tree was found whole, the newest last.
    boots: Vec<String>,
    /// Files and folders.
    entries: u64,
    /// The files' sizes added up.
    bytes: u64,
}

/// A layer's place: there already, or to be filled by the caller.
#[derive(Debug)]
pub enum Unpacking {
    /// The finished folder, with `tree` and `sidecar.json`.
    Ready(PathBuf),
    /// Nobody has it: unpack into the slot.
    Slot(Slot),
}

/// An empty folder to unpack a layer into. Dropped without a commit it is removed.
#[derive(Debug)]
#[must_use = "a slot is kept only when it is committed"]
pub struct Slot {
    path: PathBuf,
    target: PathBuf,
    committed: bool,
    _lock: Lock,
}

impl Store {
    /// Returns the finished folder of a layer unpacked with this map of ids, and notes its use.
    pub fn unpacked(&self, flavour: &str, diff_id: &Digest) -> Result<Option<PathBuf>, Error> {
        let path = self.unpacked_path(flavour, diff_id);
        if !path.join("tree").is_dir() {
            return Ok(None);
        }
        if is_whole(&path)? {
            records::touch(&path);
            return Ok(Some(path));
        }
        Ok(None)
    }

    /// Returns the finished folder of a layer, or the slot to make it in. Waits while another
    /// process unpacks the same layer.
    pub fn unpack_slot(&self, flavour: &str, diff_id: &Digest) -> Result<Unpacking, Error> {
        if let Some(path) = self.unpacked(flavour, diff_id)? {
            return Ok(Unpacking::Ready(path));
        }
        let target = self.unpacked_path(flavour, diff_id);
        let dir = self.path("unpacked").join(flavour);
        disk::make_dirs(&dir)?;
        let lock = error::lock(&dir.join(format!(".lock-{}", diff_id.hex())))?;
        if let Some(path) = self.unpacked(flavour, diff_id)? {
            return Ok(Unpacking::Ready(path));
        }
        // Cut short by a crash, or left by a process that was killed: its lock is ours now.
        remove_tree(&target)?;
        let path = dir.join(format!(".new-{}", diff_id.hex()));
        remove_tree(&path)?;
        fs::create_dir(&path).at("create the folder", &path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
            .at("set the mode of", &path)?;
        Ok(Unpacking::Slot(Slot { path, target, committed: false, _lock: lock }))
    }

    pub(super) fn unpacked_path(&self, flavour: &str, diff_id: &Digest) -> PathBuf {
        self.path("unpacked").join(flavour).join(diff_id.hex())
    }
}

impl Slot {
    /// Returns the folder to put `tree` and `sidecar.json` into.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Shows the layer to everyone, and returns its place.
    pub fn commit(mut self) -> Result<PathBuf, Error> {
        let (mut entries, mut bytes) = (0, 0);
        count(&self.path.join("tree"), &mut entries, &mut bytes)?;
        let tally = Tally { boots: boot().into_iter().collect(), entries, bytes };
        records::write(&self.path.join("tally.json"), &tally)?;
        fs::rename(&self.path, &self.target).at("create", &self.target)?;
        self.committed = true;
        Ok(self.target.clone())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if !self.committed {
            // What cannot be removed is removed by the next who wants the layer.
            remove_tree(&self.path).ok();
        }
    }
}

fn boot() -> Option<String> {
    fs::read_to_string(BOOT_ID).ok().map(|text| text.trim().to_owned())
}

/// Tells whether a tree has all that it had when it was made.
fn is_whole(path: &Path) -> Result<bool, Error> {
    let record = path.join("tally.json");
    let Some(mut tally) = records::read::<Tally>(&record)? else { return Ok(false) };
    let Some(boot) = boot() else { return Ok(true) };
    if tally.boots.contains(&boot) {
        return Ok(true);
    }
    let (mut entries, mut bytes) = (0, 0);
    count(&path.join("tree"), &mut entries, &mut bytes)?;
    if (entries, bytes) != (tally.entries, tally.bytes) {
        return Ok(false);
    }
    // Machines that share the store each keep their word, a few starts long.
    tally.boots.push(boot);
    let old = tally.boots.len().saturating_sub(16);
    tally.boots.drain(..old);
    if let Err(error) = records::write(&record, &tally) {
        // Read-only for us: it is counted again next time.
        return if matches!(error, Error::Disk(_)) { Ok(true) } else { Err(error) };
    }
    Ok(true)
}

fn count(path: &Path, entries: &mut u64, bytes: &mut u64) -> Result<(), Error> {
    let metadata = fs::symlink_metadata(path).at("read", path)?;
    *entries += 1;
    if metadata.is_dir() {
        for name in disk::list(path)? {
            count(&path.join(name), entries, bytes)?;
        }
    } else if metadata.is_file() {
        *bytes += metadata.size();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(store: &Store, diff_id: &Digest) -> Slot {
        match store.unpack_slot("root", diff_id).unwrap() {
            Unpacking::Slot(slot) => slot,
            Unpacking::Ready(path) => panic!("{} is there", path.display()),
        }
    }

    #[test]
    fn a_layer_is_unpacked_once() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let diff_id = Digest::of(b"layer");
        drop(slot(&store, &diff_id));
        assert_eq!(store.unpacked("root", &diff_id).unwrap(), None);
        let first = slot(&store, &diff_id);
        fs::create_dir(first.path().join("tree")).unwrap();
        fs::write(first.path().join("tree/file"), b"content").unwrap();
        // Another that wants the same waits for the first.
        let path = std::thread::scope(|scope| {
            let other = scope.spawn(|| store.unpack_slot("root", &diff_id).unwrap());
            let path = first.commit().unwrap();
            assert!(matches!(other.join().unwrap(), Unpacking::Ready(ready) if ready == path));
            path
        });
        assert_eq!(store.unpacked("root", &diff_id).unwrap(), Some(path));
        assert_eq!(store.unpacked("range-100000", &diff_id).unwrap(), None);
        let mode = fs::metadata(store.path("unpacked")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn a_tree_that_a_crash_cut_short_is_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let diff_id = Digest::of(b"layer");
        let first = slot(&store, &diff_id);
        fs::create_dir(first.path().join("tree")).unwrap();
        fs::write(first.path().join("tree/file"), b"content").unwrap();
        let path = first.commit().unwrap();
        let record = path.join("tally.json");
        let mut tally: Tally = records::read(&record).unwrap().unwrap();
        // After a restart the tree is counted.
        tally.boots = vec!["earlier".to_owned()];
        records::write(&record, &tally).unwrap();
        assert!(store.unpacked("root", &diff_id).unwrap().is_some());
        records::write(&record, &tally).unwrap();
        fs::write(path.join("tree/file"), b"").unwrap();
        assert_eq!(store.unpacked("root", &diff_id).unwrap(), None);
        drop(slot(&store, &diff_id));
        assert!(!path.exists());
    }
}
