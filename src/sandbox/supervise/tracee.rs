//! The process that waits for an answer: its memory, and its paths as the supervising thread sees
//! them. That thread has the step's root as its own and the build's `/proc` as its working folder.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};

use super::kernel::{self, Status};

/// An errno, which the waiting call gets unless the kernel finds a truer one.
pub(super) type Errno = i32;

pub(super) fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().unwrap_or(libc::EIO)
}

/// The longest path, with its NUL.
const PATH_MAX: usize = 4096;
pub(super) const PAGE: u64 = 4096;
/// As much of a text is read at first.
const FIRST: usize = 128;

/// Looks at what statx tells of any file system, and at what tells files apart.
const MASK: u32 = libc::STATX_BASIC_STATS | libc::STATX_BTIME | libc::STATX_MNT_ID;

/// A file as a system call names it.
#[derive(Clone, Copy, Debug)]
pub(super) struct At {
    pub(super) dir: i32,
    /// The address of the path; `None` for what `dir` itself is.
    pub(super) path: Option<u64>,
    pub(super) follow: bool,
    /// An empty path means `dir` itself.
    pub(super) empty: bool,
}

impl At {
    /// The folder that the process is in.
    pub(super) const WORKING_FOLDER: At =
        At { dir: libc::AT_FDCWD, path: None, follow: true, empty: true };

    pub(super) fn path(path: u64, follow: bool) -> At {
        At { dir: libc::AT_FDCWD, path: Some(path), follow, empty: false }
    }

    pub(super) fn fd(fd: u64) -> At {
        At { dir: number(fd), path: None, follow: true, empty: true }
    }

    pub(super) fn dir(dir: u64, path: u64, follow: bool) -> At {
        At { dir: number(dir), path: Some(path), follow, empty: false }
    }

    /// As the flags of an `…at` call say.
    pub(super) fn flags(dir: u64, path: u64, flags: u64) -> At {
        let has = |flag: i32| number(flags) & flag != 0;
        let empty = has(libc::AT_EMPTY_PATH);
        let path = (path != 0 || !empty).then_some(path);
        At { dir: number(dir), path, follow: !has(libc::AT_SYMLINK_NOFOLLOW), empty }
    }
}

/// An argument that has 32 bits.
pub(super) fn number(argument: u64) -> i32 {
    id(argument).cast_signed()
}

/// An argument that is an id.
pub(super) fn id(argument: u64) -> u32 {
    (argument & 0xffff_ffff) as u32
}

/// A file as the supervising thread names it, relative to the build's `/proc` where not absolute.
#[derive(Clone, Debug)]
pub(super) struct Place {
    path: Vec<u8>,
    /// How much of the path only leads to where the process begins; none where that is its root.
    head: usize,
    follow: bool,
    /// What `openat2` restricts the rest of the path to.
    resolve: ResolveFlags,
    /// The path leads through one of the process's descriptors and ends there.
    pub(super) is_fd: bool,
}

impl Place {
    fn text(&self) -> Result<CString, Errno> {
        CString::new(self.path.clone()).map_err(|_| libc::EINVAL)
    }

    /// Opens it as a mere place.
    pub(super) fn open(&self) -> Result<OwnedFd, Errno> {
        let raw = rustix::io::Errno::raw_os_error;
        let follow = if self.follow { OFlags::empty() } else { OFlags::NOFOLLOW };
        let flags = OFlags::PATH | OFlags::CLOEXEC | follow;
        if self.resolve.is_empty() {
            return rustix::fs::openat(CWD, self.text()?, flags, Mode::empty()).map_err(raw);
        }
        let (start, rest) = (self.start()?, self.rest());
        rustix::fs::openat2(start, rest, flags, Mode::empty(), self.resolve).map_err(raw)
    }

    /// Opens where the path begins: the process's root, its folder, or one of its descriptors.
    pub(super) fn start(&self) -> Result<OwnedFd, Errno> {
        let head = if self.head == 0 { b"/" } else { &self.path[..self.head] };
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        rustix::fs::openat(CWD, head, flags, Mode::empty()).map_err(rustix::io::Errno::raw_os_error)
    }

    /// The path from there.
    pub(super) fn rest(&self) -> &[u8] {
        let rest = &self.path[self.head..];
        if self.head == 0 { rest } else { rest.strip_prefix(b"/").unwrap_or(rest) }
    }

    /// The same, within what `openat2` restricts it to. `path` is what the process named.
    pub(super) fn restricted(self, tracee: Tracee, at: At, path: &[u8], resolve: u64) -> Place {
        // Whether the kernel has all of it cached already is no matter of where it leads.
        let resolve = ResolveFlags::from_bits_retain(resolve) & !ResolveFlags::CACHED;
        let base = tracee.base(at.dir);
        let head = base.len();
        Place { path: [base.as_bytes(), b"/", path].concat(), head, resolve, ..self }
    }

