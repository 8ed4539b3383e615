//! The topmost lower folder of a step's tree: files of the step's own and missing mount points.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType};
use rustix::io::Errno;

use crate::disk::{self, At};
use crate::rootfs::stack::{Folder, make_folders};
use crate::rootfs::{EntryPath, Error};

/// How many symlinks a path may go through, as in the kernel.
const MAX_LINKS: usize = 40;

/// What a step's tree has that no layer has. Paths go through the tree's own symlinks, so that
/// `/var/run/lock` means `/run/lock` where the image says so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extras {
    /// Files by path, mode 0644, owned by 0:0; they take the place of what the layers have there,
    /// symlinks included.
    pub files: BTreeMap<EntryPath, Vec<u8>>,
    /// Folders that must exist, as mount points. Those that do are left as they are.
    pub folders: BTreeSet<EntryPath>,
}

/// Makes the layer of extras in the empty folder `dir`, for a tree that looks like `parent`. Tells
/// whether there is anything in it. Its root's metadata is left to the caller.
pub(super) fn fill(dir: &Path, parent: &Path, extras: &Extras) -> Result<bool, Error> {
    let mut made: BTreeMap<EntryPath, Folder> = BTreeMap::new();
    let mut metadata = |path: &EntryPath| match stat(parent, path)? {
        Some(stat) => Ok(Folder::from_stat(&stat)),
        None => Ok(Folder::DEFAULT),
    };
    for path in &extras.folders {
        let folder = resolve(parent, path)?;
        if stat(parent, &folder)?.is_none() {
            make_folders(dir, &folder, &mut made, &mut metadata)?;
        }
    }
    let mut files = false;
    for (path, content) in &extras.files {
        let bytes = path.as_bytes();
        let end = bytes.iter().rposition(|byte| *byte == b'/');
        let (above, name) = match end {
            Some(end) => (&bytes[..end], &bytes[end + 1..]),
            None => (&b""[..], bytes),
        };
        let folder = resolve(parent, &EntryPath::from(above))?;
        make_folders(dir, &folder, &mut made, &mut metadata)?;
        let file = dir.join(folder.join(name).as_path());
        fs::write(&file, content).at("write", &file)?;
        FILE.apply(&file)?;
        files = true;
    }
    for (path, folder) in made.iter().rev() {
        folder.apply(&dir.join(path.as_path()))?;
    }
    Ok(files || !made.is_empty())
}

/// Puts the extras into a plain tree, where folders keep their times; returns the paths of what was
/// made.
pub(super) fn place(tree: &Path, extras: &Extras) -> Result<Vec<EntryPath>, Error> {
    let mut made = Vec::new();
    for path in &extras.folders {
        let folder = resolve(tree, path)?;
        make_missing(tree, &folder, &mut made)?;
    }
    for (path, content) in &extras.files {
        let (above, name) = super::flat::split(path.as_bytes());
        let folder = resolve(tree, &EntryPath::from(above))?;
        make_missing(tree, &folder, &mut made)?;
        let entry = folder.join(name);
        let file = tree.join(entry.as_path());
        super::plain::keep_time(&file, || {
            super::remove_tree(&file)?;
            fs::write(&file, content).at("write", &file)?;
            FILE.apply(&file)
        })?;
        made.push(entry);
    }
    Ok(made)
}

fn make_missing(tree: &Path, path: &EntryPath, made: &mut Vec<EntryPath>) -> Result<(), Error> {
    for prefix in path.prefixes() {
        let dir = tree.join(prefix.as_path());
        if stat(tree, &prefix)?.is_none() {
            super::plain::keep_time(&dir, || {
                fs::create_dir(&dir).at("create the folder", &dir)?;
                Folder::DEFAULT.apply(&dir)
            })?;
            made.push(prefix);
        }
    }
    Ok(())
}

const FILE: Folder = Folder::DEFAULT.with_mode(0o644);

/// Returns the path that a folder's path leads to, through the symlinks of the tree. What of it
/// doesn't exist is taken as it stands.
fn resolve(tree: &Path, path: &EntryPath) -> Result<EntryPath, Error> {
    let mut found: Vec<Vec<u8>> = Vec::new();
    let mut rest: VecDeque<Vec<u8>> = split(path.as_bytes());
    let mut links = 0;
    let not_a_folder = || Error::NotAFolder { path: path.to_string() };
    while let Some(name) = rest.pop_front() {
        if name == b".." {
            found.pop();
            continue;
        }
        found.push(name);
        let here = EntryPath::from(found.join(&b'/'));
        let Some(stat) = stat(tree, &here)? else { continue };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {}
            FileType::Symlink => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(not_a_folder());
                }
                let link = tree.join(here.as_path());
                let target = fs::read_link(&link).at("read the link", &link)?;
                let target = target.as_os_str().as_bytes();
                if target.starts_with(b"/") {
                    found.clear();
                } else {
                    found.pop();
                }
                for name in split(target).into_iter().rev() {
                    rest.push_front(name);
                }
            }
            _ => return Err(not_a_folder()),
        }
    }
    Ok(EntryPath::from(found.join(&b'/')))
}

fn split(path: &[u8]) -> VecDeque<Vec<u8>> {
    let names = path.split(|byte| *byte == b'/');
    names.filter(|name| !name.is_empty() && *name != b".").map(<[u8]>::to_vec).collect()
}

/// Looks at a path whose folders are known to be no symlinks.
fn stat(tree: &Path, path: &EntryPath) -> Result<Option<rustix::fs::Stat>, Error> {
    let path = tree.join(path.as_path());
    match rustix::fs::statat(CWD, &path, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(disk::Error::new("look at", path, errno).into()),
    }
}
