//! A layer's entries with the digests of their contents, its packages, and which path belongs to
//! which: all that a comparison of two layers needs before it looks into a file.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use super::Error;
use super::image::OpenLayer;
use super::packages::{self, Package, Record, Told};
use super::report::Shown;
use crate::layer::{self, EntryKind};
use crate::oci::{Digest, Hasher};

/// The most bytes of a package's record that are read.
const RECORD_LIMIT: u64 = 64 << 20;

/// An entry without its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct State {
    pub(super) kind: EntryKind,
    pub(super) mode: u32,
    pub(super) uid: u64,
    pub(super) gid: u64,
    pub(super) size: u64,
    pub(super) mtime: i64,
    pub(super) link: Vec<u8>,
    pub(super) device: (u32, u32),
    pub(super) capability: Option<String>,
    pub(super) content: Option<Digest>,
}

impl State {
    /// Returns it as it is shown.
    pub(super) fn shown(&self) -> Shown {
        let is_device = matches!(self.kind, EntryKind::Character | EntryKind::Block);
        Shown {
            kind: kind_name(self.kind),
            mode: format!("{:04o}", self.mode),
            owner: format!("{}:{}", self.uid, self.gid),
            size: self.size,
            mtime: self.mtime,
            link: (!self.link.is_empty()).then(|| String::from_utf8_lossy(&self.link).into_owned()),
            device: is_device.then(|| format!("{}:{}", self.device.0, self.device.1)),
            capability: self.capability.clone(),
            sha256: self.content.map(|digest| digest.hex()),
        }
    }
}

fn kind_name(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::File => "file",
        EntryKind::Folder => "folder",
        EntryKind::Symlink => "symlink",
        EntryKind::HardLink => "hard-link",
        EntryKind::Character => "character",
        EntryKind::Block => "block",
        EntryKind::Fifo => "fifo",
        EntryKind::Whiteout => "whiteout",
        EntryKind::Opaque => "opaque",
    }
}

/// A layer's entries and packages.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) entries: BTreeMap<Vec<u8>, State>,
    pub(super) packages: Vec<Package>,
    /// Whether Debian's list of packages is among the records.
    pub(super) has_status: bool,
    owners: Owners,
}

impl Listing {
    /// Reads a layer.
    pub(super) fn of(mut layer: OpenLayer<'_>) -> Result<Listing, Error> {
        let mut listing = Listing::default();
        let (blob, limits) = (layer.blob, layer.limits);
        layer::entries(&blob, &mut layer.stream, &limits, &mut |entry, content| {
            let mut digest = None;
            if entry.kind == EntryKind::File {
                let record =
                    packages::record_of(&entry.path).filter(|_| entry.size <= RECORD_LIMIT);
                let mut kept = Vec::new();
                let mut hasher = Hasher::new();
                content.read(&mut |piece| {
                    hasher.update(piece);
                    if record.is_some() {
                        kept.extend_from_slice(piece);
                    }
                    Ok(())
                })?;
                digest = Some(hasher.finish());
                if let Some(record) = record {
                    listing.has_status |= record == Record::Status;
                    listing.take(packages::read(record, &entry.path, &kept));
                }
            }
            let state = State {
                kind: entry.kind,
                mode: entry.mode,
                uid: entry.uid,
                gid: entry.gid,
                size: entry.size,
                mtime: entry.mtime,
                link: entry.link,
                device: entry.device,
                capability: entry.capability,
                content: digest,
            };
            listing.entries.insert(entry.path, state);
            Ok(())
        })?;
        listing.owners.paths.sort_unstable();
        listing.leave_out_bundled();
        Ok(listing)
    }

    fn take(&mut self, told: Told) {
        let Told { packages, owner, paths, folder } = told;
        self.packages.extend(packages);
        let Some((kind, name)) = owner else { return };
        let number = u32::try_from(self.owners.names.len()).unwrap_or(u32::MAX);
        self.owners.names.push((kind, name));
        self.owners.paths.extend(paths.iter().map(|path| (hash(path), number)));
        if let Some(folder) = folder {
            self.owners.folders.insert(folder, number);
        }
    }

    /// Drops what came as a part of another manager's package: Debian's `python3-yaml` has a
    /// dist-info, too.
    fn leave_out_bundled(&mut self) {
        let owners = &self.owners;
        self.packages.retain(|package| {
            package.kind == "deb"
                || package.kind == "conda"
                || owners
                    .listed(&package.record)
                    .is_none_or(|(kind, _)| !matches!(kind, "deb" | "conda"))
        });
    }

    /// Returns the package that a path belongs to, by kind and name.
    pub(super) fn owner(&self, path: &[u8]) -> Option<(&'static str, &str)> {
        self.owners.of(path)
    }
}

/// Which path belongs to which package. Paths are kept as hashes, a few bytes each.
#[derive(Debug, Default)]
struct Owners {
    names: Vec<(&'static str, String)>,
    paths: Vec<(u64, u32)>,
    folders: BTreeMap<Vec<u8>, u32>,
}

impl Owners {
    fn name(&self, number: u32) -> Option<(&'static str, &str)> {
        let (kind, name) = self.names.get(number as usize)?;
        Some((kind, name))
    }

    fn listed(&self, path: &[u8]) -> Option<(&'static str, &str)> {
        let wanted = hash(path);
        let at = self.paths.partition_point(|(hash, _)| *hash < wanted);
        let (found, number) = self.paths.get(at)?;
        if *found == wanted { self.name(*number) } else { None }
    }

    fn of(&self, path: &[u8]) -> Option<(&'static str, &str)> {
        if let Some(owner) = self.listed(path) {
            return Some(owner);
        }
        let (folder, name) = packages::split(path);
        // What dpkg keeps of a package, and the list itself.
        if folder == b"var/lib/dpkg/info" {
            let package = name.split(|byte| *byte == b':').next()?;
            let package = match package.iter().rposition(|byte| *byte == b'.') {
                Some(at) if package.len() == name.len() => &package[..at],
                _ => package,
            };
            return self
                .names
                .iter()
                .find(|(kind, name)| *kind == "deb" && name.as_bytes() == package)
                .map(|(kind, name)| (*kind, name.as_str()));
        }
        // Byte code belongs to who brought the source.
        if let (above, b"__pycache__") = packages::split(folder)
            && let Some(end) = name.windows(9).position(|window| window == b".cpython-")
            && let Some(owner) = self.listed(&[above, b"/", &name[..end], b".py"].concat())
        {
            return Some(owner);
        }
        let mut above = path;
        while !above.is_empty() {
            if let Some(number) = self.folders.get(above) {
                return self.name(*number);
            }
            above = packages::split(above).0;
        }
        None
    }
}

fn hash(path: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    hasher.finish()
}

/// Reads of a layer no more than Debian's list of packages; `None` where it has none.
pub(super) fn status_of(mut layer: OpenLayer<'_>) -> Result<Option<Vec<Package>>, Error> {
    let mut found: Option<Vec<Package>> = None;
    let (blob, limits) = (layer.blob, layer.limits);
    layer::entries(&blob, &mut layer.stream, &limits, &mut |entry, content| {
        if entry.kind == EntryKind::File
            && packages::record_of(&entry.path) == Some(Record::Status)
            && entry.size <= RECORD_LIMIT
        {
            let mut kept = Vec::new();
            content.read(&mut |piece| {
                kept.extend_from_slice(piece);
                Ok(())
            })?;
            let told = packages::read(Record::Status, &entry.path, &kept);
            found.get_or_insert_default().extend(told.packages);
        }
        Ok(())
    })?;
    Ok(found)
}
