//! Carries out a plan for one platform: finds each layer by its key, or makes it in a sandbox over
//! its parents, and puts the image's documents into the store.
//!
//! While one layer is compressed the steps of the next already run; its key needs only the diff id,
//! which a first pass over the tree gives at the speed of hashing. Nothing a build leaves behind is
//! visible before it is whole.

mod apt;
mod convert;
mod environment;
mod error;
mod gather;
mod host;
mod inputs;
mod make;
mod owner;
mod pack;
mod place;
mod recorder;
mod shell;
mod step;
mod stop;
mod trees;
mod trust;
mod workplace;
mod written;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use crate::layer::Profile;
use crate::netlog::Fetch;
use crate::oci::{
    ConfigDocument, Descriptor, Digest, Document, Manifest, Platform, Reference, media_type,
};
use crate::plan::{self, Ownership, Plan};
use crate::report::Report;
use crate::rootfs::TreeRequest;
use crate::sandbox::{self, Means, Mode};
use crate::store::{CachedLayer, Growing, Store};
use crate::transfer::Source;

pub use error::{Error, LastLines, PlaceOrFetch};
pub use host::Host;
pub use recorder::Recorder;
pub use shell::{Command, Place, run_in_image};
pub use stop::stop_steps;
pub use trees::{LayerId, Need, Trees};
pub use workplace::place_of_trees;
pub use written::Written;

use convert::Convert;
use make::{Made, Maker};

/// What an image is built on.
#[derive(Clone, Debug)]
pub struct Base {
    /// Its name.
    pub reference: Reference,
    /// The digest of what the name stands for: its index, where it has one.
    pub digest: Digest,
    /// The manifest for the platform.
    pub manifest: Manifest,
    /// Its configuration.
    pub config: ConfigDocument,
}

impl Base {
    /// Returns the layers with their diff ids, from the bottom up.
    pub fn layers(&self) -> Vec<LayerId> {
        self.manifest.layers.iter().cloned().zip(self.config.diff_ids()).collect()
    }
}

/// How to build.
pub struct Options<'a> {
    /// How this process is root; decides which unpacked trees are usable.
    pub mode: Mode,
    /// Whether the owners that steps give are kept.
    pub ownership: Ownership,
    /// The compression of new layers.
    pub profile: Profile,
    /// Threads for compressing.
    pub threads: usize,
    /// How trees are made of layers.
    pub tree: TreeRequest,
    /// Where trees go that do not fit into memory.
    pub scratch: Option<&'a Path>,
    /// How many bytes of memory they may take; `None` is half of what is free.
    pub memory: Option<u64>,
    /// Run every step.
    pub no_cache: bool,
    /// Layers to make anew.
    pub refresh: &'a BTreeSet<String>,
    /// Where the base's blobs are that the store lacks.
    pub elsewhere: &'a dyn Source,
    /// Where the bodies may be that a lock names and the store lacks, before their URLs are asked.
    pub inputs: &'a [&'a dyn Source],
    /// Told of each blob that is begun, to send it on while it is made.
    pub begun: &'a (dyn Fn(&str, Growing) + Sync),
    /// Where it is noted which step wrote what, if anybody asks.
    pub written: Option<&'a Written>,
    /// What the steps get of the machine.
    pub host: &'a Host<'a>,
}

impl std::fmt::Debug for Options<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("mode", &self.mode)
            .field("profile", &self.profile)
            .finish_non_exhaustive()
    }
}

/// One platform, built.
#[derive(Clone, Debug)]
pub struct Built {
    /// The manifest's descriptor, with the platform.
    pub manifest: Descriptor,
    /// The recipes' layers, from the bottom up.
    pub layers: Vec<BuiltLayer>,
}

/// One recipe's layer.
#[derive(Clone, Debug)]
pub struct BuiltLayer {
    /// The recipe.
    pub name: String,
    /// What it was looked for under.
    pub key: Digest,
    /// Its digest before compression; `None` when the recipe changed nothing.
    pub diff_id: Option<Digest>,
    /// Its blob.
    pub blob: Option<Descriptor>,
    /// Whether it was there already.
    pub cached: bool,
}

/// How far a layer is: its facts are there before its blob is.
struct Progress {
    name: String,
    key: Digest,
    diff_id: Option<Digest>,
    cached: bool,
    home: HomeFiles,
    /// What its steps fetched, where that was recorded now.
    fetches: Option<Vec<Fetch>>,
}

