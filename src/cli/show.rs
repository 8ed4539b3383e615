//! `ocibuild show`: what an image is made of.

use ocibuild::oci::Platform;
use ocibuild::ops;

use super::context::Context;
use super::typed::Typed;
use super::{Outcome, render, terminal};

/// Show an image of the store or of a registry
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ocibuild show ghcr.io/rocker-org/ml
  ocibuild show --remote quay.io/jupyter/minimal-notebook:ubuntu-24.04 --platform linux/arm64
  ocibuild show ghcr.io/rocker-org/ml --json | jq '.platforms[].layers'")]
pub(crate) struct Args {
    /// The image
    #[arg(value_name = "REF")]
    reference: Typed,
    /// Ask the registry even if the store has an image of that name
    #[arg(long)]
    remote: bool,
    /// Show this platform only
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    #[command(flatten)]
    credentials: super::push::Credentials,
}

pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let options = ops::ShowOptions {
        reference: args.reference.of(args.remote, context)?,
        remote: args.remote,
        platform: args.platform.clone(),
        access: args.credentials.access(context)?,
    };
    let shown = ops::show(&options, &context.ops())?;
    render::result(&shown, context.json, describe)
}

fn describe(image: &ops::ImageReport) -> String {
    let mut text = format!("{}\n{}  {}\n", image.reference, image.digest, image.media_type);
    for platform in &image.platforms {
        text.push_str(&format!(
            "\n{}  {}\n  config {}, created {}, {} compressed\n",
            platform.platform,
            platform.manifest,
            platform.config,
            platform.created.as_deref().unwrap_or("at no stated time"),
            terminal::bytes(platform.size)
        ));
        let mut rows = Vec::new();
        for layer in &platform.layers {
            rows.push(vec![
                format!("  {:>8}", terminal::bytes(layer.size)),
                layer.digest.short(),
                layer.diff_id.map_or_else(String::new, |id| format!("diff {}", id.short())),
                layer.made_by.chars().take(80).collect(),
            ]);
        }
        text.push_str(&render::table(&rows));
        for (name, value) in &platform.parameters {
            text.push_str(&format!("  {name}: {value}\n"));
        }
    }
    text
}
