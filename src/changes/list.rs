//! The list of changes, in blocks of entries that each leave out what they begin with like the one
//! before: a layer of a million entries has some twenty megabytes of them.
//!
//! ```text
//! block: entry, entry, … up to 4 KiB, the first with its whole path
//! entry: varint(shared length << 2 | tag), varint(length of the rest), rest
//! ```

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

use super::{Change, Kind};

/// The size that a block is not to exceed, but for a single entry.
const BLOCK: usize = 4096;

/// What a run changed: each path once, sorted by the bytes of the names that the entries have in a
/// layer's tar, where the removed `a/b` is `a/.wh.b`. A folder comes before what it holds.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Changes {
    list: List,
}

impl Changes {
    /// Returns how many paths there are.
    pub fn len(&self) -> usize {
        self.list.count
    }

    /// Tells whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.list.count == 0
    }

    /// Goes through the paths without a copy of each.
    pub fn cursor(&self) -> Cursor<'_> {
        Cursor(self.list.read())
    }

    /// Returns the changes one by one, in order.
    pub fn iter(&self) -> Iter<'_> {
        Iter(self.cursor())
    }

    /// Tells whether a path is there as present.
    pub fn contains(&self, path: &[u8]) -> bool {
        let wanted = (path, Kind::Present);
        // The last block that does not begin behind it.
        let after = self.list.blocks.partition_point(|block| {
            let mut reader = Reader::of(std::slice::from_ref(block));
            reader.advance().is_some_and(|(path, tag)| order((path, kind(tag)), wanted).is_le())
        });
        let Some(at) = after.checked_sub(1) else { return false };
        let mut reader = Reader::of(&self.list.blocks[at..after]);
        while let Some((path, tag)) = reader.advance() {
            match order((path, kind(tag)), wanted) {
                Ordering::Less => {}
                Ordering::Equal => return true,
                Ordering::Greater => return false,
            }
        }
        false
    }

    /// Adds what comes after all that is there.
    pub(super) fn push(&mut self, path: &[u8], kind: Kind) {
        self.list.push(path, u8::from(kind == Kind::Removed));
    }
}

impl FromIterator<Change> for Changes {
    /// Takes changes in any order.
    fn from_iter<I: IntoIterator<Item = Change>>(changes: I) -> Changes {
        let mut sorted: Vec<Change> = changes.into_iter().collect();
        sorted.sort_by(|one, other| order((&one.path, one.kind), (&other.path, other.kind)));
        sorted.dedup();
        let mut changes = Changes::default();
        for Change { path, kind } in sorted {
            changes.push(&path, kind);
        }
        changes
    }
}

impl<'c> IntoIterator for &'c Changes {
    type Item = Change;
    type IntoIter = Iter<'c>;

    fn into_iter(self) -> Iter<'c> {
        self.iter()
    }
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// A way through changes that lends each path.
#[derive(Debug)]
pub struct Cursor<'c>(Reader<'c>);

impl Cursor<'_> {
    /// Goes to the next change and lends it, until there is none.
    pub fn advance(&mut self) -> Option<(&[u8], Kind)> {
        self.0.advance().map(|(path, tag)| (path, kind(tag)))
    }
}

/// The changes one by one.
#[derive(Debug)]
pub struct Iter<'c>(Cursor<'c>);

impl Iterator for Iter<'_> {
    type Item = Change;

    fn next(&mut self) -> Option<Change> {
        self.0.advance().map(|(path, kind)| Change { path: path.to_vec(), kind })
    }
}

/// Returns the name that a change has in a layer's tar.
pub fn name_in_tar(path: &[u8], kind: Kind) -> Cow<'_, [u8]> {
    match kind {
        Kind::Present => Cow::Borrowed(path),
        Kind::Removed => Cow::Owned(parts(path, kind).concat()),
    }
}

/// Compares two changes by their names in a tar.
fn order(one: (&[u8], Kind), other: (&[u8], Kind)) -> Ordering {
    match (one.1, other.1) {
        (Kind::Present, Kind::Present) => one.0.cmp(other.0),
        _ => parts(one.0, one.1)
            .iter()
            .copied()
            .flatten()
            .cmp(parts(other.0, other.1).iter().copied().flatten()),
    }
}

fn parts(path: &[u8], kind: Kind) -> [&[u8]; 3] {
    let start = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    let (folder, name) = path.split_at(start);
    [folder, if kind == Kind::Removed { b".wh." } else { b"" }, name]
}

fn kind(tag: u8) -> Kind {
    if tag == 0 { Kind::Present } else { Kind::Removed }
}

/// Paths in the order they were pushed in, each with a number below four.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct List {
    blocks: Vec<Vec<u8>>,
    last: Vec<u8>,
    count: usize,
}

