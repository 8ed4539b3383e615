//! Which step of a layer wrote an entry, for audits alone.
//!
//! At the end of each step the clock of the tree's file system is read. An entry's time of change,
//! which no program can set, lies between two of these; so nothing is walked while steps run. Where a
//! later step only touched the metadata of a file, its time of writing still names the step before.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Error;
use crate::changes::{Changes, Kind};
use crate::disk::At;
use crate::oci::Digest;

/// How often a clock that does not go on is looked at again.
const TRIES: usize = 100;

/// Which steps wrote what, by the diff ids of the layers that a build made.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Written {
    layers: Mutex<BTreeMap<Digest, LayerWritten>>,
}

/// Which steps wrote what of one layer.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct LayerWritten {
    steps: Vec<String>,
    /// The paths, lossily and with a slash before them, each with the number of its step.
    paths: BTreeMap<String, usize>,
}

impl Written {
    /// Returns the step that wrote a path of a layer, where that is known.
    pub fn step(&self, layer: &Digest, path: &str) -> Option<String> {
        let layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        let layer = layers.get(layer)?;
        layer.steps.get(*layer.paths.get(path)?).cloned()
    }

    pub(super) fn keep(&self, diff_id: Digest, layer: LayerWritten) {
        self.layers.lock().unwrap_or_else(PoisonError::into_inner).insert(diff_id, layer);
    }
}

/// Seconds and nanoseconds since 1970.
pub(super) type Stamp = (i64, i64);

fn changed(metadata: &Metadata) -> Stamp {
    (metadata.ctime(), metadata.ctime_nsec())
}

/// Notes when each step of a layer ended.
pub(super) struct Marks<'a> {
    /// Where the clock is read.
    folder: &'a Path,
    begin: Stamp,
    ends: RefCell<Vec<(String, Stamp)>>,
}

impl<'a> Marks<'a> {
    /// Begins; `folder` lies on the tree's file system and outside the tree.
    pub(super) fn begin(folder: &'a Path) -> Result<Marks<'a>, Error> {
        Ok(Marks { folder, begin: clock(folder)?, ends: RefCell::default() })
    }

    /// Notes that a step has ended.
    pub(super) fn end(&self, step: &str) -> Result<(), Error> {
        let end = clock(self.folder)?;
        // The clock goes by ticks of some milliseconds: what the next step writes must not seem to be
        // of this one's last.
        for _ in 0..TRIES {
            if clock(self.folder)? != end {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.ends.borrow_mut().push((step.to_owned(), end));
        Ok(())
    }

    /// Tells of all that is there of a layer which step wrote it; to be called before anything else
    /// touches the tree.
    pub(super) fn of(self, root: &Path, changes: &Changes) -> Result<LayerWritten, Error> {
        let ends = self.ends.into_inner();
        let last = ends.last().map_or(self.begin, |(_, end)| *end);
        let mut paths = BTreeMap::new();
        let mut cursor = changes.cursor();
        while let Some((path, kind)) = cursor.advance() {
            if kind != Kind::Present {
                continue;
            }
            let file = root.join(OsStr::from_bytes(path));
            let metadata = fs::symlink_metadata(&file).at("look at", &file)?;
            let written = (metadata.mtime(), metadata.mtime_nsec());
            let by_clock = metadata.is_file() && written >= self.begin && written <= last;
            let when = if by_clock { written } else { changed(&metadata) };
            if let Some(step) = ends.iter().position(|(_, end)| when <= *end) {
                paths.insert(format!("/{}", String::from_utf8_lossy(path)), step);
            }
        }
        Ok(LayerWritten { steps: ends.into_iter().map(|(step, _)| step).collect(), paths })
    }
}

/// Reads the clock of a folder's file system, which is the one that times of files come from.
pub(super) fn clock(folder: &Path) -> Result<Stamp, Error> {
    let path = folder.join("clock");
    fs::write(&path, b"").at("write", &path)?;
    Ok(changed(&fs::metadata(&path).at("look at", &path)?))
}
