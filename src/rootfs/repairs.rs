//! Folders that a layer's tar only implied: their metadata is made up, and hides what the layers
//! below say of them. A layer of repairs, on top of the others, puts that right.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::rootfs::stack::{Folder, Seen, Stack, look, make_folders};
use crate::rootfs::{EntryPath, Error, Lower};

/// Returns the folders that look wrong in the stack, those above them and the root, each as it is
/// to be. Empty when nothing is wrong.
pub(super) fn find(
    stack: &Stack<'_>,
    lowers: &[Lower],
) -> Result<BTreeMap<EntryPath, Folder>, Error> {
    let candidates: BTreeSet<&EntryPath> = lowers
        .iter()
        .filter_map(|lower| lower.sidecar.as_ref())
        .flat_map(|sidecar| &sidecar.implied)
        .collect();
    let mut repaired = BTreeMap::new();
    for path in candidates {
        let Some(truth) = stack.effective(path.as_bytes())? else { continue };
        if topmost(lowers, path.as_bytes())? == Some(truth) {
            continue;
        }
        for prefix in path.prefixes().chain([EntryPath::default()]) {
            let folder = stack.effective(prefix.as_bytes())?.unwrap_or(Folder::DEFAULT);
            repaired.insert(prefix, folder);
        }
    }
    Ok(repaired)
}

/// Returns what the stack would show without repairs.
fn topmost(lowers: &[Lower], path: &[u8]) -> Result<Option<Folder>, Error> {
    for lower in lowers.iter().rev() {
        if let Seen::Folder(folder) = look(&lower.tree, path)? {
            return Ok(Some(folder));
        }
    }
    Ok(None)
}

/// Makes the layer of repairs in the empty folder `dir`.
pub(super) fn fill(dir: &Path, repaired: &BTreeMap<EntryPath, Folder>) -> Result<(), Error> {
    let mut made = BTreeMap::new();
    for path in repaired.keys() {
        make_folders(dir, path, &mut made, &mut |_| Ok(Folder::DEFAULT))?;
    }
    for (path, folder) in repaired.iter().rev() {
        folder.apply(&dir.join(path.as_path()))?;
    }
    Ok(())
}
