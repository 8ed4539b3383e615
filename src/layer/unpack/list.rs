//! A blob's entries for who wants to look, not to unpack: in the tar's order, each with its content
//! as a stream. Nothing reaches a disk, so names that a tree would refuse are only cleaned here.

use std::io::Read;

use super::frames::{Frames, Member};
use super::sparse::Sparse;
use super::{Blob, Error, Limits, run};
use crate::layer::capability;
use crate::oci::Digest;

/// What an entry of a layer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Symlink,
    /// Another name of a file of this layer.
    HardLink,
    /// A character device.
    Character,
    /// A block device.
    Block,
    /// A named pipe.
    Fifo,
    /// A whiteout: the path of a layer below is gone.
    Whiteout,
    /// An opaque mark: the folder shows nothing of the layers below.
    Opaque,
}

/// An entry of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The path below the root without slashes around it; of a whiteout, the path that it hides.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// Permissions, with set-uid and its kin.
    pub mode: u32,
    /// The owner.
    pub uid: u64,
    /// The group.
    pub gid: u64,
    /// Bytes of a file, its holes too.
    pub size: u64,
    /// When it was changed, in seconds since 1970.
    pub mtime: i64,
    /// Where a link points.
    pub link: Vec<u8>,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// `security.capability` in hexadecimal digits.
    pub capability: Option<String>,
}

/// The content of the entry at hand.
pub struct Content<'a, 'f> {
    frames: &'a mut Frames<'f>,
    size: u64,
    sparse: Option<Sparse>,
}

impl std::fmt::Debug for Content<'_, '_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Content").field("size", &self.size).finish_non_exhaustive()
    }
}

impl Content<'_, '_> {
    /// Gives the bytes to `each`, piece by piece, holes as zeros. Who does not ask skips them.
    pub fn read(self, each: &mut dyn FnMut(&[u8]) -> Result<(), Error>) -> Result<(), Error> {
        let Some(Sparse { size, pieces }) = self.sparse else {
            return self.frames.data(self.size, each);
        };
        let mut at = 0;
        for (offset, length) in pieces {
            zeros(offset - at, each)?;
            self.frames.data(length, &mut *each)?;
            at = offset + length;
        }
        zeros(size - at, each)
    }
}

fn zeros(count: u64, each: &mut dyn FnMut(&[u8]) -> Result<(), Error>) -> Result<(), Error> {
    const ZEROS: [u8; 4096] = [0; 4096];
    let mut left = count;
    while left > 0 {
        let piece = left.min(ZEROS.len() as u64);
        each(&ZEROS[..usize::try_from(piece).unwrap_or(ZEROS.len())])?;
        left -= piece;
    }
    Ok(())
}

/// Reads a blob's entries in the tar's order, verifying digest, size and diff id, and returns the diff
/// id and the size of the tar. What `each` was told is worth nothing after an error.
pub fn entries(
    blob: &Blob,
    source: &mut (dyn Read + Send),
    limits: &Limits,
    each: &mut dyn FnMut(Entry, Content<'_, '_>) -> Result<(), Error>,
) -> Result<(Digest, u64), Error> {
    let ((), diff_id, size) = run(blob, source, limits, |blocks| {
        let mut frames = Frames::new(blob.digest, limits, blocks);
        while let Some(member) = frames.next()? {
            let Some(entry) = entry_of(&member) else { continue };
            let content = Content { frames: &mut frames, size: member.size, sparse: member.sparse };
            each(entry, content)?;
        }
        Ok(())
    })?;
    Ok((diff_id, size))
}

/// Turns a member into an entry; `None` for what is no part of a file system.
fn entry_of(member: &Member) -> Option<Entry> {
    let names: Vec<&[u8]> = member
        .path
        .split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty() && *name != b".")
        .collect();
    let mut kind = match member.kind {
        b'0' | b'\0' | b'7' if member.path.ends_with(b"/") => EntryKind::Folder,
        b'0' | b'\0' | b'7' => EntryKind::File,
        b'1' => EntryKind::HardLink,
        b'2' => EntryKind::Symlink,
        b'3' => EntryKind::Character,
        b'4' => EntryKind::Block,
        b'5' => EntryKind::Folder,
        b'6' => EntryKind::Fifo,
        _ => return None,
    };
    let mut path = names.join(&b'/');
    if let Some((name, above)) = names.split_last()
        && let Some(hidden) = name.strip_prefix(b".wh.")
    {
        let opaque = hidden == b".wh..opq";
        kind = if opaque { EntryKind::Opaque } else { EntryKind::Whiteout };
        path = above.join(&b'/');
        if !opaque {
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(hidden);
        }
    }
    let is_link = matches!(kind, EntryKind::Symlink | EntryKind::HardLink);
    let size = match (&member.sparse, kind) {
        (Some(sparse), _) => sparse.size,
        (None, EntryKind::File) => member.size,
        _ => 0,
    };
    Some(Entry {
        path,
        kind,
        mode: member.mode,
        uid: member.uid,
        gid: member.gid,
        size,
        mtime: member.mtime,
        link: if is_link { member.link.clone() } else { Vec::new() },
        device: member.device,
        capability: member.capability.as_ref().map(|bytes| capability::hex(bytes)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::header;
    use crate::oci::media_type::Compression;

    #[test]
    fn entries_come_clean_and_in_order_each_with_its_content() {
        let mut tar = Vec::new();
        let named = |path: &'static [u8], size: usize| header::Entry {
            path,
            kind: header::EntryKind::File,
            mode: 0o640,
            uid: 1000,
            gid: 100,
            size: size as u64,
            mtime: 1_600_000_000,
            link: b"",
            device: (0, 0),
            capability: None,
        };
        for (path, data) in [
            (&b"./a//b"[..], &b"content"[..]),
            (b"c/.wh.d", b""),
            (b".wh.e", b""),
            (b"c/.wh..wh..opq", b""),
            (b"z", b"last"),
        ] {
            header::encode(&named(path, data.len()), &mut tar);
            tar.extend_from_slice(data);
            tar.resize(tar.len().next_multiple_of(header::BLOCK), 0);
        }
        tar.extend_from_slice(&[0; 2 * header::BLOCK]);
        let digest = Digest::of(&tar);
        let blob = Blob {
            digest,
            size: tar.len() as u64,
            compression: Compression::None,
            diff_id: Some(digest),
        };
        let mut found = Vec::new();
        let (diff_id, size) =
            entries(&blob, &mut &tar[..], &Limits::of_blob(blob.size), &mut |entry, content| {
                let mut bytes = Vec::new();
                // What nobody reads is skipped.
                if entry.path != b"z" {
                    content.read(&mut |piece| {
                        bytes.extend_from_slice(piece);
                        Ok(())
                    })?;
                }
                found.push((String::from_utf8(entry.path).unwrap(), entry.kind, bytes));
                Ok(())
            })
            .unwrap();
        assert_eq!((diff_id, size), (digest, tar.len() as u64));
        let expected = [
            ("a/b", EntryKind::File, &b"content"[..]),
            ("c/d", EntryKind::Whiteout, b""),
            ("e", EntryKind::Whiteout, b""),
            ("c", EntryKind::Opaque, b""),
            ("z", EntryKind::File, b""),
        ];
        let found: Vec<_> =
            found.iter().map(|(path, kind, bytes)| (path.as_str(), *kind, &bytes[..])).collect();
        assert_eq!(found, expected);
    }
}
