//! The records of a tree: what chown, mknod and setcap left, by inode, and what the layers below
//! know, by path.
//!
//! - An inode number alone is no identity, since file systems use one again at once: a record also
//!   holds the file's time of birth, or its handle where there is no such time.
//! - A file that overlay copies up keeps the number it had below until the kernel forgets it, and
//!   then has that of the upper folder; of two links to it one may have the one and one the other.
//!   Its record is under the number of the upper folder, and the other leads there (`above`).
//! - An entry of a layer below has no record until it is changed, moved or linked. For that, what
//!   is made or moved to a name that those layers know something of gets a record at once, so that
//!   an entry without one is theirs.

#![expect(clippy::disallowed_types, reason = "asked at every stat of a step, and never listed")]

use std::collections::{HashMap, VecDeque};
use std::ffi::CString;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use rustix::fs::{Mode, OFlags};

use super::Scope;
use super::above::follow;
use super::identity::{Entry, Identity, Key, birth_of, content_of, handle_of, is_past, key_of};
use super::kernel::{self, Status};
use super::parents::Parents;
use super::quick::Table;
use super::tracee::look_at;
use super::view::{View, copy_up, path_in};
use crate::rootfs::{EntryPath, Lower, Record, Tree, Truth};

/// How many of the last recorded files are held open: as long, their numbers aren't used again.
/// The kernel's clock for births may stand still for some milliseconds.
const PINNED: usize = 512;

/// How many inodes are known to have nothing that is known of them.
const NOTHING: usize = 100_000;

/// Remembers the owners, device nodes and file capabilities of a tree through the steps of a layer.
pub struct Ownership {
    scope: Scope,
    merged: PathBuf,
    pub(super) upper: Option<OwnedFd>,
    before: Parents,
    /// Whether entries of the layers below are found by path.
    by_path: bool,
    /// Of which files processes have to ask, where they can find out by themselves.
    table: Option<Table>,
    mount: u64,
    /// The device of what lies in the upper folder. Entries of layers on another file system have
    /// another one, until they are copied up and the kernel forgets where they came from.
    pub(super) device: u64,
    entries: RwLock<HashMap<Key, Entry>>,
    /// Old inodes without a record, of whose paths nothing is known either.
    nothing: RwLock<HashMap<Key, Identity>>,
    pins: Mutex<VecDeque<OwnedFd>>,
    pub(super) has_entries: AtomicBool,
    has_groups: AtomicBool,
    has_capabilities: AtomicBool,
}

impl fmt::Debug for Ownership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let records = self.entries().len();
        f.debug_struct("Ownership")
            .field("scope", &self.scope)
            .field("merged", &self.merged)
            .field("records", &records)
            .finish_non_exhaustive()
    }
}

impl Ownership {
    /// Begins for a tree of either kind, over layers from the bottom up.
    pub fn of_tree(scope: Scope, tree: &Tree, parents: &[Lower]) -> io::Result<Ownership> {
        match tree {
            Tree::Overlay(mounted) => {
                Ownership::overlay(scope, mounted.merged(), mounted.upper(), parents)
            }
            Tree::Plain(plain) => Ownership::plain(scope, plain.merged(), parents),
        }
    }

