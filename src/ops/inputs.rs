//! What an image was built from, beside it: definition, recipes and lock, and on request the bodies
//! that the lock lists, with the base's documents. They come back with [`sources()`] and
//! [`pull_inputs()`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::Serialize;
use serde_json::json;

use crate::describe::sources::{self as project, DEFINITION, SOURCES};
use crate::describe::{Artifact, Parts};
use crate::lock::{self, Lock};
use crate::oci::{Descriptor, Digest, Document, Manifest, Platform, Reference, media_type};
use crate::plan::Sources;
use crate::registry::Repository;
use crate::report::Report;
use crate::store::Store;
use crate::text::{File, Problems};
use crate::transfer::{self, Source as _};

use super::attach::{self, Attached};
use super::{Access, Context, Error, inspect};

/// Of all that refers to an image of the store, what it was built from.
const KIND: &str = "sources";

/// Likewise the inputs of its steps, which no push sends that was not told to.
pub(super) const INPUTS_KIND: &str = "inputs";

/// The type of the artifact of inputs.
const INPUTS: &str = "application/vnd.ocibuild.inputs.v1";

/// The type of a body.
const BODY: &str = "application/octet-stream";

/// The type of an empty configuration, and its content.
const EMPTY: (&str, &[u8]) = (media_type::EMPTY, b"{}");

/// Keeps a locked definition with its recipes and its lock beside the images that were built of it.
/// Without a lock nobody could build the same of them.
pub(super) fn keep(
    sources: &Sources,
    manifests: &[Descriptor],
    store: &Store,
    report: &dyn Report,
) -> Result<(), Error> {
    if sources.lock.is_none() {
        return Ok(());
    }
    let packed = match project::pack(sources) {
        Ok(packed) => packed,
        Err(error) => {
            report.warning(&format!("the image goes without what it was built from: {error}"));
            return Ok(());
        }
    };
    for subject in manifests {
        let artifact = Artifact::new(Parts {
            subject,
            artifact_type: SOURCES,
            annotations: BTreeMap::from([(DEFINITION.to_owned(), packed.definition.clone())]),
            blobs: vec![(SOURCES, packed.tar.clone(), BTreeMap::new())],
        })?;
        attach::keep(&artifact, subject.digest, KIND, store)?;
    }
    Ok(())
}

/// Keeps the inputs of a document's images beside them, so that a push can send them. Those that came
/// with credentials need a word of the caller.
pub(super) fn keep_inputs(
    reference: &Reference,
    document: &Document,
    yes: bool,
    store: &Store,
) -> Result<(), Error> {
    for (entry, _) in inspect::manifests(reference, document, store)? {
        let image = reference.at(entry.digest);
        let Some(tar) = attach::kept(entry.digest, KIND, store)? else {
            return Err(Error::Usage(format!(
                "{image} was not built here with a lock, so that its inputs are not known: \
                 `ocibuild lock` writes one"
            )));
        };
        let lock = lock_of(&tar, &image)?;
        let platform = entry.platform.clone().unwrap_or_else(Platform::host);
        let Some(section) = lock.section(&platform) else { continue };
        let fetches = || section.layers.values().flat_map(|layer| &layer.fetches);
        let private: BTreeSet<&str> =
            fetches().filter(|fetch| fetch.credentials).map(|fetch| fetch.url.as_str()).collect();
        if !private.is_empty() && !yes {
            let list: Vec<&str> = private.into_iter().collect();
            return Err(Error::Private { image, urls: list.join("\n  ") });
        }
        let mut layers = documents_of_base(&lock, section.base, store)?;
        // Whoever needs an empty body has it.
        let bodies: BTreeMap<Digest, (u64, &str)> = fetches()
            .filter(|fetch| fetch.size > 0)
            .map(|fetch| (fetch.digest, (fetch.size, fetch.url.as_str())))
            .collect();
        for (digest, (size, url)) in bodies {
            let body = Descriptor::new(BODY, digest, size);
            if !store.has_whole(&body) {
                return Err(Error::NoInput { url: url.to_owned(), digest });
            }
            layers.push(body);
        }
        let (digest, size) = store.put_bytes(EMPTY.1)?;
        let mut manifest =
            Manifest::new(Descriptor::new(EMPTY.0, digest, size), layers, BTreeMap::new());
        manifest.rest = BTreeMap::from([
            ("artifactType".to_owned(), json!(INPUTS)),
            (
                "subject".to_owned(),
                json!({
                    "mediaType": entry.media_type, "digest": entry.digest, "size": entry.size,
                }),
            ),
        ]);
        let artifact = Document::of_manifest(&manifest)?;
        store.put_document(&artifact)?;
        store.set_referrer(&entry.digest, INPUTS_KIND, &artifact.descriptor())?;
    }
    Ok(())
}

