//! Where the trees of a build lie: in memory while they fit, else on disk; and one folder there for
//! each layer that is made.

use std::path::{Path, PathBuf};

use crate::build::Error;
use crate::disk;
use crate::report::Report;
use crate::rootfs::{self, Space, TreeKind, TreeRequest};

/// The share of the memory that is available which a build's trees may take.
const SHARE: u64 = 2;
/// With less than this the trees go to disk at once: an apt install alone writes as much.
const LEAST: u64 = 512 << 20;

/// Folders for trees where the store's own is served by another machine.
const LOCAL: [&str; 2] = ["/var/tmp", "/tmp"];

/// The places for a build's trees.
#[derive(Debug)]
pub(super) struct Workplace {
    memory: Option<Space>,
    /// Whether an overlay works in memory.
    stacks_in_memory: bool,
    disk: PathBuf,
    on_disk: Option<TreeKind>,
    request: TreeRequest,
    next: u32,
}

/// A folder for a layer.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub folder: PathBuf,
    pub in_memory: bool,
    pub kind: TreeKind,
}

impl Workplace {
    /// Looks for places below `run`, which is on the store's disk, or in `scratch`.
    pub(super) fn new(
        run: &Path,
        scratch: Option<&Path>,
        memory: Option<u64>,
        request: TreeRequest,
        report: &dyn Report,
    ) -> Result<Workplace, Error> {
        let local = || LOCAL.into_iter().map(Path::new).find(|dir| !rootfs::is_network(dir));
        let scratch = match scratch {
            None if rootfs::is_network(run) => local(),
            scratch => scratch,
        };
        let disk = match scratch {
            // Named after the run, so that two builds do not meet there.
            Some(scratch) => scratch.join(format!("ocibuild-{}", std::process::id())),
            None => run.join("trees"),
        };
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
            if stacks_in_memory && let Err(why) = rootfs::probe_overlay(space.path()) {
                report.detail(&format!("an overlay in memory: {why}"));
                stacks_in_memory = false;
            }
            Some(space)
        };
        Ok(Workplace { memory, stacks_in_memory, disk, on_disk: None, request, next: 0 })
    }

    /// Makes a folder for a layer, in memory unless `on_disk`. `size` tells how much a plain tree of
    /// the layers below takes, which has to find room there too.
    pub(super) fn place(
        &mut self,
        on_disk: bool,
        size: impl FnOnce() -> Result<u64, Error>,
        report: &dyn Report,
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
        let kind = self.kind_on_disk(report)?;
        if let (TreeKind::Plain, Some(used), Some(half)) = (kind, used, half)
            && used.saturating_add(size()?) < half
        {
            return self.folder(true, TreeKind::Plain);
        }
        self.folder(false, kind)
    }

    /// Makes a folder for a layer whose tree is there already.
    pub(super) fn beside(&mut self, in_memory: bool) -> Result<Place, Error> {
        self.folder(in_memory, TreeKind::Plain)
    }

    /// Makes a folder on disk for what a plain tree in memory leaves.
    pub(super) fn on_disk(&mut self, report: &dyn Report) -> Result<PathBuf, Error> {
        self.kind_on_disk(report)?;
        Ok(self.folder(false, TreeKind::Plain)?.folder)
    }

    fn folder(&mut self, in_memory: bool, kind: TreeKind) -> Result<Place, Error> {
        self.next += 1;
        let memory = self.memory.as_ref().filter(|_| in_memory);
        let folder = memory.map_or(self.disk.as_path(), Space::path).join(self.next.to_string());
        disk::make_dirs(&folder)?;
        Ok(Place { folder, in_memory, kind })
    }

    /// Finds out what works on disk.
    fn kind_on_disk(&mut self, report: &dyn Report) -> Result<TreeKind, Error> {
        if let Some(kind) = self.on_disk {
            return Ok(kind);
        }
        disk::make_dirs(&self.disk)?;
        rootfs::claim(&self.disk)?;
        let kind = match self.request {
            TreeRequest::Plain => {
                report.note("tree plain: a copy of the layers");
                TreeKind::Plain
            }
            request => match rootfs::probe_overlay(&self.disk) {
                Ok(()) => TreeKind::Overlay,
                Err(source) if request == TreeRequest::Overlay => {
                    return Err(Error::NoTree { dir: self.disk.clone(), source });
                }
                Err(why) => {
                    report.note(&format!(
                        "tree plain: a copy of the layers, since no overlay works in {}: {why}",
                        self.disk.display()
                    ));
                    TreeKind::Plain
                }
            },
        };
        self.on_disk = Some(kind);
        Ok(kind)
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

impl Drop for Workplace {
    fn drop(&mut self) {
        // What cannot be removed now is swept with the run's folder, or lies in the user's scratch.
        rootfs::remove_tree(&self.disk).ok();
    }
}
