//! A reader that is worth believing: it gives the bytes of a digest, or an error.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

use crate::oci::{Descriptor, Digest, Hasher};

use super::Error;

/// How far apart marks are; as much is read again at most.
const DISTANCE: u64 = 4 << 20;

/// Where the streams of one blob have passed, and what they knew of its digest there: another one may
/// begin at such a place instead of at the start.
#[derive(Debug, Default)]
pub(super) struct Marks(Mutex<Vec<Mark>>);

/// One of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Mark {
    /// How many bytes had passed.
    pub(super) at: u64,
    hasher: Hasher,
}

impl Marks {
    /// Returns the last place before an offset. Those behind it are forgotten: what passes there from
    /// now on may be something else.
    pub(super) fn before(&self, offset: u64) -> Mark {
        let mut marks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        marks.retain(|mark| mark.at <= offset);
        marks.last().cloned().unwrap_or_default()
    }

    /// Forgets all: what passed was wrong somewhere.
    pub(super) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn set(&self, at: u64, hasher: &Hasher) {
        let mut marks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if at >= marks.last().map_or(0, |mark| mark.at) + DISTANCE {
            marks.push(Mark { at, hasher: hasher.clone() });
        }
    }
}

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
    marks: Option<Arc<Marks>>,
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
            marks: None,
        }
    }

    /// Wraps a stream that begins at a mark, and sets more of them.
    pub(super) fn from_mark(
        inner: R,
        descriptor: &Descriptor,
        mark: Mark,
        marks: &Arc<Marks>,
    ) -> Verify<R> {
        Verify {
            hasher: Some(mark.hasher),
            count: mark.at,
            marks: Some(Arc::clone(marks)),
            ..Verify::new(inner, descriptor)
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
        // Nobody begins at the end.
        if let (Some(marks), Some(hasher)) = (&self.marks, &self.hasher)
            && self.count < self.size
        {
            marks.set(self.count, hasher);
        }
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
    fn a_stream_that_begins_at_a_mark_verifies_the_whole() {
        let content: Vec<u8> = (0..5 << 20).map(|at: u32| (at >> 7).to_le_bytes()[0]).collect();
        let descriptor = Descriptor::of("x/y", &content);
        let marks = Arc::new(Marks::default());
        let from = |offset: u64, content: &[u8]| {
            let mark = marks.before(offset);
            let at = mark.at;
            let rest = content[usize::try_from(at).unwrap()..].to_vec();
            (at, Verify::from_mark(io::Cursor::new(rest), &descriptor, mark, &marks))
        };
        let (at, mut first) = from(0, &content);
        assert_eq!(at, 0);
        io::copy(&mut first.by_ref().take((9 << 20) / 2), &mut io::sink()).unwrap();
        let (at, mut second) = from((9 << 20) / 2, &content);
        assert!((DISTANCE..5 << 20).contains(&at), "{at}");
        io::copy(&mut second, &mut io::sink()).unwrap();
        // What was right before does not make right what comes.
        let mut other = content.clone();
        *other.last_mut().unwrap() ^= 1;
        let (at, mut third) = from((9 << 20) / 2, &other);
        assert!(at >= DISTANCE && io::copy(&mut third, &mut io::sink()).is_err());
        // Before the first mark there is none.
        assert_eq!(from(DISTANCE - 1, &content).0, 0);
    }

    #[test]
    fn the_verdict_comes_with_the_last_byte() {
        let descriptor = Descriptor::of("x/y", b"content");
        let mut reader = Verify::new(&b"kontent"[..], &descriptor);
        assert!(reader.read_exact(&mut [0; 7]).is_err());
        assert!(reader.read(&mut [0; 7]).is_err());
    }
}
