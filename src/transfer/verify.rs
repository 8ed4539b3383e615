//! A reader that is worth believing: it gives the bytes of a digest, or an error.

use std::io::{self, Read};

use crate::oci::{Descriptor, Digest, Hasher};

use super::Error;

/// Passes bytes through and fails, at the latest where they end, on a wrong size or digest. Never
/// reads past the size to give out more.
#[derive(Debug)]
pub struct Verify<R> {
    inner: R,
    hasher: Option<Hasher>,
    actual: Option<Digest>,
    digest: Digest,
    size: u64,
    count: u64,
}

impl<R: Read> Verify<R> {
    /// Wraps the stream of what `descriptor` promises.
    pub fn new(inner: R, descriptor: &Descriptor) -> Verify<R> {
        Verify {
            inner,
            hasher: Some(Hasher::new()),
            actual: None,
            digest: descriptor.digest,
            size: descriptor.size,
            count: 0,
        }
    }

    /// Compares the digest once all bytes have passed.
    fn conclude(&mut self) -> Result<(), Error> {
        // A reader that goes on after the verdict hears it again.
        let computed = self.hasher.take().map(Hasher::finish).or(self.actual);
        self.actual = computed;
        let Some(actual) = computed else { return Ok(()) };
        if actual == self.digest {
            return Ok(());
        }
        // One more byte tells a blob that goes on from one that was tampered with.
        let more = matches!(self.inner.read(&mut [0]), Ok(1));
        Err(if more {
            Error::TooLong { digest: self.digest, expected: self.size }
        } else {
            Error::WrongDigest { expected: self.digest, actual }
        })
    }
}

impl<R: Read> Read for Verify<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let left = self.size - self.count;
        if left == 0 {
            self.conclude()?;
            return Ok(0);
        }
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.inner.read(&mut buffer[..most])?;
        if read == 0 {
            let error =
                Error::TooShort { digest: self.digest, expected: self.size, actual: self.count };
            return Err(error.into());
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..read]);
        }
        self.count += read as u64;
        // The last bytes are given out only when they are right: a reader that stops at the size
        // must not miss the verdict.
        if self.count == self.size {
            self.conclude()?;
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: &[u8], promised: &[u8]) -> Result<Vec<u8>, Error> {
        let descriptor = Descriptor::of("x/y", promised);
        let mut bytes = Vec::new();
        match Verify::new(content, &descriptor).read_to_end(&mut bytes) {
            Ok(_) => Ok(bytes),
            Err(error) => Err(Error::of_stream(descriptor.digest, error)),
        }
    }

    #[test]
    fn gives_what_was_promised_or_an_error_that_says_why() {
        assert_eq!(read(b"content", b"content").unwrap(), b"content");
        assert_eq!(read(b"", b"").unwrap(), b"");
        assert!(matches!(
            read(b"conten", b"content"),
            Err(Error::TooShort { expected: 7, actual: 6, .. })
        ));
        assert!(matches!(read(b"kontent", b"content"), Err(Error::WrongDigest { .. })));
        assert!(matches!(
            read(b"kontent and more", b"content"),
            Err(Error::TooLong { expected: 7, .. })
        ));
    }

    #[test]
    fn the_verdict_comes_with_the_last_byte() {
        let descriptor = Descriptor::of("x/y", b"content");
        let mut reader = Verify::new(&b"kontent"[..], &descriptor);
        assert!(reader.read_exact(&mut [0; 7]).is_err());
        assert!(reader.read(&mut [0; 7]).is_err());
    }
}
