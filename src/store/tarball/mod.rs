//! Tar streams, read strictly and written in one form. What two readers would take differently is
//! refused: links with content, sizes that disagree, names that leave the root. (The `tar` crate
//! splits PAX records at newlines, which file capabilities may contain.)

mod read;
mod sparse;
mod write;

use std::collections::BTreeMap;
use std::io;

pub(super) use read::Reader;
pub(super) use write::Writer;

const BLOCK: usize = 512;

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

fn padding(size: u64) -> u64 {
    size.next_multiple_of(BLOCK as u64) - size
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

#[cfg(test)]
mod tests {
    use std::io::Read;

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
    fn files_with_holes_are_read_as_the_files_they_are() {
        let dir = tempfile::tempdir().unwrap();
        // More pieces than one header holds, and a hole at the end.
        let mut content = vec![0; 4 << 20];
        for piece in 0..60 {
            content[piece * 65_536..][..8].copy_from_slice(b"contents");
        }
        let file = std::fs::File::create(dir.path().join("file")).unwrap();
        for piece in 0..60_usize {
            let at = piece as u64 * 65_536;
            std::os::unix::fs::FileExt::write_all_at(&file, b"contents", at).unwrap();
        }
        file.set_len(content.len() as u64).unwrap();
        for options in [
            &["--format=gnu"][..],
            &["--format=posix", "--sparse-version=0.0"],
            &["--format=posix", "--sparse-version=0.1"],
            &["--format=posix", "--sparse-version=1.0"],
        ] {
            let made = std::process::Command::new("tar")
                .args(["--sparse", "-cf", "-", "-C"])
                .arg(dir.path())
                .args(options)
                .arg("file")
                .output()
                .unwrap();
            assert!(made.stdout.len() < content.len() / 2, "{options:?} was not sparse");
            let read = read_all(&made.stdout).unwrap();
            assert_eq!(read.len(), 1);
            let (entry, found) = &read[0];
            assert_eq!((&entry.path[..], entry.size), (&b"file"[..], content.len() as u64));
            assert!(*found == content, "{options:?}");
        }
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
                header.as_mut_bytes()[..name.len()].copy_from_slice(name);
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
        // A map of five bytes for an entry of none, and a hole that no disk has room for.
        let sparse = |length: &'static [u8], size: &'static [u8]| {
            move |header: &mut tar::Header| {
                header.set_entry_type(tar::EntryType::GNUSparse);
                let bytes = header.as_mut_bytes();
                bytes[386..388].copy_from_slice(b"0\0");
                bytes[398..398 + length.len()].copy_from_slice(length);
                bytes[483..483 + size.len()].copy_from_slice(size);
            }
        };
        let told = one(&sparse(b"5\0", b"100\0"));
        assert_eq!(told, "the entry `file`: a sparse file's map is damaged");
        assert!(one(&sparse(b"0\0", b"77777777777\0")).starts_with("the entry `file` has holes"));
        let garbage = [written(), b"more".to_vec()].concat();
        assert!(read_all(&garbage).unwrap_err().to_string().contains("follows"));
        let mut bomb = tar::Header::new_ustar();
        bomb.set_entry_type(tar::EntryType::XHeader);
        bomb.set_size(1 << 40);
        bomb.set_cksum();
        assert!(read_all(bomb.as_bytes()).unwrap_err().to_string().contains("honest"));
    }
}
