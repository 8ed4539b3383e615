//! Removal of trees in which something may be mounted.

use std::path::Path;

use rustix::io::Errno;

use crate::disk;
use crate::rootfs::Error;

/// Removes a file or a tree, as [`disk::remove_tree`] does. What is mounted inside is left alone, with
/// [`Error::MountedBelow`].
pub fn remove_tree(path: &Path) -> Result<(), Error> {
    disk::remove_tree(path).map_err(|error| match Errno::from_io_error(error.io()) {
        Some(Errno::XDEV) => Error::MountedBelow { path: error.path().to_owned() },
        _ => error.into(),
    })
}
