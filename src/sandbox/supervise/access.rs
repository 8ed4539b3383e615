//! What a process may that believes to be another than root. For the kernel all of a step is root
//! and may everything, so that here is asked what it would ask: for each folder on the way whether
//! it may be searched, and at the end by owner, group and mode.
//!
//! Only what is refused is answered here. Where a path leads nowhere, or through what the answering
//! thread can't follow, the kernel has the last word.

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};

use super::calls::{MAKES, Op, WRITES};
use super::create::{open_how, place_within, socket_path};
use super::kernel::{Answer, Status};
use super::owners::path_in;
use super::step::{Call, Handled};
use super::tracee::{At, Errno, Place, id, look_at, number};

const READ: u32 = 4;
const WRITE: u32 = 2;
const SEARCH: u32 = 1;

/// As many symlinks as the kernel follows.
const LINKS: u32 = 40;

/// What a call is up to.
#[derive(Clone, Copy)]
enum Wish {
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

/// Refuses what the process may not do.
pub(super) fn check(call: &Call<'_>) -> Result<(), Errno> {
    let asks_for_real = matches!(call.op, Op::Access | Op::Faccessat)
        || (call.op == Op::Faccessat2 && number(call.arguments[3]) & libc::AT_EACCESS == 0);
    let Some(who) = call.other() else { return Ok(()) };
    let person = if asks_for_real {
        if who.user.real == 0 {
            return Ok(());
        }
        Person { user: who.user.real, group: who.group.real, groups: &who.groups }
    } else {
        if !who.is_restricted() {
            return Ok(());
        }
        Person { user: who.user.files, group: who.group.files, groups: &who.groups }
    };
    let guard = Guard { call, person };
    if call.op == Op::Bind {
        let Some((path, _)) = socket_path(call) else { return Ok(()) };
        return guard.make(&call.tracee.place_of(At::path(0, false), path)?);
    }
    match wish(call) {
        Some(wish) => guard.grant(wish),
        None => Ok(()),
    }
}

/// What the calls of no other room need besides.
pub(super) fn act(call: &Call<'_>) -> Handled {
    let a = call.arguments;
    let mode = match call.op {
        Op::Chmod | Op::Fchmod => id(a[1]),
        Op::Fchmodat | Op::Fchmodat2 => id(a[2]),
        _ => return Ok(Answer::Continue),
    };
    let (Some(who), Some(Wish::Own(at))) = (call.restricted(), wish(call)) else {
        return Ok(Answer::Continue);
    };
    if mode & libc::S_ISGID == 0 {
        return Ok(Answer::Continue);
    }
    // Nobody gives a file the bit of a group that he isn't in.
    let fd = call.place(at)?.open()?;
    let status = look_at(&fd)?;
    let (_, group) = call.owner_of(&status, &call.record_of(fd.as_fd(), &status));
    if who.is_in(group) {
        return Ok(Answer::Continue);
    }
    call.still_waits()?;
    let mode = Mode::from_raw_mode(mode & 0o7777 & !libc::S_ISGID);
    rustix::fs::chmodat(CWD, format!("self/fd/{}", fd.as_raw_fd()), mode, AtFlags::empty())
        .map_err(rustix::io::Errno::raw_os_error)?;
    Ok(Answer::Value(0))
}

fn wish(call: &Call<'_>) -> Option<Wish> {
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

/// Whose permissions count.
struct Person<'p> {
    user: u32,
    group: u32,
    groups: &'p [u32],
}

/// A file on the way.
struct Node {
    fd: OwnedFd,
    status: Status,
    owner: (u32, u32),
}

impl Node {
    fn mode(&self) -> u32 {
        u32::from(self.status.stx_mode)
    }

    fn is(&self, kind: u32) -> bool {
        self.mode() & libc::S_IFMT == kind
    }

    /// Tells whether owners on its file system are anybody's to remember.
    fn has_owner(&self) -> bool {
        const PROC: u32 = 0x9fa0;
        const PIPES: u32 = 0x5049_5045;
        const SOCKETS: u32 = 0x534f_434b;
        const TERMINALS: u32 = 0x1cd1;
        const ANONYMOUS: u32 = 0x0904_1934;
        let device = self.is(libc::S_IFCHR) || self.is(libc::S_IFBLK);
        let kind = rustix::fs::fstatfs(&self.fd)
            .ok()
            .and_then(|it| u32::try_from(it.f_type & 0xffff_ffff).ok())
            .unwrap_or(0);
        !device && ![PROC, PIPES, SOCKETS, TERMINALS, ANONYMOUS].contains(&kind)
    }
}

/// Where a path leads: the folder that its last name is in, and what has that name.
struct Way {
    folder: Option<Node>,
    file: Option<Node>,
}

const NOWHERE: Way = Way { folder: None, file: None };

struct Guard<'g> {
    call: &'g Call<'g>,
    person: Person<'g>,
}

