//! What a push sends and where to: names of the store, the documents under them, and the destinations
//! that a definition or the caller wants.

use crate::fault;
use crate::oci::{Document, Reference};
use crate::store::Store;
use crate::transfer::Source;

use super::{Error, PushOptions, inspect};

/// Annotation of a name in the store: where its definition wants it pushed too.
pub(super) const ALSO: &str = "dev.ocibuild.also";

/// Returns the names that are to be pushed.
pub(super) fn images(options: &PushOptions, store: &Store) -> Result<Vec<Reference>, Error> {
    if !options.references.is_empty() {
        return Ok(options.references.clone());
    }
    let mut images = Vec::new();
    for (reference, descriptor) in store.names()? {
        if descriptor.annotations.contains_key(ALSO) {
            images.push(reference);
        }
    }
    if images.is_empty() {
        return Err(Error::Usage(
            "no image in the store was built here; name one to push".to_owned(),
        ));
    }
    Ok(images)
}

/// Returns what is to be pushed of an image: its index, or its platforms one by one.
pub(super) fn documents(
    image: &Reference,
    by_digest: bool,
    store: &Store,
) -> Result<Vec<Document>, Error> {
    if by_digest {
        let partials = store.partials(image)?;
        if !partials.is_empty() {
            return partials.iter().map(|part| Ok(Source::document(store, part)?)).collect();
        }
    }
    match store.resolve(image)? {
        None => {
            let parts = store.partials(image)?;
            if parts.is_empty() {
                return Err(no_image(image, store)?);
            }
            Err(Error::NoImage {
                reference: image.clone(),
                hint: format!(
                    "only single platforms of it were built: push them with --by-digest, or join them \
                     with `ocibuild index` ({} here)",
                    parts.len()
                ),
            })
        }
        Some(descriptor) => {
            let document = Source::document(store, &descriptor)?;
            if !by_digest || !document.is_index() {
                return Ok(vec![document]);
            }
            inspect::manifests(image, &document, store)?
                .iter()
                .map(|(entry, _)| Ok(Source::document(store, entry)?))
                .collect()
        }
    }
}

/// Says that an image is not in the store, and what is.
pub(super) fn no_image(image: &Reference, store: &Store) -> Result<Error, Error> {
    let names: Vec<Reference> = store.names()?.into_iter().map(|(name, _)| name).collect();
    let same: Vec<&Reference> = names
        .iter()
        .filter(|name| {
            name.name() == image.name() || name.repository().ends_with(image.repository())
        })
        .collect();
    let hint = if !same.is_empty() {
        format!("the store has {}", fault::list_of(&same))
    } else if names.is_empty() {
        "the store is empty: build the image with `ocibuild build NAME` first, or choose another \
         store with --store"
            .to_owned()
    } else {
        format!(
            "build it with `ocibuild build NAME`, pull it with `ocibuild pull {image}`, or choose \
             another store with --store; this one has {} (`ocibuild list` tells more)",
            fault::list_of(&names)
        )
    };
    Ok(Error::NoImage { reference: image.clone(), hint })
}

/// Returns where an image goes, the one that was named first.
pub(super) fn destinations(
    image: &Reference,
    options: &PushOptions,
    store: &Store,
) -> Result<Vec<Reference>, Error> {
    if !options.to.is_empty() {
        return Ok(options.to.clone());
    }
    let mut all = vec![image.clone()];
    if options.only {
        return Ok(all);
    }
    let named = store.resolve(image)?.into_iter().chain(store.partials(image)?);
    for descriptor in named {
        let also = descriptor.annotations.get(ALSO).map(String::as_str).unwrap_or_default();
        for text in also.split_whitespace() {
            let destination: Reference = text
                .parse()
                .map_err(|error: crate::oci::ReferenceError| Error::Usage(error.to_string()))?;
            if !all.contains(&destination) {
                all.push(destination);
            }
        }
    }
    Ok(all)
}
