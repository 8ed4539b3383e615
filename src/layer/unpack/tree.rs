//! Entries of a tar into a folder and its sidecar.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid, XattrFlags};
use rustix::io::Errno;

use super::super::capability;
use super::frames::{Frames, Member};
use super::header::{Metadata, names};
use super::sparse::Sparse;
use super::way::{Blocked, Way};
use super::{EntryProblem, Error, Limits, Owners};
use crate::disk::{self, At};
use crate::rootfs::{Device, DeviceKind, EntryPath, Sidecar};

/// What most file systems give out room in.
const DISK_BLOCK: u64 = 4096;

/// What a folder gets that the tar does not describe; the sidecar tells which ones these are.
const IMPLIED: Metadata = Metadata { mode: 0o755, uid: 0, gid: 0, mtime: 0 };

/// Why an entry did not get into the tree.
enum Failure {
    Problem(EntryProblem),
    Disk(disk::Error),
    /// The stream that its data come from.
    Stream(Error),
}

impl From<EntryProblem> for Failure {
    fn from(problem: EntryProblem) -> Failure {
        Failure::Problem(problem)
    }
}

/// An entry on its way into the tree.
struct Arrival<'m> {
    member: &'m Member,
    /// The names above its own.
    above: &'m [&'m [u8]],
    name: &'m [u8],
    /// All names joined.
    path: Vec<u8>,
    metadata: Metadata,
}

/// A tree that is being filled.
pub(super) struct Tree<'a> {
    dest: &'a Path,
    limits: &'a Limits,
    root: Rc<OwnedFd>,
    way: Way,
    /// The way to the targets of hard links.
    link_way: Way,
    /// Folders get their metadata at the end: a file made in them would change the time, and
    /// permissions could shut us out.
    folders: BTreeMap<Vec<u8>, Metadata>,
    owners: Owners,
    /// Who owns what this process creates.
    own: (u32, u32),
    sidecar: Sidecar,
}

