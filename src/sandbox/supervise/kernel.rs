//! The calls of the kernel that a supervisor needs and no safe library offers: the listener of a
//! seccomp filter, the memory and limits of another process, statx as the kernel lays it out.

#![expect(unsafe_code, reason = "the supervisor's share of it")]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::thread::UnshareFlags;

use crate::sandbox::limits::running;

// `linux/seccomp.h`, as numbers, since not every libc has them.
const RECEIVE: libc::c_ulong = 0xc050_2100;
const SEND: libc::c_ulong = 0xc018_2101;
const IS_VALID: libc::c_ulong = 0x4008_2102;
const ADD_FD: libc::c_ulong = 0x4018_2103;
const SET_FLAGS: libc::c_ulong = 0x4008_2104;
const SYNC_WAKE_UP: u64 = 1;
const CONTINUE: u32 = 1;
const ADD_FD_AND_SEND: u32 = 2;
const NEW_LISTENER: libc::c_ulong = 8;
const WAIT_KILLABLE: libc::c_ulong = 32;
/// The first Linux that has it.
const WAITS_KILLABLE: (u32, u32) = (5, 19);

/// A system call that waits for an answer: `struct seccomp_notif`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Notice {
    pub(super) id: u64,
    pub(super) pid: u32,
    flags: u32,
    pub(super) number: i32,
    pub(super) architecture: u32,
    /// Where the process goes on when it is answered.
    pub(super) instruction: u64,
    pub(super) arguments: [u64; 6],
}

