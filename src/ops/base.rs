//! What an image is built on: found in the store or at its registry, and its documents kept.

use crate::build;
use crate::oci::{Descriptor, Digest, Document, Platform, Reference};
use crate::registry::{Registries, Repository};
use crate::store::Store;
use crate::transfer::{self, Source};

use super::{Context, Error, inspect};

/// A base whose documents are in the store; its layers may not be.
pub(super) struct Found {
    reference: Reference,
    document: Document,
    /// Where it came from, unless the store had it.
    repository: Option<Repository>,
}

/// Finds a base. A name that the store has is not asked for again, unless `always`.
pub(super) fn find(
    reference: &Reference,
    always: bool,
    store: &Store,
    registries: &Registries,
    context: &Context<'_>,
) -> Result<Found, Error> {
    // What a digest names never changes.
    let here =
        if always && reference.digest().is_none() { None } else { store.resolve(reference)? };
    if let Some(descriptor) = here {
        let document = Source::document(store, &descriptor)?;
        let origin = store.origins(&document.digest())?;
        let repository = origin.first().map(|name| registries.open(name));
        return Ok(Found { reference: reference.clone(), document, repository });
    }
    if reference.registry() == "localhost" {
        // No registry is meant: port 80 of this machine is none, and a tag like that was imported.
        return match store.resolve(reference)? {
            Some(descriptor) => {
                let document = Source::document(store, &descriptor)?;
                Ok(Found { reference: reference.clone(), document, repository: None })
            }
            None => Err(Error::NoImage {
                reference: reference.clone(),
                hint: format!(
                    "import it: `ocibuild import ROOTFS.tar --name {reference}` (scripts/base makes such a tar)"
                ),
            }),
        };
    }
    context.report.note(&format!("looking up {reference}"));
    let repository = registries.open(reference);
    let descriptor = repository.resolve(reference)?;
    let document = repository.document(&descriptor)?;
    store.put_document(&document)?;
    store.add_origins(&[document.digest()], reference)?;
    store.tag(reference, &document.descriptor())?;
    Ok(Found { reference: reference.clone(), document, repository: Some(repository) })
}

impl Found {
    /// Returns the digest of what the name stands for.
    pub(super) fn digest(&self) -> Digest {
        self.document.digest()
    }

    /// Returns the manifest of a platform, with its descriptor.
    fn manifest(&self, platform: &Platform, store: &Store) -> Result<Document, Error> {
        if !self.document.is_index() {
            return Ok(self.document.clone());
        }
        let index = self.document.index().map_err(transfer::Error::from)?;
        let wanted = [platform.clone()];
        let chosen = transfer::select(self.document.digest(), &index, Some(&wanted))?;
        let entry: &Descriptor = chosen.first().ok_or_else(|| Error::MissingPlatforms {
            image: self.reference.clone(),
            platforms: wanted.to_vec(),
        })?;
        if store.has_whole(entry) {
            return Ok(Source::document(store, entry)?);
        }
        match &self.repository {
            Some(repository) => {
                let document = repository.document(entry)?;
                store.put_document(&document)?;
                Ok(document)
            }
            // The store's own error says what is missing.
            None => Ok(Source::document(store, entry)?),
        }
    }

    /// Returns the base for one platform, and notes where its layers can be fetched.
    pub(super) fn platform(
        &self,
        platform: &Platform,
        store: &Store,
    ) -> Result<(build::Base, Digest), Error> {
        let document = self.manifest(platform, store)?;
        let manifest = document.manifest().map_err(transfer::Error::from)?;
        let config = match &self.repository {
            Some(repository) if !store.has_whole(&manifest.config) => {
                let config = inspect::read_config_bytes(&manifest.config, repository)?;
                store.put_bytes(&config)?;
                inspect::parse_config(&config, &self.reference)?
            }
            _ => inspect::read_config(&manifest.config, store, &self.reference)?,
        };
        if self.repository.is_some() {
            let digests: Vec<Digest> = manifest.layers.iter().map(|layer| layer.digest).collect();
            let missing: Vec<Digest> = digests
                .into_iter()
                .filter(|digest| store.origins(digest).is_ok_and(|names| names.is_empty()))
                .collect();
            store.add_origins(&missing, &self.reference)?;
        }
        let digest = document.digest();
        let reference = self.reference.clone();
        Ok((build::Base { reference, digest: self.document.digest(), manifest, config }, digest))
    }
}
