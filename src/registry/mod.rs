//! Remote registries (distribution-spec 1.1): repositories that are sources and sinks of
//! [`crate::transfer`].
//!
//! ```text
//! Registries ── open(reference) ──> Repository ── Source, Sink
//!   client, keychain, hosts, places   auth: challenge, credential, tokens by scope
//! ```
//! A request goes out with what is known; a 401 says what is missing, and it goes out once more. All
//! that differs between registries is handled where it shows, by what the answer holds and never by
//! the registry's name, but for Docker Hub's three names and the token of GitHub's runners.

mod auth;
mod certificates;
mod challenge;
mod credentials;
mod error;
mod helper;
mod host;
mod login;
mod places;
mod pull;
mod push;
mod reader;
mod referrers;
mod refusal;
mod repository;
mod short;
mod sizes;
mod tail;
mod upload;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::http;
use crate::oci::Reference;

pub use credentials::{Credential, Keychain, Secret, normalise};
pub use error::Error;
pub use places::Places;
pub use refusal::{Asking, Refusal};
pub use repository::Repository;
pub use short::is_short;

use host::{Host, Wire};
use repository::Place;

/// The way to all registries, with what is known of each.
#[derive(Debug)]
pub struct Registries {
    client: http::Client,
    keychain: Arc<Keychain>,
    plain: BTreeSet<String>,
    places: Places,
    hosts: Mutex<BTreeMap<(String, Wire, bool), Arc<Host>>>,
}

/// How often a mirror is tried, and how long it may take to stand: there are others.
const MIRROR_TRIES: u32 = 2;
const MIRROR_CONNECT: Duration = Duration::from_secs(10);

impl Registries {
    /// Makes the way over a client with these credentials. Nothing is asked of anyone yet.
    pub fn new(client: http::Client, keychain: Keychain) -> Registries {
        Registries {
            client,
            keychain: Arc::new(keychain),
            plain: BTreeSet::new(),
            places: Places::default(),
            hosts: Mutex::new(BTreeMap::new()),
        }
    }

    /// Has a registry, named as in references (`host` or `host:port`), spoken to without TLS. On
    /// loopback that needs no saying: there the registry itself is asked.
    #[must_use]
    pub fn with_plain_http(mut self, registry: &str) -> Registries {
        self.plain.insert(registry.to_owned());
        self
    }

    /// Reads images where these say.
    #[must_use]
    pub fn with_places(self, places: Places) -> Registries {
        Registries { places, ..self }
    }

    /// Opens the repository that a reference names. Nothing is asked of the registry yet.
    pub fn open(&self, reference: &Reference) -> Repository {
        let name = reference.name();
        let here = self.place(reference, false);
        let Some(rule) = self.places.rule(&name) else { return here };
        let mut places = Vec::new();
        let found = rule.places(&name);
        let last = found.len() - 1;
        for (position, found) in found.into_iter().enumerate() {
            if position == last && found.name == name {
                places.push(Place::Itself);
            } else if let Ok(reference) = found.name.parse() {
                let mirror = position < last;
                let mut repository = self.place(&reference, mirror);
                if found.insecure {
                    repository.host = self.host(reference.registry(), Wire::Any, mirror);
                }
                places
                    .push(Place::Other { repository: Box::new(repository), serves: found.serves });
            }
        }
        here.reading_from(places)
    }

    /// Makes a repository that is where its name says.
    fn place(&self, reference: &Reference, mirror: bool) -> Repository {
        let rule = self.places.rule(&reference.name());
        let wire = if rule.is_some_and(|rule| rule.insecure) { Wire::Any } else { Wire::Secure };
        let host = self.host(reference.registry(), wire, mirror);
        let blocked = rule.filter(|rule| rule.blocked).map(|rule| rule.file.clone());
        Repository::new(host, Arc::clone(&self.keychain), reference, blocked)
    }

    fn host(&self, registry: &str, wire: Wire, mirror: bool) -> Arc<Host> {
        let wire = if self.plain.contains(registry) { Wire::Plain } else { wire };
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let host = hosts.entry((registry.to_owned(), wire, mirror)).or_insert_with(|| {
            let mut trust = certificates::find(registry, &self.keychain);
            trust.anyone = wire == Wire::Any;
            let client = if mirror {
                let config = self.client.config().clone();
                let tries = config.tries.min(MIRROR_TRIES);
                let connect_timeout = config.connect_timeout.min(MIRROR_CONNECT);
                let config = http::Config { connect_timeout, tries, ..config };
                http::Client::new(config).trusting(trust)
            } else if trust == http::Trust::default() {
                self.client.clone()
            } else {
                self.client.trusting(trust)
            };
            Arc::new(Host::new(registry, wire, client))
        });
        Arc::clone(host)
    }
}
