//! What may go: everything that no name reaches and that was not used lately. Works alone, while no
//! other process has the store open, so that nothing goes that somebody has just found.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::FlockOperation;

use super::referrers::subject;
use super::{CachedLayer, Error, Store, error, records, unpacked};
use crate::disk::{self, At};
use crate::oci::{Descriptor, Digest, Document, media_type};
use crate::report::Report;

mod inputs;

/// The annotation by which an image names the base that it was built on.
const BASE_DIGEST: &str = "org.opencontainers.image.base.digest";

/// How much a collection leaves of what no name reaches.
#[derive(Clone, Debug, Default)]
pub struct GcOptions {
    /// How many bytes of cached layers and unpacked trees stay, the last used first; `None` is all.
    pub keep_bytes: Option<u64>,
    /// How many bytes they may take together with what names reach, which stays in any case.
    pub total_bytes: Option<u64>,
    /// How long ago the last use of those that stay may be; `None` is any time.
    pub max_age: Option<Duration>,
    /// Layers whose trees stay, by diff id, and keys that do, as what is about to be used.
    pub spared: BTreeSet<Digest>,
    /// Whether what steps fetched goes, of images too: they can't be made again offline then.
    pub no_inputs: bool,
    /// Only tell what would go.
    pub dry_run: bool,
}

/// What a collection removed, or would.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    /// Blobs.
    pub blobs: u64,
    /// Layer keys of which nothing is known any more.
    pub keys: u64,
    /// Unpacked layers.
    pub trees: u64,
    /// What ended runs and unpackings left.
    pub leftovers: u64,
    /// The bytes of all these on disk.
    pub bytes: u64,
    /// The bytes that cached layers and unpacked trees still take.
    pub kept_bytes: u64,
    /// Bodies that steps fetched, and that stay.
    pub inputs: u64,
    /// The bytes of these.
    pub inputs_bytes: u64,
}

/// A cached layer or an unpacked tree, for the order of last use.
struct Candidate {
    used: (i64, i64),
    path: PathBuf,
    what: What,
}

enum What {
    Key(Option<Digest>),
    Tree(u64),
}

impl Store {
    /// Returns the bytes that blobs and unpacked layers take.
    pub fn used(&self) -> Result<u64, Error> {
        let mut bytes = disk::usage(&self.path("blobs"));
        let dir = self.path("unpacked");
        for flavour in disk::list(&dir)? {
            let flavour = dir.join(flavour);
            for name in disk::list(&flavour)? {
                bytes += tree_bytes(&flavour.join(name));
            }
        }
        Ok(bytes)
    }

    /// Removes what no name reaches and no budget keeps: blobs, cached layers and unpacked trees.
    /// Another process that has the store open is [`Error::Busy`]; this one must not be building.
    pub fn gc(&self, options: &GcOptions, report: &dyn Report) -> Result<Freed, Error> {
        let alone = if options.dry_run { None } else { Some(Alone::with(self)?) };
        let mut freed = Freed::default();
        if !options.dry_run {
            freed.bytes += self.sweep(report)?;
        }
        let mut keep = BTreeSet::new();
        let unreached = self.reach_all(&mut keep)?;
        let work = Collection { store: self, options, report, blobs: self.diffs()? };
        let gone = work.choose(&mut keep, &mut freed)?;
        work.remove_candidates(gone, &mut freed)?;
        if !options.dry_run && !unreached.is_empty() {
            // Before their blobs, so that no entry is left without.
            self.change_index(|entries| entries.retain(|entry| !unreached.contains(entry)))?;
        }
        work.remove_blobs(&keep, &mut freed)?;
        work.remove_records(&keep, &mut freed)?;
        work.remove_logs(&mut freed)?;
        drop(alone);
        Ok(freed)
    }

    /// Adds to `keep` all that a name reaches, and what refers to it; returns the entries that refer
    /// to nothing of that.
    fn reach_all(&self, keep: &mut BTreeSet<Digest>) -> Result<Vec<Descriptor>, Error> {
        let (mut about, own): (Vec<_>, Vec<_>) =
            self.read_index()?.manifests.into_iter().partition(|entry| subject(entry).is_some());
        for entry in own {
            self.reach(&entry, keep)?;
        }
        // What refers to an image may be referred to.
        loop {
            let (reached, rest): (Vec<_>, Vec<_>) = about
                .into_iter()
                .partition(|entry| subject(entry).is_some_and(|digest| keep.contains(&digest)));
            for entry in &reached {
                self.reach(entry, keep)?;
            }
            about = rest;
            if reached.is_empty() {
                return Ok(about);
            }
        }
    }

