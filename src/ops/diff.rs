//! `diff`: what two images differ in, wherever they lie.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use crate::audit::{self, Comparison};
use crate::build::Written;
use crate::disk;
use crate::oci::{
    DOCUMENT_LIMIT, Descriptor, Digest, Document, Platform, Reference, ReferenceError, media_type,
};
use crate::registry::{Registries, Repository};
use crate::store::{Outside, Store};
use crate::transfer::{self, Source};

use super::access::Origins;
use super::{Access, Context, Error};

/// What to compare.
#[derive(Clone, Debug)]
pub struct DiffOptions {
    /// The first image.
    pub a: ImageName,
    /// The second.
    pub b: ImageName,
    /// Leave out the other platforms.
    pub platform: Option<Platform>,
    /// Which step wrote what of the second image, where that is known.
    pub written: Option<Arc<Written>>,
    /// How to reach registries.
    pub access: Access,
}

/// An image by whatever it can be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageName {
    /// In a layout outside of the store.
    File {
        /// A folder or a tar.
        path: PathBuf,
        /// Which image of several.
        select: Option<String>,
    },
    /// A document of the store.
    Digest(Digest),
    /// A name in the store, else in its registry.
    Reference(Reference),
}

impl ImageName {
    /// Makes a relative path start from a folder.
    #[must_use]
    pub fn from_folder(self, folder: &Path) -> ImageName {
        match self {
            ImageName::File { path, select } => {
                // Without a `.` in it, for messages.
                let path = folder.join(path).components().collect();
                ImageName::File { path, select }
            }
            other => other,
        }
    }
}

impl ImageName {
    /// Returns the name, if it is one that a registry can have.
    pub(super) fn reference(&self) -> Option<&Reference> {
        match self {
            ImageName::Reference(reference) => Some(reference),
            _ => None,
        }
    }
}

impl FromStr for ImageName {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<ImageName, ReferenceError> {
        let is_path = text == "." || text == ".." || text.starts_with(['/', '.']);
        let file = text
            .strip_prefix("oci:")
            .or_else(|| text.strip_prefix("oci-archive:"))
            .or_else(|| is_path.then_some(text));
        if let Some(file) = file {
            // `oci:FOLDER:NAME`, as skopeo has it.
            let (path, select) = match file.split_once(':') {
                Some((path, select)) => (path, Some(select.to_owned())),
                None => (file, None),
            };
            return Ok(ImageName::File { path: PathBuf::from(path), select });
        }
        match text.parse() {
            Ok(digest) => Ok(ImageName::Digest(digest)),
            Err(_) => Ok(ImageName::Reference(text.parse()?)),
        }
    }
}

impl std::fmt::Display for ImageName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ImageName::File { path, select: None } => write!(f, "{}", path.display()),
            ImageName::File { path, select: Some(name) } => {
                write!(f, "{}:{name}", path.display())
            }
            ImageName::Digest(digest) => write!(f, "{digest}"),
            ImageName::Reference(reference) => write!(f, "{reference}"),
        }
    }
}

/// Where an image was found.
pub(super) enum Found {
    Here(Document),
    Outside(Outside),
    Remote(Box<Repository>, Descriptor),
}

/// Compares two images.
pub fn diff(options: &DiffOptions, context: &Context<'_>) -> Result<Comparison, Error> {
    let store = context.open()?;
    let names = [&options.a, &options.b];
    let about = names.iter().filter_map(|name| name.reference());
    let registries = options.access.registries(about, context)?;
    let find = Find { store: &store, registries: &registries };
    let (a, b) = (find.find(&options.a)?, find.find(&options.b)?);
    let origins = origins(&[&a, &b], &store, &registries)?;
    let run = store.begin_run(context.report.as_ref())?;
    let compare = audit::Options {
        platforms: options.platform.iter().cloned().collect(),
        scratch: run.path(),
        written: &|layer, path| options.written.as_ref()?.step(layer, path),
        report: context.report.as_ref(),
    };
    let (a, b) = (side(&options.a, &a, &origins), side(&options.b, &b, &origins));
    Ok(audit::compare(&a, &b, &compare)?)
}

