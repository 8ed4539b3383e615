//! What tells a file from another that later has its number, and whether it was written meanwhile.

use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::{Mode, OFlags};
use sha2::{Digest, Sha256};

use super::kernel::{self, Status};
use super::view::View;
use crate::rootfs::Record;

pub(super) type Key = (u64, u64);

pub(super) fn key_of(status: &Status) -> Key {
    let device = (u64::from(status.stx_dev_major) << 32) | u64::from(status.stx_dev_minor);
    (device, status.stx_ino)
}

/// What tells a file from a later one of the same number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Identity {
    Birth(i64, u32),
    Handle(Box<[u8]>),
    Unknown,
}

pub(super) fn birth_of(status: &Status) -> Option<Identity> {
    (status.stx_mask & libc::STATX_BTIME != 0)
        .then_some(Identity::Birth(status.stx_btime.tv_sec, status.stx_btime.tv_nsec))
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) record: Record,
    pub(super) identity: Identity,
    /// The number that the record is under, where that is another.
    pub(super) above: Option<Key>,
    /// What was in it when it was last opened to be written: a change takes its capabilities.
    pub(super) opened: Option<Content>,
}

/// What tells whether a file was written. A new time alone doesn't, which `touch` sets, too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Content {
    time: (i64, u32),
    digest: [u8; 32],
}

fn time_of(status: &Status) -> (i64, u32) {
    (status.stx_mtime.tv_sec, status.stx_mtime.tv_nsec)
}

pub(super) fn content_of(
    view: View<'_>,
    fd: BorrowedFd<'_>,
    status: &Status,
) -> io::Result<Content> {
    let path = format!("{}/fd/{}", view.own, fd.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut file = std::fs::File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let mut hash = Sha256::new();
    let mut piece = vec![0; 1 << 16];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(Content { time: time_of(status), digest: hash.finalize().into() }),
            length => hash.update(&piece[..length]),
        }
    }
}

impl Entry {
    /// The same, as the file's descriptor tells by now: with what is in it, or without the
    /// capabilities that a change took. `None` where nothing is new.
    pub(super) fn renewed(
        &self,
        view: View<'_>,
        fd: Option<BorrowedFd<'_>>,
        status: &Status,
    ) -> Option<Entry> {
        let (Some(opened), Some(fd)) = (&self.opened, fd) else { return None };
        if opened.time == time_of(status) {
            return None;
        }
        let now = content_of(view, fd, status).ok()?;
        let mut entry = self.clone();
        if now.digest == opened.digest {
            // A change within the clock's tick of this one would leave the same time.
            entry.opened = is_past(time_of(status)).then_some(now).or(entry.opened);
        } else {
            entry.record.capability = Some(Vec::new());
            entry.opened = None;
        }
        Some(entry)
    }
}

/// Tells whether what happens from now on gets a later time from the kernel, whose clock for files
/// may stand still for some milliseconds.
pub(super) fn is_past((seconds, nanoseconds): (i64, u32)) -> bool {
    const MARGIN: i128 = 100_000_000;
    let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    let whole = |seconds: i64, rest: i128| i128::from(seconds) * 1_000_000_000 + rest;
    whole(seconds, nanoseconds.into()) + MARGIN < whole(now.tv_sec, now.tv_nsec.into())
}

pub(super) fn handle_of(fd: BorrowedFd<'_>) -> Option<Vec<u8>> {
    kernel::handle_of(fd.as_raw_fd(), c"", libc::AT_EMPTY_PATH)
}
