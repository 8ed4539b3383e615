//! From the files to a [`Plan`].

use std::collections::BTreeMap;

use serde_json::json;

use super::{
    Base, ConfigPatch, Error, Inputs, Layer, Off, Plan, Sources, Step, environment, key, time,
};
use crate::definition::{Definition, LayerUse};
use crate::oci::{Digest, Platform, json as canonical};
use crate::recipe::{self, Action, Pin, Recipe};
use crate::text::{File, Problems, Template, nearest};

/// Names the base (image-spec, annotations).
const BASE_NAME: &str = "org.opencontainers.image.base.name";
/// Pins the base (image-spec, annotations).
const BASE_DIGEST: &str = "org.opencontainers.image.base.digest";
/// Commits an image to the lock that it was built with.
const LOCK: &str = "dev.ocibuild.lock";

/// Returns what will be done for a platform.
pub fn plan(sources: &Sources, inputs: &Inputs<'_>) -> Result<Plan, Error> {
    let definition = &sources.definition;
    let platform = inputs.platform;
    if !definition.platforms.contains(platform) {
        return Err(Error::Platform {
            name: definition.name.clone(),
            platform: Box::new(platform.clone()),
            known: definition.platforms.clone(),
        });
    }
    let has = inputs.base.platform();
    if !has.satisfies(platform) {
        return Err(Error::BasePlatform {
            base: Box::new(definition.base.clone()),
            has: Box::new(has),
            wanted: Box::new(platform.clone()),
        });
    }
    let problems = Problems::new();
    let mut warnings = Vec::new();
    let mut image = Image {
        env: inputs.base.env().into_iter().collect(),
        set: Vec::new(),
        platform,
        problems: &problems,
    };
    let mut layers = Vec::new();
    for (layer, recipe) in definition.layers.iter().zip(&sources.recipes) {
        let source_date = source_date(sources, inputs, &recipe.name, &mut warnings);
        let resolved = image.layer(definition, layer, recipe, inputs, source_date)?;
        warnings.extend(unpinned(&resolved));
        layers.push(resolved);
    }
    let created = layers.iter().map(|layer| layer.source_date).max();
    let (env, home) = image.finish(&definition.config.env, &definition.file);
    let base = Base {
        reference: definition.base.clone(),
        digest: inputs.base_digest,
        manifest: inputs.base_manifest,
    };
    let origin = origin(&base);
    let mut labels = origin.clone();
    if let Some(lock) = &sources.lock {
        labels.insert(LOCK.to_owned(), lock.digest()?.to_string());
    }
    labels.extend(definition.config.labels.clone());
    let mut annotations = origin;
    annotations.extend(definition.annotations.clone());
    let config = &definition.config;
    let config = ConfigPatch {
        env,
        labels,
        user: config.user.clone(),
        workdir: config.workdir.clone(),
        entrypoint: config.entrypoint.clone(),
        command: config.command.clone(),
        ports: config.ports.clone(),
        stop_signal: config.stop_signal.clone(),
        created,
    };
    let plan = Plan {
        name: definition.name.clone(),
        platform: platform.clone(),
        destinations: definition.destinations(),
        base,
        compression: definition.compression,
        layers,
        config,
        annotations,
        home,
        created,
        warnings,
    };
    Ok(problems.finish(Some(plan))?)
}

/// The lock's date for the layer, else the caller's, else the base's.
fn source_date(
    sources: &Sources,
    inputs: &Inputs<'_>,
    name: &str,
    warnings: &mut Vec<String>,
) -> i64 {
    let locked = sources.lock.as_ref().and_then(|lock| lock.source_dates.get(name).copied());
    locked.or(inputs.source_date_epoch).unwrap_or_else(|| {
        let (date, warning) = time::of_base(inputs.base);
        warnings.extend(warning.filter(|warning| !warnings.contains(warning)));
        date
    })
}

fn origin(base: &Base) -> BTreeMap<String, String> {
    let mut origin = BTreeMap::new();
    // The digest has a key of its own.
    let name = match base.reference.tag() {
        Some(tag) => format!("{}:{tag}", base.reference.name()),
        None => base.reference.to_string(),
    };
    origin.insert(BASE_NAME.to_owned(), name);
    if let Some(digest) = base.manifest.or(base.digest) {
        origin.insert(BASE_DIGEST.to_owned(), digest.to_string());
    }
    origin
}

