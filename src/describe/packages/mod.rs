//! Which packages are in an image, and which layer brought each, read from the tars of its layers:
//!
//! ```text
//! layer's blob -> entries -> finds: a file of a package manager, by path
//!                            whiteouts
//! finds, layer upon layer -> what is there in the end -> packages, each once
//! ```
//!
//! A package manager's own word counts. What a Debian package or a conda package brings of another
//! manager's (`python3-numpy`, `r-cran-mass`) is told at that package and is not a second one.

mod conda;
mod dpkg;
mod fields;
mod finds;
mod merge;
mod node;
mod python;
mod r;

use std::collections::BTreeMap;

use serde::Serialize;

pub use finds::{Finds, read};
pub use merge::{Inventory, merge};
pub(super) use python::normalised as python_name;

/// The package managers that are known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Manager {
    /// dpkg, by its status file.
    Deb,
    /// conda, by the records of an environment.
    Conda,
    /// R, by the `DESCRIPTION` of an installed package.
    R,
    /// pip and its kin, by the metadata of an installed distribution.
    Python,
    /// npm, by the `package.json` of an installed module.
    Npm,
}

/// A package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Package {
    /// Who installed it.
    pub manager: Manager,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// dpkg's architecture, conda's platform.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub architecture: Option<String>,
    /// What tells it from others of the same name and version: conda's build and channel, the home of
    /// an R package.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub qualifiers: BTreeMap<String, String>,
    /// The licence in the package's own words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
    /// Who answers for it, as `Name <address>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maintainer: Option<String>,
    /// Its page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub homepage: Option<String>,
    /// Where it was had.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub download: Option<String>,
    /// Name and version of the source package.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<(String, String)>,
    /// Hashes of its archive, by the algorithm's name in SPDX.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub checksums: BTreeMap<String, String>,
    /// Where it was found, in order.
    pub paths: Vec<String>,
    /// The packages of other managers that it brings.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub holds: Vec<Held>,
    /// The position of the layer that brought it, from the bottom.
    pub layer: usize,
}

/// What a package brings of another manager's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Held {
    /// The other manager.
    pub manager: Manager,
    /// Its name for it.
    pub name: String,
    /// Its version there.
    pub version: String,
}

impl Package {
    pub(super) fn new(manager: Manager, name: &str, version: &str) -> Package {
        Package {
            manager,
            name: name.to_owned(),
            version: version.to_owned(),
            architecture: None,
            qualifiers: BTreeMap::new(),
            licence: None,
            maintainer: None,
            homepage: None,
            download: None,
            source: None,
            checksums: BTreeMap::new(),
            paths: Vec::new(),
            holds: Vec::new(),
            layer: 0,
        }
    }

    /// What makes it the same package, wherever it lies.
    fn identity(&self) -> Identity {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        Identity(
            self.manager,
            self.name.clone(),
            self.version.clone(),
            text(&self.architecture),
            self.qualifiers.clone(),
        )
    }
}

/// See [`Package::identity()`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Identity(Manager, String, String, String, BTreeMap<String, String>);
