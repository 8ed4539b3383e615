//! Where the trees of a build lie: in memory while they fit, else on disk; and one folder there for
//! each layer that is made.

use std::path::{Path, PathBuf};

use crate::build::Error;
use crate::disk::{self, At, Charge};
use crate::report::Report;
use crate::rootfs::{self, Space, TreeKind, TreeRequest};
use crate::sandbox::Mode;
use crate::store::Run;

/// The share of the memory that is available which a build's trees may take.
const SHARE: u64 = 2;
/// With less than this the trees go to disk at once: an apt install alone writes as much.
const LEAST: u64 = 512 << 20;

/// Folders for trees where the store's own is served by another machine.
const LOCAL: [&str; 2] = ["/var/tmp", "/tmp"];

/// Returns the folder in which the trees of a build go to disk; `run` is one on the store's disk.
pub fn place_of_trees(run: &Path, scratch: Option<&Path>) -> PathBuf {
    let local = || LOCAL.into_iter().map(Path::new).find(|dir| !rootfs::is_network(dir));
    match scratch {
        None if rootfs::is_network(run) => local().unwrap_or(run),
        None => run,
        Some(scratch) => scratch,
    }
    .to_owned()
}

/// The places for a build's trees.
pub(super) struct Workplace<'a> {
    memory: Option<Space>,
    /// Whether an overlay works in memory.
    stacks_in_memory: bool,
    /// The run's folder in the store.
    run: PathBuf,
    scratch: Option<PathBuf>,
    disk: Option<Disk>,
    request: TreeRequest,
    /// Whether owners are kept beside the trees.
    by_inode: bool,
    /// The account of what the trees take on disk, where that is bounded.
    charge: Option<Charge>,
    report: &'a dyn Report,
    next: u32,
}

/// The folder on disk, once it is needed.
struct Disk {
    folder: PathBuf,
    kind: TreeKind,
    /// Its owner where it is not in the store.
    _run: Option<Run>,
}

/// A folder for a layer.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub folder: PathBuf,
    pub in_memory: bool,
    pub kind: TreeKind,
}

