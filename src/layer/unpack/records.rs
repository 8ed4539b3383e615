//! What extended headers (PAX) and long names (GNU) say of the entry after them.

use super::super::capability;
use super::EntryProblem;
use super::sparse::SparseRecords;

/// What extended headers say of the next entry.
#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<i64>,
    pub(super) capability: Option<[u8; capability::LENGTH]>,
    pub(super) sparse: SparseRecords,
    /// Whether an extended header or a long name was seen, so that none comes twice.
    pub(super) extended: bool,
    pub(super) long_path: bool,
    pub(super) long_link: bool,
}

impl Records {
    pub(super) fn take(&mut self, kind: u8, data: &[u8]) -> Result<(), EntryProblem> {
        let twice = || Err(EntryProblem::Header("two extended headers"));
        let text = || data.split(|byte| *byte == 0).next().unwrap_or_default().to_vec();
        match kind {
            b'L' if std::mem::replace(&mut self.long_path, true) => twice(),
            b'K' if std::mem::replace(&mut self.long_link, true) => twice(),
            b'x' if std::mem::replace(&mut self.extended, true) => twice(),
            b'L' => set(&mut self.path, text()),
            b'K' => set(&mut self.link, text()),
            b'x' => each_record(data, |key, value| self.record(key, value)),
            // A global header, as `git archive` writes it with a comment.
            _ => each_record(data, |key, _| match key {
                b"path" | b"linkpath" | b"size" | b"uid" | b"gid" | b"mtime" => {
                    Err(EntryProblem::Header("a global header about single entries"))
                }
                _ => Ok(()),
            }),
        }
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), EntryProblem> {
        match key {
            b"path" => set(&mut self.path, value.to_vec()),
            b"linkpath" => set(&mut self.link, value.to_vec()),
            b"size" => set(&mut self.size, decimal(value)?),
            b"uid" => set(&mut self.uid, decimal(value)?),
            b"gid" => set(&mut self.gid, decimal(value)?),
            b"mtime" => set(&mut self.mtime, seconds(value)?),
            b"SCHILY.xattr.security.capability" => {
                let v2 = capability::as_v2(value).ok_or(EntryProblem::Header("capability"))?;
                set(&mut self.capability, v2)
            }
            _ => match key.strip_prefix(b"GNU.sparse.") {
                Some(key) => self.sparse.record(key, value),
                // Other extended attributes, times of access, names of owners: not in our trees.
                None => Ok(()),
            },
        }
    }
}

/// Sets what must not have been set to something else.
pub(super) fn set<T: PartialEq>(slot: &mut Option<T>, value: T) -> Result<(), EntryProblem> {
    match slot {
        Some(old) if *old != value => Err(EntryProblem::Header("two records that disagree")),
        _ => {
            *slot = Some(value);
            Ok(())
        }
    }
}

/// Goes through `LENGTH KEY=VALUE\n` records.
fn each_record(
    mut data: &[u8],
    mut each: impl FnMut(&[u8], &[u8]) -> Result<(), EntryProblem>,
) -> Result<(), EntryProblem> {
    let broken = || EntryProblem::Header("extended header");
    while !data.is_empty() {
        let space = data.iter().take(20).position(|byte| *byte == b' ').ok_or_else(broken)?;
        let length = usize::try_from(decimal(&data[..space])?).map_err(|_| broken())?;
        let record = data.get(..length).ok_or_else(broken)?;
        let [body @ .., b'\n'] = record.get(space + 1..).ok_or_else(broken)? else {
            return Err(broken());
        };
        let equals = body.iter().position(|byte| *byte == b'=').ok_or_else(broken)?;
        each(&body[..equals], &body[equals + 1..])?;
        data = &data[length..];
    }
    Ok(())
}

pub(super) fn decimal(text: &[u8]) -> Result<u64, EntryProblem> {
    let broken = EntryProblem::Header("number in an extended header");
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return Err(broken);
    }
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or(broken)
}

/// Reads seconds with an optional sign and fraction, rounded down.
fn seconds(text: &[u8]) -> Result<i64, EntryProblem> {
    let (negative, text) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    let (whole, fraction) = match text.iter().position(|byte| *byte == b'.') {
        Some(point) => (&text[..point], &text[point + 1..]),
        None => (text, &b""[..]),
    };
    let broken = EntryProblem::Header("time in an extended header");
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(broken);
    }
    let whole = i64::try_from(decimal(whole)?).map_err(|_| broken)?;
    let below = i64::from(negative && fraction.iter().any(|byte| *byte != b'0'));
    Ok(if negative { -whole - below } else { whole })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rounded_down() {
        for (text, expected) in
            [("0", 0), ("12.999", 12), ("-1", -1), ("-1.5", -2), ("-1.000", -1), ("7.", 7)]
        {
            assert_eq!(seconds(text.as_bytes()), Ok(expected), "{text}");
        }
        for text in ["", "-", "1e3", "+1", " 1", "1.x"] {
            assert!(seconds(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn records_may_hold_newlines_and_must_have_their_length() {
        let mut found = Vec::new();
        let data = b"11 k=a\nb=c\n14 other=v\xff\0x\n";
        each_record(data, |key, value| {
            found.push((key.to_vec(), value.to_vec()));
            Ok(())
        })
        .unwrap();
        assert_eq!(found[0], (b"k".to_vec(), b"a\nb=c".to_vec()));
        assert_eq!(found[1], (b"other".to_vec(), b"v\xff\0x".to_vec()));
        for bad in [&b"9 k=v\n"[..], b"5 k=v\n", b"x k=v\n", b"6 kxv\n", b"0 k=v\n", b"2 \n"] {
            assert!(each_record(bad, |_, _| Ok(())).is_err(), "{bad:?}");
        }
    }
}
