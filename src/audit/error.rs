//! What can go wrong while two images are compared.

use crate::disk;
use crate::fault::{Fault, Kind};
use crate::oci::{Digest, DocumentError, Platform};
use crate::{layer, transfer};

/// A comparison that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file.
    #[error(transparent)]
    Disk(#[from] disk::Error),
    /// An image could not be read from where it is.
    #[error(transparent)]
    Transfer(#[from] transfer::Error),
    /// A layer could not be read.
    #[error(transparent)]
    Layer(#[from] layer::Error),
    /// A document makes no sense.
    #[error("the image `{name}` is damaged")]
    Document {
        /// The image.
        name: String,
        /// What is wrong with it.
        #[source]
        source: DocumentError,
    },
    /// A configuration makes no sense.
    #[error("the configuration of `{name}` cannot be read")]
    Config {
        /// The image.
        name: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// A layer of a type that is not known here.
    #[error("layer {digest} of `{name}` is a `{media_type}`, which is no layer known here")]
    LayerType {
        /// The image.
        name: String,
        /// The layer.
        digest: Digest,
        /// Its type.
        media_type: String,
    },
    /// Neither has the platform that was asked for.
    #[error("neither image is for {platform}")]
    NoPlatform {
        /// Which.
        platform: Platform,
        /// Which there are.
        there: Vec<String>,
    },
    /// A thread ended without a result.
    #[error("a worker thread failed")]
    Worker,
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Error::Disk(error) => error.kind(),
            Error::Transfer(error) => error.kind(),
            Error::Layer(error) => error.kind(),
            Error::NoPlatform { .. } => Kind::Usage,
            Error::Worker => Kind::Bug,
            _ => Kind::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Error::Disk(error) => error.hint(),
            Error::Transfer(error) => error.hint(),
            Error::Layer(error) => error.hint(),
            Error::NoPlatform { there, .. } => {
                Some(format!("there is {}", crate::fault::list_of(there)))
            }
            Error::Document { .. } | Error::Config { .. } => {
                Some("pull or build it again".to_owned())
            }
            _ => None,
        }
    }
}