    /// Tells whether a final symlink is followed.
    pub(super) fn follows(&self) -> bool {
        self.follow
    }

    /// Looks at it.
    pub(super) fn look(&self) -> Result<Status, Errno> {
        self.look_for(0, 0)
    }

    /// Looks at it for more than is usual, as flags and mask of `statx` say.
    pub(super) fn look_for(&self, flags: i32, mask: u32) -> Result<Status, Errno> {
        if !self.resolve.is_empty() {
            return look_at(self.open()?);
        }
        let follow = if self.follow { 0 } else { libc::AT_SYMLINK_NOFOLLOW };
        kernel::statx(libc::AT_FDCWD, &self.text()?, flags | follow, mask | MASK)
            .map_err(|error| errno(&error))
    }

    /// The link that names what a descriptor is.
    pub(super) fn fd_link(&self) -> Option<CString> {
        self.is_fd.then(|| self.text().ok()).flatten()
    }

    /// Its name, where the path ends in one that is no symlink's to change.
    pub(super) fn own_name(&self) -> Option<&[u8]> {
        (!self.follow && !self.is_fd).then(|| self.name()).flatten()
    }

    /// The last part of the path, which may be a symlink.
    pub(super) fn name(&self) -> Option<&[u8]> {
        let end = self.path.iter().rposition(|byte| *byte != b'/')? + 1;
        let start = self.path[..end].iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
        let name = &self.path[start..end];
        (name != b"." && name != b"..").then_some(name)
    }

    /// The folder that it lies in, and its name there.
    pub(super) fn split(&self) -> Result<(Place, CString), Errno> {
        if self.is_fd {
            return Err(libc::EEXIST);
        }
        let name = self.name().ok_or(libc::EEXIST)?;
        let name = CString::new(name).map_err(|_| libc::EINVAL)?;
        let end = self.path.iter().rposition(|byte| *byte != b'/').map_or(0, |at| at + 1);
        let start = end - name.as_bytes().len();
        let mut path = self.path[..start].to_vec();
        path.push(b'.');
        Ok((Place { path, follow: true, ..self.clone() }, name))
    }
}

/// Looks at what a descriptor is.
pub(super) fn look_at(fd: impl AsFd) -> Result<Status, Errno> {
    use std::os::fd::AsRawFd;
    let fd = fd.as_fd().as_raw_fd();
    kernel::statx(fd, c"", libc::AT_EMPTY_PATH, MASK).map_err(|error| errno(&error))
}

/// The process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tracee {
    /// The thread's number in the build's own process namespace.
    pub(super) pid: u32,
}

impl Tracee {
    /// Reads a string that ends with a NUL.
    pub(super) fn text(self, mut address: u64) -> Result<Vec<u8>, Errno> {
        let mut text = Vec::with_capacity(FIRST);
        loop {
            // No further than the page: the next may not be there. Most texts are short.
            let page = usize::try_from(PAGE - address % PAGE).map_err(|_| libc::EFAULT)?;
            let room = if text.is_empty() { page.min(FIRST) } else { page };
            let start = text.len();
            text.resize(start + room, 0);
            let read = kernel::read_memory(self.pid, address, &mut text[start..])
                .map_err(|error| errno(&error))?;
            if let Some(end) = text[start..start + read].iter().position(|byte| *byte == 0) {
                text.truncate(start + end);
                return if text.len() < PATH_MAX { Ok(text) } else { Err(libc::ENAMETOOLONG) };
            }
            if read < room {
                return Err(libc::EFAULT);
            }
            if text.len() >= PATH_MAX {
                return Err(libc::ENAMETOOLONG);
            }
            address += room as u64;
        }
    }

    /// Reads bytes, all of them.
    pub(super) fn bytes(self, address: u64, count: usize) -> Result<Vec<u8>, Errno> {
        let mut bytes = vec![0; count];
        if count > 0 {
            let read = kernel::read_memory(self.pid, address, &mut bytes);
            if read.map_err(|error| errno(&error))? < count {
                return Err(libc::EFAULT);
            }
        }
        Ok(bytes)
    }

    /// Writes bytes.
    pub(super) fn write(self, address: u64, bytes: &[u8]) -> Result<(), Errno> {
        if bytes.is_empty() {
            return Ok(());
        }
        kernel::write_memory(self.pid, address, bytes).map_err(|error| errno(&error))
    }

    /// Writes bytes where the process itself may not, in a copy of its own.
    pub(super) fn overwrite(self, address: u64, bytes: &[u8]) -> Result<(), Errno> {
        let raw = rustix::io::Errno::raw_os_error;
        let path = format!("{}/mem", self.pid);
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let memory = rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(raw)?;
        let written = rustix::io::pwrite(&memory, bytes, address).map_err(raw)?;
        if written == bytes.len() { Ok(()) } else { Err(libc::EFAULT) }
    }

