//! What two locks differ in, told as a person would: packages with their versions, then the pages
//! that are no packages.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{Ecosystem, Layer, Lock, Section, is_index, package_of};
use crate::netlog::Fetch;
use crate::oci::Digest;

/// What two locks differ in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Diff {
    /// The rules of normalisation, where they differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rules: Option<Change>,
    /// The base, where it differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<Change>,
    /// The platforms that differ.
    pub platforms: Vec<PlatformDiff>,
}

/// What was and what is; `None` is nothing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Change<T = String> {
    /// What was.
    pub old: Option<T>,
    /// What is.
    pub new: Option<T>,
}

/// Whether both locks have something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The new one has it alone.
    Added,
    /// The old one has it alone.
    Removed,
    /// Both have it, and it differs.
    Changed,
}

/// What differs for a platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlatformDiff {
    /// The platform.
    pub platform: String,
    /// Which of the locks have it.
    pub state: State,
    /// The layers that differ.
    pub layers: Vec<LayerDiff>,
}

/// What differs for a layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LayerDiff {
    /// The recipe.
    pub name: String,
    /// Which of the locks have it.
    pub state: State,
    /// Its date in seconds since 1970, where it differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_date: Option<Change<i64>>,
    /// Packages.
    pub packages: Vec<PackageChange>,
    /// What is no package.
    pub urls: Vec<UrlChange>,
}

/// A package that differs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct PackageChange {
    /// Where it comes from.
    pub ecosystem: Ecosystem,
    /// Its name.
    pub name: String,
    /// The versions that only the old lock has.
    pub old: Vec<String>,
    /// The versions that only the new one has.
    pub new: Vec<String>,
    /// Versions that both have, of other bytes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub other_bytes: Vec<String>,
}

/// A page that differs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct UrlChange {
    /// The page.
    pub url: String,
    /// Which of the locks have it.
    pub state: State,
    /// Whether it is an index of packages, which changes all the time.
    pub index: bool,
}

impl Diff {
    /// Tells whether nothing differs.
    pub fn is_empty(&self) -> bool {
        *self == Diff::default()
    }
}

/// Tells what differs between an older lock and a newer one.
pub fn diff(old: &Lock, new: &Lock) -> Diff {
    let base = |lock: &Lock| format!("{}@{}", lock.base.reference, lock.base.digest);
    let names: BTreeSet<&String> = old.platforms.keys().chain(new.platforms.keys()).collect();
    let platforms = names
        .into_iter()
        .filter_map(|name| platform(name, old.platforms.get(name), new.platforms.get(name)))
        .collect();
    Diff {
        rules: change(Some(old.rules.clone()), Some(new.rules.clone())),
        base: change(Some(base(old)), Some(base(new))),
        platforms,
    }
}

fn change<T: PartialEq>(old: Option<T>, new: Option<T>) -> Option<Change<T>> {
    (old != new).then_some(Change { old, new })
}

fn state<T>(old: Option<&T>, new: Option<&T>) -> State {
    match (old, new) {
        (None, _) => State::Added,
        (_, None) => State::Removed,
        _ => State::Changed,
    }
}

fn platform(name: &str, old: Option<&Section>, new: Option<&Section>) -> Option<PlatformDiff> {
    if old == new {
        return None;
    }
    let of = |section: Option<&Section>| section.map(|section| section.layers.clone());
    let (before, after) = (of(old).unwrap_or_default(), of(new).unwrap_or_default());
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let layers =
        names.into_iter().filter_map(|name| layer(name, before.get(name), after.get(name)));
    Some(PlatformDiff {
        platform: name.to_owned(),
        state: state(old, new),
        layers: layers.collect(),
    })
}

fn layer(name: &str, old: Option<&Layer>, new: Option<&Layer>) -> Option<LayerDiff> {
    if old == new {
        return None;
    }
    let date = |layer: Option<&Layer>| layer.map(|layer| layer.source_date);
    let fetches =
        |layer: Option<&Layer>| layer.map_or_else(Vec::new, |layer| layer.fetches.clone());
    let (packages, urls) = changes(&fetches(old), &fetches(new));
    Some(LayerDiff {
        name: name.to_owned(),
        state: state(old, new),
        source_date: change(date(old), date(new)),
        packages,
        urls,
    })
}

/// The versions of each package with their bytes, and the other pages with theirs.
#[derive(Default)]
struct Found {
    packages: BTreeMap<(Ecosystem, String), BTreeMap<String, BTreeSet<Digest>>>,
    urls: BTreeMap<String, Vec<(u16, Digest)>>,
}

impl Found {
    fn of(fetches: &[Fetch]) -> Found {
        let mut found = Found::default();
        for fetch in fetches {
            let got = (200..300).contains(&fetch.status);
            if let Some(package) = package_of(&fetch.url).filter(|_| got) {
                let key = (package.ecosystem, package.name);
                let versions = found.packages.entry(key).or_default();
                versions.entry(package.version).or_default().insert(fetch.digest);
            } else {
                let answers = found.urls.entry(fetch.url.clone()).or_default();
                answers.push((fetch.status, fetch.digest));
            }
        }
        found
    }
}

fn changes(old: &[Fetch], new: &[Fetch]) -> (Vec<PackageChange>, Vec<UrlChange>) {
    let (old, new) = (Found::of(old), Found::of(new));
    let keys: BTreeSet<_> = old.packages.keys().chain(new.packages.keys()).collect();
    let none = BTreeMap::new();
    let mut packages = Vec::new();
    for key in keys {
        let before = old.packages.get(key).unwrap_or(&none);
        let after = new.packages.get(key).unwrap_or(&none);
        if before == after {
            continue;
        }
        let only = |these: &BTreeMap<String, BTreeSet<Digest>>, those: &BTreeMap<String, _>| {
            these.keys().filter(|version| !those.contains_key(*version)).cloned().collect()
        };
        let other_bytes = before
            .iter()
            .filter(|(version, bytes)| after.get(*version).is_some_and(|new| new != *bytes))
            .map(|(version, _)| version.clone())
            .collect();
        packages.push(PackageChange {
            ecosystem: key.0,
            name: key.1.clone(),
            old: only(before, after),
            new: only(after, before),
            other_bytes,
        });
    }
    let names: BTreeSet<&String> = old.urls.keys().chain(new.urls.keys()).collect();
    let urls = names
        .into_iter()
        .filter(|url| old.urls.get(*url) != new.urls.get(*url))
        .map(|url| UrlChange {
            url: url.clone(),
            state: state(old.urls.get(url), new.urls.get(url)),
            index: is_index(url),
        })
        .collect();
    (packages, urls)
}
