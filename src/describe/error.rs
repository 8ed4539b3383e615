//! What can go wrong while an image is described.

use super::sign;
use crate::fault::{Fault, Kind};
use crate::oci::{Digest, json};
use crate::{layer, transfer};

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
            Error::NoLayer { .. } => Kind::Failed,
            Error::Encode(_) => Kind::Bug,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Error::Transfer(error) => error.hint(),
            Error::Layer(error) => error.hint(),
            Error::Sign(error) => error.hint(),
            Error::NoLayer { .. } | Error::Encode(_) => None,
        }
    }
}