#[repr(C)]
struct Response {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

#[repr(C)]
struct AddFd {
    id: u64,
    flags: u32,
    source: u32,
    new: u32,
    new_flags: u32,
}

/// What a waiting system call is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It returned this.
    Value(i64),
    /// It failed with this errno.
    Error(i32),
    /// The kernel is to carry it out.
    Continue,
    /// It has been told.
    Told,
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Puts a filter before the system calls of this process and its children; returns what answers
/// the calls that the filter wants answered.
pub(in crate::sandbox) fn install_listener(filter: &[libc::sock_filter]) -> io::Result<OwnedFd> {
    let length = u16::try_from(filter.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = libc::sock_fprog { len: length, filter: filter.as_ptr().cast_mut() };
    let install = |flags: libc::c_ulong| -> io::Result<OwnedFd> {
        let operation = libc::SECCOMP_SET_MODE_FILTER;
        // SAFETY: the kernel copies the program, which outlives the call, and checks it.
        let fd = unsafe { libc::syscall(libc::SYS_seccomp, operation, flags, &raw const program) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        let fd = i32::try_from(fd).map_err(|_| io::ErrorKind::InvalidData)?;
        // SAFETY: the kernel has just made it, for us.
        Ok(unsafe { std::os::fd::FromRawFd::from_raw_fd(fd) })
    };
    // Before it a signal may interrupt a call that is being answered.
    install(NEW_LISTENER | WAIT_KILLABLE).or_else(|error| match error.raw_os_error() {
        Some(libc::EINVAL) => install(NEW_LISTENER),
        _ => Err(error),
    })
}

/// Has the kernel hand over to the waiting process at once when it is answered (Linux 6.6).
pub(super) fn wake_in_place(listener: BorrowedFd<'_>) {
    // SAFETY: the request takes a number. Where it is refused, answers take longer.
    unsafe { libc::ioctl(listener.as_raw_fd(), SET_FLAGS as _, SYNC_WAKE_UP) };
}

/// Where calls are waited for.
pub(super) struct Receiver<'l> {
    listener: BorrowedFd<'l>,
    /// Whether the end of all callers is to be asked for: before Linux 6.11 who waits for a call
    /// isn't told of it.
    polls: bool,
}

impl<'l> Receiver<'l> {
    pub(super) fn new(listener: BorrowedFd<'l>) -> Receiver<'l> {
        Receiver { listener, polls: running() < (6, 11) }
    }

    /// Waits for a system call; `None` when nobody is left to make any.
    pub(super) fn next(&self) -> io::Result<Option<Notice>> {
        let mut polls = self.polls;
        loop {
            if polls {
                // Where one was missed, only whether there can be another is of interest.
                let patience = if self.polls { -1 } else { 0 };
                match self.poll(patience) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(error),
                    Ok(events) if events & libc::POLLHUP != 0 => return Ok(None),
                    Ok(_) => {}
                }
            }
            let mut notice = Notice::default();
            let listener = self.listener.as_raw_fd();
            // SAFETY: the kernel fills the struct, whose size is part of the request's number.
            let result = unsafe { libc::ioctl(listener, RECEIVE as _, &raw mut notice) };
            match check(result) {
                Ok(_) => return Ok(Some(notice)),
                // The caller was killed, or a signal came, or nobody is left.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINTR)) => {
                    polls = true;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Tells whether another system call waits already.
    pub(super) fn has_more(&self) -> bool {
        self.poll(0).is_ok_and(|events| events & libc::POLLIN != 0)
    }

    fn poll(&self, milliseconds: i32) -> io::Result<libc::c_short> {
        let mut polled =
            libc::pollfd { fd: self.listener.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one descriptor, which outlives the call.
        check(unsafe { libc::poll(&raw mut polled, 1, milliseconds) })?;
        Ok(polled.revents)
    }
}

/// Answers a system call. A caller that is gone needs no answer.
pub(super) fn send(listener: BorrowedFd<'_>, id: u64, answer: Answer) -> io::Result<()> {
    let (value, error, flags) = match answer {
        Answer::Value(value) => (value, 0, 0),
        Answer::Error(errno) => (0, -errno, 0),
        Answer::Continue => (0, 0, CONTINUE),
        Answer::Told => return Ok(()),
    };
    let response = Response { id, value, error, flags };
    // SAFETY: the kernel reads the struct, whose size is part of the request's number.
    let result = unsafe { libc::ioctl(listener.as_raw_fd(), SEND as _, &raw const response) };
    match check(result) {
        Ok(_) => Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Tells whether a system call still waits: then its process is the one that made it.
pub(super) fn is_waiting(listener: BorrowedFd<'_>, id: u64) -> bool {
    // SAFETY: the kernel reads the number.
    unsafe { libc::ioctl(listener.as_raw_fd(), IS_VALID as _, &raw const id) == 0 }
}

/// Gives the caller of a system call a descriptor, which is the call's result.
pub(super) fn answer_with_fd(
    listener: BorrowedFd<'_>,
    id: u64,
    fd: OwnedFd,
    close_on_exec: bool,
) -> io::Result<Answer> {
    // Ours is closed before the caller goes on: it may be about to execute what it writes, and nothing
    // can be executed that anybody has open to be written. Where a signal may interrupt the call in
    // between, which is then made again, both must happen at once.
    let interrupts = running() < WAITS_KILLABLE;
    let mut request = AddFd {
        id,
        flags: if interrupts { ADD_FD_AND_SEND } else { 0 },
        source: fd.as_raw_fd().cast_unsigned(),
        new: 0,
        new_flags: if close_on_exec { libc::O_CLOEXEC.cast_unsigned() } else { 0 },
    };
    let add = |request: &AddFd| {
        // SAFETY: the kernel reads the struct, whose size is part of the request's number.
        check(unsafe { libc::ioctl(listener.as_raw_fd(), ADD_FD as _, &raw const *request) })
    };
    let answer = match add(&request) {
        Ok(_) if interrupts => Ok(Answer::Told),
        Ok(given) => Ok(Answer::Value(i64::from(given))),
        // Before Linux 5.14 the answer is a second step.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            request.flags = 0;
            add(&request).map(|given| Answer::Value(i64::from(given)))
        }
        Err(error) => Err(error),
    };
    drop(fd);
    answer
}

/// Reads memory of another process: what lies at the addresses, up to the first that has none.
pub(super) fn read_memory(pid: u32, address: u64, to: &mut [u8]) -> io::Result<usize> {
    let local = libc::iovec { iov_base: to.as_mut_ptr().cast(), iov_len: to.len() };
    let remote = libc::iovec { iov_base: address as *mut _, iov_len: to.len() };
    let pid = pid.cast_signed();
    // SAFETY: the local range is ours to write; the other is not of this process.
    let read = unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) };
    usize::try_from(read).map_err(|_| io::Error::last_os_error())
}

/// Writes memory of another process.
pub(super) fn write_memory(pid: u32, address: u64, from: &[u8]) -> io::Result<()> {
    let local = libc::iovec { iov_base: from.as_ptr().cast_mut().cast(), iov_len: from.len() };
    let remote = libc::iovec { iov_base: address as *mut _, iov_len: from.len() };
    let pid = pid.cast_signed();
    // SAFETY: the local range is only read; the other is not of this process.
    let written =
        unsafe { libc::process_vm_writev(pid, &raw const local, 1, &raw const remote, 1, 0) };
    if usize::try_from(written) == Ok(from.len()) {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::EFAULT))
    }
}

/// What statx tells.
pub(super) type Status = libc::statx;

/// Looks at a file.
pub(super) fn statx(dir: i32, path: &CStr, flags: i32, mask: u32) -> io::Result<Status> {
    // SAFETY: the struct is plain numbers, of which all zeros is a value.
    let mut status: Status = unsafe { std::mem::zeroed() };
    // SAFETY: the path ends with a NUL, and the struct is ours.
    check(unsafe { libc::statx(dir, path.as_ptr(), flags, mask, &raw mut status) })?;
    Ok(status)
}

/// The bytes of what statx told.
pub(super) fn bytes_of(status: &Status) -> &[u8] {
    let start = std::ptr::from_ref(status).cast::<u8>();
    // SAFETY: the struct has no padding that isn't a field of its own, and was zeroed before.
    unsafe { std::slice::from_raw_parts(start, size_of::<Status>()) }
}

/// Returns the soft and the hard limit of another process's resident set, which no kernel heeds.
pub(super) fn resident_limit(pid: u32) -> io::Result<(u64, u64)> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    let (pid, which) = (pid.cast_signed(), libc::RLIMIT_RSS);
    // SAFETY: the struct is ours; no new limit is given.
    check(unsafe { libc::prlimit64(pid, which, std::ptr::null(), &raw mut limit) })?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// Sets that limit.
pub(super) fn set_resident_limit(pid: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    let (pid, which) = (pid.cast_signed(), libc::RLIMIT_RSS);
    // SAFETY: the struct outlives the call; the old limit isn't asked for.
    check(unsafe { libc::prlimit64(pid, which, &raw const limit, std::ptr::null_mut()) })?;
    Ok(())
}

/// Gives this thread a root, a working folder and a umask of its own.
pub(super) fn leave_shared_folders() -> io::Result<()> {
    // SAFETY: descriptors stay shared.
    Ok(unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }?)
}

/// The handle of a file, where its file system makes any: it tells a file from another that later
/// got the same inode number.
pub(super) fn handle_of(dir: i32, path: &CStr, flags: i32) -> Option<Vec<u8>> {
    const ROOM: usize = libc::MAX_HANDLE_SZ as usize;
    #[repr(C)]
    struct Handle {
        length: u32,
        kind: i32,
        bytes: [u8; ROOM],
    }
    let mut handle = Handle { length: libc::MAX_HANDLE_SZ as u32, kind: 0, bytes: [0; ROOM] };
    let mut mount = 0_i32;
    // SAFETY: the struct is ours and begins with the room that its bytes have.
    let result = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            dir,
            path.as_ptr(),
            &raw mut handle,
            &raw mut mount,
            flags,
        )
    };
    let length = usize::try_from(handle.length).ok()?;
    (result == 0).then(|| handle.bytes.get(..length).map(<[u8]>::to_vec)).flatten()
}

/// Makes a socket, of the kind and with the flags that a process asked for.
pub(super) fn socket(domain: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: it takes numbers.
    let fd = check(unsafe { libc::socket(domain, kind | libc::SOCK_CLOEXEC, protocol) })?;
    // SAFETY: the kernel has just made it, for us.
    Ok(unsafe { std::os::fd::FromRawFd::from_raw_fd(fd) })
}

/// Gives a socket the address that a process named.
pub(super) fn bind(socket: BorrowedFd<'_>, address: &[u8]) -> io::Result<()> {
    let length =
        libc::socklen_t::try_from(address.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the kernel copies as many bytes as are told, which are there.
    check(unsafe { libc::bind(socket.as_raw_fd(), address.as_ptr().cast(), length) })?;
    Ok(())
}
