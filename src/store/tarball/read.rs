//! The reading side: headers of every common form, PAX records by their lengths, and no benefit of
//! the doubt.

use std::collections::BTreeMap;
use std::io::{self, Read};

use super::sparse::{self, Map};
use super::{BLOCK, Entry, Kind, clean, invalid, padding};

/// The most bytes that the headers before one entry may have.
const HEADERS: u64 = 1 << 20;

/// How many bytes of holes files may have, besides a hundred times what the archive has so far: as
/// for a layer that is unpacked.
const HOLES: u64 = 1 << 30;

/// Reads entries one after the other; reading from it gives the content of the last.
#[derive(Debug)]
pub(in crate::store) struct Reader<R> {
    inner: R,
    left: u64,
    padding: u64,
    position: u64,
    /// The way through the last entry, if it is a file with holes.
    sparse: Option<Map>,
    holes: u64,
}

#[derive(Default)]
struct Extended {
    records: BTreeMap<Vec<u8>, Vec<u8>>,
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

impl<R: Read> Reader<R> {
    pub(in crate::store) fn new(inner: R) -> Reader<R> {
        Reader { inner, left: 0, padding: 0, position: 0, sparse: None, holes: 0 }
    }

    /// Returns the offset in the stream: after [`Reader::next`], of the entry's content.
    pub(in crate::store) fn position(&self) -> u64 {
        self.position
    }

    /// Tells whether the stream has only parts of the last entry's content.
    pub(in crate::store) fn is_sparse(&self) -> bool {
        self.sparse.is_some()
    }

    /// Says that the content was skipped in the stream below.
    pub(in crate::store) fn skipped(&mut self) -> (&mut R, u64) {
        let bytes = self.left + self.padding;
        self.position += bytes;
        (self.left, self.padding) = (0, 0);
        (&mut self.inner, bytes)
    }

    /// Returns the next entry, `None` at the archive's end.
    pub(in crate::store) fn next(&mut self) -> io::Result<Option<Entry>> {
        let mut extended = Extended::default();
        let mut headers = 0;
        loop {
            self.skip_content()?;
            let Some(block) = self.block()? else {
                let orphan = !extended.records.is_empty()
                    || extended.path.is_some()
                    || extended.link.is_some();
                return if orphan {
                    Err(invalid("the archive ends after a header's extension"))
                } else {
                    Ok(None)
                };
            };
            let flag = block[156];
            let size = number(&block[124..136])?;
            if !matches!(flag, b'x' | b'g' | b'L' | b'K' | b'V') {
                return self.entry(&block, flag, size, extended).map(Some);
            }
            headers += size;
            if headers > HEADERS {
                return Err(invalid("the headers of an entry are larger than any honest ones"));
            }
            self.left = size;
            self.padding = padding(size);
            let mut content = Vec::new();
            self.by_ref().take(HEADERS).read_to_end(&mut content)?;
            match flag {
                b'x' => parse_records(&content, &mut extended.records)?,
                b'g' => {
                    let mut global = BTreeMap::new();
                    parse_records(&content, &mut global)?;
                    if let Some(key) = global.keys().find(|key| *key != b"comment") {
                        let key = String::from_utf8_lossy(key);
                        return Err(invalid(format!(
                            "a global header sets `{key}` of all entries after it"
                        )));
                    }
                }
                b'L' => extended.path = Some(until_nul(&content).to_vec()),
                b'K' => extended.link = Some(until_nul(&content).to_vec()),
                // A volume's label.
                _ => {}
            }
        }
    }

