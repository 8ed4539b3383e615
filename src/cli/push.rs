//! `ocibuild push`: an image of the store to its registry.

use std::collections::BTreeMap;
use std::io::Read;

use ocibuild::oci::Reference;
use ocibuild::ops;

use super::branch::Held;
use super::context::Context;
use super::typed::Typed;
use super::{Outcome, render, terminal};

/// Push images of the store to registries
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ocibuild push ghcr.io/rocker-org/cuda          the image, and to its further destinations
  ocibuild push localhost:5000/ml --only         to this registry only
  ocibuild push ghcr.io/rocker-org/ml --by-digest   no tag: the platforms built here, for `index`
  ocibuild push --inputs ghcr.io/me/ml           with all that building it again takes
  ocibuild push --require-branch main            tags move from main alone
  ocibuild push ghcr.io/rocker-org/ml --dry-run     what would be sent, and which tags would move
  echo $TOKEN | ocibuild push ghcr.io/me/ml --username me --password-stdin

What is attached refers to the image and is no part of it. Where a registry keeps no list of such
documents, the list is under the tag `sha256-…` with the image's digest.")]
pub(crate) struct Args {
    /// Names of images in the store [default: all that were built here]
    #[arg(value_name = "REF")]
    references: Vec<Typed>,
    /// Push under this name instead; may be repeated
    #[arg(long, value_name = "REF")]
    to: Vec<Reference>,
    /// Leave out the further destinations of the definition
    #[arg(long)]
    only: bool,
    /// Push the platforms' manifests by digest, and move no tag
    #[arg(long)]
    by_digest: bool,
    /// A further tag to move; may be repeated
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// Move tags only from this branch (of CI's run, else of the checkout); elsewhere all is pushed
    /// but the tags, and the exit code is 1
    #[arg(long, value_name = "BRANCH")]
    require_branch: Option<String>,
    /// Ask the destinations what they have, print what of the image would be sent and which tags would
    /// move, and do nothing
    #[arg(long, conflicts_with = "digest_file")]
    dry_run: bool,
    #[command(flatten)]
    along: Along,
    /// How many blobs travel at once, to all destinations together
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: u16,
    /// Write the digests, one a line, to a file
    #[arg(long, value_name = "FILE")]
    digest_file: Option<std::path::PathBuf>,
    #[command(flatten)]
    credentials: Credentials,
}

/// What goes along with an image.
#[derive(Debug, clap::Args)]
struct Along {
    /// What to attach of what is known of images that were built here
    #[arg(long, value_name = "WHAT", default_value = "all")]
    attest: Attest,
    /// Attach the bodies that the lock lists, too, with which the image can be built again offline
    #[arg(long)]
    inputs: bool,
    /// Attach inputs even if some came with credentials
    #[arg(long, requires = "inputs")]
    yes: bool,
}

/// What goes with an image.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Attest {
    /// A list of its packages (SBOM), how it was built (provenance); of a locked one its definition,
    /// recipes and lock
    All,
    /// How it was built
    Provenance,
    /// Nothing
    None,
}

impl From<Attest> for ops::Attest {
    fn from(attest: Attest) -> ops::Attest {
        match attest {
            Attest::All => ops::Attest::All,
            Attest::Provenance => ops::Attest::Provenance,
            Attest::None => ops::Attest::None,
        }
    }
}

/// How to reach registries.
#[derive(Debug, clap::Args)]
pub(crate) struct Credentials {
    /// User name at the registry
    #[arg(long, value_name = "NAME", requires = "password_stdin")]
    username: Option<String>,
    /// Read the password or token from stdin
    #[arg(long, requires = "username")]
    password_stdin: bool,
    /// Speak plain HTTP to this registry (loopback needs no such word); may be repeated
    #[arg(long, value_name = "HOST[:PORT]")]
    plain_http: Vec<String>,
}

