//! Archives: which members were added, removed or changed, and in what.

use std::collections::BTreeMap;
use std::io::Read as _;

use flate2::read::DeflateDecoder;

use super::super::cause::{Cause, Found};
use super::super::report::Part;
use super::gzip::limited;
use super::{Explained, Parts, date, explain_within, part};

/// A member of an archive.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Member {
    name: String,
    /// As it is shown.
    time: String,
    /// Permissions, owner and the like, as they are shown.
    metadata: String,
    content: Vec<u8>,
}

/// The most bytes of all members of an archive.
const TOTAL_LIMIT: usize = 512 << 20;

/// Explains two archives; `None` where one is damaged.
pub(super) fn explain(
    kind: &'static str,
    a: Option<Vec<Member>>,
    b: Option<Vec<Member>>,
    depth: usize,
) -> Option<Explained> {
    let (a, b) = (a?, b?);
    let mut parts = Parts::default();
    let names = |members: &[Member]| -> Vec<String> {
        members.iter().map(|member| member.name.clone()).collect()
    };
    let (mine, theirs) = (names(&a), names(&b));
    let by_name = |members: Vec<Member>| -> BTreeMap<String, Member> {
        members.into_iter().map(|member| (member.name.clone(), member)).collect()
    };
    let (a, b) = (by_name(a), by_name(b));
    let mut all: Vec<&String> = a.keys().chain(b.keys()).collect();
    all.sort();
    all.dedup();
    for name in all {
        match (a.get(name), b.get(name)) {
            (Some(old), Some(new)) => member(name, old, new, depth, &mut parts),
            (Some(_), None) => parts.push(part(name.clone(), "removed"), None),
            (None, _) => parts.push(part(name.clone(), "added"), None),
        }
    }
    if parts.is_empty() && mine != theirs {
        let found = Found::sure(Cause::Order, "the order of an archive's members");
        parts.push(part("order", "the same members in another order"), Some(found));
    } else if parts.is_empty() {
        parts.push(part("framing", "the same members, packed in another way"), None);
    }
    Some(parts.finish(kind, "members"))
}

fn member(name: &str, old: &Member, new: &Member, depth: usize, parts: &mut Parts) {
    if old.content != new.content {
        let last = name.rsplit('/').next().unwrap_or(name);
        let inner = explain_within(last, &old.content, &new.content, depth + 1);
        let part = Part {
            name: name.to_owned(),
            what: inner.explanation.summary.clone(),
            content: Some(inner.explanation),
        };
        parts.push(part, inner.found);
    }
    if old.time != new.time {
        let what = format!("time {} -> {}", old.time, new.time);
        let found = Found::sure(Cause::Time, "times of an archive's members");
        parts.push(part(name, what), Some(found));
    }
    if old.metadata != new.metadata {
        let what = format!("{} -> {}", old.metadata, new.metadata);
        parts.push(part(name, what), None);
    }
}

/// Reads a zip's central directory and members (APPNOTE 4.3).
pub(super) fn zip(bytes: &[u8]) -> Option<Vec<Member>> {
    let short = |at: usize| -> Option<usize> {
        Some(usize::from(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?)))
    };
    let long = |at: usize| -> Option<usize> {
        Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?) as usize)
    };
    // The end record is the last thing but for a remark.
    let from = bytes.len().saturating_sub(65_557);
    let end = from + bytes[from..].windows(4).rposition(|window| window == b"PK\x05\x06")?;
    let mut at = long(end + 16)?;
    let mut members = Vec::new();
    let mut total = 0;
    for _ in 0..short(end + 10)? {
        if bytes.get(at..at + 4)? != b"PK\x01\x02" {
            return None;
        }
        let (method, packed, size) = (short(at + 10)?, long(at + 20)?, long(at + 24)?);
        let (name, extra, remark) = (short(at + 28)?, short(at + 30)?, short(at + 32)?);
        let local = long(at + 42)?;
        let data = local + 30 + short(local + 26)? + short(local + 28)?;
        let raw = bytes.get(data..data + packed)?;
        total += size;
        if total > TOTAL_LIMIT {
            return None;
        }
        let content = match method {
            8 => limited(DeflateDecoder::new(raw).take(size as u64 + 1))?,
            _ => raw.to_vec(),
        };
        let (clock, day) = (short(at + 12)?, short(at + 14)?);
        members.push(Member {
            name: String::from_utf8_lossy(bytes.get(at + 46..at + 46 + name)?).into_owned(),
            time: format!(
                "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
                1980 + (day >> 9),
                (day >> 5) & 15,
                day & 31,
                clock >> 11,
                (clock >> 5) & 63,
                (clock & 31) * 2
            ),
            metadata: format!("attributes {:08x}, method {method}", long(at + 38)?),
            content,
        });
        at += 46 + name + extra + remark;
    }
    Some(members)
}

/// Reads the members of a tar.
pub(super) fn tar(bytes: &[u8]) -> Option<Vec<Member>> {
    let mut members = Vec::new();
    let mut archive = tar::Archive::new(bytes);
    for entry in archive.entries().ok()? {
        let mut entry = entry.ok()?;
        let header = entry.header();
        let link = entry.link_name_bytes();
        let link = link.map(|link| String::from_utf8_lossy(&link).into_owned());
        let metadata = format!(
            "{:?} {:04o} {}:{} {}",
            header.entry_type(),
            header.mode().ok()?,
            header.uid().ok()?,
            header.gid().ok()?,
            link.unwrap_or_default()
        );
        let time = date(i64::try_from(header.mtime().ok()?).ok()?);
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).ok()?;
        members.push(Member { name, time, metadata: metadata.trim_end().to_owned(), content });
    }
    Some(members)
}

/// Reads the members of an ar archive, whose headers are 60 bytes of text each.
pub(super) fn ar(bytes: &[u8]) -> Option<Vec<Member>> {
    let mut members: Vec<Member> = Vec::new();
    let mut long_names: &[u8] = b"";
    let mut at = 8;
    while at + 60 <= bytes.len() {
        let field = |from: usize, to: usize| -> Option<&str> {
            Some(std::str::from_utf8(bytes.get(at + from..at + to)?).ok()?.trim_end())
        };
        let size: usize = field(48, 58)?.parse().ok()?;
        let content = bytes.get(at + 60..at + 60 + size)?;
        let raw = field(0, 16)?;
        let name = match raw.strip_prefix('/').and_then(|offset| offset.parse::<usize>().ok()) {
            // GNU's long names lie in a member of their own.
            Some(offset) => {
                let rest = long_names.get(offset..)?;
                let end = rest.iter().position(|byte| *byte == b'/' || *byte == b'\n')?;
                String::from_utf8_lossy(&rest[..end]).into_owned()
            }
            None => raw.trim_end_matches('/').to_owned(),
        };
        if raw == "//" {
            long_names = content;
        }
        // Two members may have one name.
        let same = members.iter().filter(|member| member.name.split('#').next() == Some(&name));
        let name = match (same.count(), raw) {
            (_, "/") => "the list of symbols".to_owned(),
            (_, "//") => "the list of long names".to_owned(),
            (0, _) => name,
            (more, _) => format!("{name}#{more}"),
        };
        let time = field(16, 28)?.parse().map_or_else(|_| String::new(), date);
        members.push(Member {
            name,
            time,
            metadata: format!("{}:{} {}", field(28, 34)?, field(34, 40)?, field(40, 48)?),
            content: content.to_vec(),
        });
        at += 60 + size.next_multiple_of(2);
    }
    Some(members)
}
