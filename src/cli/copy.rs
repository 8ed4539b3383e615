//! `ocibuild copy`: an image from registry to registry.

use ocibuild::oci::Reference;
use ocibuild::ops;

use super::context::Context;
use super::typed::Typed;
use super::{Outcome, render};

/// Copy an image from registry to registry
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ocibuild copy quay.io/jupyter/base-notebook:latest ghcr.io/me/base-notebook:latest
  ocibuild copy ghcr.io/me/ml:1 docker.io/me/ml:1 --tag latest --referrers
  ocibuild copy ghcr.io/me/ml@sha256:… localhost:5000/ml@sha256:…    by digest: no tag moves

All platforms are copied, byte for byte, and nothing is written to disk. What the destination has is
not sent, and what it has in another repository it is asked to mount.")]
pub(crate) struct Args {
    /// The image, by tag or digest
    #[arg(value_name = "SRC")]
    source: Typed,
    /// Its new name
    #[arg(value_name = "DST")]
    destination: Reference,
    /// Take along what refers to the image: signatures, SBOMs, attestations
    #[arg(long)]
    referrers: bool,
    /// A further tag to move; may be repeated
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// How many blobs travel at once
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: u16,
    /// Write the digest to a file
    #[arg(long, value_name = "FILE")]
    digest_file: Option<std::path::PathBuf>,
    #[command(flatten)]
    credentials: super::push::Credentials,
}

pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let options = ops::CopyOptions {
        source: args.source.in_registry(context)?,
        destination: args.destination.clone(),
        tags: args.tag.clone(),
        referrers: args.referrers,
        jobs: usize::from(args.jobs),
        access: args.credentials.access(context)?,
    };
    let copied = ops::copy(&options, &context.ops())?;
    context.write_digests(args.digest_file.as_deref(), std::iter::once(copied.digest))?;
    render::result(&copied, context.json, |copied| {
        let name = &copied.destination;
        if name.digest().is_some() {
            format!("{name}\n")
        } else {
            format!("{name}@{}\n", copied.digest)
        }
    })
}
