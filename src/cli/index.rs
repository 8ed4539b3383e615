//! `ocibuild index`: one index from platforms that were built apart.

use ocibuild::oci::Reference;
use ocibuild::ops;

use super::branch::Held;
use super::build::Done;
use super::context::Context;
use super::{Outcome, render};

/// Join platforms that were built apart into one index
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ocibuild index ml                                            from what was built into this store
  ocibuild index ml ghcr.io/rocker-org/ml@sha256:… ghcr.io/rocker-org/ml@sha256:… --push

The index has the digest that one build of all platforms gives. It is refused while a platform of
the definition is missing.")]
pub(crate) struct Args {
    /// The definition: a name in manifests/, or the path of a file
    #[arg(value_name = "NAME")]
    name: String,
    /// Images by digest, as `push --by-digest` printed them
    #[arg(value_name = "REF@DIGEST")]
    images: Vec<Reference>,
    /// Push the index to the definition's destinations
    #[arg(long)]
    push: bool,
    /// Move tags only from this branch, as `push` does
    #[arg(long, value_name = "BRANCH", requires = "push")]
    require_branch: Option<String>,
    /// Write the digest to a file
    #[arg(long, value_name = "FILE")]
    digest_file: Option<std::path::PathBuf>,
    #[command(flatten)]
    credentials: super::push::Credentials,
}

pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let access = args.credentials.access(context)?;
    let options = ops::IndexOptions {
        name: args.name.clone(),
        folder: context.folder.clone(),
        images: args.images.clone(),
        access: access.clone(),
    };
    let joined = ops::index(&options, &context.ops())?;
    let held = Held::unless(args.require_branch.as_deref(), context);
    let mut done = Done { built: &joined, pushed: Vec::new() };
    let mut failure = None;
    if args.push {
        let push = ops::PushOptions {
            references: vec![joined.image.clone()],
            hold_tags: held.holds(),
            ..ops::PushOptions::new(access)
        };
        let pushed = ops::push(&push, &context.ops())?;
        done.pushed = pushed.done;
        failure = pushed.failure;
    }
    // An index that came nowhere is only in the store.
    if !args.push || !done.pushed.is_empty() {
        let digest = std::iter::once(joined.digest);
        context.write_digests(args.digest_file.as_deref(), digest)?;
    }
    let code = render::result(&done, context.json, |done| format!("{}\n", done.built.digest))?;
    if let Some(failure) = failure {
        return Err(failure);
    }
    held.tell()?;
    Ok(code)
}
