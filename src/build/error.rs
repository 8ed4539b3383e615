//! What a build can fail with.

use std::path::PathBuf;

use super::place::PlaceError;
use crate::fault::{Fault, Kind};
use crate::oci::{Digest, Platform};
use crate::sandbox::{Lack, Outcome};
use crate::{
    changes, disk, http, layer, netlog, oci, plan, recipe, rootfs, sandbox, store, transfer,
};

/// A build that did not succeed.
#[derive(Debug, thiserror::Error)]
#[must_use]
pub enum Error {
    /// Files.
    #[error(transparent)]
    Disk(#[from] disk::Error),
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// Fetching a base's layers.
    #[error(transparent)]
    Transfer(#[from] transfer::Error),
    /// Layers.
    #[error(transparent)]
    Layer(#[from] layer::Error),
    /// What a step changed.
    #[error(transparent)]
    Changes(#[from] changes::Error),
    /// Trees.
    #[error(transparent)]
    Rootfs(#[from] rootfs::Error),
    /// Running a step.
    #[error(transparent)]
    Sandbox(#[from] sandbox::Error),
    /// The plan.
    #[error(transparent)]
    Plan(#[from] plan::Error),
    /// Staging a recipe's files.
    #[error(transparent)]
    Recipe(#[from] recipe::Error),
    /// Encoding what is hashed.
    #[error("cannot encode a document of the image")]
    Encode(#[from] oci::json::EncodeError),
    /// A step that ended badly.
    #[error("the step `{step}` of the layer `{layer}` {}", ending(*outcome))]
    Step {
        /// The layer.
        layer: String,
        /// The step.
        step: String,
        /// How it ended.
        outcome: Outcome,
        /// Its script, and the last lines that it wrote.
        #[source]
        output: LastLines,
        /// Where all of its output is.
        log: PathBuf,
    },
    /// A copy or fetch step that failed.
    #[error("the step `{step}` of the layer `{layer}` failed")]
    Place {
        /// The layer.
        layer: String,
        /// The step.
        step: String,
        /// Why.
        #[source]
        source: Box<PlaceOrFetch>,
    },
    /// The recorder of the network.
    #[error(transparent)]
    Recorder(#[from] netlog::Error),
    /// The recorder's certificate in the tree.
    #[error("cannot have the steps of the layer `{layer}` trust the recorder")]
    Trust {
        /// The layer.
        layer: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A layer with the recorder's certificate in it.
    #[error("the layer `{layer}` holds the certificate of this build's recorder, in `{path}`")]
    Leak {
        /// The layer.
        layer: String,
        /// The file.
        path: String,
    },
    /// A step that asked for what was not recorded.
    #[error("the step `{step}` of the layer `{layer}` asked for what its lock does not list: {}", urls.join(", "))]
    Unlisted {
        /// The definition.
        definition: String,
        /// The layer.
        layer: String,
        /// The step.
        step: String,
        /// What it asked for.
        urls: Vec<String>,
    },
    /// A tree that went away while it was in use.
    #[error("the unpacked layer {diff_id} has vanished from {}", store.display())]
    Vanished {
        /// The layer.
        diff_id: Digest,
        /// The store.
        store: PathBuf,
    },
    /// A damaged sidecar.
    #[error("{} is damaged", path.display())]
    Sidecar {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// A layer of an unknown kind.
    #[error("{digest} is a `{media_type}`, which is no layer that can be unpacked")]
    NoLayer {
        /// The blob.
        digest: Digest,
        /// Its type.
        media_type: String,
    },
    /// Steps for a processor that this machine has not.
    #[error("{platform} cannot be run on this machine, which is {host}")]
    Foreign {
        /// What was to be built.
        platform: Box<Platform>,
        /// What this is.
        host: Box<Platform>,
        /// What is missing.
        #[source]
        lack: Lack,
    },
    /// No place for trees.
    #[error("no overlay can be mounted in {}", dir.display())]
    NoTree {
        /// The folder.
        dir: PathBuf,
        /// Why not.
        #[source]
        source: rootfs::Why,
    },
    /// No place for a copy of the layers.
    #[error("the layers can't be copied to {}", dir.display())]
    NoCopy {
        /// The folder.
        dir: PathBuf,
        /// Why not.
        #[source]
        source: rootfs::Why,
    },
    /// Two passes over one tree that gave different bytes.
    #[error("the tree of the layer `{layer}` changed while it was packed: {first}, then {second}")]
    Unstable {
        /// The layer.
        layer: String,
        /// The diff id of the first pass.
        first: Digest,
        /// The diff id of the second pass.
        second: Digest,
    },
    /// A thread that died.
    #[error("a thread of the build ended without a result")]
    Thread,
}

/// Why a file could not be placed.
#[derive(Debug, thiserror::Error)]
pub enum PlaceOrFetch {
    /// Writing it.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// Fetching it.
    #[error(transparent)]
    Fetch(#[from] http::Error),
    /// Fetching it through the recorder.
    #[error(transparent)]
    Recorded(#[from] netlog::Error),
    /// What came is not what was pinned.
    #[error("`{url}` gave {actual}, and the recipe says {expected}")]
    Pin {
        /// The address.
        url: String,
        /// What the recipe says.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// An answer that is no file.
    #[error("`{url}` answered with status {status}")]
    Status {
        /// The address.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// Text with variables in braces that have no value here.
    #[error(transparent)]
    Text(#[from] plan::Missing),
    /// An owner that the image does not know.
    #[error("the image knows no `{owner}`")]
    Owner {
        /// The user, with the group.
        owner: String,
    },
}

/// The end of what a step wrote, as the cause of its failure.
#[derive(Debug)]
pub struct LastLines {
    /// The step's script or command.
    pub command: String,
    /// The lines, the oldest first.
    pub lines: Vec<String>,
}

impl std::fmt::Display for LastLines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}`", self.command)?;
        if self.lines.is_empty() {
            return f.write_str(" wrote nothing");
        }
        f.write_str(" wrote last:")?;
        for line in &self.lines {
            write!(f, "\n  | {line}")?;
        }
        Ok(())
    }
}

impl std::error::Error for LastLines {}

pub(super) fn ending(outcome: Outcome) -> String {
    match outcome {
        Outcome::Exited(status) => format!("ended with status {status}"),
        Outcome::Signalled(signal) => format!("was killed by signal {signal}"),
        Outcome::TimedOut => "took longer than its timeout".to_owned(),
        Outcome::NeedsSupervision => "was stopped, since it makes a device node".to_owned(),
        Outcome::Cancelled => "was stopped".to_owned(),
    }
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Error::Disk(error) => error.kind(),
            Error::Store(error) => error.kind(),
            Error::Transfer(error) => error.kind(),
            Error::Layer(error) => error.kind(),
            Error::Changes(error) => error.kind(),
            Error::Rootfs(error) => error.kind(),
            Error::Sandbox(error) => error.kind(),
            Error::Plan(error) => error.kind(),
            Error::Recorder(error) => error.kind(),
            Error::Foreign { .. } | Error::NoTree { .. } | Error::NoCopy { .. } => {
                Kind::Environment
            }
            Error::Unstable { .. } | Error::Thread => Kind::Bug,
            _ => Kind::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Error::Disk(error) => error.hint(),
            Error::Store(error) => error.hint(),
            Error::Transfer(error) => error.hint(),
            Error::Layer(error) => error.hint(),
            Error::Changes(error) => error.hint(),
            Error::Rootfs(error) => error.hint(),
            Error::Sandbox(error) => error.hint(),
            Error::Plan(error) => error.hint(),
            Error::Recorder(error) => error.hint(),
            Error::Leak { .. } => Some(
                "its steps put what they trust while they run into a file: keep them from that, or \
                 build with `--network host`"
                    .to_owned(),
            ),
            Error::Unlisted { definition, layer, .. } => Some(format!(
                "renew the layer's part of the lock with `ocibuild lock {definition} --update {layer}`"
            )),
            Error::Step { log, .. } => Some(format!("all that the layer's steps wrote is in {}", log.display())),
            Error::Foreign { platform, lack, .. } => Some(format!(
                "{}; or build it on a machine of that kind with `--platform {platform}`, push it \
                 with `--by-digest`, and join the platforms with `ocibuild index`",
                lack.fix()
            )),
            Error::NoCopy { source, .. } => Some(source.hint().to_owned()),
            Error::NoTree { source, .. } => {
                Some(format!("{}; or have the layers copied, with `--tree plain`", source.hint()))
            }
            Error::Place { layer, source, .. } => match &**source {
                PlaceOrFetch::Pin { .. } => Some(
                    "the file behind that address has changed: look at what it is now, and pin that".to_owned(),
                ),
                PlaceOrFetch::Fetch(error) => error.hint(),
                PlaceOrFetch::Recorded(
                    netlog::Error::Unlisted { .. } | netlog::Error::Changed { .. },
                ) => Some(format!(
                    "renew the layer's part of the lock with `ocibuild lock NAME --update {layer}`"
                )),
                PlaceOrFetch::Recorded(error) => error.hint(),
                PlaceOrFetch::Text(error) => error.hint(),
                PlaceOrFetch::Owner { .. } => Some(
                    "name one of its /etc/passwd and /etc/group, or a number".to_owned(),
                ),
                _ => None,
            },
            Error::Vanished { .. } | Error::Sidecar { .. } => Some("run the build again".to_owned()),
            _ => None,
        }
    }
}
