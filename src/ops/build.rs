//! `build` and its plan: a definition, platform by platform, into the store; the index when all
//! platforms that the definition names are there.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

use crate::build::{self, Built, Host, Written};
use crate::definition::{self, Compression, Definition};
use crate::disk;
use crate::http;
use crate::layer::{Profile, normalise};
use crate::lock;
use crate::oci::{Descriptor, Digest, Platform, Reference};
use crate::plan::{self, Inputs, Misfit, Ownership, Plan, Rules, Sources};
use crate::registry::Repository;
use crate::report::Report;
use crate::sandbox::{self, Mode, Terminal};
use crate::store::{Growing, Store};
use crate::transfer::Source;

use super::access::Origins;
use super::ahead::Ahead;
use super::base::Found;
use super::named::{leave_unnamed, name_image};
use super::outlook::{disk_plan, layer_plans};
use super::shell::Failed;
use super::{Access, Context, DiskPlan, Error, base, inputs, provenance, room};

/// What to build, and how.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own")]
pub struct BuildOptions {
    /// Definitions: names in `manifests/`, or paths.
    pub names: Vec<String>,
    /// The folder that they are looked for from.
    pub folder: PathBuf,
    /// The platforms; none is all that a definition names.
    pub platforms: Vec<Platform>,
    /// Ask the registry for the base even where the store has it.
    pub always_pull: bool,
    /// Run every step.
    pub no_cache: bool,
    /// Layers to make anew.
    pub refresh: Vec<String>,
    /// Refuse to go without a lock, or with one that does not fit the definition.
    pub locked: bool,
    /// Leave the image's name where it is: what is built is there by its digest.
    pub unnamed: bool,
    /// Send layers to the image's destinations while they are made. The tags, and all else, are
    /// [`super::push()`]'s.
    pub send: bool,
    /// Whether the owners that steps give are kept.
    pub ownership: Ownership,
    /// How the steps reach the network.
    pub network: Network,
    /// Where a shell is opened when a step fails.
    pub shell: Option<Arc<Terminal>>,
    /// A file to write down in which step wrote what.
    pub written: Option<PathBuf>,
    /// How to reach registries.
    pub access: Access,
}

/// How the steps that may use the network reach it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// Through the recorder.
    #[default]
    Recorded,
    /// As the machine does.
    Host,
}

/// What was built.
#[derive(Clone, Debug, Serialize)]
pub struct BuildReport {
    /// The definition.
    pub name: String,
    /// The image's name in the store.
    pub image: Reference,
    /// The index's digest; with only some of the platforms, the first one's manifest's.
    pub digest: Digest,
    /// Whether the index is complete and named.
    pub complete: bool,
    /// Whether the owners that steps gave were kept; `None` where nothing was built, only joined.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ownership: Option<Ownership>,
    /// One entry a platform that was built.
    pub platforms: Vec<PlatformReport>,
}

impl BuildReport {
    /// Says what the image lacks for good, to be told last of all.
    pub fn loss(&self) -> Option<String> {
        (self.ownership == Some(Ownership::Discarded)).then(|| {
            format!(
                "{} was built with owners discarded: all that its steps made belongs to root, and \
                 its label and annotation {OWNERSHIP} say so",
                self.image
            )
        })
    }

    /// Tells whether platforms are missing, so that only `push --by-digest` is possible.
    pub fn is_partial(&self) -> bool {
        !self.complete
    }
}

/// One platform that was built.
#[derive(Clone, Debug, Serialize)]
pub struct PlatformReport {
    /// The platform.
    pub platform: Platform,
    /// Its manifest.
    pub manifest: Digest,
    /// The recipes' layers, from the bottom up.
    pub layers: Vec<LayerReport>,
}

/// One recipe's layer.
#[derive(Clone, Debug, Serialize)]
pub struct LayerReport {
    /// The recipe.
    pub name: String,
    /// What it was looked for under.
    pub key: Digest,
    /// The digest before compression; `None` when the recipe changed nothing.
    pub diff_id: Option<Digest>,
    /// The blob.
    pub digest: Option<Digest>,
    /// Its bytes.
    pub size: u64,
    /// Whether it was there already.
    pub cached: bool,
}

