//! What can go wrong with the recorder itself, and with a fetch that the builder makes.

use std::io;

use crate::fault::{self, Fault, Kind};
use crate::http;
use crate::oci::Digest;

/// A recorder that cannot work, or a fetch of the builder's that failed. URLs are redacted.
#[derive(Debug, thiserror::Error)]
#[must_use]
pub enum Error {
    /// No key or certificate could be made.
    #[error("cannot make a certificate for the recorder")]
    Certificate {
        /// Why not.
        #[source]
        source: http::Cause,
    },
    /// The recorder's thread or its sockets cannot be had.
    #[error("cannot start the recorder of the network")]
    Start {
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A URL that got no answer.
    #[error("cannot fetch {url}")]
    Fetch {
        /// The URL.
        url: String,
        /// Why not.
        #[source]
        source: http::Cause,
    },
    /// An answer that is none.
    #[error("{url} answered {status}")]
    Status {
        /// The URL.
        url: String,
        /// The answer.
        status: u16,
    },
    /// A URL that is not in the lock.
    #[error("{url} is not in the lock")]
    Unlisted {
        /// The URL.
        url: String,
    },
    /// A body that is not here and may not be fetched.
    #[error("the recorded body {digest} of {url} is not in the store")]
    Absent {
        /// The URL.
        url: String,
        /// The body.
        digest: Digest,
    },
    /// A body in the store that is not what its name says.
    #[error("the recorded body {digest} of {url} is damaged in the store")]
    Damaged {
        /// The URL.
        url: String,
        /// The body.
        digest: Digest,
    },
    /// A body that changed since it was recorded.
    #[error("{url} now gives {found}, the lock has {expected}")]
    Changed {
        /// The URL.
        url: String,
        /// What was recorded.
        expected: Digest,
        /// What is there now.
        found: Digest,
    },
    /// A body that cannot be kept or read.
    #[error("cannot keep what {url} gave")]
    Body {
        /// The URL.
        url: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Error::Start { .. } => Kind::Environment,
            Error::Body { source, .. } => fault::kind_of_io(source),
            _ => Kind::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Error::Unlisted { .. } | Error::Changed { .. } => {
                Some("renew the layer's part with `ocibuild lock NAME --update LAYER`".to_owned())
            }
            Error::Absent { .. } | Error::Damaged { .. } => {
                Some("build with the network, or fetch the inputs of the image".to_owned())
            }
            Error::Body { source, .. } => fault::hint_of_io(source),
            _ => None,
        }
    }
}
