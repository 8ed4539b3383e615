//! `doctor` and `rules`: what this machine can do, and what is normalised in every layer.

use serde::Serialize;

use crate::build;
use crate::layer::normalise;
use crate::rootfs::{self, Space, Why};
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
    // Inside of the namespace the trees can be tried for real.
    if let Some(mode) = context.mode {
        findings.push(Finding {
            what: "mode".to_owned(),
            ok: true,
            needed: true,
            detail: format!("builds run as `{}`", mode.flavour()),
            fix: None,
        });
        findings.extend(tree_findings(context));
        findings.extend(architectures(context));
    }
    let can_build = findings.iter().all(|finding| finding.ok || !finding.needed);
    Ok(DoctorReport { can_build, findings })
}

/// Tells for which architectures steps can run, and by what.
fn architectures(context: &Context<'_>) -> Vec<Finding> {
    let path = context.env.get("PATH").map_or("", String::as_str);
    let finding = |emulation: sandbox::Emulation| {
        let (ok, detail, fix) = match emulation.means {
            Ok(means) => (true, format!("steps run by {means}"), None),
            Err(lack) => (false, format!("steps can't run: {lack}"), Some(lack.fix())),
        };
        Finding { what: emulation.platform.to_string(), ok, needed: false, detail, fix }
    };
    sandbox::emulations(path).into_iter().map(finding).collect()
}

/// Tries the places for a build's trees.
fn tree_findings(context: &Context<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let Ok(store) = context.open() else { return findings };
    let Ok(run) = store.begin_run(context.report.as_ref()) else { return findings };
    let tried = |what: &str, place: String, result: Result<(), Why>| match result {
        Ok(()) => Finding {
            what: what.to_owned(),
            ok: true,
            needed: false,
            detail: format!("overlay works {place}"),
            fix: None,
        },
        Err(why) => Finding {
            what: what.to_owned(),
            ok: false,
            needed: false,
            detail: format!("overlay does not work {place}, so trees there are copied: {why}"),
            fix: Some(why.hint().to_owned()),
        },
    };
    let available = rootfs::available_memory().unwrap_or(0);
    let memory = Space::memory(&run.path().join("memory"), 64 << 20);
    let in_memory = match &memory {
        Ok(space) => tried(
            "trees in memory",
            format!("in memory, {} MB of which are available", available / 1_000_000),
            rootfs::probe_overlay(space.path(), run.path()),
        ),
        Err(error) => Finding {
            what: "trees in memory".to_owned(),
            ok: false,
            needed: false,
            detail: error.to_string(),
            fix: Some("nothing has to be done: trees go to disk".to_owned()),
        },
    };
    findings.push(in_memory);
    drop(memory);
    let disk = &build::place_of_trees(run.path(), context.scratch);
    findings.push(tried(
        "trees on disk",
        format!("in {}", disk.display()),
        rootfs::probe_overlay(disk, run.path()),
    ));
    let copies = if rootfs::probe_reflink(run.path(), disk) {
        "share their blocks with the store"
    } else {
        "take as much room again"
    };
    findings.push(Finding {
        what: "copied trees".to_owned(),
        ok: true,
        needed: false,
        detail: format!("work everywhere; copies of layers in {} {copies}", disk.display()),
        fix: None,
    });
    findings.push(owners(run.path()));
    findings.push(room(disk));
    findings
}

/// Tells whether files of other ids can lie in the store.
fn owners(dir: &std::path::Path) -> Finding {
    let (ok, detail, fix) = match rootfs::probe_owners(dir) {
        Ok(()) => (true, "the store takes files of other ids".to_owned(), None),
        Err(why) => (
            false,
            format!(
                "the store takes no files of other ids, so their owners are kept beside them: {why}"
            ),
            Some("for more speed, put the store on a local disk with --store DIR".to_owned()),
        ),
    };
    Finding { what: "owners".to_owned(), ok, needed: false, detail, fix }
}

/// Tells how much space there is for trees.
fn room(dir: &std::path::Path) -> Finding {
    const LITTLE: u64 = 5_000_000_000;
    let free = rustix::fs::statvfs(dir).map_or(0, |stat| stat.f_bavail * stat.f_frsize);
    let fix = "free some space (`ocibuild gc`), or choose another disk with --scratch DIR";
    Finding {
        what: "disk".to_owned(),
        ok: free >= LITTLE,
        needed: false,
        detail: format!("{} MB are free in {}", free / 1_000_000, dir.display()),
        fix: (free < LITTLE).then(|| fix.to_owned()),
    }
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