/// What a layer leaves below the image's home folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HomeFiles {
    /// Some of the paths.
    pub paths: Vec<String>,
    /// How many there are.
    pub count: u64,
    /// Their size.
    pub bytes: u64,
}

/// Builds one platform into the store and returns its manifest, which nothing names yet.
pub fn build(
    plan: &Plan,
    base: &Base,
    store: &Store,
    options: &Options<'_>,
) -> Result<Built, Error> {
    let report = options.host.report;
    let mut parents = base.config.diff_ids();
    let mut maker = Maker::new(plan, base, store, options);
    let finished =
        std::thread::scope(|scope| -> Result<Vec<(Progress, Option<Descriptor>)>, Error> {
            let mut progress = Vec::new();
            let mut packing = Vec::new();
            let outcome = plan.layers.iter().try_for_each(|layer| -> Result<(), Error> {
                let key = plan::key(layer, &parents, options.ownership)?;
                if let Some(Known { diff_id, blob, home, convert }) =
                    known(&layer.name, &key, store, options)?
                {
                    report.note(&format!("{} {}: cached", plan.platform, layer.name));
                    warn_of_home(&layer.name, &home, report);
                    maker.found(diff_id, blob.as_ref());
                    parents.extend(diff_id);
                    progress.push(Progress {
                        name: layer.name.clone(),
                        key,
                        diff_id,
                        cached: true,
                        home,
                        fetches: None,
                    });
                    packing.push(match (diff_id, blob) {
                        (Some(diff_id), Some(blob)) if convert => {
                            let convert = Convert { blob, diff_id, store, options };
                            Packing::Running(scope.spawn(move || convert.run()))
                        }
                        (_, blob) => Packing::Ready(blob),
                    });
                    return Ok(());
                }
                let count = layer.steps.len();
                let steps = if count == 1 { "step" } else { "steps" };
                report.note(&format!("{} {}: {count} {steps}", plan.platform, layer.name));
                let Made { diff_id, home, fetches, pack } = maker.make(layer, &key)?;
                warn_of_home(&layer.name, &home, report);
                parents.extend(diff_id);
                progress.push(Progress {
                    name: layer.name.clone(),
                    key,
                    diff_id,
                    cached: false,
                    home,
                    fetches,
                });
                packing.push(match pack {
                    None => Packing::Ready(None),
                    Some(pack) => Packing::Running(scope.spawn(move || pack.run())),
                });
                Ok(())
            });
            // Layers that are being compressed are finished, and remembered, even when a later one failed.
            let mut finished = Vec::new();
            let mut failed = outcome.err();
            for (one, packing) in progress.into_iter().zip(packing) {
                match packing.wait() {
                    Ok(blob) => {
                        remember(&one, store, options)?;
                        finished.push((one, blob));
                    }
                    Err(error) => {
                        failed.get_or_insert(error);
                    }
                }
            }
            failed.map_or(Ok(finished), Err)
        })?;
    write_image(plan, base, store, finished)
}

/// Makes programs for a platform run in this process' namespaces, and tells by what means. `env` is
/// the caller's, for its `PATH`.
pub fn emulate(platform: &Platform, env: &BTreeMap<String, String>) -> Result<Means, Error> {
    let path = env.get("PATH").map_or("", String::as_str);
    sandbox::provide(platform, path).map_err(|lack| {
        let (platform, host) = (Box::new(platform.clone()), Box::new(Platform::host()));
        Error::Foreign { platform, host, lack }
    })
}

enum Packing<'scope> {
    Ready(Option<Descriptor>),
    Running(std::thread::ScopedJoinHandle<'scope, Result<Descriptor, Error>>),
}

impl Packing<'_> {
    fn wait(self) -> Result<Option<Descriptor>, Error> {
        match self {
            Packing::Ready(blob) => Ok(blob),
            Packing::Running(thread) => thread.join().map_err(|_| Error::Thread)?.map(Some),
        }
    }
}

/// A layer that was found by its key.
struct Known {
    /// `None` when the recipe changed nothing.
    diff_id: Option<Digest>,
    blob: Option<Descriptor>,
    home: HomeFiles,
    /// Whether the blob is of another compression than the wanted one.
    convert: bool,
}

