//! What goes wrong between a source and a sink. The errors of the places themselves travel inside,
//! with their class and hint, so that the message is theirs.

use std::fmt;
use std::io;

use crate::fault::{self, Fault, Kind};
use crate::oci::{Digest, DocumentError, Platform};

/// A transfer that did not succeed.
#[derive(Debug, thiserror::Error)]
#[must_use]
pub enum Error {
    /// The content is not what its descriptor promised.
    #[error("the content of {expected} hashes to {actual}")]
    WrongDigest {
        /// What was asked for.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// Fewer bytes than promised.
    #[error("{digest} ended after {actual} of {expected} bytes")]
    TooShort {
        /// What was asked for.
        digest: Digest,
        /// Its size by the descriptor.
        expected: u64,
        /// How many bytes came.
        actual: u64,
    },
    /// More bytes than promised.
    #[error("{digest} has more than the {expected} bytes that it should have")]
    TooLong {
        /// What was asked for.
        digest: Digest,
        /// Its size by the descriptor.
        expected: u64,
    },
    /// A sink that gives back other bytes than it was given.
    #[error("the destination returned other bytes for {digest} than it was sent")]
    ReadBack {
        /// What was sent.
        digest: Digest,
    },
    /// A platform that was asked for is not in the image.
    #[error("{index} has no image for {wanted}")]
    NoPlatform {
        /// The index.
        index: Digest,
        /// The platform that was asked for.
        wanted: Box<Platform>,
        /// What there is.
        offered: Vec<Platform>,
    },
    /// Indexes in indexes, deeper than anyone writes them.
    #[error("{index} lists indexes too deep")]
    TooDeep {
        /// The index at which the walk ended.
        index: Digest,
    },
    /// A document that cannot be read.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// Reading or writing failed on this side.
    #[error("the transfer of {digest} failed")]
    Io {
        /// What was being moved.
        digest: Digest,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another transfer failed, so this one was given up.
    #[error("stopped because another transfer failed")]
    Stopped,
    /// The source's or the sink's own error.
    #[error(transparent)]
    Other(Other),
}

/// The error of a place that is a source or a sink.
pub struct Other(Box<dyn Fault + Send + Sync>);

impl fmt::Debug for Other {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Other {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl std::error::Error for Other {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

impl Error {
    /// Takes the error of a source or a sink.
    pub fn other(error: impl Fault + Send + Sync + 'static) -> Error {
        Error::Other(Other(Box::new(error)))
    }

    /// Takes an error that came out of a blob's stream: what a stream of this program says about
    /// itself is unpacked again.
    pub fn of_stream(digest: Digest, error: io::Error) -> Error {
        match error.downcast::<Error>() {
            Ok(error) => error,
            Err(source) => Error::Io { digest, source },
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> io::Error {
        io::Error::other(error)
    }
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Error::Other(Other(error)) => error.kind(),
            Error::Io { source, .. } => fault::kind_of_io(source),
            Error::NoPlatform { .. } => Kind::Usage,
            _ => Kind::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Error::Other(Other(error)) => error.hint(),
            Error::Io { source, .. } => fault::hint_of_io(source),
            Error::NoPlatform { offered, .. } if offered.is_empty() => None,
            Error::NoPlatform { offered, .. } => {
                Some(format!("it has {}", fault::list_of(offered)))
            }
            Error::WrongDigest { .. } | Error::TooShort { .. } | Error::TooLong { .. } => {
                Some("the source's copy is damaged, or something on the way changes it; try another source".to_owned())
            }
            Error::ReadBack { .. } => {
                Some("a proxy or a cache may stand before the destination".to_owned())
            }
            _ => None,
        }
    }
}
