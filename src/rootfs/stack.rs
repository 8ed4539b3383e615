//! What the folders of a stack of layers are, told without mounting it.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid,
};
use rustix::io::Errno;

use crate::disk::{self, At};
use crate::rootfs::{EntryPath, Error, Lower, Sidecar};

/// The metadata of a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Folder {
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: (i64, i64),
}

impl Folder {
    /// What a folder is that nobody ever said anything of.
    pub(super) const DEFAULT: Folder = Folder { mode: 0o755, uid: 0, gid: 0, mtime: (0, 0) };

    pub(super) const fn with_mode(self, mode: u32) -> Folder {
        Folder { mode, ..self }
    }

    /// Gives a folder this metadata. What is put into it later changes its time again.
    pub(super) fn apply(&self, dir: &Path) -> Result<(), Error> {
        let owner = (Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)));
        rustix::fs::chownat(CWD, dir, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)
            .at("give an owner to", dir)?;
        rustix::fs::chmodat(CWD, dir, Mode::from_raw_mode(self.mode), AtFlags::empty())
            .at("set the mode of", dir)?;
        let time = Timespec { tv_sec: self.mtime.0, tv_nsec: self.mtime.1 };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, dir, &times, AtFlags::SYMLINK_NOFOLLOW)
            .at("set the time of", dir)?;
        Ok(())
    }

    pub(super) fn from_stat(stat: &rustix::fs::Stat) -> Folder {
        Folder {
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: (stat.st_mtime, i64::try_from(stat.st_mtime_nsec).unwrap_or(0)),
        }
    }
}

/// Makes a folder below `root` and those above it, as far as they don't exist; `metadata` tells
/// what each of them is to be. The caller gives them that metadata when all of them are filled.
pub(super) fn make_folders(
    root: &Path,
    path: &EntryPath,
    made: &mut std::collections::BTreeMap<EntryPath, Folder>,
    metadata: &mut dyn FnMut(&EntryPath) -> Result<Folder, Error>,
) -> Result<(), Error> {
    for prefix in path.prefixes() {
        if made.contains_key(&prefix) {
            continue;
        }
        let dir = root.join(prefix.as_path());
        std::fs::create_dir(&dir).at("create the folder", &dir)?;
        let folder = metadata(&prefix)?;
        made.insert(prefix, folder);
    }
    Ok(())
}

/// What a path is in one tree.
pub(super) enum Seen {
    Nothing,
    Folder(Folder),
    /// Something else, which hides a folder of the same path below; or such a thing lies on the way.
    Other,
}

/// Looks at a path in a tree, never through a symlink.
pub(super) fn look(tree: &Path, path: &[u8]) -> Result<Seen, Error> {
    Ok(match see(tree, path)? {
        Sight::Nothing => Seen::Nothing,
        Sight::Blocked => Seen::Other,
        Sight::Entry(stat) => match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Seen::Folder(Folder::from_stat(&stat)),
            _ => Seen::Other,
        },
    })
}

/// What one tree has at a path, of whatever type.
pub(super) enum Sight {
    Nothing,
    Entry(rustix::fs::Stat),
    /// Something on the way is no folder, or the entry is an overlay's whiteout: whatever lies below
    /// is hidden.
    Blocked,
}

/// Looks at an entry in a tree, never through a symlink.
pub(super) fn see(tree: &Path, path: &[u8]) -> Result<Sight, Error> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root =
        rustix::fs::openat(CWD, tree, flags | OFlags::DIRECTORY, Mode::empty()).at("open", tree)?;
    let relative = if path.is_empty() { &b"."[..] } else { path };
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
    let found = match crate::disk::open_below(&root, relative, flags, resolve) {
        Ok(found) => found,
        Err(Errno::NOENT) => return Ok(Sight::Nothing),
        Err(Errno::NOTDIR | Errno::LOOP) => return Ok(Sight::Blocked),
        Err(errno) => {
            let path = tree.join(std::ffi::OsStr::from_bytes(path));
            return Err(disk::Error::new("open", path, errno).into());
        }
    };
    let stat = rustix::fs::fstat(&found).at("look at", tree)?;
    let whiteout =
        FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0;
    Ok(if whiteout { Sight::Blocked } else { Sight::Entry(stat) })
}

/// Layers from the bottom up.
#[derive(Clone, Copy)]
pub(super) struct Stack<'l> {
    lowers: &'l [Lower],
}

impl<'l> Stack<'l> {
    pub(super) fn new(lowers: &'l [Lower]) -> Stack<'l> {
        Stack { lowers }
    }

    /// Returns the layers below the one at `at`.
    pub(super) fn below(&self, at: usize) -> Stack<'l> {
        Stack { lowers: &self.lowers[..at] }
    }

    /// Returns what the stack has as the folder `path`: the metadata of the topmost layer that says
    /// any. `None` when it has no such folder.
    pub(super) fn effective(&self, path: &[u8]) -> Result<Option<Folder>, Error> {
        let mut implied = None;
        for lower in self.lowers.iter().rev() {
            match look(&lower.tree, path)? {
                Seen::Other => return Ok(implied),
                Seen::Folder(folder) => {
                    let implies = lower
                        .sidecar
                        .as_ref()
                        .is_some_and(|sidecar| sidecar.implied.contains(path));
                    if !implies {
                        return Ok(Some(folder));
                    }
                    implied = implied.or(Some(folder));
                }
                Seen::Nothing => {}
            }
            if hides(lower, path)? {
                return Ok(implied);
            }
        }
        Ok(implied)
    }
}

/// Tells whether a layer hides what the layers below it have at `path`.
pub(super) fn hides(lower: &Lower, path: &[u8]) -> Result<bool, Error> {
    let path = EntryPath::from(path);
    if let Some(Sidecar { whiteouts, opaque, .. }) = &lower.sidecar {
        let hidden = |path: &EntryPath| whiteouts.contains(path) || opaque.contains(path);
        return Ok(opaque.contains(&b""[..]) || path.prefixes().any(|prefix| hidden(&prefix)));
    }
    for prefix in path.prefixes() {
        match look(&lower.tree, prefix.as_bytes())? {
            Seen::Nothing => return Ok(false),
            // A whiteout, among others.
            Seen::Other => return Ok(true),
            Seen::Folder(_) if is_opaque(&lower.tree.join(prefix.as_path()))? => return Ok(true),
            Seen::Folder(_) => {}
        }
    }
    Ok(false)
}

/// Tells whether a folder of an overlay's upper folder is marked as opaque.
pub(super) fn is_opaque(dir: &Path) -> Result<bool, Error> {
    let mut value = [0; 8];
    match rustix::fs::lgetxattr(dir, "user.overlay.opaque", &mut value) {
        Ok(length) => Ok(&value[..length] == b"y"),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
        Err(errno) => Err(disk::Error::new("read an attribute of", dir, errno).into()),
    }
}
