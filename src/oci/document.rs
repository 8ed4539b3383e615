//! Manifests and indexes as they travel: the exact bytes beside what we read from them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Descriptor, Digest, Platform, json, media_type};

/// The most bytes that a manifest or an index may have; registries refuse more than 4 MiB.
pub const DOCUMENT_LIMIT: u64 = 8 << 20;

/// A document that cannot be what it says.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Not JSON, or not of the expected shape.
    #[error("{digest} is not a valid {media_type}")]
    Shape {
        /// The document.
        digest: Digest,
        /// What it was said to be.
        media_type: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// Says of itself that it is something else.
    #[error("{digest} was sent as `{sent}` but says that it is `{says}`")]
    Confused {
        /// The document.
        digest: Digest,
        /// The type that it was sent with.
        sent: String,
        /// The type in it.
        says: String,
    },
    /// A type that is neither a manifest nor an index.
    #[error("{digest} is a `{media_type}`, which is no image")]
    Unknown {
        /// The document.
        digest: Digest,
        /// Its type.
        media_type: String,
    },
}

/// An image index (image-spec, index), or Docker's manifest list.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// OCI's or Docker's type.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// One entry a platform.
    pub manifests: Vec<Descriptor>,
    /// Free-form metadata.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Everything else.
    #[serde(flatten)]
    pub rest: BTreeMap<String, Value>,
}

impl Index {
    /// Returns an index of these entries, sorted by platform so that it has one form.
    pub fn new(mut manifests: Vec<Descriptor>, annotations: BTreeMap<String, String>) -> Index {
        manifests.sort_by(|a, b| a.platform.cmp(&b.platform).then(a.digest.cmp(&b.digest)));
        Index {
            schema_version: 2,
            media_type: media_type::INDEX.to_owned(),
            manifests,
            annotations,
            rest: BTreeMap::new(),
        }
    }

    /// Returns the entry for a platform.
    pub fn find(&self, platform: &Platform) -> Option<&Descriptor> {
        self.manifests.iter().find(|entry| {
            media_type::is_manifest(&entry.media_type)
                && entry.platform.as_ref().is_some_and(|has| has.satisfies(platform))
        })
    }
}

/// An image manifest (image-spec, manifest), OCI's or Docker's schema 2.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// OCI's or Docker's type.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// The image's configuration.
    pub config: Descriptor,
    /// Its layers, the base first.
    pub layers: Vec<Descriptor>,
    /// Free-form metadata.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Everything else.
    #[serde(flatten)]
    pub rest: BTreeMap<String, Value>,
}

impl Manifest {
    /// Returns an OCI manifest of this configuration and these layers.
    pub fn new(
        config: Descriptor,
        layers: Vec<Descriptor>,
        annotations: BTreeMap<String, String>,
    ) -> Manifest {
        Manifest {
            schema_version: 2,
            media_type: media_type::MANIFEST.to_owned(),
            config,
            layers,
            annotations,
            rest: BTreeMap::new(),
        }
    }
}

/// A manifest or an index with the very bytes that its digest is made of.
#[derive(Clone, Debug)]
pub struct Document {
    media_type: String,
    bytes: Vec<u8>,
    digest: Digest,
}

