//! `pull`: an image of a registry into the store, as blobs, or unpacked from the stream.

use serde::Serialize;

use crate::build::{Need, Trees};
use crate::oci::{Descriptor, Digest, Document, Platform, Reference};
use crate::transfer::{self, Source};

use super::{Access, Context, Error, inspect};

/// What to pull.
#[derive(Clone, Debug)]
pub struct PullOptions {
    /// The image.
    pub reference: Reference,
    /// The platforms; none is all.
    pub platforms: Vec<Platform>,
    /// Unpack the layers, and keep no blobs of them.
    pub unpack: bool,
    /// How many blobs travel at once.
    pub jobs: usize,
    /// How to reach the registry.
    pub access: Access,
}

/// What was pulled.
#[derive(Clone, Debug, Serialize)]
pub struct PullReport {
    /// The image's name in the store.
    pub reference: Reference,
    /// What it names.
    pub digest: Digest,
    /// Blobs that were moved.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blobs that the store had.
    pub existed: u64,
    /// Layers that were unpacked.
    pub unpacked: u64,
}

/// Pulls an image. Its name in the store moves when all of it is there.
pub fn pull(options: &PullOptions, context: &Context<'_>) -> Result<PullReport, Error> {
    let store = context.open()?;
    let registries = options.access.registries([&options.reference], context);
    let registry = registries.open(&options.reference);
    let descriptor = registry.resolve(&options.reference)?;
    let document = registry.document(&descriptor)?;
    let platforms = match options.platforms.as_slice() {
        [] if options.unpack => Some(vec![Platform::host()]),
        [] => None,
        named => Some(named.to_vec()),
    };
    // Trees come from the stream alone: their blobs can be fetched from here again.
    let (mut unpacked, mut fetched) = (0, Need::default());
    if options.unpack {
        for entry in chosen(&document, platforms.as_deref())? {
            let damaged =
                |source| Error::Damaged { reference: options.reference.to_string(), source };
            let manifest = registry.document(&entry)?.manifest().map_err(damaged)?;
            let config = inspect::read_config(&manifest.config, &registry, &options.reference)?;
            let digests: Vec<Digest> = manifest.layers.iter().map(|layer| layer.digest).collect();
            store.add_origins(&digests, &options.reference)?;
            let layers: Vec<_> = manifest.layers.iter().cloned().zip(config.diff_ids()).collect();
            let trees = Trees::new(&store, &registry, context.mode()?, context.report.as_ref());
            let need = trees.need(&layers)?;
            fetched.blobs += need.blobs;
            fetched.fetch += need.fetch;
            unpacked += trees.unpack_all(&layers)?.len() as u64;
        }
    }
    let copy = transfer::Options {
        jobs: options.jobs,
        platforms,
        without_layers: options.unpack,
        ..transfer::Options::default()
    };
    let name = options.reference.to_string();
    let summary =
        transfer::copy(&registry, &store, &document, &[name], &copy, context.report.as_ref())?;
    let mut digests = Vec::new();
    for (_, manifest) in inspect::manifests(&options.reference, &document, &store)? {
        digests.extend(manifest.layers.iter().map(|layer| layer.digest));
    }
    store.add_origins(&digests, &options.reference)?;
    Ok(PullReport {
        reference: options.reference.clone(),
        digest: document.digest(),
        blobs: summary.written + fetched.blobs,
        bytes: summary.bytes + fetched.fetch,
        existed: summary.existed,
        unpacked,
    })
}

/// Returns the manifests of a document that a choice of platforms takes.
fn chosen(document: &Document, platforms: Option<&[Platform]>) -> Result<Vec<Descriptor>, Error> {
    if !document.is_index() {
        return Ok(vec![document.descriptor()]);
    }
    let index = document.index().map_err(transfer::Error::from)?;
    Ok(transfer::select(document.digest(), &index, platforms)?)
}
