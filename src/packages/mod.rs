//! What package managers write down in a tree, read: which file is such a record, what it says of a
//! package, and which paths belong to that.
//!
//! ```text
//! dpkg    var/lib/dpkg/status, status.d/*          var/lib/dpkg/info/NAME.list
//!         usr/share/doc/NAME/copyright
//! conda   PREFIX/conda-meta/*.json                 `files` in it
//! python  FOLDER/NAME-VERSION.dist-info/METADATA   RECORD beside it
//! r       LIBRARY/NAME/DESCRIPTION                 all of LIBRARY/NAME
//! node    …/node_modules/NAME/package.json         all of its folder
//! ```
//! Paths are those of a layer: below the root, without a slash before them.

pub mod conda;
pub mod copyright;
pub mod dpkg;
mod fields;
pub mod node;
pub mod python;
pub mod r;

use std::collections::BTreeMap;

use serde::Serialize;

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
    /// Returns a package of which no more is known.
    pub fn new(manager: Manager, name: &str, version: &str) -> Package {
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
}
