//! Programs that run as their owner: a process that believes to be somebody else becomes the
//! file's owner where the file says so. For the kernel all of a step is one user.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::Ordering;

use rustix::fs::{CWD, Mode, OFlags};

use super::calls::Op;
use super::kernel::Answer;
use super::step::{Call, Handled};
use super::tracee::{At, look_at};

pub(super) fn execute(call: &Call<'_>) -> Handled {
    if matches!(call.op, Op::Chroot | Op::Unshare | Op::Clone | Op::Setns) {
        call.step.chroots.store(true, Ordering::Release);
        return Ok(Answer::Continue);
    }
    let Some(before) = call.other() else { return Ok(Answer::Continue) };
    let a = call.arguments;
    let at = match call.op {
        Op::Execveat => At::flags(a[0], a[1], a[4]),
        _ => At::path(a[0], true),
    };
    let (mut set_user, mut set_group) = (None, None);
    let opened = call.place(at).and_then(|place| place.open());
    if let Ok(fd) = opened
        && let Ok(status) = look_at(&fd)
    {
        let mode = u32::from(status.stx_mode);
        let is_program = mode & libc::S_IFMT == libc::S_IFREG && mode & 0o111 != 0;
        if is_program && mode & (libc::S_ISUID | libc::S_ISGID) != 0 && !is_script(fd.as_fd()) {
            let owner = call.owner_of(&status, &call.record_of(fd.as_fd(), &status));
            set_user = (mode & libc::S_ISUID != 0).then_some(owner.0);
            let by_group = libc::S_ISGID | libc::S_IXGRP;
            set_group = (mode & by_group == by_group).then_some(owner.1);
        }
        // A file that can't be executed must not change who the process is.
        if !is_program {
            return Ok(Answer::Continue);
        }
    } else {
        return Ok(Answer::Continue);
    }
    let mut who = before.clone();
    who.execute(set_user, set_group);
    if who != before {
        call.become_other(who)?;
    }
    Ok(Answer::Continue)
}

/// Tells whether a file is a script: the kernel runs its interpreter, whose own bits count.
fn is_script(fd: std::os::fd::BorrowedFd<'_>) -> bool {
    let path = format!("self/fd/{}", fd.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut start = [0; 2];
    rustix::fs::openat(CWD, path, flags, Mode::empty())
        .is_ok_and(|file| rustix::io::read(&file, &mut start) == Ok(2) && start == *b"#!")
}
