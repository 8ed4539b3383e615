//! `ocibuild index`: one index from platforms that were built apart.

use ocibuild::oci::Reference;
use ocibuild::ops;

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
    if args.push {
        let push = ops::PushOptions {
            references: vec![joined.image.clone()],
            ..ops::PushOptions::new(access)
        };
        ops::push(&push, &context.ops())?;
    }
    render::result(&joined, context.json, |joined| format!("{}\n", joined.digest))
}
