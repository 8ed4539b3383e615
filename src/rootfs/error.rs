//! What can go wrong when layers are stacked.

use std::io;
use std::path::PathBuf;

use crate::disk;
use crate::fault::{self, Fault, Kind};
use crate::rootfs::Why;

/// Layers that could not be stacked, or a tree that could not be handled.
#[derive(Debug, thiserror::Error)]
#[must_use]
pub enum Error {
    /// A file operation.
    #[error(transparent)]
    Disk(#[from] disk::Error),
    /// The kernel refused a mount.
    #[error("cannot mount {what} at {}{}", at.display(), said(kernel))]
    Mount {
        /// What was to be mounted.
        what: &'static str,
        /// Where.
        at: PathBuf,
        /// What the kernel said in words, where it did.
        kernel: String,
        /// Its error.
        #[source]
        source: io::Error,
    },
    /// Overlay can't be used in a folder.
    #[error("an overlay does not work in {}", dir.display())]
    Overlay {
        /// The folder that was tried.
        dir: PathBuf,
        /// What failed.
        #[source]
        why: Why,
    },
    /// More layers than this kernel can stack.
    #[error("{count} layers are more than this kernel stacks in one overlay")]
    TooManyLayers {
        /// How many folders there are.
        count: usize,
    },
    /// A path that has to be a folder in the image is something else.
    #[error("`/{path}` is not a folder in the layers below, but a folder is needed there")]
    NotAFolder {
        /// The path in the tree.
        path: String,
    },
    /// What is created in a folder belongs to a group that this build has no power over.
    #[error("files in {} do not get this user's group, or do not keep their modes", dir.display())]
    Claim {
        /// The folder.
        dir: PathBuf,
        /// Why that could not be changed, where something was refused.
        #[source]
        source: Option<io::Error>,
    },
    /// A tree has something mounted in it.
    #[error("{} lies on another file system, so that it isn't removed", path.display())]
    MountedBelow {
        /// Where the other file system begins.
        path: PathBuf,
    },
}

impl Error {
    /// Tells whether there was no room.
    pub fn is_full(&self) -> bool {
        matches!(self, Error::Disk(error) if error.io().kind() == io::ErrorKind::StorageFull)
    }
}

fn said(kernel: &str) -> String {
    if kernel.is_empty() { String::new() } else { format!(": {kernel}") }
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Error::Disk(error) => error.kind(),
            Error::Mount { .. }
            | Error::Overlay { .. }
            | Error::Claim { .. }
            | Error::TooManyLayers { .. } => Kind::Environment,
            Error::NotAFolder { .. } | Error::MountedBelow { .. } => Kind::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Error::Disk(error) => error.hint(),
            Error::Mount { source, .. } => fault::hint_of_io(source),
            Error::Overlay { why, .. } => Some(why.hint().to_owned()),
            Error::TooManyLayers { .. } => Some(
                "Linux 6.8 and later stack up to 500 folders; flatten the base on older ones"
                    .to_owned(),
            ),
            Error::Claim { dir, .. } => Some(format!(
                "run `chmod g-s` and `chgrp` with a group of yours on {}, or choose a folder \
                 outside of the project's with --store and --scratch",
                dir.display()
            )),
            Error::NotAFolder { .. } => None,
            Error::MountedBelow { path } => Some(format!("unmount {} first", path.display())),
        }
    }
}
