//! A blob on its way in: written to a file without a name, hashed on the way, and given its name only
//! when whole, checked and on disk. A process that dies, or a full disk, leaves nothing.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use super::blobs::{size_of, verify};
use super::error::named;
use super::growing::{Grower, Growing};
use super::{Error, Run, Store};
use crate::disk::{self, At, Charge};
use crate::oci::{Digest, Hasher};

/// How many small writes are gathered before they go to the file.
const BUFFER: usize = 128 << 10;

/// Opens a file again, for reading at a place of its own, whether or not it has a name.
pub fn reopen(file: &File) -> io::Result<File> {
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// The file behind a blob to come.
enum Stage {
    /// Vanishes by itself.
    Nameless(File),
    /// Removed by `drop`, and after a crash with its run folder.
    Named { file: File, path: PathBuf, _run: Arc<Run> },
}

impl Stage {
    /// Opens a file for a blob to come: without a name where the file system can.
    fn open(store: &Store) -> Result<Stage, Error> {
        let dir = store.path("blobs/sha256");
        let mode = Mode::from_raw_mode(0o644);
        let nameless = *store.inner.nameless.get_or_init(|| Path::new("/proc/self/fd").exists());
        if nameless {
            let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
            match rustix::fs::open(&dir, flags, mode) {
                Ok(file) => return Ok(Stage::Nameless(file.into())),
                // NFS, and what stacks over it, has no such files.
                Err(Errno::NOTSUP | Errno::ISDIR | Errno::NOENT | Errno::INVAL) => {}
                Err(error) => return Err(disk::Error::new("write to", dir, error).into()),
            }
        }
        Stage::named(store)
    }

    fn named(store: &Store) -> Result<Stage, Error> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let run = store.scratch()?;
        let path = run.path().join(format!("blob-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        let file = File::options().read(true).write(true).create_new(true).open(&path);
        let file = file.at("create", &path)?;
        Ok(Stage::Named { file, path, _run: run })
    }

    fn file(&self) -> &File {
        match self {
            Stage::Nameless(file) | Stage::Named { file, .. } => file,
        }
    }

    fn link(&self, target: &Path) -> rustix::io::Result<()> {
        match self {
            Stage::Nameless(file) => {
                let source = format!("/proc/self/fd/{}", file.as_raw_fd());
                rustix::fs::linkat(CWD, source, CWD, target, AtFlags::SYMLINK_FOLLOW)
            }
            Stage::Named { path, .. } => {
                match rustix::fs::linkat(CWD, path, CWD, target, AtFlags::empty()) {
                    // No hard links here: a rename may replace a blob, but by the same bytes.
                    Err(Errno::PERM | Errno::NOTSUP | Errno::NOSYS | Errno::MLINK) => {
                        rustix::fs::rename(path, target)
                    }
                    other => other,
                }
            }
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Stage::Named { path, .. } = self {
            // Gone already where it was renamed.
            fs::remove_file(path).ok();
        }
    }
}

/// A blob being written. Dropped without a commit it leaves nothing.
#[must_use = "a blob is kept only when it is committed"]
pub struct BlobWriter {
    store: Store,
    stage: Stage,
    hasher: Option<Hasher>,
    written: u64,
    buffer: Vec<u8>,
    grower: Option<Grower>,
    charge: Option<Charge>,
}

impl std::fmt::Debug for BlobWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlobWriter").field("written", &self.written).finish_non_exhaustive()
    }
}

impl BlobWriter {
    pub(super) fn new(store: &Store, hasher: Option<Hasher>) -> Result<BlobWriter, Error> {
        let stage = Stage::open(store)?;
        Ok(BlobWriter {
            store: store.clone(),
            stage,
            hasher,
            written: 0,
            buffer: Vec::new(),
            grower: None,
            charge: store.charge(),
        })
    }

    /// Returns how many bytes were written so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Lets others read the blob while it is written.
    pub fn share(&mut self) -> Result<Growing, Error> {
        let there = self.written - self.buffer.len() as u64;
        let ends = Grower::new(self.stage.file(), there);
        let (grower, growing) = ends.at("read", self.place())?;
        self.grower = Some(grower);
        Ok(growing)
    }

    /// Opens the file that is written, to be read up to what was flushed.
    pub fn reader(&self) -> io::Result<File> {
        reopen(self.stage.file())
    }

    /// Keeps the blob and returns its digest and size, which must be the expected ones if there
    /// are any.
    pub fn commit(self, expected: Option<(Digest, u64)>) -> Result<(Digest, u64), Error> {
        let staged = self.finish(expected)?;
        staged.publish()
    }

    /// Keeps the blob under a digest that the caller has computed from the bytes that it wrote. A
    /// hashing writer still verifies it.
    pub fn commit_hashed(self, digest: Digest, size: u64) -> Result<(Digest, u64), Error> {
        self.finish(Some((digest, size)))?.publish()
    }

    /// Ends and checks the blob without showing it yet, so that several can appear together.
    pub fn finish(mut self, expected: Option<(Digest, u64)>) -> Result<Staged, Error> {
        let dir = self.store.path("blobs/sha256");
        self.flush().at("write to", &dir)?;
        let hashed = self.hasher.take().map(Hasher::finish);
        let path = expected.map_or(dir, |(digest, _)| self.store.blob_path(&digest));
        let digest = match (expected, hashed) {
            (Some((digest, size)), hashed) => {
                verify(digest, size, hashed.unwrap_or(digest), self.written, &path)?;
                digest
            }
            (None, Some(hashed)) => hashed,
            (None, None) => {
                let unhashed =
                    io::Error::other("the writer was told not to hash, but no digest was given");
                return Err(disk::Error::new("name a blob in", path, unhashed).into());
            }
        };
        if let Some(grower) = &self.grower {
            grower.whole(digest);
        }
        Ok(Staged {
            store: self.store,
            stage: self.stage,
            digest,
            size: self.written,
            charge: self.charge,
        })
    }

    fn drain(&mut self) -> io::Result<()> {
        self.stage.file().write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }

    /// Tells the readers what they can read.
    fn tell(&self) {
        if let Some(grower) = &self.grower {
            grower.grown(self.written - self.buffer.len() as u64);
        }
    }

    fn place(&self) -> PathBuf {
        self.store.path("blobs/sha256")
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
        let write = |writer: &mut BlobWriter| {
            if let Some(charge) = &writer.charge {
                charge.take(bytes.len() as u64)?;
            }
            if writer.buffer.len() + bytes.len() > BUFFER {
                writer.drain()?;
            }
            if bytes.len() >= BUFFER {
                writer.stage.file().write_all(bytes)
            } else {
                writer.buffer.extend_from_slice(bytes);
                Ok(())
            }
        };
        write(self).map_err(|error| named("write to", &self.place(), error))?;
        self.written += bytes.len() as u64;
        self.tell();
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.drain().map_err(|error| named("write to", &self.place(), error))?;
        self.tell();
        Ok(())
    }
}

/// A whole and checked blob that nobody sees yet. Dropped, it is gone.
#[must_use = "a blob is kept only when it is published"]
pub struct Staged {
    store: Store,
    stage: Stage,
    digest: Digest,
    size: u64,
    charge: Option<Charge>,
}

impl std::fmt::Debug for Staged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Staged").field("digest", &self.digest).finish_non_exhaustive()
    }
}

