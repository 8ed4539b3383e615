//! `ocibuild build`: recipes in, an image in the store out, and pushed if asked.

use std::process::ExitCode;

use ocibuild::oci::Platform;
use ocibuild::ops;

use super::branch::Held;
use super::context::Context;
use super::{Outcome, render, terminal};

/// Build images from their definitions
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ocibuild build ml                              every platform of manifests/ml.toml
  ocibuild build cuda --push                     build, then push to where the definition says
  ocibuild build ml --locked                     in CI: from the lock, or not at all
  ocibuild build mine --shell                    look around where a step fails
  ocibuild build mine --network host             steps that need more than HTTP, DNS and their ports
  ocibuild build ml --platform linux/arm64       one platform, as native runners do before `index`
  ocibuild build cuda --push --disk 14G          within 14 GB, or refused before anything is fetched
  ocibuild build mine/manifests/mine.toml --dry-run --json")]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own")]
pub(crate) struct Args {
    /// Definitions: a name in manifests/, or the path of a file
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Build this platform only; may be repeated
    #[arg(long, value_name = "OS/ARCH")]
    platform: Vec<Platform>,
    /// Print what would be done, and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Push the image to the definition's destinations when it is built
    #[arg(long, conflicts_with = "dry_run")]
    push: bool,
    /// Move tags only from this branch, as `push` does
    #[arg(long, value_name = "BRANCH", requires = "push")]
    require_branch: Option<String>,
    /// When to ask the registry for the base: only when it is not in the store, or every time
    #[arg(long, value_name = "WHEN", default_value = "missing")]
    pull: Pull,
    /// Run every step, whatever the cache holds
    #[arg(long)]
    no_cache: bool,
    /// Make this layer anew, whatever the cache holds; may be repeated
    #[arg(long, value_name = "LAYER")]
    refresh: Vec<String>,
    /// Whether owners that steps give to files are kept. Discarded, everything belongs to root: for
    /// kernels that let nobody keep them, with `--mode single`; the image has another digest then
    #[arg(long, value_name = "WHAT", default_value = "keep")]
    ownership: Ownership,
    /// How steps reach the network: through the recorder, which keeps what they fetch, or as the
    /// machine does
    #[arg(long, value_name = "HOW", default_value = "recorded")]
    network: Network,
    /// Refuse to go without a lock, or with one that does not fit the definition any more
    #[arg(long)]
    locked: bool,
    /// Leave the image's name where it is: the result is in the store by its digest alone
    #[arg(long, conflicts_with_all = ["push", "dry_run"])]
    unnamed: bool,
    /// Never ask the network: the base, and with a lock what steps fetch, must be in the store
    #[arg(long, conflicts_with_all = ["push"])]
    offline: bool,
    /// Open a shell in the tree of a step that fails
    #[arg(long, conflicts_with = "dry_run")]
    shell: bool,
    /// Write down in a file which step wrote what, for `audit --twice`
    #[arg(long, value_name = "FILE", hide = true, conflicts_with = "dry_run")]
    written: Option<std::path::PathBuf>,
    /// Write the digests, one a line, to a file
    #[arg(long, value_name = "FILE")]
    digest_file: Option<std::path::PathBuf>,
    #[command(flatten)]
    credentials: super::push::Credentials,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Ownership {
    Keep,
    Discard,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Network {
    Recorded,
    Host,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Pull {
    Missing,
    Always,
}

pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let options = ops::BuildOptions {
        names: args.names.clone(),
        folder: context.folder.clone(),
        platforms: args.platform.clone(),
        always_pull: matches!(args.pull, Pull::Always),
        no_cache: args.no_cache,
        refresh: args.refresh.clone(),
        ownership: match args.ownership {
            Ownership::Keep => ocibuild::plan::Ownership::Kept,
            Ownership::Discard => ocibuild::plan::Ownership::Discarded,
        },
        network: match args.network {
            Network::Recorded => ops::Network::Recorded,
            Network::Host => ops::Network::Host,
        },
        send: args.push,
        shell: if args.shell { Some(super::shell::terminal()?.into()) } else { None },
        locked: args.locked,
        unnamed: args.unnamed,
        written: args.written.as_ref().map(|path| context.absolute(path)),
        access: ops::Access { offline: args.offline, ..args.credentials.access(context)? },
    };
    if args.dry_run {
        let plans = ops::plan(&options, &context.ops())?;
        return render::result(&plans, context.json, |plans| plans.iter().map(describe).collect());
    }
    let held = Held::unless(args.require_branch.as_deref(), context);
    let mut built = Vec::new();
    let mut pushes = Vec::new();
    let mut failure = None;
    for name in &args.names {
        let one = ops::BuildOptions { names: vec![name.clone()], ..options.clone() };
        let image = ops::build(&one, &context.ops())?;
        let push = ops::PushOptions {
            references: vec![image.image.clone()],
            by_digest: image.is_partial(),
            hold_tags: held.holds(),
            ..ops::PushOptions::new(options.access.clone())
        };
        built.push(image);
        let mut pushed = Vec::new();
        if args.push {
            let outcome = ops::push(&push, &context.ops())?;
            (pushed, failure) = (outcome.done, outcome.failure);
        }
        pushes.push(pushed);
        if failure.is_some() {
            break;
        }
    }
    let done: Vec<Done<'_>> = built
        .iter()
        .zip(pushes)
        .map(|(built, pushed)| Done { built, pushed })
        // One that came nowhere is only in the store.
        .filter(|done| !args.push || !done.pushed.is_empty())
        .collect();
    let digests = done.iter().map(|image| image.built.digest);
    context.write_digests(args.digest_file.as_deref(), digests)?;
    render::result(&done, context.json, |done| {
        done.iter().map(|image| format!("{}\n", image.built.digest)).collect()
    })?;
    for loss in built.iter().filter_map(ops::BuildReport::loss) {
        context.warning(&loss);
    }
    if let Some(failure) = failure {
        return Err(failure);
    }
    // Platforms that were built apart are pushed by digest, from any branch.
    if built.iter().any(|image| !image.is_partial()) {
        held.tell()?;
    }
    Ok(ExitCode::SUCCESS)
}

/// An image that was made, and where it was pushed.
#[derive(serde::Serialize)]
pub(crate) struct Done<'a> {
    #[serde(flatten)]
    pub(crate) built: &'a ops::BuildReport,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) pushed: Vec<ops::PushReport>,
}

/// A plan as a person reads it.
fn describe(plan: &ops::PlanReport) -> String {
    let mut text = format!("{} -> {}\n", plan.name, plan.image);
    for platform in &plan.platforms {
        text.push_str(&format!("{}\n  base {}\n", platform.platform, platform.base));
        let rows: Vec<Vec<String>> = platform
            .layers
            .iter()
            .map(|layer| {
                vec![
                    format!("  {}", layer.name),
                    layer.key.map_or_else(
                        || "key known after the layer below".to_owned(),
                        |key| key.short(),
                    ),
                    layer.state.clone(),
                    format!("{} steps", layer.steps),
                    layer.switched_off.join(", "),
                ]
            })
            .collect();
        text.push_str(&render::table(&rows));
        text.push_str(&format!(
            "  to fetch {}, disk needed about {}\n",
            terminal::bytes(platform.fetch_bytes),
            terminal::bytes(platform.disk_bytes)
        ));
    }
    for warning in &plan.warnings {
        text.push_str(&format!("  warning: {warning}\n"));
    }
    text
}
