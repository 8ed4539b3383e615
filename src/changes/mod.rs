//! What a run changed, as a sorted list of paths: present ones, whose truth is in the tree, and
//! removed ones. However it is found (from overlay's upper folder, or from a plain tree and a
//! snapshot of before), the list is the same.

mod error;
mod list;
mod same;
mod snapshot;
mod upper;

use std::path::PathBuf;

use crate::rootfs::{Tree, Truth};

pub use error::Error;
pub use list::{Changes, Cursor, Iter, name_in_tar};
pub use same::same_entry;
pub use snapshot::from_snapshot;
pub use upper::from_upper;

/// Lists what has changed in a tree, whichever kind it is of; `excluded` are paths that are left out
/// with all they hold.
pub fn of(tree: &Tree, excluded: &[PathBuf], truth: &dyn Truth) -> Result<Changes, Error> {
    match tree {
        Tree::Overlay(mounted) => from_upper(mounted.upper(), mounted.parent(), excluded, truth),
        Tree::Plain(plain) => from_snapshot(plain, excluded, truth),
    }
}

/// What happened to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// It is there and differs from the parent's, or is a folder above such an entry.
    Present,
    /// The parent has it and the result has not.
    Removed,
}

/// One path of a layer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// Below the root, without a slash at either end.
    pub path: Vec<u8>,
    /// What happened to it.
    pub kind: Kind,
}
