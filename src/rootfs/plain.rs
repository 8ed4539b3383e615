//! A plain tree: the layers copied into one folder, for where no overlay works. What a step changes
//! is found by comparing with a snapshot of before.
//!
//! It behaves as the overlay would. Names that a layer below links to one inode are files of their
//! own, since overlay parts them as soon as one is written to; extras are in no snapshot. A tree goes
//! on being used, in place, for the next layer, and what a layer changed is set aside before, since
//! it is packed, compared with and perhaps built on again while the next steps already run.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::disk::{self, At};
use crate::rootfs::copy::{Copier, times_of};
use crate::rootfs::flat::{Flat, index};
use crate::rootfs::snapshot::{Found, Snapshot, print_of};
use crate::rootfs::stack::Folder;
use crate::rootfs::tree::room_of;
use crate::rootfs::{EntryPath, Error, Extras, Ledger, Lower, Sidecar, extras, in_parallel};

/// How long to wait for the file system's clock to go on; some count in whole seconds.
const TICKS: u32 = 600;
const TICK: Duration = Duration::from_millis(4);

/// A tree of files of its own.
#[derive(Debug)]
pub struct PlainTree {
    space: PathBuf,
    merged: PathBuf,
    lowers: Vec<Lower>,
    root: Folder,
    snapshot: Snapshot,
    extras: BTreeMap<EntryPath, u64>,
}

impl PlainTree {
    /// Copies layers, from the bottom up, into the folder `space`, which is made if need be and must
    /// hold nothing yet.
    pub fn new(lowers: &[Lower], space: &Path, extras: &Extras) -> Result<PlainTree, Error> {
        disk::make_dirs(space)?;
        let merged = space.join("merged");
        fs::create_dir(&merged).at("create the folder", &merged)?;
        // So that no group is handed on to what is made in it.
        rustix::fs::chmod(&merged, Mode::from_raw_mode(0o755)).at("set the mode of", &merged)?;
        let flat = Flat::new(lowers);
        let copying = Copying {
            flat: &flat,
            lowers,
            merged: &merged,
            copier: Copier::new(),
            next: AtomicU32::new(1),
            done: Mutex::default(),
        };
        let root = flat.root()?;
        if let Some(root) = &root {
            let first = Job::Folder { path: Vec::new(), number: 0, sources: root.sources.clone() };
            in_parallel(vec![first], |job, more| copying.job(&job, more))?;
        }
        let Done { folders, mut metadata } =
            copying.done.into_inner().unwrap_or_else(PoisonError::into_inner);
        // From the deepest up: a folder may deny what its content still needs.
        metadata.sort_unstable_by(|one, other| other.0.cmp(&one.0));
        for (path, folder) in metadata {
            folder.apply(&merged.join(EntryPath::from(path).as_path()))?;
        }
        let mut tree = PlainTree {
            space: space.to_owned(),
            merged,
            lowers: lowers.to_vec(),
            root: root.map_or(Folder::DEFAULT, |root| Folder::from_stat(&root.stat)),
            snapshot: Snapshot::of(folders),
            extras: BTreeMap::new(),
        };
        tree.begin(extras, None, Vec::new())?;
        Ok(tree)
    }

    /// Returns the tree to run in.
    pub fn merged(&self) -> &Path {
        &self.merged
    }

    /// Returns the folder it lies in.
    pub fn space(&self) -> &Path {
        &self.space
    }

    /// Returns what the tree was when it was handed out.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Tells whether a path is one of the extras and as it was made.
    pub fn is_untouched_extra(&self, path: &[u8], stat: &Stat) -> bool {
        self.extras.get(path).is_some_and(|print| *print == print_of(stat))
    }

    /// Returns the paths of the extras.
    pub fn extras(&self) -> impl Iterator<Item = &EntryPath> {
        self.extras.keys()
    }

    /// Returns where the bytes are of the entry that was at `path`, which is from layer `origin`.
    pub fn origin(&self, path: &[u8], origin: u16) -> PathBuf {
        at(&self.lowers[usize::from(origin)].tree, path)
    }

    /// Returns how many bytes those of the paths take that are there.
    pub fn size_of(&self, changes: &[(EntryPath, bool)]) -> Result<u64, Error> {
        let there = changes.iter().filter(|change| change.1);
        there.map(|change| at(&self.merged, change.0.as_bytes())).try_fold(0, |sum: u64, path| {
            let stat = rustix::fs::lstat(&path).at("look at", &path)?;
            Ok(sum.saturating_add(room_of(&stat)))
        })
    }

