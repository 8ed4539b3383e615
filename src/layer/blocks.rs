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

    /// Returns an empty buffer.
    pub(super) fn buffer(&self, capacity: usize) -> Vec<u8> {
        self.take.try_recv().unwrap_or_else(|_| Vec::with_capacity(capacity))
    }

    /// Makes a buffer's bytes shareable; the buffer comes back when the last of its users is done.
    pub(super) fn share(&self, bytes: Vec<u8>) -> Block {
        Block(Arc::new(Shared { bytes, home: self.give.clone() }))
    }
}

#[derive(Debug)]
struct Shared {
    bytes: Vec<u8>,
    home: Sender<Vec<u8>>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        // A full stock lets the buffer go.
        self.home.try_send(bytes).ok();
    }
}

/// Bytes that are not changed any more.
#[derive(Clone, Debug)]
pub(super) struct Block(Arc<Shared>);

impl Deref for Block {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0.bytes
    }
}

/// Cuts what is written into blocks of one size, whatever the sizes of the writes.
pub(super) struct Cutter<F> {
    size: usize,
    pool: Pool,
    buffer: Vec<u8>,
    pass_on: F,
}

impl<F: FnMut(Block) -> io::Result<()>> Cutter<F> {
    pub(super) fn new(size: usize, pool: Pool, pass_on: F) -> Cutter<F> {
        let buffer = pool.buffer(size);
        Cutter { size, pool, buffer, pass_on }
    }

    /// Passes the last block on, which may be shorter.
    pub(super) fn finish(mut self) -> io::Result<()> {
        if self.buffer.is_empty() { Ok(()) } else { self.cut() }
    }

    fn cut(&mut self) -> io::Result<()> {
        let full = std::mem::replace(&mut self.buffer, self.pool.buffer(self.size));
        (self.pass_on)(self.pool.share(full))
    }
}

impl<F: FnMut(Block) -> io::Result<()>> Write for Cutter<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(self.size - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..count]);
        if self.buffer.len() == self.size {
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
