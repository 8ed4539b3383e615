//! `ocibuild gc`: frees what no image and no recent layer needs.

use ocibuild::ops;

use super::context::Context;
use super::{Outcome, render, terminal};

/// Free what no image and no recent layer needs
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ocibuild gc                       keep images, and 20 GB of cached and unpacked layers
  ocibuild gc --keep 0              keep images only, with what their steps fetched
  ocibuild gc --keep 0 --no-inputs  and not even that
  ocibuild gc --disk 30G            keep images, and layers as long as all takes no more
  ocibuild gc --dry-run --json      tell what would go")]
pub(crate) struct Args {
    /// How much of cached and unpacked layers to keep, the least recently used go first [default:
    /// what --disk leaves, else 20G]
    #[arg(long, value_name = "SIZE", value_parser = super::size::parse)]
    keep: Option<u64>,
    /// Free what steps fetched, too: images can't be made again offline then
    #[arg(long)]
    no_inputs: bool,
    /// Tell what would be freed, and free nothing
    #[arg(long)]
    dry_run: bool,
}

pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let options =
        ops::GcOptions { keep: args.keep, no_inputs: args.no_inputs, dry_run: args.dry_run };
    let report = ops::gc(&options, &context.ops())?;
    render::result(&report, context.json, |report| {
        let inputs = match report.inputs {
            0 => String::new(),
            count => {
                format!("; {count} inputs take {}", terminal::bytes(report.inputs_bytes))
            }
        };
        format!(
            "{} {} in {} blobs and {} trees, kept {}{inputs}\n",
            if report.dry_run { "would free" } else { "freed" },
            terminal::bytes(report.freed_bytes),
            report.blobs,
            report.trees,
            terminal::bytes(report.kept_bytes)
        )
    })
}