/// Where an image says that its owners are not the true ones.
pub(super) const OWNERSHIP: &str = "dev.ocibuild.ownership";

/// The pieces that planning and building share.
pub(super) struct Job {
    pub(super) sources: Sources,
    pub(super) found: Found,
    pub(super) platforms: Vec<(Plan, build::Base)>,
    /// Which step wrote what, where that is to be told.
    pub(super) written: Option<Written>,
}

pub(super) fn job(
    name: &str,
    options: &BuildOptions,
    store: &Store,
    context: &Context<'_>,
) -> Result<Job, Error> {
    job_of(load(name, options)?, options, store, context)
}

/// Plans what the files say.
pub(super) fn job_of(
    sources: Sources,
    options: &BuildOptions,
    store: &Store,
    context: &Context<'_>,
) -> Result<Job, Error> {
    let definition = &sources.definition;
    // One that the definition does not name is refused before anything is asked for.
    for platform in &options.platforms {
        check_platform(definition, platform)?;
    }
    let registries = options.access.registries([&definition.image], context)?;
    let found = base::find(&sources.base(), options.always_pull, store, &registries, context)?;
    let chosen =
        if options.platforms.is_empty() { &definition.platforms } else { &options.platforms };
    let names: Vec<&str> = normalise::RULES.iter().map(|rule| rule.name).collect();
    let mut platforms = Vec::new();
    for platform in chosen {
        let (base, manifest) = found.platform(platform, store)?;
        let plan = plan::plan(
            &sources,
            &Inputs {
                platform,
                base: &base.config,
                base_digest: Some(found.digest()),
                base_manifest: Some(manifest),
                source_date_epoch: source_date_epoch(context)?,
                rules: Rules { version: normalise::VERSION, names: &names },
            },
        )?;
        platforms.push((marked(plan, options.ownership), base));
    }
    let written = options.written.as_ref().map(|_| Written::default());
    Ok(Job { sources, found, platforms, written })
}

/// Marks an image whose owners are not the true ones, so that it has a digest of its own.
fn marked(mut plan: Plan, ownership: Ownership) -> Plan {
    if ownership == Ownership::Discarded {
        let (name, value) = (OWNERSHIP.to_owned(), "discard".to_owned());
        plan.config.labels.insert(name.clone(), value.clone());
        plan.annotations.insert(name, value);
    }
    plan
}

/// Says how this process is root, and what that means for the image.
fn tell_mode(mode: Mode, ownership: Ownership, report: &dyn Report) -> Result<(), Error> {
    let text = match mode {
        Mode::Root => "as root, every id as it is".to_owned(),
        Mode::Range { uid, .. } => format!("with the subordinate ids from {uid}"),
        Mode::Single => "with one id; who owns what is remembered beside the trees".to_owned(),
    };
    if ownership == Ownership::Kept {
        report.note(&format!("mode {}: {text}", name_of(mode)));
        return Ok(());
    }
    if mode != Mode::Single {
        return Err(Error::Usage(
            "`--ownership=discard` is for `--mode=single`: here owners are kept without loss"
                .to_owned(),
        ));
    }
    report.warning(
        "mode single, owners discarded: whatever the steps give to users and groups belongs to root \
         in the image, and its digest is not the one that other modes give",
    );
    Ok(())
}

pub(super) fn name_of(mode: Mode) -> &'static str {
    match mode {
        Mode::Root => "root",
        Mode::Range { .. } => "range",
        Mode::Single => "single",
    }
}

fn check_platform(definition: &Definition, platform: &Platform) -> Result<(), Error> {
    if definition.platforms.contains(platform) {
        return Ok(());
    }
    Err(plan::Error::Platform {
        name: definition.name.clone(),
        platform: Box::new(platform.clone()),
        known: definition.platforms.clone(),
    }
    .into())
}

/// Reads a definition and its recipes.
pub(super) fn load(name: &str, options: &BuildOptions) -> Result<Sources, Error> {
    let path = options.folder.join(definition::find(name, &options.folder.join("manifests"))?);
    Ok(Sources::load(&path).map_err(plan::Error::from)?)
}

pub(super) fn source_date_epoch(context: &Context<'_>) -> Result<Option<i64>, Error> {
    match context.env.get("SOURCE_DATE_EPOCH") {
        None => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|_| {
            Error::Usage(format!(
                "SOURCE_DATE_EPOCH is `{text}`, which is no number of seconds since 1970"
            ))
        }),
    }
}

