//! The steps of a recipe: what they have in common, and which one each is.

use std::collections::BTreeMap;
use std::path::Path;

use super::parse::Scopes;
use super::{Action, Files, Step, When, action};
use crate::oci::Platform;
use crate::text::{Item, Span, Table, Text, nearest, simple_name};

/// Keys that decide what a step does.
const ACTIONS: [&str; 4] = ["run", "script", "copy", "fetch"];

/// Words of other tools, with ours.
const FOREIGN: [(&str, &str); 14] = [
    ("add", "fetch"),
    ("chmod", "mode"),
    ("chown", "owner"),
    ("cmd", "script"),
    ("command", "script"),
    ("cwd", "workdir"),
    ("dest", "to"),
    ("download", "fetch"),
    ("dst", "to"),
    ("if", "when"),
    ("only", "when"),
    ("src", "copy"),
    ("url", "fetch"),
    ("working-directory", "workdir"),
];

/// What the steps of a recipe are read with.
pub(super) struct Reader<'a> {
    pub(super) scopes: &'a Scopes,
    pub(super) folder: &'a Path,
    pub(super) files: &'a Files,
}

/// Takes the steps of a recipe; a step with problems is left out.
pub(super) fn read(
    table: &mut Table<'_>,
    scopes: &Scopes,
    folder: &Path,
    files: &Files,
) -> Vec<Step> {
    let reader = Reader { scopes, folder, files };
    let items = match table.item("step") {
        None => return Vec::new(),
        Some(Item::List(items, _)) => items,
        Some(other) => {
            table.mistyped("step", "a list of tables, each begun by `[[step]]`,", &other);
            return Vec::new();
        }
    };
    let mut said = Said::default();
    let mut steps: Vec<(Step, bool)> = Vec::new();
    for item in items {
        match item {
            Item::Table(step) => steps.extend(reader.step(step, &mut said)),
            other => table.mistyped("step", "a list of tables, each begun by `[[step]]`,", &other),
        }
    }
    // Names that nobody chose give way to those that somebody did, and then count.
    let mut taken: BTreeMap<String, u32> =
        said.lines.keys().map(|name| (name.clone(), 1)).collect();
    for (step, chosen) in &mut steps {
        if !*chosen {
            let base = step.name.clone();
            let count = taken.entry(base.clone()).or_insert(0);
            *count += 1;
            if *count > 1 {
                step.name = format!("{base}-{count}");
            }
        }
    }
    steps.into_iter().map(|(step, _)| step).collect()
}

/// The names that steps were given so far.
#[derive(Default)]
struct Said {
    lines: BTreeMap<String, u32>,
    last: Option<String>,
}

impl Said {
    /// Takes the next step's name. Steps that share one are parts of one thing, and neighbours.
    fn next(&mut self, name: Option<&Text>, step: &Table<'_>) {
        let value = name.map(|name| name.value.clone());
        if let Some(name) = name.filter(|_| value != self.last) {
            if let Some(first) = self.lines.get(&name.value) {
                let message = format!(
                    "a step in line {first} is called `{}` already; steps that belong together \
                     follow one another",
                    name.value
                );
                step.wrong(name.span.clone(), message);
            } else {
                self.lines.insert(name.value.clone(), step.file().line(&name.span));
            }
        }
        self.last = value;
    }
}

