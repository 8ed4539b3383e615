//! Changes from the upper folder of an overlay (mounted with `userxattr`).
//!
//! What overlay leaves there: a whiteout is a character device 0:0 (all of them one inode); a folder
//! that was made anew over another has `user.overlay.opaque`; anything touched is copied up whole,
//! changed or not. The parent is read only at the places that the upper folder names, and below
//! opaque folders.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use super::list::List;
use super::same::{Facts, attribute, is_whiteout, kind, same_content, same_metadata};
use super::{Changes, Error, Kind};
use crate::disk::{self, At};
use crate::rootfs::{EntryPath, Truth};

/// Lists what an overlay's upper folder changes over its parent.
///
/// `parent` is the read-only view of the layers below; `excluded` are paths relative to the root
/// (mount points) that are left out with everything below them. The root folder itself is never an
/// entry.
///
/// What `truth` remembers of an entry counts in place of what the trees say.
pub fn from_upper(
    upper: &Path,
    parent: &Path,
    excluded: &[PathBuf],
    truth: &dyn Truth,
) -> Result<Changes, Error> {
    let excluded = excluded.iter().map(|path| trimmed(path)).collect();
    let mut walk = Walk { upper, parent, excluded, truth, found: List::default() };
    walk.folder(&mut Vec::new(), true, is_opaque(upper)?)?;
    settle(upper, parent, &walk.found)
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

impl Verdict {
    const ALL: [Verdict; 4] =
        [Verdict::Present, Verdict::Removed, Verdict::Passage, Verdict::Unread];

    /// The number under which the list keeps it.
    fn tag(self) -> u8 {
        self as u8
    }

    fn of(tag: u8) -> Verdict {
        Verdict::ALL[usize::from(tag & 3)]
    }
}

/// What is to be done with a name of a folder.
enum Item {
    Note(Verdict),
    /// Look into the folder: whether the parent has one there, and whether it is hidden.
    Enter {
        below: bool,
        opaque: bool,
    },
}

struct Walk<'a> {
    upper: &'a Path,
    parent: &'a Path,
    excluded: BTreeSet<Vec<u8>>,
    truth: &'a dyn Truth,
    /// In the order of [`Changes`].
    found: List,
}

