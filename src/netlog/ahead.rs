//! Requests that a client sends without waiting for answers, as apt does, ten at a time. They are
//! answered one after the other, but fetched side by side: what passes on the way to the server is
//! read along, and each GET's transfer begins at once.

use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A longer head is the server's to refuse.
const LONGEST_HEAD: usize = 64 << 10;

/// The most headers that are read along.
const MOST_HEADERS: usize = 64;

/// The head of a GET that passed by.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) target: String,
    pub(super) headers: HeaderMap,
}

/// A connection whose requests are read along.
pub(super) struct Ahead<S, F> {
    stream: S,
    scanner: Scanner,
    tell: F,
}

impl<S, F: FnMut(Seen)> Ahead<S, F> {
    pub(super) fn new(stream: S, tell: F) -> Ahead<S, F> {
        Ahead { stream, scanner: Scanner::default(), tell }
    }
}

/// Takes a stream of requests apart, up to the first that carries something.
#[derive(Debug, Default)]
struct Scanner {
    head: Vec<u8>,
    ended: bool,
}

impl Scanner {
    fn take(&mut self, bytes: &[u8], tell: &mut impl FnMut(Seen)) {
        if self.ended {
            return;
        }
        self.head.extend_from_slice(bytes);
        loop {
            let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
            let mut request = httparse::Request::new(&mut headers);
            let length = match request.parse(&self.head) {
                Ok(httparse::Status::Complete(length)) => length,
                Ok(httparse::Status::Partial) if self.head.len() <= LONGEST_HEAD => return,
                _ => return self.end(),
            };
            let mut map = HeaderMap::new();
            for header in request.headers.iter() {
                let name = HeaderName::from_bytes(header.name.as_bytes());
                if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(header.value)) {
                    map.append(name, value);
                }
            }
            let carries = ["content-length", "transfer-encoding", "upgrade"]
                .iter()
                .any(|name| map.contains_key(*name));
            match (request.method, request.path) {
                (Some("GET"), Some(target)) if !carries => {
                    tell(Seen { target: target.to_owned(), headers: map });
                }
                (Some("HEAD"), Some(_)) if !carries => {}
                // From here on bytes may be anything.
                _ => return self.end(),
            }
            self.head.drain(..length);
        }
    }

    fn end(&mut self) {
        self.ended = true;
        self.head = Vec::new();
    }
}

impl<S: AsyncRead + Unpin, F: FnMut(Seen) + Unpin> AsyncRead for Ahead<S, F> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let this = &mut *self;
        let polled = Pin::new(&mut this.stream).poll_read(context, buffer);
        if matches!(polled, Poll::Ready(Ok(()))) {
            this.scanner.take(&buffer.filled()[before..], &mut this.tell);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin, F: Unpin> AsyncWrite for Ahead<S, F> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(pieces: &[&[u8]]) -> Vec<String> {
        let mut seen = Vec::new();
        let mut scanner = Scanner::default();
        for piece in pieces {
            scanner.take(piece, &mut |head| seen.push(head.target));
        }
        seen
    }

    #[test]
    fn heads_are_told_apart_wherever_a_piece_ends() {
        let text =
            b"GET /a HTTP/1.1\r\nHost: x\r\n\r\nHEAD /h HTTP/1.1\r\n\r\nGET /b?c HTTP/1.1\r\n\r\n";
        for cut in 0..text.len() {
            assert_eq!(targets(&[&text[..cut], &text[cut..]]), ["/a", "/b?c"], "{cut}");
        }
    }

    #[test]
    fn behind_a_body_nothing_is_read() {
        let text = b"GET /a HTTP/1.1\r\n\r\nPOST /q HTTP/1.1\r\nContent-Length: 9\r\n\r\nGET /b HTTP/1.1\r\n\r\n";
        assert_eq!(targets(&[text]), ["/a"]);
        assert_eq!(targets(&[b"\x16\x03\x01 no HTTP", b"GET /a HTTP/1.1\r\n\r\n"]), [""; 0]);
        assert_eq!(targets(&[&vec![b'x'; LONGEST_HEAD + 1]]), [""; 0]);
    }
}
