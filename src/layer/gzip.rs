//! The profile `gzip-1`: each block of 1 MiB is compressed by a stream of its own and ends with a
//! sync flush, and all of them together are one gzip member. Nothing of a block reaches the bytes
//! of another, so they can be made in any order.

use std::io::{self, Write};

use crc32fast::Hasher as Crc;
use crossbeam_channel::{Receiver, Sender, bounded};
use zlib_rs::{Deflate, DeflateFlush, Status};

use super::blocks::Block;
use super::pack::BLOCK;

/// The member's head: deflate, no flags, no time, no hint, and "unknown" as the system.
const HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// An empty last block, which ends the deflate stream.
const LAST: [u8; 2] = [3, 0];

const LEVEL: i32 = 6;

/// A block to compress and where the result is waited for.
pub(super) struct Job {
    block: Block,
    done: Sender<Part>,
}

/// A compressed block.
pub(super) struct Part {
    bytes: io::Result<Vec<u8>>,
    crc: Crc,
    length: u64,
}

impl Job {
    pub(super) fn of(block: Block) -> (Job, Receiver<Part>) {
        let (done, result) = bounded(1);
        (Job { block, done }, result)
    }
}

/// Compresses blocks until there are no more.
pub(super) fn work(jobs: &Receiver<Job>) {
    for job in jobs {
        let mut crc = Crc::new();
        crc.update(&job.block);
        let part = Part { bytes: deflate(&job.block), crc, length: job.block.len() as u64 };
        // Nobody waits for it any more when the blob could not be written.
        job.done.send(part).ok();
    }
}

/// Compresses one block with a fresh stream. A stream that is reset gives the same bytes today, but
/// with a dictionary it does not, and a fresh one costs next to nothing.
fn deflate(block: &[u8]) -> io::Result<Vec<u8>> {
    // The flush adds an empty stored block of five bytes.
    let mut out = vec![0; zlib_rs::compress_bound(BLOCK) + 64];
    let mut stream = Deflate::new(LEVEL, false, 15);
    let status = stream.compress(block, &mut out, DeflateFlush::SyncFlush);
    let length = usize::try_from(stream.total_out()).unwrap_or(usize::MAX);
    if status != Ok(Status::Ok) || stream.total_in() != block.len() as u64 || length >= out.len() {
        return Err(io::Error::other("the compressor did not take a whole block"));
    }
    out.truncate(length);
    Ok(out)
}

/// Writes the member from its parts, in their order.
pub(super) fn join(parts: Receiver<Receiver<Part>>, out: &mut dyn Write) -> io::Result<()> {
    out.write_all(&HEAD)?;
    let mut crc = Crc::new();
    let mut length = 0_u64;
    for waited in parts {
        let part = waited.recv().map_err(super::blocks::stopped)?;
        out.write_all(&part.bytes?)?;
        crc.combine(&part.crc);
        length = length.wrapping_add(part.length);
    }
    out.write_all(&LAST)?;
    out.write_all(&crc.finalize().to_le_bytes())?;
    // The length modulo 2^32, as the format says.
    out.write_all(&length.to_le_bytes()[..4])
}
