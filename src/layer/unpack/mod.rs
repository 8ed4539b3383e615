//! A blob's way into a tree, in one pass:
//!
//! ```text
//! source -> hash, size -> decompress -+-> hash: diff id
//!                                     +-> entries -> folder and sidecar
//! ```
//!
//! Each stage is a thread; the queues between them are short. What a stage refuses ends them all.

mod decode;
mod frames;
mod header;
mod list;
mod records;
mod sparse;
mod tree;
mod way;

use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, bounded};

use self::frames::Frames;
pub use self::list::{Content, Entry, EntryKind, entries};
use self::tree::Tree;
use super::blocks::{Block, Pool};
use super::{EntryProblem, Error};
use crate::disk::Charge;
use crate::oci::media_type::Compression;
use crate::oci::{Digest, Hasher};
use crate::rootfs::Sidecar;

/// The size of the blocks between the stages.
const CHUNK: usize = 256 * 1024;

/// How many blocks may wait before a stage.
const QUEUE: usize = 12;

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

/// How much a layer may unpack to. A blob that goes beyond is refused while it is being read.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Headers of the tar.
    pub entries: u64,
    /// Bytes of the tar.
    pub bytes: u64,
    /// Bytes of a path.
    pub path: usize,
    /// Names in a path.
    pub depth: usize,
    /// The account to which the tree goes, where disk is bounded.
    pub charge: Option<Arc<Charge>>,
}

impl Limits {
    /// Returns the bounds for a blob of `size` bytes: 100 times its size and 1 GiB, never more than
    /// 1 TiB; 5 million entries; paths of 4,000 bytes and 250 names.
    ///
    /// Text and zeros shrink to a hundredth and less, so small blobs get the gibibyte.
    pub fn of_blob(size: u64) -> Limits {
        let bytes = size.saturating_mul(100).saturating_add(1 << 30).min(1 << 40);
        Limits { entries: 5_000_000, bytes, path: 4000, depth: 250, charge: None }
    }
}

/// Where the owners of entries go, and their file capabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owners {
    /// Into the tree. The process has to be root, at least of its user namespace.
    InTree,
    /// Into the sidecar alone; all of the tree belongs to this process.
    Beside,
}

/// What came out of a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// The digest of the tar.
    pub diff_id: Digest,
    /// The size of the tar.
    pub uncompressed: u64,
    /// Headers of the tar.
    pub entries: u64,
    /// What the tree does not hold.
    pub sidecar: Sidecar,
}

/// Unpacks a blob into the empty folder `dest`, verifying digest, size and diff id. After an error
/// `dest` holds half a tree, which is the caller's to remove.
///
/// Where a device node is to be lies an empty file; the sidecar tells.
pub fn unpack(
    blob: &Blob,
    source: &mut (dyn Read + Send),
    dest: &Path,
    owners: Owners,
    limits: &Limits,
) -> Result<Unpacked, Error> {
    let tree = Tree::new(dest, owners, limits)?;
    let ((entries, sidecar), diff_id, uncompressed) = run(blob, source, limits, |blocks| {
        let mut frames = Frames::new(blob.digest, limits, blocks);
        let sidecar = tree.fill(&mut frames)?;
        Ok((frames.headers(), sidecar))
    })?;
    Ok(Unpacked { diff_id, uncompressed, entries, sidecar })
}

/// Reads a blob without unpacking it, and returns the diff id and the size of its tar.
pub fn check(
    blob: &Blob,
    source: &mut (dyn Read + Send),
    limits: &Limits,
) -> Result<(Digest, u64), Error> {
    let ((), diff_id, size) = run(blob, source, limits, |blocks| {
        blocks.into_iter().for_each(drop);
        Ok(())
    })?;
    Ok((diff_id, size))
}

/// Decompresses a blob into `out`, verified as it goes, and returns the diff id and the size of its
/// tar. After an error `out` has got bytes that are worth nothing.
pub fn expand(
    blob: &Blob,
    source: &mut (dyn Read + Send),
    limits: &Limits,
    out: &mut dyn Write,
) -> Result<(Digest, u64), Error> {
    let ((), diff_id, size) = run(blob, source, limits, |blocks| {
        blocks
            .into_iter()
            .try_for_each(|block| out.write_all(&block))
            .map_err(|source| Error::Blob { action: "write", source })
    })?;
    Ok((diff_id, size))
}

/// Runs the stages, with `consume` as the last one on this thread.
fn run<T>(
    blob: &Blob,
    source: &mut (dyn Read + Send),
    limits: &Limits,
    consume: impl FnOnce(Receiver<Block>) -> Result<T, Error>,
) -> Result<(T, Digest, u64), Error> {
    let (to_decode, raw) = bounded::<Block>(QUEUE);
    let (to_hash, hashed) = bounded::<Block>(QUEUE);
    let (to_consume, plain) = bounded::<Block>(QUEUE);
    thread::scope(|scope| {
        let reading = scope.spawn(move || {
            let pool = Pool::new(QUEUE + 2);
            read(blob, source, &pool, |block| to_decode.send(block).is_ok())
        });
        let decoding = scope.spawn(move || {
            let pool = Pool::new(2 * QUEUE + 2);
            decode::decode(blob, raw, limits.bytes, &pool, |block| {
                to_hash.send(block.clone()).is_ok() && to_consume.send(block).is_ok()
            })
        });
        let hashing = scope.spawn(move || super::pack::hash(&hashed));
        let consumed = consume(plain);
        // The first stage that found something wrong made the later ones fail too.
        reading.join().map_err(|_| Error::Worker)??;
        decoding.join().map_err(|_| Error::Worker)??;
        let (diff_id, size) = hashing.join().map_err(|_| Error::Worker)?;
        let consumed = consumed?;
        match blob.diff_id {
            Some(expected) if expected != diff_id => {
                Err(Error::WrongDiffId { digest: blob.digest, expected, found: diff_id })
            }
            _ => Ok((consumed, diff_id, size)),
        }
    })
}

/// Reads the blob, passes it on and verifies it. Ends without an error when nobody takes it.
fn read(
    blob: &Blob,
    source: &mut (dyn Read + Send),
    pool: &Pool,
    pass_on: impl Fn(Block) -> bool,
) -> Result<(), Error> {
    let mut hasher = Hasher::new();
    let mut size = 0_u64;
    loop {
        let mut buffer = pool.buffer(CHUNK);
        let mut filled = 0;
        while filled < CHUNK {
            match source.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(source) => return Err(Error::Blob { action: "read", source }),
            }
        }
        size += filled as u64;
        if size > blob.size || (filled < CHUNK && size < blob.size) {
            return Err(Error::WrongSize { digest: blob.digest, expected: blob.size, found: size });
        }
        hasher.update(&buffer[..filled]);
        if filled > 0 && !pass_on(pool.share(buffer, filled)) {
            return Ok(());
        }
        if filled < CHUNK {
            break;
        }
    }
    let found = hasher.finish();
    if found == blob.digest {
        Ok(())
    } else {
        Err(Error::WrongDigest { expected: blob.digest, found, size })
    }
}

#[cfg(test)]
mod tests;
