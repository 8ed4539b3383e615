//! What a build would do, told without doing it: which layers are there, what would be fetched, and
//! what of it would be on disk.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::build::{self, Trees};
use crate::oci::{Digest, Platform, Reference};
use crate::plan::{self, Plan};
use crate::sandbox::Mode;
use crate::store::Store;

use super::build::{Job, job};
use super::{BuildOptions, Context, DiskPlan, Error};

/// What would be done for a definition.
#[derive(Clone, Debug, Serialize)]
pub struct PlanReport {
    /// The definition.
    pub name: String,
    /// The image's name.
    pub image: Reference,
    /// Where else it goes.
    pub also: Vec<Reference>,
    /// One entry a platform.
    pub platforms: Vec<PlatformPlan>,
    /// What the user should look at.
    pub warnings: Vec<String>,
}

/// What would be done for a platform.
#[derive(Clone, Debug, Serialize)]
pub struct PlatformPlan {
    /// The platform.
    pub platform: Platform,
    /// The base, by digest.
    pub base: Reference,
    /// The recipes' layers, from the bottom up.
    pub layers: Vec<LayerPlan>,
    /// Bytes of the base that would have to be fetched.
    pub fetch_bytes: u64,
    /// About how much disk the build needs for what is known: blobs to keep, and trees to unpack.
    pub disk_bytes: u64,
    /// What will be on disk.
    pub disk: DiskPlan,
    /// The whole plan.
    pub plan: Plan,
}

/// What would be done for a layer.
#[derive(Clone, Debug, Serialize)]
pub struct LayerPlan {
    /// The recipe.
    pub name: String,
    /// What it is looked for under; unknown above a layer that has yet to be made.
    pub key: Option<Digest>,
    /// `cached`, `to be made`, or `depends on the layer below`.
    pub state: String,
    /// How many steps it has.
    pub steps: usize,
    /// What is not done, and why.
    pub switched_off: Vec<String>,
}

/// The state of a layer that is there.
const CACHED: &str = "cached";

/// Tells what [`super::build()`] would do; of a registry, only the base's documents are asked for.
pub fn plan(options: &BuildOptions, context: &Context<'_>) -> Result<Vec<PlanReport>, Error> {
    let store = context.open()?;
    options.names.iter().map(|name| plan_one(name, options, &store, context)).collect()
}

fn plan_one(
    name: &str,
    options: &BuildOptions,
    store: &Store,
    context: &Context<'_>,
) -> Result<PlanReport, Error> {
    let Job { sources, found, platforms, .. } = job(name, options, store, context)?;
    let definition = &sources.definition;
    let mut warnings = BTreeSet::new();
    let mut reports = Vec::new();
    for (plan, base) in platforms {
        warnings.extend(plan.warnings.iter().cloned());
        let layers = layer_plans(&plan, &base, options, store)?;
        let disk = disk_plan(&layers, &base, store, context)?;
        reports.push(PlatformPlan {
            platform: plan.platform.clone(),
            base: base.reference.at(found.digest()),
            layers,
            fetch_bytes: disk.fetch,
            disk_bytes: disk.about(),
            disk,
            plan,
        });
    }
    Ok(PlanReport {
        name: definition.name.clone(),
        image: definition.image.clone(),
        also: definition
            .destinations()
            .into_iter()
            .filter(|name| *name != definition.image)
            .collect(),
        platforms: reports,
        warnings: warnings.into_iter().collect(),
    })
}

/// Tells of each layer whether it is there.
pub(super) fn layer_plans(
    plan: &Plan,
    base: &build::Base,
    options: &BuildOptions,
    store: &Store,
) -> Result<Vec<LayerPlan>, Error> {
    let mut parents = Some(base.config.diff_ids());
    let mut layers = Vec::new();
    for layer in &plan.layers {
        let key = match &parents {
            Some(parents) => Some(plan::key(layer, parents, options.ownership)?),
            None => None,
        };
        let anew = options.no_cache || options.refresh.contains(&layer.name);
        let cached = match (&key, anew) {
            (Some(key), false) => store.cached(key)?,
            _ => None,
        };
        let usable = match cached.as_ref().map(|cached| cached.diff_id) {
            None => false,
            Some(None) => true,
            Some(Some(diff_id)) => build::has_blob(store, &diff_id)?,
        };
        let state = match (&key, usable) {
            (_, true) => CACHED,
            (Some(_), false) => "to be made",
            (None, false) => "depends on the layer below",
        };
        if let (Some(parents), Some(cached), true) = (&mut parents, &cached, usable) {
            parents.extend(cached.diff_id);
        } else {
            parents = None;
        }
        layers.push(LayerPlan {
            name: layer.name.clone(),
            key,
            state: state.to_owned(),
            steps: layer.steps.len(),
            switched_off: layer
                .off
                .iter()
                .map(|off| format!("{}: {}", off.name, off.reason))
                .collect(),
        });
    }
    Ok(layers)
}

/// Tells what will be on disk: the base's trees, unless every layer is there already.
pub(super) fn disk_plan(
    layers: &[LayerPlan],
    base: &build::Base,
    store: &Store,
    context: &Context<'_>,
) -> Result<DiskPlan, Error> {
    let to_make = layers.iter().filter(|layer| layer.state != CACHED).count();
    let mut disk = DiskPlan { layers_to_make: to_make as u64, ..DiskPlan::default() };
    if disk.layers_to_make > 0 {
        let mode = context.mode.unwrap_or(Mode::Root);
        let trees = Trees::new(store, store, mode, context.report.as_ref());
        disk.add(&trees.need(&base.layers())?);
    }
    Ok(disk)
}
