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

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) record: Record,
    pub(super) identity: Identity,
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
    /// Tells whether the file's capabilities are to be gone, as far as its descriptor tells.
    pub(super) fn was_written(
        &self,
        view: View<'_>,
        fd: Option<BorrowedFd<'_>>,
        status: &Status,
    ) -> bool {
        match (&self.opened, fd) {
            (Some(opened), Some(fd)) if opened.time != time_of(status) => {
                content_of(view, fd, status).is_ok_and(|now| now.digest != opened.digest)
            }
            _ => false,
        }
    }
}

pub(super) fn handle_of(fd: BorrowedFd<'_>) -> Option<Vec<u8>> {
    kernel::handle_of(fd.as_raw_fd(), c"", libc::AT_EMPTY_PATH)
}
