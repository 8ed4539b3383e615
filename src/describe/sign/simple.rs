//! The older form of a signature of an image: a small payload that names the digest, signed, under
//! the tag `sha256-<hex>.sig`. Podman, skopeo and cosign before version 3 look for it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use super::{Error, PublicKey, SigningKey};
use crate::oci::{Descriptor, Digest, Reference, json as canonical};

/// The type of the payload.
pub const SIMPLE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

/// The annotation of a payload's layer that holds its signature.
pub const SIMPLE_SIGNATURE: &str = "dev.cosignproject.cosign/signature";

/// What such a payload says that it is.
const KIND: &str = "cosign container image signature";

/// Returns the tag under which an image's signatures of this form lie.
pub fn tag(digest: Digest) -> String {
    format!("sha256-{}.sig", digest.hex())
}

/// A payload with its signature.
#[derive(Clone, Debug)]
pub struct Simple {
    /// The payload.
    pub payload: Vec<u8>,
    /// The payload's descriptor with the signature.
    pub layer: Descriptor,
}

impl Simple {
    /// Signs that an image of this name has a digest.
    pub fn sign(image: &Reference, digest: Digest, key: &SigningKey) -> Result<Simple, Error> {
        let payload = canonical::encode(&json!({
            "critical": {
                "identity": { "docker-reference": image.name() },
                "image": { "docker-manifest-digest": digest },
                "type": KIND,
            },
            "optional": null,
        }))
        .map_err(|_| Error::Library)?;
        let mut layer = Descriptor::of(SIMPLE, &payload);
        let signature = BASE64.encode(key.sign(&payload)?);
        layer.annotations.insert(SIMPLE_SIGNATURE.to_owned(), signature);
        Ok(Simple { payload, layer })
    }

    /// Tells whether this is the key's signature of an image.
    pub fn verify(&self, digest: Digest, key: &PublicKey) -> Result<(), Error> {
        let signature = self.layer.annotations.get(SIMPLE_SIGNATURE).ok_or(Error::NotSigned)?;
        let signature = BASE64.decode(signature).map_err(|_| Error::NotSigned)?;
        key.verify(&self.payload, &signature)?;
        let value: Value = serde_json::from_slice(&self.payload).map_err(|_| Error::NotSigned)?;
        let critical = &value["critical"];
        let named = critical["image"]["docker-manifest-digest"].as_str();
        let is_it = critical["type"] == KIND && named == Some(digest.to_string().as_str());
        if is_it { Ok(()) } else { Err(Error::OtherSubject) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_of_one_image_by_one_key() {
        let (key, _) = SigningKey::generate(b"").unwrap();
        let digest = Digest::of(b"image");
        let image = "ghcr.io/a/b:t".parse().unwrap();
        let simple = Simple::sign(&image, digest, &key).unwrap();
        simple.verify(digest, &key.public()).unwrap();
        assert_eq!(simple.verify(Digest::of(b""), &key.public()), Err(Error::OtherSubject));
        let mut bare = simple.clone();
        bare.layer.annotations.clear();
        assert_eq!(bare.verify(digest, &key.public()), Err(Error::NotSigned));
    }
}
