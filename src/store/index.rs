//! Names: the entries of `index.json`, changed under the store's lock and replaced whole.

use std::path::Path;

use super::referrers::REFERS_TO;
use super::{BUILD_OF, Error, Store, encode};
use crate::disk;
use crate::oci::{
    DOCUMENT_LIMIT, Descriptor, Digest, Document, DocumentError, Index, REF_NAME, Reference,
    media_type,
};

/// The index of a store without images.
pub(super) const EMPTY: &str =
    r#"{"manifests":[],"mediaType":"application/vnd.oci.image.index.v1+json","schemaVersion":2}"#;

/// The most bytes that an `index.json` may have.
const LIMIT: u64 = 64 << 20;

impl Store {
    /// Returns what a name stands for. A digest in it decides, whatever name it came with.
    pub fn resolve(&self, reference: &Reference) -> Result<Option<Descriptor>, Error> {
        if let Some(digest) = reference.digest() {
            return self.find_document(&digest);
        }
        let name = reference.to_string();
        let entries = self.read_index()?.manifests;
        Ok(entries.into_iter().find(|entry| is_named(entry, &name)).map(without_name))
    }

    /// Lists the names in order with what they stand for.
    pub fn names(&self) -> Result<Vec<(Reference, Descriptor)>, Error> {
        let mut names: Vec<(Reference, Descriptor)> = self
            .read_index()?
            .manifests
            .into_iter()
            .filter_map(|entry| {
                Some((entry.annotations.get(REF_NAME)?.parse().ok()?, without_name(entry)))
            })
            .collect();
        names.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(names)
    }

    /// Lets a name stand for a manifest or index that is here already.
    pub fn tag(&self, reference: &Reference, descriptor: &Descriptor) -> Result<(), Error> {
        self.check_document(descriptor)?;
        let name = reference.to_string();
        let mut entry = without_name(descriptor.clone());
        entry.annotations.insert(REF_NAME.to_owned(), name.clone());
        self.change_index(|entries| {
            entries.retain(|entry| !is_named(entry, &name));
            entries.push(entry);
        })
    }

    /// Takes a name away, with the partial builds for it, and returns what it stood for. The bytes
    /// go with the next [`Store::gc`].
    pub fn untag(&self, reference: &Reference) -> Result<Option<Descriptor>, Error> {
        let name = reference.to_string();
        let mut removed = None;
        self.change_index(|entries| {
            removed =
                entries.iter().find(|entry| is_named(entry, &name)).cloned().map(without_name);
            entries.retain(|entry| !is_named(entry, &name) && !is_partial(entry, &name));
        })?;
        Ok(removed)
    }

    /// Keeps one platform's manifest of a build whose other platforms are made elsewhere. It
    /// replaces an earlier one for the same platform.
    pub fn set_partial(&self, reference: &Reference, descriptor: &Descriptor) -> Result<(), Error> {
        self.check_document(descriptor)?;
        let name = reference.to_string();
        let mut entry = without_name(descriptor.clone());
        entry.annotations.insert(BUILD_OF.to_owned(), name.clone());
        self.change_index(|entries| {
            entries.retain(|other| !(is_partial(other, &name) && other.platform == entry.platform));
            entries.push(entry);
        })
    }

    /// Lists the platforms' manifests kept for a name, by platform.
    pub fn partials(&self, reference: &Reference) -> Result<Vec<Descriptor>, Error> {
        let name = reference.to_string();
        let mut partials: Vec<Descriptor> = self
            .read_index()?
            .manifests
            .into_iter()
            .filter(|entry| is_partial(entry, &name))
            .map(without_name)
            .collect();
        partials.sort_by(|a, b| a.platform.cmp(&b.platform));
        Ok(partials)
    }

    /// Takes away the platforms' manifests kept for a name, when its index is made.
    pub fn clear_partials(&self, reference: &Reference) -> Result<(), Error> {
        let name = reference.to_string();
        self.change_index(|entries| entries.retain(|entry| !is_partial(entry, &name)))
    }

    /// Returns the entries of `index.json` as they stand there.
    pub(super) fn read_index(&self) -> Result<Index, Error> {
        read(&self.path("index.json"))
    }

    pub(super) fn change_index(
        &self,
        change: impl FnOnce(&mut Vec<Descriptor>),
    ) -> Result<(), Error> {
        let path = self.path("index.json");
        let _lock = super::error::lock(&self.path("lock"))?;
        let mut index = read(&path)?;
        let before = index.clone();
        change(&mut index.manifests);
        index.manifests.sort_by(|a, b| key(a).cmp(&key(b)));
        if index.manifests != before.manifests {
            disk::write_whole(&path, &encode(&index, &path)?)?;
        }
        Ok(())
    }

    pub(super) fn find_document(&self, digest: &Digest) -> Result<Option<Descriptor>, Error> {
        let path = self.blob_path(digest);
        let bytes = match disk::read(&path, DOCUMENT_LIMIT) {
            Err(error) if error.is_not_found() => return Ok(None),
            other => other?,
        };
        let found = Digest::of(&bytes);
        if found != *digest {
            return Err(Error::Corrupt { path, expected: *digest, found });
        }
        Ok(Some(Document::read(bytes, None)?.descriptor()))
    }

