//! The canonical tar of a layer: entries sorted by the bytes of their names in the tar, whiteouts
//! among them as `.wh.NAME`; hard links to the first of their names; everything else as `header`
//! says. Nothing of the tree but what the entries say gets into it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::header::{self, BLOCK, Entry, EntryKind};
use super::{Error, capability};
use crate::changes::{self, Changes, Kind};
use crate::disk::{self, At};
use crate::rootfs::{DeviceKind, Ledger};

/// How much of a file is read at once.
const CHUNK: usize = 256 * 1024;

/// Writes the tar of `changes`.
///
/// `root` is where the present entries are: overlay's upper folder or a plain tree. The bytes
/// depend on the changes, on what the tree holds and on the ledger alone.
pub fn write_tar(
    root: &Path,
    changes: &Changes,
    ledger: &Ledger,
    out: &mut dyn Write,
) -> Result<(), Error> {
    let mut writer = Writer {
        root,
        ledger,
        out,
        first_names: BTreeMap::new(),
        header: Vec::with_capacity(4 * BLOCK),
        buffer: vec![0; CHUNK],
    };
    let mut cursor = changes.cursor();
    while let Some((path, kind)) = cursor.advance() {
        match kind {
            Kind::Removed => writer.whiteout(&changes::name_in_tar(path, kind))?,
            Kind::Present => writer.present(path)?,
        }
    }
    // The end of the archive, without the padding to a tape's record.
    writer.send(&[0; 2 * BLOCK])
}

struct Writer<'a> {
    root: &'a Path,
    ledger: &'a Ledger,
    out: &'a mut dyn Write,
    /// Files of several names by device and inode, and the name that came first.
    first_names: BTreeMap<(u64, u64), Vec<u8>>,
    header: Vec<u8>,
    buffer: Vec<u8>,
}

impl Writer<'_> {
    fn send(&mut self, bytes: &[u8]) -> Result<(), Error> {
        send(self.out, bytes)
    }

    fn put(&mut self, entry: &Entry<'_>) -> Result<(), Error> {
        self.header.clear();
        header::encode(entry, &mut self.header);
        send(self.out, &self.header)
    }

    fn whiteout(&mut self, name: &[u8]) -> Result<(), Error> {
        self.put(&Entry {
            path: name,
            kind: EntryKind::File,
            mode: 0o644,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: 0,
            link: b"",
            device: (0, 0),
            capability: None,
        })
    }

    fn present(&mut self, path: &[u8]) -> Result<(), Error> {
        let place = self.root.join(std::ffi::OsStr::from_bytes(path));
        let unfit = |problem| Error::Unfit { path: place.clone(), problem };
        if is_whiteout_name(path) {
            return Err(unfit("names that begin with `.wh.` mean deletion in a layer"));
        }
        if let Some(device) = self.ledger.devices.get(path) {
            return self.put(&Entry {
                path,
                kind: match device.kind {
                    DeviceKind::Block => EntryKind::Block,
                    DeviceKind::Character => EntryKind::Character,
                },
                mode: device.mode,
                uid: device.uid,
                gid: device.gid,
                size: 0,
                mtime: device.mtime,
                link: b"",
                device: (device.major, device.minor),
                capability: None,
            });
        }
        let stat = match rustix::fs::lstat(&place) {
            Err(Errno::NOENT) => return Err(Error::Unsteady { path: place }),
            other => other.at("examine", &place)?,
        };
        let (uid, gid) = *self.ledger.owners.get(path).unwrap_or(&(stat.st_uid, stat.st_gid));
        let mut entry = Entry {
            path,
            kind: EntryKind::File,
            mode: stat.st_mode,
            uid,
            gid,
            size: 0,
            mtime: stat.st_mtime,
            link: b"",
            device: (0, 0),
            capability: None,
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => return self.file(&place, &stat, entry),
            FileType::Directory => entry.kind = EntryKind::Folder,
            FileType::Fifo => entry.kind = EntryKind::Fifo,
            FileType::Symlink => {
                let target =
                    rustix::fs::readlink(&place, Vec::new()).at("read the link", &place)?;
                return self.put(&Entry {
                    kind: EntryKind::Symlink,
                    // Not every file system keeps another one.
                    mode: 0o777,
                    link: target.as_bytes(),
                    ..entry
                });
            }
            kind @ (FileType::CharacterDevice | FileType::BlockDevice) => {
                entry.kind = match kind {
                    FileType::BlockDevice => EntryKind::Block,
                    _ => EntryKind::Character,
                };
                entry.device = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
            }
            _ => return Err(unfit("it is a socket or of an unknown type")),
        }
        self.put(&entry)
    }

    fn file(&mut self, place: &Path, stat: &Stat, entry: Entry<'_>) -> Result<(), Error> {
        let inode = (stat.st_dev, stat.st_ino);
        if stat.st_nlink > 1 {
            if let Some(first) = self.first_names.get(&inode) {
                let first = first.clone();
                return self.put(&Entry { kind: EntryKind::HardLink, link: &first, ..entry });
            }
            self.first_names.insert(inode, entry.path.to_vec());
        }
        let raw = match self.ledger.capabilities.get(entry.path) {
            Some(capability) => (!capability.is_empty()).then(|| capability.clone()),
            None => read_capability(place)?,
        };
        let capability = match &raw {
            None => None,
            Some(raw) => Some(capability::as_v2(raw).ok_or(Error::Unfit {
                path: place.to_owned(),
                problem: "its file capability has an unknown form",
            })?),
        };
        let unsteady = || Error::Unsteady { path: place.to_owned() };
        let size = u64::try_from(stat.st_size).map_err(|_| unsteady())?;
        self.put(&Entry {
            size,
            capability: capability.as_ref().map(<[u8; capability::LENGTH]>::as_slice),
            ..entry
        })?;
        if size == 0 {
            return Ok(());
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let mut file = match rustix::fs::open(place, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT | Errno::LOOP) => return Err(unsteady()),
            Err(error) => return Err(disk::Error::new("open", place, error).into()),
        };
        let mut left = size;
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
            let got = match file.read(&mut self.buffer[..want]) {
                Ok(0) => return Err(unsteady()),
                Ok(got) => got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(disk::Error::new("read", place, error).into()),
            };
            send(self.out, &self.buffer[..got])?;
            left -= got as u64;
        }
        let after = rustix::fs::fstat(&file).at("examine", place)?;
        if after.st_size != stat.st_size
            || (after.st_dev, after.st_ino) != inode
            || (after.st_mtime, after.st_mtime_nsec) != (stat.st_mtime, stat.st_mtime_nsec)
        {
            return Err(unsteady());
        }
        let padding = usize::try_from(size.next_multiple_of(BLOCK as u64) - size).unwrap_or(0);
        self.send(&[0; BLOCK][..padding])
    }
}

fn send(out: &mut dyn Write, bytes: &[u8]) -> Result<(), Error> {
    out.write_all(bytes).map_err(|source| Error::Blob { action: "write", source })
}

fn is_whiteout_name(path: &[u8]) -> bool {
    path.rsplit(|byte| *byte == b'/').next().is_some_and(|name| name.starts_with(b".wh."))
}

fn read_capability(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    let mut buffer = [0; 64];
    match rustix::fs::lgetxattr(path, "security.capability", &mut buffer) {
        Ok(length) => Ok(Some(buffer[..length].to_vec())),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(error) => {
            Err(disk::Error::new("read the capabilities of", PathBuf::from(path), error).into())
        }
    }
}
