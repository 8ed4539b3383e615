//! `ocibuild list`: the images of the store.

use ocibuild::ops;

use super::context::Context;
use super::{Outcome, render, terminal};

/// List the images of the store
#[derive(Debug, clap::Args)]
#[command(
    visible_alias = "ls",
    after_help = "\
Examples:
  ocibuild list
  ocibuild list --json | jq -r '.[].reference'"
)]
pub(crate) struct Args {}

pub(crate) fn run(_: &Args, context: &Context) -> Outcome {
    let images = ops::list(&context.ops())?;
    render::result(&images, context.json, |images| {
        let rows: Vec<Vec<String>> = images
            .iter()
            .map(|image| {
                vec![
                    image.reference.to_string(),
                    image.digest.short(),
                    terminal::bytes(image.size),
                    image.platforms.join(", "),
                ]
            })
            .collect();
        render::table(&rows)
    })
}
