//! `ocibuild pull`: an image of a registry into the store.

use ocibuild::oci::Platform;
use ocibuild::ops;

use super::context::Context;
use super::typed::Typed;
use super::{Outcome, render};

/// Pull an image into the store
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ocibuild pull quay.io/jupyter/minimal-notebook:ubuntu-24.04
  ocibuild pull ghcr.io/rocker-org/ml --platform linux/arm64
  ocibuild pull ghcr.io/rocker-org/cuda --unpack    its layers as trees, as builds want them")]
pub(crate) struct Args {
    /// The image
    #[arg(value_name = "REF")]
    reference: Typed,
    /// Pull this platform only; may be repeated [default: all]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Vec<Platform>,
    /// Unpack the layers on the way, for this machine's platform unless one is named, and keep no
    /// blobs: what wants them (a push elsewhere, an export) fetches them again
    #[arg(long)]
    pub(crate) unpack: bool,
    /// Bring what the image's steps were given by the network, too, as `push --inputs` has sent it
    #[arg(long)]
    inputs: bool,
    /// How many blobs travel at once
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: u16,
    #[command(flatten)]
    credentials: super::push::Credentials,
}

pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let options = ops::PullOptions {
        reference: args.reference.in_registry(context)?,
        platforms: args.platform.clone(),
        unpack: args.unpack,
        inputs: args.inputs,
        jobs: usize::from(args.jobs),
        access: args.credentials.access(context)?,
    };
    let pulled = ops::pull(&options, &context.ops())?;
    render::result(&pulled, context.json, |pulled| format!("{}\n", pulled.digest))
}
