//! What an entry's header says of its place and its metadata, checked.

use rustix::fs::{Timespec, Timestamps};

use super::frames::Member;
use super::{EntryProblem, Limits};

/// Owner, permissions and time of an entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Metadata {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: i64,
}

impl Metadata {
    /// Takes an entry's, where its owner is one that can be.
    pub(super) fn of(member: &Member) -> Result<Metadata, EntryProblem> {
        // The largest number means "leave as it is" to the kernel.
        let id = |id: u64| u32::try_from(id).ok().filter(|id| *id != u32::MAX);
        match (id(member.uid), id(member.gid)) {
            (Some(uid), Some(gid)) => {
                Ok(Metadata { mode: member.mode, uid, gid, mtime: member.mtime })
            }
            _ => Err(EntryProblem::Owner { uid: member.uid, gid: member.gid }),
        }
    }

    /// Its time, for both that a file has.
    pub(super) fn times(&self) -> Timestamps {
        let time = Timespec { tv_sec: self.mtime, tv_nsec: 0 };
        Timestamps { last_access: time, last_modification: time }
    }
}

/// Splits a name, and refuses one that could lead out.
pub(super) fn names<'n>(path: &'n [u8], limits: &Limits) -> Result<Vec<&'n [u8]>, EntryProblem> {
    if path.starts_with(b"/") {
        return Err(EntryProblem::Absolute);
    }
    if path.is_empty() || path.contains(&0) {
        return Err(EntryProblem::NoName);
    }
    if path.len() > limits.path {
        return Err(EntryProblem::Bound {
            what: "the length of its name",
            bound: limits.path as u64,
        });
    }
    let mut names = Vec::new();
    for name in path.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => return Err(EntryProblem::Escape),
            name => names.push(name),
        }
    }
    if names.len() > limits.depth {
        let what = "the number of folders above it";
        return Err(EntryProblem::Bound { what, bound: limits.depth as u64 });
    }
    Ok(names)
}
