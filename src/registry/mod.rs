//! Remote registries (distribution-spec 1.1): repositories that are sources and sinks of
//! [`crate::transfer`].
//!
//! ```text
//! Registries ── open(reference) ──> Repository ── Source, Sink
//!   client, keychain, hosts           auth: challenge, credential, tokens by scope
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
mod pull;
mod push;
mod reader;
mod referrers;
mod repository;
mod tail;
mod upload;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use crate::http;
use crate::oci::Reference;

pub use credentials::{Credential, Keychain, Secret, normalise};
pub use error::{Error, Refusal};
pub use repository::Repository;

use host::Host;

/// The way to all registries, with what is known of each.
#[derive(Debug)]
pub struct Registries {
    client: http::Client,
    keychain: Arc<Keychain>,
    plain: BTreeSet<String>,
    hosts: Mutex<BTreeMap<String, Arc<Host>>>,
}

impl Registries {
    /// Makes the way over a client with these credentials. Nothing is asked of anyone yet.
    pub fn new(client: http::Client, keychain: Keychain) -> Registries {
        Registries {
            client,
            keychain: Arc::new(keychain),
            plain: BTreeSet::new(),
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

    /// Opens the repository that a reference names. Nothing is asked of the registry yet.
    pub fn open(&self, reference: &Reference) -> Repository {
        let host = self.host(reference.registry());
        Repository::new(host, Arc::clone(&self.keychain), reference)
    }

    fn host(&self, registry: &str) -> Arc<Host> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let host = hosts.entry(registry.to_owned()).or_insert_with(|| {
            let client = match certificates::find(registry, &self.keychain) {
                trust if trust == http::Trust::default() => self.client.clone(),
                trust => self.client.trusting(trust),
            };
            Arc::new(Host::new(registry, self.plain.contains(registry), client))
        });
        Arc::clone(host)
    }
}
