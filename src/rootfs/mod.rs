//! Unpacked layers stacked to a tree that a step can run in: an overlay whose upper folder holds
//! what the step changes, or where none works a [`PlainTree`], a copy of them all.
//!
//! ```text
//! merged/   = upper : extras : repairs : layer N : mask N : layer N-1 : mask N-1 : …   (read-write)
//! parent/   =                  repairs : layer N : mask N : …                          (read-only)
//! ```
//! An unpacked layer's tree holds no whiteouts; a mask is made from its sidecar. `repairs` gives
//! the folders that a layer's tar only implied what they are in the layers below. `extras` carries
//! the step's own `/etc/resolv.conf` and missing mount points, with each folder it must repeat as
//! it truly is, so that neither the upper folder nor `parent` shows any of it.
//!
//! To be used inside of the user namespace of [`crate::sandbox::enter()`].

mod claim;
mod copy;
mod error;
mod extras;
mod flat;
mod masks;
mod memory;
mod overlay;
mod plain;
mod probe;
mod queue;
mod records;
mod remove;
mod repairs;
mod sidecar;
mod snapshot;
mod space;
mod stack;
mod tree;
mod truth;

use std::path::PathBuf;
use std::sync::Arc;

pub use claim::claim;
pub use error::Error;
pub use extras::Extras;
pub use memory::available_memory;
pub use overlay::{Mounted, mount};
pub use plain::{PlainTree, each};
pub use probe::{Why, is_network, probe_overlay, probe_owners, probe_plain, probe_reflink};
pub use queue::in_parallel;
pub use records::{Inherited, records};
pub use remove::remove_tree;
pub use sidecar::{Device, DeviceKind, EntryPath, Ledger, Sidecar};
pub use snapshot::{Known, Snapshot, print_of};
pub use space::Space;
pub use tree::{Tree, TreeKind, TreeRequest, size_of};
pub use truth::{Plain, Record, Truth};

/// A layer in a stack.
#[derive(Clone, Debug)]
pub struct Lower {
    /// Its files.
    pub tree: PathBuf,
    /// What an unpacked tree leaves out; `None` for the upper folder of an overlay, which says all
    /// of it in overlay's own way.
    pub sidecar: Option<Sidecar>,
    /// What is remembered of the entries of such an upper folder beside it; empty for all others.
    pub ledger: Arc<Ledger>,
}