/// Looks a layer up by its key. A blob of it must be here, of whatever compression.
fn known(
    name: &str,
    key: &Digest,
    store: &Store,
    options: &Options<'_>,
) -> Result<Option<Known>, Error> {
    if options.no_cache || options.refresh.contains(name) {
        return Ok(None);
    }
    let Some(layer) = store.cached(key)? else { return Ok(None) };
    let home = HomeFiles::of_record(&layer.rest);
    match layer.diff_id {
        None => Ok(Some(Known { diff_id: None, blob: None, home, convert: false })),
        Some(diff_id) => {
            for profile in [options.profile].into_iter().chain(Profile::ALL) {
                if let Some(blob) = store.blob_for(&diff_id, profile.name())? {
                    let convert = profile != options.profile;
                    return Ok(Some(Known {
                        diff_id: Some(diff_id),
                        blob: Some(blob),
                        home,
                        convert,
                    }));
                }
            }
            Ok(None)
        }
    }
}

/// Tells whether a layer's blob is here, of whatever compression: then no step has to run.
pub fn has_blob(store: &Store, diff_id: &Digest) -> Result<bool, Error> {
    for profile in Profile::ALL {
        if store.blob_for(diff_id, profile.name())?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn remember(layer: &Progress, store: &Store, options: &Options<'_>) -> Result<(), Error> {
    if layer.cached {
        return Ok(());
    }
    if let (Some(fetches), Some(recorder)) = (&layer.fetches, options.host.recorder) {
        // A record names bodies that are here.
        recorder.settle()?;
        store.set_fetches(&layer.key, fetches)?;
    }
    let record = CachedLayer {
        diff_id: layer.diff_id,
        recipe: layer.name.clone(),
        rest: layer.home.as_record(),
    };
    Ok(store.remember(&layer.key, &record)?)
}

fn warn_of_home(layer: &str, home: &HomeFiles, report: &dyn Report) {
    if home.count == 0 {
        return;
    }
    let more = home.count - home.paths.len() as u64;
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    report.warning(&format!(
        "the layer `{layer}` leaves {} bytes below the home folder, which a volume covers at run time: {}{more}",
        home.bytes,
        home.paths.join(", ")
    ));
}

impl HomeFiles {
    const RECORD: &'static str = "below_home";

    fn as_record(&self) -> BTreeMap<String, Value> {
        if self.count == 0 {
            return BTreeMap::new();
        }
        let value =
            serde_json::json!({"paths": self.paths, "count": self.count, "bytes": self.bytes});
        [(HomeFiles::RECORD.to_owned(), value)].into()
    }

    fn of_record(record: &BTreeMap<String, Value>) -> HomeFiles {
        let Some(value) = record.get(HomeFiles::RECORD) else { return HomeFiles::default() };
        let number = |key: &str| value.get(key).and_then(Value::as_u64).unwrap_or(0);
        let paths = value.get("paths").and_then(Value::as_array).into_iter().flatten();
        HomeFiles {
            paths: paths.filter_map(|path| path.as_str().map(str::to_owned)).collect(),
            count: number("count"),
            bytes: number("bytes"),
        }
    }
}

/// Writes the configuration and the manifest over the base's and the new layers.
fn write_image(
    plan: &Plan,
    base: &Base,
    store: &Store,
    finished: Vec<(Progress, Option<Descriptor>)>,
) -> Result<Built, Error> {
    let mut config = base.config.clone();
    let mut blobs: Vec<Descriptor> = base.manifest.layers.iter().map(as_oci).collect();
    let mut layers = Vec::new();
    for (layer, (one, blob)) in plan.layers.iter().zip(finished) {
        let entry = layer.history(one.diff_id.is_none());
        match (one.diff_id, &blob) {
            (Some(diff_id), Some(blob)) => {
                config.push_layer(diff_id, &entry);
                blobs.push(blob.clone());
            }
            _ => config.push_history(&entry),
        }
        layers.push(BuiltLayer {
            name: one.name,
            key: one.key,
            diff_id: one.diff_id,
            blob,
            cached: one.cached,
        });
    }
    plan.config.apply(&mut config);
    let bytes = config.encode()?;
    let (digest, size) = store.put_bytes(&bytes)?;
    let described = Descriptor::new(media_type::CONFIG, digest, size);
    let manifest = Manifest::new(described, blobs, plan.annotations.clone());
    let document = Document::of_manifest(&manifest)?;
    store.put_document(&document)?;
    let mut descriptor = document.descriptor();
    descriptor.platform =
        Some(Platform { variant: config.platform().variant, ..plan.platform.clone() });
    Ok(Built { manifest: descriptor, layers })
}

/// A base's layer under OCI's name for its type; its bytes are the same.
fn as_oci(layer: &Descriptor) -> Descriptor {
    Descriptor { media_type: media_type::as_oci(&layer.media_type).to_owned(), ..layer.clone() }
}
