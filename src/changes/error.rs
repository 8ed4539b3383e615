//! What can go wrong while looking for changes.

use std::path::PathBuf;

use crate::disk;
use crate::fault::{Fault, Kind};
use crate::rootfs;

/// Changes could not be determined.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The tree could not be read.
    #[error(transparent)]
    Disk(#[from] disk::Error),
    /// A tree could not be walked.
    #[error(transparent)]
    Tree(#[from] rootfs::Error),
    /// An upper folder was written by an overlay with features that are switched off here.
    #[error("`{}` carries overlay's `{attribute}`, which only another mount can have written", path.display())]
    Foreign {
        /// The entry of the upper folder.
        path: PathBuf,
        /// The extended attribute.
        attribute: &'static str,
    },
    /// A file vanished or changed between listing and reading: something still runs in the tree.
    #[error("`{}` changed while the layer's changes were being read", path.display())]
    Unsteady {
        /// The file.
        path: PathBuf,
    },
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Error::Disk(error) => error.kind(),
            Error::Tree(error) => error.kind(),
            Error::Foreign { .. } => Kind::Bug,
            Error::Unsteady { .. } => Kind::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Error::Disk(error) => error.hint(),
            Error::Tree(error) => error.hint(),
            Error::Foreign { .. } | Error::Unsteady { .. } => None,
        }
    }
}