    pub(super) fn check_document(&self, descriptor: &Descriptor) -> Result<(), Error> {
        if !media_type::is_index(&descriptor.media_type)
            && !media_type::is_manifest(&descriptor.media_type)
        {
            let (digest, media_type) = (descriptor.digest, descriptor.media_type.clone());
            return Err(DocumentError::Unknown { digest, media_type }.into());
        }
        if self.has_whole(descriptor) {
            Ok(())
        } else {
            Err(Error::Missing { digest: descriptor.digest, path: self.root().to_owned() })
        }
    }
}

/// Reads the `index.json` of a layout.
pub(super) fn read(path: &Path) -> Result<Index, Error> {
    let bytes = disk::read(path, LIMIT)?;
    serde_json::from_slice(&bytes).map_err(|source| Error::Json { path: path.to_owned(), source })
}

fn is_named(entry: &Descriptor, name: &str) -> bool {
    entry.annotations.get(REF_NAME).is_some_and(|has| has == name)
}

fn is_partial(entry: &Descriptor, name: &str) -> bool {
    entry.annotations.get(BUILD_OF).is_some_and(|has| has == name)
}

fn without_name(mut entry: Descriptor) -> Descriptor {
    entry.annotations.remove(REF_NAME);
    entry.annotations.remove(BUILD_OF);
    entry
}

type Key<'e> = (
    Option<&'e String>,
    Option<&'e String>,
    Option<&'e String>,
    Option<&'e crate::oci::Platform>,
    Digest,
);

fn key(entry: &Descriptor) -> Key<'_> {
    let annotation = |name| entry.annotations.get(name);
    (
        annotation(REF_NAME),
        annotation(BUILD_OF),
        annotation(REFERS_TO),
        entry.platform.as_ref(),
        entry.digest,
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::oci::{Manifest, Platform};

    fn manifest(store: &Store, text: &[u8]) -> Descriptor {
        let config = Descriptor::of(media_type::CONFIG, text);
        store.put_bytes(text).unwrap();
        let document =
            Document::of_manifest(&Manifest::new(config, Vec::new(), BTreeMap::new())).unwrap();
        store.put_document(&document).unwrap();
        document.descriptor()
    }

    #[test]
    fn a_name_stands_for_the_last_thing_it_was_given() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let name: Reference = "ghcr.io/rocker-org/ml".parse().unwrap();
        let other: Reference = "ghcr.io/rocker-org/cuda:1".parse().unwrap();
        let (one, two) = (manifest(&store, b"{}"), manifest(&store, b"{ }"));
        assert_eq!(store.resolve(&name).unwrap(), None);
        store.tag(&name, &one).unwrap();
        store.tag(&other, &one).unwrap();
        store.tag(&name, &two).unwrap();
        assert_eq!(store.resolve(&name).unwrap(), Some(two.clone()));
        assert_eq!(store.resolve(&name.at(one.digest)).unwrap(), Some(one.clone()));
        let names: Vec<_> = store.names().unwrap();
        assert_eq!(names, [(other, one.clone()), (name.clone(), two.clone())]);
        assert_eq!(store.untag(&name).unwrap(), Some(two));
        assert_eq!(store.untag(&name).unwrap(), None);
        let missing = Descriptor::of(media_type::MANIFEST, b"elsewhere");
        assert!(matches!(store.tag(&name, &missing), Err(Error::Missing { .. })));
        let layer = Descriptor::new(media_type::LAYER_GZIP, one.digest, one.size);
        assert!(matches!(store.tag(&name, &layer), Err(Error::Document(_))));
    }

    #[test]
    fn partial_builds_are_kept_one_a_platform_and_go_with_the_name() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let name: Reference = "ghcr.io/rocker-org/ml".parse().unwrap();
        let on = |architecture: &str, mut descriptor: Descriptor| {
            descriptor.platform = Some(Platform::linux(architecture));
            descriptor
        };
        let old = on("arm64", manifest(&store, b"{}"));
        let arm = on("arm64", manifest(&store, b"{ }"));
        let amd = on("amd64", manifest(&store, b"{  }"));
        for partial in [&old, &arm, &amd] {
            store.set_partial(&name, partial).unwrap();
        }
        assert_eq!(store.partials(&name).unwrap(), [amd, arm]);
        assert!(store.names().unwrap().is_empty());
        store.untag(&name).unwrap();
        assert!(store.partials(&name).unwrap().is_empty());
    }

    #[test]
    fn a_damaged_index_is_named_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let path = store.path("index.json");
        std::fs::write(&path, b"{\"manif").unwrap();
        let error = store.names().unwrap_err();
        assert!(error.to_string().ends_with("index.json is damaged"), "{error}");
        let one = manifest(&store, b"{}");
        assert!(store.tag(&"a/b".parse().unwrap(), &one).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"{\"manif");
    }
}
