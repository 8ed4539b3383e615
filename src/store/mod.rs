//! The local store: a valid OCI layout that any tool can read, and beside it what makes builds fast.
//!
//! ```text
//! STORE/oci-layout, index.json    names: `org.opencontainers.image.ref.name` = the full reference
//!       blobs/sha256/HEX          content; a file here is whole, or it was damaged from outside
//!       cache/KEY.json            layer key -> diff id          diffs/HEX.PROFILE.json  diff id -> blob
//!       origins/HEX.json          where a blob that is not here can be fetched
//!       fetches/KEY.json          layer key -> what its steps fetched; the bodies are blobs
//!       unpacked/FLAVOUR/HEX/     layers as trees (0700)        run/N/  a live process's temporary files
//!       lock  flock'ed to change index.json      in-use  flock'ed shared by all, exclusively by `gc`
//! ```

mod blobs;
mod docker;
mod endpoint;
mod error;
mod export;
mod files;
mod flatten;
mod fsck;
mod gc;
mod growing;
mod import;
mod index;
mod layout;
mod outside;
mod records;
mod referrers;
mod root;
mod run;
mod tarball;
mod unpacked;
mod writer;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustix::fs::FlockOperation;

use crate::disk::{self, At, Budget, Charge};
use crate::oci::{Digest, json};

pub use error::Error;
pub use export::{ExportOptions, Output};
pub use files::Input;
pub use fsck::Problem;
pub use gc::{Freed, GcOptions};
pub use growing::Growing;
pub use import::{Form, FormError, ImportOptions, Imported, Pack, Packed, Produce};
pub use outside::Outside;
pub use records::CachedLayer;
pub use run::{Run, abandon_runs};
pub use unpacked::{Slot, Unpacking};
pub use writer::{BlobWriter, Staged, reopen};

/// The annotation of an index entry that is one platform's part of a name's build to come.
pub const BUILD_OF: &str = "dev.ocibuild.build-of";

/// An open store. Clones are the same store; all of it may be used from several threads, and
/// several processes, also on several machines over NFS, may have one store open.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    root: PathBuf,
    /// Holds the shared lock that keeps `gc` of other processes out.
    in_use: File,
    /// The run folder for temporary files of a process that never asked for one.
    scratch: Mutex<Option<Arc<Run>>>,
    /// Whether this file system makes files without a name.
    nameless: OnceLock<bool>,
    /// What may be written here, where that was bounded.
    budget: OnceLock<Arc<Budget>>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Store").field(&self.inner.root).finish()
    }
}

const FOLDERS: [&str; 7] = ["blobs/sha256", "cache", "diffs", "origins", "unpacked", "run", "logs"];

impl Store {
    /// Opens the store in a folder, and makes it where there is none. A folder that holds other
    /// things is refused. Waits while a `gc` is at work.
    pub fn open(root: &Path) -> Result<Store, Error> {
        if !is_complete(root) {
            make(root)?;
        }
        let path = root.join("in-use");
        let options = || {
            let mut options = File::options();
            options.read(true);
            options
        };
        let in_use = match options().write(true).create(true).truncate(false).open(&path) {
            // Another user's store: enough to read from.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
                ) =>
            {
                options().open(&path)
            }
            other => other,
        };
        let in_use = in_use.at("open", &path)?;
        error::flock(&in_use, FlockOperation::LockShared, &path)?;
        let inner = Inner {
            root: root.to_owned(),
            in_use,
            scratch: Mutex::new(None),
            nameless: OnceLock::new(),
            budget: OnceLock::new(),
        };
        Ok(Store { inner: Arc::new(inner) })
    }

    /// Returns the store's folder.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    /// Bounds what blobs and unpacked layers may take, those that are here included. The first bound
    /// holds as long as the store is open.
    pub fn bound(&self, most: u64) -> Result<(), Error> {
        let used = self.used()?;
        self.inner.budget.get_or_init(|| Budget::new(most, used));
        Ok(())
    }

    /// Begins the account of something large to be written; `None` where there is no bound.
    pub fn charge(&self) -> Option<Charge> {
        self.inner.budget.get().map(Budget::charge)
    }

    /// Returns the folder for what build steps wrote to their streams.
    pub fn logs(&self) -> PathBuf {
        self.path("logs")
    }

    fn path(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.inner.root.join(name.as_ref())
    }

    /// Returns a run folder that lives as long as the store is open in this process.
    fn scratch(&self) -> Result<Arc<Run>, Error> {
        let mut scratch = self.inner.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(run) = &*scratch {
            return Ok(Arc::clone(run));
        }
        let run = Arc::new(Run::begin(&self.path("run"))?);
        *scratch = Some(Arc::clone(&run));
        Ok(run)
    }
}

fn is_complete(root: &Path) -> bool {
    root.join("oci-layout").is_file()
        && root.join("index.json").is_file()
        && FOLDERS.iter().all(|folder| root.join(folder).is_dir())
}

fn make(root: &Path) -> Result<(), Error> {
    disk::make_dirs(root)?;
    let layout = root.join("oci-layout");
    // Another process may be making the store at this moment: `oci-layout` comes before all but
    // the lock, so it is looked for after the others.
    let begun =
        |name: &OsString| name == "lock" || name.as_encoded_bytes().starts_with(b".oci-layout.");
    if !disk::list(root)?.iter().all(begun) && !layout.exists() {
        return Err(Error::NotAStore { path: root.to_owned() });
    }
    let _lock = error::lock(&root.join("lock"))?;
    if layout.exists() {
        read_version(&layout)?;
    } else {
        disk::write_whole(&layout, VERSION.as_bytes())?;
    }
    let index = root.join("index.json");
    if !index.exists() {
        disk::write_whole(&index, index::EMPTY.as_bytes())?;
    }
    for folder in FOLDERS {
        disk::make_dirs(&root.join(folder))?;
    }
    for private in ["unpacked", "run"] {
        // Unpacked set-uid files of an image must not be within other users' reach.
        let path = root.join(private);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700))
            .at("set the mode of", &path)?;
    }
    Ok(())
}

/// The content of `oci-layout`.
const VERSION: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// Refuses a layout of another major version.
fn read_version(path: &Path) -> Result<(), Error> {
    check_version(&disk::read(path, 4096)?, path)
}

/// Refuses the `oci-layout` of another major version; `path` is for errors.
fn check_version(bytes: &[u8], path: &Path) -> Result<(), Error> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Layout {
        image_layout_version: String,
    }
    let layout: Layout = serde_json::from_slice(bytes)
        .map_err(|source| Error::Json { path: path.to_owned(), source })?;
    if layout.image_layout_version.starts_with("1.") {
        Ok(())
    } else {
        Err(Error::Version { path: path.to_owned(), version: layout.image_layout_version })
    }
}

fn blob_name(digest: &Digest) -> PathBuf {
    Path::new("blobs/sha256").join(digest.hex())
}

fn encode<T: serde::Serialize>(value: &T, path: &Path) -> Result<Vec<u8>, Error> {
    json::encode(value).map_err(|source| Error::Encode { path: path.to_owned(), source })
}
