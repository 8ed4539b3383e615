//! `ocibuild export`: an image of the store as files that other tools read.

use std::path::PathBuf;

use ocibuild::oci::Platform;
use ocibuild::ops;
use ocibuild::store::Form;

use super::context::Context;
use super::typed::Typed;
use super::{Outcome, render};

/// Write an image of the store to a file or a folder
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ocibuild export ghcr.io/rocker-org/ml ./layout                         an OCI layout folder
  ocibuild export ghcr.io/rocker-org/ml ml.tar --format oci-archive
  ocibuild export ghcr.io/rocker-org/ml - --format docker-archive | docker load
  ocibuild export ghcr.io/rocker-org/ml root.tar --format rootfs          one flattened tree")]
pub(crate) struct Args {
    /// The image
    #[arg(value_name = "REF")]
    reference: Typed,
    /// Where to; `-` is stdout for the formats that are one file
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// What to write: `layout`, `oci-archive`, `docker-archive` or `rootfs`
    #[arg(long, value_name = "FORMAT", default_value = "layout")]
    format: Form,
    /// Which platform, for the formats that hold one [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    #[command(flatten)]
    credentials: super::push::Credentials,
}

pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let options = ops::ExportOptions {
        reference: args.reference.in_store(context)?,
        path: (args.path.as_os_str() != "-").then(|| context.absolute(&args.path)),
        form: args.format,
        platform: args.platform.clone(),
        access: args.credentials.access(context)?,
    };
    let exported = ops::export(&options, &context.ops())?;
    if args.path.as_os_str() == "-" {
        return Ok(std::process::ExitCode::SUCCESS);
    }
    render::result(&exported, context.json, |exported| format!("{}\n", exported.digest))
}