impl Reader<'_> {
    fn step(&self, mut step: Table<'_>, said: &mut Said) -> Option<(Step, bool)> {
        let before = step.problems().count();
        let span = step.span();
        let name = step.text("name");
        if let Some(name) = name.as_ref().filter(|name| !step_name(&name.value)) {
            let message = format!(
                "`{}` cannot name a step; use a few words on one line",
                name.value.escape_debug()
            );
            step.wrong(name.span.clone(), message);
        }
        said.next(name.as_ref(), &step);
        let when = step.table("when").map(when).unwrap_or_default();
        let present: Vec<(&str, Span)> =
            ACTIONS.iter().filter_map(|action| Some((*action, step.key_span(action)?))).collect();
        let action = match &present[..] {
            [] if step.has("env") => {
                let (env_span, action) = (step.key_span("env")?, action::env(self, &mut step));
                if !when.distribution.is_empty() || !when.codename.is_empty() {
                    let message = "the image's environment is decided before the tree is at hand: \
                                   such a step can only depend on `arch`";
                    step.wrong(env_span, message);
                }
                action
            }
            [("run", _)] => action::run(self, &mut step),
            [("script", _)] => action::script(self, &mut step),
            [("copy", _)] => action::copy(self, &mut step),
            [("fetch", _)] => action::fetch(self, &mut step),
            [] => {
                let message = "this step does nothing; give it one of `run`, `script`, `copy`, \
                               `fetch` and `env`";
                step.problems().shape(step.file(), span.clone(), message);
                action::ask_for_all(&mut step);
                None
            }
            [_, rest @ ..] => {
                let names: Vec<&str> = present.iter().map(|(name, _)| *name).collect();
                let names = crate::fault::list_of(&names);
                for (_, span) in rest {
                    let message = format!("a step does one thing, but this one has {names}");
                    step.problems().shape(step.file(), span.clone(), message);
                }
                action::ask_for_all(&mut step);
                None
            }
        };
        let problems = step.problems();
        step.finish(&FOREIGN);
        let action = action.filter(|_| problems.count() == before)?;
        let chosen = name.is_some();
        let name = name.map_or_else(|| default_name(&action), |name| name.value);
        Some((Step { name, span, when, action }, chosen))
    }
}

/// Tells whether a text can name a step: it stands in logs and in definitions.
fn step_name(text: &str) -> bool {
    !text.is_empty()
        && text.trim() == text
        && text.chars().count() <= 64
        && !text.contains(char::is_control)
}

fn when(mut table: Table<'_>) -> When {
    let arch = words(&mut table, "arch");
    for text in &arch {
        let plain = Platform::linux(&text.value).architecture;
        if plain != text.value {
            let message = format!("write `{plain}` for `{}`", text.value);
            table.wrong(text.span.clone(), message);
        } else if !action::ARCHITECTURES.contains(&plain.as_str()) {
            let known = action::ARCHITECTURES;
            let meant = match nearest(&plain, known) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("there are {}", crate::fault::list_of(&known)),
            };
            table.wrong(text.span.clone(), format!("unknown architecture `{plain}`; {meant}"));
        }
    }
    let values = |texts: Vec<Text>| texts.into_iter().map(|text| text.value).collect();
    let when = When {
        distribution: values(words(&mut table, "distribution")),
        codename: values(words(&mut table, "codename")),
        arch: values(arch),
    };
    table.finish(&[
        ("architecture", "arch"),
        ("distro", "distribution"),
        ("os", "distribution"),
        ("platform", "arch"),
        ("suite", "codename"),
    ]);
    when
}

/// Takes a text or a list of texts.
fn words(table: &mut Table<'_>, key: &'static str) -> Vec<Text> {
    let words = match table.item(key) {
        None => return Vec::new(),
        Some(Item::Text(text)) => vec![text],
        Some(Item::List(items, span)) => {
            if items.is_empty() {
                table
                    .wrong(span, format!("`{key}` lists nothing, so the step would never be done"));
            }
            table.texts_of(key, items)
        }
        Some(other) => {
            table.mistyped(key, "text or a list of texts", &other);
            return Vec::new();
        }
    };
    for word in &words {
        if !simple_name(&word.value) {
            let message = format!("`{}` is no {key} as `/etc/os-release` spells one", word.value);
            table.wrong(word.span.clone(), message);
        }
    }
    words
}

/// Names a step after the file that it is about.
fn default_name(action: &Action) -> String {
    let file = match action {
        Action::Run(run) => match &run.program {
            super::Program::File { path, .. } => path.clone(),
            super::Program::Inline { .. } => "script".to_owned(),
        },
        Action::Copy(copy) => copy.from.clone(),
        Action::Fetch(_) => "fetch".to_owned(),
        Action::Env(_) => "env".to_owned(),
    };
    let last = file.rsplit('/').next().unwrap_or_default();
    let stem = last.split_once('.').map_or(last, |(stem, _)| stem);
    let stem: String = stem
        .to_ascii_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    match stem.trim_matches('-') {
        "" => "copy".to_owned(),
        stem => stem.to_owned(),
    }
}
