//! The bytes of a tar header. They are part of every digest: ustar, with an extended header (PAX)
//! before it for what ustar cannot say, and for nothing else.
//!
//! Numbers are octal with leading zeros and a NUL; user and group names are empty; a path of more
//! than 100 bytes goes into name and prefix where it has a slash at the right place.

use std::borrow::Cow;

/// The unit of a tar.
pub(super) const BLOCK: usize = 512;

/// What kind of entry, by its type flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EntryKind {
    File = b'0' as isize,
    HardLink = b'1' as isize,
    Symlink = b'2' as isize,
    Character = b'3' as isize,
    Block = b'4' as isize,
    Folder = b'5' as isize,
    Fifo = b'6' as isize,
}

/// An entry as the header says it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    pub(super) path: &'a [u8],
    pub(super) kind: EntryKind,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) size: u64,
    pub(super) mtime: i64,
    /// The target of a link; empty otherwise.
    pub(super) link: &'a [u8],
    pub(super) device: (u32, u32),
    /// A v2 `security.capability`.
    pub(super) capability: Option<&'a [u8]>,
}

/// Appends the header of an entry, and the extended one before it where there has to be one.
pub(super) fn encode(entry: &Entry<'_>, out: &mut Vec<u8>) {
    let path: Cow<'_, [u8]> = match entry.kind {
        EntryKind::Folder => Cow::Owned([entry.path, b"/"].concat()),
        _ => Cow::Borrowed(entry.path),
    };
    let mut header = Header([0; BLOCK]);
    // Sorted by key, as they are written.
    let mut records = Vec::new();
    if let Some(capability) = entry.capability {
        record(&mut records, "SCHILY.xattr.security.capability", capability);
    }
    if let Err(gid) = header.number(116..124, u64::from(entry.gid)) {
        record(&mut records, "gid", gid.as_bytes());
    }
    if header.text(157..257, entry.link).is_err() {
        record(&mut records, "linkpath", entry.link);
    }
    let mtime = match u64::try_from(entry.mtime) {
        Ok(mtime) => header.number(136..148, mtime),
        Err(_) => header.number(136..148, 0).and(Err(entry.mtime.to_string())),
    };
    if let Err(mtime) = mtime {
        record(&mut records, "mtime", mtime.as_bytes());
    }
    if header.name(&path).is_err() {
        record(&mut records, "path", &path);
    }
    if let Err(size) = header.number(124..136, entry.size) {
        record(&mut records, "size", size.as_bytes());
    }
    if let Err(uid) = header.number(108..116, u64::from(entry.uid)) {
        record(&mut records, "uid", uid.as_bytes());
    }
    if !records.is_empty() {
        let mut extended = Header([0; BLOCK]);
        let _fits = extended.text(0..100, b"././@PaxHeader");
        let _fits = extended.number(100..108, 0o644);
        let _fits = extended.number(108..116, 0);
        let _fits = extended.number(116..124, 0);
        let _fits = extended.number(124..136, records.len() as u64);
        let _fits = extended.number(136..148, 0);
        extended.finish(b'x', (0, 0), out);
        out.extend_from_slice(&records);
        out.resize(out.len().next_multiple_of(BLOCK), 0);
    }
    let _fits = header.number(100..108, u64::from(entry.mode & 0o7777));
    header.finish(entry.kind as u8, entry.device, out);
}

struct Header([u8; BLOCK]);

impl Header {
    /// Writes an octal number and its NUL; zero and the decimal text when it does not fit.
    fn number(&mut self, field: std::ops::Range<usize>, value: u64) -> Result<(), String> {
        let digits = field.len() - 1;
        let text = format!("{value:0digits$o}");
        let fits = text.len() <= digits;
        let shown = if fits { text } else { "0".repeat(digits) };
        self.0[field.start..field.start + digits].copy_from_slice(shown.as_bytes());
        if fits { Ok(()) } else { Err(value.to_string()) }
    }

    /// Writes a text, which may fill its field; as much as fits when it does not.
    fn text(&mut self, field: std::ops::Range<usize>, text: &[u8]) -> Result<(), ()> {
        let shown = &text[..text.len().min(field.len())];
        self.0[field.start..field.start + shown.len()].copy_from_slice(shown);
        if shown.len() == text.len() { Ok(()) } else { Err(()) }
    }

