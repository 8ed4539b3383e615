//! The files that a plan is made of, read at once so that all that is wrong is told at once.

use std::collections::BTreeMap;
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

impl Sources {
    /// Reads a definition, its lock and its recipes. The error holds everything wrong in all of them.
    pub fn load(path: &Path) -> Result<Sources, text::Error> {
        let problems = Problems::new();
        let sources = read(path, &problems);
        problems.finish(sources)
    }

    /// Returns the base to resolve: the definition's word for it, by the lock's digest if there is
    /// one.
    pub fn base(&self) -> Reference {
        let locked = self.lock.as_ref().and_then(|lock| lock.base.as_ref());
        match locked {
            Some(base) => self.definition.base.at(base.digest),
            None => self.definition.base.clone(),
        }
    }
}

fn read(path: &Path, problems: &Problems) -> Option<Sources> {
    let lock = lock::load_beside(path, problems);
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
    let Some(lock) = lock else { return };
    let other = |base: &&lock::Base| base.reference != definition.base;
    if let Some(base) = lock.base.as_ref().filter(other) {
        let message = format!(
            "the lock is for the base `{}`, the definition names `{}`: lock again",
            base.reference, definition.base
        );
        problems.meaning(&lock.file, base.span.clone(), message);
    }
    let layers = || definition.layers.iter().map(|layer| layer.recipe.value.as_str());
    for (name, span) in &lock.source_date_spans {
        if !layers().any(|layer| layer == name) {
            let more = match nearest(name, layers()) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => "lock again".to_owned(),
            };
            let message = format!("the definition has no layer `{name}`; {more}");
            problems.meaning(&lock.file, span.clone(), message);
        }
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
