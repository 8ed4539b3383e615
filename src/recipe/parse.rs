//! `layer.toml` into a [`Recipe`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use super::{FILE_NAME, Files, PLAN_VARIABLES, Recipe, TREE_VARIABLES, env_name, plain, step};
use crate::text::{File, Problems, Scope, Span, Table, Template, Text, simple_name};

/// Names in the environment of every step, which an argument must not hide.
const RESERVED: [&str; 19] = [
    "ARCH",
    "CODENAME",
    "DEBIAN_FRONTEND",
    "DISTRIBUTION",
    "HOME",
    "IFS",
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "MACHINE",
    "OCIBUILD_RECIPE",
    "PATH",
    "PYTHONHASHSEED",
    "RELEASE",
    "SHELL",
    "SOURCE_DATE_EPOCH",
    "TZ",
    "USER",
];

/// Words of other tools, with ours.
const FOREIGN: [(&str, &str); 6] = [
    ("arg", "args"),
    ("description", "about"),
    ("environment", "env"),
    ("parameters", "args"),
    ("steps", "step"),
    ("tasks", "step"),
];

/// Reads the recipe in a folder, with its files.
pub fn load(folder: &Path, problems: &Problems) -> Option<Recipe> {
    let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if !simple_name(name) {
        problems.about(
            folder,
            format!("`{name}` cannot name a recipe; use small letters, digits and `-`"),
        );
        return None;
    }
    let files = Files::of_folder(folder, problems);
    let path = folder.join(FILE_NAME);
    if path.symlink_metadata().is_ok() {
        let file = File::read(&path, problems)?;
        return parse(&file, name, folder, files, problems);
    }
    let Some(text) = plain::written_out(&files) else {
        let known: Vec<&str> = plain::PLAIN.iter().map(|convention| convention.file).collect();
        problems.about(
            folder,
            format!("holds neither `{FILE_NAME}` nor any of {}", crate::fault::list_of(&known)),
        );
        return None;
    };
    parse(&File::of_text(path, text), name, folder, files, problems)
}

/// Reads a recipe's text; `files` are those in its folder.
pub fn parse(
    file: &Arc<File>,
    name: &str,
    folder: &Path,
    files: Files,
    problems: &Problems,
) -> Option<Recipe> {
    let before = problems.count();
    let mut table = Table::read(file, problems);
    let about = table.text("about").map(|text| text.value);
    // One with a wrong value is known all the same.
    let scopes = Scopes::new(table.keys_of("args"));
    let args = args(&mut table);
    let env = table
        .map("env")
        .map(|map| environment(map, &scopes.image_env, file, problems))
        .unwrap_or_default();
    let without_rules = table.texts("without-rules").unwrap_or_default();
    let steps = step::read(&mut table, &scopes, folder, &files);
    if steps.is_empty() && env.is_empty() && problems.count() == before {
        table.missing("step", "[{ run = \"install.sh\" }]");
    }
    table.finish(&FOREIGN);
    (problems.count() == before).then(|| Recipe {
        name: name.to_owned(),
        folder: folder.to_owned(),
        file: Arc::clone(file),
        about,
        args,
        env,
        without_rules,
        steps,
        files,
    })
}

/// Which variables may stand where.
pub(super) struct Scopes {
    /// Where the tree is at hand: arguments of programs, addresses, paths.
    pub(super) step: Scope,
    /// In the environment of one step.
    pub(super) step_env: Scope,
    /// In the image's environment, which is decided before the tree is at hand.
    pub(super) image_env: Scope,
}

impl Scopes {
    fn new(args: Vec<String>) -> Scopes {
        let tree: BTreeSet<String> = TREE_VARIABLES.map(str::to_owned).into();
        let mut plan: BTreeSet<String> = PLAN_VARIABLES.map(str::to_owned).into();
        plan.extend(args);
        let all: BTreeSet<String> = plan.union(&tree).cloned().collect();
        Scopes {
            step: Scope { names: all.clone(), ..Scope::default() },
            step_env: Scope { names: all, environment: true, ..Scope::default() },
            image_env: Scope {
                names: plan,
                elsewhere: tree,
                reason: "is read from the tree while a step runs, too late for the image's \
                         environment; a script can write the value to a file",
                environment: true,
            },
        }
    }
}

fn args(table: &mut Table<'_>) -> BTreeMap<String, Text> {
    let mut args = BTreeMap::new();
    let mut taken: BTreeMap<String, String> = BTreeMap::new();
    for (name, (span, text)) in table.map("args").unwrap_or_default() {
        let variable = env_name(&name);
        let clash = taken.get(&variable);
        if !simple_name(&name) || name.starts_with(|first: char| first.is_ascii_digit()) {
            table.wrong(
                span,
                format!("`{name}` cannot name an argument; use small letters, digits and `-`"),
            );
        } else if RESERVED.contains(&variable.as_str())
            || PLAN_VARIABLES.contains(&name.as_str())
            || TREE_VARIABLES.contains(&name.as_str())
        {
            table.wrong(
                span,
                format!(
                    "`{name}` would reach scripts as `{variable}`, which has a meaning already"
                ),
            );
        } else if let Some(other) = clash {
            table.wrong(span, format!("`{name}` and `{other}` both reach scripts as `{variable}`"));
        } else {
            taken.insert(variable, name.clone());
            if text.value.contains('\0') {
                table.wrong(text.span.clone(), "a zero byte can't be in here");
            }
            args.insert(name, text);
        }
    }
    args
}

/// Reads variables for an environment.
pub(super) fn environment(
    map: BTreeMap<String, (Span, Text)>,
    scope: &Scope,
    file: &File,
    problems: &Problems,
) -> BTreeMap<String, Template> {
    map.into_iter()
        .map(|(name, (span, text))| {
            let mut bytes = name.bytes();
            let good = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
                && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_');
            if !good {
                let message = format!("`{name}` cannot name a variable of an environment");
                problems.meaning(file, span, message);
            }
            (name, Template::parse(&text, scope, file, problems))
        })
        .collect()
}
