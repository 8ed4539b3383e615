//! New files. The kernel makes them, as root's, unless they are to be somebody else's, lie in a
//! set-gid folder of another group, are device nodes, or take a name that the layers below know
//! something of: then the supervisor makes them, since it can't know when the kernel is done.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;

use rustix::fs::{FileType, Mode, OFlags};

use super::Scope;
use super::calls::{MAKES, Op, WRITES};
use super::credentials::Credentials;
use super::kernel::{self, Answer};
use super::layout::decode_device;
use super::step::{Call, Handled};
use super::tracee::{At, Errno, Place, errno, id, look_at, number};
use super::write;
use crate::rootfs::{DeviceKind, Record};

/// What is to be made.
enum Thing {
    Folder(u32),
    Symlink(CString),
    Node(u32, u64),
    /// Flags and mode.
    File(u64, u32),
    /// The process's descriptor of a socket, and the address that it is to get.
    Socket(i32, Vec<u8>),
}

pub(super) fn create(call: &Call<'_>) -> Handled {
    if call.op == Op::Bind {
        return name_socket(call);
    }
    let a = call.arguments;
    let named = |dir: u64, path: u64| At::dir(dir, path, false);
    let mut resolve = 0;
    let (at, thing) = match call.op {
        Op::Mkdir => (At::path(a[0], false), Thing::Folder(id(a[1]))),
        Op::Mkdirat => (named(a[0], a[1]), Thing::Folder(id(a[2]))),
        Op::Symlink => (At::path(a[1], false), Thing::Symlink(target(call, a[0])?)),
        Op::Symlinkat => (named(a[1], a[2]), Thing::Symlink(target(call, a[0])?)),
        Op::Mknod => (At::path(a[0], false), Thing::Node(id(a[1]), a[2])),
        Op::Mknodat => (named(a[0], a[1]), Thing::Node(id(a[2]), a[3])),
        Op::Open => (At::path(a[0], true), Thing::File(u64::from(id(a[1])), id(a[2]))),
        Op::Openat => (At::dir(a[0], a[1], true), Thing::File(u64::from(id(a[2])), id(a[3]))),
        Op::Creat => {
            let flags = libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC;
            (At::path(a[0], true), Thing::File(u64::from(flags.cast_unsigned()), id(a[1])))
        }
        _ => {
            let how = open_how(call)?;
            resolve = how.resolve;
            (At::dir(a[0], a[1], true), Thing::File(how.flags, how.mode))
        }
    };
    let place = |at: At| place_within(call, at, resolve);
    if let Thing::File(flags, _) = thing
        && flags & u64::from(WRITES) != 0
        && write::is_of_interest(call)
        && let Ok(place) = place(at)
    {
        write::prepare(call, &place);
    }
    if let Thing::File(flags, _) = thing
        && flags & u64::from(MAKES) == 0
    {
        return Ok(Answer::Continue);
    }
    if let Thing::Node(mode, _) = thing
        && is_device(mode)
    {
        if call.step.scope() == Scope::Light {
            call.step.wants_more.store(true, Ordering::Release);
            return Err(libc::EPERM);
        }
        if call.other().is_some_and(|who| !who.capable) {
            return Err(libc::EPERM);
        }
        let place = place(at)?;
        return make(call, &place, &thing, call.other().as_ref(), true);
    }
    if call.step.scope() == Scope::Light || !may_need_record(call) {
        return Ok(Answer::Continue);
    }
    let Ok(place) = place(at) else { return Ok(Answer::Continue) };
    make_if_needed(call, &place, &thing)
}

/// Tells whether something new may need a record.
fn may_need_record(call: &Call<'_>) -> bool {
    let ownership = call.ownership();
    let is_others = || call.other().is_some_and(|who| !who.makes_roots_files());
    ownership.has_groups() || ownership.goes_by_path() || is_others()
}

/// Makes something that needs a record, and leaves the rest to the kernel.
fn make_if_needed(call: &Call<'_>, place: &Place, thing: &Thing) -> Handled {
    let other = call.other().filter(|who| !who.makes_roots_files());
    let may_inherit = call.ownership().has_groups();
    let has_known_name = place.name().is_some_and(|name| call.ownership().is_known_name(name));
    if other.is_none() && !has_known_name && !(may_inherit && is_set_gid(thing, place)) {
        return Ok(Answer::Continue);
    }
    make(call, place, thing, other.as_ref(), has_known_name)
}

/// Tells whether something is to be made in a set-gid folder.
fn is_set_gid(thing: &Thing, place: &Place) -> bool {
    let status = match thing {
        Thing::File(flags, _) if is_unnamed(*flags) => place.look(),
        _ => place.split().and_then(|(folder, _)| folder.look()),
    };
    status.is_ok_and(|status| u32::from(status.stx_mode) & libc::S_ISGID != 0)
}

