//! What the layers below a tree know of their entries, by path. An entry that a step never touched
//! has no record of its own: here it is found by where it lies.

#![expect(clippy::disallowed_types, reason = "asked at every stat of a step, and never listed")]

use std::collections::HashMap;
use std::collections::HashSet;
use std::io;

use super::Scope;
use crate::rootfs::{self, EntryPath, Lower, Record};

/// What all of them know, stacked.
#[derive(Debug, Default)]
pub(super) struct Parents {
    known: HashMap<Vec<u8>, Record>,
    /// The last parts of those paths.
    names: HashSet<Vec<u8>>,
}

impl Parents {
    /// Stacks layers, from the bottom up. Of owners and capabilities it asks only where the tree
    /// doesn't hold them itself.
    pub(super) fn new(layers: &[Lower], scope: Scope) -> io::Result<Parents> {
        let mut parents = Parents::default();
        for (path, mut record) in rootfs::records(layers).map_err(io::Error::other)? {
            if scope != Scope::Full {
                record = Record { device: record.device, ..Record::default() };
            }
            if record != Record::default() {
                let path = path.as_bytes();
                parents.names.insert(name_of(path).to_vec());
                parents.known.insert(path.to_vec(), record);
            }
        }
        Ok(parents)
    }

    /// Tells whether nothing is known of any path.
    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Tells whether something may be known of a path that ends in this name.
    pub(super) fn has_name(&self, name: &[u8]) -> bool {
        self.names.contains(name)
    }

    /// Returns the last parts of all paths of which something is known.
    pub(super) fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.names.iter().map(Vec::as_slice)
    }

    /// Tells whether something has a group that isn't root's.
    pub(super) fn has_groups(&self) -> bool {
        self.known.values().any(|record| record.gid.is_some_and(|gid| gid != 0))
    }

    /// Tells whether something has capabilities.
    pub(super) fn has_capabilities(&self) -> bool {
        let has = |record: &Record| record.capability.as_ref().is_some_and(|it| !it.is_empty());
        self.known.values().any(has)
    }

    /// Returns all paths of which something is known.
    pub(super) fn paths(&self) -> Vec<EntryPath> {
        let mut paths: Vec<EntryPath> =
            self.known.keys().map(|path| EntryPath::from(path.as_slice())).collect();
        paths.sort();
        paths
    }

    /// Returns what is known of a path of the layers.
    pub(super) fn get(&self, path: &[u8]) -> Option<&Record> {
        self.known.get(path)
    }
}

/// The last part of a path.
pub(super) fn name_of(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}
