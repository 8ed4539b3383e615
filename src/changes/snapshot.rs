//! Changes of a plain tree, by its snapshot of before. All entries are looked at, by several threads;
//! those whose print differs were touched, and are compared with what the layers below have there.
//!
//! The list is the one that an overlay's upper folder would give: what overlay copies up is what was
//! touched here, and either is left out when it equals the parent's. Only a folder that no layer has,
//! made as a mount point, counts as changed once it or something in it was touched.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FileType, Stat};

use super::same::{is_whiteout, kind, same_as_before, same_content};
use super::upper::{join, push, trimmed};
use super::{Change, Changes, Error, Kind};
use crate::disk::At;
use crate::rootfs::{EntryPath, Known, PlainTree, Truth, each, in_parallel, print_of};

/// Lists what has changed in a plain tree since it was handed out, as [`super::from_upper`] does for
/// an overlay.
pub fn from_snapshot(
    tree: &PlainTree,
    excluded: &[PathBuf],
    truth: &dyn Truth,
) -> Result<Changes, Error> {
    let scan = Scan {
        tree,
        excluded: excluded.iter().map(|path| trimmed(path)).collect(),
        truth,
        found: Mutex::default(),
    };
    let first = Folder { path: Vec::new(), before: Some(0) };
    in_parallel(vec![first], |folder, more| scan.folder(&folder, more))?;
    let found = scan.found.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(settle(tree, &found))
}

/// A folder to look at.
struct Folder {
    path: Vec<u8>,
    /// Its number in the snapshot, where the parent has a folder too.
    before: Option<u32>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Present,
    Removed,
    /// Touched, and left out of the layer with all it holds.
    Excluded,
}

struct Scan<'a> {
    tree: &'a PlainTree,
    excluded: BTreeSet<Vec<u8>>,
    truth: &'a dyn Truth,
    found: Mutex<Vec<(Vec<u8>, Verdict)>>,
}

impl Scan<'_> {
    fn folder(&self, folder: &Folder, more: &mut Vec<Folder>) -> Result<(), Error> {
        let mut entries: BTreeMap<Vec<u8>, Stat> = BTreeMap::new();
        each(self.tree.merged(), &folder.path, &mut |name, _, stat| {
            entries.insert(name.to_vec(), *stat);
        })?;
        let snapshot = self.tree.snapshot();
        let mut path = folder.path.clone();
        let mut found = Vec::new();
        for known in folder.before.into_iter().flat_map(|number| snapshot.entries(number)) {
            if !entries.contains_key(known.name) {
                let length = push(&mut path, known.name);
                if !self.excluded.contains(&path) {
                    found.push((path.clone(), Verdict::Removed));
                }
                path.truncate(length);
            }
        }
        for (name, stat) in &entries {
            let known = folder.before.and_then(|number| snapshot.entry(number, name));
            let length = push(&mut path, name);
            if let Some(verdict) = self.entry(&path, stat, known, more)? {
                found.push((path.clone(), verdict));
            }
            path.truncate(length);
        }
        self.found.lock().unwrap_or_else(PoisonError::into_inner).append(&mut found);
        Ok(())
    }

    fn entry(
        &self,
        path: &[u8],
        stat: &Stat,
        known: Option<Known<'_>>,
        more: &mut Vec<Folder>,
    ) -> Result<Option<Verdict>, Error> {
        let untouched = self.tree.is_untouched_extra(path, stat)
            || known.is_some_and(|known| known.print == print_of(stat));
        if self.excluded.contains(path) {
            return Ok((!untouched).then_some(Verdict::Excluded));
        }
        if is_whiteout(stat) || kind(stat) == FileType::Socket {
            return Ok(known.map(|_| Verdict::Removed));
        }
        if kind(stat) == FileType::Directory {
            let before = known.and_then(|known| known.folder);
            more.push(Folder { path: path.to_vec(), before });
        }
        if untouched {
            return Ok(None);
        }
        let Some(known) = known else { return Ok(Some(Verdict::Present)) };
        let here = join(self.tree.merged(), path);
        let there = self.tree.origin(path, known.origin);
        Ok((!self.same(path, stat, &here, &there)?).then_some(Verdict::Present))
    }

    fn same(&self, path: &[u8], stat: &Stat, here: &Path, there: &Path) -> Result<bool, Error> {
        let old = rustix::fs::lstat(there).at("examine", there)?;
        let same = same_as_before(path, (stat, here), (&old, there), self.truth)?;
        let is_empty = kind(stat) != FileType::RegularFile || stat.st_size == 0;
        Ok(same && (is_empty || same_content(here, there)?))
    }
}

/// Adds the folders above the entries.
fn settle(tree: &PlainTree, found: &[(Vec<u8>, Verdict)]) -> Changes {
    let extras: BTreeSet<&[u8]> = tree.extras().map(EntryPath::as_bytes).collect();
    let mut changes: BTreeMap<Vec<u8>, Kind> = BTreeMap::new();
    let mut touched_extras: BTreeSet<&[u8]> = BTreeSet::new();
    for (path, verdict) in found {
        let mut rest = path.as_slice();
        while let Some(slash) = rest.iter().rposition(|byte| *byte == b'/') {
            rest = &rest[..slash];
            if extras.contains(rest) && tree.snapshot().find(rest).is_none() {
                touched_extras.insert(rest);
            }
        }
        match verdict {
            Verdict::Present => changes.insert(path.clone(), Kind::Present),
            Verdict::Removed => changes.insert(path.clone(), Kind::Removed),
            Verdict::Excluded => None,
        };
    }
    changes.extend(touched_extras.into_iter().map(|path| (path.to_vec(), Kind::Present)));
    let mut needed: BTreeSet<Vec<u8>> = BTreeSet::new();
    for path in changes.keys() {
        let mut rest = path.as_slice();
        while let Some(slash) = rest.iter().rposition(|byte| *byte == b'/') {
            rest = &rest[..slash];
            if !needed.insert(rest.to_vec()) {
                break;
            }
        }
    }
    changes.extend(needed.into_iter().map(|path| (path, Kind::Present)));
    changes.into_iter().map(|(path, kind)| Change { path, kind }).collect()
}