fn is_unnamed(flags: u64) -> bool {
    let unnamed = u64::from(libc::O_TMPFILE.cast_unsigned());
    flags & unnamed == unnamed
}

fn target(call: &Call<'_>, address: u64) -> Result<CString, Errno> {
    CString::new(call.tracee.text(address)?).map_err(|_| libc::EINVAL)
}

fn is_device(mode: u32) -> bool {
    matches!(mode & libc::S_IFMT, libc::S_IFCHR | libc::S_IFBLK)
}

/// What `openat2` asks for.
pub(super) struct How {
    pub(super) flags: u64,
    pub(super) mode: u32,
    pub(super) resolve: u64,
}

pub(super) fn open_how(call: &Call<'_>) -> Result<How, Errno> {
    let how = call.tracee.bytes(call.arguments[2], 24)?;
    let long = |at: usize| how[at..at + 8].try_into().map_or(0, u64::from_le_bytes);
    Ok(How { flags: long(0), mode: id(long(8)), resolve: long(16) })
}

/// The place that a call names within what `openat2` restricts it to.
pub(super) fn place_within(call: &Call<'_>, at: At, resolve: u64) -> Result<Place, Errno> {
    if resolve == 0 {
        return call.place(at);
    }
    let path = call.tracee.text(at.path.unwrap_or(0))?;
    Ok(call.tracee.place_of(at, path.clone())?.restricted(call.tracee, at, &path, resolve))
}

/// The longest address of a socket with a path, `struct sockaddr_un`.
const ADDRESS: u64 = 110;

/// Returns the path that `bind` gives a socket, where that is what it does, and the whole address.
pub(super) fn socket_path(call: &Call<'_>) -> Option<(Vec<u8>, Vec<u8>)> {
    let [_, address, length, ..] = call.arguments;
    let length = u64::from(id(length));
    if !(3..=ADDRESS).contains(&length) {
        return None;
    }
    let address = call.tracee.bytes(address, usize::try_from(length).ok()?).ok()?;
    let family = u16::from_ne_bytes([address[0], address[1]]);
    let path = address[2..].split(|byte| *byte == 0).next()?.to_vec();
    (i32::from(family) == libc::AF_UNIX && !path.is_empty()).then_some((path, address))
}

/// A socket that gets a name in the tree.
fn name_socket(call: &Call<'_>) -> Handled {
    if call.step.scope() == Scope::Light || !may_need_record(call) {
        return Ok(Answer::Continue);
    }
    let Some((path, address)) = socket_path(call) else { return Ok(Answer::Continue) };
    let place = call.tracee.place_of(At::path(0, false), path)?;
    make_if_needed(call, &place, &Thing::Socket(number(call.arguments[0]), address))
}

/// Gives a process's socket its address as the process would itself: the socket goes on telling the
/// path as it was named, from the folder that the process is in.
fn bind(call: &Call<'_>, socket: i32, address: &[u8], umask: u32) -> Result<(), Errno> {
    let raw = rustix::io::Errno::raw_os_error;
    let process = rustix::process::Pid::from_raw(call.tracee.process()?).ok_or(libc::ESRCH)?;
    let process = rustix::process::pidfd_open(process, rustix::process::PidfdFlags::empty());
    let flags = rustix::process::PidfdGetfdFlags::empty();
    let socket = rustix::process::pidfd_getfd(process.map_err(raw)?, socket, flags).map_err(raw)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = call.tracee.place_of(At::WORKING_FOLDER, Vec::new())?.open()?;
    let proc = rustix::fs::open(".", flags, Mode::empty()).map_err(raw)?;
    rustix::process::fchdir(&folder).map_err(raw)?;
    rustix::process::umask(Mode::from_raw_mode(umask));
    let bound = kernel::bind(socket.as_fd(), address);
    rustix::process::umask(Mode::empty());
    rustix::process::fchdir(&proc).map_err(raw)?;
    bound.map_err(|error| errno(&error))
}