impl Staged {
    /// Returns what it hashes to.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Returns its size.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Makes it durable, then visible. A blob of that name and size stays as it is; one of another
    /// size was damaged and is replaced.
    pub fn publish(mut self) -> Result<(Digest, u64), Error> {
        let done = Ok((self.digest, self.size));
        let target = self.store.blob_path(&self.digest);
        if size_of(&target) == Some(self.size) {
            return done;
        }
        rustix::fs::fdatasync(self.stage.file()).at("write", &target)?;
        match self.stage.link(&target) {
            Err(Errno::EXIST) if size_of(&target) == Some(self.size) => return done,
            Err(Errno::EXIST) => self.replace(&target)?,
            other => other.at("create", &target)?,
        }
        let dir = self.store.path("blobs/sha256");
        File::open(&dir).and_then(|dir| dir.sync_all()).at("write", dir)?;
        if let Some(charge) = self.charge.take() {
            charge.keep(self.size);
        }
        done
    }

    fn replace(&self, target: &Path) -> Result<(), Error> {
        let run = self.store.scratch()?;
        let path = run.path().join(format!("replace-{}", self.digest.hex()));
        fs::remove_file(&path).ok();
        self.stage.link(&path).at("create", &path)?;
        fs::rename(&path, target).at("replace", target)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Descriptor;

    fn files(store: &Store) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for dir in ["blobs/sha256", "run"].map(|dir| store.path(dir)) {
            files.extend(disk::list(&dir).unwrap().into_iter().map(|name| dir.join(name)));
        }
        files.retain(|path| path.is_file());
        files
    }

    #[test]
    fn a_blob_that_is_not_what_was_expected_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let mut writer = store.writer().unwrap();
        writer.write_all(b"tampered").unwrap();
        let error = writer.commit(Some((Digest::of(b"original"), 8))).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
        let mut writer = store.writer().unwrap();
        writer.write_all(b"origin").unwrap();
        let error = writer.commit(Some((Digest::of(b"original"), 8))).unwrap_err();
        assert!(matches!(error, Error::Size { expected: 8, found: 6, .. }), "{error}");
        let mut writer = store.raw_writer().unwrap();
        writer.write_all(b"short").unwrap();
        assert!(writer.commit_hashed(Digest::of(b"original"), 8).is_err());
        store.writer().unwrap().write_all(b"dropped").unwrap();
        assert_eq!(files(&store), Vec::<PathBuf>::new());
    }

    #[test]
    fn a_blob_is_written_once_and_a_damaged_one_replaced() {
        for nameless in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open(dir.path()).unwrap();
            store.inner.nameless.set(nameless).unwrap();
            let put = || {
                let mut writer = store.writer().unwrap();
                for chunk in [&b"ab"[..], &vec![b'c'; BUFFER + 1], b"d"] {
                    writer.write_all(chunk).unwrap();
                }
                writer.commit(None).unwrap()
            };
            let (digest, size) = put();
            let path = store.blob_path(&digest);
            let inode =
                |path: &Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap());
            let first = inode(&path);
            assert_eq!(put(), (digest, size));
            assert_eq!(inode(&path), first, "a blob that is there is not written again");
            File::options().write(true).open(&path).unwrap().set_len(5).unwrap();
            let descriptor = Descriptor::new("x/y", digest, size);
            assert!(!store.has_whole(&descriptor));
            put();
            assert!(store.has_whole(&descriptor));
            assert_eq!(Digest::of(&fs::read(&path).unwrap()), digest);
            assert_eq!(files(&store), [path], "nothing else is left");
        }
    }
}
