//! The system calls that no safe library offers. All `unsafe` of the crate is here, each with why
//! it is sound.

#![expect(unsafe_code, reason = "the one place for it")]

use std::ffi::{CStr, CString, c_char};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::process::Pid;
use rustix::thread::UnshareFlags;

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Moves this process to new namespaces. It must have one thread only.
pub(super) fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: CLONE_FILES, the one flag that could take descriptors away from under another
    // thread, is never asked for.
    Ok(unsafe { rustix::thread::unshare_unsafe(flags) }?)
}

/// Which side of a [`fork`] this is.
pub(super) enum Fork {
    Parent(Pid),
    Child,
}

/// Forks. The caller must have one thread only, or the child finds locks that nobody will open.
pub(super) fn fork() -> io::Result<Fork> {
    // SAFETY: the helpers that call this have no second thread, so the child may do whatever a
    // process may.
    let pid = check(unsafe { libc::fork() })?;
    Ok(Pid::from_raw(pid).map_or(Fork::Child, Fork::Parent))
}

/// Ends the process at once, without what `exit` does for the process that it was forked from.
pub(super) fn exit_now(status: i32) -> ! {
    // SAFETY: it takes a number and doesn't return.
    unsafe { libc::_exit(status) }
}

/// Executes a file; returns only when that is not possible.
pub(super) fn execve(path: &CStr, argv: &[CString], env: &[CString]) -> io::Error {
    let pointers = |strings: &[CString]| -> Vec<*const c_char> {
        strings.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (argv, env) = (pointers(argv), pointers(env));
    // SAFETY: all strings end with a NUL, both lists with a null pointer, and all outlive the call.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Takes a descriptor that was inherited under a known number, or `None` when there is none.
pub(super) fn inherited(number: RawFd) -> Option<OwnedFd> {
    // SAFETY: it reads the descriptor's flags, if it is one.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    if number <= 2 || flags < 0 {
        return None;
    }
    // SAFETY: it is open, and nothing in this process knows it but by this number, which the
    // process that executed us chose for this very purpose.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC).ok()?;
    Some(fd)
}

/// Closes all descriptors but the standard ones: whatever the caller of the build left open.
///
/// To be called before this process has opened any.
pub(super) fn close_others() {
    // Without the call (before Linux 5.9) there is still CLOEXEC on all that Rust opened.
    // SAFETY: nothing in this process owns a descriptor yet.
    unsafe {
        libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, 0);
    }
}

/// Gives all signals their default effect and blocks none: both are inherited by programs, and Rust
/// itself ignores SIGPIPE.
pub(super) fn default_signals() {
    for signal in 1..32 {
        // SAFETY: the default disposition runs no code of ours.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    mask(libc::SIG_SETMASK, &[]).ok();
}

/// Makes children wait to be asked how they ended: who ignores SIGCHLD, as some that start programs
/// do, hands that on, and then never learns it.
pub(super) fn expect_children() {
    // SAFETY: the default disposition runs no code of ours.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

/// Blocks signals, for [`wait_for`] to take them.
pub(super) fn block(signals: &[i32]) -> io::Result<()> {
    mask(libc::SIG_BLOCK, signals)
}

fn set_of(signals: &[i32]) -> libc::sigset_t {
    // SAFETY: a signal set is plain numbers, of which all zeros is a value.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is ours.
    unsafe { libc::sigemptyset(&raw mut set) };
    for signal in signals {
        // SAFETY: the set is ours; a wrong number is refused.
        unsafe { libc::sigaddset(&raw mut set, *signal) };
    }
    set
}

fn mask(how: i32, signals: &[i32]) -> io::Result<()> {
    let set = set_of(signals);
    // SAFETY: the set outlives the call, and the old one isn't asked for.
    match unsafe { libc::pthread_sigmask(how, &raw const set, std::ptr::null_mut()) } {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// Waits for one of the blocked signals. Tells which, and whether the kernel sent it, as it does
/// for keys of the terminal, instead of a process.
pub(super) fn wait_for(signals: &[i32]) -> io::Result<(i32, bool)> {
    let set = set_of(signals);
    loop {
        // SAFETY: a siginfo is plain numbers, of which all zeros is a value.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: both are ours and outlive the call.
        let result = check(unsafe { libc::sigwaitinfo(&raw const set, &raw mut info) });
        match result {
            Ok(signal) => return Ok((signal, info.si_code > 0)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Puts a filter before all system calls of this process and of what it executes. It needs
/// `CAP_SYS_ADMIN` in the process' user namespace, since it leaves set-uid programs their effect.
pub(super) fn install_filter(filter: &[libc::sock_filter]) -> io::Result<()> {
    let length = u16::try_from(filter.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = libc::sock_fprog { len: length, filter: filter.as_ptr().cast_mut() };
    let (operation, flags) = (libc::SECCOMP_SET_MODE_FILTER, 0);
    // SAFETY: the kernel copies the program, which outlives the call, and checks it.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, operation, flags, &raw const program) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Has a socket receive only what a filter of packets lets through.
pub(super) fn filter_packets(
    socket: BorrowedFd<'_>,
    filter: &[libc::sock_filter],
) -> io::Result<()> {
    let length = u16::try_from(filter.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = libc::sock_fprog { len: length, filter: filter.as_ptr().cast_mut() };
    let size = libc::socklen_t::try_from(size_of_val(&program)).unwrap_or(0);
    // SAFETY: the kernel copies the program, which outlives the call and whose size is told, and
    // checks it.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size,
        )
    })?;
    Ok(())
}

/// Makes a mount read-only with all mounts below it. `mount` is a descriptor of its root.
pub(super) fn make_read_only(mount: BorrowedFd<'_>) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let flags = libc::AT_EMPTY_PATH | libc::AT_RECURSIVE;
    // SAFETY: the path is a literal, the attributes outlive the call, and their size is told.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// `IFF_UP | IFF_RUNNING`, in the type of the field.
const UP: libc::c_short = 0x41;

/// Brings up the loopback device of this process' network namespace.
pub(super) fn raise_loopback() -> io::Result<()> {
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        None,
    )?;
    // SAFETY: an ifreq is plain numbers, of which all zeros is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(*b"lo") {
        *to = from.cast_signed() as c_char;
    }
    request.ifr_ifru.ifru_flags = UP;
    // SAFETY: the request names a device and flags, which is what this ioctl reads.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) })?;
    Ok(())
}

/// Waits until one of two descriptors can be read, or is at its end; tells which.
pub(super) fn wait_readable(fds: [BorrowedFd<'_>; 2]) -> io::Result<[bool; 2]> {
    let mut polled =
        fds.map(|fd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 });
    loop {
        // SAFETY: the array and its length belong together, and it outlives the call.
        match check(unsafe { libc::poll(polled.as_mut_ptr(), 2, -1) }) {
            Ok(_) => return Ok(polled.map(|fd| fd.revents != 0)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
