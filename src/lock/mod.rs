//! `manifests/NAME.lock`: what was chosen for a definition, so that it can be chosen again.
//!
//! ```text
//! lock = 2                                    the format's version
//! rules = "1"                                 the rules of normalisation that it was made under
//! [base]                                      reference = "…"  digest = "…", an index's where there is one
//! [platform."linux/amd64"]                    base = "…", the base's manifest
//! [platform."linux/amd64".layer.r]            source-date = …, in seconds since 1970
//! fetches = [                                 what its steps were given, one answer a line, sorted
//! ```
//!
//! It holds no digest of an output and no time but the source dates.

mod diff;
mod merge;
mod newest;
mod package;
mod read;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::json;

use crate::netlog::Fetch;
use crate::oci::{Digest, Platform, Reference, json as canonical};

pub use diff::{Change, Diff, LayerDiff, PackageChange, PlatformDiff, State, UrlChange, diff};
pub use merge::{MergeError, merge};
pub use newest::{Newest, compare, newest, plain_version};
pub use package::{Ecosystem, Package, is_index, package_of};
pub use read::{load, parse, read};
pub use write::{HEAD, write};

/// The format's version that is written and read here.
pub const VERSION: i64 = 2;

/// What was chosen for a definition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lock {
    /// The version of the rules of normalisation that the layers were made under.
    pub rules: String,
    /// The base as it was.
    pub base: Base,
    /// What was chosen for each platform, by its name as `linux/amd64`.
    pub platforms: BTreeMap<String, Section>,
}

/// A base as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Base {
    /// The definition's word for it.
    pub reference: Reference,
    /// What that named: an index, or a manifest where there is no index.
    pub digest: Digest,
}

/// What was chosen for one platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Section {
    /// The base's manifest.
    pub base: Digest,
    /// What was chosen for each layer, by its recipe's name.
    pub layers: BTreeMap<String, Layer>,
}

/// What was chosen for one layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Layer {
    /// The date of its files, in seconds since 1970.
    pub source_date: i64,
    /// What its steps were given by the network, sorted by URL.
    pub fetches: Vec<Fetch>,
}

impl Layer {
    /// Takes what a layer's steps were given, and puts it in order.
    pub fn new(source_date: i64, mut fetches: Vec<Fetch>) -> Layer {
        fetches.sort();
        fetches.dedup();
        Layer { source_date, fetches }
    }

    /// Identifies what the steps are given; how far it can be trusted is not part of it.
    pub fn pins(&self) -> Result<Digest, canonical::EncodeError> {
        let mut fetches = Vec::with_capacity(self.fetches.len());
        for fetch in &self.fetches {
            let mut value = serde_json::to_value(fetch)?;
            if let Some(members) = value.as_object_mut() {
                members.remove("authority");
            }
            fetches.push(value);
        }
        Ok(Digest::of(&canonical::encode(&fetches)?))
    }

    /// Returns the bodies that it names, each once.
    pub fn bodies(&self) -> BTreeSet<Digest> {
        self.fetches.iter().map(|fetch| fetch.digest).collect()
    }
}

impl Lock {
    /// Returns what was chosen for a platform.
    pub fn section(&self, platform: &Platform) -> Option<&Section> {
        self.platforms.get(&platform.to_string())
    }

    /// Returns what was chosen for a layer of a platform.
    pub fn layer(&self, platform: &Platform, name: &str) -> Option<&Layer> {
        self.section(platform)?.layers.get(name)
    }

    /// Identifies what was chosen for a platform, whatever was for the others and however the file
    /// is written; `None` where the lock does not have it. Images carry it as a label.
    pub fn digest(&self, platform: &Platform) -> Result<Option<Digest>, canonical::EncodeError> {
        let Some(section) = self.section(platform) else { return Ok(None) };
        let value = json!({
            "lock": VERSION,
            "rules": self.rules,
            "platform": platform.to_string(),
            "base": { "name": self.base.reference.to_string(), "manifest": section.base.to_string() },
            "layers": serde_json::to_value(&section.layers)?,
        });
        Ok(Some(Digest::of(&canonical::encode(&value)?)))
    }
}

/// Returns where the lock of a definition lies.
pub fn path_beside(definition: &Path) -> PathBuf {
    definition.with_extension("lock")
}

#[cfg(test)]
mod example {
    //! Locks for the tests of this room.

    use super::*;
    use crate::netlog::{AuthorityClass, Method, Variant};

    pub(super) fn fetch(url: &str, body: &str) -> Fetch {
        Fetch {
            url: url.to_owned(),
            method: Method::Get,
            variant: Variant::default(),
            credentials: false,
            turn: 0,
            status: 200,
            digest: Digest::of(body.as_bytes()),
            size: body.len() as u64,
            headers: [("content-type".to_owned(), "text/plain; charset=\"utf-8\"".to_owned())]
                .into(),
            authority: AuthorityClass::TlsOnly,
        }
    }

