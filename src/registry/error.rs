//! What goes wrong with a registry, and what to try then.

use std::path::PathBuf;

use crate::disk;
use crate::fault::{self, Fault, Kind};
use crate::http::{self, StatusCode};
use crate::oci::{Digest, DocumentError};
use crate::transfer;

use super::refusal::{Asking, Refusal, log_in};

/// A registry that could not be used.
#[derive(Debug, thiserror::Error)]
#[must_use]
pub enum Error {
    /// No answer.
    #[error(transparent)]
    Http(#[from] http::Error),
    /// An answer that says no.
    #[error(transparent)]
    Refused(Box<Refusal>),
    /// A name that is not there.
    #[error("there is no {what} in {repository}")]
    NotFound {
        /// The repository.
        repository: String,
        /// The tag or the digest.
        what: String,
        /// Who asked, if anyone in particular.
        account: Option<String>,
    },
    /// A name of another repository than the one that was opened.
    #[error("{reference} is not in {repository}")]
    Elsewhere {
        /// The name.
        reference: String,
        /// The repository.
        repository: String,
    },
    /// A name with which no URL can be made.
    #[error("`{registry}` is no host")]
    Host {
        /// The name.
        registry: String,
    },
    /// A registry that wants a password when we have none.
    #[error("{registry} wants a user and a password, and there is none for it")]
    NoCredential {
        /// The registry.
        registry: String,
    },
    /// No place is known for a credential.
    #[error("there is no file for the credential of {registry}")]
    NoAuthFile {
        /// The registry.
        registry: String,
    },
    /// A registry that wants to know us in a way that we do not know.
    #[error("{registry} refuses us and says no way to log in that is known here ({})", schemes.join(", "))]
    Challenge {
        /// The registry.
        registry: String,
        /// The ways that it names.
        schemes: Vec<String>,
    },
    /// A token server to which nothing secret may be said.
    #[error("{registry} sends us for a token to `{realm}`, which is not encrypted or no URL")]
    Realm {
        /// The registry.
        registry: String,
        /// The token server.
        realm: String,
    },
    /// A token server that gives no token.
    #[error("{realm} answered without a token")]
    Token {
        /// The token server.
        realm: String,
    },
    /// A credential helper that failed.
    #[error("{program} failed: {reason}")]
    Helper {
        /// Its program.
        program: String,
        /// Why.
        reason: String,
    },
    /// An authentication file that cannot be understood.
    #[error("{} is not a file of registry credentials", path.display())]
    AuthFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// A `registries.conf` that cannot be understood.
    #[error("{} is no file of registries: {reason}", path.display())]
    RegistriesFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A name without a registry that several may have.
    #[error("`{name}` names no registry, and {} has several to search", file.display())]
    Ambiguous {
        /// The name.
        name: String,
        /// What it may be.
        candidates: Vec<String>,
        /// The file.
        file: PathBuf,
    },
    /// A name that a `registries.conf` forbids.
    #[error("`{name}` is blocked by {}", file.display())]
    Blocked {
        /// The name.
        name: String,
        /// The file.
        file: PathBuf,
    },
    /// A file that cannot be read.
    #[error(transparent)]
    Disk(#[from] disk::Error),
    /// A document that cannot be what it says.
    #[error("{repository} holds something that is no image")]
    Document {
        /// The repository.
        repository: String,
        /// What is wrong with it.
        #[source]
        source: DocumentError,
    },
    /// A document with another digest than the one that was asked for.
    #[error("{repository} answered with {actual} when asked for {expected}")]
    WrongDocument {
        /// The repository.
        repository: String,
        /// What was asked for.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// A blob of another length than its descriptor says.
    #[error("{repository} announces {announced} bytes for {digest}, which should have {expected}")]
    Length {
        /// The repository.
        repository: String,
        /// The blob.
        digest: Digest,
        /// Its size by the descriptor.
        expected: u64,
        /// Its size by the registry.
        announced: u64,
    },
    /// An upload that came out under another digest.
    #[error("{repository} took {expected} but calls it {actual}")]
    Misnamed {
        /// The repository.
        repository: String,
        /// What was sent.
        expected: Digest,
        /// What the registry says it is.
        actual: String,
    },
    /// A tag that does not stand for what was just put there.
    #[error("the tag `{tag}` of {repository} does not stand for {expected} after it was set")]
    Tag {
        /// The repository.
        repository: String,
        /// The tag.
        tag: String,
        /// What it should stand for.
        expected: Digest,
    },
    /// A list of referrers that others write all the time.
    #[error("the list `{tag}` of {repository} was overwritten by others each time")]
    Contended {
        /// The repository.
        repository: String,
        /// Its tag.
        tag: String,
    },
    /// A list of referrers that has no canonical form.
    #[error("the list of referrers in {repository} cannot be written again")]
    Encode {
        /// The repository.
        repository: String,
        /// What is wrong with it.
        #[source]
        source: crate::oci::json::EncodeError,
    },
    /// An upload without a place to go.
    #[error("{repository} accepts an upload but does not say where to")]
    Location {
        /// The repository.
        repository: String,
    },
}

impl Error {
    /// Tells whether the registry says that there is no such thing.
    pub fn is_not_found(&self) -> bool {
        match self {
            Error::NotFound { .. } => true,
            Error::Refused(refusal) => refusal.status == StatusCode::NOT_FOUND,
            _ => false,
        }
    }
}

impl From<Error> for transfer::Error {
    fn from(error: Error) -> transfer::Error {
        transfer::Error::other(error)
    }
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Error::Http(error) => error.kind(),
            Error::Disk(error) => error.kind(),
            Error::AuthFile { .. }
            | Error::NoAuthFile { .. }
            | Error::RegistriesFile { .. }
            | Error::Ambiguous { .. }
            | Error::Host { .. }
            | Error::Elsewhere { .. } => Kind::Usage,
            _ => Kind::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Error::Http(error) => error.hint(),
            Error::Disk(error) => error.hint(),
            Error::Refused(refusal) => refusal.hint(),
            Error::Ambiguous { candidates, .. } => {
                Some(format!("write out which is meant: {}", fault::list_of(candidates)))
            }
            Error::NotFound { account: Some(account), .. } => {
                Some(format!("check the name, and that {account} may see it"))
            }
            Error::NotFound { account: None, .. } => {
                Some("check the name; many registries also say this of what one has to log in for".to_owned())
            }
            Error::NoCredential { registry } => Some(log_in(registry, &Asking::default())),
            Error::NoAuthFile { .. } => {
                Some("set HOME, DOCKER_CONFIG or REGISTRY_AUTH_FILE".to_owned())
            }
            Error::RegistriesFile { .. } => {
                Some("see containers-registries.conf(5), or name another file with CONTAINERS_REGISTRIES_CONF".to_owned())
            }
            Error::Blocked { .. } => {
                Some("use another image, or change that file if it is yours".to_owned())
            }
            Error::Helper { .. } => Some(
                "the helper is named by credsStore or credHelpers in docker's or podman's file of credentials".to_owned(),
            ),
            Error::WrongDocument { .. } | Error::Length { .. } => {
                Some("the registry's copy is damaged, or a proxy changes it; try another source".to_owned())
            }
            Error::Tag { .. } => Some("another push may have set it at the same time".to_owned()),
            _ => None,
        }
    }
}
