//! A tar's way into a blob.

use std::io::Write;

use super::{Error, Profile};
use crate::oci::Digest;

/// What a layer came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packed {
    /// The digest of the tar.
    pub diff_id: Digest,
    /// The size of the tar.
    pub uncompressed: u64,
    /// The digest of the blob.
    pub digest: Digest,
    /// The size of the blob.
    pub size: u64,
}

/// Compresses what `produce` writes into `out`, with `threads` compressing threads, and hashes both
/// sides in the same pass. The bytes depend on neither the threads nor the sizes of the writes.
pub fn pack<P>(
    _profile: Profile,
    _threads: usize,
    _produce: P,
    _out: &mut dyn Write,
) -> Result<Packed, Error>
where
    P: FnOnce(&mut dyn Write) -> Result<(), Error> + Send,
{
    Err(Error::Worker)
}

/// Hashes what `produce` writes: the diff id and the size of the tar, and nothing else.
pub fn measure<P>(_produce: P) -> Result<(Digest, u64), Error>
where
    P: FnOnce(&mut dyn Write) -> Result<(), Error> + Send,
{
    Err(Error::Worker)
}
