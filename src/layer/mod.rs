//! A layer's way between tree and blob: changes -> normalise in place -> canonical tar -> compressed
//! blob, and a blob back into a tree with its sidecar. Whatever reaches a digest is decided here:
//! the tar's bytes (`write`), the compression profiles (`profile`), the rules (`normalise`).

mod blocks;
mod capability;
mod error;
mod gzip;
mod header;
pub mod normalise;
mod pack;
mod profile;
mod unpack;
mod write;

pub use error::{EntryProblem, Error};
pub use pack::{Packed, measure, pack};
pub use profile::Profile;
pub use unpack::{
    Blob, Content, Entry, EntryKind, Limits, Owners, Unpacked, check, entries, expand, unpack,
};
pub use write::write_tar;
