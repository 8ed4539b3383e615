//! What a call about files wants: which of them it is to get to, and what it needs there.

use super::calls::{MAKES, Op, WRITES};
use super::create::{open_how, place_within};
use super::step::Call;
use super::tracee::{At, id, number};

// The bits of a mode.
pub(super) const READ: u32 = 4;
pub(super) const WRITE: u32 = 2;
pub(super) const SEARCH: u32 = 1;

/// What a call is up to.
#[derive(Clone, Copy)]
pub(super) enum Wish {
    /// To get to a file, and these permissions there.
    Have(At, u32),
    /// To open it with these flags.
    Open(At, u64),
    /// To make something where nothing is.
    Make(At),
    /// To take a name away.
    Remove(At),
    /// To move it from one name to another.
    Move(At, At),
    /// To give it another name.
    Link(At, At),
    /// To change what only its owner may.
    Own(At),
    /// To give it the time of now, which whoever may write to it may.
    Touch(At),
}

pub(super) fn wish(call: &Call<'_>) -> Option<Wish> {
    #[allow(clippy::enum_glob_use, reason = "a list of nothing else")]
    use Op::*;
    let a = call.arguments;
    let (path, link) = (At::path(a[0], true), At::path(a[0], false));
    let dir = |follow| At::dir(a[0], a[1], follow);
    let search = |at| Some(Wish::Have(at, 0));
    match call.op {
        Open => Some(Wish::Open(path, u64::from(id(a[1])))),
        Openat => Some(Wish::Open(dir(true), u64::from(id(a[2])))),
        Openat2 => {
            let how = open_how(call).ok()?;
            // Where such a path leads out of its bounds, the kernel says so.
            let place = place_within(call, dir(true), how.resolve).ok()?;
            let folder = || place.split().and_then(|(folder, _)| folder.open());
            let leads = how.resolve == 0 || place.open().or_else(|_| folder()).is_ok();
            leads.then_some(Wish::Open(dir(true), how.flags))
        }
        Creat => Some(Wish::Open(path, u64::from(MAKES | WRITES))),
        Stat | Stat64 | Chown | Chown16 | Getxattr | Listxattr | Statfs | Statfs64 => search(path),
        Lstat | Lstat64 | Lchown | Lchown16 | Lgetxattr | Llistxattr | Readlink => search(link),
        Newfstatat | Fstatat64 => search(At::flags(a[0], a[1], a[3])),
        Statx => search(At::flags(a[0], a[1], a[2])),
        Fchownat => search(At::flags(a[0], a[1], a[4])),
        Readlinkat => search(At { empty: true, ..dir(false) }),
        Setxattr | Removexattr | Truncate | Truncate64 => Some(Wish::Have(path, WRITE)),
        Lsetxattr | Lremovexattr => Some(Wish::Have(link, WRITE)),
        Fsetxattr | Fremovexattr => Some(Wish::Have(At::fd(a[0]), WRITE)),
        InotifyAddWatch => Some(Wish::Have(At::path(a[1], true), READ)),
        Chdir | Chroot | Execve => Some(Wish::Have(path, SEARCH)),
        Fchdir => Some(Wish::Have(At::fd(a[0]), SEARCH)),
        Execveat => Some(Wish::Have(At::flags(a[0], a[1], a[4]), SEARCH)),
        Access => Some(Wish::Have(path, id(a[1]) & 7)),
        Faccessat => Some(Wish::Have(dir(true), id(a[2]) & 7)),
        Faccessat2 => Some(Wish::Have(At::flags(a[0], a[1], a[3]), id(a[2]) & 7)),
        Mkdir | Mknod => Some(Wish::Make(link)),
        Mkdirat | Mknodat => Some(Wish::Make(dir(false))),
        Symlink => Some(Wish::Make(At::path(a[1], false))),
        Symlinkat => Some(Wish::Make(At::dir(a[1], a[2], false))),
        Unlink | Rmdir => Some(Wish::Remove(link)),
        Unlinkat => Some(Wish::Remove(dir(false))),
        Rename => Some(Wish::Move(link, At::path(a[1], false))),
        Renameat | Renameat2 => Some(Wish::Move(dir(false), At::dir(a[2], a[3], false))),
        Link => Some(Wish::Link(link, At::path(a[1], false))),
        Linkat => {
            let from = At {
                follow: number(a[4]) & libc::AT_SYMLINK_FOLLOW != 0,
                empty: number(a[4]) & libc::AT_EMPTY_PATH != 0,
                ..dir(false)
            };
            Some(Wish::Link(from, At::dir(a[2], a[3], false)))
        }
        Chmod => Some(Wish::Own(path)),
        Fchmod => Some(Wish::Own(At::fd(a[0]))),
        Fchmodat => Some(Wish::Own(dir(true))),
        Fchmodat2 => Some(Wish::Own(At::flags(a[0], a[1], a[3]))),
        Utime | Utimes => Some(times(call, path, a[1], false)),
        Futimesat => Some(times(call, named(a[0], a[1], 0), a[2], false)),
        Utimensat | UtimensatTime64 => Some(times(call, named(a[0], a[1], a[3]), a[2], true)),
        _ => None,
    }
}

/// Without a path the descriptor itself is meant.
fn named(dir: u64, path: u64, flags: u64) -> At {
    if path == 0 { At::fd(dir) } else { At::flags(dir, path, flags) }
}

/// A change of a file's times: to now where none are told, or where both are said to be now.
fn times(call: &Call<'_>, at: At, times: u64, has_special: bool) -> Wish {
    let wide = !(call.arch == super::calls::Arch::I386 && call.op != Op::UtimensatTime64);
    let (size, at_first, at_second) = if wide { (32, 8, 24) } else { (16, 4, 12) };
    let are_now = || {
        let bytes = call.tracee.bytes(times, size).ok()?;
        let word = |at: usize| bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
        let now = u32::try_from(libc::UTIME_NOW).ok();
        Some(word(at_first) == now && word(at_second) == now)
    };
    if times == 0 || (has_special && are_now() == Some(true)) {
        Wish::Touch(at)
    } else {
        Wish::Own(at)
    }
}
