//! In-toto statements: what is claimed of an image, under the name of a predicate.

use serde_json::{Value, json};

use super::Error;
use crate::oci::{Digest, json as canonical};

/// The type of a statement.
const TYPE: &str = "https://in-toto.io/Statement/v1";

/// The statement of cosign's that an image is signed.
pub const SIGNATURE: &str = "https://sigstore.dev/cosign/sign/v1";

/// The statement that an SPDX document describes an image.
pub const SPDX: &str = "https://spdx.dev/Document";

/// The statement of how an image was built.
pub const PROVENANCE: &str = "https://slsa.dev/provenance/v1";

/// A statement that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Statement {
    /// The kind of claim.
    pub predicate_type: String,
    /// What is claimed.
    pub predicate: Value,
    subjects: Vec<String>,
}

impl Statement {
    /// Encodes a claim about images.
    pub fn encode(
        subjects: &[(Option<&str>, Digest)],
        predicate_type: &str,
        predicate: &Value,
    ) -> Result<Vec<u8>, Error> {
        let subjects: Vec<Value> = subjects
            .iter()
            .map(|(name, digest)| {
                let mut subject = json!({ "digest": { "sha256": digest.hex() } });
                if let Some(name) = name {
                    subject["name"] = json!(name);
                }
                subject
            })
            .collect();
        Ok(canonical::encode(&json!({
            "_type": TYPE,
            "subject": subjects,
            "predicateType": predicate_type,
            "predicate": predicate,
        }))?)
    }

    /// Reads a statement; `None` where it is none.
    pub fn read(bytes: &[u8]) -> Option<Statement> {
        let mut value: Value = serde_json::from_slice(bytes).ok()?;
        let kind = value.get("_type").and_then(Value::as_str)?;
        if !kind.starts_with("https://in-toto.io/Statement/") {
            return None;
        }
        let subjects = value.get("subject")?.as_array()?;
        let digests = subjects.iter().filter_map(|subject| subject["digest"]["sha256"].as_str());
        let subjects = digests.map(str::to_owned).collect();
        let predicate_type = value.get("predicateType")?.as_str()?.to_owned();
        Some(Statement { predicate_type, predicate: value["predicate"].take(), subjects })
    }

    /// Tells whether it is about an image.
    pub fn is_about(&self, digest: Digest) -> bool {
        let hex = digest.hex();
        self.subjects.contains(&hex)
    }
}