    /// Writes the path into the name, with the longest prefix that leaves a name.
    fn name(&mut self, path: &[u8]) -> Result<(), ()> {
        if path.len() <= 100 {
            return self.text(0..100, path);
        }
        // A slash at the very end belongs to the name of a folder.
        let reach = path.len().saturating_sub(1).min(156);
        match path[..reach].iter().rposition(|byte| *byte == b'/') {
            Some(slash) if slash > 0 && path.len() - slash - 1 <= 100 => {
                self.text(345..500, &path[..slash])?;
                self.text(0..100, &path[slash + 1..])
            }
            _ => self.text(0..100, path),
        }
    }

    fn finish(mut self, kind: u8, device: (u32, u32), out: &mut Vec<u8>) {
        self.0[156] = kind;
        self.0[257..265].copy_from_slice(b"ustar\x0000");
        let _fits = self.number(329..337, u64::from(device.0));
        let _fits = self.number(337..345, u64::from(device.1));
        self.0[148..156].fill(b' ');
        let sum: u32 = self.0.iter().map(|byte| u32::from(*byte)).sum();
        // Six digits, a NUL, and the space that is there: the old form, which all readers take.
        self.0[148..154].copy_from_slice(format!("{sum:06o}").as_bytes());
        self.0[154] = 0;
        out.extend_from_slice(&self.0);
    }
}

/// Appends `LENGTH KEY=VALUE\n`, where the length counts itself.
fn record(out: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    out.extend_from_slice(format!("{length} {key}=").as_bytes());
    out.extend_from_slice(value);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Digest;

    fn entry(path: &[u8]) -> Entry<'_> {
        Entry {
            path,
            kind: EntryKind::File,
            mode: 0o644,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: 0,
            link: b"",
            device: (0, 0),
            capability: None,
        }
    }

    fn encoded(entry: &Entry<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        encode(entry, &mut out);
        out
    }

    #[test]
    fn a_common_entry_takes_one_block_of_fixed_bytes() {
        let bytes =
            encoded(&Entry { size: 5, mtime: 1_700_000_000, mode: 0o4755, ..entry(b"usr/bin/su") });
        assert_eq!(bytes.len(), BLOCK);
        assert_eq!(&bytes[..10], b"usr/bin/su");
        assert_eq!(&bytes[100..108], b"0004755\0");
        assert_eq!(&bytes[124..136], b"00000000005\0");
        assert_eq!(&bytes[257..265], b"ustar\x0000");
        // Another value here is a change of all digests.
        let golden = "sha256:39ac8a1e957022e6cc4b5974199ecca1e7203ac9f3cc61be244c60f91679d657";
        assert_eq!(Digest::of(&bytes).to_string(), golden);
    }

    #[test]
    fn records_count_their_own_length() {
        for length in [80, 81, 82, 90, 91, 979, 980, 981, 982] {
            let mut out = Vec::new();
            record(&mut out, "path", &vec![b'p'; length]);
            let text = String::from_utf8(out).unwrap();
            assert_eq!(text.split_once(' ').unwrap().0.parse::<usize>().unwrap(), text.len());
        }
    }

    #[test]
    fn long_paths_are_split_where_they_can_be() {
        let split = [vec![b'd'; 120], b"/".to_vec(), vec![b'f'; 100]].concat();
        let bytes = encoded(&entry(&split));
        assert_eq!(bytes.len(), BLOCK);
        assert_eq!(&bytes[345..465], &split[..120]);
        assert_eq!(&bytes[..100], &split[121..]);
        let whole = [vec![b'd'; 120], b"/".to_vec(), vec![b'f'; 101]].concat();
        assert_eq!(encoded(&entry(&whole)).len(), 3 * BLOCK);
        // The slash of a folder is no place to split at.
        let folder = [vec![b'd'; 10], b"/".to_vec(), vec![b'f'; 100]].concat();
        assert_eq!(encoded(&Entry { kind: EntryKind::Folder, ..entry(&folder) }).len(), 3 * BLOCK);
    }

    #[test]
    fn numbers_that_do_not_fit_go_into_the_extended_header() {
        let bytes = encoded(&Entry {
            uid: 3_000_000,
            gid: 2_097_151,
            size: 1 << 33,
            mtime: -1,
            ..entry(b"big")
        });
        let records = &bytes[BLOCK..2 * BLOCK];
        let text: Vec<u8> = records.iter().copied().take_while(|byte| *byte != 0).collect();
        assert_eq!(text, b"12 mtime=-1\n19 size=8589934592\n15 uid=3000000\n");
        assert_eq!(&bytes[2 * BLOCK + 124..2 * BLOCK + 136], b"00000000000\0");
        assert_eq!(&bytes[2 * BLOCK + 116..2 * BLOCK + 124], b"7777777\0");
    }
}
