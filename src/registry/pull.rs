//! A repository as a source.

use crate::http::{Method, Response, StatusCode, header};
use crate::oci::{DOCUMENT_LIMIT, Descriptor, Digest, Document, Reference, media_type};
use crate::transfer::{self, Source, Stream};

use super::Error;
use super::repository::{For, Repository};

/// All types of documents that we read. All are named in each request: registries answer with 404,
/// or with another document, when the one that they have is not among them.
pub(super) const ACCEPT: [&str; 4] =
    [media_type::INDEX, media_type::MANIFEST, media_type::DOCKER_LIST, media_type::DOCKER_MANIFEST];

/// How often a document is asked for that comes damaged.
const DOCUMENT_TRIES: usize = 3;

/// The header with a document's digest.
pub(super) const CONTENT_DIGEST: &str = "docker-content-digest";

impl Source for Repository {
    fn resolve(&self, reference: &Reference) -> Result<Descriptor, transfer::Error> {
        if reference.name() != self.name() {
            let elsewhere =
                Error::Elsewhere { reference: reference.to_string(), repository: self.name() };
            return Err(elsewhere.into());
        }
        let name = match (reference.digest(), reference.tag()) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.unwrap_or("latest").to_owned(),
        };
        let digest = reference.digest();
        Ok(self.read(digest.is_some(), |place| {
            let (found, document) = place.look_up_or_get(&name, digest, For::Pull)?;
            if let Some(document) = document {
                self.remember(document);
            }
            Ok(found)
        })?)
    }

    fn document(&self, descriptor: &Descriptor) -> Result<Document, transfer::Error> {
        if let Some(document) = self.recall(descriptor.digest) {
            return Ok(document);
        }
        let name = descriptor.digest.to_string();
        Ok(self.read(true, |place| place.get_document(&name, Some(descriptor.digest), For::Pull))?)
    }

    fn blob<'a>(
        &'a self,
        descriptor: &Descriptor,
        offset: u64,
    ) -> Result<Stream<'a>, transfer::Error> {
        Ok(Box::new(self.open_blob(descriptor, offset)?))
    }

    fn distrust(&self, digest: Digest) {
        self.spoil(digest);
    }

    fn origin(&self) -> Option<Reference> {
        Some(self.reference().clone())
    }
}

impl Repository {
    /// Reads what a tag stands for; `None` where there is no such tag.
    pub fn find(&self, tag: &str) -> Result<Option<Document>, Error> {
        match self.get_document(tag, None, For::Pull) {
            Err(error) if error.is_not_found() => Ok(None),
            other => other.map(Some),
        }
    }

    /// Finds a document's descriptor.
    pub(super) fn look_up(
        &self,
        name: &str,
        expected: Option<Digest>,
        purpose: For,
    ) -> Result<Descriptor, Error> {
        Ok(self.look_up_or_get(name, expected, purpose)?.0)
    }

    /// Finds a document's descriptor by HEAD, which registries do not count as a pull, or by GET
    /// where HEAD does not say everything; then the document has come along.
    fn look_up_or_get(
        &self,
        name: &str,
        expected: Option<Digest>,
        purpose: For,
    ) -> Result<(Descriptor, Option<Document>), Error> {
        let get = || {
            let document = self.get_document(name, expected, purpose)?;
            Ok((document.descriptor(), Some(document)))
        };
        let mut answer = self.ask_document(&Method::HEAD, name, purpose)?;
        if answer.status() != StatusCode::OK {
            // A refusal to HEAD has no words, so GET gets the error.
            return get();
        }
        let digest = answer.header(CONTENT_DIGEST).and_then(|text| text.parse::<Digest>().ok());
        let known = answer
            .header(header::CONTENT_TYPE)
            .map(plain_type)
            .filter(|sent| media_type::is_index(sent) || media_type::is_manifest(sent));
        let described = match (digest.or(expected), known, answer.content_length()) {
            (Some(digest), Some(sent), Some(size)) if size > 0 => {
                Some(Descriptor::new(sent, digest, size))
            }
            _ => None,
        };
        match (described, expected) {
            (Some(descriptor), Some(expected)) if descriptor.digest != expected => {
                Err(Error::WrongDocument {
                    repository: self.name(),
                    expected,
                    actual: descriptor.digest,
                })
            }
            (Some(descriptor), _) => Ok((descriptor, None)),
            (None, _) => {
                // The connection can carry the next request once this answer is read.
                answer.bytes(0).ok();
                get()
            }
        }
    }

    pub(super) fn ask_document(
        &self,
        method: &Method,
        name: &str,
        purpose: For,
    ) -> Result<Response, Error> {
        let url = self.url(&format!("manifests/{name}"))?;
        self.send(method, &url, &self.scopes(purpose), |request| {
            request.header(header::ACCEPT, &ACCEPT.join(", "))
        })
    }

    /// Fetches a document by tag or digest and verifies it. One that was cut or changed on the way is
    /// asked for again: it is small, and the next answer may come by another way.
    pub(super) fn get_document(
        &self,
        name: &str,
        expected: Option<Digest>,
        purpose: For,
    ) -> Result<Document, Error> {
        for _ in 1..DOCUMENT_TRIES {
            match self.get_document_once(name, expected, purpose) {
                Err(Error::Http(error)) if error.is_transient() => {}
                Err(Error::WrongDocument { .. }) => {}
                result => return result,
            }
        }
        self.get_document_once(name, expected, purpose)
    }

    fn get_document_once(
        &self,
        name: &str,
        expected: Option<Digest>,
        purpose: For,
    ) -> Result<Document, Error> {
        let mut answer = self.ask_document(&Method::GET, name, purpose)?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => {
                let what = if expected.is_some() {
                    format!("image {name}")
                } else {
                    format!("image tagged `{name}`")
                };
                return Err(Error::NotFound {
                    repository: self.name(),
                    what,
                    account: self.auth.account(),
                });
            }
            _ => return Err(self.refused(&format!("give the manifest {name}"), &mut answer)),
        }
        let announced = answer.header(CONTENT_DIGEST).and_then(|text| text.parse::<Digest>().ok());
        let sent = answer.header(header::CONTENT_TYPE).map(str::to_owned);
        let bytes = answer.bytes(DOCUMENT_LIMIT)?;
        let actual = Digest::of(&bytes);
        if let Some(expected) = expected.or(announced)
            && expected != actual
        {
            return Err(Error::WrongDocument { repository: self.name(), expected, actual });
        }
        Document::read(bytes, sent.as_deref())
            .map_err(|source| Error::Document { repository: self.name(), source })
    }
}

/// Returns a media type without parameters.
fn plain_type(text: &str) -> &str {
    text.split(';').next().unwrap_or(text).trim()
}
