//! What a plain tree was before the steps, held compactly: 24 bytes an entry, and its name. Whatever
//! touches an entry changes its time of change or its inode, and so its print.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;

use rustix::fs::Stat;

/// The folder that has no number.
const NO_FOLDER: u32 = 0;

/// All entries of a tree. Folders have numbers; the root's is 0.
#[derive(Debug, Default)]
pub struct Snapshot {
    names: Vec<u8>,
    entries: Vec<Entry>,
    folders: Vec<Range<u32>>,
}

#[derive(Debug)]
struct Entry {
    print: u64,
    name_at: u32,
    /// The folder's number, for a folder.
    folder: u32,
    origin: u16,
    name_len: u16,
}

/// An entry of a snapshot.
#[derive(Clone, Copy, Debug)]
pub struct Known<'s> {
    /// Its name in its folder.
    pub name: &'s [u8],
    /// Stands for all that [`print_of`] looks at.
    pub print: u64,
    /// The number of the layer it is from, counted from the bottom.
    pub origin: u16,
    /// Its number, if it is a folder.
    pub folder: Option<u32>,
}

/// An entry for a snapshot.
#[derive(Debug)]
pub(super) struct Found {
    pub name: Vec<u8>,
    pub print: u64,
    pub origin: u16,
    /// 0 for all but folders, which need one each.
    pub folder: u32,
}

impl Snapshot {
    /// Puts a snapshot together from the sorted entries of each folder, by the folder's number.
    pub(super) fn of(mut folders: Vec<(u32, Vec<Found>)>) -> Snapshot {
        folders.sort_unstable_by_key(|(number, _)| *number);
        let mut snapshot = Snapshot::default();
        let short = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        for (number, found) in folders {
            // A folder that vanished while it was listed has none.
            snapshot.folders.resize(number as usize, 0..0);
            let start = short(snapshot.entries.len());
            for one in found {
                let name_at = short(snapshot.names.len());
                snapshot.names.extend_from_slice(&one.name);
                snapshot.entries.push(Entry {
                    print: one.print,
                    name_at,
                    folder: one.folder,
                    origin: one.origin,
                    name_len: u16::try_from(one.name.len()).unwrap_or(u16::MAX),
                });
            }
            snapshot.folders.push(start..short(snapshot.entries.len()));
        }
        snapshot.names.shrink_to_fit();
        snapshot.entries.shrink_to_fit();
        snapshot
    }

    /// Returns what a folder holds, sorted by the bytes of the names.
    pub fn entries(&self, folder: u32) -> impl Iterator<Item = Known<'_>> {
        let range = self.folders.get(folder as usize).cloned().unwrap_or(0..0);
        self.entries[range.start as usize..range.end as usize].iter().map(|entry| self.known(entry))
    }

    /// Looks for a name in a folder.
    pub fn entry(&self, folder: u32, name: &[u8]) -> Option<Known<'_>> {
        let range = self.folders.get(folder as usize)?;
        let entries = &self.entries[range.start as usize..range.end as usize];
        let at = entries.binary_search_by(|entry| self.known(entry).name.cmp(name)).ok()?;
        Some(self.known(&entries[at]))
    }

    /// Looks for a path.
    pub fn find(&self, path: &[u8]) -> Option<Known<'_>> {
        let mut folder = Some(0);
        let mut found = None;
        for name in path.split(|byte| *byte == b'/') {
            let entry = self.entry(folder?, name)?;
            folder = entry.folder;
            found = Some(entry);
        }
        found
    }

    /// Returns how many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Tells whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn known(&self, entry: &Entry) -> Known<'_> {
        let start = entry.name_at as usize;
        Known {
            name: &self.names[start..start + usize::from(entry.name_len)],
            print: entry.print,
            origin: entry.origin,
            folder: (entry.folder != NO_FOLDER).then_some(entry.folder),
        }
    }
}

/// Returns a number that differs after whatever was done to an entry: programs can set the time of
/// modification back, but neither the time of change nor the inode.
pub fn print_of(stat: &Stat) -> u64 {
    let mut hasher = DefaultHasher::new();
    (stat.st_ino, stat.st_mode, stat.st_uid, stat.st_gid, stat.st_rdev).hash(&mut hasher);
    (stat.st_size, stat.st_mtime, stat.st_mtime_nsec).hash(&mut hasher);
    (stat.st_ctime, stat.st_ctime_nsec).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_found_by_path() {
        let found = |name: &str, folder| Found {
            name: name.as_bytes().to_vec(),
            print: u64::from(folder) + 1,
            origin: 3,
            folder,
        };
        let root = vec![found("a", 2), found("b", 0), found("c", 1)];
        let snapshot =
            Snapshot::of(vec![(2, vec![found("x", 0)]), (0, root), (1, vec![found("y", 0)])]);
        assert_eq!(snapshot.len(), 5);
        assert_eq!(snapshot.find(b"a/x").unwrap().name, b"x");
        assert_eq!(snapshot.find(b"c").unwrap().print, 2);
        for absent in ["d", "a/y", "b/x", "", "a/x/z"] {
            assert!(snapshot.find(absent.as_bytes()).is_none(), "{absent}");
        }
        let names: Vec<_> = snapshot.entries(0).map(|known| known.name.to_vec()).collect();
        assert_eq!(names, [b"a", b"b", b"c"]);
        assert!(std::mem::size_of::<Entry>() <= 24);
    }
}
