//! `sbom`: the packages of an image, read from its layers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use serde::Serialize;

use crate::describe::packages::{self, Finds, Inventory};
use crate::describe::{self, Artifact, Described, Parts};
use crate::oci::{ConfigDocument, Descriptor, Digest, Document, Manifest, Platform, Reference};
use crate::packages::Package;
use crate::report::{Task, Unit};
use crate::store::Store;
use crate::transfer::Source;

use super::access::Origins;
use super::inspect::{self, Chosen};
use super::{Access, Context, Error, attach, provenance};

/// What to list.
#[derive(Clone, Debug)]
pub struct SbomOptions {
    /// The image.
    pub reference: Reference,
    /// Ask the registry even where the store has an image of that name.
    pub remote: bool,
    /// Of a registry's image, take the list that is attached to it, where there is one.
    pub attached: bool,
    /// The platform, where the image has several.
    pub platform: Option<Platform>,
    /// How to reach the registry.
    pub access: Access,
}

/// The packages of one platform of an image.
#[derive(Clone, Debug, Serialize)]
pub struct SbomReport {
    /// The image.
    pub reference: Reference,
    /// The manifest's digest.
    pub manifest: Digest,
    /// The platform.
    pub platform: Platform,
    /// The packages in order of manager and name.
    pub packages: Vec<Package>,
    /// The recipe or act that made each layer, from the bottom up.
    pub layers: Vec<String>,
    /// The SPDX document.
    #[serde(skip)]
    pub document: Vec<u8>,
}

/// Of all that refers to an image of the store, its packages.
const KIND: &str = "sbom";

/// The release that wrote a document; another may find more.
const VERSION: &str = "dev.ocibuild.version";

/// Keeps the packages of the images of a document beside them, where they were built here and it is
/// not there yet. What cannot be read is a warning: a push need not fail for it.
pub(super) fn keep(
    reference: &Reference,
    document: &Document,
    source: &dyn Source,
    store: &Store,
    context: &Context<'_>,
) -> Result<(), Error> {
    for (entry, manifest) in inspect::manifests(reference, document, store)? {
        let there = store.referrers(&entry.digest)?;
        if !there.iter().any(|(kind, _)| kind == provenance::KIND) {
            continue;
        }
        let version = env!("CARGO_PKG_VERSION");
        let known = there.iter().find(|(kind, _)| kind == KIND);
        if let Some((_, known)) = known
            && let Ok(known) = store.document(known)?.manifest()
            && known.annotations.get(VERSION).map(String::as_str) == Some(version)
        {
            continue;
        }
        let config = inspect::read_config(&manifest.config, store, reference)?;
        context.report.note(&format!("listing the packages of {}", entry.digest.short()));
        let written = inventory(&manifest, &config, source, context).and_then(|inventory| {
            let described =
                Described { digest: entry.digest, manifest: &manifest, config: &config };
            Ok(describe::spdx(&described, &inventory)?)
        });
        match written {
            Ok(bytes) => {
                let artifact = Artifact::new(Parts {
                    subject: &entry,
                    artifact_type: attach::SPDX,
                    annotations: BTreeMap::from([(VERSION.to_owned(), version.to_owned())]),
                    blobs: vec![(attach::SPDX, bytes, BTreeMap::new())],
                })?;
                attach::keep(&artifact, entry.digest, KIND, store)?;
            }
            Err(error) => context.report.warning(&format!(
                "{} is pushed without a list of its packages: {error}",
                entry.digest.short()
            )),
        }
    }
    Ok(())
}

/// Lists the packages of an image of the store, or of its registry where the store has none of that
/// name.
pub fn sbom(options: &SbomOptions, context: &Context<'_>) -> Result<SbomReport, Error> {
    let SbomOptions { reference, platform, .. } = options;
    let store = context.open()?;
    let registries = options.access.registries([reference], context)?;
    let found = if options.remote { None } else { store.resolve(reference)? };
    if let Some(descriptor) = found {
        let document = Source::document(&store, &descriptor)?;
        let here = |entry: &Descriptor| store.has_whole(entry);
        let chosen = inspect::choose(reference, platform.as_ref(), &document, &store, &here)?;
        let origins = Origins::new(&store, &registries, &chosen.manifest.layers)?;
        return report(reference, chosen, &origins, context);
    }
    let registry = registries.open(reference);
    let document = registry.document(&registry.resolve(reference)?)?;
    let chosen = inspect::choose(reference, platform.as_ref(), &document, &registry, &|_| true)?;
    report(reference, chosen, &registry, context)
}

fn report(
    reference: &Reference,
    chosen: Chosen,
    source: &dyn Source,
    context: &Context<'_>,
) -> Result<SbomReport, Error> {
    let Chosen { platform, entry, manifest, config } = chosen;
    let inventory = inventory(&manifest, &config, source, context)?;
    let described = Described { digest: entry.digest, manifest: &manifest, config: &config };
    let document = describe::spdx(&described, &inventory)?;
    Ok(SbomReport {
        reference: reference.clone(),
        manifest: entry.digest,
        platform,
        packages: inventory.packages,
        layers: config.made_by().map(Option::unwrap_or_default).collect(),
        document,
    })
}

/// Reads the packages of an image from its layers, a layer a thread.
pub(super) fn inventory(
    manifest: &Manifest,
    config: &ConfigDocument,
    source: &dyn Source,
    context: &Context<'_>,
) -> Result<Inventory, Error> {
    let diff_ids = config.diff_ids();
    let layers = &manifest.layers;
    let finds: Vec<Mutex<Option<Result<Finds, describe::Error>>>> =
        layers.iter().map(|_| Mutex::new(None)).collect();
    let next = AtomicUsize::new(0);
    let report = context.report.as_ref();
    let work = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(layer) = layers.get(at) else { return };
            let task = Task::start(report, layer.digest.short(), Some(layer.size), Unit::Bytes);
            let read = packages::read(layer, diff_ids.get(at).copied(), source);
            if read.is_err() {
                next.store(layers.len(), Ordering::Relaxed);
            }
            task.advance(layer.size);
            task.finish(if read.is_ok() { "read" } else { "failed" });
            *finds[at].lock().unwrap_or_else(PoisonError::into_inner) = Some(read);
        }
    };
    thread::scope(|scope| {
        for _ in 1..context.threads.min(layers.len()) {
            scope.spawn(work);
        }
        work();
    });
    let mut found = Vec::new();
    for read in finds {
        // One that was not begun, since another failed, has no error of its own.
        if let Some(read) = read.into_inner().unwrap_or_else(PoisonError::into_inner) {
            found.push(read?);
        }
    }
    Ok(packages::merge(&found))
}
