//! A repository as a sink.

use crate::http::{Method, Payload, Response, StatusCode, header};
use crate::oci::{Descriptor, Digest, Document, Reference};
use crate::report::Task;
use crate::transfer::{self, Body, Placed, Sink};

use super::Error;
use super::pull::CONTENT_DIGEST;
use super::referrers::{SUBJECT, as_referrer};
use super::repository::{For, Repository, scope};
use super::upload::Session;

/// How often a registry is asked for what it may see only in a moment.
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
                Err(self.refused_silently(&doing, &mut answer).into())
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
                Mount::Session(open) => {
                    session = Some(open);
                    break;
                }
                Mount::No => {}
            }
        }
        self.put_bytes(descriptor, session, body, task).map(|()| Placed::Written)
    }

    fn has_document(&self, descriptor: &Descriptor) -> Result<bool, transfer::Error> {
        let name = descriptor.digest.to_string();
        let mut answer = self.ask_document(&Method::HEAD, &name, For::Push)?;
        match answer.status() {
            StatusCode::OK => Ok(true),
            status if is_absent(status) => Ok(false),
            _ => {
                let doing = format!("say whether it has {name}");
                Err(self.refused_silently(&doing, &mut answer).into())
            }
        }
    }

    fn put_document(&self, document: &Document, tag: Option<&str>) -> Result<(), transfer::Error> {
        let digest = document.digest();
        let name = tag.map_or_else(|| digest.to_string(), str::to_owned);
        let answer = match self.put_under(document, &name) {
            // A tag that may not be set again, but stands for the very same already, is set.
            Err(Error::Refused(refusal)) if tag.is_some() && refusal.status.is_client_error() => {
                return match self.tagged(&name) {
                    Ok(Some(now)) if now == digest => Ok(()),
                    _ => Err(Error::Refused(refusal).into()),
                };
            }
            other => other?,
        };
        // A registry that lists referrers says so; for any other it is ours to do.
        if tag.is_none()
            && answer.header(SUBJECT).is_none()
            && let Some((subject, entry)) = as_referrer(document)?
        {
            self.add_to_fallback(subject, &entry)?;
        }
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
                Err(error)
                    if error.is_not_found()
                        && self.wait_to_look(looked, &format!("does not show {name} yet"))? =>
                {
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
    Session(Session),
    No,
}

impl Repository {
    /// Returns what a tag stands for, as somebody who may push sees it; `None` where there is none.
    pub fn tagged(&self, tag: &str) -> Result<Option<Digest>, Error> {
        match self.look_up(tag, None, For::Push) {
            Ok(found) => Ok(Some(found.digest)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

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
            StatusCode::ACCEPTED => self.session(&answer).map_or(Mount::No, Mount::Session),
            _ => Mount::No,
        })
    }

    /// Puts a document under a tag or its digest.
    pub(super) fn put_under(&self, document: &Document, name: &str) -> Result<Response, Error> {
        let mut asked = 1;
        loop {
            match self.put_once(document, name) {
                // Where another push of the same blobs is at work, docker-registry may find the link
                // of one half written, and what refers to it damaged.
                Err(Error::Refused(refusal))
                    if refusal.code == "DIGEST_INVALID"
                        && self.wait_to_look(asked, &format!("takes {name} for damaged"))? =>
                {
                    asked += 1;
                }
                other => return other,
            }
        }
    }

    /// Waits before a registry is asked once more; tells whether it is to be.
    fn wait_to_look(&self, looked: u32, why: &str) -> Result<bool, Error> {
        let config = self.client().config();
        let wait = config.backoff.saturating_mul(looked);
        let why = format!("{} {why}", self.name());
        Ok(looked < LOOKS && self.client().pause(&self.base()?, &why, wait, &config.patience))
    }

    fn put_once(&self, document: &Document, name: &str) -> Result<Response, Error> {
        let url = self.url(&format!("manifests/{name}"))?;
        let mut answer = self.send(&Method::PUT, &url, &self.scopes(For::Push), |request| {
            Ok(request
                .header(header::CONTENT_TYPE, document.media_type())?
                .payload(Payload::Bytes(document.bytes())))
        })?;
        if !answer.status().is_success() {
            return Err(self.refused(&format!("take the manifest {name}"), &mut answer));
        }
        self.check_name(document.digest(), &answer)?;
        Ok(answer)
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
