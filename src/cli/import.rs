//! `ocibuild import`: images and root file systems from files.

use std::path::PathBuf;

use ocibuild::oci::{Platform, Reference};
use ocibuild::ops;
use ocibuild::store::Form;

use super::context::Context;
use super::{Outcome, render};

/// Bring a root file system or an image into the store
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ocibuild import debian.tar --name localhost/debian-base:bookworm
  ocibuild import arm64.tar --name localhost/debian-base:bookworm --add
  ocibuild import ./layout --name ghcr.io/me/ml          an OCI layout folder
  docker save ml | ocibuild import - --format docker-archive --name ghcr.io/me/ml")]
pub(crate) struct Args {
    /// A tar of a root file system, an oci-archive, a docker-archive, or a layout folder; `-` is
    /// stdin
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The image's name in the store [default: the one that the file gives it]
    #[arg(long, value_name = "REF")]
    name: Option<Reference>,
    /// What the file is: `layout`, `oci-archive`, `docker-archive` or `tar` [default: found out; a
    /// stream is a root file system]
    #[arg(long, value_name = "FORMAT")]
    format: Option<Form>,
    /// Platform of a root file system [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Keep what the name stands for, and add this platform to it
    #[arg(long)]
    add: bool,
    /// Compression of a root file system's layer: `gzip` or `zstd`
    #[arg(long, value_name = "HOW", default_value = "gzip")]
    compression: String,
    /// Which image of a layout or an archive that holds several
    #[arg(long, value_name = "NAME")]
    select: Option<String>,
}

pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let options = ops::ImportOptions {
        file: (args.file.as_os_str() != "-").then(|| context.absolute(&args.file)),
        form: args.format,
        name: args.name.clone(),
        platform: args.platform.clone(),
        add: args.add,
        compression: args.compression.clone(),
        select: args.select.clone(),
    };
    let imported = ops::import(&options, &context.ops())?;
    render::result(&imported, context.json, |imported| format!("{}\n", imported.digest))
}
