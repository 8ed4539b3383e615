//! Blocks of bytes that several threads look at: shared, bounded in number by the channels they
//! pass through, and used again, since a fresh mebibyte from the kernel costs as much as hashing it.

use std::io::{self, Write};
use std::ops::Deref;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};

/// A stock of used buffers.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    give: Sender<Vec<u8>>,
    take: Receiver<Vec<u8>>,
}

impl Pool {
    /// Keeps at most `kept` buffers.
    pub(super) fn new(kept: usize) -> Pool {
        let (give, take) = bounded(kept);
        Pool { give, take }
    }

    /// Returns a buffer of `size` bytes of whatever they were used for before.
    pub(super) fn buffer(&self, size: usize) -> Vec<u8> {
        let mut buffer = self.take.try_recv().unwrap_or_default();
        buffer.resize(size, 0);
        buffer
    }

    /// Makes a buffer's first bytes shareable; it comes back when the last of its users is done.
    pub(super) fn share(&self, bytes: Vec<u8>, length: usize) -> Block {
        let length = length.min(bytes.len());
        Block(Arc::new(Shared { bytes, length, home: self.give.clone() }))
    }
}

#[derive(Debug)]
struct Shared {
    bytes: Vec<u8>,
    length: usize,
    home: Sender<Vec<u8>>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        // A full stock lets the buffer go.
        self.home.try_send(std::mem::take(&mut self.bytes)).ok();
    }
}

/// Bytes that are not changed any more.
#[derive(Clone, Debug)]
pub(super) struct Block(Arc<Shared>);

impl Deref for Block {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0.bytes[..self.0.length]
    }
}

/// Cuts what is written into blocks of one size, whatever the sizes of the writes.
pub(super) struct Cutter<F> {
    pool: Pool,
    buffer: Vec<u8>,
    filled: usize,
    pass_on: F,
}

impl<F: FnMut(Block) -> io::Result<()>> Cutter<F> {
    pub(super) fn new(size: usize, pool: Pool, pass_on: F) -> Cutter<F> {
        let buffer = pool.buffer(size);
        Cutter { pool, buffer, filled: 0, pass_on }
    }

    /// Passes the last block on, which may be shorter.
    pub(super) fn finish(mut self) -> io::Result<()> {
        if self.filled == 0 { Ok(()) } else { self.cut() }
    }

    fn cut(&mut self) -> io::Result<()> {
        let fresh = self.pool.buffer(self.buffer.len());
        let full = std::mem::replace(&mut self.buffer, fresh);
        let filled = std::mem::take(&mut self.filled);
        (self.pass_on)(self.pool.share(full, filled))
    }
}

impl<F: FnMut(Block) -> io::Result<()>> Write for Cutter<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let rest = &mut self.buffer[self.filled..];
        let count = bytes.len().min(rest.len());
        rest[..count].copy_from_slice(&bytes[..count]);
        self.filled += count;
        if self.filled == self.buffer.len() {
            self.cut()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        // A block ends where it ends, or the bytes of a blob would depend on flushes.
        Ok(())
    }
}

/// What a thread tells its neighbour that feeds it when it has stopped.
pub(super) fn stopped<T>(_: T) -> io::Error {
    io::Error::from(io::ErrorKind::BrokenPipe)
}
