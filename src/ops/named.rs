//! The last act of a build: the platforms become an index, and the index gets the image's name.

use std::collections::BTreeMap;

use crate::definition::Definition;
use crate::oci::{Descriptor, Digest, Document, Index};
use crate::store::Store;

use super::{Error, destinations, provenance};

/// Gives a build its name: the index where all platforms are there, else a note of each that is.
pub(super) fn name_image(
    definition: &Definition,
    manifests: &[Descriptor],
    store: &Store,
) -> Result<(Digest, bool), Error> {
    let image = &definition.image;
    let also = definition.destinations();
    let also: Vec<String> =
        also.iter().filter(|name| *name != image).map(ToString::to_string).collect();
    let noted = |descriptor: &Descriptor| {
        let mut descriptor = descriptor.clone();
        descriptor.annotations.insert(destinations::ALSO.to_owned(), also.join(" "));
        descriptor
    };
    if !is_whole(definition, manifests) {
        for manifest in manifests {
            store.set_partial(image, &noted(manifest))?;
        }
        let digest = manifests.first().map_or_else(|| Digest::of(b""), |manifest| manifest.digest);
        return Ok((digest, false));
    }
    let document = index_of(definition, manifests)?;
    store.put_document(&document)?;
    store.tag(image, &noted(&document.descriptor()))?;
    store.clear_partials(image)?;
    let builder = provenance::builder()?;
    provenance::record_index(image, &document.descriptor(), manifests, &builder, store)?;
    Ok((document.digest(), true))
}

/// Tells whether all platforms of a definition are there.
fn is_whole(definition: &Definition, manifests: &[Descriptor]) -> bool {
    definition.platforms.iter().all(|platform| {
        manifests
            .iter()
            .any(|entry| entry.platform.as_ref().is_some_and(|has| has.satisfies(platform)))
    })
}

/// Returns the index of a definition's platforms.
pub(super) fn index_of(
    definition: &Definition,
    manifests: &[Descriptor],
) -> Result<Document, Error> {
    let index = Index::new(manifests.to_vec(), index_annotations(definition));
    Ok(Document::of_index(&index)?)
}

/// Does what [`name_image()`] does, but for the name.
pub(super) fn leave_unnamed(
    definition: &Definition,
    manifests: &[Descriptor],
    store: &Store,
) -> Result<(Digest, bool), Error> {
    if !is_whole(definition, manifests) {
        let digest = manifests.first().map_or_else(|| Digest::of(b""), |manifest| manifest.digest);
        return Ok((digest, false));
    }
    let document = index_of(definition, manifests)?;
    store.put_document(&document)?;
    Ok((document.digest(), true))
}

/// An index says of itself what the definition says of the image: registries show it from there.
fn index_annotations(definition: &Definition) -> BTreeMap<String, String> {
    let mut annotations = definition.annotations.clone();
    for name in ["source", "description", "licenses", "title"] {
        let name = format!("org.opencontainers.image.{name}");
        if let Some(value) = definition.config.labels.get(&name) {
            annotations.entry(name).or_insert_with(|| value.clone());
        }
    }
    annotations
}
