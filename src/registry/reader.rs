//! A blob's bytes from a registry, taken up again where a connection breaks, and where one place gives
//! no more, from the next: the digest holds the parts together.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use crate::http::{Method, Patience, Response, StatusCode, header, same_origin};
use crate::oci::{Descriptor, Digest};

use super::Error;
use super::repository::{For, Repository};

/// A connection that brought this much is worth another as often as it breaks.
const PROGRESS: u64 = 1 << 20;
/// How often in a row one is tried that brings less.
const TRIES: u32 = 5;
/// How long is waited for one blob in all.
const PATIENCE: Duration = Duration::from_mins(5);

/// Reads a blob; says nothing about whether it is the right one, see [`crate::transfer::Verify`].
pub(super) struct Reader<'a> {
    repository: &'a Repository,
    digest: Digest,
    size: u64,
    at: u64,
    answer: Response,
    /// Where the last connection began, and how many in a row brought nothing to speak of.
    began: u64,
    failures: u32,
    patience: Arc<Patience>,
}

impl<'a> Reader<'a> {
    pub(super) fn open(
        repository: &'a Repository,
        descriptor: &Descriptor,
        offset: u64,
    ) -> Result<Reader<'a>, Error> {
        let (digest, size) = (descriptor.digest, descriptor.size);
        let patience = repository.client().config().patience.part(PATIENCE);
        let answer = connect(repository, digest, size, offset, &patience)?;
        Ok(Reader {
            repository,
            digest,
            size,
            at: offset,
            answer,
            began: offset,
            failures: 0,
            patience,
        })
    }

    /// Opens a new connection after one broke with `cause`.
    fn resume(&mut self, cause: io::Error) -> io::Result<()> {
        self.failures = if self.at - self.began >= PROGRESS { 1 } else { self.failures + 1 };
        let config = self.repository.client().config();
        // A mirror has fewer.
        if self.failures > TRIES.min(config.tries) {
            return Err(cause);
        }
        let (digest, at, size) = (self.digest.short(), self.at, self.size);
        let why = format!("{digest} broke at {at} of {size} bytes ({cause})");
        let wait = config.backoff.saturating_mul(self.failures - 1).min(Duration::from_secs(10));
        if wait.is_zero() {
            config.report.detail(&format!("{why}; going on from there"));
        } else if !self.repository.client().pause(self.answer.url(), &why, wait, &self.patience) {
            return Err(cause);
        }
        self.began = self.at;
        match connect(self.repository, self.digest, self.size, self.at, &self.patience) {
            Ok(answer) => self.answer = answer,
            // What the registry says now counts, unless it says nothing.
            Err(error) => return Err(crate::transfer::Error::from(error).into()),
        }
        Ok(())
    }
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let cause = match self.answer.read(buffer) {
                Ok(0) if self.at < self.size && !buffer.is_empty() => {
                    io::Error::from(io::ErrorKind::UnexpectedEof)
                }
                Ok(count) => {
                    self.at += count as u64;
                    return Ok(count);
                }
                // All is here; how the connection ends does not matter.
                Err(_) if self.at >= self.size => return Ok(0),
                Err(error) => error,
            };
            self.resume(cause)?;
        }
    }
}

/// Reads a blob from the first of several places, and goes on in the next where one fails for good.
pub(super) struct Chain<'a> {
    repository: &'a Repository,
    blob: Descriptor,
    reader: Reader<'a>,
    left: VecDeque<usize>,
}

impl<'a> Chain<'a> {
    /// Begins with a reader; `left` are the places that may follow.
    pub(super) fn new(
        repository: &'a Repository,
        blob: &Descriptor,
        reader: Reader<'a>,
        left: VecDeque<usize>,
    ) -> Chain<'a> {
        Chain { repository, blob: blob.clone(), reader, left }
    }

    /// Opens the next place that has the rest.
    fn next(&mut self, cause: &io::Error) -> Option<Reader<'a>> {
        let report = &self.repository.client().config().report;
        let (digest, at, size) = (self.blob.digest.short(), self.reader.at, self.blob.size);
        let broken = self.reader.repository.name();
        while let Some(next) = self.left.pop_front() {
            let place = self.repository.place(next);
            let name = place.name();
            match Reader::open(place, &self.blob, at) {
                Ok(reader) => {
                    self.repository.choose(next);
                    report.note(&format!(
                        "{broken} broke off {digest} at {at} of {size} bytes ({cause}); \
                         going on from there in {name}"
                    ));
                    return Some(reader);
                }
                Err(error) => {
                    report.detail(&format!("{name} was of no help for {digest}: {error}"));
                }
            }
        }
        None
    }
}

