//! One repository of a registry, and the way in which every request to it goes out.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::http::{Client, Method, Request, Response, StatusCode, Url, header, same_origin};
use crate::oci::{Descriptor, Digest, Document, Reference};

use super::auth::Auth;
use super::host::Host;
use super::places::Serves;
use super::pull::ACCEPT;
use super::reader::{Chain, Reader};
use super::refusal::refusal;
use super::{Error, Keychain};

/// A repository of a registry: a source and a sink. Shared between threads as it is.
#[derive(Debug)]
pub struct Repository {
    pub(super) host: Arc<Host>,
    pub(super) auth: Auth,
    /// The name without tag and digest.
    reference: Reference,
    /// The file that forbids it.
    blocked: Option<PathBuf>,
    /// Where it is read from, if that is elsewhere, too.
    places: Vec<Place>,
    /// Which of the places gave something last.
    chosen: AtomicUsize,
    /// Blobs that were no good, and in which place.
    spoiled: Mutex<BTreeSet<(Digest, usize)>>,
    /// Documents that came along while looking for something else.
    seen: Mutex<Vec<Document>>,
}

/// Where a repository is read from.
#[derive(Debug)]
pub(super) enum Place {
    /// Where its name says.
    Itself,
    /// A mirror, or what its name was rewritten to.
    Other {
        /// There.
        repository: Box<Repository>,
        /// What it is asked for.
        serves: Serves,
    },
}

impl Place {
    fn serves(&self, by_digest: bool) -> bool {
        match self {
            Place::Itself => true,
            Place::Other { serves, .. } if by_digest => serves.digests,
            Place::Other { serves, .. } => serves.tags,
        }
    }
}

/// What a request is for, which decides the token that it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum For {
    Pull,
    Push,
}

impl Repository {
    pub(super) fn new(
        host: Arc<Host>,
        keychain: Arc<Keychain>,
        reference: &Reference,
        blocked: Option<PathBuf>,
    ) -> Repository {
        let auth = Auth::new(host.client.clone(), keychain, &host.name, reference.repository());
        Repository {
            host,
            auth,
            reference: reference.clone(),
            blocked,
            places: Vec::new(),
            chosen: AtomicUsize::new(usize::MAX),
            spoiled: Mutex::default(),
            seen: Mutex::default(),
        }
    }

    /// Has it read from these places, the last of which is the primary one.
    pub(super) fn reading_from(self, places: Vec<Place>) -> Repository {
        Repository { places, ..self }
    }

    /// Returns the places where this may be read, beginning with the one that gave something last.
    pub(super) fn order(&self, by_digest: bool) -> Vec<usize> {
        if self.places.is_empty() {
            return vec![0];
        }
        let chosen = self.chosen.load(Ordering::Relaxed);
        let serves = |at: &usize| *at == chosen || self.places[*at].serves(by_digest);
        let mut order: Vec<usize> = (0..self.places.len()).filter(serves).collect();
        order.sort_by_key(|at| *at != chosen);
        order
    }

    /// Returns the repository of a place.
    pub(super) fn place(&self, at: usize) -> &Repository {
        match self.places.get(at) {
            Some(Place::Other { repository, .. }) => repository,
            Some(Place::Itself) | None => self,
        }
    }

    /// Asks each place in turn. When none has it the primary one's error counts.
    pub(super) fn read<'s, T>(
        &'s self,
        by_digest: bool,
        ask: impl Fn(&'s Repository) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.read_in(&self.order(by_digest), ask).map(|(_, answer)| answer)
    }

    /// Asks the places of an order in turn; returns with the answer which of them gave it.
    pub(super) fn read_in<'s, T>(
        &'s self,
        order: &[usize],
        ask: impl Fn(&'s Repository) -> Result<T, Error>,
    ) -> Result<(usize, T), Error> {
        let report = &self.client().config().report;
        let (mut primary, mut others) = (None, Vec::new());
        for &at in order {
            let place = self.place(at);
            match ask(place) {
                Ok(answer) => {
                    self.choose(at);
                    return Ok((at, answer));
                }
                Err(error) if at + 1 >= self.places.len() => primary = Some(error),
                Err(error) => {
                    let text =
                        format!("{} was of no help for {}: {error}", place.name(), self.name());
                    report.detail(&text);
                    others.push(text);
                }
            }
        }
        match primary {
            // No other place is known.
            None => ask(self).map(|answer| (self.places.len(), answer)),
            Some(error) => {
                for text in others {
                    report.warning(&text);
                }
                Err(error)
            }
        }
    }

