//! `provenance`: how an image was built. A build writes it down beside the image, a push sends it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::build::Built;
use crate::describe::provenance::{Builder, Facts, LayerFacts, Network, Source, of_index};
use crate::describe::sign::Bundle;
use crate::describe::{Artifact, Parts, Statement, statement};
use crate::disk::At;
use crate::layer::Profile;
use crate::oci::{Descriptor, Digest, Hasher, Platform, Reference};
use crate::plan::{self, Ownership, Plan, Sources};
use crate::recipe::{Action, Node, Pin};
use crate::store::Store;

use super::attach::{self, Attached, STATEMENT};
use super::{Access, Context, Error};

/// Of all that refers to an image of the store, how it was built.
pub(super) const KIND: &str = "provenance";

/// The annotation that says what kind of statement a blob holds.
const PREDICATE: &str = "in-toto.io/predicate-type";

/// The member of a lock's label that names the platform's section.
const LOCK: &str = "dev.ocibuild.lock";

/// What a build was, besides its plan.
pub(super) struct How<'a> {
    pub(super) profile: Profile,
    pub(super) mode: &'static str,
    pub(super) ownership: Ownership,
    pub(super) builder: &'a Builder,
}

/// Names the program that is running.
pub(super) fn builder() -> Result<Builder, Error> {
    let path = Path::new("/proc/self/exe");
    let mut file = File::open(path).at("open", path)?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).at("read", path)? {
            0 => break,
            read => hasher.update(&buffer[..read]),
        }
    }
    let version = env!("CARGO_PKG_VERSION").to_owned();
    Ok(Builder { version, executable: hasher.finish() })
}

/// Writes down beside a manifest of the store how it was built.
pub(super) fn record(
    plan: &Plan,
    sources: &Sources,
    built: &Built,
    how: &How<'_>,
    store: &Store,
) -> Result<(), Error> {
    let mut layers = Vec::new();
    for (layer, made) in plan.layers.iter().zip(&built.layers) {
        layers.push(LayerFacts {
            name: layer.name.clone(),
            recipe: layer.recipe,
            key: made.key,
            diff_id: made.diff_id,
            source_date: layer.source_date,
            without_rules: layer.without_rules.clone(),
            network: network(layer, &made.key, store)?,
            demanded: demanded(layer),
        });
    }
    let lock = plan.config.labels.get(LOCK).and_then(|text| text.parse().ok());
    let facts = Facts {
        image: sources.definition.image.clone(),
        definition: plan.name.clone(),
        platform: plan.platform.clone(),
        base: (plan.base.reference.clone(), plan.base.manifest),
        sources: files(plan, sources),
        lock,
        rules: crate::layer::normalise::VERSION.to_owned(),
        compression: how.profile.name().to_owned(),
        mode: how.mode.to_owned(),
        owners_discarded: how.ownership == Ownership::Discarded,
        layers,
        builder: how.builder.clone(),
    };
    keep(&built.manifest, facts.statement(built.manifest.digest)?, store)
}

/// Writes down beside an index of the store what it joins.
pub(super) fn record_index(
    image: &Reference,
    index: &Descriptor,
    entries: &[Descriptor],
    builder: &Builder,
    store: &Store,
) -> Result<(), Error> {
    let platforms: Vec<(Platform, Digest)> =
        entries.iter().filter_map(|entry| Some((entry.platform.clone()?, entry.digest))).collect();
    keep(index, of_index(image, index.digest, &platforms, builder)?, store)
}

fn keep(subject: &Descriptor, statement: Vec<u8>, store: &Store) -> Result<(), Error> {
    let predicate = (PREDICATE.to_owned(), statement::PROVENANCE.to_owned());
    let artifact = Artifact::new(Parts {
        subject,
        artifact_type: STATEMENT,
        annotations: BTreeMap::from([predicate.clone()]),
        blobs: vec![(STATEMENT, statement, BTreeMap::from([predicate]))],
    })?;
    attach::keep(&artifact, subject.digest, KIND, store)
}

fn network(layer: &plan::Layer, key: &Digest, store: &Store) -> Result<Network, Error> {
    let reaches = |step: &plan::Step| match &step.action {
        Action::Run(run) => run.network,
        Action::Fetch(fetch) => fetch.pin == Pin::Unpinned,
        Action::Copy(_) | Action::Env(_) => false,
    };
    if let Some(pins) = &layer.pins {
        return Ok(Network::Locked(pins.fetches.to_vec()));
    }
    if !layer.steps.iter().any(reaches) {
        return Ok(Network::Off);
    }
    Ok(store.fetches(key)?.map_or(Network::Open, Network::Recorded))
}

/// What a recipe fetches by itself, where its address is known without the tree.
fn demanded(layer: &plan::Layer) -> Vec<(String, Digest)> {
    let fetches = layer.steps.iter().filter_map(|step| match &step.action {
        Action::Fetch(fetch) => Some(fetch),
        _ => None,
    });
    fetches
        .filter_map(|fetch| match &fetch.pin {
            Pin::Any(digest) => Some((fetch.url.clone().finished().ok()?, *digest)),
            _ => None,
        })
        .collect()
}

/// The definition and the recipes' files, under the names that they have in any project: where it
/// lies on this machine says nothing.
fn files(plan: &Plan, sources: &Sources) -> Vec<Source> {
    let of = |name: String, text: &str| Source { name, digest: Digest::of(text.as_bytes()) };
    let definition = &sources.definition.file;
    let mut found = vec![of(last(definition.path(), 2), definition.text())];
    for (layer, recipe) in plan.layers.iter().zip(&sources.recipes) {
        found.push(of(last(recipe.file.path(), 3), recipe.file.text()));
        for entry in layer.files.entries() {
            if let Node::File { sha256, .. } = &entry.node {
                let name = format!("{}/{}", last(&layer.folder, 2), entry.path);
                found.push(Source { name, digest: *sha256 });
            }
        }
    }
    found
}

fn last(path: &Path, count: usize) -> String {
    let names: Vec<String> = path.iter().map(|name| name.to_string_lossy().into_owned()).collect();
    names[names.len().saturating_sub(count)..].join("/")
}

/// What to tell the provenance of.
#[derive(Clone, Debug)]
pub struct ProvenanceOptions {
    /// The image.
    pub reference: Reference,
    /// Ask the registry even where the store has an image of that name.
    pub remote: bool,
    /// The platform; `None` is this machine's, or the only one.
    pub platform: Option<Platform>,
    /// How to reach the registry.
    pub access: Access,
}

/// Returns the statement of how an image was built, as it lies beside the image in the store or in its
/// registry. Signatures are not looked at.
pub fn provenance(options: &ProvenanceOptions, context: &Context<'_>) -> Result<Vec<u8>, Error> {
    let wanted = attach::Wanted {
        reference: &options.reference,
        platform: options.platform.as_ref(),
        remote: options.remote,
        access: &options.access,
        kind: KIND,
    };
    let (digest, found) = attach::find(&wanted, &statement_of, context)?;
    let image = options.reference.at(digest);
    found.ok_or(Error::NotAttached { what: "provenance", image })
}

/// Returns the statement of how an image was built, if that is what is attached.
fn statement_of(one: &Attached, image: Digest) -> Option<Vec<u8>> {
    let bytes = if Bundle::is_type(&one.artifact_type) {
        Bundle::read(&one.bytes).ok()?.unverified().to_vec()
    } else {
        one.bytes.clone()
    };
    let read = Statement::read(&bytes)?;
    (read.predicate_type == statement::PROVENANCE && read.is_about(image)).then_some(bytes)
}
