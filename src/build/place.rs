//! Files that the builder itself puts into a tree, for copy and fetch steps. Every path is resolved
//! with the tree as its root (`openat2` with `RESOLVE_IN_ROOT`), so a symbolic link in the image can
//! lead nowhere else.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid};

use crate::disk;
use crate::rootfs::{EntryPath, Record, Truth};

/// What a placed file looks like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attributes {
    /// Permission bits; `None` is 0644, or 0755 for what can be executed, and 0755 for folders.
    pub mode: Option<u32>,
    /// Owner and group.
    pub owner: (u32, u32),
    /// Modification time, in seconds since 1970.
    pub time: i64,
}

/// A path of the image that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write `{path}` in the image")]
pub struct PlaceError {
    path: String,
    #[source]
    source: io::Error,
}

/// Writes files into one tree.
#[derive(Debug)]
pub(super) struct Placer<'t> {
    root: OwnedFd,
    /// Remembers owners where they can't be given.
    truth: Option<&'t dyn Truth>,
}

type Outcome<T> = Result<T, PlaceError>;

fn wrap<T>(path: &Path, result: Result<T, impl Into<io::Error>>) -> Outcome<T> {
    result.map_err(|source| PlaceError { path: path.display().to_string(), source: source.into() })
}

impl<'t> Placer<'t> {
    /// Opens a tree.
    pub(super) fn open(tree: &Path, truth: Option<&'t dyn Truth>) -> Outcome<Placer<'t>> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Placer { root: wrap(tree, rustix::fs::open(tree, flags, Mode::empty()))?, truth })
    }

    /// Copies a file or a folder of the recipe. A `to` that ends in a slash, or that is a folder
    /// already, takes a file under its own name; a folder's content goes into `to` itself.
    pub(super) fn copy(&self, from: &Path, to: &str, attributes: Attributes) -> Outcome<()> {
        let target = PathBuf::from(to);
        if wrap(from, std::fs::symlink_metadata(from))?.is_dir() {
            return self.copy_folder(from, &target, attributes);
        }
        let into = if to.ends_with('/') || self.is_folder(&target) {
            target.join(from.file_name().unwrap_or_default())
        } else {
            target
        };
        self.copy_one(from, &into, attributes)
    }

    fn copy_folder(&self, from: &Path, to: &Path, attributes: Attributes) -> Outcome<()> {
        self.make_folder(to, attributes)?;
        let names = disk::list(from).map_err(|error| io::Error::other(error.to_string()));
        for name in wrap(to, names)? {
            let (source, target) = (from.join(&name), to.join(&name));
            // A mode is meant for the files; a folder without its search bits is of no use.
            if wrap(&source, std::fs::symlink_metadata(&source))?.is_dir() {
                self.copy_folder(&source, &target, attributes)?;
            } else {
                self.copy_one(&source, &target, attributes)?;
            }
        }
        Ok(())
    }

    fn copy_one(&self, from: &Path, to: &Path, attributes: Attributes) -> Outcome<()> {
        let metadata = wrap(to, std::fs::metadata(from))?;
        let executable = metadata.permissions().mode() & 0o111 != 0;
        let mode = attributes.mode.unwrap_or(if executable { 0o755 } else { 0o644 });
        let mut file = wrap(to, File::open(from))?;
        self.write(to, Attributes { mode: Some(mode), ..attributes }, |out| {
            io::copy(&mut file, out).map(|_| ())
        })
    }

    /// Writes a file whose content a function gives. The file appears under its name only when it is
    /// whole, and replaces what was there, also where that is a symbolic link.
    pub(super) fn write(
        &self,
        to: &Path,
        attributes: Attributes,
        content: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> Outcome<()> {
        let (parent, name) = (to.parent().unwrap_or(Path::new("/")), to.file_name());
        let name = wrap(to, name.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput)))?;
        let parent = self.parents(parent, attributes)?;
        let staged = staged_name(name);
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let write = || -> io::Result<()> {
            let fd = rustix::fs::openat(&parent, &staged, flags, Mode::from_raw_mode(0o600))?;
            let mut file = File::from(fd);
            content(&mut file)?;
            file.flush()?;
            self.dress(&file, attributes, attributes.mode.unwrap_or(0o644))?;
            rustix::fs::renameat(&parent, &staged, &parent, name)?;
            self.remember(&parent, name, attributes)
        };
        wrap(
            to,
            write().inspect_err(|_| {
                // The first error is the one worth telling.
                rustix::fs::unlinkat(&parent, &staged, AtFlags::empty()).ok();
            }),
        )
    }

    /// Reads a small file of the tree; `None` where there is none.
    pub(super) fn read(&self, path: &Path, limit: u64) -> Outcome<Option<Vec<u8>>> {
        match self.open_in(path, OFlags::RDONLY) {
            Ok(fd) => {
                let mut bytes = Vec::new();
                wrap(path, File::from(fd).take(limit).read_to_end(&mut bytes))?;
                Ok(Some(bytes))
            }
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(None),
            Err(error) => wrap(path, Err(error)),
        }
    }

    fn open_in(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let relative = path.strip_prefix("/").unwrap_or(path);
        let relative = if relative.as_os_str().is_empty() { Path::new(".") } else { relative };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        crate::disk::open_below(&self.root, relative, flags | OFlags::CLOEXEC, resolve)
    }

    fn is_folder(&self, path: &Path) -> bool {
        self.open_in(path, OFlags::PATH | OFlags::DIRECTORY).is_ok()
    }

    fn make_folder(&self, path: &Path, attributes: Attributes) -> Outcome<()> {
        self.parents(path, attributes).map(|_| ())
    }

    /// Opens a folder, making what is missing on the way; what is there stays as it is.
    fn parents(&self, path: &Path, attributes: Attributes) -> Outcome<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        match self.open_in(path, flags) {
            Ok(fd) => return Ok(fd),
            Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return wrap(path, Err(error)),
        }
        let (above, name) = (path.parent().unwrap_or(Path::new("/")), path.file_name());
        let name = wrap(path, name.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound)))?;
        let above = self.parents(above, attributes)?;
        wrap(path, rustix::fs::mkdirat(&above, name, Mode::from_raw_mode(0o755)))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = wrap(path, rustix::fs::openat(&above, name, flags, Mode::empty()))?;
        wrap(path, self.dress(&made, attributes, 0o755))?;
        wrap(path, self.remember(&above, name, attributes))?;
        Ok(made)
    }

    /// Sets owner, mode and time; the owner first, since a change of it takes set-id bits away.
    fn dress(&self, file: impl AsFd, attributes: Attributes, mode: u32) -> io::Result<()> {
        if self.truth.is_none() {
            let (uid, gid) = attributes.owner;
            rustix::fs::fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        }
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
        let time = Timespec { tv_sec: attributes.time, tv_nsec: 0 };
        rustix::fs::futimens(&file, &Timestamps { last_access: time, last_modification: time })?;
        Ok(())
    }

    /// Has the owner of a new entry remembered where it could not be given.
    fn remember(&self, folder: &OwnedFd, name: &OsStr, attributes: Attributes) -> io::Result<()> {
        let Some(truth) = self.truth else { return Ok(()) };
        // Links on the way have been followed, within the tree.
        let path_of =
            |fd: &OwnedFd| std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
        let (root, folder) = (path_of(&self.root)?, path_of(folder)?);
        let below = folder.strip_prefix(&root).map_err(|_| io::ErrorKind::NotFound)?;
        let path = EntryPath::from(below.join(name).into_os_string().into_encoded_bytes());
        let (uid, gid) = attributes.owner;
        truth.set(&path, &Record { uid: Some(uid), gid: Some(gid), ..Record::default() })
    }
}

