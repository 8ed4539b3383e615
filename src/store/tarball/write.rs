//! The writing side: one form for all that is the same.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use super::{BLOCK, Entry, Kind, invalid, padding, plain};

/// Writes entries in one form: ustar, with a PAX header before what ustar cannot say.
#[derive(Debug)]
pub(in crate::store) struct Writer<W> {
    out: W,
}

impl<W: Write> Writer<W> {
    pub(in crate::store) fn new(out: W) -> Writer<W> {
        Writer { out }
    }

    /// Writes a header and the content that belongs to it, of exactly the size that it says.
    pub(in crate::store) fn entry(
        &mut self,
        entry: &Entry,
        content: &mut dyn Read,
    ) -> io::Result<()> {
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
    pub(in crate::store) fn file(
        &mut self,
        name: &str,
        size: u64,
        content: &mut dyn Read,
    ) -> io::Result<()> {
        self.entry(&plain(Kind::File, name, 0o644, size), content)
    }

    /// Writes a folder with nothing of its own but its name.
    pub(in crate::store) fn folder(&mut self, name: &str) -> io::Result<()> {
        self.entry(&plain(Kind::Folder, name, 0o755, 0), &mut io::empty())
    }

    /// Writes the mark of the end and returns what lies below.
    pub(in crate::store) fn finish(mut self) -> io::Result<W> {
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

fn spell_time((seconds, nanos): (i64, u32)) -> String {
    match (seconds, nanos) {
        (seconds, 0) => seconds.to_string(),
        (seconds @ 0.., nanos) => format!("{seconds}.{nanos:09}"),
        // `-0.5` is half a second before zero.
        (seconds, nanos) => format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanos),
    }
}
