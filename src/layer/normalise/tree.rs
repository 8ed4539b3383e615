//! The merged tree as the rules touch it: never through a symbolic link, and in place, so that
//! owner, mode, capability and hard links of a file stay.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, UTIME_OMIT,
    XattrFlags,
};
use rustix::io::Errno;

use crate::disk::{self, At};
use crate::layer::Error;

const CAPABILITY: &str = "security.capability";

/// An open tree.
#[derive(Debug)]
pub(super) struct Tree {
    root: OwnedFd,
    path: PathBuf,
}

/// A name in a folder of the tree.
#[derive(Debug)]
pub(super) struct Place<'p> {
    folder: OwnedFd,
    name: &'p OsStr,
    /// For messages.
    path: PathBuf,
}

impl Tree {
    pub(super) fn open(path: &Path) -> Result<Tree, Error> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, path, flags, Mode::empty()).at("open", path)?;
        Ok(Tree { root, path: path.to_owned() })
    }

    /// Finds the place of a path; `None` where the way there is gone or leads through a symbolic
    /// link, which no list of changes has.
    pub(super) fn place<'p>(&self, path: &'p [u8]) -> Result<Option<Place<'p>>, Error> {
        let (folder, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&b"."[..], path),
        };
        if matches!(name, b"" | b"." | b"..") {
            return Ok(None);
        }
        let full = || self.path.join(OsStr::from_bytes(path));
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        match crate::disk::open_below(&self.root, folder, flags, resolve) {
            Ok(folder) => Ok(Some(Place { folder, name: OsStr::from_bytes(name), path: full() })),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => Ok(None),
            Err(error) => Err(disk::Error::new("find", full(), error).into()),
        }
    }

    /// Lists a folder's names; none where there is no folder.
    pub(super) fn list(&self, path: &[u8]) -> Result<Vec<OsString>, Error> {
        match self.place(path)?.map(|place| place.stat()).transpose()?.flatten() {
            Some(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                Ok(disk::list(&self.path.join(OsStr::from_bytes(path)))?)
            }
            _ => Ok(Vec::new()),
        }
    }
}

impl Place<'_> {
    /// Returns what is there, which may be a symbolic link; `None` for nothing.
    pub(super) fn stat(&self) -> Result<Option<Stat>, Error> {
        match rustix::fs::statat(&self.folder, self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            // A rule has removed it.
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(disk::Error::new("look at", &self.path, error).into()),
        }
    }

    /// Returns the metadata of a file; `None` for anything else.
    pub(super) fn file(&self) -> Result<Option<Stat>, Error> {
        let is_file = |stat: &Stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        Ok(self.stat()?.filter(is_file))
    }

    pub(super) fn read(&self) -> Result<Vec<u8>, Error> {
        let mut content = Vec::new();
        self.open(OFlags::RDONLY)?.read_to_end(&mut content).at("read", &self.path)?;
        Ok(content)
    }

    /// Removes a file. The folder keeps its time, as if the file had never been there.
    pub(super) fn remove(&self) -> Result<(), Error> {
        let before = rustix::fs::fstat(&self.folder).at("look at the folder of", &self.path)?;
        rustix::fs::unlinkat(&self.folder, self.name, AtFlags::empty()).at("remove", &self.path)?;
        rustix::fs::utimensat(&self.folder, ".", &modified(&before), AtFlags::empty())
            .at("set the time of the folder of", &self.path)?;
        Ok(())
    }

    /// Replaces a file's content and keeps its time, which is another rule's matter.
    pub(super) fn replace(&self, content: &[u8]) -> Result<(), Error> {
        let mut file = self.open(OFlags::RDWR)?;
        let before = rustix::fs::fstat(&file).at("look at", &self.path)?;
        let mut value = [0; 64];
        let capability = match rustix::fs::fgetxattr(&file, CAPABILITY, &mut value) {
            Ok(length) => Some(&value[..length]),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => None,
            Err(error) => {
                return Err(disk::Error::new("read the capabilities of", &self.path, error).into());
            }
        };
        file.set_len(0).at("truncate", &self.path)?;
        file.write_all(content).at("write", &self.path)?;
        // The kernel takes both from a file that is written to.
        if let Some(capability) = capability {
            rustix::fs::fsetxattr(&file, CAPABILITY, capability, XattrFlags::empty())
                .at("keep the capabilities of", &self.path)?;
        }
        if rustix::fs::fstat(&file).at("look at", &self.path)?.st_mode != before.st_mode {
            rustix::fs::fchmod(&file, Mode::from_raw_mode(before.st_mode))
                .at("keep the mode of", &self.path)?;
        }
        Ok(rustix::fs::futimens(&file, &modified(&before)).at("set the time of", &self.path)?)
    }

    /// Sets the modification time, to a whole second, of whatever is there.
    pub(super) fn set_time(&self, seconds: i64) -> Result<(), Error> {
        rustix::fs::utimensat(
            &self.folder,
            self.name,
            &timestamps(seconds, 0),
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .at("set the time of", &self.path)?;
        Ok(())
    }

    fn open(&self, flags: OFlags) -> Result<File, Error> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.folder, self.name, flags, Mode::empty())
            .at("open", &self.path)?;
        Ok(file.into())
    }
}

