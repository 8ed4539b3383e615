//! The paths by which two layers differ, each with its cause: a package first, then a rule of
//! normalisation that makes both copies equal, then what the difference looks like.

use std::collections::{BTreeMap, BTreeSet};

use super::cause::{Cause, Found};
use super::explain::{self, Explained};
use super::listing::{Listing, State};
use super::report::{Change, Difference, Explanation, PackageChange};
use super::spool::{FILE_LIMIT, Spool};
use super::{Error, mask, packages};
use crate::layer::EntryKind;
use crate::layer::normalise::{Effect, RULES};

/// What package managers and their triggers write for all packages together.
const OF_ALL_PACKAGES: [&str; 12] = [
    "etc/ld.so.cache",
    "etc/ssl/certs/ca-certificates.crt",
    "usr/share/applications/mimeinfo.cache",
    "usr/share/info/dir",
    "usr/share/mime/",
    "usr/share/glib-2.0/schemas/gschemas.compiled",
    "var/cache/debconf/",
    "var/cache/man/",
    "var/lib/apt/",
    "var/lib/dpkg/",
    "var/lib/systemd/",
    "var/lib/ucf/",
];

/// The most bytes of diffs that a report holds; after that only sentences.
const DIFFS_LIMIT: usize = 24 << 20;

/// A path that differs, before anybody has asked why.
#[derive(Debug)]
pub(super) struct Raw<'l> {
    path: &'l [u8],
    change: Change,
    fields: Vec<&'static str>,
    a: Option<&'l State>,
    b: Option<&'l State>,
}

/// Lists the paths that differ, in order.
pub(super) fn between<'l>(a: &'l Listing, b: &'l Listing) -> Vec<Raw<'l>> {
    let mut found = Vec::new();
    let paths: BTreeSet<&Vec<u8>> = a.entries.keys().chain(b.entries.keys()).collect();
    for path in paths {
        let (old, new) = (a.entries.get(path), b.entries.get(path));
        let (change, fields) = match (old, new) {
            (Some(old), Some(new)) if old == new => continue,
            (Some(old), Some(new)) => (Change::Changed, fields(old, new)),
            (Some(_), None) => (Change::Removed, Vec::new()),
            (None, _) => (Change::Added, Vec::new()),
        };
        found.push(Raw { path, change, fields, a: old, b: new });
    }
    found
}

fn fields(a: &State, b: &State) -> Vec<&'static str> {
    let all = [
        ("type", a.kind != b.kind),
        ("mode", a.mode != b.mode),
        ("owner", (a.uid, a.gid) != (b.uid, b.gid)),
        ("mtime", a.mtime != b.mtime),
        ("link", a.link != b.link),
        ("device", a.device != b.device),
        ("capability", a.capability != b.capability),
        ("content", a.content != b.content),
    ];
    all.into_iter().filter_map(|(name, differs)| differs.then_some(name)).collect()
}

/// Two layers, and what is known of their packages.
pub(super) struct Layers<'l> {
    pub(super) a: &'l Listing,
    pub(super) b: &'l Listing,
    pub(super) packages: &'l [PackageChange],
}

