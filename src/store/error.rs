//! What can go wrong with a store or an image file, and the two ways to take a lock that tell a
//! file system without locks from other trouble.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::disk::{self, At, Lock};
use crate::fault::{self, Fault, Kind};
use crate::oci::{Digest, DocumentError, Platform, Reference, ReferenceError, json};
use crate::transfer;

/// A store or an image file that could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file operation failed.
    #[error(transparent)]
    Disk(#[from] disk::Error),
    /// The folder holds something else.
    #[error("{} is neither empty nor a store", path.display())]
    NotAStore {
        /// The folder.
        path: PathBuf,
    },
    /// A layout of a version that is not known here.
    #[error("{} says that the layout has version `{version}`, not 1", path.display())]
    Version {
        /// The file `oci-layout`.
        path: PathBuf,
        /// What it says.
        version: String,
    },
    /// A file of the store, or of a layout, is not the JSON that it should be.
    #[error("{} is damaged", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// A record has no canonical form.
    #[error("cannot encode {}", path.display())]
    Encode {
        /// The file it was for.
        path: PathBuf,
        /// Why not.
        #[source]
        source: json::EncodeError,
    },
    /// The file system under the store does not lock.
    #[error("{} lies on a file system without locks", path.display())]
    NoLocks {
        /// The file to lock.
        path: PathBuf,
    },
    /// Another process works on the store.
    #[error("the store {} is in use by another process", path.display())]
    Busy {
        /// The store.
        path: PathBuf,
    },
    /// A blob that the store does not have.
    #[error("{digest} is not in {}", path.display())]
    Missing {
        /// The blob.
        digest: Digest,
        /// The store or image file.
        path: PathBuf,
    },
    /// A name that the store does not have.
    #[error("there is no image `{name}` in {}", path.display())]
    NoName {
        /// The name.
        name: Box<Reference>,
        /// The store.
        path: PathBuf,
    },
    /// A text that is no image name.
    #[error(transparent)]
    Name {
        /// Why not.
        #[from]
        source: ReferenceError,
    },
    /// Content that does not hash to its name.
    #[error("{} holds {found}, not {expected}", path.display())]
    Corrupt {
        /// The file, or the archive and the entry in it.
        path: PathBuf,
        /// What should be there.
        expected: Digest,
        /// What is there.
        found: Digest,
    },
    /// Content of another size than said.
    #[error("{} holds {found} bytes, not {expected}", path.display())]
    Size {
        /// The file, or the archive and the entry in it.
        path: PathBuf,
        /// How many there should be.
        expected: u64,
        /// How many there are, or one more than expected.
        found: u64,
    },
    /// A manifest or index that cannot be what it says.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// A file to import that is not there.
    #[error("there is no {}", path.display())]
    NoInput {
        /// The file.
        path: PathBuf,
    },
    /// A file that a layout or archive must have.
    #[error("{} is missing", path.display())]
    NoFile {
        /// The file, or the archive and the entry in it.
        path: PathBuf,
    },
    /// A tar that is cut short, damaged or hostile.
    #[error("{} is no archive that can be read", path.display())]
    Archive {
        /// The tar.
        path: PathBuf,
        /// What is wrong, with the entry's name.
        #[source]
        source: io::Error,
    },
    /// Content that does not come through whole.
    #[error("the content of {} is not good", path.display())]
    Content {
        /// The file, or the archive and the entry in it.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: Box<transfer::Error>,
    },
    /// A file or stream without an image that could be taken.
    #[error("{} holds {what}", path.display())]
    NoImage {
        /// The file.
        path: PathBuf,
        /// What it holds.
        what: String,
    },
    /// An image of one platform that no index lists.
    #[error("`{name}` cannot have another platform: {digest} is a manifest without an index")]
    NoIndex {
        /// The name that both should have.
        name: Box<Reference>,
        /// The manifest.
        digest: Digest,
    },
    /// Several images, or none of the name.
    #[error("{} holds {}", path.display(), which(wanted.as_deref(), offered))]
    Which {
        /// The file.
        path: PathBuf,
        /// The name that was asked for.
        wanted: Option<String>,
        /// The names that there are.
        offered: Vec<String>,
    },
    /// An image that brings no name, and none was given.
    #[error("the image in {} has no name", path.display())]
    Unnamed {
        /// The file.
        path: PathBuf,
    },
    /// The folder to export to holds something else.
    #[error("{} is neither empty nor a layout", path.display())]
    NotALayout {
        /// The folder.
        path: PathBuf,
    },
    /// A folder cannot go into a stream.
    #[error("a layout is a folder and cannot be written to a stream")]
    FolderToStream,
    /// A platform that the image does not have, or must be chosen.
    #[error("`{name}` has no image for {wanted}")]
    NoPlatform {
        /// The image.
        name: String,
        /// The platform that was asked for, or stands for this machine.
        wanted: Box<Platform>,
        /// The platforms that there are.
        offered: Vec<Platform>,
    },
    /// Two statements of one file about itself that do not fit together.
    #[error("{}: {what}", path.display())]
    Contradiction {
        /// The file, or the archive and the entry in it.
        path: PathBuf,
        /// Which statements.
        what: String,
    },
    /// A document or configuration is larger than any honest one.
    #[error("{digest} has {size} bytes; a document has at most {limit}")]
    TooLarge {
        /// The document.
        digest: Digest,
        /// Its size.
        size: u64,
        /// The bound.
        limit: u64,
    },
}

