//! `ocibuild doctor`: what this machine can do, and the fix for what it can't.

use std::process::ExitCode;

use ocibuild::fault::Kind;
use ocibuild::ops;

use super::context::Context;
use super::{Outcome, render};

/// Tell what works on this machine, and how to mend what doesn't
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ocibuild doctor
  ocibuild doctor --json

Exits with 3 when builds cannot run here.")]
pub(crate) struct Args {}

pub(crate) fn run(_: &Args, context: &Context) -> Outcome {
    let report = ops::doctor(&context.ops())?;
    render::result(&report, context.json, |report| {
        let mut text = String::new();
        for finding in &report.findings {
            let mark = if finding.ok {
                "ok  "
            } else if finding.needed {
                "FAIL"
            } else {
                "no  "
            };
            text.push_str(&format!("{mark} {}: {}\n", finding.what, finding.detail));
            if let Some(fix) = &finding.fix {
                // A file to write takes several lines.
                let fix = fix.replace('\n', "\n          ");
                text.push_str(&format!("     fix: {fix}\n"));
            }
        }
        text
    })?;
    Ok(ExitCode::from(if report.can_build { 0 } else { Kind::Environment.exit_code() }))
}
