//! `ocibuild sbom`: the packages in an image.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use ocibuild::disk;
use ocibuild::oci::Platform;
use ocibuild::ops;

use super::context::Context;
use super::typed::Typed;
use super::{Outcome, render};

/// One platform of an image.
#[derive(Debug, clap::Args)]
pub(crate) struct One {
    /// The image
    #[arg(value_name = "REF")]
    pub(crate) reference: Typed,
    /// The platform [default: this machine's, or the only one]
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<Platform>,
    /// Ask the registry even if the store has an image of that name
    #[arg(long)]
    pub(crate) remote: bool,
}

/// List the packages in an image, as an SPDX document or as a table
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ocibuild sbom ghcr.io/rocker-org/ml > ml.spdx.json
  ocibuild sbom --table ghcr.io/rocker-org/ml                  name, version, layer
  ocibuild sbom --remote debian:13 --platform linux/arm64 -o debian.spdx.json

Read from the image's layers: what dpkg, conda, R, pip and npm say that they installed, each package
once, with the layer that brought it. The same image gives the same document. Of an image in a
registry it is the document that is attached there, if any; who attached it `verify` tells.")]
pub(crate) struct Args {
    #[command(flatten)]
    image: One,
    /// Read the layers of a registry's image even if a list is attached to it
    #[arg(long)]
    read: bool,
    /// Write the document to a file
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print a table for people, with --json as plain JSON, instead of the document
    #[arg(long, conflicts_with = "output")]
    table: bool,
    #[command(flatten)]
    credentials: super::push::Credentials,
}

pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let options = ops::SbomOptions {
        reference: args.image.reference.of(args.image.remote, context)?,
        remote: args.image.remote,
        attached: !args.read && !args.table,
        platform: args.image.platform.clone(),
        access: args.credentials.access(context)?,
    };
    let listed = ops::sbom(&options, &context.ops())?;
    if args.table {
        return render::result(&listed, context.json, table);
    }
    document(&listed.document, args.output.as_deref(), context)
}

/// Gives a document away, byte for byte: to a file, or with a line end to stdout.
pub(crate) fn document(
    bytes: &[u8],
    output: Option<&std::path::Path>,
    context: &Context,
) -> Outcome {
    if let Some(path) = output {
        disk::write_whole(&context.absolute(path), bytes)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(ops::Error::Output(error))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn table(listed: &ops::SbomReport) -> String {
    let rows: Vec<Vec<String>> = listed
        .packages
        .iter()
        .map(|package| {
            let made_by = listed.layers.get(package.layer).map_or("", String::as_str);
            vec![
                format!("{:?}", package.manager).to_lowercase(),
                package.name.clone(),
                package.version.clone(),
                format!("{} {}", package.layer, made_by.chars().take(60).collect::<String>()),
            ]
        })
        .collect();
    render::table(&rows)
}
