//! Images in memory: a source and a sink that remembers in which order it was filled.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Mutex;

use ocibuild::oci::{
    Descriptor, Digest, Document, Index, Manifest, Platform, Reference, media_type,
};
use ocibuild::report::Task;
use ocibuild::transfer::{Body, Error, Placed, Sink, Source, Stream};

use super::noise;

/// A place in memory.
#[derive(Default)]
pub(crate) struct Memory {
    blobs: Mutex<BTreeMap<Digest, Vec<u8>>>,
    documents: Mutex<BTreeMap<Digest, Document>>,
    tags: Mutex<BTreeMap<String, Digest>>,
    acts: Mutex<Vec<String>>,
    /// What every blob is said to come from.
    pub(crate) origin: Option<Reference>,
}

impl Memory {
    /// Puts a blob in.
    pub(crate) fn add_blob(&self, media_type: &str, bytes: &[u8]) -> Descriptor {
        let descriptor = Descriptor::of(media_type, bytes);
        self.blobs.lock().unwrap().insert(descriptor.digest, bytes.to_vec());
        descriptor
    }

    /// Puts a document in.
    pub(crate) fn add_document(&self, document: Document) -> Document {
        self.documents.lock().unwrap().insert(document.digest(), document.clone());
        document
    }

    /// Makes an image of random layers of these sizes.
    pub(crate) fn add_manifest(&self, platform: &Platform, sizes: &[usize], seed: u64) -> Document {
        let config = format!(
            r#"{{"architecture":"{}","os":"linux","rootfs":{{"type":"layers","diff_ids":[]}},"seed":{seed}}}"#,
            platform.architecture
        );
        let config = self.add_blob(media_type::CONFIG, config.as_bytes());
        let layers = sizes
            .iter()
            .zip(seed * 100..)
            .map(|(size, seed)| self.add_blob(media_type::LAYER_GZIP, &noise(*size, seed)))
            .collect();
        let manifest = Manifest::new(config, layers, BTreeMap::new());
        self.add_document(Document::of_manifest(&manifest).unwrap())
    }

    /// Makes an index of an image for amd64 and one for arm64.
    pub(crate) fn add_index(&self, sizes: &[usize], seed: u64) -> Document {
        let entries = ["amd64", "arm64"].iter().zip(seed * 10..).map(|(architecture, seed)| {
            let platform = Platform::linux(architecture);
            let mut entry = self.add_manifest(&platform, sizes, seed).descriptor();
            entry.platform = Some(platform);
            entry
        });
        let index = Index::new(entries.collect(), BTreeMap::new());
        self.add_document(Document::of_index(&index).unwrap())
    }

    /// Changes a byte of a blob behind its digest's back.
    pub(crate) fn tamper(&self, digest: Digest) {
        self.blobs.lock().unwrap().get_mut(&digest).unwrap()[0] ^= 1;
    }

    /// Forgets a blob.
    pub(crate) fn lose(&self, digest: Digest) {
        self.blobs.lock().unwrap().remove(&digest);
    }

    /// Returns the blobs.
    pub(crate) fn blobs(&self) -> BTreeMap<Digest, Vec<u8>> {
        self.blobs.lock().unwrap().clone()
    }

    /// Returns what was put in through [`Sink`], in order: `blob`, `manifest`, `index`, `tag NAME`.
    pub(crate) fn acts(&self) -> Vec<String> {
        self.acts.lock().unwrap().clone()
    }

    fn missing(digest: Digest) -> Error {
        Error::Io { digest, source: std::io::Error::from(std::io::ErrorKind::NotFound) }
    }
}

impl Source for Memory {
    fn resolve(&self, reference: &Reference) -> Result<Descriptor, Error> {
        let digest = self.tags.lock().unwrap()[reference.tag().unwrap_or("latest")];
        Ok(self.documents.lock().unwrap()[&digest].descriptor())
    }

    fn document(&self, descriptor: &Descriptor) -> Result<Document, Error> {
        let documents = self.documents.lock().unwrap();
        documents.get(&descriptor.digest).cloned().ok_or(Memory::missing(descriptor.digest))
    }

    fn blob<'a>(&'a self, descriptor: &Descriptor, offset: u64) -> Result<Stream<'a>, Error> {
        let blobs = self.blobs.lock().unwrap();
        let bytes =
            blobs.get(&descriptor.digest).ok_or(Memory::missing(descriptor.digest))?.clone();
        Ok(Box::new(std::io::Cursor::new(
            bytes.split_at(usize::try_from(offset).unwrap()).1.to_vec(),
        )))
    }

    fn origin(&self) -> Option<Reference> {
        self.origin.clone()
    }
}

impl Sink for Memory {
    fn has_blob(&self, descriptor: &Descriptor) -> Result<bool, Error> {
        Ok(self.blobs.lock().unwrap().contains_key(&descriptor.digest))
    }

    fn put_blob(
        &self,
        descriptor: &Descriptor,
        body: &Body<'_>,
        task: &Task<'_>,
    ) -> Result<Placed, Error> {
        let mut bytes = Vec::new();
        body.open()?
            .read_to_end(&mut bytes)
            .map_err(|error| Error::of_stream(descriptor.digest, error))?;
        task.advance(bytes.len() as u64);
        self.blobs.lock().unwrap().insert(descriptor.digest, bytes);
        let act = if descriptor.media_type == media_type::CONFIG { "config" } else { "blob" };
        self.acts.lock().unwrap().push(act.to_owned());
        Ok(Placed::Written)
    }

    fn has_document(&self, descriptor: &Descriptor) -> Result<bool, Error> {
        Ok(self.documents.lock().unwrap().contains_key(&descriptor.digest))
    }

    fn put_document(&self, document: &Document, tag: Option<&str>) -> Result<(), Error> {
        let act = match tag {
            Some(tag) => {
                self.tags.lock().unwrap().insert(tag.to_owned(), document.digest());
                format!("tag {tag}")
            }
            None if document.is_index() => "index".to_owned(),
            None => "manifest".to_owned(),
        };
        self.acts.lock().unwrap().push(act);
        self.add_document(document.clone());
        Ok(())
    }

    fn read_back(&self, descriptor: &Descriptor) -> Result<Document, Error> {
        self.document(descriptor)
    }
}
