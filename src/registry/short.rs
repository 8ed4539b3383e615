//! Names without a registry, as somebody types them (containers-registries.conf(5): its aliases and
//! registries to search).
//!
//! ```text
//! fedora:41 ── alias? ──> what it stands for
//!           └─ one registry to search? ──> there;  several? ──> whoever typed it has to say which
//!                                        none? ──> Docker Hub, as with docker
//! ```
//! Where several may have a name, podman asks at a terminal or tries them in turn. To try them would let
//! whoever takes the name in the first give us an image of his.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::oci::Reference;

use super::Error;

/// What files say of short names.
#[derive(Debug, Default)]
pub(super) struct ShortNames {
    aliases: BTreeMap<String, (String, PathBuf)>,
    search: Option<(Vec<String>, PathBuf)>,
}

/// What one file says of them.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Section {
    unqualified_search_registries: Option<Vec<String>>,
    #[serde(default)]
    aliases: BTreeMap<String, String>,
    #[serde(default)]
    registries: Old,
}

/// The first version of the format.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Old {
    search: OldSearch,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct OldSearch {
    registries: Vec<String>,
}

impl ShortNames {
    /// Adds what a file says, before what earlier ones do.
    pub(super) fn add(&mut self, path: &Path, text: &str) -> Result<(), toml::de::Error> {
        let section: Section = toml::from_str(text)?;
        let old = section.registries.search.registries;
        let search = section.unqualified_search_registries.or((!old.is_empty()).then_some(old));
        if let Some(registries) = search {
            self.search = Some((registries, path.to_owned()));
        }
        for (name, stands_for) in section.aliases {
            self.aliases.insert(name, (stands_for, path.to_owned()));
        }
        Ok(())
    }

    /// Returns what an alias stands for, and the file that says so.
    pub(super) fn alias(&self, text: &str) -> Result<Option<(Reference, &Path)>, Error> {
        let Some((name, rest)) = split(text) else { return Ok(None) };
        match self.aliases.get(name) {
            // An empty one takes back what another file says.
            Some((stands_for, path)) if !stands_for.is_empty() => {
                let refuse = |reason| Error::RegistriesFile { path: path.clone(), reason };
                if split(stands_for).is_some() {
                    let reason = format!("the alias `{name}` stands for a name without a registry");
                    return Err(refuse(reason));
                }
                let full = format!("{stands_for}{rest}").parse();
                full.map(|full| Some((full, path.as_path())))
                    .map_err(|error| refuse(format!("the alias `{name}`: {error}")))
            }
            _ => Ok(None),
        }
    }

    /// Returns the registry in which a short name is looked for, and the file that says so.
    pub(super) fn search(&self, text: &str) -> Result<Option<(Reference, &Path)>, Error> {
        let Some((registries, path)) = &self.search else { return Ok(None) };
        if split(text).is_none() {
            return Ok(None);
        }
        match registries.as_slice() {
            [] => Ok(None),
            [registry] => {
                let full = format!("{registry}/{text}").parse();
                full.map(|full| Some((full, path.as_path()))).map_err(
                    |error: crate::oci::ReferenceError| Error::RegistriesFile {
                        path: path.clone(),
                        reason: error.to_string(),
                    },
                )
            }
            several => Err(Error::Ambiguous {
                name: text.to_owned(),
                candidates: several.iter().map(|one| format!("{one}/{text}")).collect(),
                file: path.clone(),
            }),
        }
    }
}

/// Tells whether a name lacks a registry.
pub fn is_short(text: &str) -> bool {
    split(text).is_some()
}

/// Splits a name without a registry before its tag or digest; `None` where it names one.
fn split(text: &str) -> Option<(&str, &str)> {
    if let Some((first, _)) = text.split_once('/')
        && (first.contains(['.', ':']) || first == "localhost")
    {
        return None;
    }
    Some(text.split_at(text.find([':', '@']).unwrap_or(text.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(texts: &[&str]) -> ShortNames {
        let mut names = ShortNames::default();
        for (number, text) in texts.iter().enumerate() {
            names.add(Path::new(&format!("{number}.conf")), text).unwrap();
        }
        names
    }

    #[test]
    fn an_alias_keeps_tag_and_digest_and_the_last_file_counts() {
        let names = of(&[
            "[aliases]\nfedora = \"r.example/fedora\"\n\"a/b\" = \"s.example/c\"\ngone = \"x.example/y\"",
            "[aliases]\nfedora = \"t.example/f/fedora\"\ngone = \"\"\nbad = \"a/b\"",
        ]);
        let alias = |text: &str| names.alias(text).unwrap().map(|(full, _)| full.to_string());
        assert_eq!(alias("fedora").as_deref(), Some("t.example/f/fedora:latest"));
        assert_eq!(alias("fedora:41").as_deref(), Some("t.example/f/fedora:41"));
        let digest = format!("sha256:{}", "ab".repeat(32));
        assert_eq!(alias(&format!("a/b@{digest}")), Some(format!("s.example/c@{digest}")));
        for other in ["gone", "fedora/x", "docker.io/fedora", "localhost/fedora", "b"] {
            assert_eq!(alias(other), None, "{other}");
        }
        let error = names.alias("bad").unwrap_err().to_string();
        assert!(error.contains("1.conf") && error.contains("without a registry"), "{error}");
    }

    #[test]
    fn one_registry_is_searched_and_several_are_named() {
        let search = |texts: &[&str], name: &str| {
            of(texts).search(name).map(|found| found.map(|(full, _)| full.to_string()))
        };
        let one = "unqualified-search-registries = [\"r.example\"]";
        let two = "unqualified-search-registries = [\"r.example\", \"docker.io\"]";
        assert_eq!(search(&[two, one], "a/b:1").unwrap().as_deref(), Some("r.example/a/b:1"));
        assert_eq!(search(&[one], "r2.example/a").unwrap(), None);
        assert_eq!(search(&[""], "a").unwrap(), None);
        assert_eq!(search(&[one, "unqualified-search-registries = []"], "a").unwrap(), None);
        let old = "[registries.search]\nregistries = [\"old.example\"]";
        assert_eq!(search(&[old], "a").unwrap().as_deref(), Some("old.example/a:latest"));
        match search(&[one, two], "a:1") {
            Err(Error::Ambiguous { candidates, .. }) => {
                assert_eq!(candidates, ["r.example/a:1", "docker.io/a:1"]);
            }
            other => panic!("{other:?}"),
        }
    }
}
