//! Files as the other rooms want them: listings in byte order, writes that happen whole or not at
//! all, removal of trees, a budget for what is large, and advisory locks that also hold on NFS
//! (flock, which Linux carries to the server there).

mod budget;
mod remove;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use crate::fault::{self, Fault, Kind};

pub use budget::{Budget, Charge, usage};
pub use remove::remove_tree;

/// An operation on a file that did not succeed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", path.display())]
pub struct Error {
    action: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl Error {
    /// Tells what could not be done to which path.
    pub fn new(
        action: &'static str,
        path: impl Into<PathBuf>,
        source: impl Into<io::Error>,
    ) -> Error {
        Error { action, path: path.into(), source: source.into() }
    }

    /// Returns the path it speaks of.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the system's own error.
    pub fn io(&self) -> &io::Error {
        &self.source
    }

    /// Tells whether the path does not exist.
    pub fn is_not_found(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        fault::kind_of_io(&self.source)
    }

    fn hint(&self) -> Option<String> {
        fault::hint_of_io(&self.source)
    }
}

/// Adds the action and the path to an I/O error.
pub trait At<T> {
    /// Names what was being done to which path.
    fn at(self, action: &'static str, path: impl Into<PathBuf>) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, action: &'static str, path: impl Into<PathBuf>) -> Result<T, Error> {
        self.map_err(|source| Error::new(action, path, source))
    }
}

/// Returns the names in a folder, sorted by their bytes.
pub fn list(dir: &Path) -> Result<Vec<OsString>, Error> {
    #[expect(clippy::disallowed_methods, reason = "this is the sorted listing")]
    let entries = fs::read_dir(dir).at("list", dir)?;
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry.at("list", dir)?.file_name());
    }
    names.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
    Ok(names)
}

/// The names in a folder, sorted by their bytes, in a buffer for all: a folder may hold a million.
#[derive(Debug, Default)]
pub struct Names {
    /// Each name with a NUL behind it.
    bytes: Vec<u8>,
    starts: Vec<usize>,
}

impl Names {
    /// Lists a folder.
    pub fn of(dir: &Path) -> Result<Names, Error> {
        #[expect(clippy::disallowed_methods, reason = "this is the sorted listing")]
        let entries = fs::read_dir(dir).at("list", dir)?;
        let mut names = Names::default();
        for entry in entries {
            names.push(entry.at("list", dir)?.file_name().as_bytes());
        }
        let Names { bytes, starts } = &mut names;
        starts.sort_unstable_by(|one, other| at(bytes, *one).cmp(at(bytes, *other)));
        Ok(names)
    }

    /// Returns how many names there are.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Tells whether the folder is empty.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// Returns a name by its number.
    pub fn get(&self, number: usize) -> &[u8] {
        at(&self.bytes, self.starts[number])
    }

    /// Tells whether a name is there, as long as none was added.
    pub fn contains(&self, name: &[u8]) -> bool {
        self.starts.binary_search_by(|start| at(&self.bytes, *start).cmp(name)).is_ok()
    }

    /// Adds a name at the end, whatever its place were.
    pub fn push(&mut self, name: &[u8]) {
        self.starts.push(self.bytes.len());
        self.bytes.extend_from_slice(name);
        self.bytes.push(0);
    }
}

fn at(bytes: &[u8], start: usize) -> &[u8] {
    let rest = &bytes[start..];
    &rest[..rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len())]
}

/// Reads a whole file of at most `limit` bytes.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    use std::io::Read;
    let file = File::open(path).at("open", path)?;
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).at("read", path)?;
    if bytes.len() as u64 > limit {
        let large = io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {limit} bytes"));
        return Err(Error::new("read", path, large));
    }
    Ok(bytes)
}

/// Makes a folder and those above it.
pub fn make_dirs(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).at("create the folder", path)
}

/// Replaces a file's content: a reader sees the old bytes or the new, also after a crash.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    write_with_mode(path, bytes, 0o666)
}

/// Does the same for what nobody but the owner may read, at no moment.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    write_with_mode(path, bytes, 0o600)
}

fn write_with_mode(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Error> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.new", std::process::id()));
    let staged = dir.join(name);
    let write = || -> io::Result<()> {
        // What a process of the same number left behind has a mode of its own.
        match fs::remove_file(&staged) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = File::options().write(true).create_new(true).mode(mode).open(&staged)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&staged, path)?;
        File::open(dir)?.sync_all()
    };
    write().map_err(|source| {
        // The first error is the one worth telling.
        fs::remove_file(&staged).ok();
        Error::new("write", path, source)
    })
}

/// An advisory lock on a file, held until dropped. Locks of one process exclude each other too.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    fn open(path: &Path) -> Result<File, Error> {
        // NFS turns an exclusive flock into a byte-range lock, which needs a file open for writing.
        File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .at("open", path)
    }

    /// Waits until nobody else holds the lock.
    pub fn exclusive(path: &Path) -> Result<Lock, Error> {
        let file = Lock::open(path)?;
        retry(|| rustix::fs::flock(&file, FlockOperation::LockExclusive)).at("lock", path)?;
        Ok(Lock { _file: file })
    }

    /// Waits until nobody holds the lock exclusively.
    pub fn shared(path: &Path) -> Result<Lock, Error> {
        let file = Lock::open(path)?;
        retry(|| rustix::fs::flock(&file, FlockOperation::LockShared)).at("lock", path)?;
        Ok(Lock { _file: file })
    }

    /// Takes the lock, or returns `None` when another holds it.
    pub fn try_exclusive(path: &Path) -> Result<Option<Lock>, Error> {
        let file = Lock::open(path)?;
        match retry(|| rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)) {
            Ok(()) => Ok(Some(Lock { _file: file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(source) => Err(Error::new("lock", path, source)),
        }
    }
}

fn retry(mut call: impl FnMut() -> rustix::io::Result<()>) -> rustix::io::Result<()> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Opens a path below `root` and never outside it, as `resolve` says (`openat2`). The kernel gives
/// `EAGAIN` when something is renamed or mounted anywhere while it follows a `..`; then it is asked
/// again.
pub(crate) fn open_below(
    root: impl std::os::fd::AsFd,
    path: impl rustix::path::Arg + Copy,
    flags: rustix::fs::OFlags,
    resolve: rustix::fs::ResolveFlags,
) -> rustix::io::Result<std::os::fd::OwnedFd> {
    loop {
        match rustix::fs::openat2(&root, path, flags, rustix::fs::Mode::empty(), resolve) {
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_excludes_and_ends_with_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = Lock::exclusive(&path).unwrap();
        assert!(Lock::try_exclusive(&path).unwrap().is_none());
        drop(held);
        assert!(Lock::try_exclusive(&path).unwrap().is_some());
    }

    #[test]
    fn a_write_that_fails_leaves_the_old_bytes_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        write_whole(&path, b"old").unwrap();
        fs::create_dir(dir.path().join("folder")).unwrap();
        assert!(write_whole(&dir.path().join("folder"), b"new").is_err());
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(list(dir.path()).unwrap(), ["file", "folder"]);
        let names = Names::of(dir.path()).unwrap();
        assert_eq!((names.len(), names.get(0), names.get(1)), (2, &b"file"[..], &b"folder"[..]));
        assert!(names.contains(b"file") && !names.contains(b"fil"));
    }
}
