//! Sparse files, of which a tar has only the pieces that hold data. GNU tar writes their map into
//! the header (type `S`), into the PAX header (0.0, 0.1), or before the data (1.0).

use std::collections::{BTreeMap, VecDeque};
use std::io;

use super::read::{number, until_nul};
use super::{BLOCK, invalid};

/// The most pieces that a file may have.
const PIECES: usize = 1 << 18;

/// The way through a file with holes.
#[derive(Debug)]
pub(super) struct Map {
    pub(super) size: u64,
    /// How many bytes of it the tar has.
    pub(super) data: u64,
    /// Offset and length of what is still ahead.
    pieces: VecDeque<(u64, u64)>,
    at: u64,
}

fn damaged() -> io::Error {
    invalid("a sparse file's map is damaged")
}

impl Map {
    /// Takes a map if it is in order, within the file, and of all that is `stored`.
    fn new(size: u64, numbers: &[u64], stored: u64) -> io::Result<Map> {
        let mut pieces = VecDeque::new();
        let (mut end, mut data) = (0, 0);
        if numbers.len() > 2 * PIECES || !numbers.len().is_multiple_of(2) {
            return Err(damaged());
        }
        for pair in numbers.chunks_exact(2) {
            let (offset, length) = (pair[0], pair[1]);
            let past = offset.checked_add(length).filter(|past| *past <= size);
            if offset < end {
                return Err(damaged());
            }
            end = past.ok_or_else(damaged)?;
            data += length;
            if length > 0 {
                pieces.push_back((offset, length));
            }
        }
        if data == stored { Ok(Map { size, data, pieces, at: 0 }) } else { Err(damaged()) }
    }

    /// Returns how many bytes come next, and whether the tar has them; none at the end.
    pub(super) fn ahead(&self) -> (u64, bool) {
        match self.pieces.front() {
            Some((offset, length)) if self.at >= *offset => (offset + length - self.at, true),
            Some((offset, _)) => (offset - self.at, false),
            None => (self.size - self.at, false),
        }
    }

    /// Goes on by some of the bytes ahead.
    pub(super) fn pass(&mut self, bytes: u64) {
        self.at += bytes;
        if self.pieces.front().is_some_and(|(offset, length)| self.at == offset + length) {
            self.pieces.pop_front();
        }
    }
}

/// Reads the map of an entry of type `S`; `block` gives the blocks after its header.
pub(super) fn of_header(
    header: &[u8; BLOCK],
    stored: u64,
    mut block: impl FnMut() -> io::Result<[u8; BLOCK]>,
) -> io::Result<Map> {
    if &header[257..265] != b"ustar  \0" {
        return Err(damaged());
    }
    let mut numbers = Vec::new();
    take(&header[386..482], &mut numbers)?;
    let mut more = header[482] != 0;
    while more {
        let extension = block()?;
        take(&extension[..504], &mut numbers)?;
        more = extension[504] != 0;
        if numbers.len() > 2 * PIECES {
            return Err(damaged());
        }
    }
    Map::new(number(&header[483..495])?, &numbers, stored)
}

/// Reads pairs of fields; unused ones are empty.
fn take(fields: &[u8], numbers: &mut Vec<u64>) -> io::Result<()> {
    for pair in fields.chunks_exact(24).filter(|pair| pair[0] != 0 && pair[12] != 0) {
        numbers.push(number(&pair[..12])?);
        numbers.push(number(&pair[12..])?);
    }
    Ok(())
}

/// Reads the map that PAX records speak of; `block` gives the first blocks of the `stored` bytes.
pub(super) fn of_records(
    records: &BTreeMap<Vec<u8>, Vec<u8>>,
    stored: u64,
    block: impl FnMut() -> io::Result<[u8; BLOCK]>,
) -> io::Result<Map> {
    let get = |key: &str| records.get([b"GNU.sparse.", key.as_bytes()].concat().as_slice());
    let told = |key: &str| get(key).map(|value| decimal(value)).transpose();
    let size = told("realsize")?.or(told("size")?).ok_or_else(damaged)?;
    match (told("major")?.unwrap_or(0), told("minor")?.unwrap_or(0)) {
        (0, 0 | 1) => {
            let map = get("map").map(Vec::as_slice).unwrap_or_default();
            let numbers = map.split(|byte| *byte == b',').filter(|number| !number.is_empty());
            let numbers: Vec<u64> = numbers.map(decimal).collect::<io::Result<_>>()?;
            Map::new(size, &numbers, stored)
        }
        (1, 0) => {
            let (numbers, blocks) = lines(block)?;
            let data = stored.checked_sub(blocks * BLOCK as u64).ok_or_else(damaged)?;
            Map::new(size, &numbers, data)
        }
        _ => Err(damaged()),
    }
}

/// Reads the count of pieces and their numbers as lines, and tells how many blocks that took.
fn lines(mut block: impl FnMut() -> io::Result<[u8; BLOCK]>) -> io::Result<(Vec<u64>, u64)> {
    let mut text = Vec::new();
    let mut blocks = 0;
    let mut line = || -> io::Result<u64> {
        loop {
            if let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                let number = decimal(&text[..end])?;
                text.drain(..=end);
                return Ok(number);
            }
            // No number has as many digits.
            if text.len() > 20 {
                return Err(damaged());
            }
            text.extend_from_slice(&block()?);
            blocks += 1;
        }
    };
    let count = line()?;
    if count > PIECES as u64 {
        return Err(damaged());
    }
    let numbers = (0..2 * count).map(|_| line()).collect::<io::Result<_>>()?;
    Ok((numbers, blocks))
}

fn decimal(text: &[u8]) -> io::Result<u64> {
    let digits = until_nul(text);
    let is_number = digits.len() == text.len() && digits.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(text).ok().filter(|_| is_number);
    text.and_then(|text| text.parse().ok()).ok_or_else(damaged)
}
