//! The bytes of one blob on their way into a repository: in one PUT where that goes, what is left of
//! it where the registry kept a part, and in pieces where something on the way takes none so large;
//! [`super::sizes`] says how large they are.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::http::{
    self, Method, Patience, Payload, Request, Response, StatusCode, Url, header, same_origin,
};
use crate::oci::Descriptor;
use crate::report::Task;
use crate::transfer::{self, Body, Stream};

use super::Error;
use super::repository::{For, Repository};

/// How often a blob's upload is begun or gone on with without getting further by this much, and how
/// long is waited for that in all.
const UPLOADS: u32 = 4;
const PROGRESS: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_mins(5);

/// The header in which a registry asks for pieces of some size at the least.
const MIN_LENGTH: &str = "oci-chunk-min-length";

/// An upload that the registry has opened.
#[derive(Clone)]
pub(super) struct Session {
    /// Where the next bytes go.
    pub(super) url: Url,
    /// How many bytes of the blob are there.
    have: u64,
    /// The smallest piece that it takes.
    least: u64,
    /// How large the last request was, and whether that was all of the blob.
    asked: u64,
    whole: bool,
}

/// Why an upload did not end well.
#[derive(Debug)]
enum UploadError {
    /// The token ran out on the way; there is a new one now.
    Expired(Error),
    /// The session is gone, or the registry was busy, or the connection broke.
    Again(Error),
    /// Something on the way takes no request of that size.
    TooLarge(Error),
    /// The registry takes no such piece: it has not what it said, or wants smaller ones.
    Range(Error),
    /// The bytes could not be read on this side.
    Body(transfer::Error),
    /// The registry says no.
    Final(Error),
}

impl std::fmt::Display for UploadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            UploadError::Expired(error)
            | UploadError::Again(error)
            | UploadError::TooLarge(error)
            | UploadError::Range(error)
            | UploadError::Final(error) => error.fmt(f),
            UploadError::Body(error) => error.fmt(f),
        }
    }
}

impl UploadError {
    /// Tells whether the same may go better at another time.
    fn is_worth_another(&self) -> bool {
        matches!(self, UploadError::Expired(_) | UploadError::Again(_) | UploadError::Range(_))
    }

    fn into_error(self) -> transfer::Error {
        match self {
            UploadError::Expired(error)
            | UploadError::Again(error)
            | UploadError::TooLarge(error)
            | UploadError::Range(error)
            | UploadError::Final(error) => error.into(),
            UploadError::Body(error) => error,
        }
    }
}

impl Repository {
    /// Sends a blob's bytes, into a session where there is one. What breaks is gone on with where the
    /// registry kept a part, else begun anew, a few times in all.
    pub(super) fn put_bytes(
        &self,
        descriptor: &Descriptor,
        mut session: Option<Session>,
        body: &Body<'_>,
        task: &Task<'_>,
    ) -> Result<(), transfer::Error> {
        let patience = self.client().config().patience.part(PATIENCE);
        let config = self.client().config();
        let digest = descriptor.digest.short();
        let mut in_pieces = !self.host.sizes.may_be_whole(descriptor.size);
        let (mut tried, mut furthest) = (1, 0);
        loop {
            let mut current = match session.take() {
                Some(session) => session,
                None => self.begin_within(&patience)?,
            };
            let result = if in_pieces || current.have > 0 {
                self.upload_pieces(descriptor, &mut current, in_pieces, body, task)
            } else {
                self.upload(descriptor, &mut current, body, task)
            };
            let Err(error) = result else { return Ok(()) };
            let mut goes_on = error.is_worth_another() && tried < UPLOADS;
            if goes_on && matches!(error, UploadError::Again(_)) {
                let why = format!("the upload of {digest} failed ({error})");
                let wait = config.backoff.saturating_mul(tried);
                goes_on = self.client().pause(&current.url, &why, wait, &patience);
            }
            let too_large = matches!(error, UploadError::TooLarge(_));
            let kept = if goes_on || too_large { self.kept(&current, descriptor) } else { None };
            let smaller = self.learn(&error, &current, kept.as_ref());
            if !goes_on && !smaller {
                self.cancel(&current.url);
                return Err(error.into_error());
            }
            // What a proxy refused has never reached the registry.
            let unheard = (too_large && current.have > 0).then(|| current.clone());
            session = kept.or(unheard);
            in_pieces |= smaller;
            let have = session.as_ref().map_or(0, |kept| kept.have);
            let mut how = match have {
                0 => "beginning again".to_owned(),
                have => format!("going on after {have} bytes"),
            };
            if smaller {
                how.push_str(", in smaller pieces");
            }
            if session.is_none() {
                self.cancel(&current.url);
            }
            config.report.detail(&format!("the upload of {digest} failed ({error}); {how}"));
            if have >= furthest + PROGRESS {
                (tried, furthest) = (1, have);
            } else if !smaller {
                tried += 1;
            }
        }
    }

