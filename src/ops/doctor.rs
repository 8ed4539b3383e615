//! `doctor` and `rules`: what this machine can do, and what is normalised in every layer.

use serde::Serialize;

use crate::layer::normalise;
use crate::sandbox::{self, State};

use super::{Context, Error};

/// What was found out about the machine.
#[derive(Clone, Debug, Serialize)]
pub struct DoctorReport {
    /// Whether a build can run here.
    pub can_build: bool,
    /// One entry a thing that was looked at.
    pub findings: Vec<Finding>,
}

/// What was found out about one thing.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// The thing.
    pub what: String,
    /// Whether it works.
    pub ok: bool,
    /// Whether no build is possible without it.
    pub needed: bool,
    /// What was seen.
    pub detail: String,
    /// What to do about it.
    pub fix: Option<String>,
}

/// The rules of normalisation.
#[derive(Clone, Debug, Serialize)]
pub struct RulesReport {
    /// The table's version; it is part of every layer's key.
    pub version: String,
    /// The rules, in the order in which they apply.
    pub rules: Vec<RuleReport>,
}

/// One rule.
#[derive(Clone, Debug, Serialize)]
pub struct RuleReport {
    /// What a recipe switches it off by.
    pub name: String,
    /// What it does and why.
    pub about: String,
    /// The paths that it looks at, as globs below the root.
    pub paths: Vec<String>,
}

/// Looks at the machine, changing nothing.
pub fn doctor(context: &Context<'_>) -> Result<DoctorReport, Error> {
    let mut findings: Vec<Finding> = sandbox::examine()
        .into_iter()
        .map(|found| Finding {
            what: found.subject.to_owned(),
            ok: found.state == State::Works,
            needed: found.state == State::Broken,
            detail: found.detail,
            fix: found.fix,
        })
        .collect();
    findings.push(store_finding(context));
    let can_build = findings.iter().all(|finding| finding.ok || !finding.needed);
    Ok(DoctorReport { can_build, findings })
}

fn store_finding(context: &Context<'_>) -> Finding {
    let what = "store".to_owned();
    match context.open() {
        Ok(store) => Finding {
            what,
            ok: true,
            needed: true,
            detail: format!("{} can be written", store.root().display()),
            fix: None,
        },
        Err(error) => Finding {
            what,
            ok: false,
            needed: true,
            detail: error.to_string(),
            fix: Some("choose a folder that you can write with --store DIR".to_owned()),
        },
    }
}

/// Returns the table of rules.
pub fn rules() -> RulesReport {
    RulesReport {
        version: normalise::VERSION.to_owned(),
        rules: normalise::RULES
            .iter()
            .map(|rule| RuleReport {
                name: rule.name.to_owned(),
                about: rule.about.to_owned(),
                paths: rule.paths.iter().map(|path| (*path).to_owned()).collect(),
            })
            .collect(),
    }
}