fn which(wanted: Option<&str>, offered: &[String]) -> String {
    match wanted {
        Some(wanted) => format!("no image `{wanted}` but {}", fault::list_of(offered)),
        None => format!("several images: {}", fault::list_of(offered)),
    }
}

impl Error {
    /// Takes an error that came out of a stream: one of this room is itself again, a verdict on the
    /// content names the file, and the rest speaks of reading it.
    pub(super) fn of_stream(error: io::Error, path: PathBuf) -> Error {
        match error.downcast::<Error>().map_err(io::Error::downcast::<transfer::Error>) {
            Ok(error) => error,
            Err(Ok(source)) => Error::Content { path, source: Box::new(source) },
            Err(Err(error)) => match error.downcast::<disk::Error>() {
                Ok(error) => Error::Disk(error),
                Err(source)
                    if source.kind() == io::ErrorKind::InvalidData
                        || source.kind() == io::ErrorKind::UnexpectedEof =>
                {
                    Error::Archive { path, source }
                }
                Err(source) => Error::Disk(disk::Error::new("read", path, source)),
            },
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
            Error::Disk(error) => error.kind(),
            Error::Content { source, .. } => source.kind(),
            // Cut short is damage on the way; the rest was never an archive worth reading.
            Error::Archive { source, .. } if source.kind() == io::ErrorKind::InvalidData => {
                Kind::Usage
            }
            Error::NotAStore { .. }
            | Error::NoName { .. }
            | Error::Name { .. }
            | Error::Which { .. }
            | Error::Unnamed { .. }
            | Error::NoInput { .. }
            | Error::NoImage { .. }
            | Error::NoIndex { .. }
            | Error::NotALayout { .. }
            | Error::FolderToStream
            | Error::NoPlatform { .. } => Kind::Usage,
            Error::NoLocks { .. } | Error::Busy { .. } => Kind::Environment,
            Error::Encode { .. } => Kind::Bug,
            _ => Kind::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Error::Disk(error) => error.hint(),
            Error::NotAStore { .. } => Some("name an empty or a new folder with --store".to_owned()),
            Error::NoLocks { .. } => Some(
                "choose a local folder with --store, or mount that file system with locks (NFS without `nolock`, Lustre with `flock`)"
                    .to_owned(),
            ),
            Error::NoName { .. } => Some("`ocibuild list` shows the names that there are".to_owned()),
            Error::Which { wanted: None, .. } => Some("say which one".to_owned()),
            Error::Unnamed { .. } => Some("give it one, as `example.org/debian:12`".to_owned()),
            Error::NotALayout { .. } => Some("name a new folder".to_owned()),
            Error::FolderToStream => Some("choose the form `oci-archive`".to_owned()),
            Error::NoPlatform { offered, .. } if !offered.is_empty() => {
                Some(format!("it has {}; choose with --platform", fault::list_of(offered)))
            }
            Error::Missing { .. } => Some("`ocibuild pull` the image first".to_owned()),
            Error::Busy { .. } => Some("try again when it has ended".to_owned()),
            Error::Corrupt { path, .. } | Error::Size { path, .. } if path.is_absolute() => Some(format!(
                "something outside changed that file; remove it (`rm {}`) and pull or build the image again",
                path.display()
            )),
            _ => None,
        }
    }
}

/// Takes a lock for oneself, waiting for others.
pub(super) fn lock(path: &Path) -> Result<Lock, Error> {
    Lock::exclusive(path).map_err(|error| without_locks(error, path))
}

/// Takes a lock for oneself unless another holds it.
pub(super) fn try_lock(path: &Path) -> Result<Option<Lock>, Error> {
    Lock::try_exclusive(path).map_err(|error| without_locks(error, path))
}

/// Changes the lock of an open file.
pub(super) fn flock(file: &File, operation: FlockOperation, path: &Path) -> Result<(), Error> {
    loop {
        match rustix::fs::flock(file, operation) {
            Err(Errno::INTR) => {}
            Err(Errno::WOULDBLOCK) => return Err(Error::Busy { path: path.to_owned() }),
            other => {
                return other.at("lock", path).map_err(|error| without_locks(error, path));
            }
        }
    }
}

fn without_locks(error: disk::Error, path: &Path) -> Error {
    match Errno::from_io_error(error.io()) {
        Some(Errno::NOLCK | Errno::NOSYS | Errno::NOTSUP) => {
            Error::NoLocks { path: path.to_owned() }
        }
        _ => Error::Disk(error),
    }
}

/// Returns an I/O error of the same kind that names the path, for the callers of [`std::io::Write`].
pub(super) fn named(action: &'static str, path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), disk::Error::new(action, path, error))
}
