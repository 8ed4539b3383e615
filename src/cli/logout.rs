//! `ocibuild logout`: the credential of a registry forgotten.

use ocibuild::ops;

use super::context::Context;
use super::{Outcome, render};

/// Forget the credential of a registry, in every file and helper where it is looked for
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ocibuild logout ghcr.io")]
pub(crate) struct Args {
    /// The registry, as ghcr.io, docker.io or localhost:5000
    #[arg(value_name = "REGISTRY")]
    registry: String,
}

pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let logout = ops::logout(&args.registry, &context.ops())?;
    if let Some(place) = &logout.still_in {
        context.warning(&format!("a credential of {} is still in {place}", logout.registry));
    }
    render::result(&logout, context.json, |logout| match logout.removed_from.as_slice() {
        [] => format!("there was no login to {}\n", logout.registry),
        places => {
            format!("logged out of {}: removed from {}\n", logout.registry, places.join(", "))
        }
    })
}
