//! Layers as trees: from the store where they are unpacked already, else from their blobs, in one pass
//! from wherever those are. A blob that can be fetched again is not kept, so that no layer is on disk
//! twice; one of which nobody knows where it came from goes into the store on the way.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::build::Error;
use crate::disk::{self, At};
use crate::layer::{self, Blob, Limits, Owners, Unpacked};
use crate::oci::{Descriptor, Digest, json, media_type};
use crate::report::{Report, Task, Unit};
use crate::rootfs::{self, Lower, Sidecar};
use crate::sandbox::Mode;
use crate::store::{BlobWriter, Store, Unpacking};
use crate::transfer::Source;

/// How many layers unpack at once; each keeps some three threads busy.
const AT_ONCE: usize = 3;
/// About how much larger a layer is unpacked than compressed.
const EXPANSION: u64 = 3;
/// The most bytes of a sidecar that is read back.
const SIDECAR_LIMIT: u64 = 256 << 20;

/// A layer's blob and its digest before compression.
pub type LayerId = (Descriptor, Digest);

/// What is to come before layers are trees, in bytes of blobs but for the counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// Layers that are to be unpacked.
    pub layers: u64,
    /// Their blobs.
    pub unpack: u64,
    /// How many of the blobs are not in the store.
    pub blobs: u64,
    /// Those, which have to be fetched.
    pub fetch: u64,
    /// Of those, the ones that have to be kept.
    pub keep: u64,
    /// What the trees take at the least.
    pub trees_least: u64,
    /// What they take by all that is known, which of most is but the size of their blobs.
    pub trees_about: u64,
}

/// Unpacks layers into a store, for one map of ids.
pub struct Trees<'a> {
    store: &'a Store,
    elsewhere: &'a dyn Source,
    flavour: String,
    owners: Owners,
    report: &'a dyn Report,
}

impl std::fmt::Debug for Trees<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trees").field("flavour", &self.flavour).finish_non_exhaustive()
    }
}

