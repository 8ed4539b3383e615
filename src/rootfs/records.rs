//! What a stack of layers says of entries beyond what their trees say: the sidecars of the unpacked
//! ones and the ledgers of the fresh ones, seen from the top.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rustix::fs::{AtFlags, CWD, FileType};
use rustix::io::Errno;

use super::stack::{Sight, hides, see};
use super::{Device, EntryPath, Error, Ledger, Lower, Record, Sidecar, Truth};
use crate::disk::{self, At};

impl Lower {
    /// Returns what is remembered of an entry that this layer has.
    pub fn record(&self, path: &[u8]) -> Option<Record> {
        let (owners, devices) = match &self.sidecar {
            Some(sidecar) => (&sidecar.owners, &sidecar.devices),
            None => (&self.ledger.owners, &self.ledger.devices),
        };
        let owner = owners.get(path).copied();
        let device = devices.get(path);
        let capability = match &self.sidecar {
            Some(sidecar) => sidecar.capabilities.get(path).and_then(|digits| bytes(digits)),
            None => self.ledger.capabilities.get(path).cloned(),
        };
        if owner.is_none() && device.is_none() && capability.is_none() {
            return None;
        }
        let owner = owner.or(device.map(|device| (device.uid, device.gid)));
        Some(Record {
            uid: owner.map(|owner| owner.0),
            gid: owner.map(|owner| owner.1),
            device: device.map(|device| (device.kind, device.major, device.minor)),
            capability,
        })
    }

    /// Returns the paths that something is remembered of.
    fn remembered(&self) -> Vec<&EntryPath> {
        if let Some(Sidecar { owners, devices, capabilities, .. }) = &self.sidecar {
            owners.keys().chain(devices.keys()).chain(capabilities.keys()).collect()
        } else {
            let Ledger { owners, devices, capabilities } = &*self.ledger;
            owners.keys().chain(devices.keys()).chain(capabilities.keys()).collect()
        }
    }
}

/// Returns what is remembered of the entries of a stack of layers, from the bottom up, as they are
/// to be seen in the tree that [`super::mount`] makes of them.
pub fn records(lowers: &[Lower]) -> Result<BTreeMap<EntryPath, Record>, Error> {
    let paths: BTreeSet<&EntryPath> = lowers.iter().flat_map(Lower::remembered).collect();
    let mut found = BTreeMap::new();
    for path in paths {
        if let Some(record) = record(lowers, path)? {
            found.insert(path.clone(), record);
        }
    }
    Ok(found)
}

/// Asks the topmost layer that has the entry and says what it is.
fn record(lowers: &[Lower], path: &EntryPath) -> Result<Option<Record>, Error> {
    for lower in lowers.iter().rev() {
        match see(&lower.tree, path.as_bytes())? {
            Sight::Blocked => return Ok(None),
            Sight::Entry(stat) => {
                let kind = FileType::from_raw_mode(stat.st_mode);
                let implied = kind == FileType::Directory
                    && lower
                        .sidecar
                        .as_ref()
                        .is_some_and(|sidecar| sidecar.implied.contains(path.as_bytes()));
                if !implied {
                    return Ok(lower.record(path.as_bytes()));
                }
            }
            Sight::Nothing => {}
        }
        if hides(lower, path.as_bytes())? {
            return Ok(None);
        }
    }
    Ok(None)
}

/// Returns the bytes of hexadecimal digits; `None` where they are no such thing.
fn bytes(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect::<Option<Vec<u8>>>()
}

impl Ledger {
    /// Asks for the truth of all that lies in `upper`, the folder that took what was changed.
    pub fn collect(upper: &Path, truth: &dyn Truth) -> Result<Ledger, Error> {
        let mut ledger = Ledger::default();
        let mut folders = vec![EntryPath::default()];
        if truth.is_empty() {
            return Ok(ledger);
        }
        while let Some(folder) = folders.pop() {
            for name in disk::list(&upper.join(folder.as_path()))? {
                let path = folder.join(name.as_encoded_bytes());
                let place = upper.join(path.as_path());
                let stat = match rustix::fs::statat(CWD, &place, AtFlags::SYMLINK_NOFOLLOW) {
                    Err(Errno::NOENT) => continue,
                    other => other.at("look at", &place)?,
                };
                match FileType::from_raw_mode(stat.st_mode) {
                    FileType::Directory => folders.push(path.clone()),
                    FileType::CharacterDevice if stat.st_rdev == 0 => continue,
                    _ => {}
                }
                if let Some(record) = truth.now(&path).at("ask for the owner of", &place)? {
                    ledger.note(path, &record, &stat);
                }
            }
        }
        Ok(ledger)
    }

    /// Asks for the truth of some entries of a tree.
    pub fn of<'p>(
        tree: &Path,
        paths: impl Iterator<Item = &'p [u8]>,
        truth: &dyn Truth,
    ) -> Result<Ledger, Error> {
        let mut ledger = Ledger::default();
        for path in paths {
            let path = EntryPath::from(path);
            let place = tree.join(path.as_path());
            if let Some(record) = truth.now(&path).at("ask for the owner of", &place)? {
                let stat = rustix::fs::lstat(&place).at("look at", &place)?;
                ledger.note(path, &record, &stat);
            }
        }
        Ok(ledger)
    }

    fn note(&mut self, path: EntryPath, record: &Record, stat: &rustix::fs::Stat) {
        let uid = record.uid.unwrap_or(stat.st_uid);
        let gid = record.gid.unwrap_or(stat.st_gid);
        if let Some((kind, major, minor)) = record.device {
            let mode = stat.st_mode & 0o7777;
            let mtime = stat.st_mtime;
            let device = Device { kind, major, minor, mode, uid, gid, mtime };
            self.devices.insert(path.clone(), device);
        }
        if let Some(capability) = &record.capability {
            self.capabilities.insert(path.clone(), capability.clone());
        }
        if (uid, gid) != (stat.st_uid, stat.st_gid) {
            self.owners.insert(path, (uid, gid));
        }
    }
}