impl Document {
    /// Takes a document as it came; `sent_as` is the transport's word for its type, if it had one.
    pub fn read(bytes: Vec<u8>, sent_as: Option<&str>) -> Result<Document, DocumentError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Head {
            #[serde(default)]
            media_type: Option<String>,
            manifests: Option<Value>,
            layers: Option<Value>,
            #[serde(default)]
            config: Option<Value>,
        }
        let digest = Digest::of(&bytes);
        let sent = sent_as.map(|sent| sent.split(';').next().unwrap_or(sent).trim().to_owned());
        let head: Head = serde_json::from_slice(&bytes).map_err(|source| DocumentError::Shape {
            digest,
            media_type: sent.clone().unwrap_or_else(|| "manifest".to_owned()),
            source,
        })?;
        // An old manifest may leave its type to the transport; one with both lists is an attack.
        let shape = match (&head.manifests, &head.layers, &head.config) {
            (Some(_), None, _) => media_type::INDEX,
            (None, _, Some(_)) => media_type::MANIFEST,
            _ => {
                let media_type = head.media_type.or(sent).unwrap_or_default();
                return Err(DocumentError::Unknown { digest, media_type });
            }
        };
        let known = |name: &str| media_type::is_index(name) || media_type::is_manifest(name);
        let media_type = match (head.media_type, sent) {
            (Some(says), Some(sent)) if known(&sent) && says != sent => {
                return Err(DocumentError::Confused { digest, sent, says });
            }
            (Some(says), _) => says,
            (None, Some(sent)) if known(&sent) => sent,
            (None, _) => shape.to_owned(),
        };
        if media_type::is_index(&media_type) != (shape == media_type::INDEX) {
            return Err(DocumentError::Confused {
                digest,
                sent: media_type,
                says: shape.to_owned(),
            });
        }
        if !known(&media_type) {
            return Err(DocumentError::Unknown { digest, media_type });
        }
        Ok(Document { media_type, bytes, digest })
    }

    /// Encodes an index of our own.
    pub fn of_index(index: &Index) -> Result<Document, json::EncodeError> {
        let bytes = json::encode(index)?;
        Ok(Document { media_type: index.media_type.clone(), digest: Digest::of(&bytes), bytes })
    }

    /// Encodes a manifest of our own.
    pub fn of_manifest(manifest: &Manifest) -> Result<Document, json::EncodeError> {
        let bytes = json::encode(manifest)?;
        Ok(Document { media_type: manifest.media_type.clone(), digest: Digest::of(&bytes), bytes })
    }

    /// Returns the media type.
    pub fn media_type(&self) -> &str {
        &self.media_type
    }

    /// Returns the exact bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the digest of the bytes.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Describes the document.
    pub fn descriptor(&self) -> Descriptor {
        Descriptor::new(&self.media_type, self.digest, self.bytes.len() as u64)
    }

    /// Tells whether this is an index.
    pub fn is_index(&self) -> bool {
        media_type::is_index(&self.media_type)
    }

    /// Reads it as an index.
    pub fn index(&self) -> Result<Index, DocumentError> {
        self.parse()
    }

    /// Reads it as a manifest.
    pub fn manifest(&self) -> Result<Manifest, DocumentError> {
        self.parse()
    }

    fn parse<T: for<'de> Deserialize<'de>>(&self) -> Result<T, DocumentError> {
        serde_json::from_slice(&self.bytes).map_err(|source| DocumentError::Shape {
            digest: self.digest,
            media_type: self.media_type.clone(),
            source,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_what_it_says_or_refused() {
        let both = br#"{"schemaVersion":2,"manifests":[],"layers":[],"config":{}}"#;
        assert!(matches!(Document::read(both.to_vec(), None), Err(DocumentError::Unknown { .. })));
        let list = br#"{"schemaVersion":2,"manifests":[]}"#;
        assert!(Document::read(list.to_vec(), None).unwrap().is_index());
        assert!(matches!(
            Document::read(list.to_vec(), Some(media_type::MANIFEST)),
            Err(DocumentError::Confused { .. })
        ));
        assert!(Document::read(b"<html>".to_vec(), Some("text/html")).is_err());
    }

    #[test]
    fn our_documents_are_what_oci_spec_reads() {
        let config = Descriptor::of(media_type::CONFIG, b"{}");
        let layer = Descriptor::of(media_type::LAYER_GZIP, b"x");
        let manifest = Manifest::new(config, vec![layer], BTreeMap::new());
        let document = Document::of_manifest(&manifest).unwrap();
        let theirs = oci_spec::image::ImageManifest::from_reader(document.bytes()).unwrap();
        assert_eq!(theirs.layers().len(), 1);
        let mut entry = document.descriptor();
        entry.platform = Some(Platform::linux("arm64"));
        let index = Document::of_index(&Index::new(vec![entry], BTreeMap::new())).unwrap();
        let theirs = oci_spec::image::ImageIndex::from_reader(index.bytes()).unwrap();
        assert_eq!(theirs.manifests().len(), 1);
    }
}
