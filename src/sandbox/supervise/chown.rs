//! `chown` and its kin: carried out with the one id that there is, for the kernel's own errors and
//! all that it does besides (set-uid bits go, times change, overlay copies up), and remembered.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, Gid, Uid};

use super::calls::Op;
use super::credentials::SAME;
use super::kernel::{Answer, Status};
use super::stat::record_at;
use super::step::{Call, Handled};
use super::tracee::{At, Errno, id, look_at};
use crate::rootfs::Record;

pub(super) fn chown(call: &Call<'_>) -> Handled {
    let a = call.arguments;
    let (at, uid, gid) = match call.op {
        Op::Fchownat => (At::flags(a[0], a[1], a[4]), a[2], a[3]),
        Op::Fchown | Op::Fchown16 => (At::fd(a[0]), a[1], a[2]),
        Op::Chown | Op::Chown16 => (At::path(a[0], true), a[1], a[2]),
        _ => (At::path(a[0], false), a[1], a[2]),
    };
    let (mut uid, mut gid) = (id(uid), id(gid));
    if matches!(call.op, Op::Chown16 | Op::Lchown16 | Op::Fchown16) {
        (uid, gid) = (long_id(uid), long_id(gid));
    }
    let place = call.place(at)?;
    let status = place.look()?;
    let record = record_at(call, &place, &status).unwrap_or_default();
    if is_done(call, (uid, gid), &status, &record)? {
        return Ok(Answer::Value(0));
    }
    // The same again, of what is then changed.
    let fd = place.open()?;
    let status = look_at(&fd)?;
    let record = call.record_of(fd.as_fd(), &status);
    if is_done(call, (uid, gid), &status, &record)? {
        return Ok(Answer::Value(0));
    }
    call.still_waits()?;
    let is_file = u32::from(status.stx_mode) & libc::S_IFMT == libc::S_IFREG;
    let real = |wanted: u32| (wanted != SAME).then_some(0);
    let owner = (real(uid).map(Uid::from_raw), real(gid).map(Gid::from_raw));
    rustix::fs::chownat(&fd, "", owner.0, owner.1, AtFlags::EMPTY_PATH)
        .map_err(rustix::io::Errno::raw_os_error)?;
    let change = Record {
        uid: (uid != SAME).then_some(uid),
        gid: (gid != SAME).then_some(gid),
        device: None,
        capability: (is_file && record.capability.is_some()).then(Vec::new),
    };
    call.remember(fd.as_fd(), Some(record), &change)?;
    Ok(Answer::Value(0))
}

/// Tells whether nothing is to be done; an error where the process may not.
fn is_done(
    call: &Call<'_>,
    (uid, gid): (u32, u32),
    status: &Status,
    record: &Record,
) -> Result<bool, Errno> {
    let (own_uid, own_gid) = call.owner_of(status, record);
    let stays = |wanted: u32, own: u32| wanted == SAME || wanted == own;
    if let Some(who) = call.other().filter(|who| !who.capable) {
        let owns = who.user.files == own_uid;
        let may_group = stays(gid, own_gid) || who.is_in(gid);
        if !(owns && stays(uid, own_uid) && may_group) {
            return Err(libc::EPERM);
        }
    }
    let mode = u32::from(status.stx_mode);
    let is_file = mode & libc::S_IFMT == libc::S_IFREG;
    let has_more = is_file && (mode & (libc::S_ISUID | libc::S_ISGID) != 0)
        || record.capability.as_ref().is_some_and(|bytes| !bytes.is_empty());
    // Spares overlay the copy of each file of a `chown -R` that changes nothing.
    let in_tree = status.stx_mnt_id == call.view.mount;
    Ok(in_tree && !has_more && stays(uid, own_uid) && stays(gid, own_gid))
}

/// An id of 16 bits, all ones for "leave it".
pub(super) fn long_id(id: u32) -> u32 {
    if id & 0xffff == 0xffff { SAME } else { id & 0xffff }
}
