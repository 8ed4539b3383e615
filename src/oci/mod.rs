//! The nouns of the OCI image specification, as far as their bytes are our identity: digest,
//! reference, platform, descriptor, manifest, index, config, and the one encoder of anything hashed.
//! Documents that came from elsewhere are carried as JSON, so that what we do not know survives.

mod config;
mod descriptor;
mod digest;
mod document;
pub mod json;
pub mod media_type;
mod platform;
mod reference;

pub use config::{ConfigDocument, HistoryEntry};
pub use descriptor::Descriptor;
pub use digest::{Digest, DigestError, Hasher};
pub use document::{DOCUMENT_LIMIT, Document, DocumentError, Index, Manifest};
pub use platform::{Platform, PlatformError};
pub use reference::{Reference, ReferenceError};

/// Annotation of an index entry that names it (image-spec, annotations).
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
