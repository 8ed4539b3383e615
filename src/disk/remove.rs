//! Removal of trees, whatever modes their folders have, by several threads: over a network, or where a
//! disk is told of every block that is freed, a file's end is mostly waiting.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{At, Error};

/// How many threads remove a tree that has more folders than one thread removes first.
const THREADS: usize = 8;
const ALONE: usize = 64;

/// Removes a file or a tree; it is no error when there is none. Folders that deny everything are
/// opened first, as overlay's work folder. What is mounted inside is left alone, with an error whose
/// [`Error::io`] is `EXDEV`.
pub fn remove_tree(path: &Path) -> Result<(), Error> {
    let stat = unless_gone(rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW));
    let Some(stat) = stat.at("look at", path)? else { return Ok(()) };
    let name = CString::new(path.as_os_str().as_encoded_bytes())
        .map_err(|_| Error::new("remove", path, Errno::INVAL))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return unlink(CWD, &name, AtFlags::empty()).at("remove", path);
    }
    let removal = Removal {
        device: stat.st_dev,
        state: Mutex::new(State { jobs: vec![Job { name, above: None }], ..State::default() }),
        changed: Condvar::new(),
    };
    removal.work(ALONE);
    if !removal.is_over() {
        std::thread::scope(|scope| {
            for _ in 1..THREADS {
                // Where there can't be another, those who are there do it.
                std::thread::Builder::new().spawn_scoped(scope, || removal.work(usize::MAX)).ok();
            }
            removal.work(usize::MAX);
        });
    }
    removal.state.into_inner().unwrap_or_else(PoisonError::into_inner).failed.map_or(Ok(()), Err)
}

/// A folder being emptied.
struct Folder {
    fd: OwnedFd,
    /// Its name in the folder above.
    name: CString,
    path: PathBuf,
    above: Option<Arc<Folder>>,
    /// How many folders are left in it.
    left: AtomicUsize,
}

impl Folder {
    fn as_fd(folder: Option<&Arc<Folder>>) -> BorrowedFd<'_> {
        folder.map_or(CWD, |folder| folder.fd.as_fd())
    }
}

/// A folder that is to be emptied.
struct Job {
    name: CString,
    above: Option<Arc<Folder>>,
}

impl Job {
    fn path(&self) -> PathBuf {
        let name = OsStr::from_bytes(self.name.as_bytes());
        self.above.as_ref().map_or_else(|| PathBuf::from(name), |above| above.path.join(name))
    }
}

#[derive(Default)]
struct State {
    /// The last comes first, so that few folders are open at once.
    jobs: Vec<Job>,
    busy: usize,
    failed: Option<Error>,
}

struct Removal {
    device: u64,
    state: Mutex<State>,
    changed: Condvar,
}

