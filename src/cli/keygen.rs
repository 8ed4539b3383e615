//! `ocibuild keygen`: a pair of keys to sign images with.

use std::path::PathBuf;

use ocibuild::ops;

use super::context::Context;
use super::sign::PASSWORD;
use super::{Outcome, render};

/// Make a pair of keys to sign images with
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  COSIGN_PASSWORD=… ocibuild keygen              ocibuild.key and ocibuild.pub
  COSIGN_PASSWORD= ocibuild keygen keys/ci       keys/ci.key without a password

The private key is on P-256 and encrypted with the password in COSIGN_PASSWORD, in cosign's own form,
so that either program uses the other's keys.")]
pub(crate) struct Args {
    /// The files' name without `.key` and `.pub`
    #[arg(value_name = "PREFIX", default_value = "ocibuild")]
    prefix: PathBuf,
}

pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let Some(password) = context.variable(PASSWORD) else {
        return Err(ops::Error::Usage(format!(
            "set {PASSWORD} to what the key is to be encrypted with; empty is no password"
        )));
    };
    let options = ops::KeygenOptions {
        prefix: context.absolute(&args.prefix),
        password: password.to_owned(),
    };
    let made = ops::keygen(&options)?;
    render::result(&made, context.json, |made| {
        format!("{}\n{}\n", made.private.display(), made.public.display())
    })
}