    /// Copies what a layer changed into the folder `dir`, which is made, as the unpacked layer would
    /// be: `changes` are its paths, each folder before what it holds, and whether it is there or
    /// removed; `ledger` is what the tree can't tell of them.
    ///
    /// The copy stays as it is while the tree is used on; hard links within the layer stay links.
    pub fn set_aside(
        &self,
        dir: &Path,
        changes: &[(EntryPath, bool)],
        ledger: &Ledger,
    ) -> Result<Lower, Error> {
        disk::make_dirs(dir)?;
        rustix::fs::chmod(dir, Mode::from_raw_mode(0o755)).at("set the mode of", dir)?;
        let (mut folders, mut files, mut links) = (Vec::new(), Vec::new(), Vec::new());
        let mut firsts: BTreeMap<(u64, u64), &[u8]> = BTreeMap::new();
        let of = |wanted| {
            let taken = move |change: &&(EntryPath, bool)| change.1 == wanted;
            changes.iter().filter(taken).map(|change| &change.0)
        };
        for path in of(true).map(EntryPath::as_bytes) {
            let (from, to) = (at(&self.merged, path), at(dir, path));
            let stat = rustix::fs::lstat(&from).at("look at", &from)?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => {
                    fs::create_dir(&to).at("create the folder", &to)?;
                    folders.push((to, Folder::from_stat(&stat)));
                }
                _ => match (stat.st_nlink > 1).then(|| firsts.get(&(stat.st_dev, stat.st_ino))) {
                    Some(Some(first)) => links.push((at(dir, first), to)),
                    linked => {
                        if linked.is_some() {
                            firsts.insert((stat.st_dev, stat.st_ino), path);
                        }
                        files.push((from, stat, to));
                    }
                },
            }
        }
        let copier = Copier::new();
        let jobs: Vec<&[(PathBuf, Stat, PathBuf)]> = files.chunks(64).collect();
        in_parallel(jobs, |files, _| {
            files.iter().try_for_each(|(from, stat, to)| copier.copy(from, stat, to))
        })?;
        for (first, to) in links {
            fs::hard_link(first, &to).at("create the link", &to)?;
        }
        for (folder, metadata) in folders.iter().rev() {
            metadata.apply(folder)?;
        }
        let hex = |bytes: &Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut sidecar = Sidecar {
            whiteouts: of(false).cloned().collect(),
            devices: ledger.devices.clone(),
            capabilities: ledger
                .capabilities
                .iter()
                .map(|(path, bytes)| (path.clone(), hex(bytes)))
                .collect(),
            owners: ledger.owners.clone(),
            ..Sidecar::default()
        };
        // No layer says anything of the root.
        sidecar.implied.insert(EntryPath::default());
        Ok(Lower { tree: dir.to_owned(), sidecar: Some(sidecar), ledger: Arc::default() })
    }

    /// Makes the tree that of the layers below and `layer`, which is what was set aside of it.
    pub fn go_on(&mut self, layer: Option<Lower>, extras: &Extras) -> Result<(), Error> {
        self.part_links()?;
        self.root.apply(&self.merged)?;
        let fresh = layer.map(|layer| {
            self.lowers.push(layer);
            self.lowers.len() - 1
        });
        // What a step has made of an extra is no part of what the next one stands on.
        let mut stay = Vec::new();
        for path in std::mem::take(&mut self.extras).into_keys() {
            let place = self.merged.join(path.as_path());
            let stays = fresh.is_some_and(|fresh| {
                fs::symlink_metadata(self.lowers[fresh].tree.join(path.as_path())).is_ok()
            });
            let Some(stat) = stat(&place)? else { continue };
            if stays {
                continue;
            }
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                stay.push(path);
                continue;
            }
            keep_time(&place, || {
                fs::remove_file(&place).at("remove", &place)?;
                let Some(known) = self.snapshot.find(path.as_bytes()) else { return Ok(()) };
                let from = self.lowers[usize::from(known.origin)].tree.join(path.as_path());
                let stat = rustix::fs::lstat(&from).at("look at", &from)?;
                Ok(Copier::new().copy(&from, &stat, &place)?)
            })?;
        }
        self.begin(extras, fresh, stay)
    }

    /// Adds the extras and takes the snapshot.
    fn begin(
        &mut self,
        extras: &Extras,
        fresh: Option<usize>,
        mut made: Vec<EntryPath>,
    ) -> Result<(), Error> {
        made.append(&mut extras::place(&self.merged, extras)?);
        self.root.apply(&self.merged)?;
        let (snapshot, newest) = self.scan(fresh)?;
        self.snapshot = snapshot;
        self.extras = BTreeMap::new();
        for path in made {
            if let Some(stat) = stat(&self.merged.join(path.as_path()))? {
                self.extras.insert(path, print_of(&stat));
            }
        }
        self.wait_past(newest)
    }

    /// Waits until the file system gives later times than the newest of the snapshot: a change within
    /// the same tick would not show.
    fn wait_past(&self, newest: (i64, u64)) -> Result<(), Error> {
        let clock = self.space.join("clock");
        for _ in 0..TICKS {
            fs::write(&clock, b"").at("write", &clock)?;
            let stat = rustix::fs::lstat(&clock).at("look at", &clock)?;
            if (stat.st_ctime, stat.st_ctime_nsec) > newest {
                break;
            }
            std::thread::sleep(TICK);
        }
        Ok(())
    }

    /// Looks at the whole tree. An entry is of the layer that it was of, or of the `fresh` one; what
    /// no layer has is left out.
    fn scan(&self, fresh: Option<usize>) -> Result<(Snapshot, (i64, u64)), Error> {
        let next = AtomicU32::new(1);
        let folders = Mutex::new(Vec::new());
        let last = Mutex::new((0, 0));
        let work = |job: (Vec<u8>, u32, Option<u32>), more: &mut Vec<_>| -> Result<(), Error> {
            let (path, number, old) = job;
            let mut found = Vec::new();
            let mut newest = (0, 0);
            each(&self.merged, &path, &mut |name, below, stat| {
                newest = newest.max((stat.st_ctime, stat.st_ctime_nsec));
                let known = old.and_then(|old| self.snapshot.entry(old, name));
                let entry = EntryPath::from(below);
                let is_fresh = fresh.filter(|fresh| {
                    fs::symlink_metadata(self.lowers[*fresh].tree.join(entry.as_path())).is_ok()
                });
                let origin = match (is_fresh, known) {
                    (Some(fresh), _) => index(fresh),
                    (None, Some(known)) => known.origin,
                    (None, None) => return,
                };
                let mut folder = 0;
                if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                    folder = next.fetch_add(1, Ordering::Relaxed);
                    more.push((below.to_vec(), folder, known.and_then(|known| known.folder)));
                }
                let name = name.to_vec();
                found.push(Found { name, print: print_of(stat), origin, folder });
            })?;
            found.sort_unstable_by(|one, other| one.name.cmp(&other.name));
            folders.lock().unwrap_or_else(PoisonError::into_inner).push((number, found));
            let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
            *last = newest.max(*last);
            Ok(())
        };
        in_parallel(vec![(Vec::new(), 0, Some(0))], work)?;
        let folders = folders.into_inner().unwrap_or_else(PoisonError::into_inner);
        let newest = last.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok((Snapshot::of(folders), newest))
    }

    /// Parts files of several names, as they are for an overlay whose lower layer has them; and gives
    /// whole seconds to all, as in an unpacked layer.
    fn part_links(&self) -> Result<(), Error> {
        let linked = Mutex::new(Vec::new());
        in_parallel(vec![Vec::new()], |path: Vec<u8>, more| {
            let mut fractions = Vec::new();
            each(&self.merged, &path, &mut |_, below, stat| {
                if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                    more.push(below.to_vec());
                } else if stat.st_nlink > 1 {
                    let id = (stat.st_dev, stat.st_ino);
                    let mut linked = linked.lock().unwrap_or_else(PoisonError::into_inner);
                    linked.push((id, below.to_vec()));
                }
                if stat.st_mtime_nsec != 0 {
                    fractions.push((below.to_vec(), *stat));
                }
            })?;
            for (path, mut stat) in fractions {
                stat.st_mtime_nsec = 0;
                let place = at(&self.merged, &path);
                rustix::fs::utimensat(CWD, &place, &times_of(&stat), AtFlags::SYMLINK_NOFOLLOW)
                    .at("set the time of", &place)?;
            }
            Ok::<(), Error>(())
        })?;
        let mut linked = linked.into_inner().unwrap_or_else(PoisonError::into_inner);
        linked.sort_unstable();
        let copier = Copier::new();
        for pair in linked.windows(2) {
            if pair[0].0 != pair[1].0 {
                continue;
            }
            let place = at(&self.merged, &pair[1].1);
            let stat = rustix::fs::lstat(&place).at("look at", &place)?;
            keep_time(&place, || {
                let new = self.space.join("parted");
                copier.copy(&place, &stat, &new)?;
                Ok(fs::rename(&new, &place).at("replace", &place)?)
            })?;
        }
        Ok(())
    }
}

