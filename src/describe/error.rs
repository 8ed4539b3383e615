//! What can go wrong while an image is described.

use std::io;
use std::path::PathBuf;

use super::sign;
use crate::fault::{self, Fault, Kind};
use crate::oci::{Digest, json};
use crate::{disk, layer, transfer};

/// An image could not be described.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A layer could not be had.
    #[error(transparent)]
    Transfer(#[from] transfer::Error),
    /// A layer could not be read.
    #[error(transparent)]
    Layer(#[from] layer::Error),
    /// A layer of a kind that nobody here can read.
    #[error("layer {digest} is a `{media_type}`, whose packages cannot be read")]
    NoLayer {
        /// The layer.
        digest: Digest,
        /// Its type.
        media_type: String,
    },
    /// A file could not be read or written.
    #[error(transparent)]
    Disk(#[from] disk::Error),
    /// A file of a recipe that is not what it was when the build began.
    #[error("`{}` has changed since the build began", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// A recipe that lies elsewhere.
    #[error("`{}` lies outside of the project's folder `{}`", path.display(), root.display())]
    Outside {
        /// The file.
        path: PathBuf,
        /// The folder above the definition's.
        root: PathBuf,
    },
    /// A tar of a project could not be written or read.
    #[error("cannot pack or unpack the project")]
    Tar(#[source] io::Error),
    /// A tar of a project holds what is none of a project's.
    #[error("the project holds `{}`, which is refused", name.display())]
    Stray {
        /// The entry.
        name: PathBuf,
    },
    /// A signature could not be made.
    #[error(transparent)]
    Sign(#[from] sign::Error),
    /// A document of our own that has no canonical form.
    #[error("cannot encode what describes the image")]
    Encode(#[from] json::EncodeError),
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Error::Transfer(error) => error.kind(),
            Error::Layer(error) => error.kind(),
            Error::Sign(error) => error.kind(),
            Error::Disk(error) => error.kind(),
            Error::Tar(error) => fault::kind_of_io(error),
            Error::NoLayer { .. }
            | Error::Changed { .. }
            | Error::Outside { .. }
            | Error::Stray { .. } => Kind::Failed,
            Error::Encode(_) => Kind::Bug,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Error::Transfer(error) => error.hint(),
            Error::Layer(error) => error.hint(),
            Error::Sign(error) => error.hint(),
            Error::Disk(error) => error.hint(),
            Error::Tar(error) => fault::hint_of_io(error),
            Error::Changed { .. } => Some("build again".to_owned()),
            Error::NoLayer { .. }
            | Error::Outside { .. }
            | Error::Stray { .. }
            | Error::Encode(_) => None,
        }
    }
}
