//! Copies of single entries: by reflink where the file system can, else by copying what is no hole;
//! with owner, mode, times to the nanosecond and file capabilities.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, SeekFrom, Stat, Timespec, Timestamps, Uid,
    XattrFlags,
};
use rustix::io::Errno;

use crate::disk::{self, At};

const CAPABILITY: &str = "security.capability";

/// Copies entries; finds out once whether reflinks work.
#[derive(Debug)]
pub(super) struct Copier {
    reflink: AtomicBool,
    /// Who owns what this process creates.
    own: (u32, u32),
}

impl Copier {
    pub(super) fn new() -> Copier {
        let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Copier { reflink: AtomicBool::new(true), own }
    }

    /// Copies anything but a folder to where nothing is. The folder there must hand on no group.
    pub(super) fn copy(&self, from: &Path, stat: &Stat, to: &Path) -> Result<(), disk::Error> {
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => return self.file(from, stat, to),
            FileType::Symlink => {
                let target = rustix::fs::readlink(from, Vec::new()).at("read the link", from)?;
                rustix::fs::symlink(&target, to).at("create the link", to)?;
            }
            kind => {
                // Device nodes there are only where the kernel allows this process to make them.
                let mode = Mode::from_raw_mode(0o600);
                rustix::fs::mknodat(CWD, to, kind, mode, stat.st_rdev).at("create", to)?;
            }
        }
        self.give(to, stat)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            rustix::fs::chmodat(CWD, to, Mode::from_raw_mode(stat.st_mode), AtFlags::empty())
                .at("set the mode of", to)?;
        }
        rustix::fs::utimensat(CWD, to, &times_of(stat), AtFlags::SYMLINK_NOFOLLOW)
            .at("set the time of", to)
    }

    fn file(&self, from: &Path, stat: &Stat, to: &Path) -> Result<(), disk::Error> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let source = File::from(rustix::fs::open(from, flags, Mode::empty()).at("open", from)?);
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::open(to, flags, Mode::from_raw_mode(0o600)).at("create", to)?;
        let file = File::from(file);
        if stat.st_size > 0 {
            self.content(&source, stat, &file).at("copy to", to)?;
        }
        self.give(to, stat)?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(stat.st_mode)).at("set the mode of", to)?;
        // Asking costs little beside opening; the sidecar may have more of them than the tree.
        let mut value = [0; 64];
        match rustix::fs::fgetxattr(&source, CAPABILITY, &mut value) {
            Ok(length) => {
                rustix::fs::fsetxattr(&file, CAPABILITY, &value[..length], XattrFlags::empty())
                    .at("set the capabilities of", to)?;
            }
            Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(disk::Error::new("read the capabilities of", from, errno)),
        }
        rustix::fs::futimens(&file, &times_of(stat)).at("set the time of", to)
    }

    /// Gives an entry its owner, before its mode, which a new owner changes.
    fn give(&self, to: &Path, stat: &Stat) -> Result<(), disk::Error> {
        if (stat.st_uid, stat.st_gid) == self.own {
            return Ok(());
        }
        let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        rustix::fs::chownat(CWD, to, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .at("give an owner to", to)
    }

    fn content(&self, from: &File, stat: &Stat, to: &File) -> io::Result<()> {
        if self.reflink.load(Ordering::Relaxed) {
            match rustix::fs::ioctl_ficlone(to, from) {
                Ok(()) => return Ok(()),
                // Between these file systems never; other files may be cloned where one can't.
                Err(Errno::XDEV | Errno::OPNOTSUPP | Errno::NOTTY | Errno::NOSYS) => {
                    self.reflink.store(false, Ordering::Relaxed);
                }
                Err(_) => {}
            }
        }
        let (mut from, mut to) = (from, to);
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let is_sparse = u64::try_from(stat.st_blocks).is_ok_and(|blocks| blocks * 512 < size);
        if !is_sparse {
            return io::copy(&mut from, &mut to).map(|_| ());
        }
        let mut at = 0;
        while at < size {
            let start = match rustix::fs::seek(from, SeekFrom::Data(at)) {
                Ok(start) => start,
                Err(Errno::NXIO) => break,
                Err(errno) => return Err(errno.into()),
            };
            let end = rustix::fs::seek(from, SeekFrom::Hole(start))?;
            rustix::fs::seek(from, SeekFrom::Start(start))?;
            rustix::fs::seek(to, SeekFrom::Start(start))?;
            io::copy(&mut io::Read::take(&mut from, end - start), &mut to)?;
            at = end.max(at + 1);
        }
        to.set_len(size)
    }
}

/// The times of a copy: its time of modification for both.
pub(super) fn times_of(stat: &Stat) -> Timestamps {
    let nanos = i64::try_from(stat.st_mtime_nsec).unwrap_or(0);
    let time = Timespec { tv_sec: stat.st_mtime, tv_nsec: nanos };
    Timestamps { last_access: time, last_modification: time }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt, MetadataExt};

    use super::*;

    #[test]
    fn a_sparse_file_stays_sparse_and_has_the_same_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let file = File::create(&from).unwrap();
        file.set_len(64 << 20).unwrap();
        file.write_all_at(b"middle", 30 << 20).unwrap();
        let stat = rustix::fs::lstat(&from).unwrap();
        let copier = Copier::new();
        copier.copy(&from, &stat, &to).unwrap();
        let copied = std::fs::metadata(&to).unwrap();
        assert_eq!(
            (copied.len(), copied.mtime_nsec()),
            (64 << 20, i64::try_from(stat.st_mtime_nsec).unwrap())
        );
        assert!(copied.blocks() * 512 < 1 << 20);
        let mut six = [0; 6];
        File::open(&to).unwrap().read_exact_at(&mut six, 30 << 20).unwrap();
        assert_eq!(&six, b"middle");
        assert!(copier.copy(&from, &stat, &to).is_err(), "nothing is overwritten");
    }
}
