//! Run folders: a live process's temporary files in `run/N`, whose `lock` it holds. One whose owner
//! is gone is swept when the next run begins. `run.lock` beside `run` keeps makers and sweepers apart.
//! In a folder that others use too, a run folder gets its name once it is locked.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::mount::UnmountFlags;

use super::{Error, Store, error};
use crate::disk::{self, At, Lock};
use crate::report::Report;

/// A folder for temporary files, removed with all in it when dropped.
#[derive(Debug)]
pub struct Run {
    path: PathBuf,
    _lock: Lock,
}

/// The run folders of this process.
static LIVE: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

fn live() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How often what a step still writes to is removed once more, and after which pause.
const TRIES: u32 = 10;
const PAUSE: Duration = Duration::from_millis(20);

/// Removes the run folders of this process with all in them, for one that is about to end by a
/// signal and so drops nothing. What is written meanwhile is swept by the next run.
pub fn abandon_runs() {
    for path in std::mem::take(&mut *live()) {
        detach(&path);
        // A step that is being killed may still write. At last nobody is left to tell.
        for _ in 0..TRIES {
            if remove_run(&path).is_ok() {
                break;
            }
            std::thread::sleep(PAUSE);
        }
    }
}

/// Takes away what is mounted below a folder: whoever mounted it does not get to do so, and its
/// mount points could not be removed.
fn detach(folder: &Path) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(|point| {
        // Of the characters that are written as octal numbers a path here has blanks at most.
        PathBuf::from(point.replace("\\040", " "))
    });
    let below: Vec<PathBuf> = points.filter(|point| point.starts_with(folder)).collect();
    for point in below.iter().rev() {
        rustix::mount::unmount(point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).ok();
    }
}

impl Store {
    /// Begins a run, and first sweeps what dead ones left. What belongs to ids of a user namespace
    /// that this process is not in stays, and is reported.
    pub fn begin_run(&self, report: &dyn Report) -> Result<Run, Error> {
        self.sweep(report)?;
        Run::begin(&self.path("run"))
    }

    /// Removes the run folders of processes that are gone, and returns the bytes freed.
    pub fn sweep(&self, report: &dyn Report) -> Result<u64, Error> {
        let dir = self.path("run");
        let mut freed = 0;
        for dead in bury(&dir)? {
            let bytes = disk::usage(&dead);
            match remove_run(&dead) {
                Ok(()) => freed += bytes,
                Err(error) => report.warning(&format!(
                    "an ended run left files that cannot be removed here ({error}: {}); the next build removes them",
                    error.io()
                )),
            }
        }
        Ok(freed)
    }
}

impl Run {
    /// Makes and locks the first free folder.
    pub(super) fn begin(dir: &Path) -> Result<Run, Error> {
        // Between a folder's making and its locking no sweep may see it.
        let _guard = error::lock(&dir.with_extension("lock"))?;
        for number in 1u32.. {
            let path = dir.join(number.to_string());
            match fs::create_dir(&path) {
                Ok(()) => {
                    let lock = error::lock(&path.join("lock"))?;
                    live().insert(path.clone());
                    return Ok(Run { path, _lock: lock });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(disk::Error::new("create the folder", path, error).into()),
            }
        }
        Err(Error::Busy { path: dir.to_owned() })
    }

    /// Makes and locks a folder in one that is nobody's alone, as `/tmp`.
    pub fn begin_in(dir: &Path) -> Result<Run, Error> {
        disk::make_dirs(dir)?;
        for number in 1u32.. {
            let name = format!("{IN_SCRATCH}{}-{number}", std::process::id());
            let (path, new) = (dir.join(&name), dir.join(format!(".new-{name}")));
            match fs::DirBuilder::new().mode(0o700).create(&new) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                other => other.at("create the folder", &new)?,
            }
            let swept = |error: &Error| matches!(error, Error::Disk(it) if it.is_not_found());
            let lock = match error::lock(&new.join("lock")) {
                Err(error) if swept(&error) => continue,
                other => other?,
            };
            match fs::rename(&new, &path) {
                // Another process took it for a dead one's.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Ok(()) => {
                    live().insert(path.clone());
                    return Ok(Run { path, _lock: lock });
                }
                Err(error) => {
                    disk::remove_tree(&new)?;
                    // Somebody else's of this name, on another machine or to annoy.
                    if !path.exists() {
                        return Err(disk::Error::new("rename", new, error).into());
                    }
                }
            }
        }
        Err(Error::Busy { path: dir.to_owned() })
    }

    /// Removes what dead runs of this user left where [`Run::begin_in`] has made them.
    pub fn sweep_in(dir: &Path, report: &dyn Report) {
        // What can't be listed shows when it is used.
        for name in disk::list(dir).unwrap_or_default() {
            let bytes = name.as_encoded_bytes();
            let rest = bytes.strip_prefix(b".new-").unwrap_or(bytes);
            let rest = rest.strip_prefix(IN_SCRATCH.as_bytes());
            if rest.is_some_and(|rest| rest.iter().all(|byte| b"-0123456789".contains(byte))) {
                sweep_scratch(&dir.join(name), report);
            }
        }
    }

    /// Returns the folder; a file named `lock` in it is taken.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        live().remove(&self.path);
        // What cannot be removed now is for the next sweep.
        remove_run(&self.path).ok();
    }
}

