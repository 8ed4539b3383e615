//! An answer whose body is read as it comes.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use reqwest::header::{AsHeaderName, CONTENT_LENGTH, HeaderMap};
use reqwest::{StatusCode, Url};

use super::engine::Engine;
use super::{Cause, Error, redact};

/// An answer: status and headers are here, the body comes by reading.
pub struct Response {
    engine: Arc<Engine>,
    inner: reqwest::Response,
    url: Url,
    idle: Duration,
    piece: Bytes,
}

impl std::fmt::Debug for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Response")
            .field("status", &self.inner.status())
            .field("url", &redact(&self.url))
            .finish_non_exhaustive()
    }
}

impl Response {
    pub(super) fn new(
        engine: Arc<Engine>,
        inner: reqwest::Response,
        url: Url,
        idle: Duration,
    ) -> Response {
        Response { engine, inner, url, idle, piece: Bytes::new() }
    }

    /// Returns the status.
    pub fn status(&self) -> StatusCode {
        self.inner.status()
    }

    /// Returns where the answer came from, after redirects.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Returns a header's first value, if it is text.
    pub fn header(&self, name: impl AsHeaderName) -> Option<&str> {
        self.inner.headers().get(name)?.to_str().ok()
    }

    /// Returns all values of a header that are text.
    pub fn header_values(&self, name: impl AsHeaderName) -> impl Iterator<Item = &str> {
        self.inner.headers().get_all(name).iter().filter_map(|value| value.to_str().ok())
    }

    /// Returns all headers.
    pub fn headers(&self) -> &HeaderMap {
        self.inner.headers()
    }

    /// Returns the length that the server announced; of an answer to HEAD, the length of what GET
    /// would give.
    pub fn content_length(&self) -> Option<u64> {
        self.header(CONTENT_LENGTH)?.trim().parse().ok()
    }

    /// Reads the rest, of which there may be at most `limit` bytes.
    pub fn bytes(&mut self, limit: u64) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        match (&mut *self).take(limit + 1).read_to_end(&mut bytes) {
            Ok(_) if bytes.len() as u64 > limit => {
                Err(Error::TooLarge { url: redact(&self.url), limit })
            }
            Ok(_) => Ok(bytes),
            Err(error) => Err(Error::of_body(&self.url, error)),
        }
    }
}

impl Read for Response {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.engine.wait(self.idle, self.inner.chunk()) {
                None => {
                    let error = Error::Stalled { url: redact(&self.url), after: self.idle };
                    return Err(io::Error::new(io::ErrorKind::TimedOut, error));
                }
                Some(Ok(Some(piece))) => self.piece = piece,
                Some(Ok(None)) => return Ok(0),
                Some(Err(error)) => {
                    let error = Error::Cut { url: redact(&self.url), source: Cause::of(&error) };
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, error));
                }
            }
        }
        let count = buffer.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}