    pub(super) fn lock(platform: &str, layers: &[(&str, Vec<Fetch>)]) -> Lock {
        let layers = layers
            .iter()
            .map(|(name, fetches)| ((*name).to_owned(), Layer::new(7, fetches.clone())))
            .collect();
        let section = Section { base: Digest::of(platform.as_bytes()), layers };
        Lock {
            rules: "1".to_owned(),
            base: Base {
                reference: "quay.io/a/b:t".parse().unwrap(),
                digest: Digest::of(b"index"),
            },
            platforms: [(platform.to_owned(), section)].into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::example::{fetch, lock};
    use super::*;
    use crate::netlog::{AuthorityClass, Method, Variant};
    use crate::text::{File, Problems};

    fn read(text: &str) -> Result<Lock, String> {
        let problems = Problems::new();
        let lock = parse(&File::of_text("ml.lock", text), &problems);
        problems.finish(lock).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_written_is_read_back_and_each_answer_has_a_line() {
        let query = Fetch {
            method: Method::Post,
            variant: Variant { sent: Some(Digest::of(b"?")), ..Variant::default() },
            credentials: true,
            status: 404,
            headers: BTreeMap::new(),
            ..fetch("https://v.example/q", "")
        };
        let again =
            Fetch { turn: 1, digest: Digest::of(b"2"), ..fetch("https://a.example/x", "1") };
        let fetches = vec![query, again, fetch("https://a.example/x", "1")];
        let written = lock("linux/amd64", &[("r4.5", fetches), ("ide", Vec::new())]);
        let text = write(&written).unwrap();
        assert_eq!(read(&text).unwrap(), written);
        let hex = |bytes: &[u8]| Digest::of(bytes).to_string();
        assert_eq!(
            text.strip_prefix(HEAD).unwrap(),
            format!(
                "lock = 2\nrules = \"1\"\n\n[base]\nreference = \"quay.io/a/b:t\"\ndigest = \"{}\"\n\n\
                 [platform.\"linux/amd64\"]\nbase = \"{}\"\n\n\
                 [platform.\"linux/amd64\".layer.ide]\nsource-date = 7\nfetches = []\n\n\
                 [platform.\"linux/amd64\".layer.\"r4.5\"]\nsource-date = 7\nfetches = [\n  \
                 {{ url = \"https://a.example/x\", method = \"GET\", status = 200, digest = \"{}\", \
                 size = 1, headers = {{ content-type = \"text/plain; charset=\\\"utf-8\\\"\" }}, \
                 authority = \"tls-only\" }},\n  \
                 {{ url = \"https://a.example/x\", method = \"GET\", turn = 1, status = 200, \
                 digest = \"{}\", size = 1, \
                 headers = {{ content-type = \"text/plain; charset=\\\"utf-8\\\"\" }}, \
                 authority = \"tls-only\" }},\n  \
                 {{ url = \"https://v.example/q\", method = \"POST\", variant = {{ sent = \"{}\" }}, \
                 credentials = true, status = 404, digest = \"{}\", size = 0, \
                 authority = \"tls-only\" }},\n]\n",
                hex(b"index"),
                hex(b"linux/amd64"),
                hex(b"1"),
                hex(b"2"),
                hex(b"?"),
                hex(b""),
            )
        );
    }

    #[test]
    fn a_section_has_its_own_digest_whatever_the_file_looks_like() {
        let (amd64, arm64) = (Platform::linux("amd64"), Platform::linux("arm64"));
        let one = lock("linux/amd64", &[("r", vec![fetch("https://a.example/x", "1")])]);
        let digest = one.digest(&amd64).unwrap().unwrap();
        assert_eq!(one.digest(&arm64).unwrap(), None);
        let two = lock("linux/arm64", &[("r", Vec::new())]);
        let named = |name: &str, lock: &Lock| (PathBuf::from(name), lock.clone());
        let both = merge(&[named("one", &one), named("two", &two), named("one", &one)]).unwrap();
        assert_eq!(both.platforms.len(), 2);
        assert_eq!(both.digest(&amd64).unwrap().unwrap(), digest);
        let text = format!("# again\n{}", write(&both).unwrap()).replace(" = ", "=");
        assert_eq!(read(&text).unwrap().digest(&amd64).unwrap().unwrap(), digest);

        let mut other = one.clone();
        let section = other.platforms.get_mut("linux/amd64").unwrap();
        let layer = section.layers.get_mut("r").unwrap();
        let pins = layer.pins().unwrap();
        layer.fetches[0].authority = AuthorityClass::Gpg;
        assert_eq!(layer.pins().unwrap(), pins, "who vouches for a body is nothing to a step");
        layer.fetches[0].digest = Digest::of(b"2");
        assert_ne!(layer.pins().unwrap(), pins);
        assert_ne!(other.digest(&amd64).unwrap().unwrap(), digest);
        let error = merge(&[named("one", &one), named("two", &two), named("other", &other)]);
        assert_eq!(error.unwrap_err().to_string(), "`one` and `other` differ for linux/amd64");
        other.base.digest = Digest::of(b"moved");
        let error = merge(&[named("one", &one), named("other", &other)]).unwrap_err();
        assert!(
            error.to_string().starts_with("`one` stands on quay.io/a/b:t at sha256:"),
            "{error}"
        );
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let good = write(&lock("linux/amd64", &[("r", vec![fetch("https://a/x", "1")])])).unwrap();
        let line = |needle: &str| good[..good.find(needle).unwrap()].lines().count() + 1;
        for (from, to, told) in [
            ("lock = 2", "lock = 3", "this lock has version 3; this ocibuild reads 2"),
            ("lock = 2", "lock = 1", "this lock has version 1"),
            ("rules = ", "rulse = ", "`rules` is missing"),
            ("[base]", "[bsae]", "unknown key `bsae`; did you mean `base`?"),
            ("status = 200", "status = 70000", "invalid value: integer `70000`"),
            ("status = 200, ", "", "missing field `status`"),
            ("\"GET\"", "\"PUT\"", "unknown variant `PUT`"),
            ("size = 1", "szie = 1", "unknown field `szie`"),
            ("source-date = 7", "source-date = -7", "a date before 1970"),
            ("linux/amd64", "amd64", "`amd64`"),
        ] {
            let error = read(&good.replace(from, to)).unwrap_err();
            assert!(error.contains(told), "{from} -> {to}: {error}");
        }
        let error = read(&good.replace("status = 200", "status = true")).unwrap_err();
        let place = format!("ml.lock:{}:", line("  { url"));
        assert!(error.contains(&place), "{error}");
        let missing = read("lock = 2\nrules = '1'\n").unwrap_err();
        assert!(missing.contains("`base` is missing"), "{missing}");
    }

    #[test]
    fn a_diff_speaks_of_packages() {
        let deb = |name: &str, body: &str| {
            fetch(&format!("http://m.example/debian/pool/main/r/{name}_amd64.deb"), body)
        };
        let index = "http://m.example/debian/dists/bookworm/InRelease";
        let old = lock(
            "linux/amd64",
            &[
                ("r", vec![deb("r-base-core_4.4.2-1", "a"), deb("same_1", "s"), fetch(index, "1")]),
                ("ide", vec![deb("z_1", "z"), fetch("https://x.example/install.sh", "1")]),
                ("gone", Vec::new()),
            ],
        );
        let new = lock(
            "linux/amd64",
            &[
                (
                    "r",
                    vec![
                        deb("r-base-core_4.5.1-1", "b"),
                        deb("same_1", "s"),
                        deb("new_2", "n"),
                        fetch(index, "2"),
                    ],
                ),
                ("ide", vec![deb("z_1", "other"), fetch("https://x.example/install.sh", "2")]),
            ],
        );
        assert!(diff(&old, &old).is_empty());
        let found = diff(&old, &new);
        assert_eq!((&found.rules, &found.base), (&None, &None));
        let layers = &found.platforms[0].layers;
        let names: Vec<(&str, State)> =
            layers.iter().map(|layer| (layer.name.as_str(), layer.state)).collect();
        assert_eq!(
            names,
            [("gone", State::Removed), ("ide", State::Changed), ("r", State::Changed)]
        );
        let package = |name: &str, old: &[&str], new: &[&str], bytes: &[&str]| {
            let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
            PackageChange {
                ecosystem: Ecosystem::Deb,
                name: name.to_owned(),
                old: owned(old),
                new: owned(new),
                other_bytes: owned(bytes),
            }
        };
        assert_eq!(layers[1].packages, [package("z", &[], &[], &["1"])]);
        assert_eq!(
            layers[2].packages,
            [
                package("new", &[], &["2"], &[]),
                package("r-base-core", &["4.4.2-1"], &["4.5.1-1"], &[]),
            ]
        );
        let changed = |url: &str, index: bool| UrlChange {
            url: url.to_owned(),
            state: State::Changed,
            index,
        };
        assert_eq!(layers[1].urls, [changed("https://x.example/install.sh", false)]);
        assert_eq!(layers[2].urls, [changed(index, true)]);
    }
}
