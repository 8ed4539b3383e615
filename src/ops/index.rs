//! `index`: one index from platforms that were built apart, the same as a build of all gives.

use std::path::PathBuf;

use crate::oci::{Descriptor, Platform, Reference};
use crate::transfer::{self, Source};

use super::build::load;
use super::named::name_image;
use super::{Access, BuildOptions, BuildReport, Context, Error, Network, PlatformReport, inspect};

/// What to join.
#[derive(Clone, Debug)]
pub struct IndexOptions {
    /// The definition: a name in `manifests/`, or a path.
    pub name: String,
    /// The folder that it is looked for from.
    pub folder: PathBuf,
    /// Images by digest; what was built into this store counts too.
    pub images: Vec<Reference>,
    /// How to reach registries.
    pub access: Access,
}

/// Joins platforms into the index of a definition. Refused while one that the definition names is
/// missing.
pub fn index(options: &IndexOptions, context: &Context<'_>) -> Result<BuildReport, Error> {
    let store = context.open()?;
    let build = BuildOptions {
        network: Network::Host,
        send: false,
        shell: None,
        written: None,
        names: Vec::new(),
        folder: options.folder.clone(),
        platforms: Vec::new(),
        always_pull: false,
        no_cache: false,
        refresh: Vec::new(),
        locked: false,
        unnamed: false,
        ownership: crate::plan::Ownership::Kept,
        access: options.access.clone(),
    };
    let sources = load(&options.name, &build)?;
    let definition = &sources.definition;
    let registries = options.access.registries(&options.images, context)?;
    let mut entries: Vec<Descriptor> = Vec::new();
    for reference in &options.images {
        if reference.digest().is_none() {
            return Err(Error::Usage(format!(
                "`{reference}` names no digest, and a tag may move: give what `push --by-digest` printed"
            )));
        }
        let descriptor = match store.resolve(reference)? {
            Some(descriptor) => descriptor,
            None => registries.open(reference).resolve(reference)?,
        };
        let repository = registries.open(reference);
        let document = if store.has_whole(&descriptor) {
            Source::document(&store, &descriptor)?
        } else {
            repository.document(&descriptor)?
        };
        // The blobs stay where they are; a push finds them there or takes them from there.
        store.put_document(&document)?;
        let manifest = document.manifest().map_err(transfer::Error::from)?;
        let bytes = if store.has_whole(&manifest.config) {
            inspect::read_config_bytes(&manifest.config, &store)?
        } else {
            inspect::read_config_bytes(&manifest.config, &repository)?
        };
        store.put_bytes(&bytes)?;
        let config = inspect::parse_config(&bytes, reference)?;
        let digests: Vec<_> = manifest
            .layers
            .iter()
            .filter(|layer| !store.has_whole(layer))
            .map(|layer| layer.digest)
            .collect();
        store.add_origins(&digests, reference)?;
        let mut entry = document.descriptor();
        entry.platform = Some(config.platform());
        add(&mut entries, entry, definition.platforms.as_slice(), reference)?;
    }
    for mut part in store.partials(&definition.image)? {
        part.annotations.clear();
        let known = entries.iter().any(|entry| entry.platform == part.platform);
        if !known {
            entries.push(part);
        }
    }
    let missing: Vec<Platform> = definition
        .platforms
        .iter()
        .filter(|platform| {
            !entries
                .iter()
                .any(|entry| entry.platform.as_ref().is_some_and(|has| has.satisfies(platform)))
        })
        .cloned()
        .collect();
    if !missing.is_empty() {
        return Err(Error::MissingPlatforms {
            image: definition.image.clone(),
            platforms: missing,
        });
    }
    let (digest, complete) = name_image(definition, &entries, &store)?;
    Ok(BuildReport {
        name: definition.name.clone(),
        image: definition.image.clone(),
        digest,
        complete,
        ownership: None,
        platforms: entries
            .iter()
            .map(|entry| PlatformReport {
                platform: entry.platform.clone().unwrap_or_else(Platform::host),
                manifest: entry.digest,
                layers: Vec::new(),
            })
            .collect(),
    })
}

fn add(
    entries: &mut Vec<Descriptor>,
    entry: Descriptor,
    wanted: &[Platform],
    reference: &Reference,
) -> Result<(), Error> {
    let is_wanted = entry
        .platform
        .as_ref()
        .is_some_and(|has| wanted.iter().any(|platform| has.satisfies(platform)));
    if !is_wanted {
        let has = entry.platform.as_ref().map_or_else(String::new, ToString::to_string);
        return Err(Error::Usage(format!(
            "`{reference}` is for {has}, which the definition does not name"
        )));
    }
    if entries.iter().any(|other| other.platform == entry.platform && other.digest != entry.digest)
    {
        return Err(Error::Usage(format!("`{reference}` is a second image for the same platform")));
    }
    if !entries.iter().any(|other| other.digest == entry.digest) {
        entries.push(entry);
    }
    Ok(())
}