    /// Learns from a refusal how large a request may be; tells whether a smaller one is worth a try.
    fn learn(&self, error: &UploadError, session: &Session, kept: Option<&Session>) -> bool {
        let sizes = &self.host.sizes;
        match error {
            _ if session.asked == 0 => false,
            UploadError::TooLarge(_) if session.whole => {
                sizes.refuse_whole(session.asked);
                sizes.refuse(session.asked, session.least)
            }
            UploadError::TooLarge(_) => sizes.refuse(session.asked, session.least),
            // It has what it said.
            UploadError::Range(_) if kept.is_some_and(|kept| kept.have == session.have) => {
                sizes.refuse(session.asked, session.least)
            }
            _ => false,
        }
    }

    /// Opens an upload.
    pub(super) fn begin(&self) -> Result<Session, Error> {
        self.begin_within(&self.client().config().patience)
    }

    fn begin_within(&self, patience: &Arc<Patience>) -> Result<Session, Error> {
        let url = self.url("blobs/uploads/")?;
        let within = |request: Request<'static>| Ok(request.within(patience));
        let mut answer = self.send(&Method::POST, &url, &self.scopes(For::Push), within)?;
        if answer.status() != StatusCode::ACCEPTED {
            return Err(self.refused(&format!("take blobs into {}", self.name()), &mut answer));
        }
        self.session(&answer)
    }

    /// Returns the upload that an answer opens.
    pub(super) fn session(&self, answer: &Response) -> Result<Session, Error> {
        let least = answer.header(MIN_LENGTH).and_then(|text| text.trim().parse().ok());
        let (url, least) = (self.location(answer)?, least.unwrap_or(0));
        Ok(Session { url, have: 0, least, asked: 0, whole: false })
    }

    /// Asks what the registry kept of an upload that broke off; `None` where that is nothing, or it
    /// does not say.
    fn kept(&self, session: &Session, descriptor: &Descriptor) -> Option<Session> {
        let once = |request: Request<'static>| Ok(request.once());
        let answer = self.send(&Method::GET, &session.url, &self.scopes(For::Push), once).ok()?;
        if answer.status() != StatusCode::NO_CONTENT {
            return None;
        }
        let have = kept_bytes(answer.header(header::RANGE)?)?;
        let url = self.location(&answer).unwrap_or_else(|_| session.url.clone());
        (have <= descriptor.size).then_some(Session { url, have, ..session.clone() })
    }

    /// Returns the place that an answer names: relative to the request in some registries, absolute
    /// in others, and without TLS behind a proxy that ends it and does not say so.
    pub(super) fn location(&self, answer: &Response) -> Result<Url, Error> {
        let refuse = || Error::Location { repository: self.name() };
        let text = answer.header(header::LOCATION).ok_or_else(refuse)?;
        resolve(answer.url(), text).ok_or_else(refuse)
    }

