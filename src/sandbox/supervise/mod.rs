//! Answers system calls of a step in the kernel's place, so that a build with one id leaves the
//! owners, device nodes and file capabilities that root's would have left.
//!
//! The filter of the step (`filter`) has the kernel stop the calls of `calls`; threads of the build
//! receive them (`listener`), read what they ask for in the process's memory (`tracee`), and answer
//! by theme (`chown`, `stat`, `create`, …) from what is remembered (`owners`, `parents`) and from
//! who the process believes to be (`credentials`, `step`). What needs no other answer than the
//! kernel's is given back to it.
//!
//! A process that believes to be another than root may do what such a one may (`access`), as far as
//! its calls are stopped: by the step's filter in a step that begins as another user, by a tracer in
//! one that begins as root (`trace`, on x86-64).
//!
//! Not imitated: `Uid:` in `/proc/PID/status`; the ids that sockets and `inotify` tell; the kind of a
//! device node in a folder's listing; who may signal whom.

mod above;
mod access;
mod calls;
mod chown;
mod create;
mod credentials;
mod exec;
mod identity;
mod ids;
mod kernel;
mod layout;
mod listener;
mod moves;
mod owners;
mod parents;
mod ptrace;
mod quick;
mod socket;
mod stat;
mod step;
mod trace;
mod tracee;
mod view;
mod wish;
mod write;
mod xattr;

pub(super) use calls::{Arch, CALLS, Theme, When, is_for_others, wanted};
pub(super) use kernel::install_listener;
pub(super) use listener::{Supervised, supervise};
pub use owners::Ownership;
pub(super) use quick::PASS;
pub(super) use step::mark;

/// What a supervisor answers for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Attributes that not every tree can hold are refused; a step that makes a device node is to
    /// be run again with [`Scope::Nodes`].
    Light,
    /// Device nodes; owners and ids are the kernel's.
    Nodes,
    /// Device nodes, file capabilities, owners, and who a process is.
    Full,
}

/// Who keeps the owners that a step gives to files.
#[derive(Clone, Copy, Debug)]
pub enum Owners<'o> {
    /// The tree itself; for a namespace that has all ids.
    Tree,
    /// Nobody: a change of owners or ids is answered with success and not done.
    Nobody,
    /// A supervisor.
    Kept(&'o Ownership),
}

/// What a filter does besides refusing what no step may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Watch {
    /// Nothing.
    Nothing,
    /// It answers changes of owners and ids with success.
    Discard,
    /// It has the calls of a scope answered.
    Supervise {
        scope: Scope,
        /// Owners of some files are known by path alone.
        by_path: bool,
        /// The step begins as another than root, and must not do all that root may.
        strict: bool,
    },
}

impl Watch {
    /// The same for a step that begins as a user.
    pub(super) fn beginning_as(self, user: u32) -> Watch {
        match self {
            Watch::Supervise { scope, by_path, .. } => {
                Watch::Supervise { scope, by_path, strict: scope == Scope::Full && user != 0 }
            }
            other => other,
        }
    }
}

impl Owners<'_> {
    pub(super) fn watch(&self) -> Watch {
        match self {
            Owners::Tree => Watch::Nothing,
            Owners::Nobody => Watch::Discard,
            Owners::Kept(ownership) => {
                let (scope, by_path) = (ownership.scope(), ownership.goes_by_path());
                Watch::Supervise { scope, by_path, strict: false }
            }
        }
    }
}
