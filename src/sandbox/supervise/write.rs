//! What writing to a file takes from it: its capabilities, and where another than root writes, its
//! set-uid and set-gid bits. The kernel knows nothing of the former, and of everybody as root.

use std::os::fd::{AsFd, AsRawFd};

use rustix::fs::{AtFlags, CWD, Mode};

use super::stat::record_at;
use super::step::Call;
use super::tracee::{At, Place, look_at};
use super::view::copy_up;

pub(super) fn truncate(call: &Call<'_>) {
    if is_of_interest(call)
        && let Ok(place) = call.place(At::path(call.arguments[0], true))
    {
        prepare(call, &place);
    }
}

/// Tells whether writing may take something from any file.
pub(super) fn is_of_interest(call: &Call<'_>) -> bool {
    call.ownership().has_capabilities() || call.restricted().is_some()
}

/// Makes ready for a file to be opened and written. Whatever fails, fails in the kernel's own attempt.
pub(super) fn prepare(call: &Call<'_>, place: &Place) {
    let Ok(status) = place.look() else { return };
    let mode = u32::from(status.stx_mode);
    if mode & libc::S_IFMT != libc::S_IFREG {
        return;
    }
    let by_group = libc::S_ISGID | libc::S_IXGRP;
    let has_bits = mode & libc::S_ISUID != 0 || mode & by_group == by_group;
    if has_bits && call.restricted().is_some() {
        let bits = if mode & by_group == by_group { by_group & !libc::S_IXGRP } else { 0 };
        let without = Mode::from_raw_mode(mode & 0o7777 & !(libc::S_ISUID | bits));
        if let Ok(fd) = place.open() {
            let path = format!("self/fd/{}", fd.as_raw_fd());
            rustix::fs::chmodat(CWD, path, without, AtFlags::empty()).ok();
        }
    }
    let has_capability = || {
        let record = record_at(call, place, &status)?;
        record.capability.is_some_and(|bytes| !bytes.is_empty()).then_some(())
    };
    if !call.ownership().has_capabilities() || has_capability().is_none() {
        return;
    }
    let Ok(fd) = place.open() else { return };
    let Ok(status) = look_at(&fd) else { return };
    let record = call.record_of(fd.as_fd(), &status);
    if call.still_waits().is_ok() && copy_up(call.view, fd.as_fd(), &status).is_ok() {
        call.ownership().is_opened(call.view, fd.as_fd(), record).ok();
    }
}