    /// Adds to `keep` a document and all that it reaches, here or not.
    fn reach(&self, descriptor: &Descriptor, keep: &mut BTreeSet<Digest>) -> Result<(), Error> {
        let is_document = media_type::is_index(&descriptor.media_type)
            || media_type::is_manifest(&descriptor.media_type);
        if !keep.insert(descriptor.digest) || !is_document || !self.has(&descriptor.digest) {
            return Ok(());
        }
        // A damaged document ends the collection: what hangs below it is not known.
        let document = self.document(descriptor)?;
        let (children, annotations) = children(&document)?;
        for child in &children {
            self.reach(child, keep)?;
        }
        if let Some(base) = annotations.get(BASE_DIGEST).and_then(|text| text.parse().ok())
            && let Some(base) = self.find_document(&base)?
        {
            self.reach(&base, keep)?;
        }
        Ok(())
    }

    /// Returns which blobs hold which diff id, with the records' files.
    fn diffs(&self) -> Result<BTreeMap<Digest, Vec<Descriptor>>, Error> {
        let dir = self.path("diffs");
        let mut diffs: BTreeMap<Digest, Vec<Descriptor>> = BTreeMap::new();
        for name in disk::list(&dir)? {
            if let (Some(diff_id), Some(blob)) =
                (digest_of(&name), records::read(&dir.join(&name))?)
            {
                diffs.entry(diff_id).or_default().push(blob);
            }
        }
        Ok(diffs)
    }
}

/// Returns what a document points to, and its annotations.
fn children(document: &Document) -> Result<(Vec<Descriptor>, BTreeMap<String, String>), Error> {
    if document.is_index() {
        let index = document.index()?;
        Ok((index.manifests, index.annotations))
    } else {
        let manifest = document.manifest()?;
        let mut children = manifest.layers;
        children.push(manifest.config);
        Ok((children, manifest.annotations))
    }
}

/// Returns the digest that a file's name begins with.
fn digest_of(name: &OsStr) -> Option<Digest> {
    let hex = name.to_str()?.split('.').next()?;
    format!("sha256:{hex}").parse().ok()
}

/// The store to oneself; shared again when dropped.
struct Alone<'s>(&'s Store);

impl Alone<'_> {
    fn with(store: &Store) -> Result<Alone<'_>, Error> {
        let alone = Alone(store);
        // A failed attempt may lose the shared lock; dropping `alone` takes it again.
        match error::flock(
            &store.inner.in_use,
            FlockOperation::NonBlockingLockExclusive,
            store.root(),
        ) {
            Ok(()) => Ok(alone),
            Err(error) => Err(error),
        }
    }
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        error::flock(&self.0.inner.in_use, FlockOperation::LockShared, self.0.root()).ok();
    }
}

struct Collection<'a> {
    store: &'a Store,
    options: &'a GcOptions,
    report: &'a dyn Report,
    blobs: BTreeMap<Digest, Vec<Descriptor>>,
}

