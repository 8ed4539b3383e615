//! The files that a plan is made of, read at once so that all that is wrong is told at once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use crate::definition::{self, Definition};
use crate::disk;
use crate::lock::{self, Lock};
use crate::oci::{Platform, Reference};
use crate::recipe::{self, Pin, Recipe};
use crate::text::{self, Problems, Text, nearest};

/// A definition with its recipes and its lock.
#[derive(Clone, Debug)]
pub struct Sources {
    /// What is wanted.
    pub definition: Definition,
    /// How each of the definition's layers is made, in their order.
    pub recipes: Vec<Recipe>,
    /// What was chosen, if a lock lies beside the definition.
    pub lock: Option<Lock>,
}

/// What of a lock does not fit its definition any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Misfit {
    /// There is no lock.
    Lock,
    /// A platform of the definition that it does not have.
    Platform(Platform),
    /// A layer that it does not have.
    Layer(Platform, String),
    /// A layer that it has and the definition has not.
    Extra(String),
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Misfit::Lock => f.write_str("there is no lock"),
            Misfit::Platform(platform) => write!(f, "the lock has nothing for {platform}"),
            Misfit::Layer(platform, name) => {
                write!(f, "the lock has no layer `{name}` for {platform}")
            }
            Misfit::Extra(name) => {
                write!(f, "the lock has a layer `{name}` that the definition has not")
            }
        }
    }
}

impl Sources {
    /// Reads a definition, its lock and its recipes. The error holds everything wrong in all of them.
    pub fn load(path: &Path) -> Result<Sources, text::Error> {
        let problems = Problems::new();
        let lock = lock::load(&lock::path_beside(path), &problems);
        let sources = read(path, lock, &problems);
        problems.finish(sources)
    }

    /// Does the same, but for a lock, which is going to be written anew.
    pub fn load_unlocked(path: &Path) -> Result<Sources, text::Error> {
        let problems = Problems::new();
        let sources = read(path, None, &problems);
        problems.finish(sources)
    }

    /// Returns what of the lock does not fit the definition, for some of its platforms.
    pub fn misfits(&self, platforms: &[Platform]) -> Vec<Misfit> {
        let Some(lock) = &self.lock else { return vec![Misfit::Lock] };
        let mut misfits = Vec::new();
        let mut extra = BTreeSet::new();
        for platform in platforms {
            let Some(section) = lock.section(platform) else {
                misfits.push(Misfit::Platform(platform.clone()));
                continue;
            };
            for recipe in &self.recipes {
                if !section.layers.contains_key(&recipe.name) {
                    misfits.push(Misfit::Layer(platform.clone(), recipe.name.clone()));
                }
            }
            let has = |name: &&String| self.recipes.iter().any(|recipe| recipe.name == **name);
            extra.extend(section.layers.keys().filter(|name| !has(name)).cloned());
        }
        misfits.extend(extra.into_iter().map(Misfit::Extra));
        misfits
    }

    /// Returns the base to resolve: the definition's word for it, by the lock's digest if there is
    /// one.
    pub fn base(&self) -> Reference {
        match &self.lock {
            Some(lock) => self.definition.base.at(lock.base.digest),
            None => self.definition.base.clone(),
        }
    }
}

fn read(path: &Path, lock: Option<Lock>, problems: &Problems) -> Option<Sources> {
    let definition = definition::load(path, problems)?;
    if problems.is_empty() {
        check_lock(&definition, lock.as_ref(), problems);
    }
    let known = known_recipes(&definition);
    let mut recipes = Vec::new();
    for layer in &definition.layers {
        let Some(recipe) = find(&definition, &layer.recipe, &known, problems) else { continue };
        check_args(&definition, layer, &recipe, problems);
        check_without(&definition, layer, &recipe, problems);
        for platform in &definition.platforms {
            check_pins(layer, &recipe, platform, problems);
        }
        recipes.push(recipe);
    }
    Some(Sources { definition, recipes, lock })
}