/// Makes programs for these platforms run in this process' namespaces, and in what it becomes.
pub fn emulate(platforms: &[Platform], context: &Context<'_>) -> Result<(), Error> {
    for platform in platforms {
        build::emulate(platform, context.env)?;
    }
    Ok(sandbox::keep_emulators()?)
}

/// Returns the newest profile of what the definition asks for.
fn profile(definition: &Definition) -> Profile {
    match definition.compression {
        Compression::Gzip => Profile::Gzip1,
        Compression::Zstd => Profile::Zstd1,
    }
}

/// Builds one definition into the store. To be called inside the namespace. A step that fails is
/// remembered for [`super::failed()`].
pub fn build(options: &BuildOptions, context: &Context<'_>) -> Result<BuildReport, Error> {
    let built = build_one(options, context);
    if let Err(Error::Build(build::Error::Step { .. })) = &built {
        // The step's own error is the one to tell.
        context.open().and_then(|store| Failed::of(options).write(&store)).ok();
    }
    built
}

fn build_one(options: &BuildOptions, context: &Context<'_>) -> Result<BuildReport, Error> {
    let [name] = options.names.as_slice() else {
        return Err(Error::Usage("build one definition at a time".to_owned()));
    };
    let store = context.open()?;
    tell_mode(context.mode()?, options.ownership, context.report.as_ref())?;
    let job = job(name, options, &store, context)?;
    let definition = &job.sources.definition;
    tell_lock(&job.sources, options, context.report.as_ref())?;
    let built = make(&job, options, &store, context)?;
    if let (Some(path), Some(written)) = (&options.written, &job.written) {
        disk::write_whole(path, &serde_json::to_vec(written).map_err(Error::Encode)?)?;
    }
    let builder = provenance::builder()?;
    let how = provenance::How {
        profile: profile(definition),
        mode: name_of(context.mode()?),
        ownership: options.ownership,
        builder: &builder,
    };
    for ((plan, _), built) in job.platforms.iter().zip(&built) {
        provenance::record(plan, &job.sources, built, &how, &store)?;
    }
    let manifests: Vec<Descriptor> = built.iter().map(|one| one.manifest.clone()).collect();
    inputs::keep(&job.sources, &manifests, &store, context.report.as_ref())?;
    let (digest, complete) = if options.unnamed {
        leave_unnamed(definition, &manifests, &store)?
    } else {
        name_image(definition, &manifests, &store)?
    };
    Ok(BuildReport {
        name: definition.name.clone(),
        image: definition.image.clone(),
        digest,
        complete,
        ownership: Some(options.ownership),
        platforms: built.iter().map(platform_report).collect(),
    })
}

/// Says how far the digest will follow from a lock. What does not fit is an error with `--locked`.
fn tell_lock(sources: &Sources, options: &BuildOptions, report: &dyn Report) -> Result<(), Error> {
    let definition = &sources.definition;
    let chosen =
        if options.platforms.is_empty() { &definition.platforms } else { &options.platforms };
    let misfits = sources.misfits(chosen);
    if options.locked && !misfits.is_empty() {
        let path = lock::path_beside(definition.file.path());
        return Err(Error::Misfits { name: definition.name.clone(), path, misfits });
    }
    if sources.lock.is_some() && options.network == Network::Host {
        return Err(Error::Usage(format!(
            "`--network host` goes round the lock of `{}`, by which the recorder answers",
            definition.name
        )));
    }
    if misfits == [Misfit::Lock] {
        report.note(&format!(
            "`{}` has no lock: it is built from what the network gives now, and nobody can make \
             its digest again from that alone (`ocibuild lock {}` writes one)",
            definition.name, definition.name
        ));
        return Ok(());
    }
    for misfit in &misfits {
        report.warning(&format!(
            "{misfit}: the network is open there, and the digest follows from no lock"
        ));
    }
    Ok(())
}

