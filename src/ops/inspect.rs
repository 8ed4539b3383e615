//! `show` and `list`: what images are made of.

use std::collections::BTreeMap;
use std::io::Read;

use serde::Serialize;
use serde_json::Value;

use crate::fault;
use crate::oci::{
    ConfigDocument, Descriptor, Digest, Document, HistoryEntry, Manifest, Platform, Reference,
    media_type,
};
use crate::store::Store;
use crate::transfer::{self, Source, Verify};

use super::Access;
use super::{Context, Error};

/// The most bytes of a configuration that are read.
const CONFIG_LIMIT: u64 = 16 << 20;

/// What to show.
#[derive(Clone, Debug)]
pub struct ShowOptions {
    /// The image.
    pub reference: Reference,
    /// Ask the registry even where the store has an image of that name.
    pub remote: bool,
    /// Leave out the other platforms.
    pub platform: Option<Platform>,
    /// How to reach the registry.
    pub access: Access,
}

/// An image, platform by platform.
#[derive(Clone, Debug, Serialize)]
pub struct ImageReport {
    /// Its name.
    pub reference: Reference,
    /// The digest of its index, or of its manifest where it has no index.
    pub digest: Digest,
    /// What the digest is of.
    pub media_type: String,
    /// One entry a platform.
    pub platforms: Vec<ImagePlatform>,
}

/// One platform of an image.
#[derive(Clone, Debug, Serialize)]
pub struct ImagePlatform {
    /// The platform.
    pub platform: Platform,
    /// The manifest's digest.
    pub manifest: Digest,
    /// The configuration's digest.
    pub config: Digest,
    /// When it was made, in RFC 3339.
    pub created: Option<String>,
    /// Bytes of all layers, compressed.
    pub size: u64,
    /// The layers, the base first.
    pub layers: Vec<ImageLayer>,
    /// The execution parameters.
    pub parameters: BTreeMap<String, Value>,
    /// The acts that made it, the empty ones too.
    pub history: Vec<HistoryEntry>,
    /// The manifest's annotations.
    pub annotations: BTreeMap<String, String>,
}

/// One layer of an image.
#[derive(Clone, Debug, Serialize)]
pub struct ImageLayer {
    /// The blob's digest.
    pub digest: Digest,
    /// The digest before compression.
    pub diff_id: Option<Digest>,
    /// Bytes, compressed.
    pub size: u64,
    /// The blob's type.
    pub media_type: String,
    /// The act that made it; for our own layers, the recipe.
    pub made_by: String,
}

/// An image's name in the store.
#[derive(Clone, Debug, Serialize)]
pub struct ListedReport {
    /// Its name.
    pub reference: Reference,
    /// What it names.
    pub digest: Digest,
    /// Bytes of all its layers, compressed, each once.
    pub size: u64,
    /// Its platforms.
    pub platforms: Vec<String>,
}

/// Shows an image of the store, or of its registry where the store has none of that name.
pub fn show(options: &ShowOptions, context: &Context<'_>) -> Result<ImageReport, Error> {
    let store = context.open()?;
    let found = if options.remote { None } else { store.resolve(&options.reference)? };
    if let Some(descriptor) = found {
        let document = Source::document(&store, &descriptor)?;
        let here = manifests(&options.reference, &document, &store)?;
        return report(options, &document, here, &store);
    }
    let registries = options.access.registries([&options.reference], context)?;
    let registry = registries.open(&options.reference);
    let descriptor = registry.resolve(&options.reference)?;
    let document = registry.document(&descriptor)?;
    let all = manifests_of(&options.reference, &document, &registry, &|_| true)?;
    report(options, &document, all, &registry)
}

/// Lists the store's images by name.
pub fn list(context: &Context<'_>) -> Result<Vec<ListedReport>, Error> {
    let store = context.open()?;
    let mut images = Vec::new();
    for (reference, descriptor) in store.names()? {
        let document = Source::document(&store, &descriptor)?;
        let mut blobs = BTreeMap::new();
        let mut platforms = Vec::new();
        for (entry, manifest) in manifests(&reference, &document, &store)? {
            platforms.extend(entry.platform.map(|platform| platform.to_string()));
            blobs.extend(manifest.layers.iter().map(|layer| (layer.digest, layer.size)));
        }
        images.push(ListedReport {
            reference,
            digest: descriptor.digest,
            size: blobs.values().sum(),
            platforms,
        });
    }
    Ok(images)
}

/// Returns the image manifests below a document of the store that are there, with the entries that
/// lead to them.
pub(super) fn manifests(
    reference: &Reference,
    document: &Document,
    store: &Store,
) -> Result<Vec<(Descriptor, Manifest)>, Error> {
    manifests_of(reference, document, store, &|entry| store.has_whole(entry))
}