impl Layers<'_> {
    fn package_of(&self, path: &[u8]) -> Option<(&'static str, &str)> {
        self.a.owner(path).or_else(|| self.b.owner(path))
    }

    /// Returns the change of the package that a path belongs to.
    fn input(&self, path: &[u8]) -> Option<&PackageChange> {
        // It may be another package's on each side.
        [self.a.owner(path), self.b.owner(path)].into_iter().flatten().find_map(|(kind, name)| {
            self.packages.iter().find(|change| change.kind == kind && change.name == name)
        })
    }

    /// Tells which files have to be looked into, those of changed packages being explained already.
    pub(super) fn wanted(&self, raws: &[Raw<'_>]) -> BTreeSet<Vec<u8>> {
        let is_file = |state: Option<&State>| state.is_some_and(|s| s.kind == EntryKind::File);
        raws.iter()
            .filter(|raw| raw.fields.contains(&"content") && is_file(raw.a) && is_file(raw.b))
            .filter(|raw| self.input(raw.path).is_none())
            .map(|raw| raw.path.to_vec())
            .collect()
    }

    /// Finds the cause of each difference.
    pub(super) fn explain(
        &self,
        raws: &[Raw<'_>],
        contents: Option<&(Spool, Spool)>,
    ) -> Result<Vec<Difference>, Error> {
        let mut differences = Vec::new();
        let mut diffs = 0;
        for raw in raws {
            let (found, mut content) = self.cause(raw, contents)?;
            if let Some(Explanation { diff, .. }) = &mut content {
                diffs += diff.as_ref().map_or(0, String::len);
                if diffs > DIFFS_LIMIT {
                    *diff = None;
                }
            }
            let package = self.package_of(raw.path).map(|(kind, name)| format!("{kind} {name}"));
            differences.push(difference(raw, package, &found, content));
        }
        of_drawn_names(&mut differences);
        of_folders(&mut differences);
        Ok(differences)
    }

    fn cause(
        &self,
        raw: &Raw<'_>,
        contents: Option<&(Spool, Spool)>,
    ) -> Result<(Found, Option<Explanation>), Error> {
        if let Some(change) = self.input(raw.path) {
            return Ok((Found::sure(Cause::Input, change.to_string()), None));
        }
        if let (Some(a), Some(b)) = (raw.a, raw.b)
            && a.kind == b.kind
        {
            return if raw.fields.contains(&"content") {
                self.cause_of_content(raw, a, b, contents)
            } else {
                Ok((cause_of_metadata(raw, a, b), None))
            };
        }
        // There, or of this type, on one side alone.
        let removes = RULES
            .iter()
            .find(|rule| rule.is_about(raw.path) && rule.effect(b"") == Effect::Removed);
        let is_file = [raw.a, raw.b].into_iter().flatten().all(|s| s.kind == EntryKind::File);
        if let Some(rule) = removes.filter(|_| is_file) {
            return Ok((by_rule(rule.name, rule.about), None));
        }
        Ok((self.of_all_packages(raw.path).unwrap_or_else(|| plain(raw)), None))
    }

    fn of_all_packages(&self, path: &[u8]) -> Option<Found> {
        let is_about = |known: &str| match known.strip_suffix('/') {
            Some(folder) => path.starts_with(folder.as_bytes()),
            None => path.starts_with(known.as_bytes()),
        };
        (!self.packages.is_empty() && OF_ALL_PACKAGES.iter().any(|known| is_about(known)))
            .then(|| Found::guess(Cause::Input, "what is kept of all packages together"))
    }

    fn cause_of_content(
        &self,
        raw: &Raw<'_>,
        a: &State,
        b: &State,
        contents: Option<&(Spool, Spool)>,
    ) -> Result<(Found, Option<Explanation>), Error> {
        let read = match contents {
            Some((mine, theirs)) => (mine.read(raw.path)?, theirs.read(raw.path)?),
            None => (None, None),
        };
        let (Some(old), Some(new)) = read else {
            let summary = if a.size.max(b.size) > FILE_LIMIT {
                format!("{} and {} bytes, too many to look into", a.size, b.size)
            } else {
                format!("{} and {} bytes, not looked into", a.size, b.size)
            };
            let explanation = Explanation { kind: "binary", summary, ..Explanation::default() };
            let found = rule_for(raw.path, b"", b"").unwrap_or_else(|| plain(raw));
            return Ok((found, Some(explanation)));
        };
        let (_, name) = packages::split(raw.path);
        let Explained { explanation, found } =
            explain::explain(&String::from_utf8_lossy(name), &old, &new);
        let found = rule_for(raw.path, &old, &new)
            .or_else(|| found.clone().filter(|found| found.certain))
            .or_else(|| self.of_all_packages(raw.path))
            .or(found);
        Ok((found.unwrap_or_else(|| plain(raw)), Some(explanation)))
    }
}

/// Tells which rule makes both copies equal.
fn rule_for(path: &[u8], old: &[u8], new: &[u8]) -> Option<Found> {
    let rules = RULES.iter().filter(|rule| rule.is_about(path));
    let changed = |effect: Effect, content: &[u8]| match effect {
        Effect::Untouched => content.to_vec(),
        Effect::Removed | Effect::Emptied => Vec::new(),
        Effect::Rewritten(content) => content,
    };
    for rule in rules {
        let effects = (rule.effect(old), rule.effect(new));
        if effects == (Effect::Untouched, Effect::Untouched) {
            continue;
        }
        if changed(effects.0, old) == changed(effects.1, new) {
            return Some(by_rule(rule.name, rule.about));
        }
    }
    None
}

fn by_rule(name: &'static str, about: &'static str) -> Found {
    Found { rule: Some(name), ..Found::sure(Cause::of_rule(name), about) }
}

/// Finds the cause of what differs in no content.
fn cause_of_metadata(raw: &Raw<'_>, a: &State, b: &State) -> Found {
    if raw.fields == ["mtime"] {
        let found = Found {
            rule: Some("times"),
            ..Found::sure(Cause::Time, "times of change, which the source date would replace")
        };
        return found;
    }
    let mut words = Vec::new();
    for field in &raw.fields {
        words.push(match *field {
            "mode" => format!("mode {:04o} -> {:04o}", a.mode, b.mode),
            "owner" => format!("owner {}:{} -> {}:{}", a.uid, a.gid, b.uid, b.gid),
            "mtime" => "mtime".to_owned(),
            "link" => format!(
                "link {} -> {}",
                String::from_utf8_lossy(&a.link),
                String::from_utf8_lossy(&b.link)
            ),
            "device" => {
                format!("device {}:{} -> {}:{}", a.device.0, a.device.1, b.device.0, b.device.1)
            }
            "capability" => format!(
                "capability {} -> {}",
                a.capability.as_deref().unwrap_or("none"),
                b.capability.as_deref().unwrap_or("none")
            ),
            other => other.to_owned(),
        });
    }
    Found::sure(Cause::Metadata, words.join(", "))
}

/// Says no more than what is to be seen.
fn plain(raw: &Raw<'_>) -> Found {
    let text = match raw.change {
        Change::Added => "added",
        Change::Removed => "removed",
        Change::Changed if raw.fields.contains(&"type") => "another type",
        Change::Changed => "another content",
    };
    Found::unexplained(text)
}

fn difference(
    raw: &Raw<'_>,
    package: Option<String>,
    found: &Found,
    content: Option<Explanation>,
) -> Difference {
    Difference {
        path: format!("/{}", String::from_utf8_lossy(raw.path)),
        change: raw.change,
        fields: raw.fields.clone(),
        a: raw.a.map(State::shown),
        b: raw.b.map(State::shown),
        package,
        step: None,
        cause: found.cause,
        text: found.text.clone(),
        certain: found.certain,
        rule: found.rule,
        cure: found.cure(),
        content,
    }
}

fn settle(difference: &mut Difference, found: &Found) {
    difference.cause = found.cause;
    found.text.clone_into(&mut difference.text);
    difference.certain = found.certain;
    difference.rule = found.rule;
    difference.cure = found.cure();
}

/// One path that is gone and one that came, whose names differ by a time or by chance alone, are one
/// file with such a name.
fn of_drawn_names(differences: &mut [Difference]) {
    let mut gone: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let is_open = |d: &Difference, change| d.change == change && d.cause == Cause::Unexplained;
    let folder = |path: &str| path.rsplit_once('/').map(|(folder, _)| folder.to_owned());
    for (at, difference) in differences.iter().enumerate() {
        if is_open(difference, Change::Removed) {
            gone.entry(folder(&difference.path).unwrap_or_default()).or_default().push(at);
        }
    }
    for at in 0..differences.len() {
        if !is_open(&differences[at], Change::Added) {
            continue;
        }
        let new = differences[at].path.clone();
        let others = gone.get(&folder(&new).unwrap_or_default()).cloned().unwrap_or_default();
        for other in others.into_iter().take(100) {
            if !is_open(&differences[other], Change::Removed) {
                continue;
            }
            let (_, old_name) = differences[other].path.rsplit_once('/').unwrap_or_default();
            let (_, new_name) = new.rsplit_once('/').unwrap_or_default();
            if let Some(found) = mask::guess(old_name.as_bytes(), new_name.as_bytes()) {
                let text = "a name that is drawn or dated".to_owned();
                let found = Found { text, ..found };
                settle(&mut differences[at], &found);
                settle(&mut differences[other], &found);
                break;
            }
        }
    }
}

/// A folder that came or went did so with what is in it.
fn of_folders(differences: &mut [Difference]) {
    for at in (0..differences.len()).rev() {
        let is_folder = |d: &Difference| {
            d.a.iter().chain(&d.b).all(|side| side.kind == "folder") && d.change != Change::Changed
        };
        if !is_folder(&differences[at]) || differences[at].cause != Cause::Unexplained {
            continue;
        }
        let prefix = format!("{}/", differences[at].path);
        // Paths in the tar's order may have others between a folder and its content, but not many.
        let inner = differences[at + 1..].iter().take(200).find(|d| d.path.starts_with(&prefix));
        if let Some(inner) = inner.filter(|inner| inner.cause != Cause::Unexplained) {
            let found = Found {
                cause: inner.cause,
                text: inner.text.clone(),
                certain: inner.certain,
                rule: inner.rule,
            };
            settle(&mut differences[at], &found);
        }
    }
}