    fn entry(
        &mut self,
        block: &[u8; BLOCK],
        flag: u8,
        header_size: u64,
        extended: Extended,
    ) -> io::Result<Entry> {
        let Extended { mut records, path, link } = extended;
        let sparse_name = records.remove(&b"GNU.sparse.name"[..]);
        let path = sparse_name.or(records.remove(&b"path"[..])).or(path);
        let raw = path.unwrap_or_else(|| header_path(block));
        let show = String::from_utf8_lossy(&raw).into_owned();
        let fail = |what: &str| Err(invalid(format!("the entry `{show}` {what}")));
        let kind = match flag {
            b'0' | 0 | b'7' if flag != b'7' && raw.last() == Some(&b'/') => Kind::Folder,
            b'0' | 0 | b'7' | b'S' => Kind::File,
            b'1' => Kind::Link,
            b'2' => Kind::Symlink,
            b'3' => Kind::Char,
            b'4' => Kind::Block,
            b'5' => Kind::Folder,
            b'6' => Kind::Fifo,
            _ => return fail(&format!("is of the unknown type `{}`", flag.escape_ascii())),
        };
        let is_sparse = records.keys().any(|key| key.starts_with(b"GNU.sparse."));
        if is_sparse && (kind != Kind::File || flag == b'S') {
            return fail("has a sparse file's map and is none");
        }
        let text =
            |key: &[u8]| records.get(key).map(|value| String::from_utf8_lossy(value).into_owned());
        let decimal = |key: &[u8], field: &[u8]| -> io::Result<u64> {
            match text(key) {
                Some(text) => text
                    .parse()
                    .map_err(|_| invalid(format!("the entry `{show}` has the number `{text}`"))),
                None => number(field),
            }
        };
        let size = decimal(b"size", &block[124..136])?;
        if header_size != 0 && size != header_size && size < 8 << 30 {
            return fail("has two sizes");
        }
        if kind != Kind::File && size != 0 {
            return fail("has content, which only a file may have");
        }
        let link = records.get(&b"linkpath"[..]).cloned().or(link);
        let link = link.unwrap_or_else(|| until_nul(&block[157..257]).to_vec());
        let link = match kind {
            // Some builders write a hard link's target from the root.
            Kind::Link => clean(link.strip_prefix(b"/").unwrap_or(&link))?,
            Kind::Symlink => link,
            _ => Vec::new(),
        };
        let mtime = match text(b"mtime") {
            Some(text) => time(&text)
                .ok_or_else(|| invalid(format!("the entry `{show}` has the time `{text}`")))?,
            None => (signed(&block[136..148])?, 0),
        };
        let device = match kind {
            Kind::Char | Kind::Block => (small(&block[329..337])?, small(&block[337..345])?),
            _ => (0, 0),
        };
        self.left = size;
        self.padding = padding(size);
        if is_sparse || flag == b'S' {
            let map = self.map(block, flag, size, &records);
            let map = map.map_err(|error| {
                io::Error::new(error.kind(), format!("the entry `{show}`: {error}"))
            })?;
            self.holes = self.holes.saturating_add(map.size - map.data);
            if self.holes > HOLES.saturating_add(self.position.saturating_mul(100)) {
                return fail("has holes out of proportion");
            }
            self.sparse = Some(map);
        }
        let entry = Entry {
            kind,
            path: clean(&raw)?,
            link,
            mode: small(&block[100..108])? & 0o7777,
            uid: decimal(b"uid", &block[108..116])?,
            gid: decimal(b"gid", &block[116..124])?,
            mtime,
            size: self.sparse.as_ref().map_or(size, |map| map.size),
            device,
            xattrs: records
                .into_iter()
                .filter_map(|(key, value)| {
                    Some((key.strip_prefix(b"SCHILY.xattr.")?.to_vec(), value))
                })
                .collect(),
        };
        Ok(entry)
    }

    /// Reads a sparse file's map, so that only its data are left.
    fn map(
        &mut self,
        header: &[u8; BLOCK],
        flag: u8,
        size: u64,
        records: &BTreeMap<Vec<u8>, Vec<u8>>,
    ) -> io::Result<Map> {
        let mut block = [0; BLOCK];
        if flag == b'S' {
            sparse::of_header(header, size, || {
                self.inner.read_exact(&mut block)?;
                self.position += BLOCK as u64;
                Ok(block)
            })
        } else {
            // Reading them is reading content.
            sparse::of_records(records, size, || {
                self.read_exact(&mut block)?;
                Ok(block)
            })
        }
    }

    /// Reads of what the stream has of the content.
    fn read_stored(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let read = self.inner.read(&mut buffer[..most])?;
        if read == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive is cut short"));
        }
        self.left -= read as u64;
        self.position += read as u64;
        Ok(read)
    }

    /// Reads on to the end of the stream, where only zeros may follow.
    pub(in crate::store) fn finish(mut self) -> io::Result<()> {
        let mut buffer = [0; 16 << 10];
        loop {
            match self.inner.read(&mut buffer)? {
                0 => return Ok(()),
                read if buffer[..read].iter().all(|byte| *byte == 0) => {}
                _ => return Err(invalid("something follows after the end of the archive")),
            }
        }
    }

