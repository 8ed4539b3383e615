//! Removal of trees, whatever modes their folders have.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::disk::{self, At};
use crate::rootfs::Error;

/// Removes a file or a tree; it is no error when there is none. Folders that deny everything are
/// opened first, as overlay's work folder. What is mounted inside is left alone, with an error.
pub fn remove_tree(path: &Path) -> Result<(), Error> {
    let stat = match rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(disk::Error::new("look at", path, errno).into()),
    };
    let name = CString::new(path.as_os_str().as_encoded_bytes())
        .map_err(|_| disk::Error::new("remove", path, Errno::INVAL))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        rustix::fs::unlinkat(CWD, &name, AtFlags::empty()).at("remove", path)?;
        return Ok(());
    }
    remove_folder(CWD, &name, path, stat.st_dev)
}

/// A folder being emptied.
struct Level {
    fd: OwnedFd,
    /// What is left to do in it.
    folders: Vec<CString>,
    /// Its name in the folder above.
    name: CString,
}

/// Removes a folder with a stack of its own, since a tree may be deeper than the thread's.
fn remove_folder(
    above: BorrowedFd<'_>,
    name: &CString,
    path: &Path,
    device: u64,
) -> Result<(), Error> {
    let mut at: PathBuf = path.to_owned();
    let mut levels = vec![enter(above, name, &at, device)?];
    while let Some(level) = levels.last_mut() {
        if let Some(name) = level.folders.pop() {
            at.push(OsStr::from_bytes(name.as_bytes()));
            let next = enter(level.fd.as_fd(), &name, &at, device)?;
            levels.push(next);
            continue;
        }
        let Some(done) = levels.pop() else { break };
        let above = levels.last().map_or(above, |level| level.fd.as_fd());
        rustix::fs::unlinkat(above, &done.name, AtFlags::REMOVEDIR).at("remove", &at)?;
        at.pop();
    }
    Ok(())
}

/// Opens a folder, removes what is no folder in it, and returns what is.
fn enter(above: BorrowedFd<'_>, name: &CString, path: &Path, device: u64) -> Result<Level, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = || rustix::fs::openat(above, name, flags, Mode::empty());
    let fd = open()
        .or_else(|errno| match errno {
            Errno::ACCESS | Errno::PERM => {
                rustix::fs::chmodat(above, name, Mode::RWXU, AtFlags::empty())?;
                open()
            }
            other => Err(other),
        })
        .at("open", path)?;
    let stat = rustix::fs::fstat(&fd).at("look at", path)?;
    if stat.st_dev != device {
        return Err(Error::MountedBelow { path: path.to_owned() });
    }
    let mut names = Vec::new();
    for entry in Dir::read_from(&fd).at("list", path)? {
        let entry = entry.at("list", path)?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            names.push((name.to_owned(), entry.file_type()));
        }
    }
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
            _ => match rustix::fs::unlinkat(&fd, &name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::ISDIR) => folders.push(name),
                Err(errno) => {
                    let file = path.join(OsStr::from_bytes(name.as_bytes()));
                    return Err(disk::Error::new("remove", file, errno).into());
                }
            },
        }
    }
    Ok(Level { fd, folders, name: name.clone() })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

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
        assert_eq!(disk::list(dir.path()).unwrap(), ["kept"]);
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
        assert!(disk::list(dir.path()).unwrap().is_empty());
    }
}
