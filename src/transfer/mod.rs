//! Moves images between places. A place that gives is a [`Source`], one that takes is a [`Sink`]; a
//! pull is `copy(registry, store)`, a push `copy(store, registry)` and a mirror `copy(a, b)`.
//!
//! The order is always the same: blobs (in parallel, the largest first, each once), then the
//! manifests over them, then the index, each read back by its digest, and the tags last. So whatever
//! fails, no name ever points at something incomplete.

mod copy;
mod error;
mod survey;
mod verify;

use std::io::Read;

use crate::oci::{Descriptor, Digest, Document, Reference};
use crate::report::Task;

pub use copy::{Options, Summary, confirm, copy, copy_blobs, select};
pub use error::{Error, Other};
pub use survey::{Survey, survey};
pub use verify::Verify;

/// The bytes of a blob on their way.
pub type Stream<'a> = Box<dyn Read + Send + 'a>;

/// Gives images: a registry's repository, a store, a layout.
pub trait Source: Sync {
    /// Finds what a name stands for here: its manifest or index.
    fn resolve(&self, reference: &Reference) -> Result<Descriptor, Error>;

    /// Reads a manifest or an index by digest. The answer has that digest.
    fn document(&self, descriptor: &Descriptor) -> Result<Document, Error>;

    /// Opens a blob at an offset, as it is: nobody has verified what the stream gives.
    fn blob<'a>(&'a self, descriptor: &Descriptor, offset: u64) -> Result<Stream<'a>, Error>;

    /// Hears that what it gave last under a digest was something else; where it can, it gives the next
    /// reader what is elsewhere.
    fn distrust(&self, digest: Digest) {
        let _ = digest;
    }

    /// Returns the repository that this is, where it is one; no tag, no digest of it means anything.
    fn origin(&self) -> Option<Reference> {
        None
    }

    /// Returns the repositories that are known to hold a blob, for a registry that can mount from
    /// one instead of taking the bytes again.
    fn origins(&self, descriptor: &Descriptor) -> Vec<Reference> {
        let _ = descriptor;
        self.origin().into_iter().collect()
    }
}

/// Reads a small blob whole, as an image's configuration is; one of more than `limit` bytes is
/// refused. The bytes are verified.
pub fn fetch(source: &dyn Source, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>, Error> {
    if descriptor.size > limit {
        return Err(Error::TooLong { digest: descriptor.digest, expected: limit });
    }
    let mut bytes = Vec::new();
    Verify::new(source.blob(descriptor, 0)?, descriptor)
        .read_to_end(&mut bytes)
        .map_err(|error| Error::of_stream(descriptor.digest, error))?;
    Ok(bytes)
}

/// How a blob came to be in a sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// Its bytes were written.
    Written,
    /// It was there already.
    Existed,
    /// The sink took it from a repository beside it, without its bytes.
    Mounted,
}

/// Takes images: a registry's repository, a store, a layout. Each call may come from several threads.
pub trait Sink: Sync {
    /// Tells whether the blob is here already.
    fn has_blob(&self, descriptor: &Descriptor) -> Result<bool, Error>;

    /// Takes a blob. When it returns without an error the content is here under its digest; when it
    /// fails nothing is. Advances `task` by the bytes taken, and restarts it when it opens the body
    /// anew.
    fn put_blob(
        &self,
        descriptor: &Descriptor,
        body: &Body<'_>,
        task: &Task<'_>,
    ) -> Result<Placed, Error>;

    /// Tells whether the manifest or index is here *with everything below it*: then none of it is
    /// looked at again.
    fn has_document(&self, descriptor: &Descriptor) -> Result<bool, Error>;

    /// Takes a manifest or an index, by its digest alone or under a tag. Everything below it is here
    /// already; under a tag it comes only after it came by digest.
    fn put_document(&self, document: &Document, tag: Option<&str>) -> Result<(), Error>;

    /// Reads back by digest what [`Sink::put_document`] took.
    fn read_back(&self, descriptor: &Descriptor) -> Result<Document, Error>;
}

/// Opens the bytes of one blob from an offset on.
pub type Open<'a> = dyn Fn(u64) -> Result<Stream<'a>, Error> + Sync + 'a;

/// The bytes of one blob, to be opened as often as a sink needs: a registry that asks for a new token
/// in the middle of an upload wants them again from the start, one that kept a part wants the rest.
pub struct Body<'a> {
    open: &'a Open<'a>,
    origins: &'a [Reference],
}

impl std::fmt::Debug for Body<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Body").field("origins", &self.origins).finish_non_exhaustive()
    }
}

impl<'a> Body<'a> {
    /// Makes a body of the function that opens it and the repositories that hold the same blob.
    pub fn new(open: &'a Open<'a>, origins: &'a [Reference]) -> Body<'a> {
        Body { open, origins }
    }

    /// Opens the bytes from the start. The stream of a body that [`copy()`] made verifies itself: it
    /// fails, at the latest at its end, unless size and digest are the descriptor's, so that a sink
    /// which read it to the end without an error need not hash again.
    pub fn open(&self) -> Result<Stream<'a>, Error> {
        self.open_at(0)
    }

    /// Opens the bytes from an offset on that an earlier stream of this body has passed. It verifies
    /// itself as one from the start does, as long as the bytes before are those that passed.
    pub fn open_at(&self, offset: u64) -> Result<Stream<'a>, Error> {
        (self.open)(offset)
    }

    /// Returns the repositories that are known to hold the blob.
    pub fn origins(&self) -> &[Reference] {
        self.origins
    }
}