fn staged_name(name: &OsStr) -> PathBuf {
    let mut staged = b".ocibuild-".to_vec();
    // A name may have 255 bytes.
    staged.extend(name.as_bytes().iter().take(200));
    PathBuf::from(OsStr::from_bytes(&staged))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, symlink};

    const PLAIN: Attributes = Attributes { mode: None, owner: (0, 0), time: 7 };

    fn own() -> Attributes {
        let me = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        Attributes { owner: me, ..PLAIN }
    }

    #[test]
    fn a_link_in_the_image_leads_nowhere_outside() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        std::fs::create_dir_all(tree.join("usr/lib")).unwrap();
        symlink("/usr/lib", tree.join("lib")).unwrap();
        symlink("../../../../..", tree.join("usr/up")).unwrap();
        symlink("/etc/passwd", tree.join("usr/lib/file")).unwrap();
        let source = dir.path().join("file");
        std::fs::write(&source, "x").unwrap();
        let placer = Placer::open(&tree, None).unwrap();
        placer.copy(&source, "/lib/", own()).unwrap();
        placer.copy(&source, "/usr/up/deep/er/file", own()).unwrap();
        assert_eq!(std::fs::read_to_string(tree.join("usr/lib/file")).unwrap(), "x");
        assert!(!tree.join("usr/lib/file").is_symlink());
        assert_eq!(std::fs::read_to_string(tree.join("deep/er/file")).unwrap(), "x");
    }

    #[test]
    fn a_folder_comes_with_its_content_and_one_time() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, from) = (dir.path().join("tree"), dir.path().join("from"));
        std::fs::create_dir_all(&tree).unwrap();
        std::fs::create_dir_all(from.join("sub")).unwrap();
        std::fs::write(from.join("sub/run.sh"), "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(from.join("sub/run.sh"), PermissionsExt::from_mode(0o700))
            .unwrap();
        Placer::open(&tree, None).unwrap().copy(&from, "/opt/x", own()).unwrap();
        let script = std::fs::metadata(tree.join("opt/x/sub/run.sh")).unwrap();
        assert_eq!((script.mode() & 0o7777, script.mtime()), (0o755, 7));
        assert_eq!(disk::list(&tree.join("opt/x")).unwrap(), ["sub"]);
    }

    #[test]
    fn owners_that_can_not_be_given_are_remembered_where_the_links_lead() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        std::fs::create_dir_all(tree.join("usr/lib")).unwrap();
        symlink("/usr/lib", tree.join("lib")).unwrap();
        let source = dir.path().join("file");
        std::fs::write(&source, "x").unwrap();
        let truth = crate::rootfs::Inherited::default();
        let placer = Placer::open(&tree, Some(&truth)).unwrap();
        let given = Attributes { mode: Some(0o6755), owner: (1000, 100), time: 7 };
        placer.copy(&source, "/lib/new/file", given).unwrap();
        let file = std::fs::metadata(tree.join("usr/lib/new/file")).unwrap();
        assert_eq!((file.mode() & 0o7777, file.mtime()), (0o6755, 7));
        for path in ["usr/lib/new", "usr/lib/new/file"] {
            let record = truth.now(&EntryPath::from(path)).unwrap().unwrap();
            assert_eq!((record.uid, record.gid), (Some(1000), Some(100)), "{path}");
        }
        assert_eq!(truth.now(&EntryPath::from("usr/lib")).unwrap(), None);
    }

    #[test]
    fn what_fails_half_way_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let placer = Placer::open(dir.path(), None).unwrap();
        let failed = placer.write(Path::new("/a"), own(), |_| Err(io::Error::other("cut")));
        assert!(failed.is_err());
        assert!(disk::list(dir.path()).unwrap().is_empty());
    }
}
