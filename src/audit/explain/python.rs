//! Python's byte code (PEP 552): sixteen bytes of header, then the code.

use super::super::cause::{Cause, Found};
use super::super::mask;
use super::{Explained, Parts, date, part};

/// Explains two compiled files; `None` where one is cut.
pub(super) fn explain(a: &[u8], b: &[u8]) -> Option<Explained> {
    let mut parts = Parts::default();
    let (old, new) = (a.get(..16)?, b.get(..16)?);
    if old[..4] != new[..4] {
        parts.push(part("header: magic number", "another version of Python"), None);
    }
    if old[4..8] != new[4..8] {
        let what = format!("{} -> {}", check(old), check(new));
        parts.push(part("header: flags", what), None);
    } else if old[4..8] == [0; 4] {
        if old[8..12] != new[8..12] {
            let what = format!("{} -> {}", time(old), time(new));
            let found = Found {
                rule: Some("pyc-times"),
                ..Found::sure(Cause::Time, "the time of its source in byte code")
            };
            parts.push(part("header: time of the source", what), Some(found));
        }
        if old[12..] != new[12..] {
            parts.push(part("header: size of the source", "the source differs"), None);
        }
    } else if old[8..] != new[8..] {
        parts.push(part("header: hash of the source", "the source differs"), None);
    }
    if a[16..] != b[16..] {
        let what = format!("{} -> {} bytes", a.len() - 16, b.len() - 16);
        parts.push(part("code", what), mask::guess(&a[16..], &b[16..]));
    }
    Some(parts.finish("pyc", "parts"))
}

fn check(header: &[u8]) -> &'static str {
    match header[4] {
        0 => "checked by time",
        1 => "not checked",
        _ => "checked by hash",
    }
}

fn time(header: &[u8]) -> String {
    let field: [u8; 4] = header[8..12].try_into().unwrap_or_default();
    date(i64::from(u32::from_le_bytes(field)))
}
