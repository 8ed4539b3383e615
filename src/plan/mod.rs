//! Plans: definition, recipes, lock, platform and the base's configuration in; what will be done
//! out, as a value that can be printed, tested and refused. Nothing here touches the disk once
//! [`Sources::load`] has read the files.
//!
//! What only the tree itself can tell (distribution, codename, release) stays open in the plan as
//! `{codename}`; [`OsRelease`] fills it in when the tree is at hand.

mod config;
mod environment;
#[cfg(test)]
mod example;
mod image;
mod key;
mod os_release;
mod resolve;
mod run;
mod sources;
mod time;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::definition::Compression;
use crate::fault::{Fault, Kind};
use crate::netlog::Fetch;
use crate::oci::{ConfigDocument, Digest, HistoryEntry, Platform, Reference};
use crate::recipe::{Action, Files, When};
use crate::text;

pub use config::ConfigPatch;
pub use environment::{CACHE_DIR, CACHES, CONSTANTS};
pub use key::{FORMAT, Ownership, key};
pub use os_release::{Missing, OsRelease};
pub use resolve::plan;
pub use run::{Act, RunAct};
pub use sources::{Misfit, Sources};
pub use time::{http_date, rfc3339};

/// What a plan is made of besides the files.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// What the image is for; one of the definition's platforms.
    pub platform: &'a Platform,
    /// The configuration of the base for that platform.
    pub base: &'a ConfigDocument,
    /// What the definition's word for the base named: an index, or a manifest without one.
    pub base_digest: Option<Digest>,
    /// The base's manifest for the platform.
    pub base_manifest: Option<Digest>,
    /// The caller's `SOURCE_DATE_EPOCH`, in seconds since 1970.
    pub source_date_epoch: Option<i64>,
    /// The rules of normalisation.
    pub rules: Rules<'a>,
}

/// The rules of normalisation, as far as a plan names them.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// The version of the table.
    pub version: &'a str,
    /// The names that a recipe can switch off.
    pub names: &'a [&'a str],
}

/// What will be done for one platform.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// The definition's name.
    pub name: String,
    /// The platform.
    #[serde(serialize_with = "shown")]
    pub platform: Platform,
    /// Every name that the image gets.
    pub destinations: Vec<Reference>,
    /// What it stands on.
    pub base: Base,
    /// How new layers are compressed.
    pub compression: Compression,
    /// The layers on top of the base, bottom up.
    pub layers: Vec<Layer>,
    /// What changes in the image's configuration.
    pub config: ConfigPatch,
    /// Annotations of the manifest and of the index.
    pub annotations: BTreeMap<String, String>,
    /// The home folder of the image's user, as `HOME` or else `NB_USER` says; a volume covers it at
    /// run time. `None` when neither says.
    pub home: Option<String>,
    /// The image's date, in seconds since 1970: the newest of its new layers'; `None` without any.
    pub created: Option<i64>,
    /// What the user should look at.
    pub warnings: Vec<String>,
}

/// What an image stands on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Base {
    /// The definition's word for it.
    pub reference: Reference,
    /// What that names: an index, or a manifest without one.
    pub digest: Option<Digest>,
    /// The manifest for the platform.
    pub manifest: Option<Digest>,
}

/// A layer to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Layer {
    /// The recipe's name.
    pub name: String,
    /// What it holds, for people.
    pub about: Option<String>,
    /// What it is for.
    #[serde(serialize_with = "shown")]
    pub platform: Platform,
    /// Identifies the recipe with its arguments, whatever platform and base.
    pub recipe: Digest,
    /// The recipe's folder.
    pub folder: PathBuf,
    /// The recipe's files.
    pub files: Files,
    /// Its arguments, the definition's over the recipe's own.
    pub args: BTreeMap<String, String>,
    /// What it adds to the image's environment, in order.
    pub env: Vec<(String, String)>,
    /// What is done, in order.
    pub steps: Vec<Step>,
    /// What is not done, and why.
    pub off: Vec<Off>,
    /// The version of the rules of normalisation.
    pub rules: String,
    /// Rules of normalisation that it is spared, sorted.
    pub without_rules: Vec<String>,
    /// The date of its files, in seconds since 1970.
    pub source_date: i64,
    /// What its steps are given by the network; `None` where that is open.
    pub pins: Option<Pins>,
}

/// What the steps of a locked layer are given by the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pins {
    /// Identifies it.
    pub digest: Digest,
    /// The answers.
    #[serde(skip)]
    pub fetches: Arc<Vec<Fetch>>,
}

/// A step to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Its name, for logs; unique in the layer.
    pub name: String,
    /// Where it is done, as far as only the tree can tell.
    pub when: When,
    /// What is done. A `run` has the whole environment of the step; nothing but the tree's own
    /// variables is open.
    #[serde(flatten)]
    pub action: Action,
}

/// A step that is not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Off {
    /// Its name.
    pub name: String,
    /// Why not, as `switched off in manifests/debian-ml.toml`.
    pub reason: String,
}

/// A plan that can't be made.
#[derive(Debug, thiserror::Error)]
#[must_use]
pub enum Error {
    /// Something is wrong with the files.
    #[error(transparent)]
    Problems(#[from] text::Error),
    /// A platform that the definition does not name.
    #[error("`{name}` is not made for {platform}")]
    Platform {
        /// The definition.
        name: String,
        /// The platform asked for.
        platform: Box<Platform>,
        /// Those it is made for.
        known: Vec<Platform>,
    },
    /// A base for another platform.
    #[error("the base {base} is for {has}, not for {wanted}")]
    BasePlatform {
        /// The base.
        base: Box<Reference>,
        /// What its configuration says.
        has: Box<Platform>,
        /// What is to be built.
        wanted: Box<Platform>,
    },
    /// A plan without a canonical form, which none should be.
    #[error("a plan can't be encoded")]
    Encode(#[from] crate::oci::json::EncodeError),
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Error::Problems(_) | Error::Platform { .. } => Kind::Usage,
            Error::BasePlatform { .. } => Kind::Failed,
            Error::Encode(_) => Kind::Bug,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Error::Platform { known, .. } => {
                Some(format!("it is made for {}", crate::fault::list_of(known)))
            }
            _ => None,
        }
    }
}

impl Layer {
    /// Tells whether it does anything to files; one that only sets variables makes no layer.
    pub fn makes_files(&self) -> bool {
        self.steps.iter().any(|step| !matches!(step.action, Action::Env(_)))
    }

    /// Returns its entry in the image's history; `empty` when it came out without a change.
    pub fn history(&self, empty: bool) -> HistoryEntry {
        HistoryEntry {
            created: Some(rfc3339(self.source_date)),
            created_by: Some(format!("ocibuild: {} (recipe {})", self.name, self.recipe)),
            comment: self.about.clone(),
            empty_layer: empty,
        }
    }
}

fn shown<T: std::fmt::Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}