pub(super) fn side<'f>(
    name: &ImageName,
    found: &'f Found,
    here: &'f dyn Source,
) -> audit::Side<'f> {
    let (source, descriptor): (&dyn Source, Descriptor) = match found {
        Found::Here(document) => (here, document.descriptor()),
        Found::Outside(outside) => (outside, outside.image().clone()),
        Found::Remote(repository, descriptor) => (repository.as_ref(), descriptor.clone()),
    };
    audit::Side { name: name.to_string(), source, descriptor }
}

/// Looks for images.
pub(super) struct Find<'a> {
    pub(super) store: &'a Store,
    pub(super) registries: &'a Registries,
}

impl Find<'_> {
    /// Finds an image by its name.
    pub(super) fn find(&self, name: &ImageName) -> Result<Found, Error> {
        Ok(match name {
            ImageName::File { path, select } => {
                Found::Outside(self.store.outside(path, select.as_deref())?)
            }
            ImageName::Digest(digest) => Found::Here(self.by_digest(digest)?),
            ImageName::Reference(reference) => {
                if let Some(descriptor) = self.store.resolve(reference)? {
                    return Ok(Found::Here(self.store.document(&descriptor)?));
                }
                // A digest is the same image under any name.
                if let Some(digest) = reference.digest()
                    && self.store.has(&digest)
                {
                    return Ok(Found::Here(self.by_digest(&digest)?));
                }
                let repository = self.registries.open(reference);
                let descriptor = repository.resolve(reference)?;
                Found::Remote(Box::new(repository), descriptor)
            }
        })
    }

    fn by_digest(&self, digest: &Digest) -> Result<Document, Error> {
        if !self.store.has(digest) {
            return Err(Error::NoDocument { digest: *digest });
        }
        let bytes = disk::read(&self.store.blob_path(digest), DOCUMENT_LIMIT)?;
        let document = Document::read(bytes, None).map_err(transfer::Error::from)?;
        // What lies there must be what its name says.
        Ok(self.store.document(&Descriptor { digest: *digest, ..document.descriptor() })?)
    }
}

/// Prepares for layers of images of the store that were never fetched, as a base's may be.
pub(super) fn origins<'s>(
    images: &[&Found],
    store: &'s Store,
    registries: &Registries,
) -> Result<Origins<'s>, Error> {
    let mut blobs = Vec::new();
    for found in images {
        if let Found::Here(document) = found {
            layers_of(document, store, &mut blobs)?;
        }
    }
    Origins::new(store, registries, &blobs)
}

/// Lists the layers below a document of the store, as far as its manifests are there.
fn layers_of(document: &Document, store: &Store, blobs: &mut Vec<Descriptor>) -> Result<(), Error> {
    if !document.is_index() {
        blobs.extend(document.manifest().map_err(transfer::Error::from)?.layers);
        return Ok(());
    }
    for entry in document.index().map_err(transfer::Error::from)?.manifests {
        if media_type::is_manifest(&entry.media_type) && store.has_whole(&entry) {
            layers_of(&store.document(&entry)?, store, blobs)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_called_by_a_path_a_digest_or_a_name() {
        let file = |path: &str, select: Option<&str>| ImageName::File {
            path: PathBuf::from(path),
            select: select.map(str::to_owned),
        };
        let read = |text: &str| text.parse::<ImageName>().unwrap();
        assert_eq!(read("oci:out"), file("out", None));
        assert_eq!(read("oci-archive:a.tar:me/x"), file("a.tar", Some("me/x")));
        assert_eq!(read("./out"), file("./out", None));
        let digest = Digest::of(b"x");
        assert_eq!(read(&digest.to_string()), ImageName::Digest(digest));
        assert!(matches!(read("ghcr.io/me/x"), ImageName::Reference(_)));
        assert!("No Name".parse::<ImageName>().is_err());
    }
}