/// Removes a run folder, or what can be removed of it. Its lock goes last: without one a folder that is
/// not empty belongs to nobody, and no sweep would touch it.
fn remove_run(path: &Path) -> Result<(), disk::Error> {
    let names = match disk::list(path) {
        Err(error) if error.is_not_found() => return Ok(()),
        other => other?,
    };
    let mut result = Ok(());
    for name in names.iter().filter(|name| *name != "lock") {
        // One that stays keeps no other.
        result = result.and(disk::remove_tree(&path.join(name)));
    }
    result?;
    disk::remove_tree(path)
}

/// What the names of run folders begin with where others have folders too.
const IN_SCRATCH: &str = "ocibuild-run-";

/// Removes a run folder that is this user's, and whose process is gone.
fn sweep_scratch(path: &Path, report: &dyn Report) {
    let is_own = |path: &Path, kind: fn(&fs::FileType) -> bool| {
        fs::symlink_metadata(path).is_ok_and(|found| {
            kind(&found.file_type()) && found.uid() == rustix::process::geteuid().as_raw()
        })
    };
    let lock = path.join("lock");
    if !is_own(path, fs::FileType::is_dir) {
        return;
    }
    if !lock.exists() {
        // Being made, or all that is left.
        fs::remove_dir(path).ok();
        return;
    }
    if !is_own(&lock, fs::FileType::is_file) {
        return;
    }
    // In use, or being removed.
    let Ok(Some(lock)) = error::try_lock(&lock) else { return };
    if let Err(error) = remove_run(path) {
        report.warning(&format!(
            "an ended run left files that cannot be removed here ({error}: {}); the next build removes them",
            error.io()
        ));
    }
    drop(lock);
}

/// Sets aside the folders of dead runs, and returns them with those set aside before.
fn bury(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let _guard = error::lock(&dir.with_extension("lock"))?;
    let mut dead = Vec::new();
    for name in disk::list(dir)? {
        let path = dir.join(&name);
        if name.as_encoded_bytes().starts_with(b".dead-") {
            dead.push(path);
        } else if path.is_dir() {
            let lock = match error::try_lock(&path.join("lock")) {
                Ok(Some(lock)) => lock,
                Ok(None) => continue,
                // Its owner removes it at this moment, or was killed at that.
                Err(Error::Disk(error)) if error.is_not_found() => {
                    fs::remove_dir(&path).ok();
                    continue;
                }
                Err(error) => return Err(error),
            };
            let aside = free_name(dir, &format!(".dead-{}", name.to_string_lossy()));
            match fs::rename(&path, &aside) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.at("rename", &path)?,
            }
            dead.push(aside);
            drop(lock);
        }
    }
    Ok(dead)
}

/// Returns a name that nothing has yet.
fn free_name(dir: &Path, stem: &str) -> PathBuf {
    let mut name = dir.join(stem);
    let mut number = 1;
    while name.exists() {
        number += 1;
        name = dir.join(format!("{stem}-{number}"));
    }
    name
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::report::Silent;

    #[test]
    fn dead_runs_are_swept_and_live_ones_not() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let live = store.begin_run(&Silent).unwrap();
        fs::write(live.path().join("file"), b"x").unwrap();
        let dead = store.path("run/77");
        fs::create_dir_all(dead.join("tree/sub")).unwrap();
        fs::write(dead.join("tree/sub/file"), b"x").unwrap();
        fs::set_permissions(dead.join("tree/sub"), fs::Permissions::from_mode(0o0)).unwrap();
        let second = store.begin_run(&Silent).unwrap();
        assert!(!dead.exists());
        assert!(live.path().join("file").exists());
        assert_ne!(live.path(), second.path());
        let path = live.path().to_owned();
        drop(live);
        assert!(!path.exists());
    }

    #[test]
    fn in_scratch_dead_runs_are_swept_and_other_things_stay() {
        let dir = tempfile::tempdir().unwrap();
        let live = Run::begin_in(dir.path()).unwrap();
        for name in ["ocibuild-run-77-1", "ocibuild-run-7", "ocibuild-run-notes", "thesis"] {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("file"), b"x").unwrap();
        }
        fs::write(dir.path().join("ocibuild-run-77-1/lock"), b"").unwrap();
        Run::sweep_in(dir.path(), &Silent);
        let second = Run::begin_in(dir.path()).unwrap();
        let (first, last) = (live.path().to_owned(), second.path().to_owned());
        assert_ne!(first, last);
        let names = |paths: &[&Path]| -> Vec<std::ffi::OsString> {
            let mut names: Vec<_> = paths.iter().filter_map(|path| path.file_name()).collect();
            names.sort();
            names.into_iter().map(std::ffi::OsStr::to_owned).collect()
        };
        let others = ["ocibuild-run-7", "ocibuild-run-notes", "thesis"].map(Path::new);
        assert_eq!(
            disk::list(dir.path()).unwrap(),
            names(&[&first, &last, others[0], others[1], others[2]])
        );
        drop((live, second));
        assert_eq!(disk::list(dir.path()).unwrap(), names(&others));
    }

    #[test]
    fn a_folder_with_other_things_is_no_store() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.tex"), b"x").unwrap();
        let error = Store::open(dir.path()).unwrap_err();
        assert!(matches!(error, Error::NotAStore { .. }), "{error}");
        assert_eq!(disk::list(dir.path()).unwrap(), ["thesis.tex"]);
    }
}
