//! Changes from the upper folder of an overlay (mounted with `userxattr`).
//!
//! What overlay leaves there: a whiteout is a character device 0:0 (all of them one inode); a folder
//! that was made anew over another has `user.overlay.opaque`; anything touched is copied up whole,
//! changed or not. The parent is read only at the places that the upper folder names, and below
//! opaque folders.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use super::same::{Facts, attribute, is_whiteout, kind, same_content, same_metadata};
use super::{Change, Error, Kind};
use crate::disk::{self, At};
use crate::rootfs::{EntryPath, Truth};

/// Lists what an overlay's upper folder changes over its parent.
///
/// `parent` is the read-only view of the layers below; `excluded` are paths relative to the root
/// (mount points) that are left out with everything below them. The root folder itself is never an
/// entry. The result is sorted by path bytes.
///
/// What `truth` remembers of an entry counts in place of what the trees say.
pub fn from_upper(
    upper: &Path,
    parent: &Path,
    excluded: &[PathBuf],
    truth: &dyn Truth,
) -> Result<Vec<Change>, Error> {
    let excluded = excluded.iter().map(|path| trimmed(path)).collect();
    let mut walk = Walk { upper, parent, excluded, truth, found: Vec::new() };
    walk.folder(&mut Vec::new(), true, is_opaque(upper)?)?;
    settle(upper, parent, walk.found)
}

/// What the walk can say of a path before bytes are compared.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Present,
    Removed,
    /// A folder like the parent's: an entry if it holds one.
    Passage,
    /// A file like the parent's as far as metadata go.
    Unread,
}

struct Walk<'a> {
    upper: &'a Path,
    parent: &'a Path,
    excluded: BTreeSet<Vec<u8>>,
    truth: &'a dyn Truth,
    found: Vec<(Vec<u8>, Verdict)>,
}

impl Walk<'_> {
    /// Looks at what a folder of the upper tree holds. `below` tells whether the parent has a folder
    /// there too, `opaque` whether it is hidden.
    fn folder(&mut self, path: &mut Vec<u8>, below: bool, opaque: bool) -> Result<(), Error> {
        let names = disk::list(&join(self.upper, path))?;
        if opaque && below {
            for name in disk::list(&join(self.parent, path))? {
                let listed =
                    names.binary_search_by(|have| have.as_bytes().cmp(name.as_bytes())).is_ok();
                let length = push(path, name.as_bytes());
                if !listed && !self.excluded.contains(path.as_slice()) {
                    self.found.push((path.clone(), Verdict::Removed));
                }
                path.truncate(length);
            }
        }
        for name in names {
            let length = push(path, name.as_bytes());
            if !self.excluded.contains(path.as_slice()) {
                self.entry(path, below, opaque)?;
            }
            path.truncate(length);
        }
        Ok(())
    }

    fn entry(&mut self, path: &mut Vec<u8>, below: bool, opaque: bool) -> Result<(), Error> {
        let here = join(self.upper, path);
        let there = join(self.parent, path);
        let stat = rustix::fs::lstat(&here).at("examine", &here)?;
        let old = if below { look(&there)? } else { None };
        if is_whiteout(&stat) || kind(&stat) == FileType::Socket {
            if old.is_some() {
                self.found.push((path.clone(), Verdict::Removed));
            }
            return Ok(());
        }
        let same = match &old {
            Some(old) => {
                let known = EntryPath::from(path.as_slice());
                let ask = "ask for the owner of";
                let now = Facts::new(stat, &here, self.truth.now(&known).at(ask, &here)?);
                let before = Facts::new(*old, &there, self.truth.before(&known).at(ask, &there)?);
                same_metadata(&now, &before)?
            }
            None => false,
        };
        let verdict = match (same, kind(&stat)) {
            (false, _) => Verdict::Present,
            (true, FileType::Directory) => Verdict::Passage,
            (true, FileType::RegularFile) if stat.st_size > 0 => Verdict::Unread,
            (true, _) => return Ok(()),
        };
        self.found.push((path.clone(), verdict));
        if kind(&stat) == FileType::Directory {
            if attribute(&here, "user.overlay.redirect")?.is_some() {
                return Err(Error::Foreign { path: here, attribute: "user.overlay.redirect" });
            }
            let below = old.is_some_and(|old| kind(&old) == FileType::Directory);
            // What lies in a hidden folder is hidden, and carries no marker of its own.
            let opaque = opaque || is_opaque(&here)?;
            self.folder(path, below, opaque)?;
        }
        Ok(())
    }
}

