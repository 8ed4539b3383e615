//! The profile `gzip-1`: each block of 1 MiB becomes a gzip member of its own, made by libdeflate,
//! and the blob is all members in order, which RFC 1952 (section 2.2) makes one gzip file. Nothing of
//! a block reaches the bytes of another, so they can be made in any order.

use std::io::{self, Write};

use crossbeam_channel::{Receiver, Sender, bounded};
use libdeflater::{CompressionLvl, Compressor};

use super::blocks::Block;

/// The head of a member: deflate, no flags, no time, no hint, and "unknown" as the system.
const HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// libdeflate's fastest level: three times as fast as zlib's 6, for two hundredths more bytes of a
/// tree of shared libraries.
const LEVEL: i32 = 1;

/// A block to compress and where the result is waited for.
pub(super) struct Job {
    block: Block,
    done: Sender<io::Result<Vec<u8>>>,
}

impl Job {
    pub(super) fn of(block: Block) -> (Job, Receiver<io::Result<Vec<u8>>>) {
        let (done, result) = bounded(1);
        (Job { block, done }, result)
    }
}

/// Compresses blocks until there are no more.
pub(super) fn work(jobs: &Receiver<Job>) {
    // Each call begins with empty tables, so that one compressor may serve many blocks.
    let mut compressor = CompressionLvl::new(LEVEL).ok().map(Compressor::new);
    for job in jobs {
        let member = match &mut compressor {
            Some(compressor) => member(compressor, &job.block),
            None => Err(io::Error::other("the compressor has no such level")),
        };
        // Nobody waits for it any more when the blob could not be written.
        job.done.send(member).ok();
    }
}

/// Returns a block as a whole member.
fn member(compressor: &mut Compressor, block: &[u8]) -> io::Result<Vec<u8>> {
    let bound = compressor.deflate_compress_bound(block.len());
    let mut out = vec![0; HEAD.len() + bound + 8];
    out[..HEAD.len()].copy_from_slice(&HEAD);
    let body = compressor
        .deflate_compress(block, &mut out[HEAD.len()..])
        .map_err(|_| io::Error::other("the compressor did not take a whole block"))?;
    out.truncate(HEAD.len() + body);
    out.extend_from_slice(&crc32fast::hash(block).to_le_bytes());
    // The length modulo 2^32, as the format says; a block's fits.
    out.extend_from_slice(&u32::try_from(block.len()).unwrap_or(u32::MAX).to_le_bytes());
    Ok(out)
}

/// Writes the members in their order.
pub(super) fn join(
    members: Receiver<Receiver<io::Result<Vec<u8>>>>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut empty = true;
    for waited in members {
        out.write_all(&waited.recv().map_err(super::blocks::stopped)??)?;
        empty = false;
    }
    if empty {
        // A file of no members is none at all.
        let mut compressor = CompressionLvl::new(LEVEL)
            .map(Compressor::new)
            .map_err(|_| io::Error::other("the compressor has no such level"))?;
        out.write_all(&member(&mut compressor, &[])?)?;
    }
    Ok(())
}
