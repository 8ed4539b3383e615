//! `stat` and its kin: where something is remembered of the file, the answer is ours; else it is
//! the kernel's.

use std::os::fd::AsFd;

use rustix::fs::CWD;

use super::Scope;
use super::calls::Op;
use super::kernel::{self, Answer, Status};
use super::layout::Layout;
use super::quick;
use super::step::{Call, Handled};
use super::tracee::{At, Place, id, number};
use super::view::{below, path_in};
use crate::rootfs::{DeviceKind, Record, Truth};

/// The id that stands for all that aren't mapped.
const UNMAPPED: u32 = 65534;

/// `STATX_MNT_ID_UNIQUE`: it would be told in the place of the number that mounts are compared by.
const MNT_ID_UNIQUE: u32 = 0x4000;

pub(super) fn stat(call: &Call<'_>) -> Handled {
    if let Some(handled) = quick::requests(call) {
        return handled;
    }
    let handled = answer(call);
    call.step.quick.count(call);
    handled
}

fn answer(call: &Call<'_>) -> Handled {
    if call.ownership().is_empty() {
        return Ok(Answer::Continue);
    }
    let a = call.arguments;
    let (at, buffer) = match call.op {
        Op::Newfstatat | Op::Fstatat64 => (At::flags(a[0], a[1], a[3]), a[2]),
        Op::Statx => (At::flags(a[0], a[1], a[2]), a[4]),
        Op::Fstat | Op::Fstat64 => (At::fd(a[0]), a[1]),
        Op::Stat | Op::Stat64 => (At::path(a[0], true), a[1]),
        _ => (At::path(a[0], false), a[1]),
    };
    // Whatever goes wrong, the kernel says it best.
    let Ok(place) = call.place(at) else { return Ok(Answer::Continue) };
    let looked = if call.op == Op::Statx {
        // With the caller's own wishes, which may tell more.
        place.look_for(number(a[2]) & libc::AT_STATX_SYNC_TYPE, id(a[3]) & !MNT_ID_UNIQUE)
    } else {
        place.look()
    };
    let Ok(status) = looked else { return Ok(Answer::Continue) };
    let record = record_at(call, &place, &status);
    let full = call.step.scope() == Scope::Full;
    let foreign = full && (status.stx_uid == UNMAPPED || status.stx_gid == UNMAPPED);
    let record = match record {
        None if !foreign => return Ok(Answer::Continue),
        Some(record)
            if !foreign
                && record.device.is_none()
                && record.uid.is_none_or(|uid| uid == status.stx_uid)
                && record.gid.is_none_or(|gid| gid == status.stx_gid) =>
        {
            return Ok(Answer::Continue);
        }
        record => record.unwrap_or_default(),
    };
    let told = tell(call, status, &record);
    if call.op == Op::Statx {
        call.tracee.write(buffer, kernel::bytes_of(&told))?;
    } else {
        let bytes = Layout::of(call.arch, call.op).encode(&told).ok_or(libc::EOVERFLOW)?;
        call.tracee.write(buffer, &bytes)?;
    }
    Ok(Answer::Value(0))
}

/// Finds what is remembered of a place, with as few calls as it takes.
pub(super) fn record_at(call: &Call<'_>, place: &Place, status: &Status) -> Option<Record> {
    let (ownership, view) = (call.ownership(), call.view);
    if ownership.may_have_links(status) {
        if let Some(record) = ownership.of_inode(view, status, None) {
            return Some(record);
        }
        let fd = place.open().ok()?;
        return ownership.of_fd(view, fd.as_fd(), status);
    }
    if !ownership.goes_by_path() {
        return ownership.of_inode(view, status, None);
    }
    let path = || {
        let nothing = match place.own_name() {
            Some(name) => !ownership.is_known_name(name),
            None => ownership.has_nothing(status),
        };
        if nothing {
            return None;
        }
        if let Some(link) = place.fd_link() {
            let path = rustix::fs::readlinkat(CWD, link, Vec::new()).ok()?;
            return below(view, path.as_bytes());
        }
        let fd = place.open().ok()?;
        path_in(view, fd.as_fd())
    };
    ownership.of(view, status, None, path)
}

/// What the step is told of a file.
fn tell(call: &Call<'_>, mut status: Status, record: &Record) -> Status {
    if call.step.scope() == Scope::Full {
        (status.stx_uid, status.stx_gid) = call.owner_of(&status, record);
    }
    if let Some((kind, major, minor)) = record.device {
        let kind = match kind {
            DeviceKind::Block => libc::S_IFBLK,
            DeviceKind::Character => libc::S_IFCHR,
        };
        status.stx_mode = (status.stx_mode & 0o7777) | (kind & 0xffff) as u16;
        (status.stx_rdev_major, status.stx_rdev_minor) = (major, minor);
        (status.stx_size, status.stx_blocks) = (0, 0);
    }
    status
}
