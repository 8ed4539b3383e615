//! Small facts beside the layout: which layer a key gave, which blob holds a diff id, where a blob
//! can be fetched. Each is a JSON file of its own; a damaged or missing one only costs time.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Error, Store, encode, error};
use crate::disk::{self, At};
use crate::oci::{Descriptor, Digest, Reference};

/// What running a layer's recipe gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CachedLayer {
    /// The layer's digest before compression; `None` when the run changed nothing.
    pub diff_id: Option<Digest>,
    /// The recipe, for people.
    #[serde(default)]
    pub recipe: String,
    /// What else the build wants to know when it meets the layer again.
    #[serde(flatten)]
    pub rest: BTreeMap<String, Value>,
}

/// The most bytes of a record: some ten thousand fetches.
const LIMIT: u64 = 16 << 20;

#[derive(Serialize, Deserialize)]
struct Origins {
    names: Vec<Reference>,
}

impl Store {
    /// Returns what a layer's key gave, and notes that it was used.
    pub fn cached(&self, key: &Digest) -> Result<Option<CachedLayer>, Error> {
        let path = self.cache_path(key);
        let found = read(&path)?;
        if found.is_some() {
            touch(&path);
        }
        Ok(found)
    }

    /// Keeps what a layer's key gave.
    pub fn remember(&self, key: &Digest, layer: &CachedLayer) -> Result<(), Error> {
        write(&self.cache_path(key), layer)
    }

    /// Forgets what a layer's key gave.
    pub fn forget(&self, key: &Digest) -> Result<(), Error> {
        let path = self.cache_path(key);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => Ok(other.at("remove", path)?),
        }
    }

    /// Returns what the steps of a layer fetched, by its key; `None` where that was not recorded.
    pub fn fetches<T: DeserializeOwned>(&self, key: &Digest) -> Result<Option<Vec<T>>, Error> {
        read(&self.fetches_path(key))
    }

    /// Returns what the steps of all layers fetched. A record that can't be read is none.
    pub fn all_fetches<T: DeserializeOwned>(&self) -> Result<Vec<T>, Error> {
        let dir = self.path("fetches");
        let mut all = Vec::new();
        if dir.is_dir() {
            for name in disk::list(&dir)? {
                all.extend(read::<Vec<T>>(&dir.join(name))?.unwrap_or_default());
            }
        }
        Ok(all)
    }

    /// Keeps what the steps of a layer fetched.
    pub fn set_fetches<T: Serialize>(&self, key: &Digest, fetches: &[T]) -> Result<(), Error> {
        disk::make_dirs(&self.path("fetches"))?;
        write(&self.fetches_path(key), &fetches)
    }

    /// Returns the blob that a compression profile made of a diff id, if it is here whole.
    pub fn blob_for(&self, diff_id: &Digest, profile: &str) -> Result<Option<Descriptor>, Error> {
        let found: Option<Descriptor> = read(&self.diff_path(diff_id, profile))?;
        Ok(found.filter(|descriptor| self.has_whole(descriptor)))
    }

    /// Keeps which blob a compression profile made of a diff id.
    pub fn remember_blob(
        &self,
        diff_id: &Digest,
        profile: &str,
        blob: &Descriptor,
    ) -> Result<(), Error> {
        write(&self.diff_path(diff_id, profile), blob)
    }

    /// Lists the names below which a blob can be fetched, the first known first.
    pub fn origins(&self, digest: &Digest) -> Result<Vec<Reference>, Error> {
        let found: Option<Origins> = read(&self.origin_path(digest))?;
        Ok(found.map(|origins| origins.names).unwrap_or_default())
    }

    /// Notes that blobs can be fetched below a name.
    pub fn add_origins(&self, digests: &[Digest], name: &Reference) -> Result<(), Error> {
        let _lock = error::lock(&self.path("lock"))?;
        for digest in digests {
            let mut names = self.origins(digest)?;
            if !names.contains(name) {
                names.push(name.clone());
                write(&self.origin_path(digest), &Origins { names })?;
            }
        }
        Ok(())
    }

    fn cache_path(&self, key: &Digest) -> PathBuf {
        self.path("cache").join(format!("{}.json", key.hex()))
    }

    fn fetches_path(&self, key: &Digest) -> PathBuf {
        self.path("fetches").join(format!("{}.json", key.hex()))
    }

    fn diff_path(&self, diff_id: &Digest, profile: &str) -> PathBuf {
        self.path("diffs").join(format!("{}.{profile}.json", diff_id.hex()))
    }

    fn origin_path(&self, digest: &Digest) -> PathBuf {
        self.path("origins").join(format!("{}.json", digest.hex()))
    }
}

/// Reads a record; one that is missing or damaged is none.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    match disk::read(path, LIMIT) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Replaces a record whole. It is not made durable: after a crash it is the old one, the new one,
/// or damaged, which readers take for none.
pub(super) fn write<T: Serialize>(path: &Path, record: &T) -> Result<(), Error> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let bytes = encode(record, path)?;
    let unique = format!("new-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let staged = path.with_extension(unique);
    fs::write(&staged, bytes).and_then(|()| fs::rename(&staged, path)).map_err(|source| {
        fs::remove_file(&staged).ok();
        disk::Error::new("write", path, source).into()
    })
}

/// Notes on a file or folder that it was used now, by its time of modification. A store that may
/// only be read has no use for it.
pub(super) fn touch(path: &Path) {
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::empty()).ok();
}
