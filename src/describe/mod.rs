//! What goes with an image: the packages in it as an SPDX document, where it comes from as SLSA
//! provenance, and signatures over both. All of it refers to the image by digest and is no part of it,
//! so that nothing here can change what the image is.

mod artifact;
pub mod audited;
mod error;
mod licence;
pub mod packages;
pub mod provenance;
mod purl;
pub mod sign;
pub mod sources;
mod spdx;
pub mod statement;

pub use artifact::{Artifact, Parts};
pub use error::Error;
pub use spdx::{Described, document as spdx};
pub use statement::Statement;
