//! What may go: everything that no name reaches and that was not used lately. Works alone, while no
//! other process has the store open, so that nothing goes that somebody has just found.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::FlockOperation;

use super::run::{remove_tree, usage};
use super::{CachedLayer, Error, Store, error, records};
use crate::disk::{self, At};
use crate::oci::{Descriptor, Digest, Document, media_type};
use crate::report::Report;

/// The annotation by which an image names the base that it was built on.
const BASE_DIGEST: &str = "org.opencontainers.image.base.digest";

/// How much a collection leaves of what no name reaches.
#[derive(Clone, Debug, Default)]
pub struct GcOptions {
    /// How many bytes of cached layers and unpacked trees stay, the last used first; `None` is all.
    pub keep_bytes: Option<u64>,
    /// How long ago the last use of those that stay may be; `None` is any time.
    pub max_age: Option<Duration>,
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
    /// Removes what no name reaches and no budget keeps: blobs, cached layers and unpacked trees.
    /// Another process that has the store open is [`Error::Busy`]; this one must not be building.
    pub fn gc(&self, options: &GcOptions, report: &dyn Report) -> Result<Freed, Error> {
        let alone = if options.dry_run { None } else { Some(Alone::with(self)?) };
        let mut freed = Freed::default();
        if !options.dry_run {
            freed.bytes += self.sweep(report)?;
        }
        let mut keep = BTreeSet::new();
        for entry in self.read_index()?.manifests {
            self.reach(&entry, &mut keep)?;
        }
        let work = Collection { store: self, options, report, blobs: self.diffs()? };
        let gone = work.choose(&mut keep, &mut freed)?;
        work.remove_candidates(gone, &mut freed)?;
        work.remove_blobs(&keep, &mut freed)?;
        work.remove_records(&keep, &mut freed)?;
        work.remove_logs(&mut freed)?;
        drop(alone);
        Ok(freed)
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
        let mut gone = Vec::new();
        for candidate in candidates {
            let (bytes, digests) = match &candidate.what {
                What::Tree(bytes) => (*bytes, Vec::new()),
                What::Key(diff_id) => self.blobs_of(diff_id.as_ref(), keep),
            };
            let fits = self.options.keep_bytes.is_none_or(|most| freed.kept_bytes + bytes <= most);
            if fits && oldest.is_none_or(|oldest| candidate.used >= oldest) {
                freed.kept_bytes += bytes;
                keep.extend(digests);
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
                    let what = What::Tree(usage(&path));
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
                    let bytes = usage(&path);
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
                _ => path.extension() == Some(OsStr::new("json")),
            })
        };
        for folder in ["cache", "diffs", "origins"] {
            let dir = self.store.path(folder);
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
        let bytes = usage(path);
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
            remove_tree(&dead)?;
            fs::rename(path, &dead).at("rename", path)?;
        }
        match remove_tree(&dead) {
            Ok(()) => Ok(true),
            Err(error) => {
                self.report.warning(&format!("an unpacked layer stays: {error}: {}", error.io()));
                Ok(false)
            }
        }
    }
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
mod tests {
    use super::*;
    use crate::oci::{ConfigDocument, Index, Manifest, Platform, Reference};
    use crate::report::Silent;
    use crate::store::Unpacking;

    struct Image {
        layer: Descriptor,
        index: Descriptor,
    }

    fn image(store: &Store, seed: &str, annotations: BTreeMap<String, String>) -> Image {
        let put = |media_type: &str, bytes: &[u8]| {
            let (digest, size) = store.put_bytes(bytes).unwrap();
            Descriptor::new(media_type, digest, size)
        };
        let platform = Platform::linux("amd64");
        let mut config = ConfigDocument::empty(&platform);
        config.set_label("seed", seed);
        let config = put(media_type::CONFIG, &config.encode().unwrap());
        let layer = put(media_type::LAYER, format!("layer of {seed}").as_bytes());
        let manifest =
            Document::of_manifest(&Manifest::new(config, vec![layer.clone()], annotations))
                .unwrap();
        store.put_document(&manifest).unwrap();
        let mut entry = manifest.descriptor();
        entry.platform = Some(platform);
        let index = Document::of_index(&Index::new(vec![entry], BTreeMap::new())).unwrap();
        store.put_document(&index).unwrap();
        Image { layer, index: index.descriptor() }
    }

    fn blobs(store: &Store) -> usize {
        disk::list(&store.path("blobs/sha256")).unwrap().len()
    }

