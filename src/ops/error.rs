//! What an operation can fail with: the rooms' own errors, and a few that only show when rooms are
//! put together.

use std::io;
use std::path::PathBuf;

use crate::fault::{self, Fault, Kind};
use crate::oci::{Platform, Reference};
use crate::{
    audit, build, definition, describe, disk, layer, lock, plan, registry, rootfs, sandbox, store,
    transfer,
};

use super::room::{Amount, Bound, DiskPlan};

/// An operation that did not succeed.
#[derive(Debug, thiserror::Error)]
#[must_use]
pub enum Error {
    /// Files.
    #[error(transparent)]
    Disk(#[from] disk::Error),
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A copy between store and registry.
    #[error(transparent)]
    Transfer(#[from] transfer::Error),
    /// A registry.
    #[error(transparent)]
    Registry(#[from] registry::Error),
    /// A definition.
    #[error(transparent)]
    Definition(#[from] definition::Error),
    /// A plan.
    #[error(transparent)]
    Plan(#[from] plan::Error),
    /// Locks that can't be one.
    #[error(transparent)]
    Merge(#[from] lock::MergeError),
    /// Layers.
    #[error(transparent)]
    Layer(#[from] layer::Error),
    /// Trees.
    #[error(transparent)]
    Rootfs(#[from] rootfs::Error),
    /// Namespaces and steps.
    #[error(transparent)]
    Sandbox(#[from] sandbox::Error),
    /// A build.
    #[error(transparent)]
    Build(#[from] build::Error),
    /// A comparison.
    #[error(transparent)]
    Audit(#[from] audit::Error),
    /// What goes with an image.
    #[error(transparent)]
    Describe(#[from] describe::Error),
    /// No place for the store is known.
    #[error(
        "no place for the store: neither --store, OCIBUILD_STORE, XDG_DATA_HOME nor HOME says one"
    )]
    NoStore,
    /// The current folder cannot be read.
    #[error("cannot tell the current folder")]
    NoFolder(#[source] io::Error),
    /// stdin ended with an error.
    #[error("cannot read the name or the password")]
    Input(#[source] io::Error),
    /// stdout cannot take the result.
    #[error("cannot write the result to stdout")]
    Output(#[source] io::Error),
    /// Signal handlers cannot be installed.
    #[error("cannot watch for signals")]
    Signals(#[source] io::Error),
    /// A result that is no JSON.
    #[error("cannot encode the result")]
    Encode(#[source] serde_json::Error),
    /// An image that is not in the store.
    #[error("there is no image `{reference}` in the store")]
    NoImage {
        /// What was asked for.
        reference: Reference,
        /// What to do about it.
        hint: String,
    },
    /// A document that is not in the store.
    #[error("there is no {digest} in the store")]
    NoDocument {
        /// What was asked for.
        digest: crate::oci::Digest,
    },
    /// A lock that is missing, or does not fit its definition.
    #[error("`{name}` can't be built locked: {}", joined(misfits))]
    Misfits {
        /// The definition.
        name: String,
        /// Where its lock is, or should be.
        path: PathBuf,
        /// What does not fit.
        misfits: Vec<plan::Misfit>,
    },
    /// A layer without a record of what its steps fetched, right after it was made.
    #[error("what the steps of the layer `{layer}` fetched was not recorded")]
    NotRecorded {
        /// The layer.
        layer: String,
    },
    /// One of two builds, by a process of its own, that has told itself what went wrong.
    #[error("the {} build of the two failed", if *second { "second" } else { "first" })]
    OneOfTwo {
        /// Whether it was the second.
        second: bool,
        /// Its exit code.
        code: u8,
    },
    /// Platforms that an index must have.
    #[error("the index of `{image}` lacks {}", fault::list_of(platforms))]
    MissingPlatforms {
        /// The image.
        image: Reference,
        /// What is missing.
        platforms: Vec<Platform>,
    },
    /// A platform that a destination should have by now.
    #[error(
        "{destination} does not have {manifest}, which the index lists: no tag was moved anywhere"
    )]
    PlatformLost {
        /// Where.
        destination: Reference,
        /// The platform's manifest.
        manifest: crate::oci::Digest,
    },
    /// Tags that move from another branch only.
    #[error("everything was pushed, but no tag was moved: {0}")]
    TagsHeld(String),
    /// A document of an image that makes no sense.
    #[error("the image `{reference}` is damaged")]
    Damaged {
        /// The image.
        reference: String,
        /// What is wrong.
        #[source]
        source: crate::oci::DocumentError,
    },
    /// A configuration that cannot be read.
    #[error("the configuration of `{reference}` cannot be read")]
    Config {
        /// The image.
        reference: String,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// A key that cannot be used.
    #[error("the key `{}` cannot be used", path.display())]
    Key {
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: describe::sign::Error,
    },
    /// Inputs that came with credentials, and may be nobody else's business.
    #[error(
        "inputs of {image} came with credentials, and whoever reads the image would read them:\n  {urls}"
    )]
    Private {
        /// The image.
        image: Reference,
        /// Their addresses.
        urls: String,
    },
    /// An input that the store has no more.
    #[error("the store does not have {digest}, which {url} gave")]
    NoInput {
        /// Its address.
        url: String,
        /// Its digest.
        digest: crate::oci::Digest,
    },
    /// What goes with an image is not there.
    #[error("{image} has no {what} beside it")]
    NotAttached {
        /// Which document.
        what: &'static str,
        /// The image.
        image: Reference,
    },
    /// An image that none of the given keys has signed.
    #[error("{image} is not signed by {}", if *others == 0 { "anyone" } else { "the given key" })]
    NotSigned {
        /// The image.
        image: Reference,
        /// Signatures by other keys, or damaged ones.
        others: usize,
    },
    /// An image that an auditor has not reproduced, as far as his statements beside it say.
    #[error("{image} is not reproduced by the auditor of {}{}", key.display(), if found.is_empty() { String::new() } else { format!(", who says: {}", found.join(", ")) })]
    NotReproduced {
        /// The image.
        image: Reference,
        /// The auditor's public key.
        key: PathBuf,
        /// What the auditor says.
        found: Vec<String>,
    },
    /// A document of our own that has no canonical form.
    #[error("cannot encode a document of the image")]
    Document(#[from] crate::oci::json::EncodeError),
    /// A program of the machine that could not be executed.
    #[error("cannot run `{program}`")]
    Program {
        /// Its name.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A disk that is too small for what is to come.
    #[error("the disk is too small: at least {} are to come ({} to fetch, {} of it kept, the rest unpacked), but {bound}", Amount(plan.blobs + plan.trees_least), Amount(plan.fetch), Amount(plan.blobs))]
    NoRoom {
        /// What was to come.
        plan: Box<DiskPlan>,
        /// What there is.
        bound: Bound,
    },
    /// A use of the library outside the namespace that it needs.
    #[error("layers can be unpacked and steps run only inside a user namespace")]
    NotInside,
    /// An option's value.
    #[error("{0}")]
    Usage(String),
}

fn joined(misfits: &[plan::Misfit]) -> String {
    misfits.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl Error {
    fn inner(&self) -> Option<&dyn Fault> {
        Some(match self {
            Error::Disk(error) => error,
            Error::Store(error) => error,
            Error::Transfer(error) => error,
            Error::Registry(error) => error,
            Error::Definition(error) => error,
            Error::Plan(error) => error,
            Error::Merge(error) => error,
            Error::Layer(error) => error,
            Error::Rootfs(error) => error,
            Error::Sandbox(error) => error,
            Error::Build(error) => error,
            Error::Audit(error) => error,
            Error::Describe(error) => error,
            _ => return None,
        })
    }
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        if let Some(inner) = self.inner() {
            return inner.kind();
        }
        match self {
            Error::NoStore
            | Error::Usage(_)
            | Error::Misfits { .. }
            | Error::OneOfTwo { code: 2, .. } => Kind::Usage,
            Error::NoFolder(_)
            | Error::Signals(_)
            | Error::NoRoom { .. }
            | Error::OneOfTwo { code: 3, .. } => Kind::Environment,
            Error::NotInside | Error::Document(_) | Error::NotRecorded { .. } => Kind::Bug,
            Error::Key { source, .. } => source.kind(),
            _ => Kind::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        if let Some(inner) = self.inner() {
            return inner.hint();
        }
        match self {
            Error::NoStore => Some("say one with --store DIR".to_owned()),
            Error::Misfits { name, path, misfits } => {
                let layers: Vec<&str> = misfits
                    .iter()
                    .filter_map(|misfit| match misfit {
                        plan::Misfit::Layer(_, name) => Some(name.as_str()),
                        _ => None,
                    })
                    .collect();
                let update = match layers.as_slice() {
                    [] => String::new(),
                    layers => format!(" --update {}", layers.join(",")),
                };
                Some(format!("`ocibuild lock {name}{update}` writes {}", path.display()))
            }
            Error::NoImage { hint, .. } => Some(hint.clone()),
            Error::MissingPlatforms { platforms, .. } => Some(format!(
                "build them, or name what was pushed for {}: `ocibuild index NAME REF@sha256:…`",
                fault::list_of(platforms)
            )),
            Error::NoDocument { .. } => {
                Some("name the image with its registry: NAME@sha256:…".to_owned())
            }
            Error::NoRoom { bound: Bound::Allowed { .. }, .. } => Some(
                "give a larger --disk, take images out with `ocibuild remove`, or build one platform \
                 at a time with --platform"
                    .to_owned(),
            ),
            Error::NoRoom { .. } => Some(
                "free space there, run `ocibuild gc`, or choose another place with --store".to_owned(),
            ),
            Error::Key { source, .. } => source.hint(),
            Error::Private { .. } => {
                Some("--yes sends them all the same; without --inputs none are sent".to_owned())
            }
            Error::NoInput { .. } => {
                Some("`ocibuild build --locked --no-cache` fetches what is missing".to_owned())
            }
            Error::NotAttached { .. } => Some(
                "a build writes it down and `ocibuild push` sends it, unless told not to"
                    .to_owned(),
            ),
            Error::NotSigned { others: 0, .. } => {
                Some("`ocibuild sign` signs an image in its registry".to_owned())
            }
            Error::NotSigned { others, .. } => Some(format!(
                "{others} signatures or statements by others are there: is this the right key?"
            )),
            Error::NotReproduced { found, .. } if found.is_empty() => {
                Some("`ocibuild audit --attest` says what an audit comes to".to_owned())
            }
            Error::PlatformLost { .. } => Some("push again".to_owned()),
            Error::Damaged { .. } | Error::Config { .. } => {
                Some("pull or build it again".to_owned())
            }
            _ => None,
        }
    }
}
