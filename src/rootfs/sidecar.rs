//! What an unpacked layer's folder does not hold: whiteouts, opaque folders, device nodes, file
//! capabilities, and (with one uid) owners. Beside each tree lies its sidecar, as JSON; the ledger
//! is what a run with one uid adds to the tree that it leaves.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A path below a layer's root, as bytes, without a slash at either end. In JSON a `%` and what is
/// not UTF-8 are written as `%XX`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EntryPath(Vec<u8>);

impl EntryPath {
    /// Returns the bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the path, to be joined to a root.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// Returns the path of `name` in this folder.
    #[must_use]
    pub fn join(&self, name: &[u8]) -> EntryPath {
        let mut bytes = self.0.clone();
        if !bytes.is_empty() {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(name);
        EntryPath(bytes)
    }

    /// Returns the folders above it, from the top and without the root, and then itself.
    pub fn prefixes(&self) -> impl Iterator<Item = EntryPath> {
        let ends = self.0.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        let whole = (!self.0.is_empty()).then_some(self.0.len());
        ends.chain(whole).map(|end| EntryPath(self.0[..end].to_vec()))
    }
}

impl From<&str> for EntryPath {
    /// Takes a path as people write it: slashes at its ends are dropped.
    fn from(text: &str) -> EntryPath {
        EntryPath(text.trim_matches('/').as_bytes().to_vec())
    }
}

impl From<Vec<u8>> for EntryPath {
    fn from(bytes: Vec<u8>) -> EntryPath {
        EntryPath(bytes)
    }
}

impl From<&[u8]> for EntryPath {
    fn from(bytes: &[u8]) -> EntryPath {
        EntryPath(bytes.to_vec())
    }
}

impl Borrow<[u8]> for EntryPath {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            f.write_str(&chunk.valid().replace('%', "%25"))?;
            for byte in chunk.invalid() {
                write!(f, "%{byte:02X}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl Serialize for EntryPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EntryPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<EntryPath, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.as_bytes();
        while let [first, tail @ ..] = rest {
            rest = tail;
            if *first != b'%' {
                bytes.push(*first);
                continue;
            }
            let digits = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
            let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
            bytes.push(byte.ok_or_else(|| serde::de::Error::custom("`%` without two digits"))?);
            rest = &tail[2..];
        }
        Ok(EntryPath(bytes))
    }
}

/// Which kind of device node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceKind {
    /// A block device.
    Block,
    /// A character device.
    Character,
}

/// A device node that the tree cannot hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Block or character.
    pub kind: DeviceKind,
    /// The major number.
    pub major: u32,
    /// The minor number.
    pub minor: u32,
    /// Permission bits, with set-uid and its kin.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Modification time in whole seconds.
    pub mtime: i64,
}

/// What an unpacked layer has beside its tree. Its JSON is deterministic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sidecar {
    /// Paths of lower layers that this layer removes; the tree may hold a new entry of that name.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub whiteouts: BTreeSet<EntryPath>,
    /// Folders whose content in lower layers this layer hides. The empty path is the root.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub opaque: BTreeSet<EntryPath>,
    /// Folders that the tar did not name though it has entries in them; their metadata is made up.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub implied: BTreeSet<EntryPath>,
    /// Device nodes; the tree has nothing at their place.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub devices: BTreeMap<EntryPath, Device>,
    /// File capabilities as the hexadecimal digits of the v2 `security.capability`, whether or not
    /// the tree's file system could hold them too.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub capabilities: BTreeMap<EntryPath, String>,
    /// Owner and group where they differ from the tree's (only with one uid).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub owners: BTreeMap<EntryPath, (u32, u32)>,
}

/// What the writer of a layer has to take from elsewhere than the tree: empty wherever the tree
/// itself tells the truth.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Owner and group of an entry.
    pub owners: BTreeMap<EntryPath, (u32, u32)>,
    /// Entries that are device nodes, whatever the tree has there.
    pub devices: BTreeMap<EntryPath, Device>,
    /// The v2 `security.capability` of a file.
    pub capabilities: BTreeMap<EntryPath, Vec<u8>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sidecar_survives_json_with_any_bytes_in_a_name() {
        let mut sidecar = Sidecar::default();
        sidecar.whiteouts.insert(EntryPath::from(b"a/100%\xff\n\"".as_slice()));
        sidecar.opaque.insert(EntryPath::default());
        let json = serde_json::to_string(&sidecar).unwrap();
        assert_eq!(json, r#"{"whiteouts":["a/100%25%FF\n\""],"opaque":[""]}"#);
        assert_eq!(serde_json::from_str::<Sidecar>(&json).unwrap(), sidecar);
    }

    #[test]
    fn a_path_knows_the_folders_above_it() {
        let names: Vec<String> =
            EntryPath::from("/a/b/c/").prefixes().map(|path| path.to_string()).collect();
        assert_eq!(names, ["a", "a/b", "a/b/c"]);
        assert_eq!(EntryPath::default().prefixes().count(), 0);
        assert_eq!(EntryPath::default().join(b"a").join(b"b"), EntryPath::from("a/b"));
    }
}
