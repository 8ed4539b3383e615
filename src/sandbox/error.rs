//! What can go wrong around a command, the command's own failure not among it.

use std::io;

use crate::fault::{self, Fault, Kind};
use crate::sandbox::{Lack, examine, limits};

/// A sandbox that could not be entered or set up.
#[derive(Debug, thiserror::Error)]
#[must_use]
pub enum Error {
    /// The machine doesn't allow what was asked for.
    #[error("cannot build with {mode} here")]
    Unavailable {
        /// What was asked for, in words.
        mode: &'static str,
        /// What is missing.
        #[source]
        lack: Lack,
    },
    /// Setting up the namespaces or the step's tree.
    #[error("cannot {what}")]
    Setup {
        /// What was tried.
        what: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The image has no such user or group.
    #[error("the image has no {what} `{name}`")]
    NoSuchUser {
        /// `user` or `group`.
        what: String,
        /// The name.
        name: String,
    },
    /// A mount has no place in the tree.
    #[error("`{path}` does not exist in the image, so that nothing can be mounted there")]
    NoMountPoint {
        /// The path in the tree.
        path: String,
    },
    /// The program could not be started.
    #[error("cannot run `{program}` in the image")]
    Program {
        /// Its name.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The network was to be recorded, and the caller has nobody for it.
    #[error("a step's network was to be recorded, and there is no recorder")]
    NoRecorder,
    /// The sockets of a step's network could not be taken out of it, or nobody can serve them.
    #[error("the step's network can't be recorded here")]
    NoDoors {
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The kernel doesn't let another process answer a step's system calls.
    #[error(
        "the owners of files cannot be kept here: the kernel gives no listener of system calls"
    )]
    NoSupervision {
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The supervisor of a step failed.
    #[error("the supervisor of the step's system calls failed")]
    Supervisor {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A step was to run outside of [`crate::sandbox::enter()`].
    #[error("a step was started outside of the build's namespaces")]
    Outside,
    /// A helper process ended without an answer.
    #[error("the sandbox's helper process ended without an answer ({status})")]
    HelperDied {
        /// How it ended.
        status: String,
    },
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Error::Unavailable { .. } | Error::NoSupervision { .. } | Error::NoDoors { .. } => {
                Kind::Environment
            }
            Error::Supervisor { source } | Error::Setup { source, .. } => fault::kind_of_io(source),
            Error::NoSuchUser { .. } => Kind::Usage,
            Error::NoMountPoint { .. } | Error::Program { .. } | Error::HelperDied { .. } => {
                Kind::Failed
            }
            Error::Outside | Error::NoRecorder => Kind::Bug,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Error::Unavailable { lack, .. } => Some(lack.fix()),
            Error::Setup { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                let fix = "run `ocibuild doctor`, which says what this machine does not allow";
                Some(if examine::is_filtered() { examine::UNFILTERED } else { fix }.to_owned())
            }
            Error::Setup { source, .. } => fault::hint_of_io(source),
            Error::NoSuchUser { .. } => Some(
                "use a name from the image's /etc/passwd or /etc/group, or a number".to_owned(),
            ),
            Error::Program { source, .. } => match source.raw_os_error() {
                Some(libc::ENOENT) => Some(
                    "check PATH, and the interpreter that the script's first line names".to_owned(),
                ),
                Some(libc::ENOEXEC) => Some(
                    "it has no `#!` line, or is for another architecture than this machine's"
                        .to_owned(),
                ),
                Some(libc::EACCES) => Some("it must be executable for the step's user".to_owned()),
                _ => None,
            },
            // Without records Yama would stand in the supervisor's way.
            Error::NoDoors { .. } => Some(limits::yama().map_or_else(
                || "use Linux 5.6 or later, or `--network host`, which records nothing".to_owned(),
                |lack| lack.fix(),
            )),
            Error::NoSupervision { .. } => Some(
                "use a kernel with seccomp user notification (Linux 5.5 or later, outside of a \
                 container's own filter), a user with subordinate ids, or `--ownership=discard`, \
                 which loses all owners"
                    .to_owned(),
            ),
            Error::NoMountPoint { .. }
            | Error::Outside
            | Error::NoRecorder
            | Error::HelperDied { .. }
            | Error::Supervisor { .. } => None,
        }
    }
}
