//! Where bodies lie: the seam to whoever keeps blobs.

use std::fs::File;
use std::io::{self, Read, Seek, Write};

use crate::oci::{Digest, Hasher};

/// Bodies by digest.
pub trait Bodies: Send + Sync {
    /// Opens a body; `None` when it is not here. A replay hashes it before it is given
    /// to a step.
    fn open(&self, digest: &Digest) -> io::Result<Option<File>>;

    /// Forgets a body that turned out to be damaged, so that it can be kept anew.
    fn discard(&self, digest: &Digest) -> io::Result<()>;

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

/// Computes the digest of a file.
pub(super) fn hash(mut file: File) -> io::Result<Digest> {
    let mut hasher = Hasher::new();
    let mut piece = vec![0; 256 << 10];
    file.rewind()?;
    loop {
        let count = file.read(&mut piece)?;
        if count == 0 {
            return Ok(hasher.finish());
        }
        hasher.update(&piece[..count]);
    }
}
