//! The store as the one end of a transfer. As a sink it takes full references for tags.

use std::io::{self, Read, Seek, SeekFrom, Write};

use super::{Error, Store};
use crate::oci::{Descriptor, Document, Reference, media_type};
use crate::report::Task;
use crate::transfer::{self, Body, Placed, Sink, Source, Stream};

impl From<Error> for transfer::Error {
    fn from(error: Error) -> transfer::Error {
        transfer::Error::other(error)
    }
}

impl Source for Store {
    fn resolve(&self, reference: &Reference) -> Result<Descriptor, transfer::Error> {
        let found = Store::resolve(self, reference)?;
        Ok(found.ok_or_else(|| Error::NoName {
            name: Box::new(reference.clone()),
            path: self.root().to_owned(),
        })?)
    }

    fn document(&self, descriptor: &Descriptor) -> Result<Document, transfer::Error> {
        Ok(Store::document(self, descriptor)?)
    }

    fn blob<'a>(
        &'a self,
        descriptor: &Descriptor,
        offset: u64,
    ) -> Result<Stream<'a>, transfer::Error> {
        let mut file = self.open_blob(&descriptor.digest)?;
        if offset > 0 {
            let io = |source| transfer::Error::Io { digest: descriptor.digest, source };
            file.seek(SeekFrom::Start(offset)).map_err(io)?;
        }
        Ok(Box::new(file))
    }

    fn origins(&self, descriptor: &Descriptor) -> Vec<Reference> {
        // Only a chance to save an upload: a record that cannot be read is none.
        Store::origins(self, &descriptor.digest).unwrap_or_default()
    }
}

impl Sink for Store {
    fn has_blob(&self, descriptor: &Descriptor) -> Result<bool, transfer::Error> {
        Ok(self.has_whole(descriptor))
    }

    /// Relies on the body to verify itself, as those of [`transfer::copy()`] do.
    fn put_blob(
        &self,
        descriptor: &Descriptor,
        body: &Body<'_>,
        task: &Task<'_>,
    ) -> Result<Placed, transfer::Error> {
        let digest = descriptor.digest;
        let mut stream = body.open()?;
        let mut writer = self.raw_writer()?;
        let mut buffer = vec![0; 256 << 10];
        loop {
            let read = match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(transfer::Error::of_stream(digest, error)),
            };
            let io = |source| transfer::Error::Io { digest, source };
            writer.write_all(&buffer[..read]).map_err(io)?;
            task.advance(read as u64);
        }
        writer.commit_hashed(digest, descriptor.size)?;
        Ok(Placed::Written)
    }

    fn has_document(&self, descriptor: &Descriptor) -> Result<bool, transfer::Error> {
        Ok(self.is_complete(descriptor)?)
    }

    fn put_document(&self, document: &Document, tag: Option<&str>) -> Result<(), transfer::Error> {
        Store::put_document(self, document)?;
        if let Some(tag) = tag {
            let reference: Reference = tag.parse().map_err(|source| Error::Name { source })?;
            self.tag(&reference, &document.descriptor())?;
        }
        Ok(())
    }

    fn read_back(&self, descriptor: &Descriptor) -> Result<Document, transfer::Error> {
        Ok(Store::document(self, descriptor)?)
    }
}

impl Store {
    /// Tells whether a manifest or index is here with everything below it, judged by sizes.
    pub fn is_complete(&self, descriptor: &Descriptor) -> Result<bool, Error> {
        if !self.has_whole(descriptor) {
            return Ok(false);
        }
        let document = self.document(descriptor)?;
        if !document.is_index() {
            let manifest = document.manifest()?;
            return Ok(manifest
                .layers
                .iter()
                .chain([&manifest.config])
                .all(|blob| self.has_whole(blob)));
        }
        for entry in document.index()?.manifests {
            let is_document = media_type::is_index(&entry.media_type)
                || media_type::is_manifest(&entry.media_type);
            let complete =
                if is_document { self.is_complete(&entry)? } else { self.has_whole(&entry) };
            if !complete {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
