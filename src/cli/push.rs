//! `ocibuild push`: an image of the store to its registry.

use std::io::Read;

use ocibuild::oci::Reference;
use ocibuild::ops;

use super::context::Context;
use super::{Outcome, render};

/// Push images of the store to registries
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ocibuild push ghcr.io/rocker-org/cuda          the image, and to its further destinations
  ocibuild push localhost:5000/ml --only         to this registry only
  ocibuild push ghcr.io/rocker-org/ml --by-digest   no tag: the platforms built here, for `index`
  echo $TOKEN | ocibuild push ghcr.io/me/ml --username me --password-stdin")]
pub(crate) struct Args {
    /// Names of images in the store [default: all that were built here]
    #[arg(value_name = "REF")]
    references: Vec<Reference>,
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
    /// How many blobs travel at once
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: u16,
    /// Write the digests, one a line, to a file
    #[arg(long, value_name = "FILE")]
    digest_file: Option<std::path::PathBuf>,
    #[command(flatten)]
    credentials: Credentials,
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
        Ok(ops::Access { login, plain_http: self.plain_http.clone() })
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
    let options = ops::PushOptions {
        references: args.references.clone(),
        to: args.to.clone(),
        only: args.only,
        by_digest: args.by_digest,
        tags: args.tag.clone(),
        jobs: usize::from(args.jobs),
        access: args.credentials.access(context)?,
    };
    let pushed = ops::push(&options, &context.ops())?;
    if let Some(path) = &args.digest_file {
        let lines: String = pushed.iter().map(|image| format!("{}\n", image.digest)).collect();
        ocibuild::disk::write_whole(&context.absolute(path), lines.as_bytes())
            .map_err(ops::Error::from)?;
    }
    render::result(&pushed, context.json, |pushed| {
        let line = |image: &ops::PushReport| {
            if args.by_digest {
                // No tag was moved, so none is named.
                format!("{}\n", image.destination.at(image.digest))
            } else {
                format!("{}@{}\n", image.destination, image.digest)
            }
        };
        pushed.iter().map(line).collect()
    })
}
