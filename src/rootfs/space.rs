//! Where a build's trees lie: a tmpfs of bounded size, or a folder on disk.

use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags};

use crate::disk::{self, At};
use crate::rootfs::Error;

/// A folder for a build's trees. A tmpfs of its own is unmounted when it is dropped.
#[derive(Debug)]
pub struct Space {
    path: PathBuf,
    bound: Option<u64>,
}

impl Space {
    /// Mounts a tmpfs of at most `bytes` on the folder `dir`, which is made if need be.
    ///
    /// It holds user extended attributes from Linux 6.6 on; [`crate::rootfs::probe_overlay`] tells.
    pub fn memory(dir: &Path, bytes: u64) -> Result<Space, Error> {
        disk::make_dirs(dir)?;
        let options = format!("mode=0755,size={bytes},nr_inodes=0");
        let options = std::ffi::CString::new(options).unwrap_or_default();
        // Device nodes are of no use here, but the whiteouts of an overlay are opened through it.
        rustix::mount::mount("tmpfs", dir, "tmpfs", MountFlags::NOATIME, options.as_c_str())
            .map_err(|errno| Error::Mount {
                what: "memory for a tree",
                at: dir.to_owned(),
                kernel: String::new(),
                source: errno.into(),
            })?;
        Ok(Space { path: dir.to_owned(), bound: Some(bytes) })
    }

    /// Uses a folder on disk, which is made if need be.
    pub fn disk(dir: &Path) -> Result<Space, Error> {
        disk::make_dirs(dir)?;
        Ok(Space { path: dir.to_owned(), bound: None })
    }

    /// Returns the folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns how many bytes it may hold; `None` on disk, where others share what is free.
    pub fn bound(&self) -> Option<u64> {
        self.bound
    }

    /// Returns how many bytes of its file system are in use: by this space alone in memory, by
    /// everybody on disk.
    pub fn used(&self) -> Result<u64, Error> {
        let stat = rustix::fs::statvfs(&self.path).at("look at", &self.path)?;
        Ok((stat.f_blocks - stat.f_bfree) * stat.f_frsize)
    }

    /// Tells whether four fifths of its bound are used up. A step that meets a full file system and
    /// goes on would give a wrong layer with status 0: it has to be stopped before.
    pub fn is_nearly_full(&self) -> Result<bool, Error> {
        Ok(!self.has_room(0)?)
    }

    /// Tells whether it can take so much more without being nearly full.
    pub fn has_room(&self, bytes: u64) -> Result<bool, Error> {
        match self.bound {
            Some(bound) => Ok(self.used()?.saturating_add(bytes) < bound / 5 * 4),
            None => Ok(true),
        }
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        if self.bound.is_some() {
            // Nobody is left to tell; the mount ends with the namespace.
            rustix::mount::unmount(&self.path, UnmountFlags::DETACH).ok();
        }
    }
}