impl<'a> Tree<'a> {
    pub(super) fn new(
        dest: &'a Path,
        owners: Owners,
        limits: &'a Limits,
    ) -> Result<Tree<'a>, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = Rc::new(rustix::fs::open(dest, flags, Mode::empty()).at("open", dest)?);
        // Without a group to inherit, new entries belong to this process.
        rustix::fs::fchmod(&*root, Mode::from_raw_mode(0o755)).at("set the mode of", dest)?;
        let (way, link_way) = (Way::new(Rc::clone(&root)), Way::new(Rc::clone(&root)));
        let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        // Until there is an entry for it, the root is as made up as any folder.
        let folders = BTreeMap::from([(Vec::new(), IMPLIED)]);
        let mut sidecar = Sidecar::default();
        sidecar.implied.insert(EntryPath::default());
        Ok(Tree { dest, limits, root, way, link_way, folders, owners, own, sidecar })
    }

    /// Puts all entries into the tree.
    pub(super) fn fill(mut self, frames: &mut Frames<'_>) -> Result<Sidecar, Error> {
        while let Some(member) = frames.next()? {
            self.member(&member, frames).map_err(|failure| match failure {
                Failure::Problem(problem) => frames.refuse(&member.path, problem),
                Failure::Disk(error) => Error::Disk(error),
                Failure::Stream(error) => error,
            })?;
        }
        self.finish().map_err(|(path, failure)| match failure {
            Failure::Problem(problem) => frames.refuse(&path, problem),
            Failure::Disk(error) => Error::Disk(error),
            Failure::Stream(error) => error,
        })?;
        Ok(self.sidecar)
    }

    fn member(&mut self, member: &Member, frames: &mut Frames<'_>) -> Result<(), Failure> {
        let names = names(&member.path, self.limits)?;
        let metadata = Metadata::of(member)?;
        let Some((name, above)) = names.split_last() else {
            if member.kind != b'5' {
                return Err(EntryProblem::NoName.into());
            }
            self.sidecar.implied.remove(&b""[..]);
            self.folders.insert(Vec::new(), metadata);
            return Ok(());
        };
        if above.iter().any(|name| name.starts_with(b".wh.")) {
            return Err(EntryProblem::Whiteout.into());
        }
        if let Some(hidden) = name.strip_prefix(b".wh.") {
            return self.whiteout(above, hidden);
        }
        let kind = match member.kind {
            // An old form of a folder is a file whose name ends in a slash.
            b'0' | b'\0' | b'7' if member.path.ends_with(b"/") => b'5',
            b'\0' | b'7' => b'0',
            kind => kind,
        };
        let arrival = Arrival { member, above, name, path: names.join(&b'/'), metadata };
        match kind {
            b'0' => self.file(&arrival, frames),
            b'1' => self.hard_link(&arrival),
            b'2' => self.symlink(&arrival),
            b'3' => self.device(&arrival, DeviceKind::Character),
            b'4' => self.device(&arrival, DeviceKind::Block),
            b'5' => self.folder(arrival),
            b'6' => self.fifo(&arrival),
            other => Err(EntryProblem::Type(char::from(other)).into()),
        }
    }

    fn file(&mut self, arrival: &Arrival<'_>, frames: &mut Frames<'_>) -> Result<(), Failure> {
        self.charge(arrival.member.size, &arrival.path)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let create = |folder: BorrowedFd<'_>| {
            rustix::fs::openat(folder, arrival.name, flags, Mode::from_raw_mode(0o600))
        };
        let mut file = File::from(self.make(arrival, create)?);
        let Arrival { member, metadata, path, .. } = arrival;
        let mut write = |offset: Option<u64>, length: u64| -> Result<(), Error> {
            if let Some(offset) = offset {
                file.seek(SeekFrom::Start(offset)).at("write", self.place(path))?;
            }
            frames.data(length, |piece| {
                file.write_all(piece).at("write", self.place(path)).map_err(Error::Disk)
            })
        };
        match &member.sparse {
            None => write(None, member.size).map_err(Failure::Stream)?,
            Some(Sparse { size, pieces }) => {
                for (offset, length) in pieces {
                    write(Some(*offset), *length).map_err(Failure::Stream)?;
                }
                file.set_len(*size).at("write", self.place(path)).map_err(Failure::Disk)?;
            }
        }
        self.own(path, metadata, |uid, gid| rustix::fs::fchown(&file, uid, gid))?;
        let mode = Mode::from_raw_mode(metadata.mode);
        rustix::fs::fchmod(&file, mode)
            .map_err(|error| self.failure("set the mode of", path, error))?;
        if let Some(capability) = &member.capability {
            // After the owner, whose change takes capabilities away.
            self.set_capability(&file, path, capability)?;
        }
        rustix::fs::futimens(&file, &metadata.times())
            .map_err(|error| self.failure("set the time of", path, error))
    }

    /// Takes the room for an entry with so many bytes of data, where room is bounded.
    fn charge(&self, bytes: u64, path: &[u8]) -> Result<(), Failure> {
        let Some(charge) = &self.limits.charge else { return Ok(()) };
        let blocks = bytes.div_ceil(DISK_BLOCK) * DISK_BLOCK;
        charge.take(blocks).at("write", self.place(path)).map_err(Failure::Disk)
    }

    fn set_capability(
        &mut self,
        file: &File,
        path: &[u8],
        capability: &[u8; capability::LENGTH],
    ) -> Result<(), Failure> {
        self.sidecar.capabilities.insert(EntryPath::from(path), capability::hex(capability));
        if self.owners == Owners::Beside {
            return Ok(());
        }
        let name = "security.capability";
        match rustix::fs::fsetxattr(file, name, capability, XattrFlags::empty()) {
            // The sidecar has it.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => Ok(()),
            Err(error) => Err(self.failure("set the capabilities of", path, error)),
        }
    }

    fn hard_link(&mut self, arrival: &Arrival<'_>) -> Result<(), Failure> {
        let target = names(&arrival.member.link, self.limits).map_err(|_| {
            let shown = String::from_utf8_lossy(&arrival.member.link).into_owned();
            EntryProblem::LinkTarget(shown)
        })?;
        let target_path = target.join(&b'/');
        let absent =
            || EntryProblem::LinkTarget(EntryPath::from(target_path.as_slice()).to_string());
        let Some((target_name, target_above)) = target.split_last() else {
            return Err(absent().into());
        };
        if target_path == arrival.path {
            return Err(absent().into());
        }
        let reached =
            self.link_way.to(target_above, |_, _, path| Err(Blocked::Absent(path.join(&b'/'))));
        let target_folder = match reached {
            Err(Blocked::Absent(_)) => return Err(absent().into()),
            other => other.map_err(|blocked| self.blocked(blocked))?,
        };
        let link = |folder: BorrowedFd<'_>| {
            rustix::fs::linkat(&target_folder, *target_name, folder, arrival.name, AtFlags::empty())
        };
        match self.make(arrival, link) {
            Err(Failure::Disk(error)) if error.is_not_found() => return Err(absent().into()),
            other => other?,
        }
        if let Some(capability) = self.sidecar.capabilities.get(target_path.as_slice()) {
            let capability = capability.clone();
            self.sidecar.capabilities.insert(EntryPath::from(arrival.path.as_slice()), capability);
        }
        if let Some(device) = self.sidecar.devices.get(target_path.as_slice()) {
            let device = *device;
            self.sidecar.devices.insert(EntryPath::from(arrival.path.as_slice()), device);
        }
        if let Some(owner) = self.sidecar.owners.get(target_path.as_slice()) {
            let owner = *owner;
            self.sidecar.owners.insert(EntryPath::from(arrival.path.as_slice()), owner);
        }
        Ok(())
    }

    fn symlink(&mut self, arrival: &Arrival<'_>) -> Result<(), Failure> {
        let target = arrival.member.link.as_slice();
        if target.is_empty() || target.contains(&0) {
            return Err(EntryProblem::LinkTarget(String::new()).into());
        }
        self.make(arrival, |folder| rustix::fs::symlinkat(target, folder, arrival.name))?;
        self.finish_unopened(arrival)
    }

    fn fifo(&mut self, arrival: &Arrival<'_>) -> Result<(), Failure> {
        self.make(arrival, |folder| {
            let mode = Mode::from_raw_mode(0o600);
            rustix::fs::mknodat(folder, arrival.name, FileType::Fifo, mode, 0)
        })?;
        self.finish_unopened(arrival)
    }

    /// Sets the metadata of what must not be opened.
    fn finish_unopened(&mut self, arrival: &Arrival<'_>) -> Result<(), Failure> {
        let Arrival { name, path, metadata, .. } = arrival;
        let folder = self.folder_of(arrival)?;
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        self.own(path, metadata, |uid, gid| rustix::fs::chownat(&folder, *name, uid, gid, flags))?;
        if arrival.member.kind != b'2' {
            let mode = Mode::from_raw_mode(metadata.mode);
            rustix::fs::chmodat(&folder, *name, mode, AtFlags::empty())
                .map_err(|error| self.failure("set the mode of", path, error))?;
        }
        rustix::fs::utimensat(&folder, *name, &metadata.times(), flags)
            .map_err(|error| self.failure("set the time of", path, error))
    }

    /// Puts an empty file where a device node is to be: it hides what the layers below have there,
    /// and a step that may see the node finds it in its place.
    fn device(&mut self, arrival: &Arrival<'_>, kind: DeviceKind) -> Result<(), Failure> {
        self.make(arrival, |folder| {
            let mode = Mode::from_raw_mode(0o600);
            rustix::fs::mknodat(folder, arrival.name, FileType::RegularFile, mode, 0)
        })?;
        self.finish_unopened(arrival)?;
        let Metadata { mode, uid, gid, mtime } = arrival.metadata;
        let (major, minor) = arrival.member.device;
        let device = Device { kind, major, minor, mode, uid, gid, mtime };
        self.sidecar.devices.insert(EntryPath::from(arrival.path.as_slice()), device);
        Ok(())
    }

    fn folder(&mut self, arrival: Arrival<'_>) -> Result<(), Failure> {
        if self.folders.contains_key(&arrival.path) {
            self.sidecar.implied.remove(arrival.path.as_slice());
        } else {
            self.charge(1, &arrival.path)?;
            self.make(&arrival, |folder| {
                rustix::fs::mkdirat(folder, arrival.name, Mode::from_raw_mode(0o700))
            })?;
        }
        self.folders.insert(arrival.path, arrival.metadata);
        Ok(())
    }

    fn whiteout(&mut self, above: &[&[u8]], hidden: &[u8]) -> Result<(), Failure> {
        // Nothing has to be made for it, but no link may be in its way either.
        match self.way.to(above, |_, _, path| Err(Blocked::Absent(path.join(&b'/')))) {
            Ok(_) | Err(Blocked::Absent(_)) => {}
            Err(blocked) => return Err(self.blocked(blocked)),
        }
        let folder = EntryPath::from(above.join(&b'/'));
        match hidden {
            b".wh..opq" => {
                self.sidecar.opaque.insert(folder);
            }
            // What aufs kept for itself.
            _ if hidden.starts_with(b".wh.") => {}
            b"" | b"." | b".." => return Err(EntryProblem::Whiteout.into()),
            name => {
                self.sidecar.whiteouts.insert(folder.join(name));
            }
        }
        Ok(())
    }

    /// Creates an entry, in place of an earlier one of the same name.
    fn make<T>(
        &mut self,
        arrival: &Arrival<'_>,
        create: impl Fn(BorrowedFd<'_>) -> rustix::io::Result<T>,
    ) -> Result<T, Failure> {
        let folder = self.folder_of(arrival)?;
        if !self.sidecar.devices.is_empty() {
            self.sidecar.devices.remove(arrival.path.as_slice());
        }
        let made = match create(folder.as_fd()) {
            Err(Errno::EXIST) => {
                self.clear_place(arrival)?;
                create(folder.as_fd())
            }
            other => other,
        };
        made.map_err(|error| self.failure("create", &arrival.path, error))
    }

    /// Removes what an earlier entry of the same name has left.
    fn clear_place(&mut self, arrival: &Arrival<'_>) -> Result<(), Failure> {
        let folder = self.folder_of(arrival)?;
        let path = arrival.path.as_slice();
        let removed = match rustix::fs::unlinkat(&folder, arrival.name, AtFlags::empty()) {
            Err(Errno::ISDIR | Errno::PERM) => {
                self.link_way.forget();
                rustix::fs::unlinkat(&folder, arrival.name, AtFlags::REMOVEDIR)
            }
            other => other,
        };
        match removed {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::NOTEMPTY | Errno::EXIST) => {
                return Err(EntryProblem::InTheWay(EntryPath::from(path).to_string()).into());
            }
            Err(error) => return Err(self.failure("replace", path, error)),
        }
        self.folders.remove(path);
        self.sidecar.implied.remove(path);
        self.sidecar.devices.remove(path);
        self.sidecar.capabilities.remove(path);
        self.sidecar.owners.remove(path);
        Ok(())
    }

    /// Opens the folder that an entry belongs into, making what is missing.
    fn folder_of(&mut self, arrival: &Arrival<'_>) -> Result<Rc<OwnedFd>, Failure> {
        let Tree { way, folders, sidecar, .. } = self;
        let reached = way.to(arrival.above, |folder, name, path| {
            let path = path.join(&b'/');
            rustix::fs::mkdirat(folder, name, Mode::from_raw_mode(0o700))
                .map_err(|error| Blocked::System(path.clone(), error))?;
            sidecar.devices.remove(path.as_slice());
            sidecar.implied.insert(EntryPath::from(path.as_slice()));
            folders.insert(path, IMPLIED);
            Ok(())
        });
        reached.map_err(|blocked| self.blocked(blocked))
    }

    /// Gives all folders their metadata, from the deepest up.
    fn finish(&mut self) -> Result<(), (Vec<u8>, Failure)> {
        let folders = std::mem::take(&mut self.folders);
        for (path, metadata) in folders.iter().rev() {
            self.finish_folder(path, metadata).map_err(|failure| (path.clone(), failure))?;
        }
        Ok(())
    }

    fn finish_folder(&mut self, path: &[u8], metadata: &Metadata) -> Result<(), Failure> {
        let names: Vec<&[u8]> =
            path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).collect();
        let opened;
        let folder = match names.split_last() {
            None => self.root.as_fd(),
            Some((name, above)) => {
                let reached =
                    self.way.to(above, |_, _, path| Err(Blocked::Absent(path.join(&b'/'))));
                let within = reached.map_err(|blocked| self.blocked(blocked))?;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                opened = rustix::fs::openat(&within, *name, flags, Mode::empty())
                    .map_err(|error| self.failure("open", path, error))?;
                opened.as_fd()
            }
        };
        let (own, owners) = (self.own, self.owners);
        give(path, metadata, own, owners, &mut self.sidecar, |uid, gid| {
            rustix::fs::fchown(folder, uid, gid)
        })
        .map_err(|error| self.owner_failure(error, path, metadata))?;
        rustix::fs::fchmod(folder, Mode::from_raw_mode(metadata.mode))
            .map_err(|error| self.failure("set the mode of", path, error))?;
        rustix::fs::futimens(folder, &metadata.times())
            .map_err(|error| self.failure("set the time of", path, error))
    }

    /// Gives an entry its owner, by `chown` or in the sidecar.
    fn own(
        &mut self,
        path: &[u8],
        metadata: &Metadata,
        chown: impl FnOnce(Option<Uid>, Option<Gid>) -> rustix::io::Result<()>,
    ) -> Result<(), Failure> {
        give(path, metadata, self.own, self.owners, &mut self.sidecar, chown)
            .map_err(|error| self.owner_failure(error, path, metadata))
    }

    fn place(&self, path: &[u8]) -> PathBuf {
        self.dest.join(std::ffi::OsStr::from_bytes(path))
    }

    fn failure(&self, action: &'static str, path: &[u8], error: Errno) -> Failure {
        Failure::Disk(disk::Error::new(action, self.place(path), error))
    }

    /// An id that is not mapped is an invalid argument to the kernel; without any privilege all
    /// are forbidden.
    fn owner_failure(&self, error: Errno, path: &[u8], metadata: &Metadata) -> Failure {
        match error {
            Errno::INVAL | Errno::PERM => {
                let Metadata { uid, gid, .. } = *metadata;
                EntryProblem::Owner { uid: uid.into(), gid: gid.into() }.into()
            }
            error => self.failure("set the owner of", path, error),
        }
    }

    fn blocked(&self, blocked: Blocked) -> Failure {
        let text = |path: Vec<u8>| EntryPath::from(path).to_string();
        match blocked {
            Blocked::Link(path) => EntryProblem::ThroughLink(text(path)).into(),
            Blocked::Absent(path) | Blocked::Other(path) => {
                EntryProblem::InTheWay(text(path)).into()
            }
            Blocked::System(path, error) => self.failure("open the folder", &path, error),
        }
    }
}

fn give(
    path: &[u8],
    metadata: &Metadata,
    own: (u32, u32),
    owners: Owners,
    sidecar: &mut Sidecar,
    chown: impl FnOnce(Option<Uid>, Option<Gid>) -> rustix::io::Result<()>,
) -> rustix::io::Result<()> {
    let owner = (metadata.uid, metadata.gid);
    match owners {
        Owners::InTree if owner == own => Ok(()),
        Owners::InTree => chown(Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1))),
        Owners::Beside => {
            if owner != (0, 0) {
                sidecar.owners.insert(EntryPath::from(path), owner);
            }
            Ok(())
        }
    }
}
