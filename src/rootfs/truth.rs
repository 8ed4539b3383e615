//! What an entry is where its tree can't say so: with one id alone, owners, device nodes and file
//! capabilities are remembered beside the tree. Whoever compares or writes entries asks here first.

use std::fmt::Debug;
use std::io;

use super::{DeviceKind, EntryPath};

/// What is remembered of an entry; what is `None` is as the tree has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The owner.
    pub uid: Option<u32>,
    /// The group.
    pub gid: Option<u32>,
    /// It is a device node, whatever the tree has there: kind, major and minor number.
    pub device: Option<(DeviceKind, u32, u32)>,
    /// The v2 `security.capability`; empty bytes where the tree's is to be taken as absent.
    pub capability: Option<Vec<u8>>,
}

/// Remembers what the entries of a tree truly are.
pub trait Truth: Debug + Sync {
    /// Tells whether nothing at all is remembered, so that nobody needs to ask.
    fn is_empty(&self) -> bool;

    /// Returns what is remembered of the entry at `path` of the tree as it is now, without following
    /// a link at its end; `None` where the tree itself is right.
    fn now(&self, path: &EntryPath) -> io::Result<Option<Record>>;

    /// Returns what is remembered of the entry at `path` in the parent.
    fn before(&self, path: &EntryPath) -> io::Result<Option<Record>>;

    /// Remembers something of an entry of the tree; what is `None` stays as it was.
    fn set(&self, path: &EntryPath, record: &Record) -> io::Result<()>;
}

/// The truth of a tree that needs nobody to remember anything.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plain;

impl Truth for Plain {
    fn is_empty(&self) -> bool {
        true
    }

    fn now(&self, _: &EntryPath) -> io::Result<Option<Record>> {
        Ok(None)
    }

    fn before(&self, _: &EntryPath) -> io::Result<Option<Record>> {
        Ok(None)
    }

    fn set(&self, _: &EntryPath, _: &Record) -> io::Result<()> {
        Ok(())
    }
}