impl Walk<'_> {
    /// Looks at what a folder of the upper tree holds. `below` tells whether the parent has a folder
    /// there too, `opaque` whether it is hidden.
    fn folder(&mut self, path: &mut Vec<u8>, below: bool, opaque: bool) -> Result<(), Error> {
        let names = disk::list(&join(self.upper, path))?;
        // By their names in a tar, where what a folder holds comes after `name/`: so whole paths
        // come in order without being sorted.
        let mut items: Vec<(Vec<u8>, OsString, Item)> = Vec::new();
        if opaque && below {
            for name in disk::list(&join(self.parent, path))? {
                let listed =
                    names.binary_search_by(|have| have.as_bytes().cmp(name.as_bytes())).is_ok();
                let length = push(path, name.as_bytes());
                if !listed
                    && !self.excluded.contains(path.as_slice())
                    && look(&join(self.parent, path))?.is_some()
                {
                    items.push((whiteout_of(&name), name, Item::Note(Verdict::Removed)));
                }
                path.truncate(length);
            }
        }
        for name in names {
            let length = push(path, name.as_bytes());
            if !self.excluded.contains(path.as_slice()) {
                self.entry(path, name, below, opaque, &mut items)?;
            }
            path.truncate(length);
        }
        items.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        for (_, name, item) in items {
            let length = push(path, name.as_bytes());
            match item {
                Item::Note(verdict) => self.found.push(path, verdict.tag()),
                Item::Enter { below, opaque } => self.folder(path, below, opaque)?,
            }
            path.truncate(length);
        }
        Ok(())
    }

    fn entry(
        &self,
        path: &[u8],
        name: OsString,
        below: bool,
        opaque: bool,
        items: &mut Vec<(Vec<u8>, OsString, Item)>,
    ) -> Result<(), Error> {
        let here = join(self.upper, path);
        let there = join(self.parent, path);
        let stat = rustix::fs::lstat(&here).at("examine", &here)?;
        let old = if below { look(&there)? } else { None };
        if is_whiteout(&stat) || kind(&stat) == FileType::Socket {
            if old.is_some() {
                items.push((whiteout_of(&name), name, Item::Note(Verdict::Removed)));
            }
            return Ok(());
        }
        let same = match &old {
            Some(old) => {
                let known = EntryPath::from(path);
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
        if kind(&stat) == FileType::Directory {
            if attribute(&here, "user.overlay.redirect")?.is_some() {
                return Err(Error::Foreign { path: here, attribute: "user.overlay.redirect" });
            }
            let below = old.is_some_and(|old| kind(&old) == FileType::Directory);
            // What lies in a hidden folder is hidden, and carries no marker of its own.
            let opaque = opaque || is_opaque(&here)?;
            let inside = [name.as_bytes(), b"/"].concat();
            items.push((inside, name.clone(), Item::Enter { below, opaque }));
        }
        items.push((name.as_bytes().to_vec(), name, Item::Note(verdict)));
        Ok(())
    }
}

fn whiteout_of(name: &OsStr) -> Vec<u8> {
    [b".wh.", name.as_bytes()].concat()
}

/// Compares the bytes that have to be compared, and leaves out folders without entries.
fn settle(upper: &Path, parent: &Path, found: &List) -> Result<Changes, Error> {
    let equal = equal_files(upper, parent, found)?;
    let kept = |position: usize, verdict: Verdict| match verdict {
        Verdict::Present | Verdict::Removed => true,
        Verdict::Unread => !equal[position].load(Ordering::Relaxed),
        Verdict::Passage => false,
    };
    // The folders above what is kept: as many as there are folders, however many files.
    let mut needed: BTreeSet<Vec<u8>> = BTreeSet::new();
    let mut reader = found.read();
    let mut position = 0;
    while let Some((path, tag)) = reader.advance() {
        if kept(position, Verdict::of(tag)) {
            let mut rest = path;
            while let Some(slash) = rest.iter().rposition(|byte| *byte == b'/') {
                rest = &rest[..slash];
                if needed.contains(rest) {
                    break;
                }
                needed.insert(rest.to_vec());
            }
        }
        position += 1;
    }
    let mut changes = Changes::default();
    let mut reader = found.read();
    let mut position = 0;
    while let Some((path, tag)) = reader.advance() {
        match Verdict::of(tag) {
            Verdict::Removed => changes.push(path, Kind::Removed),
            Verdict::Passage if !needed.contains(path) => {}
            Verdict::Unread if !kept(position, Verdict::Unread) => {}
            _ => changes.push(path, Kind::Present),
        }
        position += 1;
    }
    Ok(changes)
}

/// Tells, by their positions, which unread files have the same bytes in both trees. They are read in
/// parallel: a recursive chown that changes nothing copies whole trees up.
fn equal_files(upper: &Path, parent: &Path, found: &List) -> Result<Vec<AtomicBool>, Error> {
    let mut equal = Vec::new();
    equal.resize_with(found.count(), AtomicBool::default);
    let next = Mutex::new((found.read(), 0));
    let work = || -> Result<(), Error> {
        loop {
            let (position, path) = {
                let mut next = next.lock().unwrap_or_else(PoisonError::into_inner);
                let (reader, position) = &mut *next;
                loop {
                    let Some((path, tag)) = reader.advance() else { return Ok(()) };
                    *position += 1;
                    if Verdict::of(tag) == Verdict::Unread {
                        break (*position - 1, path.to_vec());
                    }
                }
            };
            if same_content(&join(upper, &path), &join(parent, &path))? {
                equal[position].store(true, Ordering::Relaxed);
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from).min(found.count() / 8);
    if threads < 2 {
        work()?;
    } else {
        thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            workers.into_iter().try_for_each(|worker| {
                worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
        })?;
    }
    Ok(equal)
}

fn is_opaque(folder: &Path) -> Result<bool, Error> {
    Ok(attribute(folder, "user.overlay.opaque")?.as_deref() == Some(b"y"))
}

/// Looks at an entry of the parent. A socket there was left by a layer of this build, which does not
/// have it.
fn look(path: &Path) -> Result<Option<Stat>, Error> {
    match rustix::fs::lstat(path) {
        Ok(stat) if kind(&stat) == FileType::Socket => Ok(None),
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(disk::Error::new("examine", path, error).into()),
    }
}

pub(super) fn join(root: &Path, path: &[u8]) -> PathBuf {
    root.join(OsStr::from_bytes(path))
}

/// Appends a name and returns the length to go back to.
pub(super) fn push(path: &mut Vec<u8>, name: &[u8]) -> usize {
    let length = path.len();
    if length > 0 {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    length
}

pub(super) fn trimmed(path: &Path) -> Vec<u8> {
    let parts: Vec<&[u8]> =
        path.as_os_str().as_bytes().split(|byte| *byte == b'/').filter(|p| !p.is_empty()).collect();
    parts.join(&b'/')
}
