//! Compressed files: the header's time and name (RFC 1952), and the content.

use std::io::Read;

use flate2::read::MultiGzDecoder;

use super::super::cause::{Cause, Found};
use super::super::report::Part;
use super::{Explained, Parts, UNPACKED_LIMIT, date, explain_within, part};

/// Explains two gzip files; `None` where one does not decompress.
pub(super) fn explain(name: &str, a: &[u8], b: &[u8], depth: usize) -> Option<Explained> {
    let (old, new) = (inflate(a)?, inflate(b)?);
    let mut parts = Parts::default();
    header(a, b, &mut parts);
    content(name.trim_end_matches(".gz"), &old, &new, depth, &mut parts);
    Some(parts.finish("gzip", "parts"))
}

/// Does the same for Zstandard, whose frames hold no time.
pub(super) fn explain_zstd(name: &str, a: &[u8], b: &[u8], depth: usize) -> Option<Explained> {
    let unpacked = |bytes: &[u8]| limited(zstd::Decoder::new(bytes).ok()?);
    let (old, new) = (unpacked(a)?, unpacked(b)?);
    let mut parts = Parts::default();
    content(name.trim_end_matches(".zst"), &old, &new, depth, &mut parts);
    Some(parts.finish("zstd", "parts"))
}

fn header(a: &[u8], b: &[u8], parts: &mut Parts) {
    let time = |bytes: &[u8]| {
        let field: Option<[u8; 4]> = bytes.get(4..8).and_then(|field| field.try_into().ok());
        field.map_or(0, u32::from_le_bytes)
    };
    let (old, new) = (time(a), time(b));
    if old != new {
        let what = format!("{} -> {}", date(i64::from(old)), date(i64::from(new)));
        let found = Found::sure(Cause::Time, "the time in gzip's header");
        parts.push(part("header: time", what), Some(found));
    }
    let named = |bytes: &[u8]| -> Option<String> {
        // Flags: 4 is an extra field, which nobody writes beside a name; 8 is the name.
        let flags = *bytes.get(3)?;
        if flags & 4 != 0 || flags & 8 == 0 {
            return None;
        }
        Some(
            String::from_utf8_lossy(bytes.get(10..)?.split(|byte| *byte == 0).next()?).into_owned(),
        )
    };
    let (old, new) = (named(a), named(b));
    if old != new {
        let shown = |name: Option<String>| name.unwrap_or_else(|| "none".to_owned());
        let what = format!("{} -> {}", shown(old), shown(new));
        let found = Found::guess(Cause::BuildPath, "the name in gzip's header");
        parts.push(part("header: name", what), Some(found));
    }
    if a.get(8..10) != b.get(8..10) {
        parts.push(part("header: level and system", "another compressor wrote it"), None);
    }
}

fn content(name: &str, old: &[u8], new: &[u8], depth: usize, parts: &mut Parts) {
    if old != new {
        let inner = explain_within(name, old, new, depth + 1);
        let part = Part {
            name: "content".to_owned(),
            what: inner.explanation.summary.clone(),
            content: Some(inner.explanation),
        };
        parts.push(part, inner.found);
    } else if parts.is_empty() {
        parts.push(part("compression", "the same content, compressed in another way"), None);
    }
}

fn inflate(bytes: &[u8]) -> Option<Vec<u8>> {
    limited(MultiGzDecoder::new(bytes))
}

/// Reads to the end, if it comes within the bound.
pub(super) fn limited(reader: impl Read) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    reader.take(UNPACKED_LIMIT + 1).read_to_end(&mut plain).ok()?;
    (plain.len() as u64 <= UNPACKED_LIMIT).then_some(plain)
}
