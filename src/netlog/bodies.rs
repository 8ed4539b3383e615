//! Where bodies lie: the seam to whoever keeps blobs.

use std::fs::File;
use std::io::{self, Write};

use crate::oci::Digest;

/// Bodies by digest.
pub trait Bodies: Send + Sync {
    /// Opens a body; `None` when it is not here. What is read is not verified again.
    fn open(&self, digest: &Digest) -> io::Result<Option<File>>;

    /// Begins a body.
    fn begin(&self) -> io::Result<Box<dyn BodyWriter>>;
}

/// A body being written. Dropped without [`BodyWriter::commit`] it leaves nothing.
pub trait BodyWriter: Write + Send {
    /// Opens the file that is written, to be read at any place up to what was flushed.
    fn reader(&self) -> io::Result<File>;

    /// Keeps the body and returns its digest and size.
    fn commit(self: Box<Self>) -> io::Result<(Digest, u64)>;
}
