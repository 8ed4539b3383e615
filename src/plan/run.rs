//! What a step comes to once the tree is at hand.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Missing, OsRelease, Step};
use crate::oci::Digest;
use crate::recipe::{Action, Pin, Program};
use crate::text::User;

/// What is to be done, nothing left open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Run a program.
    Run(RunAct),
    /// Copy out of the recipe's folder.
    Copy {
        /// A path in the recipe's folder; empty for all of it.
        from: String,
        /// A path in the image; one that ends in `/` is a folder that takes the file's name.
        to: String,
        /// The mode of files; by their exec bit where it is not said.
        mode: Option<u32>,
        /// Whom it belongs to.
        owner: User,
    },
    /// Download.
    Fetch {
        /// From where.
        url: String,
        /// A path in the image; one that ends in `/` is a folder that takes the address's last part.
        to: String,
        /// What the bytes must be; `None` for whatever comes.
        sha256: Option<Digest>,
        /// The file's mode.
        mode: u32,
        /// Whom it belongs to.
        owner: User,
    },
    /// Nothing: the plan has put it into the environment of the steps after it.
    Nothing,
}

/// A program to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunAct {
    /// The command line.
    pub argv: Vec<String>,
    /// What it is, in a line: the file with its arguments, or a script's first line.
    pub title: String,
    /// The whole environment but for what depends on the machine, and `HOME`.
    pub env: BTreeMap<String, String>,
    /// Whom it runs as.
    pub user: User,
    /// The folder it starts in.
    pub workdir: String,
    /// After what time it is ended, if ever.
    pub timeout: Option<Duration>,
    /// Whether it reaches the network.
    pub network: bool,
}

impl Step {
    /// Fills in what only the tree can tell.
    pub fn resolve(&self, tree: &OsRelease) -> Result<Act, Missing> {
        Ok(match &self.action {
            Action::Env(_) => Act::Nothing,
            Action::Copy(copy) => Act::Copy {
                from: copy.from.clone(),
                to: tree.fill(&copy.to)?,
                mode: copy.mode,
                owner: copy.owner.clone(),
            },
            Action::Fetch(fetch) => Act::Fetch {
                url: tree.fill(&fetch.url)?,
                to: tree.fill(&fetch.to)?,
                sha256: match fetch.pin {
                    Pin::Any(digest) => Some(digest),
                    Pin::Arch { .. } | Pin::Unpinned => None,
                },
                mode: fetch.mode,
                owner: fetch.owner.clone(),
            },
            Action::Run(run) => {
                let args: Vec<String> =
                    run.args.iter().map(|arg| tree.fill(arg)).collect::<Result<_, _>>()?;
                let title = match &run.program {
                    Program::File { path, .. } => {
                        [std::slice::from_ref(path), &args].concat().join(" ")
                    }
                    Program::Inline { script, .. } => first_line(script),
                };
                let mut env: BTreeMap<String, String> = run
                    .env
                    .iter()
                    .map(|(name, value)| Ok((name.clone(), tree.fill(value)?)))
                    .collect::<Result<_, Missing>>()?;
                for (name, value) in tree.environment() {
                    env.entry(name).or_insert(value);
                }
                let mut argv = run.program.command();
                argv.extend(args);
                Act::Run(RunAct {
                    argv,
                    title,
                    env,
                    user: run.user.clone(),
                    workdir: tree.fill(&run.workdir)?,
                    timeout: run.timeout,
                    network: run.network,
                })
            }
        })
    }
}

/// Returns the first line of a script that does something.
fn first_line(script: &str) -> String {
    let mut lines =
        script.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let first = lines.next().unwrap_or_default();
    match lines.next() {
        Some(_) => format!("{first} …"),
        None => first.to_owned(),
    }
}