fn unpinned(layer: &Layer) -> Vec<String> {
    layer
        .steps
        .iter()
        .filter_map(|step| match &step.action {
            Action::Fetch(fetch) if fetch.pin == Pin::Unpinned => {
                let (layer, step, url) = (&layer.name, &step.name, &fetch.url);
                Some(format!("layer `{layer}`, step `{step}` takes whatever {url} gives"))
            }
            _ => None,
        })
        .collect()
}

/// The image's environment as it grows from layer to layer.
struct Image<'a> {
    env: BTreeMap<String, String>,
    set: Vec<(String, String)>,
    platform: &'a Platform,
    problems: &'a Problems,
}

impl Image<'_> {
    fn layer(
        &mut self,
        definition: &Definition,
        layer: &LayerUse,
        recipe: &Recipe,
        inputs: &Inputs<'_>,
        source_date: i64,
    ) -> Result<Layer, Error> {
        let mut args: BTreeMap<String, String> =
            recipe.args.iter().map(|(name, text)| (name.clone(), text.value.clone())).collect();
        for (name, (_, text)) in &layer.args {
            args.insert(name.clone(), text.value.clone());
        }
        let before = self.set.len();
        self.set_all(&recipe.env, &args, &recipe.file);
        let mut steps = Vec::new();
        let mut off: Vec<Off> = Vec::new();
        for step in &recipe.steps {
            let arch = &self.platform.architecture;
            let mut skip = |reason: String| {
                let entry = Off { name: step.name.clone(), reason };
                if !off.contains(&entry) {
                    off.push(entry);
                }
            };
            if layer.without.iter().any(|name| name.value == step.name) {
                skip(format!("switched off in {}", definition.file.path().display()));
            } else if !step.when.arch.is_empty() && !step.when.arch.contains(arch) {
                skip(format!("only on {}, this is {arch}", step.when.arch.join(" or ")));
            } else {
                let action = self.action(&step.action, &args, recipe, source_date);
                let when = recipe::When { arch: Vec::new(), ..step.when.clone() };
                steps.push(Step { name: step.name.clone(), when, action });
            }
        }
        tell_apart(&mut steps);
        let without_rules = self.rules(recipe, inputs);
        Ok(Layer {
            name: recipe.name.clone(),
            about: recipe.about.clone(),
            platform: self.platform.clone(),
            recipe: recipe_digest(recipe, layer, &args, &without_rules)?,
            folder: recipe.folder.clone(),
            files: recipe.files.clone(),
            args,
            env: self.set[before..].to_vec(),
            steps,
            off,
            rules: inputs.rules.version.to_owned(),
            without_rules,
            source_date,
        })
    }

    fn action(
        &mut self,
        action: &Action,
        args: &BTreeMap<String, String>,
        recipe: &Recipe,
        source_date: i64,
    ) -> Action {
        let fill = |template: &Template| template.fill(&|name| self.value(name, args));
        match action {
            Action::Run(run) => {
                let own = run
                    .env
                    .iter()
                    .map(|(name, value)| (name.clone(), self.known(value, args, &recipe.file)))
                    .collect();
                let platform = self.platform;
                Action::Run(recipe::Run {
                    program: run.program.clone(),
                    args: run.args.iter().map(fill).collect(),
                    user: run.user.clone(),
                    workdir: fill(&run.workdir),
                    env: environment::of_step(&self.env, platform, source_date, args, &own),
                    timeout: run.timeout,
                    network: run.network,
                })
            }
            Action::Copy(copy) => Action::Copy(recipe::Copy { to: fill(&copy.to), ..copy.clone() }),
            Action::Fetch(fetch) => {
                let pin = self.pin(&fetch.pin, &recipe.file);
                let (url, to) = (fill(&fetch.url), fill(&fetch.to));
                Action::Fetch(recipe::Fetch { url, to, pin, ..fetch.clone() })
            }
            Action::Env(env) => {
                let before = self.set.len();
                self.set_all(env, args, &recipe.file);
                let set = &self.set[before..];
                Action::Env(
                    set.iter()
                        .map(|(name, value)| (name.clone(), Template::literal(value.as_str())))
                        .collect(),
                )
            }
        }
    }

    /// Returns the one digest that counts here. None at all is never "whatever comes".
    fn pin(&self, pin: &Pin, file: &File) -> Pin {
        match pin {
            Pin::Arch { digests, span } => {
                let arch = &self.platform.architecture;
                if let Some(digest) = digests.get(arch) {
                    return Pin::Any(*digest);
                }
                self.problems.meaning(
                    file,
                    span.clone(),
                    format!("there is no digest for `{arch}`"),
                );
                pin.clone()
            }
            other => other.clone(),
        }
    }

    /// Returns what a plan knows of a variable.
    fn value(&self, name: &str, args: &BTreeMap<String, String>) -> Option<String> {
        match name {
            "arch" => Some(self.platform.architecture.clone()),
            "machine" => Some(self.platform.machine().to_owned()),
            name => args.get(name).or_else(|| self.env.get(name)).cloned(),
        }
    }

    /// Fills in what is known; a variable of the image that it does not have is a problem.
    fn known(&self, template: &Template, args: &BTreeMap<String, String>, file: &File) -> Template {
        let filled = template.fill(&|name| self.value(name, args));
        for name in filled.variables() {
            if recipe::TREE_VARIABLES.contains(&name) {
                continue;
            }
            let meant = nearest(name, self.env.keys().map(String::as_str))
                .map(|meant| format!("; did you mean `{{{meant}}}`?"))
                .unwrap_or_default();
            let message =
                format!("the image has no variable `{name}` in its environment here{meant}");
            self.problems.meaning(file, template.span(), message);
        }
        filled
    }

    /// Sets variables, each seeing the environment as it was before all of them.
    fn set_all(
        &mut self,
        env: &BTreeMap<String, Template>,
        args: &BTreeMap<String, String>,
        file: &File,
    ) {
        let values: Vec<(String, String)> = env
            .iter()
            .map(|(name, template)| {
                let known = self.known(template, args, file);
                (name.clone(), known.finished().unwrap_or_default())
            })
            .collect();
        for (name, value) in values {
            self.env.insert(name.clone(), value.clone());
            self.set.push((name, value));
        }
    }

    fn rules(&self, recipe: &Recipe, inputs: &Inputs<'_>) -> Vec<String> {
        let known = inputs.rules.names;
        let mut rules = Vec::new();
        for rule in &recipe.without_rules {
            if !known.contains(&rule.value.as_str()) {
                let more = match nearest(&rule.value, known.iter().copied()) {
                    Some(meant) => format!("did you mean `{meant}`?"),
                    None => "`ocibuild rules` lists them".to_owned(),
                };
                let message = format!("there is no rule `{}`; {more}", rule.value);
                self.problems.meaning(&recipe.file, rule.span.clone(), message);
            }
            rules.push(rule.value.clone());
        }
        rules.sort();
        rules.dedup();
        rules
    }

    /// Returns all that was set, the definition's own last, each name once; and the home folder.
    fn finish(
        mut self,
        own: &BTreeMap<String, Template>,
        file: &File,
    ) -> (Vec<(String, String)>, Option<String>) {
        self.set_all(own, &BTreeMap::new(), file);
        let home = self.env.get("HOME").filter(|home| home.len() > 1 && home.starts_with('/'));
        let user = || self.env.get("NB_USER").filter(|user| !user.is_empty());
        let home = home.cloned().or_else(|| user().map(|user| format!("/home/{user}")));
        let mut env: Vec<(String, String)> = Vec::new();
        for (name, value) in self.set {
            match env.iter_mut().find(|(has, _)| *has == name) {
                Some(pair) => pair.1 = value,
                None => env.push((name, value)),
            }
        }
        (env, home)
    }
}

