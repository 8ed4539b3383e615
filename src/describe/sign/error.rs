//! What can be wrong with keys and signatures.

use crate::fault::{Fault, Kind};

/// A key or a signature that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not a key at all.
    #[error("it is no key in PEM form")]
    NotPem,
    /// A block of another type than is needed.
    #[error("it holds a `{found}`, not {wanted}")]
    Label {
        /// What it holds.
        found: String,
        /// What was looked for.
        wanted: &'static str,
    },
    /// A damaged key, or one of a kind that is not known.
    #[error("its key is damaged, or of another kind than ECDSA P-256 and Ed25519")]
    KeyKind,
    /// A sealed key without its password.
    #[error("it is encrypted, and no password was given")]
    NoPassword,
    /// A sealed key with another's password.
    #[error("the password does not open it")]
    WrongPassword,
    /// A sealed key in a way that is not known.
    #[error("it is encrypted by `{0}`, which is not known here")]
    Cipher(String),
    /// A sealed key whose parameters make no sense.
    #[error("its encryption is damaged")]
    Sealed,
    /// A bundle that cannot be read.
    #[error("it is no sigstore bundle with a signed statement: {0}")]
    NotBundle(String),
    /// Not signed by the key.
    #[error("its signature is not of this key")]
    NotSigned,
    /// Signed, but of something else.
    #[error("it speaks of another image")]
    OtherSubject,
    /// The machine gives no random numbers, or the library refuses.
    #[error("cannot make a signature or a key")]
    Library,
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Error::Library => Kind::Environment,
            Error::NotBundle(_) | Error::NotSigned | Error::OtherSubject => Kind::Failed,
            _ => Kind::Usage,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Error::NotPem | Error::Label { .. } | Error::KeyKind => Some(
                "`ocibuild keygen` and `cosign generate-key-pair` make keys; so does `openssl \
                 genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256`"
                    .to_owned(),
            ),
            Error::NoPassword | Error::WrongPassword => {
                Some("set COSIGN_PASSWORD to the key's password".to_owned())
            }
            _ => None,
        }
    }
}
