//! Changes from the upper folder of an overlay (mounted with `userxattr`).
//!
//! What overlay leaves there: a whiteout is a character device 0:0 (all of them one inode); a folder
//! that was made anew over another has `user.overlay.opaque`; anything touched is copied up whole,
//! changed or not. The parent is read only at the places that the upper folder names, and below
//! opaque folders.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use super::list::List;
use super::same::{attribute, is_whiteout, kind, same_as_before, same_content};
use super::{Changes, Error, Kind};
use crate::disk::{self, At, Names};
use crate::rootfs::Truth;

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
    let mut walk =
        Walk { upper, parent, excluded, truth, found: List::default(), above: Vec::new() };
    walk.folder(&mut Vec::new(), ROOT, true, is_opaque(upper)?)?;
    settle(upper, parent, walk.found, &walk.above)
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
#[derive(Clone, Copy)]
struct Item {
    verdict: Option<Verdict>,
    /// To be looked into: whether the parent has a folder there, and whether that is hidden.
    enter: Option<(bool, bool)>,
}

const NOTHING: Item = Item { verdict: None, enter: None };

const REMOVED: Item = Item { verdict: Some(Verdict::Removed), enter: None };

/// The root's place among what is found, where it is not.
const ROOT: u32 = u32::MAX;

struct Walk<'a> {
    upper: &'a Path,
    parent: &'a Path,
    excluded: BTreeSet<Vec<u8>>,
    truth: &'a dyn Truth,
    /// In the order of [`Changes`].
    found: List,
    /// For each of them the position of its folder.
    above: Vec<u32>,
}

impl Walk<'_> {
    /// Looks at what a folder of the upper tree holds, which was found as number `own`. `below` tells
    /// whether the parent has a folder there too, `opaque` whether it is hidden.
    fn folder(
        &mut self,
        path: &mut Vec<u8>,
        own: u32,
        below: bool,
        opaque: bool,
    ) -> Result<(), Error> {
        let mut names = Names::of(&join(self.upper, path))?;
        let mut items = Vec::with_capacity(names.len());
        for number in 0..names.len() {
            let length = push(path, names.get(number));
            let excluded = self.excluded.contains(path.as_slice());
            items.push(if excluded { NOTHING } else { self.entry(path, below, opaque)? });
            path.truncate(length);
        }
        if opaque && below {
            let parents = Names::of(&join(self.parent, path))?;
            let mut missing = Vec::new();
            for number in 0..parents.len() {
                let name = parents.get(number);
                let length = push(path, name);
                if !names.contains(name)
                    && !self.excluded.contains(path.as_slice())
                    && look(&join(self.parent, path))?.is_some()
                {
                    missing.push(number);
                }
                path.truncate(length);
            }
            for number in missing {
                names.push(parents.get(number));
                items.push(REMOVED);
            }
        }
        // What a folder holds comes where `name/` would be: so whole paths come in order without
        // being sorted.
        let mut turns: Vec<(u32, bool)> = Vec::with_capacity(items.len());
        for (number, item) in (0..).zip(&items) {
            turns.extend(item.verdict.map(|_| (number, false)));
            turns.extend(item.enter.map(|_| (number, true)));
        }
        let key = |(number, enter): (u32, bool)| {
            let number = number as usize;
            let removed = items[number].verdict == Some(Verdict::Removed);
            let mark: &[u8] = if removed { b".wh." } else { b"" };
            let end: &[u8] = if enter { b"/" } else { b"" };
            mark.iter().chain(names.get(number)).chain(end)
        };
        turns.sort_by(|one, other| key(*one).cmp(key(*other)));
        let mut places = vec![ROOT; items.len()];
        for (number, enter) in turns {
            let number = number as usize;
            let length = push(path, names.get(number));
            match (enter, items[number].verdict, items[number].enter) {
                (false, Some(verdict), _) => {
                    places[number] = u32::try_from(self.above.len()).unwrap_or(ROOT);
                    self.found.push(path, verdict.tag());
                    self.above.push(own);
                }
                (true, _, Some((below, opaque))) => {
                    self.folder(path, places[number], below, opaque)?;
                }
                _ => {}
            }
            path.truncate(length);
        }
        Ok(())
    }

    fn entry(&self, path: &[u8], below: bool, opaque: bool) -> Result<Item, Error> {
        let here = join(self.upper, path);
        let there = join(self.parent, path);
        let stat = rustix::fs::lstat(&here).at("examine", &here)?;
        let old = if below { look(&there)? } else { None };
        if is_whiteout(&stat) || kind(&stat) == FileType::Socket {
            return Ok(if old.is_some() { REMOVED } else { NOTHING });
        }
        let same = match &old {
            Some(old) => same_as_before(path, (&stat, &here), (old, &there), self.truth)?,
            None => false,
        };
        let verdict = match (same, kind(&stat)) {
            (false, _) => Verdict::Present,
            (true, FileType::Directory) => Verdict::Passage,
            (true, FileType::RegularFile) if stat.st_size > 0 => Verdict::Unread,
            (true, _) => return Ok(NOTHING),
        };
        let mut item = Item { verdict: Some(verdict), enter: None };
        if kind(&stat) == FileType::Directory {
            if attribute(&here, "user.overlay.redirect")?.is_some() {
                return Err(Error::Foreign { path: here, attribute: "user.overlay.redirect" });
            }
            let below = old.is_some_and(|old| kind(&old) == FileType::Directory);
            // What lies in a hidden folder is hidden, and carries no marker of its own.
            item.enter = Some((below, opaque || is_opaque(&here)?));
        }
        Ok(item)
    }
}

/// Compares the bytes that have to be compared, and leaves out folders without entries.
fn settle(upper: &Path, parent: &Path, found: List, above: &[u32]) -> Result<Changes, Error> {
    let equal = equal_files(upper, parent, &found)?;
    let mut kept = vec![false; found.count()];
    let mut reader = found.read();
    let mut position = 0;
    while let Some((_, tag)) = reader.advance() {
        let is_entry = match Verdict::of(tag) {
            Verdict::Present | Verdict::Removed => true,
            Verdict::Unread => !equal[position].load(Ordering::Relaxed),
            Verdict::Passage => false,
        };
        // Folders come before what they hold, so those above one that is kept are kept.
        let mut next = if is_entry { Some(position) } else { None };
        while let Some(kept) = next.and_then(|next| kept.get_mut(next)).filter(|kept| !**kept) {
            *kept = true;
            next = next.and_then(|next| usize::try_from(above[next]).ok());
        }
        position += 1;
    }
    let mut changes = Changes::default();
    let mut kept = kept.into_iter();
    found.drain(|path, tag| {
        if kept.next().unwrap_or_default() {
            let is_removed = Verdict::of(tag) == Verdict::Removed;
            changes.push(path, if is_removed { Kind::Removed } else { Kind::Present });
        }
    });
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
