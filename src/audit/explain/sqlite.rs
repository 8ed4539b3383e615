//! Databases of `SQLite`: the header's counters, and the pages that differ.

use super::super::cause::{Cause, Found};
use super::super::mask;
use super::{Explained, Parts, part};

/// Numbers of the header: where, and what they are. Those that only count writes come first.
const FIELDS: [(usize, &str, bool); 7] = [
    (24, "header: changes", true),
    (92, "header: changes at the last version", true),
    (96, "header: version of SQLite", false),
    (28, "header: pages", false),
    (36, "header: free pages", false),
    (40, "header: changes of the schema", true),
    (60, "header: version of the user", false),
];

/// Explains two databases; `None` where one is cut.
pub(super) fn explain(a: &[u8], b: &[u8]) -> Option<Explained> {
    let number = |bytes: &[u8], at: usize| -> Option<u32> {
        Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
    };
    let mut parts = Parts::default();
    for (at, name, counts) in FIELDS {
        let (old, new) = (number(a, at)?, number(b, at)?);
        if old != new {
            let found =
                counts.then(|| Found::guess(Cause::Order, "how often the database was written"));
            parts.push(part(name, format!("{old} -> {new}")), found);
        }
    }
    let size = match u16::from_be_bytes(a.get(16..18)?.try_into().ok()?) {
        1 => 65_536,
        size if size >= 512 => usize::from(size),
        _ => return None,
    };
    if a.get(16..18) != b.get(16..18) {
        parts.push(part("header: size of a page", "differs"), None);
        return Some(parts.finish("sqlite", "parts"));
    }
    let mut differing = Vec::new();
    let mut found = None;
    let (mut known, count) = (true, a.len().max(b.len()).div_ceil(size));
    for page in 0..count {
        // The first page begins with the header, which is told already.
        let from = page * size + if page == 0 { 100 } else { 0 };
        let of = |bytes: &'_ [u8]| -> Vec<u8> {
            let end = bytes.len().min((page + 1) * size);
            bytes.get(from..end).unwrap_or_default().to_vec()
        };
        let (old, new) = (of(a), of(b));
        if old != new {
            differing.push((page + 1).to_string());
            match mask::guess(&old, &new) {
                Some(guessed) => found = Some(guessed),
                None => known = false,
            }
        }
    }
    if !differing.is_empty() {
        let shown: Vec<String> = differing.iter().take(12).cloned().collect();
        let more = if differing.len() > shown.len() { ", …" } else { "" };
        let what = format!("{} of {count} differ: {}{more}", differing.len(), shown.join(", "));
        parts.push(part("pages", what), found.filter(|_| known));
    }
    Some(parts.finish("sqlite", "parts"))
}
