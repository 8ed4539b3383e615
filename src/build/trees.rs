//! Layers as trees: from the store where they are unpacked already, else from their blobs, which
//! come from wherever they are, into the store and into the tree in one pass.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::build::Error;
use crate::disk::{self, At};
use crate::layer::{self, Blob, Limits, Owners};
use crate::oci::{Descriptor, Digest, json, media_type};
use crate::report::{Report, Task, Unit};
use crate::rootfs::{self, Lower, Sidecar};
use crate::sandbox::Mode;
use crate::store::{BlobWriter, Store, Unpacking};
use crate::transfer::Source;

/// How many layers unpack at once; each keeps some three threads busy.
const AT_ONCE: usize = 3;
/// The most bytes of a sidecar that is read back.
const SIDECAR_LIMIT: u64 = 256 << 20;

/// A layer's blob and its digest before compression.
pub type LayerId = (Descriptor, Digest);

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

    /// Returns how many bytes the blobs have that would have to be fetched.
    pub fn missing(&self, layers: &[LayerId]) -> Result<u64, Error> {
        let mut seen = BTreeSet::new();
        let mut bytes = 0;
        for (blob, diff_id) in layers {
            if seen.insert(*diff_id)
                && self.store.unpacked(&self.flavour, diff_id)?.is_none()
                && !self.store.has_whole(blob)
            {
                bytes += blob.size;
            }
        }
        Ok(bytes)
    }

    /// Returns how many bytes the blobs have that would have to be unpacked.
    pub fn to_unpack(&self, layers: &[LayerId]) -> Result<u64, Error> {
        let mut seen = BTreeSet::new();
        let mut bytes = 0;
        for (blob, diff_id) in layers {
            if seen.insert(*diff_id) && self.store.unpacked(&self.flavour, diff_id)?.is_none() {
                bytes += blob.size;
            }
        }
        Ok(bytes)
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
        let limits = Limits::of_blob(blob.size);
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
        let unpacked = if here {
            let file = self.store.open_blob(&blob.digest)?;
            layer::unpack(
                &what,
                &mut Counted { inner: file, task: &task },
                &tree,
                self.owners,
                &limits,
            )?
        } else {
            let stream = self.elsewhere.blob(blob, 0)?;
            let mut tee = Tee { inner: stream, out: self.store.raw_writer()?, task: &task };
            let unpacked = layer::unpack(&what, &mut tee, &tree, self.owners, &limits)?;
            // Unpacking has verified the very bytes that went into the file.
            tee.out.commit_hashed(blob.digest, blob.size)?;
            unpacked
        };
        let sidecar = json::encode(&unpacked.sidecar)?;
        let path = slot.path().join("sidecar.json");
        std::fs::write(&path, sidecar).at("write", path)?;
        slot.commit()?;
        task.finish("done");
        Ok(())
    }
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
