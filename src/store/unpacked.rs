//! Layers as trees, `unpacked/FLAVOUR/DIFFID/{tree/,sidecar.json}`: made once, by one process, used
//! by all. A tree is not synced when it is made, for that costs more than the unpacking; instead it
//! is counted, and counted again after a restart of the machine, since a crash cuts files short.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Error, Store, error, records};
use crate::disk::{self, At, Charge, Lock};
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
    /// What all of it takes on disk.
    #[serde(default)]
    disk: u64,
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
    charge: Option<Arc<Charge>>,
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
        disk::remove_tree(&target)?;
        let path = dir.join(format!(".new-{}", diff_id.hex()));
        disk::remove_tree(&path)?;
        fs::create_dir(&path).at("create the folder", &path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
            .at("set the mode of", &path)?;
        let charge = self.charge().map(Arc::new);
        Ok(Unpacking::Slot(Slot { path, target, committed: false, charge, _lock: lock }))
    }

    /// Returns how much disk a layer's tree takes, if there is one of whatever flavour.
    pub fn tree_size(&self, diff_id: &Digest) -> Option<u64> {
        let flavours = disk::list(&self.path("unpacked")).ok()?;
        flavours
            .iter()
            .find_map(|flavour| size_of(&self.path("unpacked").join(flavour).join(diff_id.hex())))
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

    /// Returns the account to which what is unpacked here goes; `None` where there is no bound.
    pub fn charge(&self) -> Option<Arc<Charge>> {
        self.charge.clone()
    }

    /// Shows the layer to everyone, and returns its place.
    pub fn commit(mut self) -> Result<PathBuf, Error> {
        let Count { entries, bytes, disk } = count(&self.path.join("tree"))?;
        let tally = Tally { boots: boot().into_iter().collect(), entries, bytes, disk };
        if let Some(charge) = self.charge.take().and_then(Arc::into_inner) {
            charge.keep(disk);
        }
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
            disk::remove_tree(&self.path).ok();
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
    let Count { entries, bytes, .. } = count(&path.join("tree"))?;
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

/// What a tree comes to.
#[derive(Default)]
struct Count {
    entries: u64,
    bytes: u64,
    disk: u64,
}

fn count(path: &Path) -> Result<Count, Error> {
    let mut sum = Count::default();
    add(path, &mut sum)?;
    Ok(sum)
}

fn add(path: &Path, sum: &mut Count) -> Result<(), Error> {
    let metadata = fs::symlink_metadata(path).at("read", path)?;
    sum.entries += 1;
    if metadata.is_dir() {
        sum.disk += metadata.blocks() * 512;
        for name in disk::list(path)? {
            add(&path.join(name), sum)?;
        }
    } else {
        sum.disk += metadata.blocks() * 512 / metadata.nlink().max(1);
        if metadata.is_file() {
            sum.bytes += metadata.size();
        }
    }
    Ok(())
}

/// Returns what a finished layer takes on disk, as far as that was noted.
pub(super) fn size_of(path: &Path) -> Option<u64> {
    let tally: Tally = records::read(&path.join("tally.json")).ok()??;
    Some(tally.disk).filter(|bytes| *bytes > 0)
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
