//! Tar streams, read strictly and written in one form. What two readers would take differently is
//! refused: links with content, sizes that disagree, names that leave the root. (The `tar` crate
//! splits PAX records at newlines, which file capabilities may contain.)

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

const BLOCK: usize = 512;

/// The most bytes that the headers before one entry may have.
const HEADERS: u64 = 1 << 20;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Link,
    Symlink,
    Char,
    Block,
    Folder,
    Fifo,
}

/// An entry's header, whatever form it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) kind: Kind,
    /// Relative, without `.`, `..` and empty parts; the root is empty.
    pub(super) path: Vec<u8>,
    /// A symlink's target as it is, a hard link's like a path.
    pub(super) link: Vec<u8>,
    pub(super) mode: u32,
    pub(super) uid: u64,
    pub(super) gid: u64,
    /// Seconds and nanoseconds.
    pub(super) mtime: (i64, u32),
    pub(super) size: u64,
    pub(super) device: (u32, u32),
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Entry {
    /// Returns the path for a message.
    pub(super) fn name(&self) -> String {
        String::from_utf8_lossy(&self.path).into_owned()
    }
}

fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

/// Cleans a path, or says why it cannot be one.
pub(super) fn clean(path: &[u8]) -> io::Result<Vec<u8>> {
    let show = || String::from_utf8_lossy(path).into_owned();
    if path.first() == Some(&b'/') {
        return Err(invalid(format!("the entry `{}` has an absolute name", show())));
    }
    if path.contains(&0) {
        return Err(invalid(format!("the entry `{}` has a name with a NUL", show())));
    }
    let mut clean = Vec::with_capacity(path.len());
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(invalid(format!("the entry `{}` leaves the root", show()))),
            part => {
                if !clean.is_empty() {
                    clean.push(b'/');
                }
                clean.extend_from_slice(part);
            }
        }
    }
    Ok(clean)
}

/// Reads entries one after the other; reading from it gives the content of the last.
#[derive(Debug)]
pub(super) struct Reader<R> {
    inner: R,
    left: u64,
    padding: u64,
    position: u64,
}

#[derive(Default)]
struct Extended {
    records: BTreeMap<Vec<u8>, Vec<u8>>,
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

impl<R: Read> Reader<R> {
    pub(super) fn new(inner: R) -> Reader<R> {
        Reader { inner, left: 0, padding: 0, position: 0 }
    }

    /// Returns the offset in the stream: after [`Reader::next`], of the entry's content.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Says that the content was skipped in the stream below.
    pub(super) fn skipped(&mut self) -> (&mut R, u64) {
        let bytes = self.left + self.padding;
        self.position += bytes;
        (self.left, self.padding) = (0, 0);
        (&mut self.inner, bytes)
    }

