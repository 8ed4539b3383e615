//! `lock`: a definition's build with the recorder on, as a file; and what is done with such files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::build::Built;
use crate::layer::normalise;
use crate::lock::{self, Layer, Lock, Section};
use crate::netlog::Fetch;
use crate::oci::{Digest, Platform};
use crate::plan::{self, Ownership, Plan, Sources};
use crate::store::Store;
use crate::text::Problems;
use crate::{definition, disk};

use super::build::{self, Job};
use super::{Access, BuildOptions, Context, Error, Network};

/// The most bytes of a release of an apt repository.
const LARGEST_RELEASE: u64 = 64 << 20;

/// What to lock.
#[derive(Clone, Debug)]
pub struct LockOptions {
    /// The definition: a name in `manifests/`, or a path.
    pub name: String,
    /// The folder that it is looked for from.
    pub folder: PathBuf,
    /// The platforms; none is all that the definition names. The others keep what the lock says.
    pub platforms: Vec<Platform>,
    /// The layers to renew; none is all of them, and the base.
    pub update: Vec<String>,
    /// How to reach registries.
    pub access: Access,
}

/// What was locked.
#[derive(Clone, Debug, Serialize)]
pub struct LockReport {
    /// The file that was written.
    pub file: PathBuf,
    /// One entry a platform that was locked now.
    pub platforms: Vec<LockedPlatform>,
    /// What changed since the lock that was there; `None` where there was none.
    pub changes: Option<lock::Diff>,
}

/// One platform that was locked.
#[derive(Clone, Debug, Serialize)]
pub struct LockedPlatform {
    /// The platform.
    pub platform: Platform,
    /// What images built with the lock have in their label.
    pub digest: Digest,
    /// How many answers of the network are listed.
    pub fetches: usize,
    /// How many bodies these have.
    pub bodies: usize,
    /// Their bytes.
    pub bytes: u64,
    /// The layers that were renewed.
    pub renewed: Vec<String>,
}

/// Builds a definition once with the recorder on, and writes what its steps were given to the file
/// beside it. To be called inside the namespace. The image is not named: its layers have other dates
/// than those that the lock is about to give them.
pub fn lock(options: &LockOptions, context: &Context<'_>) -> Result<LockReport, Error> {
    let store = context.open()?;
    let path = sources_of(&options.name, &options.folder)?;
    let file = lock::path_beside(&path);
    let mut sources = Sources::load_unlocked(&path).map_err(plan::Error::from)?;
    check_layers(options, &sources)?;
    let platforms = if options.platforms.is_empty() {
        sources.definition.platforms.clone()
    } else {
        options.platforms.clone()
    };
    let old = old_lock(options, &file, context)?;
    sources.lock = match &old {
        Some(old) => kept(old, &sources, &platforms, options)?,
        None if options.update.is_empty() => None,
        None => {
            return Err(Error::Usage(format!(
                "there is no {} to update: `ocibuild lock {}` writes one",
                file.display(),
                options.name
            )));
        }
    };
    let kept = sources.lock.clone();
    let (job, build) = planned(options, sources, &platforms, &store, context)?;
    let built = build::make(&job, &build, &store, context)?;
    let mut locked = Lock {
        rules: normalise::VERSION.to_owned(),
        base: lock::Base {
            reference: job.sources.definition.base.clone(),
            digest: job.found.digest(),
        },
        platforms: kept.map(|kept| kept.platforms).unwrap_or_default(),
    };
    let mut reports = Vec::new();
    for ((plan, base), built) in job.platforms.iter().zip(&built) {
        let manifest = plan.base.manifest.unwrap_or(base.digest);
        let section = locked
            .platforms
            .entry(plan.platform.to_string())
            .or_insert_with(|| Section { base: manifest, layers: BTreeMap::new() });
        section.base = manifest;
        let renewed = renew(section, plan, built, &store, context)?;
        reports.push((plan.platform.clone(), renewed));
    }
    let known: BTreeSet<String> = definition_platforms(&job.sources);
    locked.platforms.retain(|platform, _| known.contains(platform));
    write(&locked, &file)?;
    let platforms = reports
        .into_iter()
        .map(|(platform, renewed)| report(&locked, platform, renewed))
        .collect::<Result<_, Error>>()?;
    Ok(LockReport { file, platforms, changes: old.map(|old| lock::diff(&old, &locked)) })
}