/// How many bytes of a folder's files are copied in one job.
const SHARE: u64 = 8 << 20;

/// What is to be copied.
enum Job {
    Folder { path: Vec<u8>, number: u32, sources: Vec<u16> },
    Files(Vec<(PathBuf, Stat, PathBuf)>),
}

#[derive(Default)]
struct Done {
    folders: Vec<(u32, Vec<Found>)>,
    metadata: Vec<(Vec<u8>, Folder)>,
}

/// The copying of a stack.
struct Copying<'a> {
    flat: &'a Flat<'a>,
    lowers: &'a [Lower],
    merged: &'a Path,
    copier: Copier,
    next: AtomicU32,
    done: Mutex<Done>,
}

impl Copying<'_> {
    fn job(&self, job: &Job, more: &mut Vec<Job>) -> Result<(), Error> {
        match job {
            Job::Folder { path, number, sources } => self.folder(path, *number, sources, more),
            Job::Files(files) => Ok(self.files(files)?),
        }
    }

    fn files(&self, files: &[(PathBuf, Stat, PathBuf)]) -> Result<(), disk::Error> {
        files.iter().try_for_each(|(from, stat, to)| self.copier.copy(from, stat, to))
    }

    fn folder(
        &self,
        folder: &[u8],
        number: u32,
        sources: &[u16],
        more: &mut Vec<Job>,
    ) -> Result<(), Error> {
        let into = at(self.merged, folder);
        let mut found = Vec::new();
        let mut metadata = Vec::new();
        let (mut files, mut bytes) = (Vec::new(), 0);
        for (name, seen) in self.flat.folder(folder, sources)? {
            let mut path = folder.to_vec();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(&name);
            let to = into.join(std::ffi::OsStr::from_bytes(&name));
            let mut folder = 0;
            match FileType::from_raw_mode(seen.stat.st_mode) {
                FileType::Directory => {
                    rustix::fs::mkdir(&to, Mode::RWXU).at("create the folder", &to)?;
                    folder = self.next.fetch_add(1, Ordering::Relaxed);
                    metadata.push((path.clone(), Folder::from_stat(&seen.stat)));
                    more.push(Job::Folder { path, number: folder, sources: seen.sources });
                }
                FileType::Socket => continue,
                _ => {
                    let from = at(&self.lowers[usize::from(seen.origin)].tree, &path);
                    bytes += room_of(&seen.stat);
                    files.push((from, seen.stat, to));
                    if bytes > SHARE {
                        more.push(Job::Files(std::mem::take(&mut files)));
                        bytes = 0;
                    }
                }
            }
            found.push(Found { name, print: 0, origin: seen.origin, folder });
        }
        self.files(&files)?;
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        done.folders.push((number, found));
        done.metadata.append(&mut metadata);
        Ok(())
    }
}