    #[test]
    fn what_names_reach_stays_with_its_base() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let base = image(&store, "base", BTreeMap::new());
        let annotations = BTreeMap::from([(BASE_DIGEST.to_owned(), base.index.digest.to_string())]);
        let named = image(&store, "named", annotations);
        let loose = image(&store, "loose", BTreeMap::new());
        let name: Reference = "a.example/b:c".parse().unwrap();
        store.tag(&name, &named.index).unwrap();
        store.add_origins(&[loose.layer.digest, base.layer.digest], &name).unwrap();
        let dry = store.gc(&GcOptions { dry_run: true, ..GcOptions::default() }, &Silent).unwrap();
        assert_eq!((dry.blobs, blobs(&store)), (4, 12));
        let freed = store.gc(&GcOptions::default(), &Silent).unwrap();
        assert_eq!(freed, dry);
        assert!(
            store.is_complete(&named.index).unwrap() && store.is_complete(&base.index).unwrap()
        );
        assert!(!store.has(&loose.layer.digest));
        assert!(store.origins(&loose.layer.digest).unwrap().is_empty());
        store.untag(&name).unwrap();
        store.gc(&GcOptions::default(), &Silent).unwrap();
        assert_eq!(blobs(&store), 0);
    }

    #[test]
    fn the_last_used_stays_within_the_budget() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let mut keys = Vec::new();
        for seed in ["one", "two", "three"] {
            let diff_id = Digest::of(seed.as_bytes());
            let (digest, size) = store.put_bytes(&seed.as_bytes().repeat(1000)).unwrap();
            let blob = Descriptor::new(media_type::LAYER, digest, size);
            store.remember_blob(&diff_id, "gzip-1", &blob).unwrap();
            let key = Digest::of(format!("key {seed}").as_bytes());
            let layer = CachedLayer {
                diff_id: Some(diff_id),
                recipe: seed.to_owned(),
                rest: BTreeMap::new(),
            };
            store.remember(&key, &layer).unwrap();
            keys.push((key, diff_id));
        }
        let set_time = |path: &Path, seconds: i64| {
            let time = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: 0 };
            let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
            rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::empty())
                .unwrap();
        };
        for (position, (key, _)) in keys.iter().enumerate() {
            let seconds = i64::try_from(position).unwrap() + 1000;
            set_time(&store.path("cache").join(format!("{}.json", key.hex())), seconds);
        }
        // Meeting a layer again makes it the last used.
        store.cached(&keys[0].0).unwrap().unwrap();
        let options = GcOptions { keep_bytes: Some(8000), ..GcOptions::default() };
        let freed = store.gc(&options, &Silent).unwrap();
        assert_eq!((freed.keys, freed.blobs, freed.kept_bytes), (1, 1, 8000));
        let there: Vec<bool> =
            keys.iter().map(|(_, id)| store.blob_for(id, "gzip-1").unwrap().is_some()).collect();
        assert_eq!(there, [true, false, true]);
        let options = GcOptions { max_age: Some(Duration::from_hours(24)), ..GcOptions::default() };
        store.gc(&options, &Silent).unwrap();
        let there: Vec<bool> =
            keys.iter().map(|(key, _)| store.cached(key).unwrap().is_some()).collect();
        assert_eq!(there, [true, false, false]);
    }

    #[test]
    fn trees_go_by_the_same_budget_and_leftovers_always() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let diff_id = Digest::of(b"tree");
        let Unpacking::Slot(slot) = store.unpack_slot("root", &diff_id).unwrap() else { panic!() };
        fs::create_dir(slot.path().join("tree")).unwrap();
        fs::write(slot.path().join("tree/file"), [1; 5000]).unwrap();
        slot.commit().unwrap();
        let leftover = store.path("unpacked/root/.new-1");
        fs::create_dir_all(&leftover).unwrap();
        let freed = store.gc(&GcOptions::default(), &Silent).unwrap();
        assert_eq!((freed.trees, freed.leftovers), (0, 1));
        assert!(freed.kept_bytes >= 5000 && !leftover.exists());
        let freed =
            store.gc(&GcOptions { keep_bytes: Some(0), ..GcOptions::default() }, &Silent).unwrap();
        assert_eq!(freed.trees, 1);
        assert_eq!(store.unpacked("root", &diff_id).unwrap(), None);
    }

    #[test]
    fn a_store_that_another_has_open_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let other = Store::open(dir.path()).unwrap();
        assert!(matches!(store.gc(&GcOptions::default(), &Silent), Err(Error::Busy { .. })));
        drop(other);
        store.gc(&GcOptions::default(), &Silent).unwrap();
        // And shares the store again afterwards.
        let other = Store::open(dir.path()).unwrap();
        assert!(matches!(other.gc(&GcOptions::default(), &Silent), Err(Error::Busy { .. })));
    }

    #[test]
    fn verify_finds_each_kind_of_damage() {
        use crate::store::Problem;
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let good = image(&store, "good", BTreeMap::new());
        store.tag(&"a/good".parse().unwrap(), &good.index).unwrap();
        assert_eq!(store.verify(2, &Silent).unwrap(), []);
        let bad = image(&store, "bad", BTreeMap::new());
        store.tag(&"a/bad".parse().unwrap(), &bad.index).unwrap();
        fs::write(store.blob_path(&bad.layer.digest), b"LAYER of bad").unwrap();
        fs::write(store.path("blobs/sha256/notes"), b"").unwrap();
        let gone = image(&store, "gone", BTreeMap::new());
        store.tag(&"a/gone".parse().unwrap(), &gone.index).unwrap();
        store.discard(&gone.layer.digest).unwrap();
        let problems = store.verify(2, &Silent).unwrap();
        assert!(
            matches!(problems[..], [
            Problem::Corrupt { digest, .. }, Problem::Unfit { digest: missing, .. }, Problem::Foreign { .. }
        ] if digest == bad.layer.digest && missing == gone.layer.digest),
            "{problems:?}"
        );
        store.add_origins(&[gone.layer.digest], &"quay.io/a/b".parse().unwrap()).unwrap();
        assert_eq!(store.verify(1, &Silent).unwrap().len(), 2);
    }
}
