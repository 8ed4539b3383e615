//! Decompression of a blob's blocks into a tar's.

use std::io::{self, BufRead, Read};

use crossbeam_channel::Receiver;
use flate2::bufread::GzDecoder;

use super::{Blob, CHUNK, EntryProblem, Error};
use crate::layer::blocks::{Block, Pool};
use crate::oci::media_type::Compression;

/// Decompresses until the end, or until `pass_on` says that nobody takes more.
pub(super) fn decode(
    blob: &Blob,
    raw: Receiver<Block>,
    limit: u64,
    pool: &Pool,
    pass_on: impl Fn(Block) -> bool,
) -> Result<(), Error> {
    let mut output = Output { blob, limit, total: 0, pool, pass_on };
    let rest = raw.clone();
    let done = output.all(Blocks { raw, current: None, at: 0 });
    if matches!(done, Err(Error::Damaged { .. } | Error::Truncated { .. } | Error::Trailing { .. }))
    {
        // Read on: that these are not the bytes of the digest would say more.
        rest.into_iter().for_each(drop);
    }
    done
}

struct Output<'a, F> {
    blob: &'a Blob,
    limit: u64,
    total: u64,
    pool: &'a Pool,
    pass_on: F,
}

impl<F: Fn(Block) -> bool> Output<'_, F> {
    fn all(&mut self, input: Blocks) -> Result<(), Error> {
        match self.blob.compression {
            Compression::None => self.stream(input).map(|_| ()),
            Compression::Gzip => self.members(input),
            Compression::Zstd => {
                let decoder = zstd::stream::read::Decoder::with_buffer(input);
                self.stream(decoder.map_err(|error| self.damaged(&error))?).map(|_| ())
            }
        }
    }

    /// Decompresses the members of a gzip file, of which there may be many.
    fn members(&mut self, mut input: Blocks) -> Result<(), Error> {
        let mut first = true;
        loop {
            let next = input.fill_buf().map_err(|error| self.damaged(&error))?;
            match next.first() {
                None if first => return Err(self.truncated()),
                None => return Ok(()),
                Some(0x1f) => {}
                Some(_) if first => return Err(self.damaged(&"it is not gzip")),
                Some(_) => return Err(Error::Trailing { digest: self.blob.digest }),
            }
            first = false;
            match self.stream(GzDecoder::new(input))? {
                Some(decoder) => input = decoder.into_inner(),
                None => return Ok(()),
            }
        }
    }

    /// Passes a whole stream on and returns it; `None` when nobody takes more.
    fn stream<R: Read>(&mut self, mut stream: R) -> Result<Option<R>, Error> {
        loop {
            let mut buffer = self.pool.buffer(CHUNK);
            let mut filled = 0;
            let mut failed = None;
            let mut ended = false;
            while filled < CHUNK && !ended && failed.is_none() {
                match stream.read(&mut buffer[filled..]) {
                    Ok(0) => ended = true,
                    Ok(count) => filled += count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => failed = Some(error),
                }
            }
            self.total += filled as u64;
            if self.total > self.limit {
                let problem =
                    EntryProblem::Bound { what: "its uncompressed size", bound: self.limit };
                return Err(Error::Refused { digest: self.blob.digest, problem });
            }
            if filled > 0 && !(self.pass_on)(self.pool.share(buffer, filled)) {
                return Ok(None);
            }
            match failed {
                Some(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Err(self.truncated());
                }
                Some(error) => return Err(self.damaged(&error)),
                None if ended => return Ok(Some(stream)),
                None => {}
            }
        }
    }

    fn damaged(&self, problem: &dyn std::fmt::Display) -> Error {
        Error::Damaged { digest: self.blob.digest, problem: problem.to_string() }
    }

    fn truncated(&self) -> Error {
        Error::Truncated { digest: self.blob.digest, got: self.total }
    }
}

/// The blocks that come, as one stream.
struct Blocks {
    raw: Receiver<Block>,
    current: Option<Block>,
    at: usize,
}

impl BufRead for Blocks {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.current.as_ref().is_none_or(|block| self.at == block.len()) {
            self.at = 0;
            self.current = self.raw.recv().ok();
            if self.current.is_none() {
                return Ok(&[]);
            }
        }
        Ok(self.current.as_deref().map_or(&[], |block| &block[self.at..]))
    }

    fn consume(&mut self, count: usize) {
        self.at += count;
    }
}

impl Read for Blocks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}
