//! The nouns: an answered request as it stands in a lock, and what a step's record holds.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::oci::Digest;

/// The methods that can be recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// The body of a URL.
    Get,
    /// The headers alone, where no GET of the same URL was answered.
    Head,
    /// A query: the answer depends on what was sent.
    Post,
}

/// What an answer depends on beside method and URL. Only what was seen to make a difference is here,
/// so that the same contents give the same list whoever asked and how often.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variant {
    /// The digest of what a POST sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<Digest>,
    /// The request's `Accept`, where another one got another answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accept: Option<String>,
    /// The program that asked, where another one got another answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
}

/// Who vouches for a body, strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuthorityClass {
    /// A signature of its own, which the step's package manager verifies.
    Gpg,
    /// A digest in an index of apt's whose chain ends at a signature.
    AptChain,
    /// A digest in an index of Python packages.
    PypiHash,
    /// The `integrity` of a package's description.
    NpmIntegrity,
    /// A digest in a channel's `repodata`.
    CondaSha256,
    /// A digest that the recipe gives.
    Declared,
    /// The server's certificate alone.
    TlsOnly,
    /// Nobody: it came by plain HTTP.
    None,
}

/// One answered request, as it stands in a lock. Ordered by URL first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fetch {
    /// The URL, with `REDACTED` for what is secret or made for one request.
    pub url: String,
    /// The method.
    pub method: Method,
    /// What else the answer depends on.
    #[serde(default, skip_serializing_if = "is_default")]
    pub variant: Variant,
    /// Whether the request came with credentials. The answer may be nobody else's business.
    #[serde(default, skip_serializing_if = "is_default")]
    pub credentials: bool,
    /// Counts the answers where the same request got different ones in turn; the last goes on being
    /// given.
    #[serde(default, skip_serializing_if = "is_default")]
    pub turn: u32,
    /// The status.
    pub status: u16,
    /// The digest of the body, which is empty for redirects and HEAD.
    pub digest: Digest,
    /// The body's size.
    pub size: u64,
    /// The headers that matter, in lower case.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Who vouches for the body.
    pub authority: AuthorityClass,
}

/// A request that no lock lists.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Missing {
    /// The URL, redacted.
    pub url: String,
    /// The method.
    pub method: String,
    /// The step that asked.
    pub step: String,
}

/// Something that can't be recorded, and was not answered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refused {
    /// What it was, as `a WebSocket to example.com`.
    pub what: String,
    /// The step that tried.
    pub step: String,
}

/// A request that got no answer, or not all of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Trouble {
    /// The URL, redacted.
    pub url: String,
    /// What happened.
    pub what: String,
    /// The step that asked.
    pub step: String,
}

/// What was asked and answered. All lists are sorted and name nothing twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// What was answered, in the order of a lock.
    pub fetches: Vec<Fetch>,
    /// What is not in the lock; a step that asked for it can't have gone as recorded.
    pub unlisted: Vec<Missing>,
    /// What can't be recorded.
    pub refused: Vec<Refused>,
    /// What upstream failed to give. A step may have lived with that; the record has a hole there.
    pub troubles: Vec<Trouble>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Every class with its word, strongest first.
const CLASSES: [(AuthorityClass, &str); 8] = [
    (AuthorityClass::Gpg, "gpg"),
    (AuthorityClass::AptChain, "apt-chain"),
    (AuthorityClass::PypiHash, "pypi-hash"),
    (AuthorityClass::NpmIntegrity, "npm-integrity"),
    (AuthorityClass::CondaSha256, "conda-sha256"),
    (AuthorityClass::Declared, "declared"),
    (AuthorityClass::TlsOnly, "tls-only"),
    (AuthorityClass::None, "none"),
];

const METHODS: [(Method, &str); 3] =
    [(Method::Get, "GET"), (Method::Head, "HEAD"), (Method::Post, "POST")];

fn word<T: PartialEq>(table: &[(T, &'static str)], value: &T) -> &'static str {
    table.iter().find(|(known, _)| known == value).map_or("", |(_, word)| word)
}

impl fmt::Display for AuthorityClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(word(&CLASSES, self))
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(word(&METHODS, self))
    }
}

/// A word that names no method or class.
#[derive(Clone, Debug, thiserror::Error)]
#[error("`{word}` is none of {}", known.join(", "))]
pub struct UnknownWord {
    word: String,
    known: Vec<&'static str>,
}

fn find<T: Copy>(table: &[(T, &'static str)], text: &str) -> Result<T, UnknownWord> {
    table.iter().find(|(_, word)| *word == text).map(|(value, _)| *value).ok_or_else(|| {
        UnknownWord {
            word: text.chars().take(100).collect(),
            known: table.iter().map(|(_, word)| *word).collect(),
        }
    })
}

impl FromStr for AuthorityClass {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<AuthorityClass, UnknownWord> {
        find(&CLASSES, text)
    }
}

impl FromStr for Method {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Method, UnknownWord> {
        find(&METHODS, text)
    }
}
