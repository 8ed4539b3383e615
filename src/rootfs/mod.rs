//! Unpacked layers as a tree to run in; and what lies beside an unpacked layer because a folder
//! cannot hold it everywhere.

mod sidecar;

pub use sidecar::{Device, DeviceKind, EntryPath, Ledger, Sidecar};
