//! `ocibuild remove`: names out of the store.

use ocibuild::ops;

use super::context::Context;
use super::typed::Typed;
use super::{Outcome, render};

/// Remove images from the store; `gc` then frees what nothing else needs
#[derive(Debug, clap::Args)]
#[command(
    visible_alias = "rm",
    after_help = "\
Examples:
  ocibuild remove ghcr.io/rocker-org/ml
  ocibuild remove ghcr.io/rocker-org/ml && ocibuild gc"
)]
pub(crate) struct Args {
    /// The images
    #[arg(required = true, value_name = "REF")]
    references: Vec<Typed>,
}

pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let references = Typed::all_in_store(&args.references, context)?;
    let removed = ops::remove(&references, &context.ops())?;
    render::result(&removed, context.json, |removed| {
        removed.iter().map(|reference| format!("{reference}\n")).collect()
    })
}