impl<'a> Workplace<'a> {
    /// Looks for places below `run`, which is on the store's disk, or in `scratch`.
    pub(super) fn new(
        run: &Path,
        scratch: Option<&Path>,
        memory: Option<u64>,
        request: TreeRequest,
        mode: Mode,
        charge: Option<Charge>,
        report: &'a dyn Report,
    ) -> Result<Workplace<'a>, Error> {
        rootfs::claim(run)?;
        let (bound, least) = match memory {
            Some(bound) => (bound, 1),
            None => (rootfs::available_memory()? / SHARE, LEAST),
        };
        let mut stacks_in_memory = request != TreeRequest::Plain;
        let memory = if bound < least {
            report.detail("the trees go to disk: there is little free memory");
            None
        } else {
            let space = Space::memory(&run.join("memory"), bound)?;
            if stacks_in_memory && let Err(why) = rootfs::probe_overlay(space.path(), run) {
                report.detail(&format!("an overlay in memory: {why}"));
                stacks_in_memory = false;
            }
            Some(space)
        };
        let chosen = place_of_trees(run, scratch);
        let scratch = (chosen != run).then_some(chosen);
        if let Some(scratch) = &scratch {
            Run::sweep_in(scratch, report);
        }
        let run = run.to_owned();
        Ok(Workplace {
            memory,
            stacks_in_memory,
            run,
            scratch,
            disk: None,
            request,
            by_inode: mode == Mode::Single,
            charge,
            report,
            next: 0,
        })
    }

    /// Makes a folder for a layer, in memory unless `on_disk`. `size` tells how much a plain tree of
    /// the layers below takes, which has to find room there too.
    pub(super) fn place(
        &mut self,
        on_disk: bool,
        size: impl FnOnce() -> Result<u64, Error>,
    ) -> Result<Place, Error> {
        let used = |space: &Space| space.used().unwrap_or(u64::MAX);
        let half = |space: &Space| space.bound().unwrap_or(0) / 2;
        let memory = self.memory.as_ref().filter(|_| !on_disk);
        if let Some(space) = memory
            && self.stacks_in_memory
            && used(space) < half(space)
        {
            return self.folder(true, TreeKind::Overlay);
        }
        let (used, half) = (memory.map(used), memory.map(half));
        let kind = self.disk()?.kind;
        if let (TreeKind::Plain, Some(used), Some(half)) = (kind, used, half)
            && used.saturating_add(size()?) < half
        {
            return self.folder(true, TreeKind::Plain);
        }
        self.folder(false, kind)
    }

    /// Makes a folder for what belongs to a plain tree that is there already.
    pub(super) fn beside(&mut self, in_memory: bool) -> Result<Place, Error> {
        self.folder(in_memory, TreeKind::Plain)
    }

    fn folder(&mut self, in_memory: bool, kind: TreeKind) -> Result<Place, Error> {
        self.next += 1;
        let name = self.next.to_string();
        let folder = if let Some(memory) = self.memory.as_ref().filter(|_| in_memory) {
            memory.path().join(name)
        } else {
            let by_inode = self.by_inode;
            let dir = &self.disk()?.folder;
            if kind == TreeKind::Plain {
                rootfs::probe_plain(dir, by_inode)
                    .map_err(|source| Error::NoCopy { dir: dir.clone(), source })?;
            }
            dir.join(name)
        };
        disk::make_dirs(&folder)?;
        Ok(Place { folder, in_memory, kind })
    }

    /// Returns the place on disk, having found out what works there.
    fn disk(&mut self) -> Result<&Disk, Error> {
        let found = match self.disk.take() {
            Some(disk) => disk,
            None => self.find_disk()?,
        };
        Ok(self.disk.insert(found))
    }

    fn find_disk(&self) -> Result<Disk, Error> {
        let run = match &self.scratch {
            Some(scratch) => Some(Run::begin_in(scratch)?),
            None => None,
        };
        let folder = run.as_ref().map_or(self.run.as_path(), Run::path).join("trees");
        disk::make_dirs(&folder)?;
        rootfs::claim(&folder)?;
        let kind = match self.request {
            TreeRequest::Plain => {
                self.report.note("tree plain: a copy of the layers");
                TreeKind::Plain
            }
            request => match rootfs::probe_overlay(&folder, &self.run) {
                Ok(()) => TreeKind::Overlay,
                Err(source) if request == TreeRequest::Overlay => {
                    let dir = self.scratch.clone().unwrap_or(folder);
                    return Err(Error::NoTree { dir, source });
                }
                Err(why) => {
                    let dir = self.scratch.as_deref().unwrap_or(&folder);
                    self.report.note(&format!(
                        "tree plain: a copy of the layers, since no overlay works in {}: {why}",
                        dir.display()
                    ));
                    TreeKind::Plain
                }
            },
        };
        Ok(Disk { folder, kind, _run: run })
    }

    /// Counts what the trees take on disk, and fails where that is more than is allowed.
    pub(super) fn settle(&self) -> Result<(), Error> {
        match (&self.charge, &self.disk) {
            (Some(charge), Some(disk)) => {
                Ok(charge.set(disk::usage(&disk.folder)).at("write to", &disk.folder)?)
            }
            _ => Ok(()),
        }
    }

    /// Tells whether so much more finds room in memory.
    pub(super) fn has_room(&self, bytes: u64) -> bool {
        self.memory.as_ref().is_some_and(|space| space.has_room(bytes).unwrap_or(false))
    }

    /// Tells whether the memory is so full that a step in it must be stopped.
    pub(super) fn is_nearly_full(&self) -> bool {
        self.memory.as_ref().is_some_and(|space| space.is_nearly_full().unwrap_or(false))
    }
}

impl Drop for Workplace<'_> {
    fn drop(&mut self) {
        if let Some(disk) = &self.disk {
            // What cannot be removed now is swept by the next run there.
            rootfs::remove_tree(&disk.folder).ok();
        }
    }
}
