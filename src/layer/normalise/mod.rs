//! The rules of identity: what is removed or rewritten in a finished tree so that two builds of the
//! same inputs give the same bytes.

mod times;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::Error;
use crate::changes::Change;

/// Names this table of rules; it is part of every key and every lock.
pub const VERSION: &str = "n1";

/// A rule.
#[derive(Debug)]
pub struct Rule {
    /// What a recipe switches it off by.
    pub name: &'static str,
    /// What it does and why, in a sentence.
    pub about: &'static str,
    /// Which paths it looks at, as globs below the root.
    pub paths: &'static [&'static str],
}

/// The table of rules, in the order in which they apply.
pub static RULES: &[Rule] = &[];

/// The clock of a layer's run, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// When the first step began.
    pub start: i64,
    /// When the last step ended.
    pub end: i64,
    /// What stands for the time of the run.
    pub source_date: i64,
}

/// Applies the rules in place to the changed paths of a merged tree, but for those `without`.
///
/// What changed has to be asked for again afterwards. A second run changes nothing. Returns how
/// many paths each rule touched.
pub fn normalise(
    merged: &Path,
    changes: &[Change],
    _without: &BTreeSet<String>,
    times: &Times,
) -> Result<BTreeMap<&'static str, u64>, Error> {
    Ok(BTreeMap::from([("mtime", times::clamp(merged, changes, times)?)]))
}

/// Refuses a name in `without` that no rule has.
pub fn check_names(without: &BTreeSet<String>) -> Result<(), Error> {
    match without.iter().find(|name| !RULES.iter().any(|rule| rule.name == name.as_str())) {
        Some(name) => Err(Error::NoSuchRule(name.clone())),
        None => Ok(()),
    }
}
