//! What refers to an image, as it travels: a manifest with an empty configuration, the image as its
//! subject, and one blob or more (image-spec, "guidelines for artifact usage").

use std::collections::BTreeMap;
use std::io::Cursor;

use serde_json::{Value, json};

use super::Error;
use crate::oci::{
    Descriptor, Digest, Document, Manifest, Reference, json as canonical, media_type,
};
use crate::transfer::{self, Source, Stream};

/// The type of an empty configuration, and its content.
const EMPTY: (&str, &[u8]) = (media_type::EMPTY, b"{}");

/// A document that refers to an image, with its blobs.
#[derive(Clone, Debug)]
pub struct Artifact {
    /// Its manifest.
    pub document: Document,
    blobs: BTreeMap<Digest, Vec<u8>>,
}

/// What an artifact is made of.
#[derive(Clone, Debug)]
pub struct Parts<'a> {
    /// The image that it refers to.
    pub subject: &'a Descriptor,
    /// What it is.
    pub artifact_type: &'a str,
    /// Of the manifest.
    pub annotations: BTreeMap<String, String>,
    /// Each with its type and annotations.
    pub blobs: Vec<(&'a str, Vec<u8>, BTreeMap<String, String>)>,
}

impl Artifact {
    /// Makes an artifact of its parts.
    pub fn new(parts: Parts<'_>) -> Result<Artifact, Error> {
        let config = Descriptor::of(EMPTY.0, EMPTY.1);
        let mut blobs = BTreeMap::from([(config.digest, EMPTY.1.to_vec())]);
        let mut layers = Vec::new();
        for (media_type, bytes, annotations) in parts.blobs {
            let mut layer = Descriptor::of(media_type, &bytes);
            layer.annotations = annotations;
            blobs.insert(layer.digest, bytes);
            layers.push(layer);
        }
        let mut manifest = Manifest::new(config, layers, parts.annotations);
        manifest.rest = rest(parts.artifact_type, parts.subject);
        Ok(Artifact { document: Document::of_manifest(&manifest)?, blobs })
    }

    /// Makes the manifest of signatures of the older form, which refers to nothing: payloads with
    /// their descriptors, over a configuration that makes it pass for an image.
    pub fn signatures(payloads: Vec<(Descriptor, Vec<u8>)>) -> Result<Artifact, Error> {
        let diff_ids: Vec<Digest> = payloads.iter().map(|(layer, _)| layer.digest).collect();
        let config = canonical::encode(&json!({
            "architecture": "", "os": "", "config": {},
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        }))?;
        let descriptor = Descriptor::of(media_type::CONFIG, &config);
        let mut blobs = BTreeMap::from([(descriptor.digest, config)]);
        let mut layers = Vec::new();
        for (layer, payload) in payloads {
            blobs.insert(layer.digest, payload);
            layers.push(layer);
        }
        let manifest = Manifest::new(descriptor, layers, BTreeMap::new());
        Ok(Artifact { document: Document::of_manifest(&manifest)?, blobs })
    }

    /// Returns the blobs by digest.
    pub fn blobs(&self) -> &BTreeMap<Digest, Vec<u8>> {
        &self.blobs
    }
}

/// Returns the members of a manifest that make it an artifact which refers to an image.
fn rest(artifact_type: &str, subject: &Descriptor) -> BTreeMap<String, Value> {
    let subject = json!({
        "mediaType": subject.media_type, "digest": subject.digest, "size": subject.size,
    });
    BTreeMap::from([
        ("artifactType".to_owned(), json!(artifact_type)),
        ("subject".to_owned(), subject),
    ])
}

impl Source for Artifact {
    fn resolve(&self, _: &Reference) -> Result<Descriptor, transfer::Error> {
        Ok(self.document.descriptor())
    }

    fn document(&self, _: &Descriptor) -> Result<Document, transfer::Error> {
        Ok(self.document.clone())
    }

    fn blob<'a>(
        &'a self,
        descriptor: &Descriptor,
        offset: u64,
    ) -> Result<Stream<'a>, transfer::Error> {
        let digest = descriptor.digest;
        let bytes = self.blobs.get(&digest).map_or(&[][..], Vec::as_slice);
        let mut cursor = Cursor::new(bytes);
        cursor.set_position(offset);
        Ok(Box::new(cursor))
    }
}