/// Gives steps that share a name a number each.
fn tell_apart(steps: &mut [Step]) {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for step in steps.iter() {
        *counts.entry(step.name.clone()).or_default() += 1;
    }
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for step in steps {
        let total = counts[&step.name];
        if total > 1 {
            let number = seen.entry(step.name.clone()).or_default();
            *number += 1;
            step.name = format!("{} ({number} of {total})", step.name);
        }
    }
}

/// Returns what identifies a recipe with its arguments, whatever platform and base.
fn recipe_digest(
    recipe: &Recipe,
    layer: &LayerUse,
    args: &BTreeMap<String, String>,
    without_rules: &[String],
) -> Result<Digest, Error> {
    let on = |step: &&recipe::Step| !layer.without.iter().any(|name| name.value == step.name);
    let steps = recipe
        .steps
        .iter()
        .filter(on)
        .map(|step| Ok(json!([key::value_of(&step.when)?, key::value_of(&step.action)?])))
        .collect::<Result<Vec<_>, Error>>()?;
    let value = json!({
        "format": key::FORMAT,
        "args": args,
        "env": key::value_of(&recipe.env)?,
        "files": key::value_of(&recipe.files)?,
        "steps": steps,
        "without-rules": without_rules,
    });
    Ok(Digest::of(&canonical::encode(&value)?))
}