    /// Begins for an overlay at `merged` with the folder `upper`.
    fn overlay(
        scope: Scope,
        merged: &Path,
        upper: &Path,
        parents: &[Lower],
    ) -> io::Result<Ownership> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let upper = rustix::fs::open(upper, flags, Mode::empty())?;
        Ownership::new(scope, merged, Some(upper), Parents::new(parents, scope)?)
    }

    /// Begins for a tree of its own, whose entries are copies of those of the layers.
    fn plain(scope: Scope, tree: &Path, parents: &[Lower]) -> io::Result<Ownership> {
        let ownership = Ownership::new(scope, tree, None, Parents::new(parents, scope)?)?;
        for path in ownership.before.paths() {
            if let Some(record) = ownership.before.get(path.as_bytes()) {
                match ownership.set(&path, record) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
        }
        Ok(ownership)
    }

    fn new(
        scope: Scope,
        merged: &Path,
        upper: Option<OwnedFd>,
        before: Parents,
    ) -> io::Result<Ownership> {
        let root = CString::new(merged.as_os_str().as_bytes())?;
        let status = kernel::statx(libc::AT_FDCWD, &root, 0, libc::STATX_MNT_ID)?;
        let by_path = upper.is_some() && !before.is_empty();
        // Where there can't be one, processes are stopped for every answer.
        let is_of_use = scope == Scope::Full && cfg!(target_arch = "x86_64");
        let new = || Table::new(before.names().filter(|_| by_path));
        let table = if is_of_use { new().ok() } else { None };
        Ok(Ownership {
            scope,
            merged: merged.to_owned(),
            by_path,
            table,
            upper,
            has_groups: AtomicBool::new(before.has_groups()),
            has_capabilities: AtomicBool::new(before.has_capabilities()),
            before,
            mount: status.stx_mnt_id,
            device: key_of(&status).0,
            entries: RwLock::default(),
            nothing: RwLock::default(),
            pins: Mutex::default(),
            has_entries: AtomicBool::new(false),
        })
    }

    /// Returns what its supervisor answers for.
    pub fn scope(&self) -> Scope {
        self.scope
    }

    fn entries(&self) -> RwLockReadGuard<'_, HashMap<Key, Entry>> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn entries_mut(&self) -> RwLockWriteGuard<'_, HashMap<Key, Entry>> {
        self.entries.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of which files processes have to ask.
    pub(super) fn table(&self) -> Option<&Table> {
        self.table.as_ref()
    }

    /// Tells whether a folder may have a group that isn't root's.
    pub(super) fn has_groups(&self) -> bool {
        self.has_groups.load(Ordering::Acquire)
    }

    /// Tells whether a file may have capabilities.
    pub(super) fn has_capabilities(&self) -> bool {
        self.has_capabilities.load(Ordering::Acquire)
    }

    /// Tells whether what is made or moved to this name must get a record.
    pub(super) fn is_known_name(&self, name: &[u8]) -> bool {
        self.by_path && self.before.has_name(name)
    }

    /// Tells whether entries of the layers below are found by path.
    pub(super) fn goes_by_path(&self) -> bool {
        self.by_path
    }

    /// Lets go of the files that are held open.
    pub(super) fn unpin(&self) {
        self.pins.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Returns the record of an inode.
    pub(super) fn of_inode(
        &self,
        view: View<'_>,
        status: &Status,
        fd: Option<BorrowedFd<'_>>,
    ) -> Option<Record> {
        self.under(key_of(status), view, status, fd)
    }

    /// Returns the record that is under a number of a file's.
    fn under(
        &self,
        key: Key,
        view: View<'_>,
        status: &Status,
        fd: Option<BorrowedFd<'_>>,
    ) -> Option<Record> {
        let (key, entry) = {
            let entries = self.entries();
            let (key, entry) = follow(&entries, key)?;
            let same = match (&entry.identity, birth_of(status)) {
                (Identity::Birth(..), Some(birth)) => entry.identity == birth,
                (Identity::Handle(handle), _) => fd.is_none_or(|fd| {
                    handle_of(fd).is_none_or(|own| own.as_slice() == handle.as_ref())
                }),
                _ => true,
            };
            if same && entry.opened.is_none() {
                return Some(entry.record.clone());
            }
            (key, (entry.clone(), same))
        };
        match entry {
            (entry, true) => {
                let Some(renewed) = entry.renewed(view, fd, status) else {
                    return Some(entry.record);
                };
                let record = renewed.record.clone();
                let mut entries = self.entries_mut();
                if let Some(held) = entries.get_mut(&key).filter(|held| **held == entry) {
                    *held = renewed;
                }
                Some(record)
            }
            (stale, false) => {
                let mut entries = self.entries_mut();
                if entries.get(&key).is_some_and(|entry| entry.identity == stale.identity) {
                    entries.remove(&key);
                }
                None
            }
        }
    }

    /// Returns the record of a file: its inode's, or that of its path. `path` is asked for only
    /// where it matters.
    pub(super) fn of(
        &self,
        view: View<'_>,
        status: &Status,
        fd: Option<BorrowedFd<'_>>,
        path: impl FnOnce() -> Option<Vec<u8>>,
    ) -> Option<Record> {
        if self.has_entries.load(Ordering::Acquire)
            && let Some(record) = self.of_inode(view, status, fd)
        {
            return Some(record);
        }
        if let Some(fd) = fd.filter(|_| self.may_have_links(status))
            && let Some(above) = self.key_above(view, fd, status)
            && let Some(record) = self.under(above, view, status, Some(fd))
        {
            return Some(record);
        }
        if !self.by_path || status.stx_mnt_id != view.mount {
            return None;
        }
        let record = self.before.get(&path()?).cloned();
        if record.is_none() {
            self.note_nothing(status);
        }
        record
    }

    /// Tells whether the layers below are known to say nothing of an inode without a record: it gets
    /// one before it moves to where they say something.
    pub(super) fn has_nothing(&self, status: &Status) -> bool {
        let nothing = self.nothing.read().unwrap_or_else(PoisonError::into_inner);
        nothing.get(&key_of(status)).is_some_and(|birth| Some(birth) == birth_of(status).as_ref())
    }

    fn note_nothing(&self, status: &Status) {
        let Some(birth) = birth_of(status) else { return };
        // Another file with the number of one born just now could have been born as early as it.
        if !is_past((status.stx_btime.tv_sec, status.stx_btime.tv_nsec)) {
            return;
        }
        let mut nothing = self.nothing.write().unwrap_or_else(PoisonError::into_inner);
        if nothing.len() >= NOTHING {
            nothing.clear();
        }
        nothing.insert(key_of(status), birth);
    }

    /// Returns the record of an open file.
    pub(super) fn of_fd(
        &self,
        view: View<'_>,
        fd: BorrowedFd<'_>,
        status: &Status,
    ) -> Option<Record> {
        self.of(view, status, Some(fd), || path_in(view, fd))
    }

    /// Remembers something of a file, besides what is remembered already, as far as the caller knows
    /// that, or as is to be found out. The file must not be one that overlay would still copy up.
    pub(super) fn remember(
        &self,
        view: View<'_>,
        fd: BorrowedFd<'_>,
        known: Option<Record>,
        change: &Record,
    ) -> io::Result<()> {
        self.keep(view, fd, known, change, false)
    }

    /// Remembers that a file with capabilities is about to be written, by somebody who may open it
    /// and then not write. The same conditions hold.
    pub(super) fn is_opened(
        &self,
        view: View<'_>,
        fd: BorrowedFd<'_>,
        known: Record,
    ) -> io::Result<()> {
        self.keep(view, fd, Some(known), &Record::default(), true)
    }

    fn keep(
        &self,
        view: View<'_>,
        fd: BorrowedFd<'_>,
        known: Option<Record>,
        change: &Record,
        is_opened: bool,
    ) -> io::Result<()> {
        let status = look_at(fd).map_err(io::Error::from_raw_os_error)?;
        let mut record = match known {
            Some(known) => known,
            None => self.of_fd(view, fd, &status).unwrap_or_default(),
        };
        record.uid = change.uid.or(record.uid);
        record.gid = change.gid.or(record.gid);
        record.device = change.device.or(record.device);
        record.capability = change.capability.clone().or(record.capability);

        let is_folder = u32::from(status.stx_mode) & libc::S_IFMT == libc::S_IFDIR;
        if is_folder && record.gid.is_some_and(|gid| gid != 0) {
            self.has_groups.store(true, Ordering::Release);
        }
        if record.capability.as_ref().is_some_and(|bytes| !bytes.is_empty()) {
            self.has_capabilities.store(true, Ordering::Release);
        }
        let identity = birth_of(&status)
            .or_else(|| handle_of(fd).map(|handle| Identity::Handle(handle.into())))
            .unwrap_or(Identity::Unknown);
        let key = key_of(&status);
        let other = if is_folder { None } else { self.key_above(view, fd, &status) };
        let opened = is_opened.then(|| content_of(view, fd, &status)).transpose()?;
        let entry = Entry { record, identity, opened, above: None };
        if let Some(table) = &self.table {
            for (_, inode) in other.iter().chain([&key]) {
                table.note(*inode)?;
            }
        }
        let mut entries = self.entries_mut();
        if let Some(above) = other.filter(|other| *other != key) {
            entries.insert(key, Entry { above: Some(above), ..entry.clone() });
            entries.insert(above, entry);
        } else {
            entries.insert(key, entry);
        }
        drop(entries);
        self.has_entries.store(true, Ordering::Release);
        if !is_folder && let Ok(pin) = as_place(view, fd) {
            let mut pins = self.pins.lock().unwrap_or_else(PoisonError::into_inner);
            if pins.len() >= PINNED {
                pins.pop_front();
            }
            pins.push_back(pin);
        }
        Ok(())
    }

    /// The view of a thread of the build.
    fn outside(&self) -> View<'_> {
        View { own: "/proc/self", root: &self.merged, within: b"", mount: self.mount }
    }
}

/// Another descriptor of a file, and a mere place: what is held open to be written can't be executed.
fn as_place(view: View<'_>, fd: BorrowedFd<'_>) -> rustix::io::Result<OwnedFd> {
    if rustix::fs::fcntl_getfl(fd)?.contains(OFlags::PATH) {
        return rustix::io::fcntl_dupfd_cloexec(fd, 3);
    }
    let path = format!("{}/fd/{}", view.own, fd.as_raw_fd());
    rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}

impl Truth for Ownership {
    fn is_empty(&self) -> bool {
        self.before.is_empty() && !self.has_entries.load(Ordering::Acquire)
    }

    fn now(&self, path: &EntryPath) -> io::Result<Option<Record>> {
        if self.is_empty() {
            return Ok(None);
        }
        let file = self.merged.join(path.as_path());
        let text = CString::new(file.as_os_str().as_bytes())?;
        let mask = libc::STATX_BASIC_STATS | libc::STATX_BTIME | libc::STATX_MNT_ID;
        let flags = libc::AT_SYMLINK_NOFOLLOW;
        let status = kernel::statx(libc::AT_FDCWD, &text, flags, mask)?;
        let view = View { mount: status.stx_mnt_id, ..self.outside() };
        let own = || Some(path.as_bytes().to_vec());
        let record = self.of(view, &status, None, own);
        let is_certain = record.is_some() || !self.may_have_links(&status);
        let has_capability = |it: &Record| it.capability.as_ref().is_some_and(|it| !it.is_empty());
        if is_certain && !record.as_ref().is_some_and(has_capability) {
            return Ok(record);
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::open(&file, flags, Mode::empty())?;
        Ok(self.of(view, &status, Some(fd.as_fd()), own))
    }

    fn before(&self, path: &EntryPath) -> io::Result<Option<Record>> {
        Ok(self.before.get(path.as_bytes()).cloned())
    }

    fn set(&self, path: &EntryPath, record: &Record) -> io::Result<()> {
        let file = self.merged.join(path.as_path());
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::open(&file, flags, Mode::empty())?;
        if self.upper.is_some() {
            let status = look_at(&fd).map_err(io::Error::from_raw_os_error)?;
            copy_up(self.outside(), fd.as_fd(), &status)?;
        }
        self.remember(self.outside(), fd.as_fd(), None, record)
    }
}
