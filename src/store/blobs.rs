//! Blobs by their digests: found, read and verified, kept, forgotten.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::writer::BlobWriter;
use super::{Error, Store, blob_name};
use crate::disk::At;
use crate::oci::{DOCUMENT_LIMIT, Descriptor, Digest, Document, Hasher};

impl Store {
    /// Returns where a blob lies, or would.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.path(blob_name(digest))
    }

    /// Tells whether a blob is here; its content is verified by whoever reads it.
    pub fn has(&self, digest: &Digest) -> bool {
        self.blob_path(digest).is_file()
    }

    /// Tells whether a blob is here with the size that its descriptor says.
    pub fn has_whole(&self, descriptor: &Descriptor) -> bool {
        size_of(&self.blob_path(&descriptor.digest)) == Some(descriptor.size)
    }

    /// Opens a blob. What is read from it is not verified.
    pub fn open_blob(&self, digest: &Digest) -> Result<File, Error> {
        let path = self.blob_path(digest);
        match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(Error::Missing { digest: *digest, path: self.root().to_owned() })
            }
            other => Ok(other.at("open", path)?),
        }
    }

    /// Reads a small blob, a configuration say, and verifies its size and digest.
    pub fn read_blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>, Error> {
        read_small(
            self.open_blob(&descriptor.digest)?,
            descriptor,
            &self.blob_path(&descriptor.digest),
        )
    }

    /// Reads a manifest or an index and verifies it.
    pub fn document(&self, descriptor: &Descriptor) -> Result<Document, Error> {
        Ok(Document::read(self.read_blob(descriptor)?, Some(&descriptor.media_type))?)
    }

    /// Keeps a manifest or an index. Kept already is fine.
    pub fn put_document(&self, document: &Document) -> Result<(), Error> {
        self.put_bytes(document.bytes()).map(|_| ())
    }

    /// Keeps a small blob that is at hand and returns its digest and size.
    pub fn put_bytes(&self, bytes: &[u8]) -> Result<(Digest, u64), Error> {
        let (digest, size) = (Digest::of(bytes), bytes.len() as u64);
        if size_of(&self.blob_path(&digest)) == Some(size) {
            return Ok((digest, size));
        }
        let mut writer = self.raw_writer()?;
        writer.write_all(bytes).at("write", self.blob_path(&digest))?;
        writer.commit_hashed(digest, size)
    }

    /// Begins a blob that is hashed while it is written.
    pub fn writer(&self) -> Result<BlobWriter, Error> {
        BlobWriter::new(self, Some(Hasher::new()))
    }

    /// Begins a blob whose digest the caller computes from the same bytes; it ends with
    /// [`BlobWriter::commit_hashed`].
    pub fn raw_writer(&self) -> Result<BlobWriter, Error> {
        BlobWriter::new(self, None)
    }

    /// Forgets a blob, damaged ones above all, whatever names it.
    pub fn discard(&self, digest: &Digest) -> Result<(), Error> {
        let path = self.blob_path(digest);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => Ok(other.at("remove", path)?),
        }
    }
}

/// Returns the size of a plain file, if there is one.
pub(super) fn size_of(path: &Path) -> Option<u64> {
    fs::symlink_metadata(path).ok().filter(fs::Metadata::is_file).map(|metadata| metadata.len())
}

/// Reads a document or a configuration whole and verifies it; `path` is for errors.
pub(super) fn read_small(
    reader: impl Read,
    descriptor: &Descriptor,
    path: &Path,
) -> Result<Vec<u8>, Error> {
    let Descriptor { digest, size, .. } = *descriptor;
    if size > DOCUMENT_LIMIT {
        return Err(Error::TooLarge { digest, size, limit: DOCUMENT_LIMIT });
    }
    let mut bytes = Vec::new();
    reader.take(size + 1).read_to_end(&mut bytes).at("read", path)?;
    verify(descriptor.digest, size, Digest::of(&bytes), bytes.len() as u64, path)?;
    Ok(bytes)
}

/// Compares what was found with what was expected.
pub(super) fn verify(
    expected: Digest,
    expected_size: u64,
    digest: Digest,
    size: u64,
    path: &Path,
) -> Result<(), Error> {
    if size != expected_size {
        Err(Error::Size { path: path.to_owned(), expected: expected_size, found: size })
    } else if digest == expected {
        Ok(())
    } else {
        Err(Error::Corrupt { path: path.to_owned(), expected, found: digest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_verifies() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let (digest, size) = store.put_bytes(b"{\"a\":1}").unwrap();
        fs::write(store.blob_path(&digest), b"{\"a\":2}").unwrap();
        let error = store.read_blob(&Descriptor::new("x/y", digest, size)).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
        store.discard(&digest).unwrap();
        let error = store.read_blob(&Descriptor::new("x/y", digest, size)).unwrap_err();
        assert!(matches!(error, Error::Missing { .. }), "{error}");
    }
}