    /// Opens a blob where it may be read, but last where it was no good.
    pub(super) fn open_blob(&self, blob: &Descriptor, offset: u64) -> Result<Chain<'_>, Error> {
        let mut order = self.order(true);
        {
            let spoiled = self.spoiled.lock().unwrap_or_else(PoisonError::into_inner);
            order.sort_by_key(|at| spoiled.contains(&(blob.digest, *at)));
        }
        let (at, reader) = self.read_in(&order, |place| Reader::open(place, blob, offset))?;
        let left = order.into_iter().skip_while(|one| *one != at).skip(1).collect();
        Ok(Chain::new(self, blob, reader, left))
    }

    /// Notes that what was read last of a blob was not the blob.
    pub(super) fn spoil(&self, digest: Digest) {
        let chosen = self.chosen.load(Ordering::Relaxed);
        self.spoiled.lock().unwrap_or_else(PoisonError::into_inner).insert((digest, chosen));
    }

    /// Notes which place gives what is asked for next.
    pub(super) fn choose(&self, at: usize) {
        self.chosen.store(at, Ordering::Relaxed);
    }

    /// Returns the name without tag and digest, as `ghcr.io/rocker-org/ml`.
    pub fn name(&self) -> String {
        self.reference.name()
    }

    pub(super) fn reference(&self) -> &Reference {
        &self.reference
    }

    pub(super) fn client(&self) -> &Client {
        &self.host.client
    }

    /// Returns the API's root, where the registry may be asked at all.
    pub(super) fn base(&self) -> Result<Url, Error> {
        match &self.blocked {
            Some(file) => Err(Error::Blocked { name: self.name(), file: file.clone() }),
            None => self.host.base(),
        }
    }

    /// Returns the URL of something below the repository, as `blobs/sha256:…`.
    pub(super) fn url(&self, below: &str) -> Result<Url, Error> {
        let path = format!("{}/{below}", self.reference.repository());
        self.base()?.join(&path).map_err(|_| Error::Host { registry: self.host.name.clone() })
    }

    /// Returns the scopes of a token for this repository.
    pub(super) fn scopes(&self, purpose: For) -> Vec<String> {
        vec![scope(self.reference.repository(), purpose)]
    }

    /// Sends a request to the registry and returns its answer, whatever the status. When it is 401
    /// the request goes out once more with what the challenge asks for. `make` fills in the headers
    /// for each of the two.
    pub(super) fn send<'r>(
        &self,
        method: &Method,
        url: &Url,
        scopes: &[String],
        make: impl Fn(Request<'r>) -> Result<Request<'r>, crate::http::Error>,
    ) -> Result<Response, Error> {
        let base = self.base()?;
        let ours = same_origin(&base, url);
        let mut authorization = if ours { self.auth.header(&base, scopes, false)? } else { None };
        let mut renewed = false;
        loop {
            let mut request = make(Request::new(method.clone(), url.clone()))?;
            if let Some(value) = &authorization {
                request = request.header(header::AUTHORIZATION, value)?;
            }
            let mut answer = self.client().send(&request)?;
            // A 401 of a host that we were redirected to is not the registry's.
            if answer.status() != StatusCode::UNAUTHORIZED
                || renewed
                || !ours
                || !same_origin(&base, answer.url())
            {
                return Ok(answer);
            }
            authorization =
                Some(self.auth.renew(&base, &mut answer, scopes, authorization.as_deref())?);
            renewed = true;
        }
    }

    /// Makes an error of an answer that nobody wanted.
    pub(super) fn refused(&self, doing: &str, answer: &mut Response) -> Error {
        refusal(&self.host.name, doing, self.auth.asking(), answer)
    }

    /// Makes an error of an answer to HEAD. Such an answer has no words, so GET gets them.
    pub(super) fn refused_silently(&self, doing: &str, answer: &mut Response) -> Error {
        let status = answer.status();
        if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS {
            let url = answer.url().clone();
            let once = |request: Request<'static>| {
                request.once().header(header::ACCEPT, &ACCEPT.join(", "))
            };
            if let Ok(mut spoken) = self.send(&Method::GET, &url, &self.scopes(For::Push), once)
                && spoken.status() == status
            {
                return self.refused(doing, &mut spoken);
            }
        }
        self.refused(doing, answer)
    }

    pub(super) fn remember(&self, document: Document) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(document);
    }

    pub(super) fn recall(&self, digest: Digest) -> Option<Document> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().find(|document| document.digest() == digest).cloned()
    }
}

pub(super) fn scope(repository: &str, purpose: For) -> String {
    let actions = match purpose {
        For::Pull => "pull",
        For::Push => "pull,push",
    };
    format!("repository:{repository}:{actions}")
}
