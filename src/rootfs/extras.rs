//! The topmost lower folder of a step's tree: files of the step's own and missing mount points.

use std::collections::{BTreeMap, BTreeSet};

use crate::rootfs::EntryPath;

/// What a step's tree has that no layer has. Paths go through the tree's own symlinks, so that
/// `/var/run/lock` means `/run/lock` where the image says so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extras {
    /// Files by path, mode 0644, owned by 0:0; they take the place of what the layers have there,
    /// symlinks included.
    pub files: BTreeMap<EntryPath, Vec<u8>>,
    /// Folders that must exist, as mount points. Those that do are left as they are.
    pub folders: BTreeSet<EntryPath>,
}