fn modified(stat: &Stat) -> Timestamps {
    timestamps(stat.st_mtime, i64::try_from(stat.st_mtime_nsec).unwrap_or(0))
}

fn timestamps(seconds: i64, nanoseconds: i64) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: nanoseconds },
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    #[test]
    fn a_rewritten_file_keeps_what_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tool");
        fs::write(&path, "long content").unwrap();
        fs::hard_link(&path, dir.path().join("link")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o6555)).unwrap();
        let mut v2 = [0; 20];
        (v2[0], v2[3], v2[5]) = (1, 2, 0x20);
        // A tree of an ordinary user without a namespace can't hold it.
        let capable = rustix::fs::setxattr(&path, CAPABILITY, &v2, XattrFlags::empty()).is_ok();
        let tree = Tree::open(dir.path()).unwrap();
        let place = tree.place(b"tool").unwrap().unwrap();
        if !capable {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o6755)).unwrap();
        }
        let before = fs::metadata(&path).unwrap();
        place.replace(b"short").unwrap();
        let after = fs::metadata(&path).unwrap();
        assert_eq!(fs::read(dir.path().join("link")).unwrap(), b"short");
        assert_eq!((after.mode(), after.ino()), (before.mode(), before.ino()));
        assert_eq!((after.mtime(), after.mtime_nsec()), (before.mtime(), before.mtime_nsec()));
        if capable {
            let mut value = [0; 64];
            let length = rustix::fs::getxattr(&path, CAPABILITY, &mut value).unwrap();
            assert_eq!(value[..length], v2);
        }
    }

    #[test]
    fn no_way_leads_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("tree/etc")).unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        fs::write(dir.path().join("outside/machine-id"), "theirs").unwrap();
        for (target, name) in [("../outside", "tree/away"), ("etc", "tree/near")] {
            std::os::unix::fs::symlink(target, dir.path().join(name)).unwrap();
        }
        let tree = Tree::open(&dir.path().join("tree")).unwrap();
        for path in ["away/machine-id", "near/x", "../outside/machine-id", "etc/..", "no/x", ""] {
            assert!(tree.place(path.as_bytes()).unwrap().is_none(), "{path}");
        }
        let link = tree.place(b"away").unwrap().unwrap();
        assert!(link.file().unwrap().is_none() && link.read().is_err());
        link.set_time(7).unwrap();
        assert_eq!(fs::symlink_metadata(dir.path().join("tree/away")).unwrap().mtime(), 7);
        assert_ne!(fs::metadata(dir.path().join("outside")).unwrap().mtime(), 7);
    }
}