/// The truth of a tree whose steps say nothing of owners: what the layers below say of a path, and
/// what the builder itself has set.
#[derive(Debug, Default)]
pub struct Inherited {
    before: BTreeMap<EntryPath, Record>,
    set: Mutex<BTreeMap<EntryPath, Record>>,
}

impl Inherited {
    /// Begins with what is remembered of the layers below.
    pub fn new(before: BTreeMap<EntryPath, Record>) -> Inherited {
        Inherited { before, set: Mutex::default() }
    }
}

impl Truth for Inherited {
    fn is_empty(&self) -> bool {
        let set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        self.before.is_empty() && set.is_empty()
    }

    fn now(&self, path: &EntryPath) -> io::Result<Option<Record>> {
        let set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(set.get(path).or_else(|| self.before.get(path)).cloned())
    }

    fn before(&self, path: &EntryPath) -> io::Result<Option<Record>> {
        Ok(self.before.get(path).cloned())
    }

    fn set(&self, path: &EntryPath, record: &Record) -> io::Result<()> {
        let now = self.now(path)?.unwrap_or_default();
        let merged = Record {
            uid: record.uid.or(now.uid),
            gid: record.gid.or(now.gid),
            device: record.device.or(now.device),
            capability: record.capability.clone().or(now.capability),
        };
        self.set.lock().unwrap_or_else(PoisonError::into_inner).insert(path.clone(), merged);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use super::*;

    fn owned(pairs: &[(&str, u32)]) -> BTreeMap<EntryPath, (u32, u32)> {
        pairs.iter().map(|(path, id)| (EntryPath::from(*path), (*id, *id))).collect()
    }

    fn layer(dir: &Path, files: &[&str], sidecar: Sidecar) -> Lower {
        for file in files {
            let path = dir.join(file);
            if file.ends_with('/') {
                fs::create_dir_all(path).unwrap();
                continue;
            }
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        Lower { tree: dir.to_owned(), sidecar: Some(sidecar), ledger: Arc::default() }
    }

    #[test]
    fn the_topmost_layer_that_has_an_entry_says_whose_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let low = Sidecar {
            owners: owned(&[
                ("home/me", 1000),
                ("a", 1),
                ("b", 2),
                ("gone", 3),
                ("d/x", 4),
                ("e", 5),
            ]),
            ..Sidecar::default()
        };
        let mut high = Sidecar { owners: owned(&[("b", 20)]), ..Sidecar::default() };
        high.whiteouts.insert(EntryPath::from("gone"));
        high.opaque.insert(EntryPath::from("d"));
        high.implied.insert(EntryPath::from("home/me"));
        let lowers = [
            layer(&dir.path().join("low"), &["home/me/", "a", "b", "gone", "d/x", "e"], low),
            layer(&dir.path().join("high"), &["home/me/new", "a", "b", "d/"], high),
        ];
        let found = records(&lowers).unwrap();
        let uids: Vec<(String, Option<u32>)> =
            found.iter().map(|(path, record)| (path.to_string(), record.uid)).collect();
        let expected = [("b", 20), ("e", 5), ("home/me", 1000)];
        assert_eq!(uids, expected.map(|(path, uid)| (path.to_owned(), Some(uid))));
    }

    #[test]
    fn a_fresh_layer_says_the_same_as_one_that_was_unpacked() {
        let dir = tempfile::tempdir().unwrap();
        let upper = dir.path().join("upper");
        fs::create_dir_all(upper.join("d")).unwrap();
        for file in ["d/owned", "node", "capable", "plain"] {
            fs::write(upper.join(file), "").unwrap();
        }
        let truth = Inherited::default();
        let set = |path: &str, record: Record| truth.set(&EntryPath::from(path), &record).unwrap();
        let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        set("d/owned", Record { uid: Some(1000), gid: Some(7), ..Record::default() });
        set("plain", Record { uid: Some(own.0), gid: Some(own.1), ..Record::default() });
        set("capable", Record { capability: Some(vec![1, 2, 0xfe]), ..Record::default() });
        let device = Some((super::super::DeviceKind::Block, 7, 3));
        set("node", Record { device, gid: Some(6), ..Record::default() });
        let ledger = Ledger::collect(&upper, &truth).unwrap();
        assert_eq!(ledger.owners.len(), 2);
        let fresh = Lower { tree: upper.clone(), sidecar: None, ledger: Arc::new(ledger.clone()) };
        let sidecar = Sidecar {
            owners: ledger.owners.clone(),
            devices: ledger.devices.clone(),
            capabilities: [(EntryPath::from("capable"), "0102fe".to_owned())].into(),
            ..Sidecar::default()
        };
        let unpacked = Lower { tree: upper, sidecar: Some(sidecar), ledger: Arc::default() };
        let of_fresh = records(&[fresh]).unwrap();
        assert_eq!(of_fresh, records(&[unpacked]).unwrap());
        assert_eq!(of_fresh.len(), 3);
        assert_eq!(of_fresh[b"d/owned".as_slice()].gid, Some(7));
        assert_eq!(of_fresh[b"node".as_slice()].device, device);
    }
}
