//! What can go wrong between a tree and a blob.

use std::io;
use std::path::PathBuf;

use crate::disk;
use crate::fault::{self, Fault, Kind};
use crate::oci::Digest;

/// Why an entry of a tar is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryProblem {
    /// The name begins with a slash.
    #[error("its name is absolute")]
    Absolute,
    /// A `..` in the name.
    #[error("its name leads out of the layer")]
    Escape,
    /// No name at all, or one with a NUL byte.
    #[error("its name is no path")]
    NoName,
    /// A folder on the way is a symbolic link.
    #[error("its way leads through the symbolic link `{0}`")]
    ThroughLink(String),
    /// Something on the way, or in its place, is of another type.
    #[error("`{0}` is in its way")]
    InTheWay(String),
    /// A hard link to something outside, or not in this layer.
    #[error("it is a hard link to `{0}`, which this layer does not have")]
    LinkTarget(String),
    /// A whiteout that would hide its own folder or more.
    #[error("it is a whiteout without a proper name")]
    Whiteout,
    /// The type of entry is not one of a layer.
    #[error("entries of type `{0}` are not supported")]
    Type(char),
    /// The header is damaged.
    #[error("its header is damaged ({0})")]
    Header(&'static str),
    /// Two records give different sizes.
    #[error("its size is {header} by its header and {record} by its extended header")]
    SizeConflict {
        /// By the header.
        header: u64,
        /// By the extended header.
        record: u64,
    },
    /// Owner or group are outside of what the user namespace maps.
    #[error("its owner {uid}:{gid} is beyond the user ids that this process can give")]
    Owner {
        /// The owner.
        uid: u64,
        /// The group.
        gid: u64,
    },
    /// A stated bound is exceeded.
    #[error("{what} goes beyond the bound of {bound}")]
    Bound {
        /// Which quantity.
        what: &'static str,
        /// How much is allowed.
        bound: u64,
    },
}

/// A layer could not be written, packed, unpacked or normalised.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the tree could not be read or written.
    #[error(transparent)]
    Disk(#[from] disk::Error),
    /// The place that the blob goes to, or comes from, failed.
    #[error("cannot {action} the layer's blob")]
    Blob {
        /// Read or write.
        action: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A file changed its size while it was being read.
    #[error("`{}` changed while it was being read into the layer", path.display())]
    Unsteady {
        /// The file.
        path: PathBuf,
    },
    /// A tree holds what a layer cannot.
    #[error("`{}` cannot be put into a layer: {problem}", path.display())]
    Unfit {
        /// The file.
        path: PathBuf,
        /// Why not.
        problem: &'static str,
    },
    /// An entry of a layer's tar is refused.
    #[error("entry `{name}` of layer {digest} is refused: {problem}")]
    Entry {
        /// The entry's name, lossily.
        name: String,
        /// The layer's blob.
        digest: Digest,
        /// What is wrong with it.
        problem: EntryProblem,
    },
    /// The blob as a whole is refused, by a bound.
    #[error("layer {digest} is refused: {problem}")]
    Refused {
        /// The layer's blob.
        digest: Digest,
        /// What is wrong with it.
        problem: EntryProblem,
    },
    /// The compressed stream is damaged.
    #[error("layer {digest} does not decompress: {problem}")]
    Damaged {
        /// The layer's blob.
        digest: Digest,
        /// What the decoder says.
        problem: String,
    },
    /// The stream ends in the midst of something.
    #[error("layer {digest} ends too early, after {got} bytes")]
    Truncated {
        /// The layer's blob.
        digest: Digest,
        /// Bytes of the tar that came.
        got: u64,
    },
    /// Something follows the end.
    #[error("layer {digest} has something after its end")]
    Trailing {
        /// The layer's blob.
        digest: Digest,
    },
    /// The compressed bytes are not those of the descriptor.
    #[error("layer {expected} arrived as {found} with {size} bytes")]
    WrongDigest {
        /// The layer's blob.
        expected: Digest,
        /// What came.
        found: Digest,
        /// How many bytes came.
        size: u64,
    },
    /// The blob is longer or shorter than its descriptor says.
    #[error("layer {digest} has {found} bytes, not {expected}")]
    WrongSize {
        /// The layer's blob.
        digest: Digest,
        /// By its descriptor.
        expected: u64,
        /// What came; at least, when it is more.
        found: u64,
    },
    /// The tar is not the one that the image's config names.
    #[error("layer {digest} unpacks to {found}, but the image's config says {expected}")]
    WrongDiffId {
        /// The layer's blob.
        digest: Digest,
        /// By the config.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// A worker thread ended without a result.
    #[error("a worker thread failed")]
    Worker,
    /// No rule of this name.
    #[error("there is no rule `{0}`")]
    NoSuchRule(String),
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Error::Disk(error) => error.kind(),
            Error::Blob { source, .. } => fault::kind_of_io(source),
            Error::Entry { problem: EntryProblem::Owner { .. }, .. } => Kind::Environment,
            Error::Worker => Kind::Bug,
            Error::NoSuchRule(_) => Kind::Usage,
            _ => Kind::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Error::Disk(error) => error.hint(),
            Error::Blob { source, .. } => fault::hint_of_io(source),
            Error::Entry { problem: EntryProblem::Owner { .. }, .. } => Some(
                "give this user a larger range in /etc/subuid and /etc/subgid, 65536 ids are usual"
                    .to_owned(),
            ),
            Error::WrongDigest { .. } | Error::WrongSize { .. } | Error::Truncated { .. } => Some(
                "pull the image again; if it stays so, its registry holds damaged data".to_owned(),
            ),
            Error::NoSuchRule(_) => Some("`ocibuild rules` lists them".to_owned()),
            _ => None,
        }
    }
}
