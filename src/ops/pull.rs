//! `pull`: an image of a registry into the store, as blobs, or unpacked from the stream.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::build::{LayerId, Need, Trees};
use crate::oci::{Descriptor, Digest, Document, Platform, Reference};
use crate::registry::Repository;
use crate::store::Store;
use crate::transfer::{self, Source};

use super::{Access, Context, DiskPlan, Error, inputs, inspect, room};

/// What to pull.
#[derive(Clone, Debug)]
pub struct PullOptions {
    /// The image.
    pub reference: Reference,
    /// The platforms; none is all.
    pub platforms: Vec<Platform>,
    /// Unpack the layers, and keep no blobs of them.
    pub unpack: bool,
    /// Bring what its steps were given, too.
    pub inputs: bool,
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
    let registries = options.access.registries([&options.reference], context)?;
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
    let (mut disk, mut spared) = (DiskPlan::default(), BTreeSet::new());
    let mut images = Vec::new();
    if options.unpack || context.disk.is_some() {
        for entry in chosen(&document, platforms.as_deref())? {
            let damaged =
                |source| Error::Damaged { reference: options.reference.to_string(), source };
            let manifest = registry.document(&entry)?.manifest().map_err(damaged)?;
            if options.unpack {
                let config = inspect::read_config(&manifest.config, &registry, &options.reference)?;
                let layers: Vec<LayerId> =
                    manifest.layers.into_iter().zip(config.diff_ids()).collect();
                note_origins(&layers, &options.reference, &store)?;
                spared.extend(layers.iter().map(|layer| layer.1));
                disk.add(&trees(context, &store, &registry)?.need(&layers)?);
                images.push(layers);
            } else {
                let missing = manifest.layers.iter().filter(|blob| !store.has_whole(blob));
                let bytes = missing.map(|blob| blob.size).sum::<u64>();
                disk += DiskPlan { fetch: bytes, blobs: bytes, ..DiskPlan::default() };
            }
        }
        room::make(&disk, spared, &store, context)?;
    }
    for layers in images {
        let trees = trees(context, &store, &registry)?;
        // Making room has forgotten what no image was known to need.
        note_origins(&layers, &options.reference, &store)?;
        let need = trees.need(&layers)?;
        fetched.blobs += need.blobs;
        fetched.fetch += need.fetch;
        unpacked += trees.unpack_all(&layers)?.len() as u64;
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
    if options.inputs {
        let report = context.report.as_ref();
        inputs::pull_inputs(&options.reference, &document, &registry, &store, report)?;
    }
    Ok(PullReport {
        reference: options.reference.clone(),
        digest: document.digest(),
        blobs: summary.written + fetched.blobs,
        bytes: summary.bytes + fetched.fetch,
        existed: summary.existed,
        unpacked,
    })
}

/// Remembers where the layers can be fetched again.
fn note_origins(layers: &[LayerId], from: &Reference, store: &Store) -> Result<(), Error> {
    let digests: Vec<Digest> = layers.iter().map(|(blob, _)| blob.digest).collect();
    Ok(store.add_origins(&digests, from)?)
}

fn trees<'a>(
    context: &Context<'a>,
    store: &'a Store,
    registry: &'a Repository,
) -> Result<Trees<'a>, Error> {
    Ok(Trees::new(store, registry, context.mode()?, context.report.as_ref()))
}

/// Returns the manifests of a document that a choice of platforms takes.
fn chosen(document: &Document, platforms: Option<&[Platform]>) -> Result<Vec<Descriptor>, Error> {
    if !document.is_index() {
        return Ok(vec![document.descriptor()]);
    }
    let index = document.index().map_err(transfer::Error::from)?;
    Ok(transfer::select(document.digest(), &index, platforms)?)
}