impl Removal {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        let state = self.state();
        state.failed.is_some() || state.jobs.is_empty()
    }

    /// Empties folders, up to a number of them, as long as there are any.
    fn work(&self, most: usize) {
        for _ in 0..most {
            let Some(job) = self.next() else { return };
            let result = self.empty(job);
            let mut state = self.state();
            state.busy -= 1;
            match result {
                Ok(jobs) => state.jobs.extend(jobs),
                // The first failure is the cause.
                Err(error) => {
                    state.failed.get_or_insert(error);
                }
            }
            drop(state);
            self.changed.notify_all();
        }
    }

    /// Waits for a folder; `None` when there will be none any more.
    fn next(&self) -> Option<Job> {
        let mut state = self.state();
        loop {
            if state.failed.is_some() {
                return None;
            }
            if let Some(job) = state.jobs.pop() {
                state.busy += 1;
                return Some(job);
            }
            if state.busy == 0 {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Removes what is no folder in a folder, and returns what is; with nothing left the folder goes,
    /// and those above that it was the last of.
    fn empty(&self, job: Job) -> Result<Vec<Job>, Error> {
        let path = job.path();
        let Job { name, above } = job;
        match self.enter(Folder::as_fd(above.as_ref()), &name, &path)? {
            Some((fd, folders)) if !folders.is_empty() => {
                let left = AtomicUsize::new(folders.len());
                let folder = Arc::new(Folder { fd, name, path, above, left });
                let job = |name| Job { name, above: Some(Arc::clone(&folder)) };
                Ok(folders.into_iter().map(job).collect())
            }
            _ => leave(name, above, path).map(|()| Vec::new()),
        }
    }

    /// Opens a folder, removes what is no folder in it, and returns what is; `None` where it is gone.
    fn enter(
        &self,
        above: BorrowedFd<'_>,
        name: &CString,
        path: &Path,
    ) -> Result<Option<(OwnedFd, Vec<CString>)>, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || rustix::fs::openat(above, name, flags, Mode::empty());
        let opened = open().or_else(|errno| match errno {
            Errno::ACCESS | Errno::PERM => {
                rustix::fs::chmodat(above, name, Mode::RWXU, AtFlags::empty())?;
                open()
            }
            other => Err(other),
        });
        let Some(fd) = unless_gone(opened).at("open", path)? else { return Ok(None) };
        let stat = rustix::fs::fstat(&fd).at("look at", path)?;
        if stat.st_dev != self.device {
            return Err(Error::new("remove", path, Errno::XDEV));
        }
        let Some(names) = unless_gone(names(&fd)).at("list", path)? else { return Ok(None) };
        let mut folders = Vec::new();
        let mut writable = stat.st_mode & 0o700 == 0o700;
        for (name, kind) in names {
            if !writable {
                // Needed by whoever is not root in a namespace.
                rustix::fs::fchmod(&fd, Mode::RWXU).at("set the mode of", path)?;
                writable = true;
            }
            match kind {
                FileType::Directory => folders.push(name),
                _ => match unlink(fd.as_fd(), &name, AtFlags::empty()) {
                    Ok(()) => {}
                    Err(Errno::ISDIR) => folders.push(name),
                    Err(errno) => {
                        let file = path.join(OsStr::from_bytes(name.as_bytes()));
                        return Err(Error::new("remove", file, errno));
                    }
                },
            }
        }
        Ok(Some((fd, folders)))
    }
}

/// Removes an empty folder, and those above that it was the last of.
fn leave(
    mut name: CString,
    mut above: Option<Arc<Folder>>,
    mut path: PathBuf,
) -> Result<(), Error> {
    loop {
        unlink(Folder::as_fd(above.as_ref()), &name, AtFlags::REMOVEDIR).at("remove", &path)?;
        let last = |folder: &Arc<Folder>| folder.left.fetch_sub(1, Ordering::AcqRel) == 1;
        let Some(folder) = above.take().filter(last) else { return Ok(()) };
        name.clone_from(&folder.name);
        path.clone_from(&folder.path);
        above.clone_from(&folder.above);
    }
}

/// Lists a folder.
fn names(fd: &OwnedFd) -> rustix::io::Result<Vec<(CString, FileType)>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(fd)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            names.push((name.to_owned(), entry.file_type()));
        }
    }
    Ok(names)
}

/// What is gone is `None` and no failure: others may sweep the same tree.
fn unless_gone<T>(result: rustix::io::Result<T>) -> rustix::io::Result<Option<T>> {
    match result {
        Err(Errno::NOENT) => Ok(None),
        other => other.map(Some),
    }
}

/// Removes a name, unless it is gone.
fn unlink(above: BorrowedFd<'_>, name: &CStr, flags: AtFlags) -> rustix::io::Result<()> {
    unless_gone(rustix::fs::unlinkat(above, name, flags)).map(|_| ())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::super::list;
    use super::*;

    #[test]
    fn a_tree_goes_whatever_its_modes_and_what_it_links_to_stays() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        let kept = dir.path().join("kept");
        fs::create_dir_all(tree.join("a/b/c")).unwrap();
        fs::create_dir(&kept).unwrap();
        fs::write(kept.join("file"), "").unwrap();
        fs::write(tree.join("a/b/file"), "").unwrap();
        std::os::unix::fs::symlink(&kept, tree.join("link")).unwrap();
        for closed in ["a/b/c", "a/b", "a"] {
            fs::set_permissions(tree.join(closed), fs::Permissions::from_mode(0o000)).unwrap();
        }
        remove_tree(&tree).unwrap();
        remove_tree(&tree).unwrap();
        assert_eq!(list(dir.path()).unwrap(), ["kept"]);
        assert!(kept.join("file").exists());
    }

    #[test]
    fn a_very_deep_tree_goes_too() {
        let dir = tempfile::tempdir().unwrap();
        let mut path = dir.path().join("deep");
        for _ in 0..600 {
            path.push("d");
        }
        fs::create_dir_all(&path).unwrap();
        remove_tree(&dir.path().join("deep")).unwrap();
        assert!(list(dir.path()).unwrap().is_empty());
    }

    #[test]
    fn a_wide_tree_goes_by_several_threads() {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..3000 {
            let folder = dir.path().join(format!("wide/{}/{}/{number}", number % 7, number % 50));
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("file"), "").unwrap();
        }
        // Two who sweep the same don't mind each other.
        std::thread::scope(|scope| {
            let other = scope.spawn(|| remove_tree(&dir.path().join("wide")));
            remove_tree(&dir.path().join("wide")).unwrap();
            other.join().unwrap().unwrap();
        });
        assert!(list(dir.path()).unwrap().is_empty());
    }
}