impl Read for Chain<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.reader.read(buffer) {
                Err(cause) => match self.next(&cause) {
                    Some(reader) => self.reader = reader,
                    None => return Err(cause),
                },
                read => return read,
            }
        }
    }
}

/// Asks for the bytes from `at` on and returns the answer with those next.
fn connect(
    repository: &Repository,
    digest: Digest,
    size: u64,
    at: u64,
    patience: &Arc<Patience>,
) -> Result<Response, Error> {
    let url = repository.url(&format!("blobs/{digest}"))?;
    // A range that begins at the end is answered with 416, or worse.
    let mut from = if at < size { at } else { 0 };
    let mut again = 2;
    loop {
        let mut answer =
            repository.send(&Method::GET, &url, &repository.scopes(For::Pull), |request| {
                let request = request.within(patience);
                if from == 0 {
                    return Ok(request);
                }
                request.header(header::RANGE, &format!("bytes={from}-"))
            })?;
        match answer.status() {
            StatusCode::OK => {
                check_length(repository, digest, size, 0, &answer)?;
                skip(&mut answer, at)?;
                return Ok(answer);
            }
            StatusCode::PARTIAL_CONTENT if is_range(&answer, from, size) => {
                check_length(repository, digest, size, from, &answer)?;
                skip(&mut answer, at - from)?;
                return Ok(answer);
            }
            // The registry does not serve ranges as asked; from the start it surely can.
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE if from > 0 => from = 0,
            // A presigned URL may have expired; the registry gives a fresh one.
            StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED | StatusCode::BAD_REQUEST
                if again > 0 && !same_origin(&url, answer.url()) =>
            {
                again -= 1;
            }
            _ => return Err(repository.refused(&format!("give the blob {digest}"), &mut answer)),
        }
    }
}

fn is_range(answer: &Response, from: u64, size: u64) -> bool {
    answer.header(header::CONTENT_RANGE).is_some_and(|range| range_is(range, from, size))
}

/// Tells whether a `Content-Range` is all from `from` on; the total may be left open.
fn range_is(range: &str, from: u64, size: u64) -> bool {
    let Some((bounds, total)) = range.trim().strip_prefix("bytes ").and_then(|r| r.split_once('/'))
    else {
        return false;
    };
    bounds == format!("{from}-{}", size.saturating_sub(1))
        && (total == "*" || total == size.to_string())
}

fn check_length(
    repository: &Repository,
    digest: Digest,
    size: u64,
    from: u64,
    answer: &Response,
) -> Result<(), Error> {
    match answer.content_length() {
        Some(length) if length + from != size => Err(Error::Length {
            repository: repository.name(),
            digest,
            expected: size,
            announced: length + from,
        }),
        _ => Ok(()),
    }
}

/// Reads over what is here already. When that fails the next read will tell.
fn skip(answer: &mut Response, count: u64) -> Result<(), Error> {
    if count > 0 {
        io::copy(&mut answer.by_ref().take(count), &mut io::sink())
            .map_err(|error| crate::http::Error::of_body(answer.url(), error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_range_that_was_asked_for_counts() {
        assert!(range_is("bytes 5-9/10", 5, 10));
        assert!(range_is("bytes 5-9/*", 5, 10));
        for wrong in ["bytes 0-9/10", "bytes 5-8/10", "bytes 5-9/11", "5-9/10", "bytes */10", ""] {
            assert!(!range_is(wrong, 5, 10), "{wrong}");
        }
    }
}
