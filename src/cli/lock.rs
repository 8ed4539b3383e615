//! `ocibuild lock`: what a definition's steps were given by the network, as a file.

use std::path::PathBuf;
use std::process::ExitCode;

use ocibuild::fault::Kind;
use ocibuild::lock::{Change, Diff, LayerDiff, PackageChange, PlatformDiff, State};
use ocibuild::oci::Platform;
use ocibuild::{ops, plan};

use super::context::Context;
use super::{Outcome, render, terminal};

/// Write down what steps get from the network, to build from it
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(after_help = "\
Examples:
  ocibuild lock ml                                   build once, and write manifests/ml.lock
  ocibuild lock ml --update r,bspm                   renew these layers, keep the others
  ocibuild lock ml --platform linux/arm64            on a native runner, for `lock merge`
  ocibuild lock ml --check                           what is new upstream; builds nothing
  ocibuild lock diff old.lock manifests/ml.lock      in packages and versions

From then on `build` gives its steps what the lock lists, whatever the network says, and ends a step
that asks for anything else.")]
pub(crate) struct Args {
    /// The definition: a name in manifests/, or the path of a file
    #[arg(required = true, value_name = "NAME")]
    name: Option<String>,
    /// Renew these layers only, their dates included
    #[arg(long, value_name = "LAYER", value_delimiter = ',')]
    update: Vec<String>,
    /// Ask upstream what has changed since, and write nothing; exits with 1 when something has
    #[arg(long, conflicts_with = "update")]
    check: bool,
    /// Lock this platform only; the lock goes on saying the same of the others. May be repeated
    #[arg(long, value_name = "OS/ARCH")]
    platform: Vec<Platform>,
    #[command(flatten)]
    credentials: super::push::Credentials,
    #[command(subcommand)]
    command: Option<Command>,
}

impl Args {
    /// Tells whether something is built.
    pub(crate) fn builds(&self) -> bool {
        self.command.is_none() && !self.check
    }
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Diff(DiffArgs),
    Merge(MergeArgs),
}

/// Tell two locks apart in packages and versions
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ocibuild lock diff old.lock manifests/ml.lock
  ocibuild lock diff old.lock manifests/ml.lock --json

Exits with 1 when they differ.")]
struct DiffArgs {
    /// The older lock
    #[arg(value_name = "OLD")]
    old: PathBuf,
    /// The newer one
    #[arg(value_name = "NEW")]
    new: PathBuf,
}

/// Put locks of one definition, each for platforms of its own, into one
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ocibuild lock merge amd64.lock arm64.lock -o manifests/ml.lock

They must stand on one base and may not say different things of one platform.")]
struct MergeArgs {
    /// Locks, as native runners wrote them
    #[arg(required = true, value_name = "LOCK")]
    locks: Vec<PathBuf>,
    /// Where the merged lock goes
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    match &args.command {
        None if args.check => check(args, context),
        None => lock(args, context),
        Some(Command::Diff(args)) => diff(args, context),
        Some(Command::Merge(args)) => merge(args, context),
    }
}

fn lock(args: &Args, context: &Context) -> Outcome {
    let options = ops::LockOptions {
        name: args.name.clone().unwrap_or_default(),
        folder: context.folder.clone(),
        platforms: args.platform.clone(),
        update: args.update.clone(),
        access: args.credentials.access(context)?,
    };
    let locked = ops::lock(&options, &context.ops())?;
    render::result(&locked, context.json, |locked| {
        let mut text = format!("{}\n", locked.file.display());
        for platform in &locked.platforms {
            text.push_str(&format!(
                "{}: {} answers, {} bodies of {}, {}\n",
                platform.platform,
                platform.fetches,
                platform.bodies,
                terminal::bytes(platform.bytes),
                platform.digest
            ));
        }
        if let Some(changes) = &locked.changes {
            text.push_str(&describe(changes));
        }
        text
    })
}

fn check(args: &Args, context: &Context) -> Outcome {
    let options = ops::NewsOptions {
        name: args.name.clone().unwrap_or_default(),
        folder: context.folder.clone(),
        platforms: args.platform.clone(),
        access: args.credentials.access(context)?,
    };
    let report = ops::lock_news(&options, &context.ops())?;
    for doubt in report.doubts() {
        context.warning(&doubt);
    }
    render::result(&report, context.json, |report| {
        if report.has_news() {
            report.platforms.iter().map(describe_platform).collect()
        } else {
            format!("{} pages say what the lock says\n", report.asked)
        }
    })?;
    Ok(ExitCode::from(if report.has_news() { Kind::Failed.exit_code() } else { 0 }))
}

fn diff(args: &DiffArgs, context: &Context) -> Outcome {
    let found = ops::lock_diff(&context.absolute(&args.old), &context.absolute(&args.new))?;
    render::result(&found, context.json, describe)?;
    Ok(ExitCode::from(if found.is_empty() { 0 } else { Kind::Failed.exit_code() }))
}

fn merge(args: &MergeArgs, context: &Context) -> Outcome {
    let paths: Vec<PathBuf> = args.locks.iter().map(|path| context.absolute(path)).collect();
    let merged = ops::lock_merge(&paths, &context.absolute(&args.output))?;
    render::result(&merged, context.json, |merged| {
        format!("{}: {}\n", args.output.display(), merged.platforms.join(", "))
    })
}

/// A diff as a person reads it: packages first, then the pages that are none.
fn describe(diff: &Diff) -> String {
    if diff.is_empty() {
        return "the locks say the same\n".to_owned();
    }
    let mut text = String::new();
    for (what, change) in [("rules", &diff.rules), ("base", &diff.base)] {
        if let Some(change) = change {
            text.push_str(&format!("{what}  {}\n", arrow(change, String::clone)));
        }
    }
    text.extend(diff.platforms.iter().map(describe_platform));
    text
}

fn describe_platform(platform: &PlatformDiff) -> String {
    let mut text = format!("{}{}\n", platform.platform, word(platform.state));
    text.extend(platform.layers.iter().map(describe_layer));
    text
}

fn describe_layer(layer: &LayerDiff) -> String {
    let mut text = format!("  {}{}\n", layer.name, word(layer.state));
    if let Some(change) = &layer.source_date {
        text.push_str(&format!(
            "    source date  {}\n",
            arrow(change, |date| plan::rfc3339(*date))
        ));
    }
    let rows: Vec<Vec<String>> = layer.packages.iter().map(row).collect();
    text.push_str(&render::table(&rows));
    let mut indexes = 0;
    for change in &layer.urls {
        if change.index {
            indexes += 1;
        } else {
            text.push_str(&format!("    {}{}\n", change.url, word(change.state)));
        }
    }
    if indexes > 0 {
        let pages = if indexes == 1 { "page of an index" } else { "pages of indexes" };
        text.push_str(&format!("    {indexes} {pages}\n"));
    }
    text
}

fn row(change: &PackageChange) -> Vec<String> {
    let mut told = Vec::new();
    match (change.old.join(", "), change.new.join(", ")) {
        (old, new) if old.is_empty() && new.is_empty() => {}
        (old, new) if old.is_empty() => told.push(format!("+ {new}")),
        (old, new) if new.is_empty() => told.push(format!("- {old}")),
        (old, new) => told.push(format!("{old} -> {new}")),
    }
    if !change.other_bytes.is_empty() {
        told.push(format!("{}: other bytes", change.other_bytes.join(", ")));
    }
    vec![format!("    {}", change.ecosystem), change.name.clone(), told.join("; ")]
}

fn arrow<T>(change: &Change<T>, shown: impl Fn(&T) -> String) -> String {
    let side = |value: &Option<T>| value.as_ref().map_or_else(|| "none".to_owned(), &shown);
    format!("{} -> {}", side(&change.old), side(&change.new))
}

fn word(state: State) -> &'static str {
    match state {
        State::Added => ": added",
        State::Removed => ": removed",
        State::Changed => "",
    }
}