fn check_lock(definition: &Definition, lock: Option<&Lock>, problems: &Problems) {
    if let Some(lock) = lock.filter(|lock| lock.base.reference != definition.base) {
        let message = format!(
            "the lock is for the base `{}`, the definition names `{}`: lock again",
            lock.base.reference, definition.base
        );
        problems.about(&lock::path_beside(definition.file.path()), message);
    }
}

/// Returns the names of the recipes that could be used, with the folders that have them.
fn known_recipes(definition: &Definition) -> BTreeMap<String, Vec<&Path>> {
    let mut known: BTreeMap<String, Vec<&Path>> = BTreeMap::new();
    for folder in &definition.recipes {
        // A folder of recipes need not be there; one that can't be listed shows below as unknown.
        for name in disk::list(folder).unwrap_or_default() {
            if let Ok(name) = name.into_string()
                && folder.join(&name).is_dir()
            {
                known.entry(name).or_default().push(folder);
            }
        }
    }
    known
}

fn find(
    definition: &Definition,
    name: &Text,
    known: &BTreeMap<String, Vec<&Path>>,
    problems: &Problems,
) -> Option<Recipe> {
    let wrong = |message| problems.meaning(&definition.file, name.span.clone(), message);
    let value = &name.value;
    match known.get(value).map(Vec::as_slice) {
        Some([folder]) => recipe::load(&folder.join(value), problems),
        Some([first, second, ..]) => {
            let (first, second) = (first.display(), second.display());
            wrong(format!("recipe `{value}` is both in `{first}` and in `{second}`"));
            None
        }
        _ => {
            let folders: Vec<String> =
                definition.recipes.iter().map(|folder| folder.display().to_string()).collect();
            let meant = match nearest(value, known.keys().map(String::as_str)) {
                Some(meant) => format!("; did you mean `{meant}`?"),
                None => format!("; looked in {}", crate::fault::list_of(&folders)),
            };
            wrong(format!("there is no recipe `{value}`{meant}"));
            None
        }
    }
}

fn check_args(
    definition: &Definition,
    layer: &definition::LayerUse,
    recipe: &Recipe,
    problems: &Problems,
) {
    for (name, (span, _)) in &layer.args {
        if !recipe.args.contains_key(name) {
            let known: Vec<&str> = recipe.args.keys().map(String::as_str).collect();
            let more = match nearest(name, known.iter().copied()) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None if known.is_empty() => "it has none".to_owned(),
                None => format!("it has {}", crate::fault::list_of(&known)),
            };
            let message = format!("recipe `{}` has no argument `{name}`; {more}", recipe.name);
            problems.meaning(&definition.file, span.clone(), message);
        }
    }
}

fn check_without(
    definition: &Definition,
    layer: &definition::LayerUse,
    recipe: &Recipe,
    problems: &Problems,
) {
    let names = recipe.step_names();
    for step in &layer.without {
        if !names.contains(&step.value.as_str()) {
            let more = match nearest(&step.value, names.iter().copied()) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("it has {}", crate::fault::list_of(&names)),
            };
            let message = format!("recipe `{}` has no step `{}`; {more}", recipe.name, step.value);
            problems.meaning(&definition.file, step.span.clone(), message);
        }
    }
}

/// A digest is needed for each platform on which the step is done.
fn check_pins(
    layer: &definition::LayerUse,
    recipe: &Recipe,
    platform: &Platform,
    problems: &Problems,
) {
    for step in &recipe.steps {
        let off = layer.without.iter().any(|name| name.value == step.name);
        let elsewhere =
            !step.when.arch.is_empty() && !step.when.arch.contains(&platform.architecture);
        if off || elsewhere {
            continue;
        }
        if let recipe::Action::Fetch(fetch) = &step.action
            && let Pin::Arch { digests, span } = &fetch.pin
            && !digests.contains_key(&platform.architecture)
        {
            let arch = &platform.architecture;
            let message = format!(
                "there is no digest for `{arch}`, which the definition builds for; give one, or \
                 keep the step from it by `when`"
            );
            problems.meaning(&recipe.file, span.clone(), message);
        }
    }
}
