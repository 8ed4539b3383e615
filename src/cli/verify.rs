//! `ocibuild verify`: whether the store holds what it says.

use std::process::ExitCode;

use ocibuild::fault::Kind;
use ocibuild::ops;

use super::context::Context;
use super::{Outcome, render};

/// Verify that every blob of the store is what its name says, and every image is whole
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ocibuild verify
  ocibuild verify --json --store /srv/images

Exits with 1 when something is wrong. A damaged layer is pulled or built again once its file is
removed.")]
pub(crate) struct Args {}

pub(crate) fn run(_: &Args, context: &Context) -> Outcome {
    let report = ops::verify(&context.ops())?;
    render::result(&report, context.json, |report| {
        if report.ok {
            return "every blob is whole\n".to_owned();
        }
        report.problems.iter().map(|damage| format!("{}\n", damage.problem)).collect()
    })?;
    Ok(ExitCode::from(if report.ok { 0 } else { Kind::Failed.exit_code() }))
}
