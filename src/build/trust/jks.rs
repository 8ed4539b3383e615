//! A trust store of Java's in its old form, which every Java reads; `layer::normalise` draws it.

use sha1::{Digest as _, Sha1};

const MAGIC: u32 = 0xFEED_FEED;
const VERSION: u32 = 2;
const TRUSTED: u32 = 2;
/// The bytes before the first entry.
const HEADER: usize = 12;
/// The bytes of the signature.
const SIGNATURE: usize = 20;
/// That of all trust stores; it keeps nothing secret.
const PASSWORD: &str = "changeit";
const ALIAS: &str = "ocibuild";

/// Makes a store of certificates.
pub(super) fn store(certificates: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = [MAGIC, VERSION, count(certificates.len())].map(u32::to_be_bytes).concat();
    for (number, der) in certificates.iter().enumerate() {
        push(&mut bytes, &format!("{ALIAS}-{number}"), der);
    }
    signed(bytes)
}

/// Adds a certificate; `None` where it is in there, or the store is of another kind.
pub(super) fn with(content: &[u8], der: &[u8]) -> Option<Vec<u8>> {
    let entries = entries(content)?;
    if entries.iter().any(|entry| entry.ends_with(der)) {
        return None;
    }
    let mut bytes = content[..content.len() - SIGNATURE].to_vec();
    bytes[8..HEADER].copy_from_slice(&count(entries.len() + 1).to_be_bytes());
    push(&mut bytes, ALIAS, der);
    Some(signed(bytes))
}

/// Returns a store without a certificate; `None` where it isn't in it.
pub(super) fn without(content: &[u8], der: &[u8]) -> Option<Vec<u8>> {
    let entries = entries(content)?;
    let kept: Vec<&[u8]> = entries.iter().copied().filter(|entry| !entry.ends_with(der)).collect();
    if kept.len() == entries.len() {
        return None;
    }
    let mut bytes = content[..HEADER].to_vec();
    bytes[8..HEADER].copy_from_slice(&count(kept.len()).to_be_bytes());
    bytes.extend(kept.concat());
    Some(signed(bytes))
}

/// Takes a store apart. One with private keys, or with another password, is not ours to change.
fn entries(content: &[u8]) -> Option<Vec<&[u8]>> {
    let body = content.len().checked_sub(SIGNATURE)?;
    let (body, signature) = content.split_at(body);
    let number = |at: usize, size: usize| -> Option<usize> {
        let bytes = body.get(at..at.checked_add(size)?)?;
        Some(bytes.iter().fold(0, |value, byte| value << 8 | usize::from(*byte)))
    };
    let is_store = number(0, 4)? == MAGIC as usize && number(4, 4)? == VERSION as usize;
    if !is_store || sign(body) != signature {
        return None;
    }
    let mut entries = Vec::new();
    let mut at = HEADER;
    for _ in 0..number(8, 4)? {
        let start = at;
        if number(at, 4)? != TRUSTED as usize {
            return None;
        }
        at += 4;
        at += 2 + number(at, 2)?;
        // Its date.
        at += 8;
        at += 2 + number(at, 2)?;
        at += 4 + number(at, 4)?;
        entries.push(body.get(start..at)?);
    }
    (at == body.len()).then_some(entries)
}

fn push(bytes: &mut Vec<u8>, alias: &str, der: &[u8]) {
    let text = |bytes: &mut Vec<u8>, text: &str| {
        bytes.extend(u16::try_from(text.len()).unwrap_or(0).to_be_bytes());
        bytes.extend(text.as_bytes());
    };
    bytes.extend(TRUSTED.to_be_bytes());
    text(bytes, alias);
    bytes.extend(0_u64.to_be_bytes());
    text(bytes, "X.509");
    bytes.extend(count(der.len()).to_be_bytes());
    bytes.extend(der);
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

fn signed(mut bytes: Vec<u8>) -> Vec<u8> {
    let signature = sign(&bytes);
    bytes.extend(signature);
    bytes
}

fn sign(bytes: &[u8]) -> [u8; SIGNATURE] {
    let mut hasher = Sha1::new();
    hasher.update(PASSWORD.encode_utf16().flat_map(u16::to_be_bytes).collect::<Vec<u8>>());
    hasher.update(b"Mighty Aphrodite");
    hasher.update(bytes);
    hasher.finalize().into()
}
