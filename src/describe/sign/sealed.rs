//! A private key under a password, as cosign's files have it: a JSON document with the key encrypted
//! by `nacl/secretbox` under what scrypt makes of the password.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use crypto_secretbox::aead::{Aead as _, KeyInit as _};
use crypto_secretbox::{Nonce, XSalsa20Poly1305};
use ring::rand::{SecureRandom as _, SystemRandom};
use scrypt::{Params, scrypt};
use serde::{Deserialize, Serialize};

use super::Error;

/// The blocks' names; the first is the one that is written.
pub(super) const TAGS: [&str; 2] =
    ["ENCRYPTED SIGSTORE PRIVATE KEY", "ENCRYPTED COSIGN PRIVATE KEY"];

/// The cost of a guess, as cosign sets it: 64 MiB and a tenth of a second.
const COST: Cost = Cost { n: 1 << 16, r: 8, p: 1 };

/// A file of higher cost than this is an attack on memory, not a key.
const HIGHEST: u32 = 20;

#[derive(Serialize, Deserialize)]
struct Sealed {
    kdf: Kdf,
    cipher: Cipher,
    ciphertext: String,
}

#[derive(Serialize, Deserialize)]
struct Kdf {
    name: String,
    params: Cost,
    salt: String,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct Cost {
    #[serde(rename = "N")]
    n: u64,
    r: u32,
    p: u32,
}

#[derive(Serialize, Deserialize)]
struct Cipher {
    name: String,
    nonce: String,
}

/// Returns the key in a sealed one.
pub(super) fn open(bytes: &[u8], password: &[u8]) -> Result<Vec<u8>, Error> {
    let sealed: Sealed = serde_json::from_slice(bytes).map_err(|_| Error::Sealed)?;
    for (name, known) in [(&sealed.kdf.name, "scrypt"), (&sealed.cipher.name, "nacl/secretbox")] {
        if name != known {
            return Err(Error::Cipher(name.chars().take(40).collect()));
        }
    }
    let decode = |text: &str| BASE64.decode(text).map_err(|_| Error::Sealed);
    let key = derive(password, &decode(&sealed.kdf.salt)?, sealed.kdf.params)?;
    let nonce: [u8; 24] = decode(&sealed.cipher.nonce)?.try_into().map_err(|_| Error::Sealed)?;
    let ciphertext = decode(&sealed.ciphertext)?;
    XSalsa20Poly1305::new(&key.into())
        .decrypt(&Nonce::from(nonce), ciphertext.as_slice())
        .map_err(|_| Error::WrongPassword)
}

/// Seals a key.
pub(super) fn seal(key: &[u8], password: &[u8], random: &SystemRandom) -> Result<Vec<u8>, Error> {
    let (mut salt, mut nonce) = ([0; 32], [0; 24]);
    random.fill(&mut salt).and_then(|()| random.fill(&mut nonce)).map_err(|_| Error::Library)?;
    let ciphertext = XSalsa20Poly1305::new(&derive(password, &salt, COST)?.into())
        .encrypt(&Nonce::from(nonce), key)
        .map_err(|_| Error::Library)?;
    let kdf = Kdf { name: "scrypt".to_owned(), params: COST, salt: BASE64.encode(salt) };
    let cipher = Cipher { name: "nacl/secretbox".to_owned(), nonce: BASE64.encode(nonce) };
    let sealed = Sealed { kdf, cipher, ciphertext: BASE64.encode(ciphertext) };
    serde_json::to_vec(&sealed).map_err(|_| Error::Library)
}

fn derive(password: &[u8], salt: &[u8], cost: Cost) -> Result<[u8; 32], Error> {
    let Cost { n, r, p } = cost;
    let exponent = n.trailing_zeros();
    if !n.is_power_of_two() || exponent > HIGHEST || r > 32 || p > 16 {
        return Err(Error::Sealed);
    }
    let exponent = u8::try_from(exponent).map_err(|_| Error::Sealed)?;
    let params = Params::new(exponent, r, p).map_err(|_| Error::Sealed)?;
    let mut key = [0; 32];
    scrypt(password, salt, &params, &mut key).map_err(|_| Error::Sealed)?;
    Ok(key)
}
