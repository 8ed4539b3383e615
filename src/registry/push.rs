//! A repository as a sink.

use std::io::{self, Read};
use std::thread;

use crate::http::{self, Method, Payload, Request, Response, StatusCode, Url, header, same_origin};
use crate::oci::{Descriptor, Digest, Document, Reference};
use crate::report::Task;
use crate::transfer::{self, Body, Placed, Sink};

use super::Error;
use super::pull::CONTENT_DIGEST;
use super::repository::{For, Repository, scope};

/// How often a blob's upload begins anew.
const UPLOADS: u32 = 4;
/// How often a document that was just pushed is looked for.
const LOOKS: u32 = 4;

impl Sink for Repository {
    fn has_blob(&self, descriptor: &Descriptor) -> Result<bool, transfer::Error> {
        let url = self.url(&format!("blobs/{}", descriptor.digest))?;
        let mut answer = self.send(&Method::HEAD, &url, &self.scopes(For::Push), Ok)?;
        match answer.status() {
            // Some registries send no length with HEAD, or none but 0.
            StatusCode::OK => match answer.content_length() {
                Some(announced) if announced > 0 && announced != descriptor.size => {
                    let error = Error::Length {
                        repository: self.name(),
                        digest: descriptor.digest,
                        expected: descriptor.size,
                        announced,
                    };
                    Err(error.into())
                }
                _ => Ok(true),
            },
            status if is_absent(status) => Ok(false),
            _ => {
                let doing = format!("say whether it has the blob {}", descriptor.digest);
                Err(self.refused(&doing, &mut answer).into())
            }
        }
    }

    fn put_blob(
        &self,
        descriptor: &Descriptor,
        body: &Body<'_>,
        task: &Task<'_>,
    ) -> Result<Placed, transfer::Error> {
        let mut session = None;
        for origin in body.origins() {
            if origin.registry() != self.reference().registry() || origin.name() == self.name() {
                continue;
            }
            match self.mount(descriptor.digest, origin)? {
                Mount::Done => return Ok(Placed::Mounted),
                // The registry offers a place for the bytes instead; to ask for another would leave
                // this one open.
                Mount::Session(url) => {
                    session = Some(url);
                    break;
                }
                Mount::No => {}
            }
        }
        let mut tried = 1;
        loop {
            let location = match session.take() {
                Some(location) => location,
                None => self.begin()?,
            };
            let error = match self.upload(descriptor, &location, body, task) {
                Ok(()) => return Ok(Placed::Written),
                Err(error) => error,
            };
            if tried == UPLOADS || !error.is_worth_another() {
                self.cancel(&location);
                return Err(error.into_error());
            }
            let config = self.client().config();
            config.report.detail(&format!(
                "the upload of {} failed ({error}); beginning again",
                descriptor.digest.short()
            ));
            if !matches!(error, UploadError::Expired(_)) {
                thread::sleep(config.backoff.saturating_mul(tried));
            }
            tried += 1;
        }
    }

    fn has_document(&self, descriptor: &Descriptor) -> Result<bool, transfer::Error> {
        let name = descriptor.digest.to_string();
        let mut answer = self.ask_document(&Method::HEAD, &name, For::Push)?;
        match answer.status() {
            StatusCode::OK => Ok(true),
            status if is_absent(status) => Ok(false),
            _ => Err(self.refused(&format!("say whether it has {name}"), &mut answer).into()),
        }
    }

    fn put_document(&self, document: &Document, tag: Option<&str>) -> Result<(), transfer::Error> {
        let digest = document.digest();
        let name = tag.map_or_else(|| digest.to_string(), str::to_owned);
        let url = self.url(&format!("manifests/{name}"))?;
        let mut answer = self.send(&Method::PUT, &url, &self.scopes(For::Push), |request| {
            Ok(request
                .header(header::CONTENT_TYPE, document.media_type())?
                .payload(Payload::Bytes(document.bytes())))
        })?;
        if !answer.status().is_success() {
            return Err(self.refused(&format!("take the manifest {name}"), &mut answer).into());
        }
        self.check_name(digest, &answer)?;
        if let Some(tag) = tag {
            let found = self.look_up(tag, None, For::Push)?;
            if found.digest != digest {
                let tag = tag.to_owned();
                let error = Error::Tag { repository: self.name(), tag, expected: digest };
                return Err(error.into());
            }
        }
        Ok(())
    }

    fn read_back(&self, descriptor: &Descriptor) -> Result<Document, transfer::Error> {
        let name = descriptor.digest.to_string();
        let mut looked = 1;
        loop {
            match self.get_document(&name, Some(descriptor.digest), For::Push) {
                // What was just written may take a moment to be seen everywhere.
                Err(error) if error.is_not_found() && looked < LOOKS => {
                    thread::sleep(self.client().config().backoff.saturating_mul(looked));
                    looked += 1;
                }
                other => return Ok(other?),
            }
        }
    }
}

/// Tells whether an answer to HEAD means that something has to be pushed. A refusal is no other: HEAD
/// comes without the registry's words, and what follows gets them.
fn is_absent(status: StatusCode) -> bool {
    matches!(status.as_u16(), 401 | 403 | 404 | 405)
}

/// What came of asking for a mount.
enum Mount {
    Done,
    Session(Url),
    No,
}

