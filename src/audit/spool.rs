//! The contents of the files that differ, taken out of a layer in one pass and kept in a nameless
//! file: layers are streams, and memory is not for a gigabyte of differences.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Error;
use super::image::OpenLayer;
use crate::disk::{self, At as _};
use crate::layer;

/// The largest file that is looked into.
pub(super) const FILE_LIMIT: u64 = 64 << 20;

/// The most bytes of a layer's files that are kept; what comes later is compared by digest alone.
const TOTAL_LIMIT: u64 = 4 << 30;

/// Contents by path.
#[derive(Debug)]
pub(super) struct Spool {
    file: File,
    places: BTreeMap<Vec<u8>, (u64, usize)>,
}

impl Spool {
    /// Takes the wanted files out of a layer.
    pub(super) fn fill(
        mut layer: OpenLayer<'_>,
        wanted: &BTreeSet<Vec<u8>>,
        scratch: &Path,
    ) -> Result<Spool, Error> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = scratch.join(format!("differing-{number}"));
        let mut file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .at("create", &path)?;
        std::fs::remove_file(&path).at("remove", &path)?;
        let mut places = BTreeMap::new();
        let mut at = 0;
        let (blob, limits) = (layer.blob, layer.limits);
        layer::entries(&blob, &mut layer.stream, &limits, &mut |entry, content| {
            let fits = entry.size <= FILE_LIMIT && at + entry.size <= TOTAL_LIMIT;
            if !fits || !wanted.contains(&entry.path) {
                return Ok(());
            }
            content.read(&mut |piece| {
                file.write_all(piece).at("write", &path).map_err(layer::Error::Disk)
            })?;
            // A file of at most 64 MiB.
            places.insert(entry.path, (at, usize::try_from(entry.size).unwrap_or(0)));
            at += entry.size;
            Ok(())
        })?;
        Ok(Spool { file, places })
    }

    /// Returns a file's content; `None` where it was not kept.
    pub(super) fn read(&self, path: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let Some((at, length)) = self.places.get(path) else { return Ok(None) };
        let mut bytes = vec![0; *length];
        self.file
            .read_exact_at(&mut bytes, *at)
            .map_err(|source| disk::Error::new("read", "the differing files", source))?;
        Ok(Some(bytes))
    }
}
