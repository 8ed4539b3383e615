//! `ocibuild verify`: whether the store holds what it says, or who signed an image.

use std::path::PathBuf;
use std::process::ExitCode;

use ocibuild::fault::Kind;
use ocibuild::oci::Reference;
use ocibuild::ops;

use super::context::Context;
use super::{Outcome, render};

/// Verify the store, or with a name the signatures of that image
///
/// Without a name: that every blob of the store is what its name says, and every image is whole. With
/// a name and a key: that the image in its registry is signed by that key.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ocibuild verify                                            the store
  ocibuild verify --json --store /srv/images
  ocibuild verify --key ocibuild.pub ghcr.io/me/ml           an image's signatures
  ocibuild verify --key a.pub --key b.pub ghcr.io/me/ml@sha256:…

Exits with 1 when something is wrong. A damaged layer is pulled or built again once its file is
removed. Signatures are those of `ocibuild sign` and of cosign with a key; the digest that they are of
is printed, and is what to use.")]
pub(crate) struct Args {
    /// The image in its registry [default: the store is verified]
    #[arg(value_name = "REF", requires = "key")]
    reference: Option<Reference>,
    /// A public key in PEM, one of which must have signed; may be repeated
    #[arg(long, value_name = "FILE", requires = "reference")]
    key: Vec<PathBuf>,
    #[command(flatten)]
    credentials: super::push::Credentials,
}

pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    match &args.reference {
        Some(reference) => image(reference, args, context),
        None => store(context),
    }
}

fn store(context: &Context) -> Outcome {
    let report = ops::verify(&context.ops())?;
    render::result(&report, context.json, |report| {
        if report.ok {
            return "every blob is whole\n".to_owned();
        }
        report.problems.iter().map(|damage| format!("{}\n", damage.problem)).collect()
    })?;
    Ok(ExitCode::from(if report.ok { 0 } else { Kind::Failed.exit_code() }))
}

fn image(reference: &Reference, args: &Args, context: &Context) -> Outcome {
    let options = ops::CheckOptions {
        reference: reference.clone(),
        keys: args.key.iter().map(|path| context.absolute(path)).collect(),
        access: args.credentials.access(context)?,
    };
    let checked = ops::check(&options, &context.ops())?;
    render::result(&checked, context.json, |checked| {
        let mut text = format!("{}\n", checked.reference.at(checked.digest));
        let mut rows = Vec::new();
        for (what, claims) in [("signed", &checked.signatures), ("attested", &checked.attestations)]
        {
            for claim in claims {
                let key = claim.key.display().to_string();
                rows.push(vec![
                    format!("  {what}"),
                    claim.subject.short(),
                    claim.claim.clone(),
                    key,
                ]);
            }
        }
        text.push_str(&render::table(&rows));
        text
    })
}