impl<'a> Trees<'a> {
    /// Unpacks into `store`; blobs that it lacks come from `elsewhere`.
    pub fn new(
        store: &'a Store,
        elsewhere: &'a dyn Source,
        mode: Mode,
        report: &'a dyn Report,
    ) -> Trees<'a> {
        let owners = if mode == Mode::Single { Owners::Beside } else { Owners::InTree };
        Trees { store, elsewhere, flavour: mode.flavour(), owners, report }
    }

    /// Returns the layers as trees, from the bottom up, having unpacked those that were not.
    pub fn unpack_all(&self, layers: &[LayerId]) -> Result<Vec<Lower>, Error> {
        // An image may list a layer twice; the empty one often stands several times.
        let mut seen = BTreeSet::new();
        let mut todo: Vec<&LayerId> =
            layers.iter().filter(|(_, diff_id)| seen.insert(*diff_id)).collect();
        // What takes longest must not start last.
        todo.sort_by(|a, b| b.0.size.cmp(&a.0.size).then(a.1.cmp(&b.1)));
        let next = AtomicUsize::new(0);
        let failed: Mutex<Option<Error>> = Mutex::new(None);
        let take = || {
            loop {
                let Some(layer) = todo.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
                if let Err(error) = self.unpack(&layer.0, layer.1) {
                    // The first error is the one worth telling, and nothing new begins after it.
                    next.store(todo.len(), Ordering::Relaxed);
                    failed
                        .lock()
                        .unwrap_or_else(std::sync::PoisonError::into_inner)
                        .get_or_insert(error);
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..AT_ONCE.min(todo.len()) {
                scope.spawn(take);
            }
            take();
        });
        if let Some(error) = failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
        {
            return Err(error);
        }
        layers.iter().map(|(_, diff_id)| self.lower(*diff_id)).collect()
    }

    /// Tells what [`Trees::unpack_all`] would take.
    pub fn need(&self, layers: &[LayerId]) -> Result<Need, Error> {
        let mut seen = BTreeSet::new();
        let mut need = Need::default();
        for (blob, diff_id) in layers {
            if !seen.insert(*diff_id) || self.store.unpacked(&self.flavour, diff_id)?.is_some() {
                continue;
            }
            need.layers += 1;
            need.unpack += blob.size;
            let known = self.store.tree_size(diff_id);
            // What does not shrink grows by some bytes in each block.
            need.trees_least += known.unwrap_or(blob.size - blob.size / 64);
            need.trees_about += known.unwrap_or(blob.size.saturating_mul(EXPANSION));
            if !self.store.has_whole(blob) {
                need.blobs += 1;
                need.fetch += blob.size;
                if self.store.origins(&blob.digest)?.is_empty() {
                    need.keep += blob.size;
                }
            }
        }
        Ok(need)
    }

    fn lower(&self, diff_id: Digest) -> Result<Lower, Error> {
        let dir = self
            .store
            .unpacked(&self.flavour, &diff_id)?
            .ok_or_else(|| Error::Vanished { diff_id, store: self.store.root().to_owned() })?;
        let path = dir.join("sidecar.json");
        let bytes = disk::read(&path, SIDECAR_LIMIT)?;
        let sidecar: Sidecar =
            serde_json::from_slice(&bytes).map_err(|source| Error::Sidecar { path, source })?;
        Ok(Lower { tree: dir.join("tree"), sidecar: Some(sidecar), ledger: Arc::default() })
    }

    fn unpack(&self, blob: &Descriptor, diff_id: Digest) -> Result<(), Error> {
        let slot = match self.store.unpack_slot(&self.flavour, &diff_id)? {
            Unpacking::Ready(_) => return Ok(()),
            Unpacking::Slot(slot) => slot,
        };
        let compression = media_type::compression_of(&blob.media_type).ok_or_else(|| {
            Error::NoLayer { digest: blob.digest, media_type: blob.media_type.clone() }
        })?;
        let what =
            Blob { digest: blob.digest, size: blob.size, compression, diff_id: Some(diff_id) };
        rootfs::claim(slot.path())?;
        let tree = slot.path().join("tree");
        disk::make_dirs(&tree)?;
        let here = self.store.has_whole(blob);
        let verb = if here { "unpack" } else { "pull and unpack" };
        let task = Task::start(
            self.report,
            format!("{verb} {}", blob.digest.short()),
            Some(blob.size),
            Unit::Bytes,
        );
        let limits = Limits { charge: slot.charge(), ..Limits::of_blob(blob.size) };
        let unpacked = match self.pour(blob, &what, &tree, &limits, &task) {
            // Bytes that were changed on the way may come right the second time.
            Err(error) if !here && is_of_the_way(&error) => {
                self.report.detail(&format!("{error}; asking once more"));
                self.elsewhere.distrust(blob.digest);
                rootfs::remove_tree(&tree)?;
                disk::make_dirs(&tree)?;
                task.restart(0);
                if let Some(charge) = &limits.charge {
                    charge.set(0).at("write", &tree)?;
                }
                self.pour(blob, &what, &tree, &limits, &task)?
            }
            other => other?,
        };
        drop(limits);
        let sidecar = json::encode(&unpacked.sidecar)?;
        let path = slot.path().join("sidecar.json");
        std::fs::write(&path, sidecar).at("write", path)?;
        slot.commit()?;
        task.finish("done");
        Ok(())
    }

    /// Unpacks the blob from where it is. What can be fetched again is not kept beside its tree.
    fn pour(
        &self,
        blob: &Descriptor,
        what: &Blob,
        tree: &Path,
        limits: &Limits,
        task: &Task<'_>,
    ) -> Result<Unpacked, Error> {
        let unpack = |source: &mut (dyn Read + Send)| {
            layer::unpack(what, source, tree, self.owners, limits).map_err(Error::from)
        };
        if self.store.has_whole(blob) {
            let file = self.store.open_blob(&blob.digest)?;
            return unpack(&mut Counted { inner: file, task });
        }
        let stream = self.elsewhere.blob(blob, 0)?;
        if !self.store.origins(&blob.digest)?.is_empty() {
            return unpack(&mut Counted { inner: stream, task });
        }
        let mut tee = Tee { inner: stream, out: self.store.raw_writer()?, task };
        let unpacked = unpack(&mut tee)?;
        // Unpacking has verified the very bytes that went into the file.
        tee.out.commit_hashed(blob.digest, blob.size)?;
        Ok(unpacked)
    }
}

/// Tells whether an error may be of the blob's way to us, and not the blob's own.
fn is_of_the_way(error: &Error) -> bool {
    use layer::Error as Layer;
    matches!(error, Error::Layer(Layer::WrongDigest { .. } | Layer::WrongSize { .. }))
}

struct Counted<'t, R> {
    inner: R,
    task: &'t Task<'t>,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.task.advance(read as u64);
        Ok(read)
    }
}

/// Gives what it reads to a blob too.
struct Tee<'t, R> {
    inner: R,
    out: BlobWriter,
    task: &'t Task<'t>,
}

impl<R: Read> Read for Tee<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.out.write_all(&buffer[..read])?;
        self.task.advance(read as u64);
        Ok(read)
    }
}