/// Builds each platform of a job into the store; nothing names what comes of it yet.
pub(super) fn make(
    job: &Job,
    options: &BuildOptions,
    store: &Store,
    context: &Context<'_>,
) -> Result<Vec<Built>, Error> {
    let Job { sources, platforms, written, .. } = job;
    let definition = &sources.definition;
    let refresh: BTreeSet<String> = options.refresh.iter().cloned().collect();
    check_refresh(&refresh, sources)?;
    let registries = options.access.registries([&definition.image], context)?;
    let client = http::Client::new(options.access.client(context));
    let recorder = match options.network {
        Network::Host => None,
        Network::Recorded => {
            let report = Arc::clone(context.report);
            Some(build::Recorder::new(store, client.clone(), report)?)
        }
    };
    let host = Host::new(context.env, client, context.report.as_ref());
    let host = Host { terminal: options.shell.as_deref(), ..host };
    let host = match &recorder {
        None => host,
        Some(recorder) => host.recording(recorder),
    };
    let repositories: Vec<Repository> = if options.send {
        definition.destinations().iter().map(|name| registries.open(name)).collect()
    } else {
        Vec::new()
    };
    let pushed = places(definition, options, context)?;
    let inputs: Vec<&dyn Source> = pushed.iter().map(|place| place as &dyn Source).collect();
    let report = context.report.as_ref();
    let (mut disk, mut spared) = (DiskPlan::default(), BTreeSet::new());
    for (plan, base) in platforms {
        let layers = layer_plans(plan, base, options, store)?;
        disk += disk_plan(&layers, base, store, context)?;
        spared.extend(base.config.diff_ids());
        spared.extend(layers.iter().filter_map(|layer| layer.key));
    }
    room::make(&disk, spared, store, context)?;
    let mut built = Vec::new();
    for (plan, base) in platforms {
        for warning in &plan.warnings {
            context.report.warning(warning);
        }
        let origins = Origins::new(store, &registries, &base.manifest.layers)?;
        let mode = context.mode()?;
        let ahead = Ahead::new(store, &origins, &base.manifest.layers, &repositories, report);
        built.push(std::thread::scope(|scope| {
            let begun = |layer: &str, blob: Growing| ahead.begun(scope, layer, &blob);
            let how = build::Options {
                mode,
                ownership: options.ownership,
                begun: &begun,
                profile: profile(definition),
                threads: context.threads,
                tree: context.tree,
                scratch: context.scratch,
                memory: context.memory,
                no_cache: options.no_cache,
                refresh: &refresh,
                elsewhere: &origins,
                inputs: &inputs,
                written: written.as_ref(),
                host: &host,
            };
            let built = build::build(plan, base, store, &how);
            ahead.end(built.is_ok());
            built
        })?);
    }
    Ok(built)
}

/// Returns the repositories in which an image of the definition may have been pushed with its inputs.
fn places(
    definition: &Definition,
    options: &BuildOptions,
    context: &Context<'_>,
) -> Result<Vec<Repository>, Error> {
    if options.access.offline {
        return Ok(Vec::new());
    }
    let registries = options.access.registries_to_try([&definition.image], context)?;
    // Without a port that is no registry but this store.
    let images = std::iter::once(&definition.image)
        .chain(&definition.also)
        .filter(|image| image.registry() != "localhost");
    Ok(images.map(|image| registries.open(image)).collect())
}

fn check_refresh(refresh: &BTreeSet<String>, sources: &Sources) -> Result<(), Error> {
    for name in refresh {
        if !sources.recipes.iter().any(|recipe| recipe.name == *name) {
            let known: Vec<&String> = sources.recipes.iter().map(|recipe| &recipe.name).collect();
            return Err(Error::Usage(format!(
                "`{}` has no layer `{name}` to refresh, only {}",
                sources.definition.name,
                crate::fault::list_of(&known)
            )));
        }
    }
    Ok(())
}

fn platform_report(built: &Built) -> PlatformReport {
    PlatformReport {
        platform: built.manifest.platform.clone().unwrap_or_else(Platform::host),
        manifest: built.manifest.digest,
        layers: built
            .layers
            .iter()
            .map(|layer| LayerReport {
                name: layer.name.clone(),
                key: layer.key,
                diff_id: layer.diff_id,
                digest: layer.blob.as_ref().map(|blob| blob.digest),
                size: layer.blob.as_ref().map_or(0, |blob| blob.size),
                cached: layer.cached,
            })
            .collect(),
    }
}