/// Why an upload did not end well.
#[derive(Debug)]
enum UploadError {
    /// The token ran out on the way; there is a new one now.
    Expired(Error),
    /// The session is gone, or the registry was busy, or the connection broke.
    Again(Error),
    /// The bytes could not be read on this side.
    Body(transfer::Error),
    /// The registry says no.
    Final(Error),
}

impl std::fmt::Display for UploadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            UploadError::Expired(error) | UploadError::Again(error) | UploadError::Final(error) => {
                error.fmt(f)
            }
            UploadError::Body(error) => error.fmt(f),
        }
    }
}

impl UploadError {
    fn is_worth_another(&self) -> bool {
        matches!(self, UploadError::Expired(_) | UploadError::Again(_))
    }

    fn into_error(self) -> transfer::Error {
        match self {
            UploadError::Expired(error) | UploadError::Again(error) | UploadError::Final(error) => {
                error.into()
            }
            UploadError::Body(error) => error,
        }
    }
}

impl Repository {
    /// Asks the registry to take a blob over from another of its repositories. Whatever goes wrong
    /// means only that the bytes have to be sent.
    fn mount(&self, digest: Digest, from: &Reference) -> Result<Mount, Error> {
        let mut url = self.url("blobs/uploads/")?;
        url.query_pairs_mut()
            .append_pair("mount", &digest.to_string())
            .append_pair("from", from.repository());
        // One token for both repositories, or the registry cannot know that we may read the other.
        let scopes =
            [scope(self.reference().repository(), For::Push), scope(from.repository(), For::Pull)];
        let answer = match self.send(&Method::POST, &url, &scopes, Ok) {
            Ok(answer) => answer,
            Err(Error::Http(error)) => return Err(error.into()),
            Err(_) => return Ok(Mount::No),
        };
        Ok(match answer.status() {
            StatusCode::CREATED => {
                self.check_name(digest, &answer)?;
                Mount::Done
            }
            StatusCode::ACCEPTED => self.location(&answer).map_or(Mount::No, Mount::Session),
            _ => Mount::No,
        })
    }

    /// Opens an upload and returns where its bytes go.
    pub(super) fn begin(&self) -> Result<Url, Error> {
        let url = self.url("blobs/uploads/")?;
        let mut answer = self.send(&Method::POST, &url, &self.scopes(For::Push), Ok)?;
        if answer.status() != StatusCode::ACCEPTED {
            return Err(self.refused(&format!("take blobs into {}", self.name()), &mut answer));
        }
        self.location(&answer)
    }

    /// Returns the place that an answer names: relative to the request in some registries, absolute
    /// in others, and without TLS behind a proxy that ends it and does not say so.
    pub(super) fn location(&self, answer: &Response) -> Result<Url, Error> {
        let refuse = || Error::Location { repository: self.name() };
        let text = answer.header(header::LOCATION).ok_or_else(refuse)?;
        resolve(answer.url(), text).ok_or_else(refuse)
    }

    fn upload(
        &self,
        descriptor: &Descriptor,
        location: &Url,
        body: &Body<'_>,
        task: &Task<'_>,
    ) -> Result<(), UploadError> {
        let mut url = location.clone();
        url.query_pairs_mut().append_pair("digest", &descriptor.digest.to_string());
        let base = self.host.base().map_err(UploadError::Final)?;
        let scopes = self.scopes(For::Push);
        let authorization = if same_origin(&base, &url) {
            // The token has to outlive the body.
            self.auth.header(&base, &scopes, true).map_err(UploadError::Final)?
        } else {
            None
        };
        let open = || -> io::Result<Box<dyn Read + Send + '_>> {
            task.restart(0);
            let inner = body.open().map_err(io::Error::from)?;
            Ok(Box::new(Counted { inner, task }))
        };
        let mut request = Request::new(Method::PUT, url)
            .once()
            .payload(Payload::Stream { size: Some(descriptor.size), open: &open })
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .map_err(final_error)?;
        if let Some(value) = &authorization {
            request = request.header(header::AUTHORIZATION, value).map_err(final_error)?;
        }
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
            200..=299 => self.check_name(descriptor.digest, &answer).map_err(UploadError::Final),
            401 => {
                self.auth
                    .renew(&base, &mut answer, &scopes, authorization.as_deref())
                    .map_err(UploadError::Final)?;
                Err(UploadError::Expired(self.refused(&doing(), &mut answer)))
            }
            404 | 408 | 425 | 429 | 500 | 502..=504 => {
                Err(UploadError::Again(self.refused(&doing(), &mut answer)))
            }
            _ => Err(UploadError::Final(self.refused(&doing(), &mut answer))),
        }
    }

    /// Gives up an upload, so that the registry need not keep what it has of it. It may not let us,
    /// or be gone; it will find out by itself.
    pub(super) fn cancel(&self, location: &Url) {
        let once = |request: Request<'static>| Ok(request.once());
        self.send(&Method::DELETE, location, &self.scopes(For::Push), once).ok();
    }

    /// Compares the name under which the registry took something, where it says one.
    pub(super) fn check_name(&self, expected: Digest, answer: &Response) -> Result<(), Error> {
        match answer.header(CONTENT_DIGEST) {
            Some(actual) if actual.starts_with("sha256:") && actual != expected.to_string() => {
                Err(Error::Misnamed {
                    repository: self.name(),
                    expected,
                    actual: actual.chars().take(100).collect(),
                })
            }
            _ => Ok(()),
        }
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
