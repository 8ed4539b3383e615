//! `shell`: a command in an image of the store, over a tree that is thrown away; and which build
//! failed last, to be repeated up to where it did.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::build::{self, Host, LayerId};
use crate::disk;
use crate::http;
use crate::oci::{Platform, Reference};
use crate::plan::Ownership;
use crate::sandbox::{Outcome, Terminal};
use crate::store::Store;
use crate::transfer::Source;

use super::access::Origins;
use super::{Access, BuildOptions, Context, Error, Network, destinations, inspect};

/// What to run, in which image.
#[derive(Debug)]
pub struct ShellOptions<'a> {
    /// The image, which must be in the store.
    pub reference: Reference,
    /// The platform; that of this machine where the image has it, else its only one.
    pub platform: Option<Platform>,
    /// A user instead of the image's.
    pub user: Option<String>,
    /// The command and its arguments; empty is a shell.
    pub command: Vec<String>,
    /// Whether it has the machine's network.
    pub network: bool,
    /// The person's terminal.
    pub terminal: Option<&'a Terminal>,
}

/// Runs a command in an image and tells how it ended. To be called inside the namespace.
pub fn shell(options: &ShellOptions<'_>, context: &Context<'_>) -> Result<Outcome, Error> {
    let store = context.open()?;
    let reference = &options.reference;
    let Some(descriptor) = store.resolve(reference)? else {
        return Err(destinations::no_image(reference, &store)?);
    };
    let document = Source::document(&store, &descriptor)?;
    let here = |entry: &_| store.has_whole(entry);
    let inspect::Chosen { manifest, config, .. } =
        inspect::choose(reference, options.platform.as_ref(), &document, &store, &here)?;
    let layers: Vec<LayerId> = manifest.layers.iter().cloned().zip(config.diff_ids()).collect();
    let registries = Access::default().registries([], context)?;
    let origins = Origins::new(&store, &registries, &manifest.layers)?;
    let client =
        http::Client::new(http::Config::from_env(context.env).reporting_to(context.report.clone()));
    let host = Host::new(context.env, client, context.report.as_ref());
    let place = build::Place {
        mode: context.mode()?,
        tree: context.tree,
        scratch: context.scratch,
        memory: context.memory,
        elsewhere: &origins,
        host: &host,
    };
    let command = build::Command {
        argv: options.command.clone(),
        user: options.user.clone(),
        network: options.network,
        terminal: options.terminal,
    };
    Ok(build::run_in_image(&layers, &config, &command, &store, &place)?)
}

/// The build whose step failed last: its tree is gone, but its layer can be begun again, over
/// the layers below it, which are kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Failed {
    name: String,
    folder: PathBuf,
    platforms: Vec<Platform>,
    discarded: bool,
    #[serde(default)]
    recorded: bool,
}

impl Failed {
    pub(super) fn of(options: &BuildOptions) -> Failed {
        Failed {
            name: options.names.first().cloned().unwrap_or_default(),
            folder: options.folder.clone(),
            platforms: options.platforms.clone(),
            discarded: options.ownership == Ownership::Discarded,
            recorded: options.network == Network::Recorded,
        }
    }

    fn path(store: &Store) -> PathBuf {
        store.logs().join("failed.json")
    }

    pub(super) fn write(&self, store: &Store) -> Result<(), Error> {
        let bytes = serde_json::to_vec(self).map_err(Error::Encode)?;
        Ok(disk::write_whole(&Failed::path(store), &bytes)?)
    }

    /// Returns the definition's name, as it was said.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the options that repeat it, with a shell where a step fails.
    pub fn again(self, terminal: std::sync::Arc<Terminal>) -> BuildOptions {
        BuildOptions {
            names: vec![self.name],
            folder: self.folder,
            platforms: self.platforms,
            always_pull: false,
            no_cache: false,
            refresh: Vec::new(),
            locked: false,
            unnamed: false,
            ownership: if self.discarded { Ownership::Discarded } else { Ownership::Kept },
            network: if self.recorded { Network::Recorded } else { Network::Host },
            send: false,
            shell: Some(terminal),
            written: None,
            access: Access::default(),
        }
    }
}

/// Returns the build whose step failed last, if one did.
pub fn failed(context: &Context<'_>) -> Result<Option<Failed>, Error> {
    let store = context.open()?;
    match disk::read(&Failed::path(&store), 1 << 20) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}