    /// Returns what `/proc` tells of the process's memory.
    pub(super) fn maps(self) -> Result<String, Errno> {
        std::fs::read_to_string(format!("{}/maps", self.pid)).map_err(|error| errno(&error))
    }

    /// Returns how many threads the process has.
    pub(super) fn threads(self) -> Result<u32, Errno> {
        let path = CString::new(format!("{}/task", self.pid)).map_err(|_| libc::EINVAL)?;
        let tasks = kernel::statx(libc::AT_FDCWD, &path, 0, libc::STATX_NLINK)
            .map_err(|error| errno(&error))?;
        // The folder, its parent's entry, and one for each.
        Ok(tasks.stx_nlink.saturating_sub(2))
    }

    /// Returns the place that a call names.
    pub(super) fn place(self, at: At) -> Result<Place, Errno> {
        let path = match at.path {
            Some(address) => self.text(address)?,
            None => Vec::new(),
        };
        self.place_of(at, path)
    }

    pub(super) fn place_of(self, at: At, path: Vec<u8>) -> Result<Place, Errno> {
        let resolve = ResolveFlags::empty();
        let place =
            |path: Vec<u8>, head| Place { path, head, follow: at.follow, resolve, is_fd: false };
        if path.is_empty() {
            if !at.empty {
                return Err(libc::ENOENT);
            }
            // The link is the kernel's own, and is to be followed; what it leads to is not.
            let base = self.base(at.dir);
            let head = base.len();
            return Ok(Place { follow: true, is_fd: true, ..place(base.into(), head) });
        }
        if path.first() != Some(&b'/') {
            let base = self.base(at.dir);
            return Ok(place([base.as_bytes(), b"/", &path].concat(), base.len()));
        }
        Ok(match self.own_folder(&path, at.follow) {
            Some(own) => {
                let head = own.len();
                place(own, head)
            }
            None => place(path, 0),
        })
    }

    /// What leads to a folder that the process has open, or to its working folder.
    fn base(self, dir: i32) -> String {
        match dir {
            libc::AT_FDCWD => format!("{}/cwd", self.pid),
            fd => format!("{}/fd/{fd}", self.pid),
        }
    }

    /// Translates paths that mean another file in each process.
    fn own_folder(self, path: &[u8], follow: bool) -> Option<Vec<u8>> {
        const OWN: [(&[u8], &str); 6] = [
            (b"/proc/self", ""),
            (b"/proc/thread-self", ""),
            (b"/dev/fd", "/fd"),
            (b"/dev/stdin", "/fd/0"),
            (b"/dev/stdout", "/fd/1"),
            (b"/dev/stderr", "/fd/2"),
        ];
        if !matches!(path.get(1), Some(b'p' | b'd')) {
            return None;
        }
        OWN.iter().find_map(|(prefix, own)| {
            let rest = path.strip_prefix(*prefix)?;
            let whole = rest.is_empty() && follow;
            (whole || rest.first() == Some(&b'/'))
                .then(|| [self.pid.to_string().as_bytes(), own.as_bytes(), rest].concat())
        })
    }

    /// Returns the number of the process that the thread belongs to.
    pub(super) fn process(self) -> Result<i32, Errno> {
        let text = self.status()?;
        field(&text, "Tgid:").and_then(|text| text.parse().ok()).ok_or(libc::ESRCH)
    }

    /// Tells whether somebody traces the thread already.
    pub(super) fn is_traced(self) -> Result<bool, Errno> {
        let text = self.status()?;
        field(&text, "TracerPid:").map(|tracer| tracer != "0").ok_or(libc::EIO)
    }

    /// Returns the process's umask.
    pub(super) fn umask(self) -> Result<u32, Errno> {
        let text = self.status()?;
        field(&text, "Umask:").and_then(|text| u32::from_str_radix(text, 8).ok()).ok_or(libc::EIO)
    }

    /// Returns the ids that the kernel gives to what the process creates.
    pub(super) fn creates_as(self) -> Result<(u32, u32), Errno> {
        let text = self.status()?;
        // Real, effective, saved, and that of the file system.
        let last = |name| field(&text, name)?.split_whitespace().nth(3)?.parse().ok();
        last("Uid:").zip(last("Gid:")).ok_or(libc::EIO)
    }

    /// Reads the beginning of what `/proc` tells of the process.
    fn status(self) -> Result<String, Errno> {
        let path = format!("{}/status", self.pid);
        let file = rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(rustix::io::Errno::raw_os_error)?;
        let mut text = [0; 1024];
        let length = rustix::io::read(&file, &mut text).map_err(rustix::io::Errno::raw_os_error)?;
        Ok(String::from_utf8_lossy(&text[..length]).into_owned())
    }
}

/// Returns what stands behind a name in the lines of `/proc/PID/status`.
fn field<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}
