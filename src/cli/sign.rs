//! `ocibuild sign`: signatures of an image, beside it in its registry.

use std::path::PathBuf;

use ocibuild::ops;

use super::context::Context;
use super::typed::Typed;
use super::{Outcome, render};

/// The variable with an encrypted key's password, the same as cosign's.
pub(crate) const PASSWORD: &str = "COSIGN_PASSWORD";

/// Sign an image in its registry
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  COSIGN_PASSWORD=… ocibuild sign --key ocibuild.key ghcr.io/me/ml
  ocibuild sign --key key.pem --attached ghcr.io/me/ml       SBOM and provenance, too
  ocibuild sign --key key.pem --tag ghcr.io/me/ml            for podman, and cosign before 3
  cosign verify --key ocibuild.pub --insecure-ignore-tlog ghcr.io/me/ml

Signs the index and each platform's manifest; the signatures refer to them as sigstore bundles, and
the image stays as it is. What the key has signed before is not signed again.")]
pub(crate) struct Args {
    /// The image
    #[arg(value_name = "REF")]
    reference: Typed,
    /// The private key: PKCS #8 or EC in PEM, or cosign's with its password in `COSIGN_PASSWORD`
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Sign the SBOM and the statements that are attached, whoever attached them
    #[arg(long)]
    attached: bool,
    /// Sign under a tag `sha256-….sig`, too, which is where older programs look
    #[arg(long)]
    tag: bool,
    #[command(flatten)]
    credentials: super::push::Credentials,
}

pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let options = ops::SignOptions {
        reference: args.reference.in_registry(context)?,
        key: context.absolute(&args.key),
        password: context.variable(PASSWORD).map(str::to_owned),
        tag: args.tag,
        attached: args.attached,
        access: args.credentials.access(context)?,
    };
    let signed = ops::sign(&options, &context.ops())?;
    render::result(&signed, context.json, |signed| {
        let line = |one: &ops::SignedReport| {
            let there = if one.existed { "  (was there)" } else { "" };
            format!("{}  {}{there}\n", one.subject, one.claim)
        };
        signed.signed.iter().map(line).collect()
    })
}