/// Compares the bytes that have to be compared, and leaves out folders without entries.
fn settle(
    upper: &Path,
    parent: &Path,
    mut found: Vec<(Vec<u8>, Verdict)>,
) -> Result<Vec<Change>, Error> {
    let unread: Vec<&[u8]> = found
        .iter()
        .filter(|(_, verdict)| *verdict == Verdict::Unread)
        .map(|(path, _)| path.as_slice())
        .collect();
    let equal: BTreeSet<Vec<u8>> =
        equal_files(upper, parent, &unread)?.into_iter().map(<[u8]>::to_vec).collect();
    found.retain(|(path, _)| !equal.contains(path));

    let mut needed: BTreeSet<&[u8]> = BTreeSet::new();
    for (path, verdict) in &found {
        if *verdict == Verdict::Passage {
            continue;
        }
        let mut rest = path.as_slice();
        while let Some(slash) = rest.iter().rposition(|byte| *byte == b'/') {
            rest = &rest[..slash];
            if !needed.insert(rest) {
                break;
            }
        }
    }
    let kept: Vec<bool> = found
        .iter()
        .map(|(path, verdict)| *verdict != Verdict::Passage || needed.contains(path.as_slice()))
        .collect();
    let mut changes: Vec<Change> = found
        .into_iter()
        .zip(kept)
        .filter(|(_, kept)| *kept)
        .map(|((path, verdict), _)| Change {
            path,
            kind: if verdict == Verdict::Removed { Kind::Removed } else { Kind::Present },
        })
        .collect();
    changes.sort_unstable();
    Ok(changes)
}

/// Returns those of the paths whose bytes are the same in both trees. They are read in parallel: a
/// recursive chown that changes nothing copies whole trees up.
fn equal_files<'p>(
    upper: &Path,
    parent: &Path,
    paths: &[&'p [u8]],
) -> Result<Vec<&'p [u8]>, Error> {
    let next = AtomicUsize::new(0);
    let work = || -> Result<Vec<&'p [u8]>, Error> {
        let mut equal = Vec::new();
        while let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed)) {
            if same_content(&join(upper, path), &join(parent, path))? {
                equal.push(*path);
            }
        }
        Ok(equal)
    };
    let threads = thread::available_parallelism().map_or(1, usize::from).min(paths.len() / 8);
    if threads < 2 {
        return work();
    }
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut equal = Vec::new();
        for worker in workers {
            equal.extend(worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok(equal)
    })
}

fn is_opaque(folder: &Path) -> Result<bool, Error> {
    Ok(attribute(folder, "user.overlay.opaque")?.as_deref() == Some(b"y"))
}

fn look(path: &Path) -> Result<Option<Stat>, Error> {
    match rustix::fs::lstat(path) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(disk::Error::new("examine", path, error).into()),
    }
}

fn join(root: &Path, path: &[u8]) -> PathBuf {
    root.join(std::ffi::OsStr::from_bytes(path))
}

/// Appends a name and returns the length to go back to.
fn push(path: &mut Vec<u8>, name: &[u8]) -> usize {
    let length = path.len();
    if length > 0 {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    length
}

fn trimmed(path: &Path) -> Vec<u8> {
    let parts: Vec<&[u8]> =
        path.as_os_str().as_bytes().split(|byte| *byte == b'/').filter(|p| !p.is_empty()).collect();
    parts.join(&b'/')
}
