//! A tar's entries out of a stream of blocks. The `tar` crate decodes the headers; the framing is
//! our own, because the crate splits extended records at newlines, which a binary capability may
//! hold, and takes one of two sizes that disagree.

use std::borrow::Cow;

use crossbeam_channel::Receiver;
use tar::Header;

use super::super::blocks::Block;
use super::super::capability;
use super::super::header::BLOCK;
use super::{EntryProblem, Error, Limits};
use crate::oci::Digest;

/// The longest extended header or long name that is read.
const LONGEST_RECORD: u64 = 1 << 20;

/// The largest size that a header's octal field can say.
const LARGEST_OCTAL: u64 = 0o777_7777_7777;

/// An entry, with the extended headers before it applied.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) path: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) kind: u8,
    pub(super) mode: u32,
    pub(super) uid: u64,
    pub(super) gid: u64,
    pub(super) size: u64,
    pub(super) mtime: i64,
    pub(super) device: (u32, u32),
    pub(super) capability: Option<[u8; capability::LENGTH]>,
}

/// What extended headers say of the next entry.
#[derive(Debug, Default)]
struct Records {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<i64>,
    capability: Option<[u8; capability::LENGTH]>,
    /// Whether an extended header or a long name was seen, so that none comes twice.
    extended: bool,
    long_path: bool,
    long_link: bool,
}

/// The reader of a tar.
#[derive(Debug)]
pub(super) struct Frames<'a> {
    digest: Digest,
    limits: &'a Limits,
    blocks: Receiver<Block>,
    current: Option<Block>,
    at: usize,
    taken: u64,
    /// Bytes of the current entry that nobody has read, and the padding after them.
    unread: u64,
    headers: u64,
}

impl<'a> Frames<'a> {
    pub(super) fn new(digest: Digest, limits: &'a Limits, blocks: Receiver<Block>) -> Frames<'a> {
        Frames { digest, limits, blocks, current: None, at: 0, taken: 0, unread: 0, headers: 0 }
    }

    /// Makes the error of an entry.
    pub(super) fn refuse(&self, path: &[u8], problem: EntryProblem) -> Error {
        Error::Entry { name: shown(path), digest: self.digest, problem }
    }

    fn truncated(&self) -> Error {
        Error::Truncated { digest: self.digest, got: self.taken }
    }

    /// Returns the next bytes, at most `most` of them; `None` at the end of the stream.
    fn piece(&mut self, most: u64) -> Option<&[u8]> {
        while self.current.as_ref().is_none_or(|block| self.at == block.len()) {
            self.current = None;
            self.current = Some(self.blocks.recv().ok()?);
            self.at = 0;
        }
        let block = self.current.as_ref()?;
        let rest = &block[self.at..];
        let count = usize::try_from(most).unwrap_or(usize::MAX).min(rest.len());
        self.at += count;
        self.taken += count as u64;
        Some(&rest[..count])
    }

    /// Gives the data of the current entry to `each`, piece by piece.
    pub(super) fn data(
        &mut self,
        size: u64,
        mut each: impl FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut left = size;
        while left > 0 {
            let Some(piece) = self.piece(left) else { return Err(self.truncated()) };
            let count = piece.len() as u64;
            each(piece)?;
            left -= count;
            self.unread -= count;
        }
        Ok(())
    }

    fn skip(&mut self) -> Result<(), Error> {
        while self.unread > 0 {
            let Some(piece) = self.piece(self.unread) else { return Err(self.truncated()) };
            self.unread -= piece.len() as u64;
        }
        Ok(())
    }

    /// Reads one block of a header; `None` where the stream ends.
    fn header_block(&mut self) -> Result<Option<[u8; BLOCK]>, Error> {
        let mut bytes = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.piece((BLOCK - filled) as u64) {
                Some(piece) => {
                    let count = piece.len();
                    bytes[filled..filled + count].copy_from_slice(piece);
                    filled += count;
                }
                // Some writers leave the two zero blocks out, and a digest covers the whole.
                None if filled == 0 => return Ok(None),
                None => return Err(self.truncated()),
            }
        }
        Ok(Some(bytes))
    }

    /// Reads to the end, where only zeros may be.
    fn finish(&mut self) -> Result<(), Error> {
        while let Some(piece) = self.piece(u64::MAX) {
            if piece.iter().any(|byte| *byte != 0) {
                return Err(Error::Trailing { digest: self.digest });
            }
        }
        Ok(())
    }

    /// Returns how many headers were read.
    pub(super) fn headers(&self) -> u64 {
        self.headers
    }

