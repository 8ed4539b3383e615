//! Signatures with a key that lies in a file, in the forms that cosign writes and checks.
//!
//! ```text
//! statement -> DSSE envelope, signed -> sigstore bundle -> artifact that refers to the image
//! payload   -> signed                                   -> layer of `sha256-….sig`, the older form
//! ```

mod bundle;
mod error;
mod key;
mod sealed;
mod simple;

pub use bundle::{BUNDLE, Bundle};
pub use error::Error;
pub use key::{PublicKey, SigningKey};
pub use simple::{SIMPLE, SIMPLE_SIGNATURE, Simple, tag as simple_tag};
