//! What a step does: each action with the keys that belong to it.

use std::collections::BTreeMap;

use super::parse::environment;
use super::step::Reader;
use super::{Action, Copy, FILE_NAME, Fetch, Node, Pin, Program, Run, script};
use crate::oci::{Digest, Platform};
use crate::text::{
    Item, Scope, Table, Template, Text, User, absolute_path, duration, inner_path, mode, nearest,
};

/// Architectures that an image can be for, in Go's spelling.
pub(super) const ARCHITECTURES: [&str; 8] =
    ["386", "amd64", "arm", "arm64", "loong64", "ppc64le", "riscv64", "s390x"];

/// What an inline script runs in.
const SHELL: [&str; 4] = ["/bin/bash", "-euo", "pipefail", "-c"];

/// Asks for every key of every action, so that none of them counts as unknown.
pub(super) fn ask_for_all(step: &mut Table<'_>) {
    for key in [
        "args", "copy", "env", "fetch", "mode", "network", "owner", "run", "script", "sha256",
        "shell", "timeout", "to", "unpinned", "user", "workdir",
    ] {
        step.item(key);
    }
}

/// Reads `env` as a step of its own.
pub(super) fn env(reader: &Reader<'_>, step: &mut Table<'_>) -> Option<Action> {
    let map = step.map("env")?;
    let env = environment(map, &reader.scopes.image_env, step.file(), step.problems());
    Some(Action::Env(env))
}

/// Reads `run`, a file of the recipe.
pub(super) fn run(reader: &Reader<'_>, step: &mut Table<'_>) -> Option<Action> {
    let file = step.text("run");
    let program = file.and_then(|file| program(reader, step, &file));
    let args = step
        .texts("args")
        .unwrap_or_default()
        .iter()
        .map(|text| template(step, text, &reader.scopes.step))
        .collect();
    settings(reader, step, program, args)
}

/// Reads `script`, a text for a shell.
pub(super) fn script(reader: &Reader<'_>, step: &mut Table<'_>) -> Option<Action> {
    let script = step.text("script");
    if let Some(text) = &script {
        if text.value.trim().is_empty() {
            step.wrong(text.span.clone(), "`script` is empty");
        }
        if text.value.contains('\0') {
            step.wrong(text.span.clone(), "a zero byte can't be in here");
        }
    }
    let shell = match step.list("shell") {
        None => SHELL.map(str::to_owned).to_vec(),
        Some((items, span)) => {
            let words = step.texts_of("shell", items);
            if let Some(first) = words.first() {
                if let Err(message) = absolute_path(&first.value) {
                    step.wrong(first.span.clone(), message);
                }
            } else {
                step.wrong(span, "`shell` is empty, for instance `[\"/bin/sh\", \"-ec\"]`");
            }
            words.into_iter().map(|word| word.value).collect()
        }
    };
    let program = script.map(|script| Program::Inline { shell, script: script.value });
    settings(reader, step, program, Vec::new())
}

/// Reads what `run` and `script` have in common.
fn settings(
    reader: &Reader<'_>,
    step: &mut Table<'_>,
    program: Option<Program>,
    args: Vec<Template>,
) -> Option<Action> {
    let user = user(step, "user");
    let workdir = match step.text("workdir") {
        None => Template::literal("/"),
        Some(text) => image_path(reader, step, &text),
    };
    let env = step
        .map("env")
        .map(|map| environment(map, &reader.scopes.step_env, step.file(), step.problems()))
        .unwrap_or_default();
    let timeout = checked(step, "timeout", duration);
    let network = step.bool("network").is_none_or(|(network, _)| network);
    Some(Action::Run(Run { program: program?, args, user, workdir, env, timeout, network }))
}

/// Reads `copy`.
pub(super) fn copy(reader: &Reader<'_>, step: &mut Table<'_>) -> Option<Action> {
    let from = step.text("copy").and_then(|text| {
        let path = match inner_path(&text.value) {
            Ok(path) => path,
            Err(message) => {
                step.wrong(text.span.clone(), message);
                return None;
            }
        };
        if path == FILE_NAME {
            step.wrong(text.span.clone(), format!("`{FILE_NAME}` itself reaches no step"));
        } else if !path.is_empty() && reader.files.get(&path).is_none() {
            absent(reader, step, &text);
        }
        Some(path)
    });
    let to = destination(reader, step);
    let mode = checked(step, "mode", mode);
    let owner = user(step, "owner");
    Some(Action::Copy(Copy { from: from?, to: to?, mode, owner }))
}

/// Reads `fetch`.
pub(super) fn fetch(reader: &Reader<'_>, step: &mut Table<'_>) -> Option<Action> {
    let url = step.text("fetch").map(|text| {
        let good = ["https://", "http://"]
            .iter()
            .any(|scheme| text.value.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty()));
        if !good || text.value.contains(|c: char| c.is_whitespace() || c.is_control()) {
            let message = "`fetch` is an address that begins with `https://`";
            step.wrong(text.span.clone(), message);
        }
        template(step, &text, &reader.scopes.step)
    });
    let to = destination(reader, step);
    let pin = pin(step);
    let mode = checked(step, "mode", mode).unwrap_or(0o644);
    let owner = user(step, "owner");
    Some(Action::Fetch(Fetch { url: url?, to: to?, pin: pin?, mode, owner }))
}