/// Takes the name, the path and the metadata of an entry.
type Take<'t> = dyn FnMut(&[u8], &[u8], &Stat) + 't;

/// Looks at each entry of a folder of a tree; gives its name, its path and its metadata.
pub fn each(tree: &Path, path: &[u8], take: &mut Take<'_>) -> Result<(), Error> {
    let dir = at(tree, path);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(CWD, &dir, flags, Mode::empty()).at("open", &dir)?;
    let mut below = path.to_vec();
    if !below.is_empty() {
        below.push(b'/');
    }
    let length = below.len();
    for entry in Dir::read_from(&fd).at("list", &dir)? {
        let entry = entry.at("list", &dir)?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let stat = match rustix::fs::statat(&fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => continue,
            other => other.at("look into", &dir)?,
        };
        below.extend_from_slice(name.to_bytes());
        take(name.to_bytes(), &below, &stat);
        below.truncate(length);
    }
    Ok(())
}

/// Does something to an entry without its showing in the folder's time.
pub(super) fn keep_time(
    place: &Path,
    act: impl FnOnce() -> Result<(), Error>,
) -> Result<(), Error> {
    let folder = place.parent().unwrap_or(place);
    let before = rustix::fs::lstat(folder).at("look at", folder)?;
    act()?;
    rustix::fs::utimensat(CWD, folder, &times_of(&before), AtFlags::SYMLINK_NOFOLLOW)
        .at("set the time of", folder)?;
    Ok(())
}

fn stat(path: &Path) -> Result<Option<Stat>, Error> {
    match rustix::fs::lstat(path) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(disk::Error::new("look at", path, errno).into()),
    }
}

fn at(root: &Path, path: &[u8]) -> PathBuf {
    root.join(std::ffi::OsStr::from_bytes(path))
}
