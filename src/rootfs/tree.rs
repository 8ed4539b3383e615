//! The tree that a step runs in, of either kind.

use std::path::Path;

use crate::rootfs::{Error, Extras, Lower, Mounted, PlainTree, mount};

/// How a tree is made of its layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TreeKind {
    /// Stacked by the kernel.
    Overlay,
    /// Copied.
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
