//! Whether two entries would be the same entry of a layer: metadata first, bytes only where the
//! metadata agree.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::Error;
use crate::disk::{self, At};
use crate::rootfs::{EntryPath, Record, Truth};

/// The extended attribute of file capabilities, the only one that reaches a layer.
const CAPABILITY: &str = "security.capability";

/// Tells whether two paths agree in type, mode, owner, content, link target, capability and
/// modification time in whole seconds. Folders are compared without what they hold.
pub fn same_entry(one: &Path, other: &Path) -> Result<bool, Error> {
    let first = Facts::new(rustix::fs::lstat(one).at("examine", one)?, one, None);
    let second = Facts::new(rustix::fs::lstat(other).at("examine", other)?, other, None);
    Ok(same_metadata(&first, &second)?
        && (kind(&first.stat) != FileType::RegularFile || same_content(one, other)?))
}

/// An entry with what is remembered of it.
struct Facts<'p> {
    stat: Stat,
    path: &'p Path,
    record: Record,
}

impl<'p> Facts<'p> {
    fn new(stat: Stat, path: &'p Path, record: Option<Record>) -> Facts<'p> {
        Facts { stat, path, record: record.unwrap_or_default() }
    }

    fn owner(&self) -> (u32, u32) {
        let Record { uid, gid, .. } = &self.record;
        (uid.unwrap_or(self.stat.st_uid), gid.unwrap_or(self.stat.st_gid))
    }

    /// Returns the `security.capability`, as everybody in this namespace reads it.
    fn capability(&self) -> Result<Option<Vec<u8>>, disk::Error> {
        match &self.record.capability {
            Some(capability) => Ok((!capability.is_empty()).then(|| capability.clone())),
            None => attribute(self.path, CAPABILITY),
        }
    }
}

/// Returns the type of an entry.
pub(super) fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Tells whether a stat is an overlay's whiteout.
pub(super) fn is_whiteout(stat: &Stat) -> bool {
    kind(stat) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Compares an entry of the tree with the parent's at the same `path`, all but the bytes of files.
/// What `truth` remembers of either counts in place of what the trees say.
pub(super) fn same_as_before(
    path: &[u8],
    (stat, here): (&Stat, &Path),
    (old, there): (&Stat, &Path),
    truth: &dyn Truth,
) -> Result<bool, Error> {
    let (mut now, mut before) = (None, None);
    if !truth.is_empty() {
        let path = EntryPath::from(path);
        let ask = "ask for the owner of";
        now = truth.now(&path).at(ask, here)?;
        before = truth.before(&path).at(ask, there)?;
    }
    same_metadata(&Facts::new(*stat, here, now), &Facts::new(*old, there, before))
}

/// Compares all but the bytes of files.
fn same_metadata(one: &Facts<'_>, other: &Facts<'_>) -> Result<bool, Error> {
    let (first, second) = (&one.stat, &other.stat);
    // The mode has the type in it.
    if first.st_mode != second.st_mode
        || one.owner() != other.owner()
        || one.record.device != other.record.device
        || first.st_mtime != second.st_mtime
    {
        return Ok(false);
    }
    match kind(first) {
        FileType::RegularFile => {
            Ok(first.st_size == second.st_size && one.capability()? == other.capability()?)
        }
        FileType::Symlink => {
            let target = |path| rustix::fs::readlink(path, Vec::new()).at("read the link", path);
            Ok(target(one.path)? == target(other.path)?)
        }
        FileType::CharacterDevice | FileType::BlockDevice => Ok(first.st_rdev == second.st_rdev),
        _ => Ok(true),
    }
}

/// Reads an extended attribute of the entry itself; `None` where it or the support for it is absent.
pub(super) fn attribute(path: &Path, name: &str) -> Result<Option<Vec<u8>>, disk::Error> {
    // Longer than anything looked at here: capabilities have 24 bytes, opaque markers one.
    let mut buffer = [0; 128];
    match rustix::fs::lgetxattr(path, name, &mut buffer) {
        Ok(length) => Ok(Some(buffer[..length].to_vec())),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(disk::Error::new("read the extended attributes of", path, error)),
    }
}

/// Compares two files of the same size byte by byte.
pub(super) fn same_content(one: &Path, other: &Path) -> Result<bool, Error> {
    const STEP: usize = 128 * 1024;
    let mut first = open(one)?;
    let mut second = open(other)?;
    let mut left = vec![0; STEP];
    let mut right = vec![0; STEP];
    loop {
        let got = fill(&mut first, &mut left).at("read", one)?;
        if fill(&mut second, &mut right).at("read", other)? != got || left[..got] != right[..got] {
            return Ok(false);
        }
        if got < STEP {
            return Ok(true);
        }
    }
}

fn open(path: &Path) -> Result<File, Error> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => Ok(File::from(file)),
        Err(Errno::NOENT | Errno::LOOP) => Err(Error::Unsteady { path: path.to_owned() }),
        Err(error) => Err(disk::Error::new("open", path, error).into()),
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match file.read(&mut buffer[got..]) {
            Ok(0) => break,
            Ok(count) => got += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use rustix::fs::{Timespec, Timestamps};

    use super::*;

    fn set_mtime(path: &Path, seconds: i64, nanos: i64) {
        let time = Timespec { tv_sec: seconds, tv_nsec: nanos };
        let times = Timestamps { last_access: time, last_modification: time };
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::utimensat(rustix::fs::CWD, path, &times, flags).unwrap();
    }

    #[test]
    fn entries_differ_by_metadata_content_and_target_but_not_by_parts_of_a_second() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (dir.path().join("one"), dir.path().join("other"));
        fs::write(&one, b"alike").unwrap();
        fs::write(&other, b"alike").unwrap();
        set_mtime(&one, 1000, 5);
        set_mtime(&other, 1000, 999_999_999);
        assert!(same_entry(&one, &other).unwrap());
        set_mtime(&other, 1001, 0);
        assert!(!same_entry(&one, &other).unwrap());
        fs::write(&other, b"alikE").unwrap();
        set_mtime(&other, 1000, 0);
        assert!(!same_entry(&one, &other).unwrap());
        fs::write(&other, b"alike").unwrap();
        set_mtime(&other, 1000, 0);
        fs::set_permissions(&other, fs::Permissions::from_mode(0o4755)).unwrap();
        assert!(!same_entry(&one, &other).unwrap());
        for name in ["l1", "l2", "l3"] {
            let target = if name == "l3" { "elsewhere" } else { "nowhere" };
            std::os::unix::fs::symlink(target, dir.path().join(name)).unwrap();
            set_mtime(&dir.path().join(name), 7, 0);
        }
        assert!(same_entry(&dir.path().join("l1"), &dir.path().join("l2")).unwrap());
        assert!(!same_entry(&dir.path().join("l1"), &dir.path().join("l3")).unwrap());
    }

    #[test]
    fn large_files_are_compared_to_their_end() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (dir.path().join("one"), dir.path().join("other"));
        let mut bytes = vec![7; 300_000];
        fs::write(&one, &bytes).unwrap();
        fs::write(&other, &bytes).unwrap();
        assert!(same_content(&one, &other).unwrap());
        bytes[299_999] = 8;
        fs::write(&other, &bytes).unwrap();
        assert!(!same_content(&one, &other).unwrap());
    }
}
