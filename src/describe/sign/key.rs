//! Keys: ECDSA on P-256 and Ed25519, as PKCS #8, as OpenSSL's older `EC PRIVATE KEY`, or sealed with
//! a password as cosign does; public ones as `PUBLIC KEY`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use pem::Pem;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair as _, UnparsedPublicKey,
};
use sha2::Digest as _;

use super::{Error, sealed};

/// What comes before the 65 bytes of a point on P-256 in a `SubjectPublicKeyInfo` (RFC 5480).
const P256: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// Likewise for the 32 bytes of an Ed25519 key (RFC 8410).
const ED25519_INFO: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// A key that signs.
#[derive(Debug)]
pub struct SigningKey(Pair);

#[derive(Debug)]
enum Pair {
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl SigningKey {
    /// Reads a key's file; `password` is for one that is sealed.
    pub fn read(text: &[u8], password: Option<&[u8]>) -> Result<SigningKey, Error> {
        let block = first(text)?;
        match block.tag() {
            "PRIVATE KEY" => SigningKey::of_pkcs8(block.contents()),
            "EC PRIVATE KEY" => SigningKey::of_pkcs8(&wrapped(block.contents())?),
            tag if sealed::TAGS.contains(&tag) => {
                let password = password.ok_or(Error::NoPassword)?;
                SigningKey::of_pkcs8(&sealed::open(block.contents(), password)?)
            }
            found => Err(Error::Label { found: found.to_owned(), wanted: "a private key" }),
        }
    }

    /// Makes a new key on P-256, and returns it sealed with a password as the text of a file.
    pub fn generate(password: &[u8]) -> Result<(SigningKey, String), Error> {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
        let document =
            EcdsaKeyPair::generate_pkcs8(algorithm, &random).map_err(|_| Error::Library)?;
        let key = SigningKey::of_pkcs8(document.as_ref())?;
        let sealed = sealed::seal(document.as_ref(), password, &random)?;
        Ok((key, encoded(sealed::TAGS[0], sealed)))
    }

    fn of_pkcs8(bytes: &[u8]) -> Result<SigningKey, Error> {
        let random = SystemRandom::new();
        let ecdsa = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, bytes, &random);
        if let Ok(pair) = ecdsa {
            return Ok(SigningKey(Pair::Ecdsa(pair)));
        }
        // OpenSSL leaves the public half out, so that there is nothing to compare with.
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(bytes).map_err(|_| Error::KeyKind)?;
        Ok(SigningKey(Pair::Ed25519(pair)))
    }

    /// Signs a message.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        match &self.0 {
            Pair::Ecdsa(pair) => {
                let signature = pair.sign(&SystemRandom::new(), message);
                Ok(signature.map_err(|_| Error::Library)?.as_ref().to_vec())
            }
            Pair::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
        }
    }

    /// Returns the half that is given away.
    pub fn public(&self) -> PublicKey {
        let info = match &self.0 {
            Pair::Ecdsa(pair) => [&P256, pair.public_key().as_ref()].concat(),
            Pair::Ed25519(pair) => [&ED25519_INFO, pair.public_key().as_ref()].concat(),
        };
        PublicKey { info }
    }
}

/// A key that verifies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    /// The `SubjectPublicKeyInfo` in DER.
    info: Vec<u8>,
}

impl PublicKey {
    /// Reads a key's file.
    pub fn read(text: &[u8]) -> Result<PublicKey, Error> {
        let block = first(text)?;
        if block.tag() != "PUBLIC KEY" {
            let found = block.tag().to_owned();
            return Err(Error::Label { found, wanted: "a public key" });
        }
        let info = block.into_contents();
        let is_p256 = info.len() == P256.len() + 65 && info.starts_with(&P256);
        let is_ed25519 = info.len() == ED25519_INFO.len() + 32 && info.starts_with(&ED25519_INFO);
        if is_p256 || is_ed25519 { Ok(PublicKey { info }) } else { Err(Error::KeyKind) }
    }

    /// Returns the text of a file.
    pub fn pem(&self) -> String {
        encoded("PUBLIC KEY", self.info.clone())
    }

    /// Tells whether a signature is this key's.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), Error> {
        let found = if let Some(point) = self.info.strip_prefix(&P256) {
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).verify(message, signature)
        } else {
            let key = self.info.strip_prefix(&ED25519_INFO).unwrap_or_default();
            UnparsedPublicKey::new(&ED25519, key).verify(message, signature)
        };
        found.map_err(|_| Error::NotSigned)
    }

    /// Returns what a bundle names the key by: the hash of its DER in base64, as cosign has it.
    pub fn hint(&self) -> String {
        BASE64.encode(sha2::Sha256::digest(&self.info))
    }
}

fn first(text: &[u8]) -> Result<Pem, Error> {
    let blocks = pem::parse_many(text).map_err(|_| Error::NotPem)?;
    // OpenSSL writes the curve's name into a block of its own before the key.
    blocks.into_iter().find(|block| block.tag() != "EC PARAMETERS").ok_or(Error::NotPem)
}

fn encoded(tag: &str, bytes: Vec<u8>) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&Pem::new(tag, bytes), config)
}

/// Puts a bare `ECPrivateKey` on P-256 (RFC 5915) into a `PrivateKeyInfo` (RFC 5208).
fn wrapped(key: &[u8]) -> Result<Vec<u8>, Error> {
    const HEAD: [u8; 24] = [
        0x02, 0x01, 0x00, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06,
        0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07,
    ];
    // Keys of this curve have some 120 bytes, whose length takes one byte.
    let inner = u8::try_from(key.len()).ok().filter(|length| *length < 0x80);
    let inner = inner.ok_or(Error::KeyKind)?;
    let outer = u8::try_from(HEAD.len() + 2 + key.len()).map_err(|_| Error::KeyKind)?;
    let mut bytes = vec![0x30, 0x81, outer];
    bytes.extend_from_slice(&HEAD);
    bytes.extend_from_slice(&[0x04, inner]);
    bytes.extend_from_slice(key);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_is_opened_by_its_password_alone() {
        let (key, text) = SigningKey::generate(b"secret").unwrap();
        assert!(text.starts_with("-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n"), "{text}");
        let again = SigningKey::read(text.as_bytes(), Some(b"secret")).unwrap();
        assert_eq!(again.public(), key.public());
        let read = |password| SigningKey::read(text.as_bytes(), password).unwrap_err();
        assert_eq!(read(Some(b"other")), Error::WrongPassword);
        assert_eq!(read(None), Error::NoPassword);
        let public = PublicKey::read(key.public().pem().as_bytes()).unwrap();
        let signature = again.sign(b"message").unwrap();
        public.verify(b"message", &signature).unwrap();
        assert_eq!(public.verify(b"massage", &signature), Err(Error::NotSigned));
    }

    #[test]
    fn what_is_no_such_key_is_told() {
        let (key, _) = SigningKey::generate(b"").unwrap();
        let public = key.public().pem();
        assert!(matches!(SigningKey::read(public.as_bytes(), None), Err(Error::Label { .. })));
        assert_eq!(SigningKey::read(b"hello", None).unwrap_err(), Error::NotPem);
        let odd = encoded("PUBLIC KEY", vec![0; 91]);
        assert_eq!(PublicKey::read(odd.as_bytes()), Err(Error::KeyKind));
    }
}