    fn skip_content(&mut self) -> io::Result<()> {
        self.sparse = None;
        let bytes = self.left + self.padding;
        let skipped = io::copy(&mut (&mut self.inner).take(bytes), &mut io::sink())?;
        if skipped < bytes {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive is cut short"));
        }
        self.position += bytes;
        (self.left, self.padding) = (0, 0);
        Ok(())
    }

    /// Returns the next header, `None` at the mark of the end or where the stream ends between
    /// entries.
    fn block(&mut self) -> io::Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.inner.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the archive is cut short",
                    ));
                }
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.position += BLOCK as u64;
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let sum = |block: &[u8; BLOCK]| -> u64 {
            let mut blank = *block;
            blank[148..156].fill(b' ');
            blank.iter().map(|byte| u64::from(*byte)).sum()
        };
        if number(&block[148..156]).ok() != Some(sum(&block)) {
            let at = self.position - BLOCK as u64;
            return Err(invalid(format!("there is no tar header at byte {at}")));
        }
        Ok(Some(block))
    }
}

impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(map) = &mut self.sparse else { return self.read_stored(buffer) };
        let (ahead, is_stored) = map.ahead();
        let most = usize::try_from(ahead).unwrap_or(usize::MAX).min(buffer.len());
        let read = if is_stored {
            self.read_stored(&mut buffer[..most])?
        } else {
            buffer[..most].fill(0);
            most
        };
        if let Some(map) = &mut self.sparse {
            map.pass(read as u64);
        }
        Ok(read)
    }
}

pub(super) fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or(field)
}

fn header_path(block: &[u8; BLOCK]) -> Vec<u8> {
    let name = until_nul(&block[..100]);
    let prefix = until_nul(&block[345..500]);
    if &block[257..263] == b"ustar\0" && !prefix.is_empty() {
        [prefix, b"/", name].concat()
    } else {
        name.to_vec()
    }
}

/// Reads an octal or a base-256 field.
pub(super) fn number(field: &[u8]) -> io::Result<u64> {
    u64::try_from(signed(field)?).map_err(|_| invalid("a header has a negative number"))
}

fn small(field: &[u8]) -> io::Result<u32> {
    u32::try_from(number(field)?).map_err(|_| invalid("a header has a number that is too large"))
}

fn signed(field: &[u8]) -> io::Result<i64> {
    let refuse = || invalid(format!("a header has the number `{}`", field.escape_ascii()));
    if field[0] & 0x80 != 0 {
        let negative = field[0] & 0x40 != 0;
        let mut value = if negative { -1 } else { i128::from(field[0] & 0x3f) };
        for byte in &field[1..] {
            value = value << 8 | i128::from(*byte);
            if i64::try_from(value).is_err() {
                return Err(refuse());
            }
        }
        return i64::try_from(value).map_err(|_| refuse());
    }
    let text = String::from_utf8_lossy(until_nul(field)).trim().to_owned();
    if text.is_empty() { Ok(0) } else { i64::from_str_radix(&text, 8).map_err(|_| refuse()) }
}

/// Reads seconds with a fraction.
fn time(text: &str) -> Option<(i64, u32)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let nanos: u32 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    match (whole.starts_with('-'), nanos) {
        (true, 1..) => Some((seconds - 1, 1_000_000_000 - nanos)),
        _ => Some((seconds, nanos)),
    }
}

/// Reads PAX records: a length, a space, `key=value` and a newline, by their lengths.
fn parse_records(mut content: &[u8], records: &mut BTreeMap<Vec<u8>, Vec<u8>>) -> io::Result<()> {
    while !content.is_empty() {
        let refuse = || invalid("a PAX header is damaged");
        let space = content.iter().position(|byte| *byte == b' ').ok_or_else(refuse)?;
        let length: usize = std::str::from_utf8(&content[..space])
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or_else(refuse)?;
        let record = content.get(space + 1..length).ok_or_else(refuse)?;
        let record = record.strip_suffix(b"\n").ok_or_else(refuse)?;
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(refuse)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        if matches!(key, b"GNU.sparse.offset" | b"GNU.sparse.numbytes") {
            // The oldest form has a record each number: the same as the next one's list.
            let map = records.entry(b"GNU.sparse.map".to_vec()).or_default();
            map.extend_from_slice(value);
            map.push(b',');
        } else {
            records.insert(key.to_vec(), value.to_vec());
        }
        content = &content[length..];
    }
    Ok(())
}