    /// Sends all in one request.
    fn upload(
        &self,
        descriptor: &Descriptor,
        session: &mut Session,
        body: &Body<'_>,
        task: &Task<'_>,
    ) -> Result<(), UploadError> {
        (session.asked, session.whole) = (descriptor.size, true);
        let mut url = session.url.clone();
        url.query_pairs_mut().append_pair("digest", &descriptor.digest.to_string());
        let open = || -> io::Result<Box<dyn Read + Send + '_>> {
            task.restart(0);
            let inner = body.open().map_err(io::Error::from)?;
            Ok(Box::new(Counted { inner, task }))
        };
        let payload = Payload::Stream { size: Some(descriptor.size), open: &open };
        let request = Request::new(Method::PUT, url).payload(payload);
        let answer = self.send_part(descriptor, request)?;
        self.check_name(descriptor.digest, &answer).map_err(UploadError::Final)
    }

    /// Sends what the registry does not have yet, in one piece or in several, and then the name. What
    /// it says to have after a piece counts for nothing (some count wrong): the digest tells.
    fn upload_pieces(
        &self,
        descriptor: &Descriptor,
        session: &mut Session,
        several: bool,
        body: &Body<'_>,
        task: &Task<'_>,
    ) -> Result<(), UploadError> {
        let size = descriptor.size;
        let sizes = &self.host.sizes;
        let several = several || sizes.has_limit();
        let stream = body.open_at(session.have).map_err(UploadError::Body)?;
        let of_stream =
            |error| UploadError::Body(transfer::Error::of_stream(descriptor.digest, error));
        task.restart(session.have);
        let stream = Mutex::new(stream);
        let mut at = session.have;
        while at < size {
            let most = if several { sizes.piece(session.least) } else { size };
            let length = most.min(size - at);
            (session.asked, session.whole) = (length, false);
            let open = || -> io::Result<Box<dyn Read + Send + '_>> {
                Ok(Box::new(Counted { inner: Piece { stream: &stream, left: length }, task }))
            };
            let request = Request::new(Method::PATCH, session.url.clone())
                .payload(Payload::Stream { size: Some(length), open: &open })
                .header(header::CONTENT_RANGE, &format!("{at}-{}", at + length - 1))
                .map_err(final_error)?;
            let answer = self.send_part(descriptor, request)?;
            // A few name it once and for all.
            if let Ok(url) = self.location(&answer) {
                session.url = url;
            }
            if length == most {
                sizes.take(length);
            }
            at += length;
            session.have = at;
        }
        // The stream verifies itself where it ends.
        let mut stream = stream.into_inner().unwrap_or_else(PoisonError::into_inner);
        io::copy(&mut stream, &mut io::sink()).map_err(of_stream)?;
        session.asked = 0;
        let mut url = session.url.clone();
        url.query_pairs_mut().append_pair("digest", &descriptor.digest.to_string());
        let answer = self.send_part(descriptor, Request::new(Method::PUT, url))?;
        self.check_name(descriptor.digest, &answer).map_err(UploadError::Final)
    }

    /// Sends one request of an upload, once, and returns its answer if that is a good one.
    fn send_part(
        &self,
        descriptor: &Descriptor,
        request: Request<'_>,
    ) -> Result<Response, UploadError> {
        let request = request
            .once()
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .map_err(final_error)?;
        let (request, authorization) = self.authorized(request).map_err(UploadError::Final)?;
        let mut answer = match self.client().send(&request) {
            Ok(answer) => answer,
            Err(http::Error::Body { source, .. }) => {
                return Err(UploadError::Body(transfer::Error::of_stream(
                    descriptor.digest,
                    source,
                )));
            }
            Err(error) if error.is_transient() => return Err(UploadError::Again(error.into())),
            Err(error) => return Err(final_error(error)),
        };
        let doing = || format!("take the blob {}", descriptor.digest);
        match answer.status().as_u16() {
            200..=299 => Ok(answer),
            401 => {
                let base = self.base().map_err(UploadError::Final)?;
                self.auth
                    .renew(&base, &mut answer, &self.scopes(For::Push), authorization.as_deref())
                    .map_err(UploadError::Final)?;
                Err(UploadError::Expired(self.refused(&doing(), &mut answer)))
            }
            413 => Err(UploadError::TooLarge(self.refused(&doing(), &mut answer))),
            416 => Err(UploadError::Range(self.refused(&doing(), &mut answer))),
            404 | 408 | 425 | 429 | 500 | 502..=504 => {
                Err(UploadError::Again(self.refused(&doing(), &mut answer)))
            }
            _ => Err(UploadError::Final(self.refused(&doing(), &mut answer))),
        }
    }

    /// Adds the registry's credentials where a request goes to the registry itself, and returns them
    /// beside it.
    pub(super) fn authorized<'r>(
        &self,
        request: Request<'r>,
    ) -> Result<(Request<'r>, Option<String>), Error> {
        let base = self.base()?;
        if !same_origin(&base, request.url()) {
            return Ok((request, None));
        }
        // The token has to outlive the body.
        let authorization = self.auth.header(&base, &self.scopes(For::Push), true)?;
        let request = match &authorization {
            Some(value) => request.header(header::AUTHORIZATION, value)?,
            None => request,
        };
        Ok((request, authorization))
    }

    /// Gives up an upload, so that the registry need not keep what it has of it. It may not let us,
    /// or be gone; it will find out by itself.
    pub(super) fn cancel(&self, location: &Url) {
        let once = |request: Request<'static>| Ok(request.once());
        self.send(&Method::DELETE, location, &self.scopes(For::Push), once).ok();
    }
}

