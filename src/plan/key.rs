//! What a layer's name is made of: everything that can change its bytes, and nothing else.
//!
//! In it: the format, the rules of normalisation and those switched off, the platform, the layers
//! below, the recipe's files, each step with its variables filled in and the environment it sees,
//! the date, and how faithfully ownership is kept. Not in it: names, descriptions, timeouts,
//! compression, proxies, the CA bundle, the caller's settings, the image's name and labels.

use serde::Serialize;
use serde_json::{Value, json};

use super::{Error, Layer, Step};
use crate::oci::{Digest, json as canonical};
use crate::recipe::{Action, Files};

/// The version of the key's own make-up; another one makes every layer anew.
pub const FORMAT: u32 = 1;

/// How faithfully a build keeps who owns what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Ownership {
    /// Truthfully, in whichever way: root, a range of users, or a supervisor.
    #[default]
    Kept,
    /// Everything belongs to root, as asked for; never shared with the others.
    Discarded,
}

/// Returns the key of a layer that stands on layers with these digests before compression.
pub fn key(layer: &Layer, parents: &[Digest], ownership: Ownership) -> Result<Digest, Error> {
    let steps: Vec<Value> =
        layer.steps.iter().filter(|step| acts(step)).map(act).collect::<Result<_, _>>()?;
    let value = json!({
        "format": FORMAT,
        "rules": { "version": layer.rules, "without": layer.without_rules },
        "platform": layer.platform.to_string(),
        "parents": parents,
        "ownership": ownership,
        "source-date": layer.source_date,
        "files": files(&layer.files)?,
        "steps": steps,
    });
    Ok(Digest::of(&canonical::encode(&value)?))
}

/// An `env` step shows in the environment of the steps after it.
fn acts(step: &Step) -> bool {
    !matches!(step.action, Action::Env(_))
}

fn act(step: &Step) -> Result<Value, Error> {
    let mut action = value_of(&step.action)?;
    if let Some(Value::Object(run)) = action.get_mut("run") {
        // A step that is ended makes no layer; one that isn't does not know of its limit.
        run.remove("timeout");
    }
    Ok(json!({ "when": value_of(&step.when)?, "do": action }))
}

fn files(files: &Files) -> Result<Value, Error> {
    value_of(files)
}

pub(super) fn value_of<T: Serialize>(value: &T) -> Result<Value, Error> {
    serde_json::to_value(value).map_err(|error| Error::Encode(error.into()))
}
