//! `ocibuild rules`: what is normalised in every layer, and why.

use ocibuild::ops;

use super::context::Context;
use super::{Outcome, render};

/// Print the rules that make layers reproducible
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ocibuild rules
  ocibuild rules --json

A recipe switches rules off by name: without-rules = [\"pyc-times\"]")]
pub(crate) struct Args {}

pub(crate) fn run(_: &Args, context: &Context) -> Outcome {
    let rules = ops::rules();
    render::result(&rules, context.json, |rules| {
        let mut text = format!("version {}\n", rules.version);
        let rows: Vec<Vec<String>> =
            rules.rules.iter().map(|rule| vec![rule.name.clone(), rule.about.clone()]).collect();
        text.push_str(&render::table(&rows));
        text
    })
}
