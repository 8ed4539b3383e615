//! The profile `gzip-1`: each block of 1 MiB becomes a gzip member of its own, by libdeflate. Nothing
//! of a block reaches the bytes of another, so they can be made in any order.

use std::io::{self, Write};

use crossbeam_channel::{Receiver, Sender, bounded};
use libdeflater::{CompressionLvl, Compressor};

use super::blocks::Block;

/// The level in `gzip-1`.
const LEVEL: i32 = 1;

/// How many pieces of a block tell whether it is worth compressing, and their size.
const SAMPLES: usize = 8;
const SAMPLE: usize = 4 << 10;

/// A block to compress and where the result is waited for.
pub(super) struct Job {
    block: Block,
    done: Sender<io::Result<Vec<u8>>>,
}

/// What a block becomes, as soon as it is made.
pub(super) type Waited = Receiver<io::Result<Vec<u8>>>;

impl Job {
    pub(super) fn of(block: Block) -> (Job, Waited) {
        let (done, result) = bounded(1);
        (Job { block, done }, result)
    }
}

/// Compresses blocks until there are no more.
pub(super) fn work(jobs: &Receiver<Job>) {
    let mut members = Members::new();
    for job in jobs {
        let made = match &mut members {
            Ok(members) => members.make(&job.block),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        };
        // Nobody waits for it any more when the blob could not be written.
        job.done.send(made).ok();
    }
}

/// Makes members. A compressor keeps nothing from one call to the next, so the bytes do not depend
/// on which of several made a block.
struct Members {
    deflate: Compressor,
    store: Compressor,
    scratch: Vec<u8>,
}

impl Members {
    fn new() -> io::Result<Members> {
        let of_level = |level| {
            let level = CompressionLvl::new(level)
                .map_err(|_| io::Error::other("the compressor lacks a level"))?;
            Ok::<_, io::Error>(Compressor::new(level))
        };
        Ok(Members { deflate: of_level(LEVEL)?, store: of_level(0)?, scratch: Vec::new() })
    }

    fn make(&mut self, block: &[u8]) -> io::Result<Vec<u8>> {
        let worth = self.is_worth_it(block)?;
        let compressor = if worth { &mut self.deflate } else { &mut self.store };
        let mut out = vec![0; compressor.gzip_compress_bound(block.len())];
        let length = compressor.gzip_compress(block, &mut out).map_err(refused)?;
        out.truncate(length);
        Ok(out)
    }

    /// Tells whether samples of a block shrink. Where they don't, the compressor would take longest
    /// and win least: a quarter of the time of a layer full of packed GPU code, for a hundredth of
    /// its size.
    fn is_worth_it(&mut self, block: &[u8]) -> io::Result<bool> {
        if block.len() < 4 * SAMPLES * SAMPLE {
            return Ok(true);
        }
        self.scratch.resize(self.deflate.deflate_compress_bound(SAMPLE), 0);
        let mut shrunk = 0;
        for number in 0..SAMPLES {
            let start = number * (block.len() / SAMPLES);
            let sample = &block[start..start + SAMPLE];
            shrunk += self.deflate.deflate_compress(sample, &mut self.scratch).map_err(refused)?;
        }
        Ok(shrunk * 32 <= SAMPLES * SAMPLE * 31)
    }
}

fn refused(_: libdeflater::CompressionError) -> io::Error {
    io::Error::other("the compressor did not take a whole block")
}

/// Writes the members in their order; nothing at all is one empty member.
pub(super) fn join(parts: Receiver<Waited>, out: &mut dyn Write) -> io::Result<()> {
    let mut empty = true;
    for waited in parts {
        out.write_all(&waited.recv().map_err(super::blocks::stopped)??)?;
        empty = false;
    }
    if empty {
        out.write_all(&Members::new()?.make(&[])?)?;
    }
    Ok(())
}
