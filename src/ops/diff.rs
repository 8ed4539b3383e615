//! `diff`: what two images differ in, wherever they lie.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::audit::{self, Comparison};
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
enum Found {
    Here(Document),
    Outside(Outside),
    Remote(Box<Repository>, Descriptor),
}

/// Compares two images.
pub fn diff(options: &DiffOptions, context: &Context<'_>) -> Result<Comparison, Error> {
    let store = context.open()?;
    let names = [&options.a, &options.b];
    let about = names.iter().filter_map(|name| match name {
        ImageName::Reference(reference) => Some(reference),
        _ => None,
    });
    let registries = options.access.registries(about, context)?;
    let a = find(&options.a, &store, &registries)?;
    let b = find(&options.b, &store, &registries)?;
    // Layers of a base may never have been fetched.
    let mut blobs = Vec::new();
    for found in [&a, &b] {
        if let Found::Here(document) = found {
            layers_of(document, &store, &mut blobs)?;
        }
    }
    let origins = Origins::new(&store, &registries, &blobs)?;
    let run = store.begin_run(context.report.as_ref())?;
    let compare = audit::Options {
        platform: options.platform.clone(),
        scratch: run.path(),
        report: context.report.as_ref(),
    };
    let (a, b) = (side(&options.a, &a, &origins), side(&options.b, &b, &origins));
    Ok(audit::compare(&a, &b, &compare)?)
}

fn side<'f>(name: &ImageName, found: &'f Found, here: &'f dyn Source) -> audit::Side<'f> {
    let (source, descriptor): (&dyn Source, Descriptor) = match found {
        Found::Here(document) => (here, document.descriptor()),
        Found::Outside(outside) => (outside, outside.image().clone()),
        Found::Remote(repository, descriptor) => (repository.as_ref(), descriptor.clone()),
    };
    audit::Side { name: name.to_string(), source, descriptor }
}

fn find(name: &ImageName, store: &Store, registries: &Registries) -> Result<Found, Error> {
    Ok(match name {
        ImageName::File { path, select } => Found::Outside(store.outside(path, select.as_deref())?),
        ImageName::Digest(digest) => {
            if !store.has(digest) {
                return Err(Error::NoDocument { digest: *digest });
            }
            let bytes = disk::read(&store.blob_path(digest), DOCUMENT_LIMIT)?;
            Found::Here(Document::read(bytes, None).map_err(transfer::Error::from)?)
        }
        ImageName::Reference(reference) => {
            if let Some(descriptor) = store.resolve(reference)? {
                return Ok(Found::Here(store.document(&descriptor)?));
            }
            let repository = registries.open(reference);
            let descriptor = repository.resolve(reference)?;
            Found::Remote(Box::new(repository), descriptor)
        }
    })
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