fn definition_platforms(sources: &Sources) -> BTreeSet<String> {
    sources.definition.platforms.iter().map(ToString::to_string).collect()
}

fn check_layers(options: &LockOptions, sources: &Sources) -> Result<(), Error> {
    for name in &options.update {
        if !sources.recipes.iter().any(|recipe| recipe.name == *name) {
            let known: Vec<&String> = sources.recipes.iter().map(|recipe| &recipe.name).collect();
            return Err(Error::Usage(format!(
                "`{}` has no layer `{name}` to update, only {}",
                sources.definition.name,
                crate::fault::list_of(&known)
            )));
        }
    }
    Ok(())
}

/// Reads the lock that is there. One that can't be read is in the way only of what keeps some of it.
fn old_lock(
    options: &LockOptions,
    file: &Path,
    context: &Context<'_>,
) -> Result<Option<Lock>, Error> {
    if file.symlink_metadata().is_err() {
        return Ok(None);
    }
    match read(file) {
        Ok(lock) => Ok(Some(lock)),
        Err(error) if options.update.is_empty() && options.platforms.is_empty() => {
            context.report.warning(&format!("the lock that was there is replaced: {error}"));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Returns what of a lock stays; `None` where all of it is renewed.
fn kept(
    old: &Lock,
    sources: &Sources,
    platforms: &[Platform],
    options: &LockOptions,
) -> Result<Option<Lock>, Error> {
    let definition = &sources.definition;
    let fits = old.base.reference == definition.base && old.rules == normalise::VERSION;
    let mut kept = old.clone();
    if options.update.is_empty() {
        for platform in platforms {
            kept.platforms.remove(&platform.to_string());
        }
        let known = definition_platforms(sources);
        kept.platforms.retain(|platform, _| known.contains(platform));
        // With all platforms the base is renewed as well.
        if kept.platforms.is_empty() {
            return Ok(None);
        }
        if !fits {
            return Err(Error::Usage(format!(
                "the lock stands on {} under the rules {}, the definition on {} and this ocibuild has \
                 the rules {}: lock all platforms",
                old.base.reference,
                old.rules,
                definition.base,
                normalise::VERSION
            )));
        }
        return Ok(Some(kept));
    }
    if !fits {
        return Err(Error::Usage(format!(
            "the lock stands on {} under the rules {}, the definition on {} and this ocibuild has the \
             rules {}: lock all layers",
            old.base.reference,
            old.rules,
            definition.base,
            normalise::VERSION
        )));
    }
    for platform in platforms {
        let Some(section) = kept.platforms.get_mut(&platform.to_string()) else {
            return Err(Error::Usage(format!(
                "the lock has nothing for {platform}: lock all of its layers"
            )));
        };
        section.layers.retain(|name, _| {
            let known = sources.recipes.iter().any(|recipe| recipe.name == *name);
            known && !options.update.contains(name)
        });
    }
    Ok(Some(kept))
}

/// Plans the layers up to the last that is renewed; those above it are looked at by the next build.
fn planned(
    options: &LockOptions,
    sources: Sources,
    platforms: &[Platform],
    store: &Store,
    context: &Context<'_>,
) -> Result<(Job, BuildOptions), Error> {
    let mut build = BuildOptions {
        names: vec![options.name.clone()],
        folder: options.folder.clone(),
        platforms: platforms.to_vec(),
        always_pull: sources.lock.is_none(),
        no_cache: false,
        refresh: Vec::new(),
        locked: false,
        unnamed: false,
        send: false,
        ownership: Ownership::Kept,
        network: Network::Recorded,
        shell: None,
        written: None,
        access: options.access.clone(),
    };
    let mut job = build::job_of(sources, &build, store, context)?;
    let mut refresh = BTreeSet::new();
    for (plan, _) in &mut job.platforms {
        let last = plan.layers.iter().rposition(|layer| layer.pins.is_none());
        plan.layers.truncate(last.map_or(0, |last| last + 1));
        let open = plan.layers.iter().filter(|layer| layer.pins.is_none());
        refresh.extend(open.map(|layer| layer.name.clone()));
    }
    build.refresh = refresh.into_iter().collect();
    Ok((job, build))
}

/// Puts what was recorded into a section, and returns the layers that are new in it.
fn renew(
    section: &mut Section,
    plan: &Plan,
    built: &Built,
    store: &Store,
    context: &Context<'_>,
) -> Result<Vec<String>, Error> {
    let mut renewed = Vec::new();
    for (layer, made) in plan.layers.iter().zip(&built.layers) {
        if layer.pins.is_some() {
            continue;
        }
        let fetches: Vec<Fetch> = store
            .fetches(&made.key)?
            .ok_or_else(|| Error::NotRecorded { layer: layer.name.clone() })?;
        let date = match build::source_date_epoch(context)? {
            Some(date) => date,
            None => date_of(&fetches, layer.source_date, context.now, store)?,
        };
        section.layers.insert(layer.name.clone(), Layer::new(date, fetches));
        renewed.push(layer.name.clone());
    }
    Ok(renewed)
}

/// Returns the date of a layer: that of the newest body, or of the newest of apt's releases, which say
/// it themselves; but none before the base's, and none of a clock that is ahead.
fn date_of(fetches: &[Fetch], base: i64, now: u64, store: &Store) -> Result<i64, Error> {
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let mut newest = base;
    for fetch in fetches.iter().filter(|fetch| fetch.status == 200) {
        let modified = fetch.headers.get("last-modified").and_then(|text| plan::http_date(text));
        let of_release = if is_release(&fetch.url) { release_date(fetch, store)? } else { None };
        let dates = [modified, of_release].into_iter().flatten().filter(|date| *date <= now);
        newest = dates.fold(newest, i64::max);
    }
    Ok(newest)
}

fn is_release(url: &str) -> bool {
    matches!(url.rsplit('/').next(), Some("InRelease" | "Release"))
}

/// Reads the date in a release of an apt repository.
fn release_date(fetch: &Fetch, store: &Store) -> Result<Option<i64>, Error> {
    if !store.has(&fetch.digest) {
        return Ok(None);
    }
    let bytes = disk::read(&store.blob_path(&fetch.digest), LARGEST_RELEASE)?;
    let text = String::from_utf8_lossy(&bytes);
    let date = text.lines().find_map(|line| line.strip_prefix("Date:"));
    Ok(date.and_then(|date| plan::http_date(&date.replace("UTC", "GMT"))))
}

fn report(lock: &Lock, platform: Platform, renewed: Vec<String>) -> Result<LockedPlatform, Error> {
    let layers = lock.section(&platform).map(|section| &section.layers);
    let fetches: Vec<&Fetch> =
        layers.into_iter().flat_map(BTreeMap::values).flat_map(|layer| &layer.fetches).collect();
    let bodies: BTreeMap<Digest, u64> =
        fetches.iter().map(|fetch| (fetch.digest, fetch.size)).collect();
    let digest = lock.digest(&platform)?.unwrap_or_else(|| Digest::of(b""));
    Ok(LockedPlatform {
        platform,
        digest,
        fetches: fetches.len(),
        bodies: bodies.len(),
        bytes: bodies.values().sum(),
        renewed,
    })
}

/// Returns the file of a definition.
pub(super) fn sources_of(name: &str, folder: &Path) -> Result<PathBuf, Error> {
    Ok(folder.join(definition::find(name, &folder.join("manifests"))?))
}

/// Reads a lock that has to be there.
pub(super) fn read(path: &Path) -> Result<Lock, Error> {
    let problems = Problems::new();
    let lock = lock::read(path, &problems);
    Ok(problems.finish(lock).map_err(plan::Error::from)?)
}

/// Tells what differs between an older lock and a newer one.
pub fn lock_diff(old: &Path, new: &Path) -> Result<lock::Diff, Error> {
    Ok(lock::diff(&read(old)?, &read(new)?))
}

/// What came of a merge.
#[derive(Clone, Debug, Serialize)]
pub struct MergeReport {
    /// The file that was written.
    pub file: PathBuf,
    /// The platforms in it.
    pub platforms: Vec<String>,
}

/// Puts locks of one definition, each for platforms of its own, into one file.
pub fn lock_merge(paths: &[PathBuf], output: &Path) -> Result<MergeReport, Error> {
    let locks = paths
        .iter()
        .map(|path| Ok((path.clone(), read(path)?)))
        .collect::<Result<Vec<_>, Error>>()?;
    let merged = lock::merge(&locks)?;
    write(&merged, output)?;
    let platforms = merged.platforms.into_keys().collect();
    Ok(MergeReport { file: output.to_owned(), platforms })
}

/// Writes a lock's file whole.
fn write(lock: &Lock, path: &Path) -> Result<(), Error> {
    Ok(disk::write_whole(path, lock::write(lock)?.as_bytes())?)
}
