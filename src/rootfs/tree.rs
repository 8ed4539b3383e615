//! The tree that a step runs in, of either kind.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FileType, Stat};

use crate::rootfs::{Error, Extras, Lower, Mounted, PlainTree, each, in_parallel, mount};

/// What file systems give room in, memory too.
const BLOCK: u64 = 4096;

/// How a tree is made of its layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TreeKind {
    /// Stacked by the kernel.
    Overlay,
    /// Copied.
    Plain,
}

/// Which kind of tree is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TreeRequest {
    /// An overlay where it works, else a plain tree.
    #[default]
    Auto,
    /// An overlay or nothing.
    Overlay,
    /// A plain tree.
    Plain,
}

/// A tree to run in.
#[derive(Debug)]
pub enum Tree {
    /// Stacked by the kernel.
    Overlay(Mounted),
    /// Copied.
    Plain(Box<PlainTree>),
}

impl Tree {
    /// Makes a tree of layers, from the bottom up, in the empty folder `space`.
    pub fn new(
        kind: TreeKind,
        lowers: &[Lower],
        space: &Path,
        extras: &Extras,
    ) -> Result<Tree, Error> {
        Ok(match kind {
            TreeKind::Overlay => Tree::Overlay(mount(lowers, space, extras)?),
            TreeKind::Plain => Tree::Plain(Box::new(PlainTree::new(lowers, space, extras)?)),
        })
    }

    /// Returns the folder that a step sees as its root.
    pub fn merged(&self) -> &Path {
        match self {
            Tree::Overlay(mounted) => mounted.merged(),
            Tree::Plain(tree) => tree.merged(),
        }
    }

    /// Returns the folder that has all that was changed, to be read from.
    pub fn changed(&self) -> &Path {
        match self {
            Tree::Overlay(mounted) => mounted.upper(),
            Tree::Plain(tree) => tree.merged(),
        }
    }
}

/// Returns how many bytes an entry takes at most.
pub(super) fn room_of(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0).next_multiple_of(BLOCK)
}

/// Returns how many bytes a plain tree of these layers takes at most.
pub fn size_of(lowers: &[Lower]) -> Result<u64, Error> {
    let size = AtomicU64::new(0);
    let first = lowers.iter().map(|lower| (lower.tree.as_path(), Vec::new())).collect();
    in_parallel(first, |(tree, path): (&Path, Vec<u8>), more| {
        each(tree, &path, &mut |_, below, stat| {
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                more.push((tree, below.to_vec()));
            }
            size.fetch_add(room_of(stat), Ordering::Relaxed);
        })
    })?;
    Ok(size.into_inner())
}
