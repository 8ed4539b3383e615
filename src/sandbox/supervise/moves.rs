//! Renames and links, where owners are known by path: what moves takes its owner along.

use std::os::fd::AsFd;

use super::calls::Op;
use super::step::Call;
use super::tracee::{At, Place, look_at, number};
use super::view::copy_up;
use crate::rootfs::Record;

pub(super) fn relocate(call: &Call<'_>) {
    let ownership = call.ownership();
    if !ownership.goes_by_path() {
        return;
    }
    let a = call.arguments;
    let (from, to) = match call.op {
        Op::Rename | Op::Link => (At::path(a[0], false), At::path(a[1], false)),
        Op::Linkat => {
            let follow = number(a[4]) & libc::AT_SYMLINK_FOLLOW != 0;
            let empty = number(a[4]) & libc::AT_EMPTY_PATH != 0;
            let from = At { follow, empty, ..At::dir(a[0], a[1], false) };
            (from, At::dir(a[2], a[3], false))
        }
        _ => (At::dir(a[0], a[1], false), At::dir(a[2], a[3], false)),
    };
    // Whatever is wrong, the kernel says.
    let (Ok(from), Ok(to)) = (call.place(from), call.place(to)) else {
        return;
    };
    let exchanges =
        call.op == Op::Renameat2 && call.arguments[4] & u64::from(libc::RENAME_EXCHANGE) != 0;
    settle(call, &from, &to);
    if exchanges {
        settle(call, &to, &from);
    }
}

/// Gives what is about to move a record of its own, if its owner is known by its path alone or
/// would be by its new one. Failures show in the kernel's own attempt.
fn settle(call: &Call<'_>, from: &Place, to: &Place) {
    let ownership = call.ownership();
    let known = |place: &Place| place.name().is_none_or(|name| ownership.is_known_name(name));
    let plain = from.own_name().is_some();
    if plain && !known(from) && !known(to) {
        return;
    }
    let Ok(fd) = from.open() else { return };
    let Ok(status) = look_at(&fd) else { return };
    if status.stx_mnt_id != call.view.mount
        || ownership.of_inode(call.view, &status, Some(fd.as_fd())).is_some()
    {
        return;
    }
    let record = ownership.of_fd(call.view, fd.as_fd(), &status);
    if record.is_none() && !known(to) {
        return;
    }
    let (uid, gid) = call.owner_of(&status, &record.clone().unwrap_or_default());
    let record = match (record, call.step.scope()) {
        (record, super::Scope::Full) => {
            Record { uid: Some(uid), gid: Some(gid), ..record.unwrap_or_default() }
        }
        (record, _) => record.unwrap_or_default(),
    };
    // A folder of a layer below can't be moved, so that this copies nothing large.
    if call.still_waits().is_ok() && copy_up(call.view, fd.as_fd(), &status).is_ok() {
        call.remember(fd.as_fd(), Some(Record::default()), &record).ok();
    }
}
