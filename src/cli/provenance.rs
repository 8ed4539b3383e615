//! `ocibuild provenance`: how an image was built.

use std::path::PathBuf;

use ocibuild::ops;

use super::context::Context;
use super::{Outcome, render};

/// Show how an image was built, as SLSA provenance
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ocibuild provenance ghcr.io/rocker-org/ml | jq .predicate.buildDefinition.internalParameters
  ocibuild provenance ghcr.io/rocker-org/ml --unpack ml     what it was built from, as a project
  ocibuild provenance --remote ghcr.io/rocker-org/ml --platform linux/arm64 -o ml.intoto.json

A build writes down what it stands on: base, definition, recipes, lock, what its steps fetched, rules,
mode, and the program's own hash. A push sends it along. Who signed it `verify` tells.")]
pub(crate) struct Args {
    #[command(flatten)]
    image: super::sbom::One,
    /// Write the statement to a file
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Unpack definition, recipes and lock, of an image that was locked, into this new folder
    #[arg(long, value_name = "DIR", conflicts_with = "output")]
    unpack: Option<PathBuf>,
    #[command(flatten)]
    credentials: super::push::Credentials,
}

pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let super::sbom::One { reference, platform, remote } = &args.image;
    if let Some(folder) = &args.unpack {
        let options = ops::SourcesOptions {
            reference: reference.of(*remote, context)?,
            remote: *remote,
            platform: platform.clone(),
            folder: context.absolute(folder),
            access: args.credentials.access(context)?,
        };
        let unpacked = ops::sources(&options, &context.ops())?;
        return render::result(&unpacked, context.json, |unpacked| {
            format!("{}\n", unpacked.folder.display())
        });
    }
    let options = ops::ProvenanceOptions {
        reference: reference.of(*remote, context)?,
        remote: *remote,
        platform: platform.clone(),
        access: args.credentials.access(context)?,
    };
    let statement = ops::provenance(&options, &context.ops())?;
    super::sbom::document(&statement, args.output.as_deref(), context)
}