pub(super) fn manifests_of(
    reference: &Reference,
    document: &Document,
    source: &dyn Source,
    is_here: &dyn Fn(&Descriptor) -> bool,
) -> Result<Vec<(Descriptor, Manifest)>, Error> {
    let damaged = |source| Error::Damaged { reference: reference.to_string(), source };
    if !document.is_index() {
        return Ok(vec![(document.descriptor(), document.manifest().map_err(damaged)?)]);
    }
    let mut found = Vec::new();
    for entry in document.index().map_err(damaged)?.manifests {
        // Attestations stand in an index as manifests of no platform.
        let real =
            entry.platform.as_ref().is_none_or(|platform| platform.architecture != "unknown");
        if !real || !media_type::is_manifest(&entry.media_type) {
            continue;
        }
        // A pull of one platform leaves the others behind.
        if is_here(&entry) {
            found.push((entry.clone(), source.document(&entry)?.manifest().map_err(damaged)?));
        }
    }
    Ok(found)
}

/// One platform of an image.
pub(super) struct Chosen {
    pub(super) platform: Platform,
    /// The manifest's entry in its index.
    pub(super) entry: Descriptor,
    pub(super) manifest: Manifest,
    pub(super) config: ConfigDocument,
}

/// Returns the image for a platform, as far as it is there; for none in particular the one for this
/// machine, or the only one there is.
pub(super) fn choose(
    reference: &Reference,
    wanted: Option<&Platform>,
    document: &Document,
    source: &dyn Source,
    is_here: &dyn Fn(&Descriptor) -> bool,
) -> Result<Chosen, Error> {
    let mut found = Vec::new();
    for (entry, manifest) in manifests_of(reference, document, source, is_here)? {
        let config = read_config(&manifest.config, source, reference)?;
        let platform = entry.platform.clone().unwrap_or_else(|| config.platform());
        found.push(Chosen { platform, entry, manifest, config });
    }
    let host = Platform::host();
    let only = found.len() == 1 && wanted.is_none();
    let wanted = wanted.unwrap_or(&host);
    let names: Vec<String> = found.iter().map(|one| one.platform.to_string()).collect();
    found.into_iter().find(|one| only || one.platform.satisfies(wanted)).ok_or_else(|| {
        let names = if names.is_empty() { "nothing".to_owned() } else { fault::list_of(&names) };
        Error::Usage(format!("`{reference}` is not there for {wanted}, only for {names}"))
    })
}

fn report(
    options: &ShowOptions,
    document: &Document,
    manifests: Vec<(Descriptor, Manifest)>,
    source: &dyn Source,
) -> Result<ImageReport, Error> {
    let ShowOptions { reference, platform: only, .. } = options;
    let mut platforms = Vec::new();
    for (entry, manifest) in manifests {
        let config = read_config(&manifest.config, source, reference)?;
        let platform = entry.platform.clone().unwrap_or_else(|| config.platform());
        if only.as_ref().is_some_and(|only| !platform.satisfies(only)) {
            continue;
        }
        platforms.push(describe(platform, &entry, &manifest, &config));
    }
    Ok(ImageReport {
        reference: reference.clone(),
        digest: document.digest(),
        media_type: document.media_type().to_owned(),
        platforms,
    })
}

/// Reads a configuration blob, verified.
pub(super) fn read_config(
    descriptor: &Descriptor,
    source: &dyn Source,
    reference: &Reference,
) -> Result<ConfigDocument, Error> {
    parse_config(&read_config_bytes(descriptor, source)?, reference)
}

/// Reads a configuration blob's bytes, verified.
pub(super) fn read_config_bytes(
    descriptor: &Descriptor,
    source: &dyn Source,
) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let stream = source.blob(descriptor, 0)?;
    Verify::new(stream, descriptor)
        .take(CONFIG_LIMIT)
        .read_to_end(&mut bytes)
        .map_err(|error| transfer::Error::of_stream(descriptor.digest, error))?;
    Ok(bytes)
}

/// Reads a configuration.
pub(super) fn parse_config(bytes: &[u8], reference: &Reference) -> Result<ConfigDocument, Error> {
    ConfigDocument::read(bytes)
        .map_err(|source| Error::Config { reference: reference.to_string(), source })
}

fn describe(
    platform: Platform,
    entry: &Descriptor,
    manifest: &Manifest,
    config: &ConfigDocument,
) -> ImagePlatform {
    let diff_ids = config.diff_ids();
    let history = config.history();
    let mut made_by = config.made_by();
    let layers = manifest
        .layers
        .iter()
        .enumerate()
        .map(|(position, layer)| ImageLayer {
            digest: layer.digest,
            diff_id: diff_ids.get(position).copied(),
            size: layer.size,
            media_type: layer.media_type.clone(),
            made_by: made_by.next().flatten().unwrap_or_default(),
        })
        .collect();
    let parameters = match config.as_json().get("config") {
        Some(Value::Object(members)) => {
            members.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
        }
        _ => BTreeMap::new(),
    };
    ImagePlatform {
        platform,
        manifest: entry.digest,
        config: manifest.config.digest,
        created: config.created().map(str::to_owned),
        size: manifest.layers.iter().map(|layer| layer.size).sum(),
        layers,
        parameters,
        history,
        annotations: manifest.annotations.clone(),
    }
}