    /// Returns the next entry; `None` at the end, after which the whole stream is read.
    pub(super) fn next(&mut self) -> Result<Option<Member>, Error> {
        let mut records = Records::default();
        loop {
            self.skip()?;
            let block = self.header_block()?;
            let Some(bytes) = block.filter(|bytes| bytes.iter().any(|byte| *byte != 0)) else {
                if records.extended || records.long_path || records.long_link {
                    return Err(self.truncated());
                }
                self.finish()?;
                return Ok(None);
            };
            let header = Header::from_byte_slice(&bytes);
            let name = records.path.clone().unwrap_or_else(|| header.path_bytes().into_owned());
            let damaged = |what| EntryProblem::Header(what);
            self.headers += 1;
            if self.headers > self.limits.entries {
                let bound = self.limits.entries;
                let problem = EntryProblem::Bound { what: "the number of entries", bound };
                return Err(Error::Refused { digest: self.digest, problem });
            }
            if header.cksum().ok() != Some(sum(&bytes)) {
                return Err(self.refuse(&name, damaged("checksum")));
            }
            let size = header.entry_size().map_err(|_| self.refuse(&name, damaged("size")))?;
            match header.entry_type().as_byte() {
                kind @ (b'x' | b'g' | b'L' | b'K') => {
                    self.expect_data(&name, size)?;
                    let data = self.record_data(&name, size)?;
                    records.take(kind, &data).map_err(|problem| self.refuse(&name, problem))?;
                }
                kind => {
                    let member = self.member(header, kind, size, &name, records)?;
                    return Ok(Some(member));
                }
            }
        }
    }

    fn member(
        &mut self,
        header: &Header,
        kind: u8,
        header_size: u64,
        name: &[u8],
        records: Records,
    ) -> Result<Member, Error> {
        let damaged = |what| self.refuse(name, EntryProblem::Header(what));
        let size = match records.size {
            // A header that cannot say a size this large says zero.
            Some(record)
                if record == header_size || (header_size == 0 && record > LARGEST_OCTAL) =>
            {
                record
            }
            None => header_size,
            Some(record) => {
                let problem = EntryProblem::SizeConflict { header: header_size, record };
                return Err(self.refuse(name, problem));
            }
        };
        // Beyond 2^63 only a record of our own or a hostile one can be.
        let mtime = match records.mtime {
            Some(mtime) => mtime,
            None => header.mtime().map_err(|_| damaged("mtime"))?.cast_signed(),
        };
        let uid = match records.uid {
            Some(uid) => uid,
            None => header.uid().map_err(|_| damaged("uid"))?,
        };
        let gid = match records.gid {
            Some(gid) => gid,
            None => header.gid().map_err(|_| damaged("gid"))?,
        };
        let device = match kind {
            b'3' | b'4' => {
                let number = |number: std::io::Result<Option<u32>>| number.ok().flatten();
                (number(header.device_major()), number(header.device_minor()))
            }
            _ => (Some(0), Some(0)),
        };
        let (Some(major), Some(minor)) = device else { return Err(damaged("device")) };
        let link = records
            .link
            .or_else(|| header.link_name_bytes().map(Cow::into_owned))
            .unwrap_or_default();
        let member = Member {
            path: name.to_vec(),
            link,
            kind,
            mode: header.mode().map_err(|_| damaged("mode"))? & 0o7777,
            uid,
            gid,
            size,
            mtime,
            device: (major, minor),
            capability: records.capability,
        };
        self.expect_data(name, size)?;
        Ok(member)
    }

    fn expect_data(&mut self, name: &[u8], size: u64) -> Result<(), Error> {
        match size.checked_next_multiple_of(BLOCK as u64) {
            Some(padded) if padded <= self.limits.bytes.saturating_sub(self.taken) => {
                self.unread = padded;
                Ok(())
            }
            _ => {
                let bound = self.limits.bytes;
                Err(self.refuse(name, EntryProblem::Bound { what: "the layer's size", bound }))
            }
        }
    }

    fn record_data(&mut self, name: &[u8], size: u64) -> Result<Vec<u8>, Error> {
        if size > LONGEST_RECORD {
            let what = "its extended header";
            return Err(self.refuse(name, EntryProblem::Bound { what, bound: LONGEST_RECORD }));
        }
        let mut data = Vec::new();
        self.data(size, |piece| {
            data.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(data)
    }
}

impl Records {
    fn take(&mut self, kind: u8, data: &[u8]) -> Result<(), EntryProblem> {
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
            _ if key.starts_with(b"GNU.sparse.") => Err(EntryProblem::Type('S')),
            // Other extended attributes, times of access, names of owners: not in a tree of ours.
            _ => Ok(()),
        }
    }
}

/// Sets what must not have been set to something else.
fn set<T: PartialEq>(slot: &mut Option<T>, value: T) -> Result<(), EntryProblem> {
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

fn decimal(text: &[u8]) -> Result<u64, EntryProblem> {
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

/// Sums the bytes of a header, with spaces in place of the sum itself.
fn sum(bytes: &[u8; BLOCK]) -> u32 {
    let all: u32 = bytes.iter().map(|byte| u32::from(*byte)).sum();
    let own: u32 = bytes[148..156].iter().map(|byte| u32::from(*byte)).sum();
    all - own + 8 * u32::from(b' ')
}

/// Makes a name fit for a message.
fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).chars().take(300).flat_map(char::escape_debug).collect()
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
