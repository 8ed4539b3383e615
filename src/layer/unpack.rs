//! A blob's way into a tree.

use std::io::Read;
use std::path::Path;

use super::Error;
use crate::oci::Digest;
use crate::oci::media_type::Compression;
use crate::rootfs::Sidecar;

/// Which blob is to be unpacked.
#[derive(Clone, Copy, Debug)]
pub struct Blob {
    /// The digest of its compressed bytes.
    pub digest: Digest,
    /// Their number.
    pub size: u64,
    /// How they are compressed.
    pub compression: Compression,
    /// What the image's config says of the tar; `None` where nobody knows it yet.
    pub diff_id: Option<Digest>,
}

/// How much a layer may unpack to.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Entries of the tar.
    pub entries: u64,
    /// Bytes of the tar.
    pub bytes: u64,
    /// Bytes of a path.
    pub path: usize,
    /// Folders above an entry.
    pub depth: usize,
}

/// What came out of a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// The digest of the tar.
    pub diff_id: Digest,
    /// The size of the tar.
    pub uncompressed: u64,
    /// Entries of the tar.
    pub entries: u64,
    /// What the tree does not hold.
    pub sidecar: Sidecar,
}

/// Unpacks a blob into the empty folder `dest`, verifying digest, size and diff id. After an error
/// `dest` holds half a tree, which is the caller's to remove.
pub fn unpack(
    _blob: &Blob,
    _source: &mut (dyn Read + Send),
    _dest: &Path,
    _limits: &Limits,
) -> Result<Unpacked, Error> {
    Err(Error::Worker)
}

/// Reads a blob without unpacking it, and returns the diff id and the size of its tar.
pub fn check(
    _blob: &Blob,
    _source: &mut (dyn Read + Send),
    _limits: &Limits,
) -> Result<(Digest, u64), Error> {
    Err(Error::Worker)
}

impl Limits {
    /// Returns the bounds for a blob of `size` bytes.
    pub fn of_blob(size: u64) -> Limits {
        Limits { entries: 4_000_000, bytes: size.saturating_mul(200), path: 4096, depth: 256 }
    }
}
