//! What the layers below a tree know of their entries, by path. An entry that a step never touched
//! has no record of its own: here it is found by where it lies.

#![expect(clippy::disallowed_types, reason = "asked at every stat of a step, and never listed")]

use std::collections::HashMap;
use std::collections::HashSet;
use std::io;

use crate::rootfs::{EntryPath, Ledger, Lower, Record, Sidecar};

/// A layer below, and what is known of it.
#[derive(Clone, Debug)]
pub struct Parent {
    /// Its folder.
    pub lower: Lower,
    /// What its folder can't say.
    pub ledger: Ledger,
}

impl Parent {
    /// Takes a layer that was unpacked: its sidecar knows.
    pub fn unpacked(lower: Lower) -> Parent {
        let ledger = lower.sidecar.as_ref().map(ledger_of).unwrap_or_default();
        Parent { lower, ledger }
    }
}

fn ledger_of(sidecar: &Sidecar) -> Ledger {
    let bytes = |text: &String| -> Option<Vec<u8>> {
        text.as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
            .collect()
    };
    let capabilities = sidecar.capabilities.iter();
    Ledger {
        owners: sidecar.owners.clone(),
        devices: sidecar.devices.clone(),
        capabilities: capabilities
            .filter_map(|(path, text)| Some((path.clone(), bytes(text)?)))
            .collect(),
    }
}

/// What all of them know, stacked.
#[derive(Debug, Default)]
pub(super) struct Parents {
    known: HashMap<Vec<u8>, Record>,
    /// The last parts of those paths.
    names: HashSet<Vec<u8>>,
}

impl Parents {
    /// Stacks layers, from the bottom up.
    pub(super) fn new(layers: &[Parent]) -> io::Result<Parents> {
        let mut parents = Parents::default();
        // From the top down: who says something of a path first is right.
        let mut told: HashSet<&EntryPath> = HashSet::new();
        for (at, Parent { ledger, .. }) in layers.iter().enumerate().rev() {
            let paths = ledger.owners.keys().chain(ledger.devices.keys());
            for path in paths.chain(ledger.capabilities.keys()) {
                if !told.insert(path) {
                    continue;
                }
                let mut hidden = false;
                for above in &layers[at + 1..] {
                    hidden = hidden || !above.lower.leaves(path).map_err(io::Error::other)?;
                }
                if !hidden {
                    parents.names.insert(name_of(path.as_bytes()).to_vec());
                    parents.known.insert(path.as_bytes().to_vec(), record_of(ledger, path));
                }
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

    /// Tells whether something has a group that isn't root's.
    pub(super) fn has_groups(&self) -> bool {
        self.known.values().any(|record| record.gid.is_some_and(|gid| gid != 0))
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

fn record_of(ledger: &Ledger, path: &EntryPath) -> Record {
    let device = ledger.devices.get(path);
    let owner = ledger.owners.get(path).copied();
    let owner = owner.or_else(|| device.map(|device| (device.uid, device.gid)));
    Record {
        uid: owner.map(|owner| owner.0),
        gid: owner.map(|owner| owner.1),
        device: device.map(|device| (device.kind, device.major, device.minor)),
        capability: ledger.capabilities.get(path).cloned(),
    }
}

/// The last part of a path.
pub(super) fn name_of(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}
