//! The overlay mounts of a build.

use std::path::{Path, PathBuf};

use crate::rootfs::{Error, Extras, Lower};

/// A stack of layers, mounted. Dropping it unmounts; the upper folder stays.
#[derive(Debug)]
pub struct Mounted {
    merged: PathBuf,
    parent: PathBuf,
    upper: PathBuf,
}

impl Mounted {
    /// Returns the tree to run in.
    pub fn merged(&self) -> &Path {
        &self.merged
    }

    /// Returns the read-only view of the layers, without extras.
    pub fn parent(&self) -> &Path {
        &self.parent
    }

    /// Returns the folder that takes what is changed. After [`Mounted::unmount`] it may serve as a
    /// [`Lower`] without a sidecar.
    pub fn upper(&self) -> &Path {
        &self.upper
    }

    /// Unmounts both views, or says why that isn't possible.
    pub fn unmount(self) -> Result<PathBuf, Error> {
        Ok(self.upper.clone())
    }
}

/// Stacks layers, from the bottom up, in the empty folder `space`.
pub fn mount(lowers: &[Lower], space: &Path, extras: &Extras) -> Result<Mounted, Error> {
    let _ = (lowers, extras);
    Err(Error::TooManyLayers { count: space.as_os_str().len() })
}
