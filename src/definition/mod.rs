//! Definitions: what image a user wants. `manifests/NAME.toml`, read and checked.
//!
//! Recipes are looked for in `layers/` beside the definition's folder and in it, then in the folders
//! that the definition's own `recipes` names, so that one can be written anywhere.

mod config;
mod find;
mod parse;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

use crate::oci::{Platform, Reference};
use crate::text::{File, Span, Text};

pub use config::Config;
pub use find::{Error, find, names};
pub use parse::{load, parse};

/// What image a user wants.
#[derive(Clone, Debug)]
pub struct Definition {
    /// The file's name without its ending.
    pub name: String,
    /// The file, for problems that only a plan can see.
    pub file: Arc<File>,
    /// The image's own name, without a tag.
    pub image: Reference,
    /// Further names that get the same digest.
    pub also: Vec<Reference>,
    /// Tags, `latest` unless said.
    pub tags: Vec<String>,
    /// What it stands on.
    pub base: Reference,
    /// Where `base` stands in the file.
    pub base_span: Span,
    /// What it is built for; one or more.
    pub platforms: Vec<Platform>,
    /// How new layers are compressed.
    pub compression: Compression,
    /// Folders in which recipes are looked for, in order.
    pub recipes: Vec<PathBuf>,
    /// The layers on top of the base, bottom up.
    pub layers: Vec<LayerUse>,
    /// The image's configuration, on top of the base's and the layers'.
    pub config: Config,
    /// Annotations of the index and of each manifest.
    pub annotations: BTreeMap<String, String>,
}

/// How new layers are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// gzip, which everything can read.
    #[default]
    Gzip,
    /// Zstandard, smaller and faster; containerd 1.5, podman 4 and docker 23 read it.
    Zstd,
}

/// A recipe as a definition uses it.
#[derive(Clone, Debug)]
pub struct LayerUse {
    /// The recipe's name.
    pub recipe: Text,
    /// Arguments in place of the recipe's defaults, each with where its key stands.
    pub args: BTreeMap<String, (Span, Text)>,
    /// Names of steps that are switched off.
    pub without: Vec<Text>,
}

impl Definition {
    /// Returns every name that the image gets: each destination with each tag, its own first.
    pub fn destinations(&self) -> Vec<Reference> {
        let images = std::iter::once(&self.image).chain(&self.also);
        images.flat_map(|image| self.tags.iter().filter_map(|tag| image.tagged(tag).ok())).collect()
    }
}
