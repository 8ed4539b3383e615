//! A signed statement as a sigstore bundle 0.3: a DSSE envelope, and the key's name. There is no entry
//! of a transparency log in it, so that cosign checks it with `--insecure-ignore-tlog`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use super::{Error, PublicKey, SigningKey};
use crate::oci::json as canonical;

/// The type of the document, and of the artifact that it is in.
pub const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// What the beginnings of the types of earlier and later versions have in common.
const FAMILY: &str = "application/vnd.dev.sigstore.bundle";

/// The type of what is signed.
const PAYLOAD: &str = "application/vnd.in-toto+json";

/// A statement with its signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    payload_type: String,
    payload: Vec<u8>,
    signatures: Vec<Vec<u8>>,
}

impl Bundle {
    /// Tells whether a media type is a bundle's.
    pub fn is_type(media_type: &str) -> bool {
        media_type.starts_with(FAMILY)
    }

    /// Signs a statement's bytes, and returns the bundle's.
    pub fn sign(statement: &[u8], key: &SigningKey) -> Result<Vec<u8>, Error> {
        let signature = key.sign(&encoding(PAYLOAD, statement))?;
        let value = json!({
            "mediaType": BUNDLE,
            "verificationMaterial": { "publicKey": { "hint": key.public().hint() } },
            "dsseEnvelope": {
                "payload": BASE64.encode(statement),
                "payloadType": PAYLOAD,
                "signatures": [{ "sig": BASE64.encode(signature) }],
            },
        });
        canonical::encode(&value).map_err(|_| Error::Library)
    }

    /// Reads a bundle; nothing of it is verified yet.
    pub fn read(bytes: &[u8]) -> Result<Bundle, Error> {
        let wrong = |what: &str| Error::NotBundle(what.to_owned());
        let value: Value =
            serde_json::from_slice(bytes).map_err(|error| Error::NotBundle(error.to_string()))?;
        let envelope =
            value.get("dsseEnvelope").ok_or_else(|| wrong("it has no `dsseEnvelope`"))?;
        let decode = |value: &Value, name: &str| {
            let text = value.get(name).and_then(Value::as_str);
            text.and_then(|text| BASE64.decode(text).ok())
                .ok_or_else(|| Error::NotBundle(format!("its `{name}` is not in base64")))
        };
        let payload_type = envelope.get("payloadType").and_then(Value::as_str);
        let signatures = envelope.get("signatures").and_then(Value::as_array);
        Ok(Bundle {
            payload_type: payload_type.ok_or_else(|| wrong("it has no `payloadType`"))?.to_owned(),
            payload: decode(envelope, "payload")?,
            signatures: signatures
                .into_iter()
                .flatten()
                .map(|signature| decode(signature, "sig"))
                .collect::<Result<_, _>>()?,
        })
    }

    /// Returns the bytes that are said to be signed; nobody has looked whether they are.
    pub fn unverified(&self) -> &[u8] {
        &self.payload
    }

    /// Returns the signed bytes if one of the signatures is the key's.
    pub fn verify(&self, key: &PublicKey) -> Result<&[u8], Error> {
        if self.payload_type != PAYLOAD {
            return Err(Error::NotBundle(format!("it is about a `{}`", self.payload_type)));
        }
        let message = encoding(&self.payload_type, &self.payload);
        let signed = self.signatures.iter().any(|one| key.verify(&message, one).is_ok());
        if signed { Ok(&self.payload) } else { Err(Error::NotSigned) }
    }
}

/// Returns what is signed in place of a payload (DSSE protocol, "PAE"), so that nothing can be taken
/// for another type's.
fn encoding(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_signed_comes_back_by_the_right_key_only() {
        let (key, _) = SigningKey::generate(b"").unwrap();
        let (other, _) = SigningKey::generate(b"").unwrap();
        let bytes = Bundle::sign(b"{}", &key).unwrap();
        let bundle = Bundle::read(&bytes).unwrap();
        assert_eq!(bundle.verify(&key.public()), Ok(&b"{}"[..]));
        assert_eq!(bundle.verify(&other.public()), Err(Error::NotSigned));
        let text = String::from_utf8(bytes)
            .unwrap()
            .replace("\"payload\":\"e30=\"", "\"payload\":\"W10=\"");
        assert_eq!(
            Bundle::read(text.as_bytes()).unwrap().verify(&key.public()),
            Err(Error::NotSigned)
        );
        assert!(matches!(Bundle::read(b"{}"), Err(Error::NotBundle(_))));
    }

    #[test]
    fn the_encoding_is_the_protocols_own_example() {
        let expected = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world";
        assert_eq!(encoding("http://example.com/HelloWorld", b"hello world"), expected);
    }
}