impl Guard<'_> {
    fn place(&self, at: At) -> Result<Place, Errno> {
        self.call.place(at)
    }

    fn grant(&self, wish: Wish) -> Result<(), Errno> {
        match wish {
            Wish::Have(at, bits) => {
                let way = self.walk(&self.place(at)?)?;
                way.file.map_or(Ok(()), |file| self.may(&file, bits))
            }
            Wish::Open(at, flags) => self.open(at, flags),
            Wish::Make(at) => self.make(&self.place(at)?),
            Wish::Remove(at) => self.take_away(&self.walk(&self.place(at)?)?),
            Wish::Move(from, to) => {
                let (from, to) = (self.walk(&self.place(from)?)?, self.walk(&self.place(to)?)?);
                if from.file.is_none() {
                    return Ok(());
                }
                self.take_away(&from)?;
                self.may_in(&to)?;
                if to.file.is_some() {
                    self.take_away(&to)?;
                }
                // A folder that moves gets another `..`.
                let id = |way: &Way| way.folder.as_ref().map(|it| it.status.stx_ino);
                match from.file {
                    Some(file) if file.is(libc::S_IFDIR) && id(&to) != id(&from) => {
                        self.may(&file, WRITE)
                    }
                    _ => Ok(()),
                }
            }
            Wish::Link(from, to) => {
                let from = self.walk(&self.place(from)?)?;
                from.file.map_or(Ok(()), |file| self.may_link(&file))?;
                self.make(&self.place(to)?)
            }
            Wish::Own(at) => {
                let way = self.walk(&self.place(at)?)?;
                way.file.map_or(Ok(()), |file| self.owns(&file))
            }
            Wish::Touch(at) => {
                let way = self.walk(&self.place(at)?)?;
                let may = |file: Node| self.owns(&file).or_else(|_| self.may(&file, WRITE));
                way.file.map_or(Ok(()), may)
            }
        }
    }

    fn open(&self, at: At, flags: u64) -> Result<(), Errno> {
        let has = |flag: i32| flags & u64::from(flag.cast_unsigned()) != 0;
        let exact = has(libc::O_NOFOLLOW) || (has(libc::O_CREAT) && has(libc::O_EXCL));
        let way = self.walk(&self.place(At { follow: !exact, ..at })?)?;
        if has(libc::O_PATH) {
            return Ok(());
        }
        let unnamed = u64::from(libc::O_TMPFILE.cast_unsigned());
        let Some(file) = &way.file else {
            return if has(libc::O_CREAT) { self.may_in(&way) } else { Ok(()) };
        };
        if flags & unnamed == unnamed {
            return self.may(file, WRITE | SEARCH);
        }
        let bits = match i32::try_from(flags & 3).unwrap_or(0) {
            libc::O_RDONLY => READ,
            libc::O_WRONLY => WRITE,
            _ => READ | WRITE,
        };
        let bits = if has(libc::O_TRUNC) { bits | WRITE } else { bits };
        // For these the kernel has other errors.
        let is_odd = file.is(libc::S_IFLNK)
            || (file.is(libc::S_IFDIR) && bits & WRITE != 0)
            || (has(libc::O_CREAT) && has(libc::O_EXCL));
        if is_odd { Ok(()) } else { self.may(file, bits) }
    }

    fn make(&self, place: &Place) -> Result<(), Errno> {
        let way = self.walk(place)?;
        if way.file.is_some() { Ok(()) } else { self.may_in(&way) }
    }

    /// Refuses to change the folder at the end of a way.
    fn may_in(&self, way: &Way) -> Result<(), Errno> {
        way.folder.as_ref().map_or(Ok(()), |folder| self.may(folder, WRITE | SEARCH))
    }

    /// Refuses to take what is at the end of a way out of its folder.
    fn take_away(&self, way: &Way) -> Result<(), Errno> {
        let (Some(folder), Some(file)) = (&way.folder, &way.file) else { return Ok(()) };
        self.may(folder, WRITE | SEARCH)?;
        let sticks = folder.mode() & libc::S_ISVTX != 0;
        let own = [folder.owner.0, file.owner.0].contains(&self.person.user);
        if sticks && !own && folder.has_owner() { Err(libc::EPERM) } else { Ok(()) }
    }

    /// Refuses another name for somebody else's file, where the machine's kernel does.
    fn may_link(&self, file: &Node) -> Result<(), Errno> {
        if self.owns(file).is_ok()
            || std::fs::read("sys/fs/protected_hardlinks").is_ok_and(|it| it.starts_with(b"0"))
        {
            return Ok(());
        }
        let by_group = libc::S_ISGID | libc::S_IXGRP;
        let is_plain = file.is(libc::S_IFREG)
            && file.mode() & libc::S_ISUID == 0
            && file.mode() & by_group != by_group;
        if is_plain && self.may(file, READ | WRITE).is_ok() { Ok(()) } else { Err(libc::EPERM) }
    }

    fn owns(&self, file: &Node) -> Result<(), Errno> {
        let own = file.owner.0 == self.person.user;
        if own || !file.has_owner() { Ok(()) } else { Err(libc::EPERM) }
    }

    /// Refuses what owner, group and mode don't permit.
    fn may(&self, file: &Node, bits: u32) -> Result<(), Errno> {
        if file.is(libc::S_IFLNK) {
            return Ok(());
        }
        let Person { user, group, groups } = self.person;
        let in_group = file.owner.1 == group || groups.contains(&file.owner.1);
        let permitted = match file.owner.0 == user {
            true => file.mode() >> 6,
            false if in_group => file.mode() >> 3,
            false => file.mode(),
        };
        if bits & !permitted == 0 || !file.has_owner() { Ok(()) } else { Err(libc::EACCES) }
    }

    fn node(&self, fd: OwnedFd, name: Option<&[u8]>) -> Result<Node, Errno> {
        let status = look_at(&fd)?;
        let (ownership, view) = (self.call.ownership(), self.call.view);
        let path = || {
            let is_known = name.is_none_or(|name| ownership.is_known_name(name));
            is_known.then(|| path_in(view, fd.as_fd())).flatten()
        };
        let record = ownership.of(view, &status, Some(fd.as_fd()), path).unwrap_or_default();
        let owner = self.call.owner_of(&status, &record);
        Ok(Node { fd, status, owner })
    }

    /// Goes where a path leads as the kernel would; fails where a folder may not be searched.
    fn walk(&self, place: &Place) -> Result<Way, Errno> {
        let Ok(start) = place.start() else { return Ok(NOWHERE) };
        let mut at = self.node(start, None)?;
        let parts = |path: &[u8]| -> VecDeque<Vec<u8>> {
            let parts = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty());
            parts.map(<[u8]>::to_vec).collect()
        };
        let mut rest = parts(place.rest());
        let follow = place.follows() || place.rest().ends_with(b"/");
        let mut links = 0;
        loop {
            let Some(name) = rest.pop_front() else {
                return Ok(Way { folder: None, file: Some(at) });
            };
            if !at.is(libc::S_IFDIR) {
                return Ok(NOWHERE);
            }
            self.may(&at, SEARCH)?;
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let opened = match rustix::fs::openat(&at.fd, &*name, flags, Mode::empty()) {
                Ok(opened) => opened,
                Err(rustix::io::Errno::NOENT) if rest.is_empty() => {
                    return Ok(Way { folder: Some(at), file: None });
                }
                Err(_) => return Ok(NOWHERE),
            };
            let is_up = name == b"." || name == b"..";
            let next = self.node(opened, (!is_up).then_some(&*name))?;
            if next.is(libc::S_IFLNK) && (follow || !rest.is_empty()) {
                links += 1;
                if links > LINKS {
                    return Ok(NOWHERE);
                }
                if next.has_owner() {
                    let Ok(target) = rustix::fs::readlinkat(&next.fd, "", Vec::new()) else {
                        return Ok(NOWHERE);
                    };
                    let target = target.as_bytes();
                    for part in parts(target).into_iter().rev() {
                        rest.push_front(part);
                    }
                    if target.starts_with(b"/") {
                        let root = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                        let Ok(root) = rustix::fs::open("/", root, Mode::empty()) else {
                            return Ok(NOWHERE);
                        };
                        at = self.node(root, None)?;
                    }
                } else {
                    // One of /proc, which leads to a file without a path of its own.
                    let flags = OFlags::PATH | OFlags::CLOEXEC;
                    let Ok(opened) = rustix::fs::openat(&at.fd, &*name, flags, Mode::empty())
                    else {
                        return Ok(NOWHERE);
                    };
                    at = self.node(opened, None)?;
                }
            } else if rest.is_empty() {
                let folder = if is_up { None } else { Some(at) };
                return Ok(Way { folder, file: Some(next) });
            } else {
                at = next;
            }
        }
    }
}
