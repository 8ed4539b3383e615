//! How registries are reached: one client and one keychain for the process; and blobs that the
//! store knows only the origin of, fetched from there.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::http;
use crate::oci::{Descriptor, Digest, Document, Reference};
use crate::registry::{Keychain, Places, Registries, Repository};
use crate::store::Store;
use crate::transfer::{self, Source, Stream};

use super::{Context, Error};

/// What the caller said about reaching registries.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// User and password for the registry that the command is about, before any that are found in
    /// files. No other registry sees them: a build that is pushed may read its base elsewhere.
    pub login: Option<(String, String)>,
    /// Registries that speak plain HTTP though they are not on loopback.
    pub plain_http: Vec<String>,
    /// Whether no registry may be asked.
    pub offline: bool,
}

impl Access {
    /// Returns how HTTP is spoken.
    pub(super) fn client(&self, context: &Context<'_>) -> http::Config {
        http::Config {
            offline: self.offline,
            ..http::Config::from_env(context.env).reporting_to(context.report.clone())
        }
    }

    /// Makes the way to registries; `about` are the names to whose registries the login belongs.
    pub(super) fn registries<'r>(
        &self,
        about: impl IntoIterator<Item = &'r Reference>,
        context: &Context<'_>,
    ) -> Result<Registries, Error> {
        self.registries_by(self.client(context), about, context)
    }

    /// Does the same for what is only tried: where nobody answers nothing is waited for.
    pub(super) fn registries_to_try<'r>(
        &self,
        about: impl IntoIterator<Item = &'r Reference>,
        context: &Context<'_>,
    ) -> Result<Registries, Error> {
        let connect_timeout = Duration::from_secs(5);
        let config = http::Config { tries: 1, connect_timeout, ..self.client(context) };
        self.registries_by(config, about, context)
    }

    fn registries_by<'r>(
        &self,
        config: http::Config,
        about: impl IntoIterator<Item = &'r Reference>,
        context: &Context<'_>,
    ) -> Result<Registries, Error> {
        let mut keychain = Keychain::new(context.env);
        if let Some((user, password)) = &self.login {
            for reference in about {
                keychain = keychain.with_login(reference.registry(), user, password);
            }
        }
        let places = Places::read(&keychain)?;
        let registries = Registries::new(http::Client::new(config), keychain).with_places(places);
        Ok(self.plain_http.iter().fold(registries, |all, host| all.with_plain_http(host)))
    }
}

/// Blobs that the store lacks, fetched from where it is known that they were.
pub(super) struct Origins<'a> {
    store: &'a Store,
    repositories: BTreeMap<String, Repository>,
}

impl<'a> Origins<'a> {
    /// Prepares for these blobs; nothing is asked of a registry before a blob is.
    pub(super) fn new<'b>(
        store: &'a Store,
        registries: &Registries,
        blobs: impl IntoIterator<Item = &'b Descriptor>,
    ) -> Result<Origins<'a>, Error> {
        let mut repositories = BTreeMap::new();
        for blob in blobs {
            if store.has_whole(blob) {
                continue;
            }
            for name in store.origins(&blob.digest)? {
                repositories.entry(name.name()).or_insert_with(|| registries.open(&name));
            }
        }
        Ok(Origins { store, repositories })
    }
}

impl Source for Origins<'_> {
    fn resolve(&self, reference: &Reference) -> Result<Descriptor, transfer::Error> {
        Source::resolve(self.store, reference)
    }

    fn document(&self, descriptor: &Descriptor) -> Result<Document, transfer::Error> {
        Source::document(self.store, descriptor)
    }

    fn blob<'s>(
        &'s self,
        descriptor: &Descriptor,
        offset: u64,
    ) -> Result<Stream<'s>, transfer::Error> {
        // The store's own error tells that the blob is missing; it is the one to give where no
        // origin is known.
        let mut first = match self.store.blob(descriptor, offset) {
            Ok(stream) => return Ok(stream),
            Err(error) => error,
        };
        for (position, name) in self.store.origins(&descriptor.digest)?.iter().enumerate() {
            let Some(repository) = self.repositories.get(&name.name()) else { continue };
            match repository.blob(descriptor, offset) {
                Ok(stream) => return Ok(stream),
                Err(error) if position == 0 => first = error,
                Err(_) => {}
            }
        }
        Err(first)
    }

    fn distrust(&self, digest: Digest) {
        for repository in self.repositories.values() {
            repository.distrust(digest);
        }
    }

    fn origins(&self, descriptor: &Descriptor) -> Vec<Reference> {
        Source::origins(self.store, descriptor)
    }
}
