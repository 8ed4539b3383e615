//! Mask layers: what an unpacked layer removes from the layers below it, in overlay's own words. A
//! mask lies right below its layer.

use std::collections::BTreeMap;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, XattrFlags};

use crate::disk::At;
use crate::rootfs::stack::{Folder, Seen, Stack, look, make_folders};
use crate::rootfs::{EntryPath, Error, Sidecar};

/// Fills the empty folder `mask` with the whiteouts and opaque folders of a layer. A folder that
/// the layer doesn't have itself shows through from the mask, and so is made what it is below.
pub(super) fn fill(
    mask: &Path,
    tree: &Path,
    sidecar: &Sidecar,
    below: &Stack<'_>,
) -> Result<(), Error> {
    let mut made: BTreeMap<EntryPath, Folder> = BTreeMap::new();
    let mut metadata =
        |path: &EntryPath| Ok(below.effective(path.as_bytes())?.unwrap_or(Folder::DEFAULT));
    // Nothing of a folder that exists neither in the layer nor below it is there to be hidden, and
    // a mask that made it would show it.
    let exists = |dir: &[u8]| -> Result<bool, Error> {
        Ok(matches!(look(tree, dir)?, Seen::Folder(_)) || below.effective(dir)?.is_some())
    };

    for folder in &sidecar.opaque {
        if !exists(folder.as_bytes())? {
            continue;
        }
        make_folders(mask, folder, &mut made, &mut metadata)?;
        let dir = mask.join(folder.as_path());
        rustix::fs::lsetxattr(&dir, "user.overlay.opaque", b"y", XattrFlags::empty())
            .at("mark as opaque", &dir)?;
    }
    for whiteout in &sidecar.whiteouts {
        let bytes = whiteout.as_bytes();
        let end = bytes.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        let parent = EntryPath::from(&bytes[..end]);
        // Below something that is itself removed, or in an opaque folder, nothing is left to hide.
        let covered = parent.prefixes().any(|prefix| sidecar.whiteouts.contains(&prefix))
            || sidecar.opaque.contains(&b""[..])
            || parent.prefixes().any(|prefix| sidecar.opaque.contains(&prefix));
        let taken = made.contains_key(whiteout);
        if bytes.is_empty() || covered || taken || !exists(parent.as_bytes())? {
            continue;
        }
        make_folders(mask, &parent, &mut made, &mut metadata)?;
        let path = mask.join(whiteout.as_path());
        rustix::fs::mknodat(CWD, &path, FileType::CharacterDevice, Mode::empty(), 0)
            .at("create the whiteout", &path)?;
    }
    for (path, folder) in made.iter().rev() {
        folder.apply(&mask.join(path.as_path()))?;
    }
    let root = below.effective(&[])?.unwrap_or(Folder::DEFAULT);
    root.apply(mask)
}
