//! `ocibuild verify`: whether the store holds what it says, or who signed an image.

use std::path::PathBuf;
use std::process::ExitCode;

use ocibuild::fault::Kind;
use ocibuild::ops;

use super::context::Context;
use super::typed::Typed;
use super::{Outcome, render};

/// Verify the store, or with a name the signatures of that image
///
/// Without a name: that every blob of the store is what its name says, and every image is whole. With
/// a name and a key: that the image in its registry is signed by that key, or that whoever has that key
/// audited it and came to the same digest.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("whose").args(["key", "auditor"]).multiple(true)))]
#[command(after_help = "\
Examples:
  ocibuild verify                                            the store
  ocibuild verify --json --store /srv/images
  ocibuild verify --key ocibuild.pub ghcr.io/me/ml           an image's signatures
  ocibuild verify --key a.pub --key b.pub ghcr.io/me/ml@sha256:…
  ocibuild verify --auditor a.pub --auditor b.pub ghcr.io/me/ml    both built it again

Exits with 1 when something is wrong. A damaged layer is pulled or built again once its file is
removed. Signatures are those of `ocibuild sign` and of cosign with a key; the digest that they are of
is printed, and is what to use. Audits are those of `ocibuild audit --attest`.")]
pub(crate) struct Args {
    /// The image in its registry [default: the store is verified]
    #[arg(value_name = "REF", requires = "whose")]
    reference: Option<Typed>,
    /// A public key in PEM, one of which must have signed; may be repeated
    #[arg(long, value_name = "FILE", requires = "reference")]
    key: Vec<PathBuf>,
    /// A public key in PEM of somebody who must have audited the image and come to the same digest,
    /// and to nothing else; may be repeated, and is asked of each
    #[arg(long, value_name = "FILE", requires = "reference")]
    auditor: Vec<PathBuf>,
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

fn image(reference: &Typed, args: &Args, context: &Context) -> Outcome {
    let absolute = |paths: &[PathBuf]| paths.iter().map(|path| context.absolute(path)).collect();
    let options = ops::CheckOptions {
        reference: reference.in_registry(context)?,
        keys: absolute(&args.key),
        auditors: absolute(&args.auditor),
        access: args.credentials.access(context)?,
    };
    let checked = ops::check(&options, &context.ops())?;
    render::result(&checked, context.json, |checked| {
        let mut text = format!("{}\n", checked.reference.at(checked.digest));
        let mut rows: Vec<Vec<String>> = checked
            .audits
            .iter()
            .map(|one| {
                let found = format!("{} in mode {} by {}", one.verdict, one.mode, one.version);
                let key = one.key.display().to_string();
                vec!["  audited".to_owned(), one.subject.short(), found, key]
            })
            .collect();
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