/// The base's index, manifest and configuration: its registry forgets what no tag names, and its
/// layers are the image's.
fn documents_of_base(
    lock: &Lock,
    manifest: Digest,
    store: &Store,
) -> Result<Vec<Descriptor>, Error> {
    let mut found: Vec<Descriptor> = Vec::new();
    for digest in [lock.base.digest, manifest] {
        let name = lock.base.reference.at(digest);
        let Some(entry) = store.resolve(&name)? else { continue };
        let document = store.document(&entry)?;
        if !document.is_index() {
            let config = document.manifest().map_err(transfer::Error::from)?.config;
            if store.has_whole(&config) {
                found.push(config);
            }
        }
        found.push(document.descriptor());
    }
    found.dedup_by(|a, b| a.digest == b.digest);
    Ok(found)
}

fn lock_of(tar: &[u8], image: &Reference) -> Result<Lock, Error> {
    let mut archive = tar::Archive::new(tar);
    let damaged = || Error::Usage(format!("what {image} was built from cannot be read"));
    for entry in archive.entries().map_err(|_| damaged())? {
        let mut entry = entry.map_err(|_| damaged())?;
        let name = PathBuf::from(String::from_utf8_lossy(&entry.path_bytes()).into_owned());
        // It comes right after the definition, before any recipe's own files.
        if name.extension().is_none_or(|extension| extension != "lock") {
            continue;
        }
        let mut text = String::new();
        std::io::Read::read_to_string(&mut entry, &mut text).map_err(|_| damaged())?;
        let problems = Problems::new();
        let lock = lock::parse(&File::of_text(name, text), &problems);
        return Ok(problems.finish(lock).map_err(crate::plan::Error::from)?);
    }
    Err(damaged())
}

/// Whose sources to get.
#[derive(Clone, Debug)]
pub struct SourcesOptions {
    /// The image.
    pub reference: Reference,
    /// Ask the registry even where the store has an image of that name.
    pub remote: bool,
    /// The platform; `None` is this machine's, or the only one.
    pub platform: Option<Platform>,
    /// The folder to make.
    pub folder: PathBuf,
    /// How to reach the registry.
    pub access: Access,
}

/// A project that was unpacked.
#[derive(Clone, Debug, Serialize)]
pub struct SourcesReport {
    /// The image's manifest.
    pub manifest: Digest,
    /// The project's folder.
    pub folder: PathBuf,
}

/// Unpacks the definition, the recipes and the lock that an image was built from into a new folder.
pub fn sources(options: &SourcesOptions, context: &Context<'_>) -> Result<SourcesReport, Error> {
    let SourcesOptions { reference, folder, .. } = options;
    let wanted = attach::Wanted {
        reference,
        platform: options.platform.as_ref(),
        remote: options.remote,
        access: &options.access,
        kind: KIND,
    };
    let project = |one: &Attached, _| (one.artifact_type == SOURCES).then(|| one.bytes.clone());
    let (digest, tar) = attach::find(&wanted, &project, context)?;
    let missing = || Error::NotAttached { what: "lock and recipes", image: reference.at(digest) };
    project::unpack(&tar.ok_or_else(missing)?, folder)?;
    Ok(SourcesReport { manifest: digest, folder: folder.clone() })
}

/// Brings the inputs of a document's images into the store, as far as they are in its registry, and
/// returns how many bodies and bytes these are.
pub(super) fn pull_inputs(
    reference: &Reference,
    document: &Document,
    registry: &Repository,
    store: &Store,
    report: &dyn Report,
) -> Result<(), Error> {
    for (entry, _) in inspect::manifests(reference, document, store)? {
        let of_inputs = |one: &&Descriptor| one.artifact_type() == Some(INPUTS);
        let all = registry.referrers(entry.digest)?;
        let Some(found) = all.iter().find(of_inputs) else {
            return Err(Error::NotAttached { what: "inputs", image: reference.at(entry.digest) });
        };
        let mut found = found.clone();
        media_type::MANIFEST.clone_into(&mut found.media_type);
        let artifact = registry.document(&found)?;
        let options = transfer::Options::default();
        transfer::copy(registry, store, &artifact, &[], &options, report)?;
        store.set_referrer(&entry.digest, INPUTS_KIND, &artifact.descriptor())?;
    }
    Ok(())
}
