//! What a process may that believes to be another than root. For the kernel all of a step is root
//! and may everything, so that here is asked what it would ask: for each folder on the way whether
//! it may be searched, and at the end by owner, group and mode.
//!
//! Only what is refused is answered here. Where a path leads nowhere, or through what the answering
//! thread can't follow, the kernel has the last word.

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};

use super::calls::Op;
use super::create::socket_path;
use super::kernel::{Answer, Status};
use super::step::{Call, Handled};
use super::tracee::{At, Errno, Place, id, look_at, number};
use super::view::path_in;
use super::wish::{READ, SEARCH, WRITE, Wish, wish};

/// As many symlinks as the kernel follows.
const LINKS: u32 = 40;

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
