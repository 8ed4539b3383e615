//! Where the trees of a build lie: in memory while they fit, else on disk; and one folder there for
//! each layer that is made.

use std::path::{Path, PathBuf};

use crate::build::Error;
use crate::disk;
use crate::report::Report;
use crate::rootfs::{self, Space};

/// The share of the memory that is available which a build's trees may take.
const SHARE: u64 = 2;
/// With less than this the trees go to disk at once: an apt install alone writes as much.
const LEAST: u64 = 512 << 20;

/// The places for a build's trees.
#[derive(Debug)]
pub(super) struct Workplace {
    memory: Option<Space>,
    disk: PathBuf,
    probed: bool,
    next: u32,
}

impl Workplace {
    /// Looks for places below `run`, which is on the store's disk, or in `scratch`.
    pub(super) fn new(
        run: &Path,
        scratch: Option<&Path>,
        memory: Option<u64>,
        report: &dyn Report,
    ) -> Result<Workplace, Error> {
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
        let memory = if bound < least {
            report.detail("the trees go to disk: there is little free memory");
            None
        } else {
            let space = Space::memory(&run.join("memory"), bound)?;
            match rootfs::probe_overlay(space.path()) {
                Ok(()) => Some(space),
                Err(why) => {
                    report.detail(&format!("the trees go to disk: an overlay in memory: {why}"));
                    None
                }
            }
        };
        Ok(Workplace { memory, disk, probed: false, next: 0 })
    }

    /// Makes a folder for a layer, in memory unless `on_disk`. Tells whether it is in memory.
    pub(super) fn folder(&mut self, on_disk: bool) -> Result<(PathBuf, bool), Error> {
        self.next += 1;
        let name = self.next.to_string();
        let roomy =
            |space: &Space| space.used().is_ok_and(|used| used < space.bound().unwrap_or(0) / 2);
        if let Some(space) = self.memory.as_ref().filter(|space| !on_disk && roomy(space)) {
            let dir = space.path().join(name);
            disk::make_dirs(&dir)?;
            return Ok((dir, true));
        }
        disk::make_dirs(&self.disk)?;
        if !self.probed {
            rootfs::claim(&self.disk)?;
            rootfs::probe_overlay(&self.disk)
                .map_err(|source| Error::NoTree { dir: self.disk.clone(), source })?;
            self.probed = true;
        }
        let dir = self.disk.join(name);
        disk::make_dirs(&dir)?;
        Ok((dir, false))
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
