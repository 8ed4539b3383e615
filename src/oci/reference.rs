//! Names of images: `registry/repository:tag@digest` (distribution-spec, "Pulling manifests").
//! Parsing is oci-spec's, so that we accept what the field accepts.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Digest;

/// An image's name, with Docker Hub's shorthands written out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// A text that is no image name.
#[derive(Debug, Clone, thiserror::Error)]
#[error("`{text}` is not an image name: {reason}")]
pub struct ReferenceError {
    text: String,
    reason: String,
}

impl Reference {
    /// Returns the registry's host, with its port if there is one, as `ghcr.io` or `localhost:5000`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Returns the path below the registry, as `rocker-org/ml`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Returns the tag; `latest` stands in for one where there is no digest either.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Returns the digest that pins the image.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Returns the name without tag and digest.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// Returns this name with a digest in place of tag and digest.
    #[must_use]
    pub fn at(&self, digest: Digest) -> Reference {
        Reference { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// Returns this name with another tag and no digest.
    pub fn tagged(&self, tag: &str) -> Result<Reference, ReferenceError> {
        format!("{}:{tag}", self.name()).parse()
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Reference, ReferenceError> {
        let refuse = |reason: String| ReferenceError { text: text.to_owned(), reason };
        let parsed: oci_spec::distribution::Reference = text
            .parse()
            .map_err(|error: oci_spec::distribution::ParseError| refuse(error.to_string()))?;
        let digest = match parsed.digest() {
            Some(digest) => Some(
                digest.parse().map_err(|error: super::DigestError| refuse(error.to_string()))?,
            ),
            None => None,
        };
        let tag = parsed.tag().map(str::to_owned);
        // oci-spec fills in `latest` only where nothing was said; keep it out beside a digest.
        let tag =
            if digest.is_some() && !text.contains(&format!(":{}@", tag.as_deref().unwrap_or(""))) {
                None
            } else {
                tag
            };
        Ok(Reference {
            registry: parsed.registry().to_owned(),
            repository: parsed.repository().to_owned(),
            tag,
            digest,
        })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.name();
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(&digest.to_string());
        }
        f.pad(&text)
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Reference, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shorthands_are_written_out() {
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        for (text, full) in [
            ("ubuntu", "docker.io/library/ubuntu:latest".to_owned()),
            ("rocker/ml", "docker.io/rocker/ml:latest".to_owned()),
            ("ghcr.io/rocker-org/cuda", "ghcr.io/rocker-org/cuda:latest".to_owned()),
            ("localhost:5000/a/b:t", "localhost:5000/a/b:t".to_owned()),
            (&format!("quay.io/a/b@sha256:{hex}"), format!("quay.io/a/b@sha256:{hex}")),
            (&format!("quay.io/a/b:t@sha256:{hex}"), format!("quay.io/a/b:t@sha256:{hex}")),
        ] {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), full);
        }
        for bad in ["", "a/UPPER", "a b", "x@sha256:12", ":tag"] {
            assert!(bad.parse::<Reference>().is_err(), "{bad}");
        }
    }
}
