//! A command by hand in an image's tree; what it writes is thrown away.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::disk::At;
use crate::oci::ConfigDocument;
use crate::rootfs::{self, Tree, TreeRequest};
use crate::sandbox::{
    self, Attendants, Mode, Mount, Network, Outcome, Owners, Ownership, Scope, Spec, Terminal, What,
};
use crate::store::Store;
use crate::transfer::Source;

use super::workplace::Workplace;
use super::{Error, Host, LayerId, Trees, environment, step, stop};

/// The best shell that there is in a tree.
pub(super) const ARGV: [&str; 3] =
    ["sh", "-c", "if command -v bash >/dev/null; then exec bash; else exec sh; fi"];

/// What to run in an image.
#[derive(Debug)]
pub struct Command<'a> {
    /// The program and its arguments; empty is a shell.
    pub argv: Vec<String>,
    /// A user instead of the image's.
    pub user: Option<String>,
    /// Whether it has the machine's network, or only the loopback device.
    pub network: bool,
    /// The person's terminal; without one it writes to this process' stdout and stderr.
    pub terminal: Option<&'a Terminal>,
}

/// Where to run it.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// How this process is root.
    pub mode: Mode,
    /// How the tree is made of the layers.
    pub tree: TreeRequest,
    /// Where the tree goes when it does not fit into memory.
    pub scratch: Option<&'a Path>,
    /// How many bytes of memory it may take; `None` is half of what is free.
    pub memory: Option<u64>,
    /// Where the layers' blobs are that the store lacks.
    pub elsewhere: &'a dyn Source,
    /// The machine.
    pub host: &'a Host<'a>,
}

impl std::fmt::Debug for Place<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Place").field("mode", &self.mode).finish_non_exhaustive()
    }
}

/// Adds what a program needs to know of the terminal.
pub(super) fn with_terminal(
    mut env: BTreeMap<String, String>,
    machine: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    for name in ["TERM", "COLORTERM"] {
        if let Some(value) = machine.get(name) {
            env.entry(name.to_owned()).or_insert_with(|| value.clone());
        }
    }
    env
}

/// Runs a command in the tree of an image's layers, with the image's environment, user and folder.
pub fn run_in_image(
    layers: &[LayerId],
    config: &ConfigDocument,
    command: &Command<'_>,
    store: &Store,
    at: &Place<'_>,
) -> Result<Outcome, Error> {
    let host = at.host;
    let trees = Trees::new(store, at.elsewhere, at.mode, host.report);
    let lowers = trees.unpack_all(layers)?;
    let run = store.begin_run(host.report)?;
    let mut workplace =
        Workplace::new(run.path(), at.scratch, at.memory, at.tree, at.mode, None, host.report)?;
    let place = workplace.place(false, || Ok(rootfs::size_of(&lowers)?))?;
    let tree = Tree::new(place.kind, &lowers, &place.folder.join("tree"), &step::extras(host))?;
    let memory = |path: &str, mode: u32| Mount {
        target: PathBuf::from(path),
        what: What::Memory { mode, bytes: None },
    };
    let planned = config.env().into_iter().collect();
    let env = environment::complete(planned, Some(host.env), false, false);
    let env = match command.terminal {
        Some(_) => with_terminal(env, host.env),
        None => env,
    };
    let spec = Spec {
        mounts: vec![memory("/tmp", 0o1777), memory("/run", 0o755)],
        env,
        user: command.user.clone().unwrap_or_else(|| config.user().to_owned()),
        workdir: PathBuf::from(config.working_dir()),
        network: if command.network { Network::Host } else { Network::Off },
        ..Spec::new(
            tree.merged().to_owned(),
            if command.argv.is_empty() {
                ARGV.map(str::to_owned).to_vec()
            } else {
                command.argv.clone()
            },
        )
    };
    let scope = match at.mode {
        Mode::Single => Scope::Full,
        Mode::Root | Mode::Range { .. } => Scope::Nodes,
    };
    let ownership =
        Ownership::of_tree(scope, &tree, &lowers).at("keep the owners of", tree.merged())?;
    let cancel = stop::register();
    let by = Attendants { owners: Owners::Kept(&ownership), recorder: None, cancel: &cancel };
    host.report.hold(true);
    let outcome = sandbox::attach(&spec, by, command.terminal);
    host.report.hold(false);
    drop(tree);
    Ok(outcome?)
}
