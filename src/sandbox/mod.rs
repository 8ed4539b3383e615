//! Commands over a tree, without privileges on the machine.
//!
//! ```text
//! ocibuild build …            outer: as it was called; waits, forwards signals
//!  └ ocibuild build …         inner: the same command in a user and mount namespace (`enter`);
//!     │                       root there; mounts trees, builds, may have threads
//!     └ helper                one for each step (`run`): starts and watches the step
//!        └ init               process 1 of the step's namespaces; reaps
//!           └ the command
//! ```
//! A process with a second thread can't enter a user namespace; so both steps down execute our own
//! binary once more, and `main` calls [`run_if_helper`] first of all. Each process dies with the
//! one above it, and all mounts with them: a killed build leaves files at most.

mod doors;
mod emulate;
mod enter;
mod error;
mod examine;
mod filter;
mod helper;
mod ids;
mod init;
mod limits;
mod mounts;
mod run;
mod spec;
mod supervise;
mod sys;
mod terminal;
mod user;
mod wire;

pub use doors::{Doors, Refusals};
pub use emulate::{Emulation, Means, emulations, keep_emulators, provide};
pub use enter::{Entered, Entry, Mode, Request, enter, run_if_helper};
pub use error::Error;
pub use examine::{Finding, Lack, State, examine};
pub use run::{Attendants, Cancel, Recorder, attach, run};
pub use spec::{Access, Mount, Network, Outcome, Spec, What};
pub use supervise::{Owners, Ownership, Scope};
pub use terminal::{Terminal, read_hidden, restore_terminal};
