//! Java's trust store in its old form (JKS): a date in each entry, and at the end SHA-1 over the
//! password, a phrase and everything before it.
//!
//! ```text
//! magic u32, version u32, count u32,
//! count × { tag u32 = 2, alias (u16 length), date u64 in ms, type (u16 length), certificate (u32 length) }
//! SHA-1
//! ```

use sha1::{Digest, Sha1};

use super::Times;

const MAGIC: u32 = 0xFEED_FEED;
const TRUSTED: u32 = 2;
/// The password that Debian's and everybody's trust store has, in UTF-16.
const PASSWORD: &str = "changeit";
const PHRASE: &[u8] = b"Mighty Aphrodite";

/// Dates all entries to the source date. A store with private keys or another password is left.
pub(super) fn keystore(content: &[u8], times: &Times) -> Option<Vec<u8>> {
    let body = content.len().checked_sub(20)?;
    if content[body..] != signature(&content[..body]) {
        return None;
    }
    let mut new = content[..body].to_vec();
    let number = |at: usize, size: usize| -> Option<usize> {
        let bytes = content[..body].get(at..at.checked_add(size)?)?;
        Some(bytes.iter().fold(0, |value, byte| value << 8 | usize::from(*byte)))
    };
    if number(0, 4)? != MAGIC as usize {
        return None;
    }
    let version = number(4, 4)?;
    let date = times.source_date.checked_mul(1000)?.to_be_bytes();
    let mut at = 12;
    for _ in 0..number(8, 4)? {
        if number(at, 4)? != TRUSTED as usize {
            return None;
        }
        at += 4;
        at += 2 + number(at, 2)?;
        new.get_mut(at..at + 8)?.copy_from_slice(&date);
        at += 8;
        if version == 2 {
            at += 2 + number(at, 2)?;
        }
        at += 4 + number(at, 4)?;
    }
    if at != body {
        return None;
    }
    let signed = signature(&new);
    new.extend_from_slice(&signed);
    Some(new)
}

fn signature(body: &[u8]) -> [u8; 20] {
    let mut hasher = Sha1::new();
    for unit in PASSWORD.encode_utf16() {
        hasher.update(unit.to_be_bytes());
    }
    hasher.update(PHRASE);
    hasher.update(body);
    hasher.finalize().into()
}

/// Makes a store with one certificate.
#[cfg(test)]
pub(super) fn store(date: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in [MAGIC, 2, 1, TRUSTED] {
        bytes.extend_from_slice(&number.to_be_bytes());
    }
    bytes.extend_from_slice(b"\0\x05debia");
    bytes.extend_from_slice(&date.to_be_bytes());
    bytes.extend_from_slice(b"\0\x05X.509\0\0\0\x03abc");
    let signed = signature(&bytes);
    bytes.extend_from_slice(&signed);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_become_the_source_date_and_the_signature_holds() {
        let times = Times { start: 0, end: 0, source_date: 1_700_000_000 };
        let new = keystore(&store(1_795_530_193_000), &times).unwrap();
        assert_eq!(new, store(1_700_000_000_000));
        let mut broken = store(1);
        broken[20] ^= 1;
        assert_eq!(keystore(&broken, &times), None);
        assert_eq!(keystore(b"", &times), None);
    }
}