/// Reads `0-99` as 100. `0-0` is said of nothing as well as of one byte.
fn kept_bytes(range: &str) -> Option<u64> {
    let last: u64 = range.trim().trim_start_matches("bytes=").strip_prefix("0-")?.parse().ok()?;
    if last == 0 { None } else { last.checked_add(1) }
}

/// A part of a stream that several requests share.
struct Piece<'a, 'b> {
    stream: &'a Mutex<Stream<'b>>,
    left: u64,
}

impl Read for Piece<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        let count = stream.read(&mut buffer[..most])?;
        self.left -= count as u64;
        Ok(count)
    }
}

fn final_error(error: http::Error) -> UploadError {
    UploadError::Final(error.into())
}

fn resolve(asked: &Url, location: &str) -> Option<Url> {
    let mut url = asked.join(location).ok()?;
    if asked.scheme() == "https" && url.scheme() == "http" && url.host() == asked.host() {
        url.set_scheme("https").ok()?;
        url.set_port(asked.port()).ok()?;
    }
    let safe = url.scheme() == asked.scheme() || url.scheme() == "https";
    safe.then_some(url)
}

/// Tells a task of the bytes that pass.
pub(super) struct Counted<'a, R> {
    pub(super) inner: R,
    pub(super) task: &'a Task<'a>,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.task.advance(count as u64);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_read_with_doubt() {
        assert_eq!(kept_bytes("0-99"), Some(100));
        assert_eq!(kept_bytes("bytes=0-4194303"), Some(4 << 20));
        for other in ["0-0", "5-9", "99", "0-", "0-18446744073709551615", ""] {
            assert_eq!(kept_bytes(other), None, "{other}");
        }
    }

    #[test]
    fn locations_come_in_all_shapes() {
        let asked = Url::parse("https://r.example:5000/v2/a/blobs/uploads/").unwrap();
        for (location, expected) in [
            (
                "/v2/a/blobs/uploads/1?s=%3D%2F",
                Some("https://r.example:5000/v2/a/blobs/uploads/1?s=%3D%2F"),
            ),
            ("1?s=x", Some("https://r.example:5000/v2/a/blobs/uploads/1?s=x")),
            ("//up.example/1", Some("https://up.example/1")),
            ("https://up.example/1", Some("https://up.example/1")),
            ("http://r.example/v2/1", Some("https://r.example:5000/v2/1")),
            ("http://other.example/1", None),
            ("ftp://r.example/1", None),
        ] {
            let found = resolve(&asked, location);
            assert_eq!(found.as_ref().map(Url::as_str), expected, "{location}");
        }
        let mut url = resolve(&asked, "1?s=a%2Bb").unwrap();
        url.query_pairs_mut().append_pair("digest", "sha256:00");
        assert_eq!(url.query(), Some("s=a%2Bb&digest=sha256%3A00"));
    }
}
