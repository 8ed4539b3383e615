//! What is to be run, and how it ended.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a step sees of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// A namespace of its own, in which only the loopback device is up.
    Off,
    /// The machine's own.
    Host,
    /// A namespace of its own, in which everything goes through the recorder.
    Recorded,
}

/// Whether a bind mount can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// It can't.
    ReadOnly,
    /// It can.
    ReadWrite,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// A file or folder of the machine.
    Bind {
        /// Its path there.
        source: PathBuf,
        /// Whether the step can write it.
        access: Access,
    },
    /// A tmpfs, empty.
    Memory {
        /// The mode of its root.
        mode: u32,
        /// How many bytes it may hold; half of the machine's memory when not said.
        bytes: Option<u64>,
    },
    /// A folder to be made, on one of the other mounts; never in the tree itself.
    Folder {
        /// Its mode.
        mode: u32,
    },
}

/// A mount of a step. Its target must exist in the tree, unless it lies on an earlier mount that
/// can be written: there it is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// The path in the tree; symlinks are followed as the step would follow them.
    pub target: PathBuf,
    /// What it shows.
    pub what: What,
}

/// A command to be run over a tree. `/proc`, `/dev` and `/sys` are there without being named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// The tree.
    pub root: PathBuf,
    /// What is mounted into it, in this order.
    pub mounts: Vec<Mount>,
    /// The whole environment. `HOME` is the user's own where this doesn't say.
    pub env: BTreeMap<String, String>,
    /// A user of the tree by name or number, with `:` and a group where it shall not be that of
    /// the tree's `/etc/passwd`. Root when empty.
    pub user: String,
    /// Where it starts. Must exist.
    pub workdir: PathBuf,
    /// The program, looked for in `PATH` unless it has a slash, and its arguments.
    pub argv: Vec<String>,
    /// What it sees of the network.
    pub network: Network,
    /// The name of the machine as the step sees it.
    pub hostname: String,
    /// How long it may take.
    #[serde(skip)]
    pub timeout: Option<Duration>,
}

impl Spec {
    /// The host name of every step: a name that differs from machine to machine would end up in
    /// layers.
    pub const HOSTNAME: &'static str = "ocibuild";

    /// Returns a command to be run as root, without a network, an environment or mounts.
    pub fn new(root: PathBuf, argv: Vec<String>) -> Spec {
        Spec {
            root,
            mounts: Vec::new(),
            env: BTreeMap::new(),
            user: String::new(),
            workdir: PathBuf::from("/"),
            argv,
            network: Network::Off,
            hostname: Spec::HOSTNAME.to_owned(),
            timeout: None,
        }
    }
}

/// How a command ended. Whatever it started is gone by then, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[must_use]
pub enum Outcome {
    /// It returned this status.
    Exited(i32),
    /// This signal killed it.
    Signalled(i32),
    /// It took longer than it may.
    TimedOut,
    /// Somebody called [`crate::sandbox::Cancel::trigger`].
    Cancelled,
    /// It was ended because it makes a device node, which the kernel can't do for it: the tree is
    /// to be begun again, under [`crate::sandbox::Scope::Nodes`].
    NeedsSupervision,
}

impl Outcome {
    /// Tells whether it returned status 0.
    pub fn is_success(self) -> bool {
        self == Outcome::Exited(0)
    }
}
