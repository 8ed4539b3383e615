//! An image in a layout outside of the store, a folder or a tar, read where it lies.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::blobs::read_small;
use super::files::{Files, Input};
use super::import::choose;
use super::layout::entries_of;
use super::{Error, Store};
use crate::oci::{Descriptor, Document, Reference};
use crate::transfer::{self, Source, Stream};

/// A layout that images are read from, nothing of which is verified before it is used.
pub struct Outside {
    files: Files,
    path: PathBuf,
    image: Descriptor,
}

impl std::fmt::Debug for Outside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outside").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the layout at a path; `select` says which image of several. A compressed tar is
    /// decompressed to a nameless file of this store.
    pub fn outside(&self, path: &Path, select: Option<&str>) -> Result<Outside, Error> {
        if !path.exists() {
            return Err(Error::NoInput { path: path.to_owned() });
        }
        let files = Files::open(self, Input::Path(path))?;
        if !files.has("oci-layout") {
            let what = "no OCI layout; `ocibuild import` brings other forms into the store";
            return Err(Error::NoImage { path: path.to_owned(), what: what.to_owned() });
        }
        let (index_path, entries) = entries_of(&files)?;
        let (_, image) = choose(&index_path, entries, select)?;
        Ok(Outside { files, path: path.to_owned(), image })
    }
}

impl Outside {
    /// Returns the image that was chosen.
    pub fn image(&self) -> &Descriptor {
        &self.image
    }

    fn name(descriptor: &Descriptor) -> String {
        format!("blobs/sha256/{}", descriptor.digest.hex())
    }
}

impl Source for Outside {
    fn resolve(&self, _: &Reference) -> Result<Descriptor, transfer::Error> {
        Ok(self.image.clone())
    }

    fn document(&self, descriptor: &Descriptor) -> Result<Document, transfer::Error> {
        let name = Outside::name(descriptor);
        let (reader, _) = self.files.open_file(&name)?;
        let bytes = read_small(reader, descriptor, &self.files.label(&name))?;
        Ok(Document::read(bytes, Some(&descriptor.media_type))?)
    }

    fn blob<'a>(
        &'a self,
        descriptor: &Descriptor,
        offset: u64,
    ) -> Result<Stream<'a>, transfer::Error> {
        let (mut reader, _) = self.files.open_file(&Outside::name(descriptor))?;
        let io = |source| transfer::Error::Io { digest: descriptor.digest, source };
        io::copy(&mut reader.by_ref().take(offset), &mut io::sink()).map_err(io)?;
        Ok(reader)
    }
}