/// Makes it and remembers whose it is. `must` where it needs a record even as root's own.
fn make(
    call: &Call<'_>,
    place: &Place,
    thing: &Thing,
    other: Option<&Credentials>,
    must: bool,
) -> Handled {
    if let Thing::File(flags, mode) = thing
        && is_unnamed(*flags)
    {
        return unnamed(call, place, *flags, *mode, other);
    }
    // Whatever is wrong with the path, the kernel finds out, too.
    let Ok((folder, name)) = place.split() else { return Ok(Answer::Continue) };
    let Ok(folder) = folder.open() else { return Ok(Answer::Continue) };
    let owner = owner_in(call, &folder, other)?;
    if owner == (0, 0) && !must {
        return Ok(Answer::Continue);
    }
    let exists = || {
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::statat(&folder, &*name, flags).is_ok()
    };
    if exists() {
        return Ok(Answer::Continue);
    }
    let umask = call.tracee.umask()?;
    call.still_waits()?;
    let masked = |mode: u32| Mode::from_raw_mode(mode & 0o7777 & !umask);
    let raw = |error: rustix::io::Errno| error.raw_os_error();
    let mut record = Record { uid: Some(owner.0), gid: Some(owner.1), ..Record::default() };
    if call.step.scope() == Scope::Nodes {
        record = Record::default();
    }
    match thing {
        Thing::Folder(mode) => {
            rustix::fs::mkdirat(&folder, &*name, masked(*mode)).map_err(raw)?;
        }
        Thing::Socket(socket, address) => bind(call, *socket, address, umask)?,
        Thing::Symlink(target) => {
            rustix::fs::symlinkat(&**target, &folder, &*name).map_err(raw)?;
        }
        Thing::Node(mode, device) => {
            let kind = match mode & libc::S_IFMT {
                libc::S_IFIFO => FileType::Fifo,
                libc::S_IFSOCK => FileType::Socket,
                libc::S_IFREG | 0 | libc::S_IFCHR | libc::S_IFBLK => FileType::RegularFile,
                _ => return Ok(Answer::Continue),
            };
            if is_device(*mode) {
                let (major, minor) = decode_device(*device);
                let kind = match mode & libc::S_IFMT {
                    libc::S_IFBLK => DeviceKind::Block,
                    _ => DeviceKind::Character,
                };
                record.device = Some((kind, major, minor));
            }
            rustix::fs::mknodat(&folder, &*name, kind, masked(*mode), 0).map_err(raw)?;
        }
        Thing::File(flags, mode) => {
            let exactly = file_flags(*flags) | OFlags::EXCL | OFlags::NOFOLLOW;
            let file = match rustix::fs::openat(&folder, &*name, exactly, masked(*mode)) {
                Ok(file) => file,
                Err(rustix::io::Errno::EXIST) => return Ok(Answer::Continue),
                Err(error) => return Err(raw(error)),
            };
            if call.step.scope() == Scope::Nodes {
                own_natively(call, &file)?;
            }
            call.remember(file.as_fd(), Some(Record::default()), &record)?;
            return hand_over(call, file, *flags);
        }
    }
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = rustix::fs::openat(&folder, &*name, flags, Mode::empty()).map_err(raw)?;
    if call.step.scope() == Scope::Nodes {
        own_natively(call, &made)?;
    }
    call.remember(made.as_fd(), Some(Record::default()), &record)?;
    Ok(Answer::Value(0))
}

/// Whose a new file in a folder is.
fn owner_in(
    call: &Call<'_>,
    folder: &OwnedFd,
    other: Option<&Credentials>,
) -> Result<(u32, u32), Errno> {
    let (uid, mut gid) = other.map_or((0, 0), |who| (who.user.files, who.group.files));
    if call.ownership().has_groups() {
        let status = look_at(folder)?;
        if u32::from(status.stx_mode) & libc::S_ISGID != 0 {
            let record = call.record_of(folder.as_fd(), &status);
            gid = call.owner_of(&status, &record).1;
        }
    }
    Ok((uid, gid))
}

fn file_flags(flags: u64) -> OFlags {
    OFlags::from_bits_retain(id(flags)) | OFlags::CLOEXEC
}

/// A file without a name, which may get one by `linkat`.
fn unnamed(
    call: &Call<'_>,
    place: &Place,
    flags: u64,
    mode: u32,
    other: Option<&Credentials>,
) -> Handled {
    let Ok(folder) = place.open() else { return Ok(Answer::Continue) };
    let (uid, gid) = owner_in(call, &folder, other)?;
    if (uid, gid) == (0, 0) || call.step.scope() != Scope::Full {
        return Ok(Answer::Continue);
    }
    let mode = Mode::from_raw_mode(mode & 0o7777 & !call.tracee.umask()?);
    call.still_waits()?;
    let file = rustix::fs::openat(&folder, ".", file_flags(flags), mode)
        .map_err(rustix::io::Errno::raw_os_error)?;
    let record = Record { uid: Some(uid), gid: Some(gid), ..Record::default() };
    call.remember(file.as_fd(), Some(Record::default()), &record)?;
    hand_over(call, file, flags)
}

/// Gives the process a file that it asked to open with `flags`.
fn hand_over(call: &Call<'_>, file: OwnedFd, flags: u64) -> Handled {
    let close = id(flags).cast_signed() & libc::O_CLOEXEC != 0;
    call.give(file, close)
}

/// Gives what the supervisor made the ids of the process: it is root, and the process may not be.
fn own_natively(call: &Call<'_>, made: &OwnedFd) -> Result<(), Errno> {
    let (uid, gid) = call.tracee.creates_as()?;
    let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
    let flags = rustix::fs::AtFlags::EMPTY_PATH;
    rustix::fs::chownat(made, "", Some(uid), Some(gid), flags)
        .map_err(rustix::io::Errno::raw_os_error)
}
