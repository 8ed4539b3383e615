//! An image's documents, read from wherever it lies; its layers are opened when they are asked for.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Error;
use super::report::LayerSide;
use crate::layer::{Blob, Limits};
use crate::oci::{ConfigDocument, Descriptor, Digest, Document, Manifest, Platform, media_type};
use crate::transfer::{self, Source, Stream};

/// The most bytes of a configuration that are read.
const CONFIG_LIMIT: u64 = 16 << 20;

/// One of the two images to compare: what it is called, where it lies, and what it is there.
pub struct Side<'a> {
    /// Its name for people.
    pub name: String,
    /// Where its documents and blobs are.
    pub source: &'a dyn Source,
    /// Its index or manifest.
    pub descriptor: Descriptor,
}

impl std::fmt::Debug for Side<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Side").field("name", &self.name).finish_non_exhaustive()
    }
}

/// One platform of an image that is to be audited.
#[derive(Clone, Debug)]
pub struct SubjectImage {
    /// Which.
    pub platform: Platform,
    /// Its manifest.
    pub manifest: Digest,
    /// The labels of its configuration.
    pub labels: BTreeMap<String, String>,
    /// The blobs of its layers, the base's first.
    pub layers: Vec<Digest>,
}

/// Tells what an image says of itself, platform by platform.
pub fn subject(side: &Side<'_>) -> Result<Vec<SubjectImage>, Error> {
    let images = side.images(&side.document()?)?;
    let described = images.into_iter().map(|image| SubjectImage {
        manifest: image.digest(),
        labels: image.config.labels(),
        layers: image.layers.iter().map(|layer| layer.digest).collect(),
        platform: image.is_for,
    });
    Ok(described.collect())
}

/// One platform of an image.
pub(super) struct Image<'a> {
    name: &'a str,
    source: &'a dyn Source,
    pub(super) platform: String,
    pub(super) is_for: Platform,
    pub(super) document: Document,
    pub(super) manifest: Manifest,
    pub(super) config: ConfigDocument,
    pub(super) layers: Vec<LayerSide>,
}

impl<'a> Side<'a> {
    /// Tells whether it is an index rather than one manifest.
    pub fn is_index(&self) -> bool {
        media_type::is_index(&self.descriptor.media_type)
    }

    /// Reads the image's top document.
    pub(super) fn document(&self) -> Result<Document, Error> {
        Ok(self.source.document(&self.descriptor)?)
    }

    /// Reads one image a platform. Attestations, which an index lists as platforms that are none,
    /// are left out.
    pub(super) fn images(&'a self, document: &Document) -> Result<Vec<Image<'a>>, Error> {
        let damaged = |source| Error::Document { name: self.name.clone(), source };
        if !document.is_index() {
            return Ok(vec![self.image(document.clone(), None)?]);
        }
        let mut images = Vec::new();
        for entry in document.index().map_err(damaged)?.manifests {
            let real =
                entry.platform.as_ref().is_none_or(|platform| platform.architecture != "unknown");
            if real && media_type::is_manifest(&entry.media_type) {
                images.push(self.image(self.source.document(&entry)?, entry.platform)?);
            }
        }
        Ok(images)
    }

    fn image(&'a self, document: Document, platform: Option<Platform>) -> Result<Image<'a>, Error> {
        let damaged = |source| Error::Document { name: self.name.clone(), source };
        let manifest = document.manifest().map_err(damaged)?;
        let bytes = transfer::fetch(self.source, &manifest.config, CONFIG_LIMIT)?;
        let config = ConfigDocument::read(&bytes)
            .map_err(|source| Error::Config { name: self.name.clone(), source })?;
        let is_for = platform.unwrap_or_else(|| config.platform());
        let diff_ids = config.diff_ids();
        let mut made_by = config.made_by();
        let layers = manifest
            .layers
            .iter()
            .enumerate()
            .map(|(position, layer)| LayerSide {
                position,
                digest: layer.digest,
                diff_id: diff_ids.get(position).copied(),
                size: layer.size,
                made_by: made_by.next().flatten().unwrap_or_default(),
            })
            .collect();
        let (name, source) = (self.name.as_str(), self.source);
        let platform = is_for.to_string();
        Ok(Image { name, source, platform, is_for, document, manifest, config, layers })
    }
}

impl Image<'_> {
    /// Returns the digest of its manifest.
    pub(super) fn digest(&self) -> Digest {
        self.document.digest()
    }

    /// Returns its manifest as JSON.
    pub(super) fn manifest_json(&self) -> Value {
        serde_json::to_value(&self.manifest).unwrap_or_default()
    }

    /// Opens a layer.
    pub(super) fn layer(&self, position: usize) -> Result<OpenLayer<'_>, Error> {
        let descriptor = &self.manifest.layers[position];
        let compression =
            media_type::compression_of(&descriptor.media_type).ok_or_else(|| Error::LayerType {
                name: self.name.to_owned(),
                digest: descriptor.digest,
                media_type: descriptor.media_type.clone(),
            })?;
        let blob = Blob {
            digest: descriptor.digest,
            size: descriptor.size,
            compression,
            diff_id: self.layers[position].diff_id,
        };
        let stream = self.source.blob(descriptor, 0)?;
        Ok(OpenLayer { blob, limits: Limits::of_blob(blob.size), stream })
    }
}

/// A layer whose bytes are about to be read.
pub(super) struct OpenLayer<'a> {
    pub(super) blob: Blob,
    pub(super) limits: Limits,
    pub(super) stream: Stream<'a>,
}
