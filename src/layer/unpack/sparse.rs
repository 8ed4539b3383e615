//! Sparse files, of which a tar has only the pieces that hold data, in GNU tar's four ways:
//!
//! ```text
//! old        type `S`; pieces in the header and in blocks after it
//! 0.0, 0.1   pieces in the extended header: a record each number, or one record
//! 1.0        pieces as decimal lines before the data
//! ```

use tar::{GnuExtSparseHeader, GnuSparseHeader, Header};

use super::EntryProblem;
use super::records::{decimal, set};

/// The most pieces that a file may have.
const PIECES: usize = 1 << 18;

/// The longest line of a map before the data: a number of 64 bits.
const LINE: usize = 20;

fn damaged() -> EntryProblem {
    EntryProblem::Header("sparse map")
}

/// Where the data of an entry belong in its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sparse {
    /// The size of the file.
    pub(super) size: u64,
    /// Offset and length of the pieces, in order.
    pub(super) pieces: Vec<(u64, u64)>,
}

impl Sparse {
    /// Takes a map if it is in order, within the file, and of all that is `stored`.
    fn new(size: u64, pieces: Vec<(u64, u64)>, stored: u64) -> Result<Sparse, EntryProblem> {
        let mut end = 0;
        let mut sum = 0;
        for (offset, length) in &pieces {
            let past = offset.checked_add(*length).filter(|past| *past <= size);
            if *offset < end {
                return Err(damaged());
            }
            end = past.ok_or_else(damaged)?;
            sum += length;
        }
        if sum == stored { Ok(Sparse { size, pieces }) } else { Err(damaged()) }
    }
}

/// A map that is being read.
#[derive(Debug, Default)]
struct Pieces(Vec<(u64, u64)>);

impl Pieces {
    fn push(&mut self, offset: u64, length: u64) -> Result<(), EntryProblem> {
        if self.0.len() == PIECES {
            let what = "the number of pieces of a sparse file";
            return Err(EntryProblem::Bound { what, bound: PIECES as u64 });
        }
        self.0.push((offset, length));
        Ok(())
    }

    /// Takes the numbers of a header; unused places are empty.
    fn take(&mut self, places: &[GnuSparseHeader]) -> Result<(), EntryProblem> {
        for place in places.iter().filter(|place| !place.is_empty()) {
            let number = |number: std::io::Result<u64>| number.map_err(|_| damaged());
            self.push(number(place.offset())?, number(place.length())?)?;
        }
        Ok(())
    }
}

/// Reads the map of an entry of type `S`, of whose data `stored` bytes follow; `block` gives the
/// blocks after the header.
pub(super) fn of_header<E: From<EntryProblem>>(
    header: &Header,
    stored: u64,
    mut block: impl FnMut() -> Result<[u8; 512], E>,
) -> Result<Sparse, E> {
    let header = header.as_gnu().ok_or_else(damaged)?;
    let mut pieces = Pieces::default();
    pieces.take(&header.sparse)?;
    let mut more = header.is_extended();
    while more {
        let mut extension = GnuExtSparseHeader::new();
        extension.as_mut_bytes().copy_from_slice(&block()?);
        pieces.take(extension.sparse())?;
        more = extension.is_extended();
    }
    let size = header.real_size().map_err(|_| damaged())?;
    Ok(Sparse::new(size, pieces.0, stored)?)
}

/// What the records of an extended header say of a sparse file.
#[derive(Debug, Default)]
pub(super) struct SparseRecords {
    seen: bool,
    major: Option<u64>,
    minor: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    size: Option<u64>,
    count: Option<u64>,
    /// An offset whose length has not come.
    offset: Option<u64>,
    pieces: Pieces,
}

impl SparseRecords {
    /// Takes a record, whose key is without its `GNU.sparse.`.
    pub(super) fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), EntryProblem> {
        self.seen = true;
        match key {
            b"major" => set(&mut self.major, decimal(value)?),
            b"minor" => set(&mut self.minor, decimal(value)?),
            b"name" => set(&mut self.name, value.to_vec()),
            b"size" | b"realsize" => set(&mut self.size, decimal(value)?),
            b"numblocks" => set(&mut self.count, decimal(value)?),
            b"offset" if self.offset.is_none() => {
                self.offset = Some(decimal(value)?);
                Ok(())
            }
            b"numbytes" => {
                let offset = self.offset.take().ok_or_else(damaged)?;
                self.pieces.push(offset, decimal(value)?)
            }
            b"map" => {
                let mut numbers = value.split(|byte| *byte == b',').map(decimal);
                while let Some(offset) = numbers.next() {
                    self.pieces.push(offset?, numbers.next().ok_or_else(damaged)??)?;
                }
                Ok(())
            }
            _ => Err(damaged()),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.seen
    }

    /// Returns the map of an entry of which `stored` bytes follow; `block` gives those blocks of
    /// them that hold the map, where it is there.
    pub(super) fn finish<E: From<EntryProblem>>(
        self,
        stored: u64,
        mut block: impl FnMut() -> Result<[u8; 512], E>,
    ) -> Result<Sparse, E> {
        let size = self.size.ok_or_else(damaged)?;
        match (self.major.unwrap_or(0), self.minor.unwrap_or(0)) {
            (0, 0 | 1) => {
                let told = self.count.is_none_or(|count| count == self.pieces.0.len() as u64);
                if !told || self.offset.is_some() {
                    return Err(damaged().into());
                }
                Ok(Sparse::new(size, self.pieces.0, stored)?)
            }
            (1, 0) if self.pieces.0.is_empty() && self.offset.is_none() => {
                let mut lines = Lines { text: Vec::new(), at: 0, blocks: 0 };
                let mut pieces = Pieces::default();
                for _ in 0..lines.number(&mut block)? {
                    let offset = lines.number(&mut block)?;
                    pieces.push(offset, lines.number(&mut block)?)?;
                }
                let data = stored.checked_sub(512 * lines.blocks).ok_or_else(damaged)?;
                Ok(Sparse::new(size, pieces.0, data)?)
            }
            _ => Err(damaged().into()),
        }
    }
}

/// Decimal lines out of blocks.
struct Lines {
    text: Vec<u8>,
    at: usize,
    blocks: u64,
}

impl Lines {
    fn number<E: From<EntryProblem>>(
        &mut self,
        mut block: impl FnMut() -> Result<[u8; 512], E>,
    ) -> Result<u64, E> {
        loop {
            let rest = &self.text[self.at..];
            if let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let number = decimal(&rest[..end])?;
                self.at += end + 1;
                return Ok(number);
            }
            if rest.len() > LINE {
                return Err(damaged().into());
            }
            self.text.drain(..self.at);
            self.at = 0;
            self.text.extend_from_slice(&block()?);
            self.blocks += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_in_order_within_its_file_and_of_all_data() {
        let of = |pieces: &[(u64, u64)], stored| Sparse::new(1000, pieces.to_vec(), stored).is_ok();
        assert!(of(&[], 0));
        assert!(of(&[(0, 10), (10, 0), (500, 500), (1000, 0)], 510));
        assert!(!of(&[(0, 10), (9, 10)], 20), "an overlap");
        assert!(!of(&[(500, 10), (0, 10)], 20), "not in order");
        assert!(!of(&[(990, 11)], 11), "beyond the end");
        assert!(!of(&[(u64::MAX, 2)], 2), "beyond all numbers");
        assert!(!of(&[(0, 10)], 11), "data without a place");
        assert!(!of(&[(0, 10)], 9), "a place without data");
    }
}
