//! What refers to an image of the store: entries of `index.json` without a name, which say what they
//! are about and of which kind they are. They stay as long as the image does.

use super::{Error, Store};
use crate::oci::{Descriptor, Digest};

/// Annotation of an entry: the image that it is about.
pub(super) const REFERS_TO: &str = "dev.ocibuild.refers-to";

/// Annotation of an entry: what it is of all that refers to the same image.
const KIND: &str = "dev.ocibuild.kind";

impl Store {
    /// Lets a document that is here refer to an image, in place of what did so in the same kind.
    pub fn set_referrer(
        &self,
        subject: &Digest,
        kind: &str,
        document: &Descriptor,
    ) -> Result<(), Error> {
        self.check_document(document)?;
        let subject = subject.to_string();
        let mut entry = document.clone();
        entry.annotations.insert(REFERS_TO.to_owned(), subject.clone());
        entry.annotations.insert(KIND.to_owned(), kind.to_owned());
        self.change_index(|entries| {
            entries.retain(|other| !is_about(other, &subject, kind));
            entries.push(entry);
        })
    }

    /// Lists what refers to an image, by kind.
    pub fn referrers(&self, subject: &Digest) -> Result<Vec<(String, Descriptor)>, Error> {
        let subject = subject.to_string();
        let mut found = Vec::new();
        for mut entry in self.read_index()?.manifests {
            if entry.annotations.get(REFERS_TO) != Some(&subject) {
                continue;
            }
            entry.annotations.remove(REFERS_TO);
            let kind = entry.annotations.remove(KIND).unwrap_or_default();
            found.push((kind, entry));
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(found)
    }
}

/// Returns the image that an entry of `index.json` is about, if it refers to one.
pub(super) fn subject(entry: &Descriptor) -> Option<Digest> {
    entry.annotations.get(REFERS_TO)?.parse().ok()
}

fn is_about(entry: &Descriptor, subject: &str, kind: &str) -> bool {
    let says =
        |name: &str, value: &str| entry.annotations.get(name).is_some_and(|has| has == value);
    says(REFERS_TO, subject) && says(KIND, kind)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::oci::{Document, Manifest, Reference, media_type};
    use crate::report::Silent;
    use crate::store::GcOptions;

    fn manifest(store: &Store, text: &str) -> Descriptor {
        let config = Descriptor::of(media_type::CONFIG, text.as_bytes());
        store.put_bytes(text.as_bytes()).unwrap();
        let manifest = Manifest::new(config, Vec::new(), BTreeMap::new());
        let document = Document::of_manifest(&manifest).unwrap();
        store.put_document(&document).unwrap();
        document.descriptor()
    }

    #[test]
    fn what_refers_to_an_image_stays_and_goes_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let name: Reference = "ghcr.io/rocker-org/ml".parse().unwrap();
        let image = manifest(&store, "{}");
        let (old, new) = (manifest(&store, "[1]"), manifest(&store, "[2]"));
        store.tag(&name, &image).unwrap();
        store.set_referrer(&image.digest, "sbom", &old).unwrap();
        store.set_referrer(&image.digest, "sbom", &new).unwrap();
        store.set_referrer(&new.digest, "signature", &old).unwrap();
        assert_eq!(store.referrers(&image.digest).unwrap(), [("sbom".to_owned(), new.clone())]);
        assert_eq!(store.names().unwrap().len(), 1);
        let gc = || store.gc(&GcOptions::default(), &Silent).unwrap();
        assert_eq!(gc().blobs, 0);
        store.untag(&name).unwrap();
        let dry = store.gc(&GcOptions { dry_run: true, ..GcOptions::default() }, &Silent).unwrap();
        assert_eq!(dry.blobs, 6);
        assert_eq!(store.referrers(&image.digest).unwrap().len(), 1);
        assert_eq!(gc().blobs, 6);
        assert!(store.referrers(&image.digest).unwrap().is_empty());
        assert!(store.referrers(&new.digest).unwrap().is_empty());
    }
}