impl Collection<'_> {
    /// Keeps the last used cached layers and trees, as far as the budget goes, and returns the rest.
    fn choose(
        &self,
        keep: &mut BTreeSet<Digest>,
        freed: &mut Freed,
    ) -> Result<Vec<Candidate>, Error> {
        let mut candidates = self.keys()?;
        candidates.extend(self.trees()?);
        candidates.sort_by(|a, b| b.used.cmp(&a.used).then(a.path.cmp(&b.path)));
        let oldest = match self.options.max_age {
            Some(age) => {
                let age = i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
                Some((self.now()?.saturating_sub(age), 0))
            }
            None => None,
        };
        // What is bounded in all is bounded with them.
        if self.options.total_bytes.is_none() {
            self.keep_inputs_of_images(&candidates, keep, freed)?;
        }
        let most = match self.options.total_bytes {
            Some(total) => {
                let sizes = keep.iter().map(|digest| disk::usage(&self.store.blob_path(digest)));
                let rest = total.saturating_sub(sizes.sum());
                Some(self.options.keep_bytes.map_or(rest, |most| most.min(rest)))
            }
            None => self.options.keep_bytes,
        };
        let mut gone = Vec::new();
        for candidate in candidates {
            let mut inputs = BTreeMap::new();
            let (mut bytes, digests) = match &candidate.what {
                What::Tree(bytes) => (*bytes, Vec::new()),
                What::Key(diff_id) => {
                    inputs = self.bodies_of(&candidate.path, keep)?;
                    self.blobs_of(diff_id.as_ref(), keep)
                }
            };
            let inputs_bytes: u64 = inputs.values().sum();
            bytes += inputs_bytes;
            let fits = most.is_none_or(|most| freed.kept_bytes + bytes <= most);
            let name = candidate.path.file_name().and_then(digest_of);
            let spared = name.is_some_and(|name| self.options.spared.contains(&name));
            if spared || (fits && oldest.is_none_or(|oldest| candidate.used >= oldest)) {
                freed.kept_bytes += bytes;
                keep.extend(digests);
                freed.inputs += inputs.len() as u64;
                freed.inputs_bytes += inputs_bytes;
                keep.extend(inputs.into_keys());
            } else {
                gone.push(candidate);
            }
        }
        Ok(gone)
    }

    /// Returns the blobs of a diff id that nothing keeps yet, and their size.
    fn blobs_of(&self, diff_id: Option<&Digest>, keep: &BTreeSet<Digest>) -> (u64, Vec<Digest>) {
        let blobs =
            diff_id.and_then(|diff_id| self.blobs.get(diff_id)).map_or(&[][..], Vec::as_slice);
        let new: Vec<&Descriptor> = blobs
            .iter()
            .filter(|blob| !keep.contains(&blob.digest) && self.store.has(&blob.digest))
            .collect();
        (new.iter().map(|blob| blob.size).sum(), new.iter().map(|blob| blob.digest).collect())
    }

    fn keys(&self) -> Result<Vec<Candidate>, Error> {
        let dir = self.store.path("cache");
        let mut keys = Vec::new();
        for name in disk::list(&dir)? {
            let path = dir.join(&name);
            if let Some(layer) = records::read::<CachedLayer>(&path)? {
                let used = last_used(&path)?;
                keys.push(Candidate { used, path, what: What::Key(layer.diff_id) });
            }
        }
        Ok(keys)
    }

    fn trees(&self) -> Result<Vec<Candidate>, Error> {
        let dir = self.store.path("unpacked");
        let mut trees = Vec::new();
        for flavour in disk::list(&dir)? {
            let flavour = dir.join(flavour);
            for name in disk::list(&flavour)? {
                if digest_of(&name).is_some() {
                    let path = flavour.join(name);
                    let what = What::Tree(tree_bytes(&path));
                    trees.push(Candidate { used: last_used(&path)?, path, what });
                }
            }
        }
        Ok(trees)
    }

    /// Returns the time by the clock that also stamps the files: over NFS the server's.
    fn now(&self) -> Result<i64, Error> {
        let run = self.store.scratch()?;
        let stamp = run.path().join("now");
        fs::write(&stamp, b"").at("write", &stamp)?;
        Ok(fs::metadata(&stamp).at("read", &stamp)?.mtime())
    }

    fn remove_candidates(&self, gone: Vec<Candidate>, freed: &mut Freed) -> Result<(), Error> {
        for Candidate { path, what, .. } in gone {
            match what {
                What::Key(_) => {
                    freed.keys += 1;
                    self.remove_file(&path, freed)?;
                }
                What::Tree(bytes) => {
                    if self.remove_tree(&path)? {
                        freed.trees += 1;
                        freed.bytes += bytes;
                    }
                }
            }
        }
        self.remove_leftovers(freed)
    }

    /// Removes unpackings that were cut short and removals that were.
    fn remove_leftovers(&self, freed: &mut Freed) -> Result<(), Error> {
        let dir = self.store.path("unpacked");
        for flavour in disk::list(&dir)? {
            let flavour = dir.join(flavour);
            for name in disk::list(&flavour)? {
                let path = flavour.join(&name);
                let name = name.as_encoded_bytes();
                if name.starts_with(b".lock-") {
                    self.remove_file(&path, &mut Freed::default())?;
                } else if name.starts_with(b".") {
                    let bytes = disk::usage(&path);
                    if self.remove_tree(&path)? {
                        freed.leftovers += 1;
                        freed.bytes += bytes;
                    }
                }
            }
        }
        Ok(())
    }

    fn remove_blobs(&self, keep: &BTreeSet<Digest>, freed: &mut Freed) -> Result<(), Error> {
        let dir = self.store.path("blobs/sha256");
        for name in disk::list(&dir)? {
            // Names that are no digests are not ours.
            if digest_of(&name).is_some_and(|digest| !keep.contains(&digest)) {
                freed.blobs += 1;
                self.remove_file(&dir.join(name), freed)?;
            }
        }
        Ok(())
    }

    /// Removes facts about blobs that are gone, and records that were cut short.
    fn remove_records(&self, keep: &BTreeSet<Digest>, freed: &mut Freed) -> Result<(), Error> {
        let kept = |folder: &str, path: &Path, name: &OsStr| -> Result<bool, Error> {
            Ok(match folder {
                "diffs" => records::read::<Descriptor>(path)?.is_some_and(|blob| {
                    keep.contains(&blob.digest) && self.store.has(&blob.digest)
                }),
                "origins" => digest_of(name).is_some_and(|digest| keep.contains(&digest)),
                // They go with the key.
                "fetches" => self.store.path("cache").join(name).is_file(),
                _ => path.extension() == Some(OsStr::new("json")),
            })
        };
        for folder in ["cache", "diffs", "origins", "fetches"] {
            let dir = self.store.path(folder);
            // A store that never recorded has no folder for it.
            if folder == "fetches" && !dir.is_dir() {
                continue;
            }
            for name in disk::list(&dir)? {
                let path = dir.join(&name);
                if !kept(folder, &path, &name)? {
                    self.remove_file(&path, freed)?;
                }
            }
        }
        Ok(())
    }

    fn remove_logs(&self, freed: &mut Freed) -> Result<(), Error> {
        let Some(age) = self.options.max_age else { return Ok(()) };
        let oldest = self.now()?.saturating_sub(i64::try_from(age.as_secs()).unwrap_or(i64::MAX));
        let dir = self.store.logs();
        for name in disk::list(&dir)? {
            let path = dir.join(name);
            if last_used(&path)?.0 < oldest && path.is_file() {
                self.remove_file(&path, freed)?;
            }
        }
        Ok(())
    }

    fn remove_file(&self, path: &Path, freed: &mut Freed) -> Result<(), Error> {
        let bytes = disk::usage(path);
        if !self.options.dry_run {
            match fs::remove_file(path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
                other => other.at("remove", path)?,
            }
        }
        freed.bytes += bytes;
        Ok(())
    }

    /// Removes a tree, out of sight first, and tells whether it is gone: one that belongs to ids of
    /// another user namespace stays, and is reported.
    fn remove_tree(&self, path: &Path) -> Result<bool, Error> {
        if self.options.dry_run {
            return Ok(true);
        }
        let mut dead = path.to_owned();
        if let Some(name) = path.file_name().and_then(OsStr::to_str)
            && !name.starts_with('.')
        {
            // Half a tree under its own name would be taken for the whole.
            dead.set_file_name(format!(".dead-{name}"));
            disk::remove_tree(&dead)?;
            fs::rename(path, &dead).at("rename", path)?;
        }
        match disk::remove_tree(&dead) {
            Ok(()) => Ok(true),
            Err(error) => {
                self.report.warning(&format!("an unpacked layer stays: {error}: {}", error.io()));
                Ok(false)
            }
        }
    }
}

/// Returns the bytes that an unpacked layer takes.
fn tree_bytes(path: &Path) -> u64 {
    unpacked::size_of(path).unwrap_or_else(|| disk::usage(path))
}

/// Returns when a file or folder was last used; one that goes while a dry run looks was never.
fn last_used(path: &Path) -> Result<(i64, i64), Error> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok((0, 0)),
        other => {
            let metadata = other.at("read", path)?;
            Ok((metadata.mtime(), metadata.mtime_nsec()))
        }
    }
}

#[cfg(test)]
mod tests;
