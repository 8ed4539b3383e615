//! A tar's entries out of a stream of blocks. The `tar` crate decodes the headers; the framing is
//! our own, because the crate splits extended records at newlines, which a binary capability may
//! hold, and takes one of two sizes that disagree.

use std::borrow::Cow;

use crossbeam_channel::Receiver;
use tar::Header;

use super::super::blocks::Block;
use super::super::capability;
use super::super::header::BLOCK;
use super::records::Records;
use super::sparse::{self, Sparse, SparseRecords};
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
    /// Where the data belong, if it is a file with holes.
    pub(super) sparse: Option<Sparse>,
}

/// Why a map was not read.
enum Failure {
    Problem(EntryProblem),
    Stream(Error),
}

impl From<EntryProblem> for Failure {
    fn from(problem: EntryProblem) -> Failure {
        Failure::Problem(problem)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Stream(error)
    }
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
    /// How many of these are the padding.
    padding: u64,
    headers: u64,
    /// Bytes that files have beyond their data.
    holes: u64,
}

impl<'a> Frames<'a> {
    pub(super) fn new(digest: Digest, limits: &'a Limits, blocks: Receiver<Block>) -> Frames<'a> {
        Frames {
            digest,
            limits,
            blocks,
            current: None,
            at: 0,
            taken: 0,
            unread: 0,
            padding: 0,
            headers: 0,
            holes: 0,
        }
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
            match self.piece(self.unread).map(<[u8]>::len) {
                Some(count) => self.unread -= count as u64,
                // umoci's `insert` leaves out even the padding of the last file.
                None if self.unread <= self.padding => self.unread = 0,
                None => return Err(self.truncated()),
            }
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
            let told = records.sparse.name.as_ref().or(records.path.as_ref()).cloned();
            let name = told.unwrap_or_else(|| header.path_bytes().into_owned());
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
        let mode = header.mode().map_err(|_| damaged("mode"))? & 0o7777;
        if !records.sparse.is_empty() && !matches!(kind, b'0' | b'\0' | b'7') {
            return Err(damaged("a sparse map of what is no file"));
        }
        let sparse = self.sparse(header, kind, size, records.sparse, name)?;
        Ok(Member {
            path: name.to_vec(),
            link,
            kind: if sparse.is_some() { b'0' } else { kind },
            mode,
            uid,
            gid,
            size,
            mtime,
            device: (major, minor),
            capability: records.capability,
            sparse,
        })
    }

    /// Reads the map of a sparse file, wherever it is, so that only the data are left.
    fn sparse(
        &mut self,
        header: &Header,
        kind: u8,
        size: u64,
        records: SparseRecords,
        name: &[u8],
    ) -> Result<Option<Sparse>, Error> {
        let read = if kind == b'S' {
            sparse::of_header(header, size, || match self.header_block()? {
                Some(block) => Ok(block),
                None => Err(self.truncated().into()),
            })
        } else if records.is_empty() {
            self.expect_data(name, size)?;
            return Ok(None);
        } else {
            self.expect_data(name, size)?;
            records.finish(size, || {
                if self.unread < BLOCK as u64 {
                    return Err(EntryProblem::Header("sparse map").into());
                }
                self.unread -= BLOCK as u64;
                match self.header_block()? {
                    Some(block) => Ok(block),
                    None => Err(self.truncated().into()),
                }
            })
        };
        let sparse = read.map_err(|failure| match failure {
            Failure::Problem(problem) => self.refuse(name, problem),
            Failure::Stream(error) => error,
        })?;
        if kind == b'S' {
            self.expect_data(name, size)?;
        }
        let data: u64 = sparse.pieces.iter().map(|(_, length)| length).sum();
        self.holes = self.holes.saturating_add(sparse.size - data);
        if self.holes > self.limits.bytes.saturating_sub(self.taken).saturating_sub(self.unread) {
            let bound = self.limits.bytes;
            return Err(self.refuse(name, EntryProblem::Bound { what: "the layer's size", bound }));
        }
        Ok(Some(sparse))
    }

    fn expect_data(&mut self, name: &[u8], size: u64) -> Result<(), Error> {
        match size.checked_next_multiple_of(BLOCK as u64) {
            Some(padded)
                if padded
                    <= self.limits.bytes.saturating_sub(self.taken).saturating_sub(self.holes) =>
            {
                (self.unread, self.padding) = (padded, padded - size);
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
