//! What two versions of a file differ in, told by the kind of file that it is: lines of a text,
//! sections of a program, members of an archive. Archives are looked into, a few levels deep.

mod archive;
mod elf;
mod gzip;
mod python;
mod r;
mod sqlite;
mod text;

use super::cause::{Cause, Found};
use super::mask;
use super::report::{Explanation, Part};

/// Archives in archives are looked into so deep.
const DEEPEST: usize = 3;

/// The most bytes that a compressed file or member is unpacked to.
const UNPACKED_LIMIT: u64 = 256 << 20;

/// The most parts of a file that are listed.
const MOST_PARTS: usize = 50;

/// What two contents differ in, and by what cause where one is seen.
#[derive(Debug, Default)]
pub(super) struct Explained {
    pub(super) explanation: Explanation,
    pub(super) found: Option<Found>,
}

/// Explains two contents that differ; `name` is the file's last name.
pub(super) fn explain(name: &str, a: &[u8], b: &[u8]) -> Explained {
    explain_within(name, a, b, 0)
}

fn explain_within(name: &str, a: &[u8], b: &[u8], depth: usize) -> Explained {
    let kinds = (kind_of(name, a), kind_of(name, b));
    if kinds.0 == kinds.1 && depth <= DEEPEST {
        let explained = match kinds.0 {
            Kind::Elf => elf::explain(a, b),
            Kind::Gzip => gzip::explain(name, a, b, depth),
            Kind::Zstd => gzip::explain_zstd(name, a, b, depth),
            Kind::Zip => archive::explain("zip", archive::zip(a), archive::zip(b), depth),
            Kind::Tar => archive::explain("tar", archive::tar(a), archive::tar(b), depth),
            Kind::Ar => archive::explain("ar", archive::ar(a), archive::ar(b), depth),
            Kind::Sqlite => sqlite::explain(a, b),
            Kind::Pyc => python::explain(a, b),
            Kind::RDatabase => r::explain(a, b),
            Kind::Text => Some(text::explain(a, b)),
            Kind::Empty | Kind::Binary => None,
        };
        if let Some(explained) = explained {
            return explained;
        }
    }
    binary(kinds, a, b)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Elf,
    Gzip,
    Zstd,
    Zip,
    Tar,
    Ar,
    Sqlite,
    Pyc,
    RDatabase,
    Text,
    Empty,
    Binary,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Kind::Elf => "an ELF file",
            Kind::Gzip => "gzip",
            Kind::Zstd => "zstd",
            Kind::Zip => "a zip archive",
            Kind::Tar => "a tar archive",
            Kind::Ar => "an ar archive",
            Kind::Sqlite => "an SQLite database",
            Kind::Pyc => "Python byte code",
            Kind::RDatabase => "an R database",
            Kind::Text => "text",
            Kind::Empty => "empty",
            Kind::Binary => "binary",
        }
    }
}

fn kind_of(name: &str, bytes: &[u8]) -> Kind {
    let ends = |end: &str| name.ends_with(end);
    match bytes {
        [] => Kind::Empty,
        [0x7f, b'E', b'L', b'F', ..] => Kind::Elf,
        [0x1f, 0x8b, ..] => Kind::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Kind::Zstd,
        [b'P', b'K', 3, 4, ..] => Kind::Zip,
        _ if bytes.starts_with(b"!<arch>\n") => Kind::Ar,
        _ if bytes.get(257..262) == Some(b"ustar") => Kind::Tar,
        _ if bytes.starts_with(b"SQLite format 3\0") => Kind::Sqlite,
        [_, _, b'\r', b'\n', ..] if ends(".pyc") => Kind::Pyc,
        _ if ends(".rdb") => Kind::RDatabase,
        _ if !bytes.contains(&0) && std::str::from_utf8(bytes).is_ok() => Kind::Text,
        _ => Kind::Binary,
    }
}

fn binary(kinds: (Kind, Kind), a: &[u8], b: &[u8]) -> Explained {
    let at = a.iter().zip(b).position(|(a, b)| a != b).unwrap_or(a.len().min(b.len()));
    let summary = if kinds.0 != kinds.1 {
        format!("{} has become {}", kinds.0.word(), kinds.1.word())
    } else if a.len() == b.len() {
        let count = a.iter().zip(b).filter(|(a, b)| a != b).count();
        format!("{count} of {} bytes differ, the first at {at}", a.len())
    } else {
        format!("{} bytes instead of {}, the first difference at {at}", b.len(), a.len())
    };
    let explanation = Explanation { kind: "binary", summary, ..Explanation::default() };
    Explained { explanation, found: mask::guess(a, b) }
}

/// Collects the parts of a file that differ, and the one cause that all have, if it is one.
#[derive(Debug, Default)]
struct Parts {
    listed: Vec<Part>,
    left_out: usize,
    found: Option<Found>,
    unknown: bool,
}

impl Parts {
    fn push(&mut self, part: Part, found: Option<Found>) {
        match found {
            None => self.unknown = true,
            Some(found) => {
                // The least certain cause is the whole's.
                let weaker = self.found.as_ref().is_none_or(|has| {
                    (has.certain && !found.certain)
                        || (has.cause == Cause::Time && found.cause != Cause::Time)
                });
                if weaker {
                    self.found = Some(found);
                }
            }
        }
        if self.listed.len() < MOST_PARTS {
            self.listed.push(part);
        } else {
            self.left_out += 1;
        }
    }

    fn is_empty(&self) -> bool {
        self.listed.is_empty()
    }

    /// Makes the explanation; `of` names the parts, as `sections`.
    fn finish(self, kind: &'static str, of: &str) -> Explained {
        let names: Vec<&str> = self.listed.iter().take(4).map(|part| part.name.as_str()).collect();
        let count = self.listed.len() + self.left_out;
        let more = if count > names.len() { ", …" } else { "" };
        let of = if count == 1 { of.trim_end_matches('s') } else { of };
        let summary = format!("{count} {of}: {}{more}", names.join(", "));
        let explanation = Explanation { kind, summary, diff: None, parts: self.listed };
        Explained { explanation, found: self.found.filter(|_| !self.unknown) }
    }
}

/// Makes a part without content of its own.
fn part(name: impl Into<String>, what: impl Into<String>) -> Part {
    Part { name: name.into(), what: what.into(), content: None }
}

/// Formats seconds since 1970.
fn date(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds)
        .map_or_else(|_| seconds.to_string(), |time| time.to_string())
}