impl List {
    pub(super) fn push(&mut self, path: &[u8], tag: u8) {
        let alike = self.last.iter().zip(path).take_while(|(one, other)| one == other).count();
        // Either length takes three bytes at most, unless the path is the only one of its block.
        let fits = |block: &&mut Vec<u8>| block.len() + 6 + path.len() - alike <= BLOCK;
        let (block, shared) = match self.blocks.last_mut().filter(fits) {
            Some(block) => (block, alike),
            None => (self.blocks.push_mut(Vec::with_capacity(BLOCK)), 0),
        };
        write(block, shared << 2 | usize::from(tag));
        write(block, path.len() - shared);
        block.extend_from_slice(&path[shared..]);
        self.last.truncate(alike);
        self.last.extend_from_slice(&path[alike..]);
        self.count += 1;
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn read(&self) -> Reader<'_> {
        Reader::of(&self.blocks)
    }

    /// Hands out all entries, in order, and frees each block when it is through.
    pub(super) fn drain(self, mut take: impl FnMut(&[u8], u8)) {
        for block in self.blocks {
            let mut reader = Reader::of(std::slice::from_ref(&block));
            while let Some((path, tag)) = reader.advance() {
                take(path, tag);
            }
        }
    }
}

/// Reads a list.
#[derive(Debug)]
pub(super) struct Reader<'l> {
    blocks: std::slice::Iter<'l, Vec<u8>>,
    rest: &'l [u8],
    path: Vec<u8>,
}

impl<'l> Reader<'l> {
    fn of(blocks: &'l [Vec<u8>]) -> Reader<'l> {
        Reader { blocks: blocks.iter(), rest: &[], path: Vec::new() }
    }

    pub(super) fn advance(&mut self) -> Option<(&[u8], u8)> {
        if self.rest.is_empty() {
            self.rest = self.blocks.next()?;
        }
        let head = read(&mut self.rest);
        let length = read(&mut self.rest);
        let (own, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        self.path.truncate(head >> 2);
        self.path.extend_from_slice(own);
        Some((&self.path, u8::try_from(head & 3).unwrap_or_default()))
    }
}

/// Appends a number in groups of seven bits, the lowest first.
fn write(block: &mut Vec<u8>, mut number: usize) {
    while number > 0x7f {
        block.push(0x80 | low_bits(number));
        number >>= 7;
    }
    block.push(low_bits(number));
}

fn low_bits(number: usize) -> u8 {
    u8::try_from(number & 0x7f).unwrap_or_default()
}

fn read(rest: &mut &[u8]) -> usize {
    let mut number = 0;
    let mut shift = 0;
    while let Some((byte, tail)) = rest.split_first() {
        *rest = tail;
        number |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if *byte <= 0x7f {
            break;
        }
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(text: &str) -> Change {
        let (sign, path) = text.split_at(1);
        let kind = if sign == "+" { Kind::Present } else { Kind::Removed };
        Change { path: path.as_bytes().to_vec(), kind }
    }

    #[test]
    fn changes_are_sorted_by_their_names_in_a_tar() {
        let expected = [
            "+.a", "-b", "+.z", "+a", "+a-b", "+a-b/x", "+a.c", "+a/.a", "-a/b", "+a/.z", "+a/a",
            "+a/a/x", "+a0", "+x",
        ]
        .map(change);
        let mut names: Vec<_> =
            expected.iter().map(|change| name_in_tar(&change.path, change.kind)).collect();
        assert!(names.is_sorted());
        assert_eq!(names.remove(8), b"a/.wh.b".as_slice());
        let changes: Changes = expected.iter().rev().cloned().collect();
        assert_eq!(changes.iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn long_lists_come_back_and_are_searched() {
        // Names as trees have them, some longer than a block, some with any bytes.
        let mut all: Vec<Change> = (0..30_000_u32)
            .map(|number| {
                let mut path = format!("usr/lib/{:02}/package-{}/file", number % 83, number / 5);
                path.push_str(&number.to_string().repeat(1 + number as usize % 3));
                change(&format!("{}{path}", if number % 11 == 0 { '-' } else { '+' }))
            })
            .collect();
        all.push(Change {
            path: [b"usr/".as_slice(), &[0xff; 9000]].concat(),
            kind: Kind::Present,
        });
        all.push(Change {
            path: [b"usr/".as_slice(), &[0xff; 9001]].concat(),
            kind: Kind::Removed,
        });
        let changes: Changes = all.iter().cloned().collect();
        assert_eq!(changes.len(), all.len());
        all.sort_by_cached_key(|change| name_in_tar(&change.path, change.kind).into_owned());
        assert_eq!(changes.iter().collect::<Vec<_>>(), all);
        for change in &all {
            let present = change.kind == Kind::Present;
            assert_eq!(changes.contains(&change.path), present, "{change:?}");
            assert!(!changes.contains(&[&change.path, b"x".as_slice()].concat()));
        }
        assert!(!changes.contains(b""));
        assert!(!changes.contains(b"zzz"));
        let bytes: usize = changes.list.blocks.iter().map(Vec::len).sum();
        let paths: usize = all.iter().map(|change| change.path.len()).sum();
        assert!(bytes * 3 < paths * 2, "{bytes} {paths}");
    }

    #[test]
    fn no_change_is_an_empty_list() {
        let none = Changes::default();
        assert!(none.is_empty() && none.iter().next().is_none());
        assert!(!none.contains(b"a"));
    }
}