impl Credentials {
    /// Reads the password, if it is to come from stdin.
    pub(crate) fn access(&self, _: &Context) -> Result<ops::Access, ops::Error> {
        let mut login = None;
        if let Some(user) = &self.username {
            let password = read_password()?;
            login = Some((user.clone(), password));
        }
        Ok(ops::Access { login, plain_http: self.plain_http.clone(), offline: false })
    }
}

/// Reads a password that is piped in.
pub(crate) fn read_password() -> Result<String, ops::Error> {
    let mut password = String::new();
    let stdin = std::io::stdin().lock();
    stdin.take(64 << 10).read_to_string(&mut password).map_err(ops::Error::Input)?;
    Ok(password.trim_end_matches(['\r', '\n']).to_owned())
}

pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    // By digest no tag would move from any branch.
    let required = args.require_branch.as_deref().filter(|_| !args.by_digest);
    let held = Held::unless(required, context);
    let options = ops::PushOptions {
        references: Typed::all_in_store(&args.references, context)?,
        to: args.to.clone(),
        only: args.only,
        by_digest: args.by_digest,
        tags: args.tag.clone(),
        hold_tags: held.holds(),
        attest: args.along.attest.into(),
        inputs: match (args.along.inputs, args.along.yes) {
            (false, _) => ops::Inputs::None,
            (true, false) => ops::Inputs::Public,
            (true, true) => ops::Inputs::All,
        },
        jobs: usize::from(args.jobs),
        access: args.credentials.access(context)?,
    };
    if args.dry_run {
        let found = ops::rehearse(&options, &context.ops())?;
        let code = render::result(&found.plans, context.json, |plans| {
            plans.iter().map(describe).collect()
        })?;
        return found.failure.map_or(Ok(code), Err);
    }
    let pushed = ops::push(&options, &context.ops())?;
    // What is finished is named even where something else failed.
    let digests = pushed.done.iter().map(|image| image.digest);
    context.write_digests(args.digest_file.as_deref(), digests)?;
    let code = render::result(&pushed.done, context.json, |done| {
        let line = |image: &ops::PushReport| {
            if image.tags.is_empty() {
                // No tag was moved, so none is named.
                format!("{}\n", image.destination.at(image.digest))
            } else {
                format!("{}@{}\n", image.destination, image.digest)
            }
        };
        done.iter().map(line).collect()
    })?;
    if let Some(failure) = pushed.failure {
        return Err(failure);
    }
    held.tell()?;
    Ok(code)
}

/// What a push would do at one destination, as a person reads it.
fn describe(plan: &ops::PushPlan) -> String {
    let mut rows = Vec::new();
    let mut row = |name: &str, text: String| rows.push(vec![format!("  {name}"), text]);
    // By what happens to them, and where from.
    let mut kinds: BTreeMap<(ops::How, Option<&str>), (u64, u64)> = BTreeMap::new();
    for blob in &plan.blobs {
        let sums = kinds.entry((blob.how, blob.from.as_deref())).or_default();
        *sums = (sums.0 + 1, sums.1 + blob.size);
    }
    for ((how, from), (count, size)) in kinds {
        let name = match how {
            ops::How::Exists => "exists",
            ops::How::Mount => "mount",
            ops::How::Upload => "upload",
        };
        let from = from.map_or_else(String::new, |from| format!(", from {from}"));
        row(name, format!("{}, {}{from}", counted(count, "blob"), terminal::bytes(size)));
    }
    let there = plan.manifests_existing;
    row("manifests", format!("{} to send, {there} there", plan.manifests));
    for tag in &plan.tags {
        let change = match (tag.moves, tag.now) {
            (false, _) => "stays".to_owned(),
            (true, None) => "is new".to_owned(),
            (true, Some(now)) => format!("moves from {now}"),
        };
        row("tag", format!("{} {change}", tag.tag));
    }
    let head = format!("{} -> {}@{}\n", plan.image, plan.destination, plan.digest);
    head + &render::table(&rows)
}

fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
