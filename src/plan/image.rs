//! One layer of a plan: its recipe with arguments and variables filled in, on the image's
//! environment as it grows from layer to layer.

use std::collections::BTreeMap;

use serde_json::json;

use super::{Error, Inputs, Layer, Off, Step, environment, key};
use crate::definition::{Definition, LayerUse};
use crate::oci::{Digest, Platform, json as canonical};
use crate::recipe::{self, Action, Pin, Recipe};
use crate::text::{File, Problems, Template, nearest};

/// The image's environment as it grows from layer to layer.
pub(super) struct Image<'a> {
    env: BTreeMap<String, String>,
    set: Vec<(String, String)>,
    platform: &'a Platform,
    problems: &'a Problems,
}

impl<'a> Image<'a> {
    /// Starts with the base's environment.
    pub(super) fn new(inputs: &Inputs<'a>, problems: &'a Problems) -> Image<'a> {
        let env = inputs.base.env().into_iter().collect();
        Image { env, set: Vec::new(), platform: inputs.platform, problems }
    }

    /// Plans the next layer.
    pub(super) fn layer(
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
            pins: None,
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
    pub(super) fn finish(
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