    /// Returns the next entry, `None` at the archive's end.
    pub(super) fn next(&mut self) -> io::Result<Option<Entry>> {
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
        let raw = records.remove(&b"path"[..]).or(path).unwrap_or_else(|| header_path(block));
        let show = String::from_utf8_lossy(&raw).into_owned();
        let fail = |what: &str| Err(invalid(format!("the entry `{show}` {what}")));
        let kind = match flag {
            b'0' | 0 | b'7' if flag != b'7' && raw.last() == Some(&b'/') => Kind::Folder,
            b'0' | 0 | b'7' => Kind::File,
            b'1' => Kind::Link,
            b'2' => Kind::Symlink,
            b'3' => Kind::Char,
            b'4' => Kind::Block,
            b'5' => Kind::Folder,
            b'6' => Kind::Fifo,
            b'S' => return fail("is sparse in GNU's way, which is not supported"),
            _ => return fail(&format!("is of the unknown type `{}`", flag.escape_ascii())),
        };
        if records.keys().any(|key| key.starts_with(b"GNU.sparse.")) {
            return fail("is sparse in GNU's way, which is not supported");
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
        let entry = Entry {
            kind,
            path: clean(&raw)?,
            link,
            mode: small(&block[100..108])? & 0o7777,
            uid: decimal(b"uid", &block[108..116])?,
            gid: decimal(b"gid", &block[116..124])?,
            mtime,
            size,
            device,
            xattrs: records
                .into_iter()
                .filter_map(|(key, value)| {
                    Some((key.strip_prefix(b"SCHILY.xattr.")?.to_vec(), value))
                })
                .collect(),
        };
        self.left = size;
        self.padding = padding(size);
        Ok(entry)
    }

    /// Reads on to the end of the stream, where only zeros may follow.
    pub(super) fn finish(mut self) -> io::Result<()> {
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
}

fn padding(size: u64) -> u64 {
    size.next_multiple_of(BLOCK as u64) - size
}

fn until_nul(field: &[u8]) -> &[u8] {
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
fn number(field: &[u8]) -> io::Result<u64> {
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
        records.insert(record[..equals].to_vec(), record[equals + 1..].to_vec());
        content = &content[length..];
    }
    Ok(())
}

/// Writes entries in one form: ustar, with a PAX header before what ustar cannot say.
#[derive(Debug)]
pub(super) struct Writer<W> {
    out: W,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(out: W) -> Writer<W> {
        Writer { out }
    }

    /// Writes a header and the content that belongs to it, of exactly the size that it says.
    pub(super) fn entry(&mut self, entry: &Entry, content: &mut dyn Read) -> io::Result<()> {
        let mut path = entry.path.clone();
        if path.is_empty() {
            path.push(b'.');
        }
        if entry.kind == Kind::Folder {
            path.push(b'/');
        }
        let mut records = BTreeMap::new();
        let mut block = [0; BLOCK];
        let mut text = |at: usize, length: usize, value: &[u8], key: &[u8]| {
            let fits = value.len().min(length);
            block[at..at + fits].copy_from_slice(&value[..fits]);
            if value.len() > length || !value.is_ascii() {
                records.insert(key.to_vec(), value.to_vec());
            }
        };
        text(0, 100, &path, b"path");
        text(157, 100, &entry.link, b"linkpath");
        let mut octal = |at: usize, length: usize, value: u64, key: &[u8]| {
            let most = (1u64 << (3 * (length - 1))) - 1;
            let field =
                format!("{:0width$o}\0", if value > most { 0 } else { value }, width = length - 1);
            block[at..at + length].copy_from_slice(field.as_bytes());
            if value > most {
                records.insert(key.to_vec(), value.to_string().into_bytes());
            }
        };
        octal(100, 8, u64::from(entry.mode), b"mode");
        octal(108, 8, entry.uid, b"uid");
        octal(116, 8, entry.gid, b"gid");
        octal(124, 12, entry.size, b"size");
        octal(329, 8, u64::from(entry.device.0), b"SCHILY.devmajor");
        octal(337, 8, u64::from(entry.device.1), b"SCHILY.devminor");
        octal(136, 12, u64::try_from(entry.mtime.0).unwrap_or(0), b"mtime");
        if entry.mtime.1 != 0 || entry.mtime.0 < 0 {
            records.insert(b"mtime".to_vec(), spell_time(entry.mtime).into_bytes());
        }
        for (key, value) in &entry.xattrs {
            records.insert([b"SCHILY.xattr.", &key[..]].concat(), value.clone());
        }
        block[156] = match entry.kind {
            Kind::File => b'0',
            Kind::Link => b'1',
            Kind::Symlink => b'2',
            Kind::Char => b'3',
            Kind::Block => b'4',
            Kind::Folder => b'5',
            Kind::Fifo => b'6',
        };
        if !records.is_empty() {
            self.records(&records)?;
        }
        self.block(block)?;
        let written = io::copy(&mut content.take(entry.size), &mut self.out)?;
        if written != entry.size {
            return Err(invalid(format!("the content of `{}` is cut short", entry.name())));
        }
        self.pad(entry.size)
    }

    /// Writes a plain file with nothing of its own but name and content.
    pub(super) fn file(&mut self, name: &str, size: u64, content: &mut dyn Read) -> io::Result<()> {
        self.entry(&plain(Kind::File, name, 0o644, size), content)
    }

    /// Writes a folder with nothing of its own but its name.
    pub(super) fn folder(&mut self, name: &str) -> io::Result<()> {
        self.entry(&plain(Kind::Folder, name, 0o755, 0), &mut io::empty())
    }

    /// Writes the mark of the end and returns what lies below.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn records(&mut self, records: &BTreeMap<Vec<u8>, Vec<u8>>) -> io::Result<()> {
        let mut content = Vec::new();
        for (key, value) in records {
            // The length counts its own digits.
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length = rest + length.to_string().len();
            }
            write!(content, "{length} ")?;
            content.extend_from_slice(key);
            content.push(b'=');
            content.extend_from_slice(value);
            content.push(b'\n');
        }
        let mut block = [0; BLOCK];
        block[..9].copy_from_slice(b"PaxHeader");
        for (at, length) in [(100, 8), (108, 8), (116, 8), (136, 12), (329, 8), (337, 8)] {
            block[at..at + length - 1].fill(b'0');
        }
        block[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
        block[156] = b'x';
        self.block(block)?;
        self.out.write_all(&content)?;
        self.pad(content.len() as u64)
    }

    fn block(&mut self, mut block: [u8; BLOCK]) -> io::Result<()> {
        block[257..265].copy_from_slice(b"ustar\x0000");
        block[148..156].fill(b' ');
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.out.write_all(&block)
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let zeros = [0; BLOCK];
        let padding = usize::try_from(padding(size)).unwrap_or(0);
        self.out.write_all(&zeros[..padding])
    }
}

fn plain(kind: Kind, name: &str, mode: u32, size: u64) -> Entry {
    Entry {
        kind,
        path: name.as_bytes().to_vec(),
        link: Vec::new(),
        mode,
        uid: 0,
        gid: 0,
        mtime: (0, 0),
        size,
        device: (0, 0),
        xattrs: BTreeMap::new(),
    }
}

fn spell_time((seconds, nanos): (i64, u32)) -> String {
    match (seconds, nanos) {
        (seconds, 0) => seconds.to_string(),
        (seconds @ 0.., nanos) => format!("{seconds}.{nanos:09}"),
        // `-0.5` is half a second before zero.
        (seconds, nanos) => format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanos),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(bytes: &[u8]) -> io::Result<Vec<(Entry, Vec<u8>)>> {
        let mut reader = Reader::new(bytes);
        let mut entries = Vec::new();
        while let Some(entry) = reader.next()? {
            let mut content = Vec::new();
            reader.read_to_end(&mut content)?;
            entries.push((entry, content));
        }
        reader.finish()?;
        Ok(entries)
    }

    fn samples() -> Vec<(Entry, Vec<u8>)> {
        let mut capable = plain(Kind::File, "bin/ping", 0o4755, 3);
        capable.xattrs.insert(b"security.capability".to_vec(), b"\x01\n=\0\n20 x".to_vec());
        (capable.uid, capable.gid, capable.mtime) = (3_000_000, 100, (-2, 500_000_000));
        let mut long = plain(Kind::Symlink, &"d/".repeat(80), 0o777, 0);
        long.path = clean(&long.path).unwrap();
        long.link = "ü/".repeat(70).into_bytes();
        let mut node = plain(Kind::Char, "dev/null", 0o666, 0);
        node.device = (1, 3);
        node.mtime = (1 << 40, 0);
        let mut hard = plain(Kind::Link, "bin/ping6", 0o4755, 0);
        hard.link = b"bin/ping".to_vec();
        vec![
            (plain(Kind::Folder, "", 0o755, 0), Vec::new()),
            (capable, b"abc".to_vec()),
            (hard, Vec::new()),
            (long, Vec::new()),
            (node, Vec::new()),
            (plain(Kind::File, "x", 0o600, 512), vec![7; 512]),
        ]
    }

    fn written() -> Vec<u8> {
        let mut writer = Writer::new(Vec::new());
        for (entry, content) in samples() {
            writer.entry(&entry, &mut &content[..]).unwrap();
        }
        writer.finish().unwrap()
    }

    #[test]
    fn what_is_written_is_read_back_here_and_by_tar() {
        let bytes = written();
        assert_eq!(read_all(&bytes).unwrap(), samples());
        let mut theirs = tar::Archive::new(&bytes[..]);
        let mut names = Vec::new();
        for entry in theirs.entries().unwrap() {
            names.push(entry.unwrap().path_bytes().len());
        }
        assert_eq!(names, [2, 8, 9, 159, 8, 1]);
    }

    #[test]
    fn a_cut_archive_is_refused_wherever_it_is_cut() {
        let bytes = written();
        let end = bytes.len() - 2 * BLOCK;
        let whole = samples().len();
        for cut in (1..end).step_by(97) {
            if let Ok(entries) = read_all(&bytes[..cut]) {
                assert!(cut % BLOCK == 0 && entries.len() < whole, "cut at {cut}");
            }
        }
        assert_eq!(
            read_all(&bytes[..end]).unwrap().len(),
            whole,
            "the mark of the end is often left out"
        );
    }

    #[test]
    fn what_readers_would_take_differently_is_refused() {
        let one = |change: &dyn Fn(&mut tar::Header)| {
            let mut header = tar::Header::new_gnu();
            header.set_path("file").unwrap();
            header.set_size(0);
            header.set_mode(0o644);
            change(&mut header);
            header.set_cksum();
            let mut bytes = header.as_bytes().to_vec();
            bytes.extend_from_slice(&[0; 1024]);
            read_all(&bytes).map(|_| ()).unwrap_err().to_string()
        };
        let name = |name: &'static [u8]| {
            move |header: &mut tar::Header| {
                header.as_mut_bytes()[..name.len()].copy_from_slice(name)
            }
        };
        assert_eq!(one(&name(b"a/../../b")), "the entry `a/../../b` leaves the root");
        assert_eq!(one(&name(b"/etc/passwd")), "the entry `/etc/passwd` has an absolute name");
        assert!(
            one(&|header| {
                header.set_entry_type(tar::EntryType::Link);
                header.as_mut_bytes()[157..165].copy_from_slice(b"../other");
            })
            .ends_with("leaves the root")
        );
        assert!(
            one(&|header| {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_size(512);
            })
            .contains("content")
        );
        assert!(one(&|header| header.set_entry_type(tar::EntryType::GNUSparse)).contains("sparse"));
        let garbage = [written(), b"more".to_vec()].concat();
        assert!(read_all(&garbage).unwrap_err().to_string().contains("follows"));
        let mut bomb = tar::Header::new_ustar();
        bomb.set_entry_type(tar::EntryType::XHeader);
        bomb.set_size(1 << 40);
        bomb.set_cksum();
        assert!(read_all(bomb.as_bytes()).unwrap_err().to_string().contains("honest"));
    }
}