fn pin(step: &mut Table<'_>) -> Option<Pin> {
    let unpinned = step.key_span("unpinned");
    let waived = matches!(step.bool("unpinned"), Some((true, _)));
    if let (Some(span), true, true) = (unpinned, waived, step.has("sha256")) {
        step.wrong(span, "`unpinned` and `sha256` exclude each other");
    }
    match step.item("sha256") {
        None if waived => Some(Pin::Unpinned),
        None => {
            let message = "`sha256` is missing: say what is to come, or `unpinned = true` if \
                           whatever comes is right";
            step.problems().shape(step.file(), step.span(), message);
            None
        }
        Some(Item::Text(text)) => Some(Pin::Any(digest(step, &text)?)),
        Some(Item::Table(table)) => {
            let span = table.span();
            let mut digests = BTreeMap::new();
            for (arch, (key, text)) in table.into_map() {
                let plain = Platform::linux(&arch).architecture;
                if plain != arch {
                    step.wrong(key, format!("write `{plain}` for `{arch}`"));
                } else if !ARCHITECTURES.contains(&arch.as_str()) {
                    let meant = nearest(&arch, ARCHITECTURES)
                        .map(|meant| format!("; did you mean `{meant}`?"))
                        .unwrap_or_default();
                    step.wrong(key, format!("unknown architecture `{arch}`{meant}"));
                }
                if let Some(digest) = digest(step, &text) {
                    digests.insert(arch, digest);
                }
            }
            Some(Pin::Arch { digests, span })
        }
        Some(other) => {
            let wanted = "text or a table of texts by architecture";
            step.mistyped("sha256", wanted, &other);
            None
        }
    }
}

fn digest(step: &Table<'_>, text: &Text) -> Option<Digest> {
    let hex = text.value.strip_prefix("sha256:").unwrap_or(&text.value);
    let digest = format!("sha256:{}", hex.to_ascii_lowercase()).parse().ok();
    if digest.is_none() {
        let message = format!(
            "a SHA-256 digest has 64 hexadecimal digits, this has {} characters",
            hex.chars().count()
        );
        step.wrong(text.span.clone(), message);
    }
    digest
}

fn program(reader: &Reader<'_>, step: &Table<'_>, text: &Text) -> Option<Program> {
    let wrong = |message: String| step.wrong(text.span.clone(), message);
    let path = match inner_path(&text.value) {
        Ok(path) => path,
        Err(message) => {
            let more = if text.value.contains(char::is_whitespace) {
                "; a command line is a `script`"
            } else {
                ""
            };
            wrong(message + more);
            return None;
        }
    };
    match reader.files.get(&path) {
        Some(Node::File { exec, .. }) => match script::interpreter(reader.folder, &path, *exec) {
            Ok(interpreter) => return Some(Program::File { interpreter, path }),
            Err(message) => wrong(message),
        },
        Some(_) => wrong(format!("`{path}` is a folder")),
        None => absent(reader, step, text),
    }
    None
}

/// Tells of a file that is not in the recipe's folder.
fn absent(reader: &Reader<'_>, step: &Table<'_>, text: &Text) {
    let value = &text.value;
    let more = match nearest(value, reader.files.paths()) {
        Some(meant) => format!("; did you mean `{meant}`?"),
        None if value.contains(char::is_whitespace) => "; a command line is a `script`".to_owned(),
        None => String::new(),
    };
    let folder = reader.folder.display();
    step.wrong(text.span.clone(), format!("there is no `{value}` in `{folder}`{more}"));
}

fn destination(reader: &Reader<'_>, step: &mut Table<'_>) -> Option<Template> {
    let text = step.required_text("to", "\"/usr/local/bin/tool\"")?;
    Some(image_path(reader, step, &text))
}

fn image_path(reader: &Reader<'_>, step: &Table<'_>, text: &Text) -> Template {
    if let Err(message) = absolute_path(&text.value) {
        step.wrong(text.span.clone(), message);
    }
    template(step, text, &reader.scopes.step)
}

fn user(step: &mut Table<'_>, key: &'static str) -> User {
    checked(step, key, User::parse).unwrap_or_else(User::root)
}

/// Takes a text and reads it; what is wrong with it is a problem at its place.
fn checked<T>(
    step: &mut Table<'_>,
    key: &'static str,
    read: impl Fn(&str) -> Result<T, String>,
) -> Option<T> {
    let text = step.text(key)?;
    read(&text.value).map_err(|message| step.wrong(text.span, message)).ok()
}

fn template(step: &Table<'_>, text: &Text, scope: &Scope) -> Template {
    Template::parse(text, scope, step.file(), step.problems())
}
