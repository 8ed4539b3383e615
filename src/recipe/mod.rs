//! Recipes: how a layer is made. `layers/NAME/layer.toml` and the files beside it, read and checked.
//!
//! A folder without `layer.toml` is a recipe too when it holds `apt.txt`, `environment.yml`,
//! `requirements.txt` or `install.r`: see `plain.rs` for the steps that it then has.
//!
//! `layer.toml` itself never reaches the steps and its bytes are in no digest: what it says is.

mod action;
mod files;
mod parse;
mod plain;
mod script;
mod step;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::oci::Digest;
use crate::text::{File, Span, Template, Text, User};

pub use files::{Entry, Error, Files, Node};
pub use parse::{load, parse};
pub use plain::PLAIN;
pub use script::Program;

/// The file in a recipe's folder that says what to do.
pub const FILE_NAME: &str = "layer.toml";

/// Where a recipe's files are while its steps run.
pub const MOUNTED_AT: &str = "/run/ocibuild/recipe";

/// Variables that every recipe has and that a plan knows.
pub const PLAN_VARIABLES: [&str; 2] = ["arch", "machine"];

/// Variables that every recipe has and that only the tree's own `os-release` tells.
pub const TREE_VARIABLES: [&str; 3] = ["codename", "distribution", "release"];

/// How a layer is made.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The name of its folder.
    pub name: String,
    /// The folder itself.
    pub folder: PathBuf,
    /// `layer.toml`, or a text in its place, for problems that only a plan can see.
    pub file: Arc<File>,
    /// What the layer holds, for people.
    pub about: Option<String>,
    /// Arguments with their defaults.
    pub args: BTreeMap<String, Text>,
    /// What goes into the image's environment before the first step.
    pub env: BTreeMap<String, Template>,
    /// Rules of normalisation that this layer is spared; names that the plan checks.
    pub without_rules: Vec<Text>,
    /// What is done, in order.
    pub steps: Vec<Step>,
    /// The files that steps can see.
    pub files: Files,
}

/// One act of a recipe.
#[derive(Clone, Debug)]
pub struct Step {
    /// A definition switches steps off by it. Neighbours may share one: parts of one thing.
    pub name: String,
    /// Where the step begins in `layer.toml`.
    pub span: Span,
    /// Where it is done at all.
    pub when: When,
    /// What is done.
    pub action: Action,
}

/// Where a step is done; an empty list stands for everywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct When {
    /// Architectures in Go's spelling. Known to the plan.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub arch: Vec<String>,
    /// `ID` of the tree's `os-release`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub distribution: Vec<String>,
    /// `VERSION_CODENAME` of the tree's `os-release`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub codename: Vec<String>,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Runs a program.
    Run(Run),
    /// Puts a file or a folder of the recipe into the image.
    Copy(Copy),
    /// Puts a file from the network into the image.
    Fetch(Fetch),
    /// Changes the image's environment from here on.
    Env(BTreeMap<String, Template>),
}

/// A program to run, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Run {
    /// What is run.
    pub program: Program,
    /// Its arguments.
    pub args: Vec<Template>,
    /// Whom it runs as.
    pub user: User,
    /// The folder it starts in.
    pub workdir: Template,
    /// Variables for this step alone.
    pub env: BTreeMap<String, Template>,
    /// After what time it is ended, if ever.
    #[serde(serialize_with = "seconds", skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// Whether it reaches the network.
    pub network: bool,
}

/// A copy out of the recipe's folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Copy {
    /// A path in the folder; empty for all of it. What is in a folder goes below `to`.
    pub from: String,
    /// A path in the image; one that ends in `/` is a folder that takes the file's name.
    pub to: Template,
    /// The mode of files; by their exec bit where it is not said. Folders made get 0755.
    pub mode: Option<u32>,
    /// Whom what is copied belongs to.
    pub owner: User,
}

/// A download.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fetch {
    /// From where.
    pub url: Template,
    /// A path in the image; one that ends in `/` is a folder that takes the address's last part.
    pub to: Template,
    /// What the bytes must be.
    pub pin: Pin,
    /// The file's mode.
    pub mode: u32,
    /// Whom it belongs to.
    pub owner: User,
}

/// What downloaded bytes must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Pin {
    /// The same on every architecture.
    Any(Digest),
    /// By architecture, in Go's spelling.
    Arch {
        /// The digest for each architecture.
        digests: BTreeMap<String, Digest>,
        /// Where they stand.
        #[serde(skip)]
        span: Span,
    },
    /// Whatever comes, said in so many words.
    Unpinned,
}

impl Recipe {
    /// Returns the names of the steps, each once, in order.
    pub fn step_names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.steps.iter().map(|step| step.name.as_str()).collect();
        names.dedup();
        names
    }
}

#[expect(clippy::ref_option, reason = "serde's signature")]
fn seconds<S: Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(|time| time.as_secs()).serialize(serializer)
}

/// Returns the name by which an argument reaches scripts: `r-version` as `R_VERSION`.
pub fn env_name(arg: &str) -> String {
    arg.to_ascii_uppercase().replace(['-', '.'], "_")
}
