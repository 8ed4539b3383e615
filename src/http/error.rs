//! Requests that got no answer. An answer with a bad status is no error here: the caller knows what
//! it means.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::{Method, Url};

use crate::fault::{Fault, Kind};

/// Parameters that may be shown; the values of all others may be secrets (a presigned URL is one).
const PUBLIC: [&str; 8] = ["digest", "from", "last", "mount", "n", "scope", "service", "tag"];

/// Writes a URL as it may be shown and logged: without user, password and secret parameters.
pub fn redact(url: &Url) -> String {
    use std::fmt::Write;
    let mut shown = url.clone();
    // Both fail only for URLs without a host, which have neither.
    shown.set_username("").ok();
    shown.set_password(None).ok();
    shown.set_fragment(None);
    shown.set_query(None);
    let mut text = shown.to_string();
    let mut separator = '?';
    let mut hidden = false;
    for (name, value) in url.query_pairs() {
        if PUBLIC.contains(&&*name) {
            // Writing to a String cannot fail.
            write!(text, "{separator}{name}={value}").ok();
            separator = '&';
        } else {
            hidden = true;
        }
    }
    if hidden {
        text.push(separator);
        text.push('…');
    }
    text
}

/// What lies at the bottom of an error of reqwest's, without the layers above it and without URLs.
#[derive(Clone, Debug)]
pub struct Cause(String);

impl Cause {
    /// Takes the innermost of an error's causes.
    pub fn of(error: &(dyn std::error::Error + 'static)) -> Cause {
        let mut innermost = error;
        while let Some(source) = innermost.source() {
            innermost = source;
        }
        Cause(innermost.to_string())
    }
}

impl From<String> for Cause {
    fn from(text: String) -> Cause {
        Cause(text)
    }
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Cause {}

/// A request that got no answer, or not all of it. URLs are redacted.
#[derive(Debug, thiserror::Error)]
#[must_use]
pub enum Error {
    /// A text that is no URL of a web server.
    #[error("`{text}` is not an http or https URL")]
    Url {
        /// The text.
        text: String,
    },
    /// A request where none may be sent.
    #[error("{url} is not asked: this is to go without the network")]
    Offline {
        /// Where it was to go.
        url: String,
    },
    /// A value that no header can carry.
    #[error("the header `{name}` cannot hold that value")]
    Header {
        /// The header.
        name: String,
    },
    /// A bundle of certificates that cannot be used.
    #[error("cannot use the certificates in {}", path.display())]
    Certificates {
        /// The bundle.
        path: PathBuf,
        /// Why not.
        #[source]
        source: Cause,
    },
    /// A proxy that cannot be used.
    #[error("cannot use the proxy of `{variable}`")]
    Proxy {
        /// The variable that names it.
        variable: &'static str,
        /// Why not.
        #[source]
        source: Cause,
    },
    /// TLS cannot be set up.
    #[error("cannot set up TLS")]
    Tls {
        /// Why not.
        #[source]
        source: Cause,
    },
    /// The runtime's thread cannot start.
    #[error("cannot start the thread of the HTTP client")]
    Thread {
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// No connection, or one that broke before the answer began.
    #[error("{method} {url} got no answer{}", times(*tries))]
    Send {
        /// The method.
        method: Method,
        /// Where it went.
        url: String,
        /// How often it was tried.
        tries: u32,
        /// Whether not even a connection stood.
        connect: bool,
        /// Why not.
        #[source]
        source: Cause,
    },
    /// The answer did not begin in time.
    #[error("{url} did not answer within {} s", after.as_secs())]
    Silence {
        /// Where the request went.
        url: String,
        /// How long we waited.
        after: Duration,
    },
    /// A body stood still.
    #[error("the transfer with {url} stood still for {} s", after.as_secs())]
    Stalled {
        /// The other side.
        url: String,
        /// How long we waited.
        after: Duration,
    },
    /// An answer that ended early.
    #[error("the connection to {url} broke")]
    Cut {
        /// Where the answer came from.
        url: String,
        /// How.
        #[source]
        source: Cause,
    },
    /// The body that was to be sent could not be read on this side.
    #[error("cannot read what is to be sent to {url}")]
    Body {
        /// Where it was to go.
        url: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// An answer larger than anything of its kind.
    #[error("{url} sent more than {limit} bytes")]
    TooLarge {
        /// Where it came from.
        url: String,
        /// How many there may be.
        limit: u64,
    },
    /// Redirects without end.
    #[error("{url} redirects too often")]
    Redirects {
        /// Where the first request went.
        url: String,
    },
    /// A redirect that leads nowhere.
    #[error("{url} redirects to something that is no http or https URL")]
    BadRedirect {
        /// Who redirects.
        url: String,
    },
    /// A redirect out of TLS.
    #[error("{url} redirects to {to}, which is not encrypted")]
    Downgrade {
        /// Who redirects.
        url: String,
        /// Where to.
        to: String,
    },
}

fn times(tries: u32) -> String {
    if tries > 1 { format!(" in {tries} tries") } else { String::new() }
}

impl Error {
    pub(super) fn send(method: &Method, url: &Url, error: &reqwest::Error) -> Error {
        Error::Send {
            method: method.clone(),
            url: redact(url),
            tries: 1,
            connect: error.is_connect(),
            source: Cause::of(error),
        }
    }

    /// Notes how often it was tried.
    pub(super) fn after(mut self, tried: u32) -> Error {
        if let Error::Send { tries, .. } = &mut self {
            *tries = tried;
        }
        self
    }

    /// Takes an error that came out of a response's body.
    pub fn of_body(url: &Url, error: io::Error) -> Error {
        match error.downcast::<Error>() {
            Ok(error) => error,
            Err(error) => Error::Cut { url: redact(url), source: Cause::of(&error) },
        }
    }

    /// Tells whether the same request may fare better later.
    pub fn is_transient(&self) -> bool {
        match self {
            Error::Send { source, .. } => !is_about_tls(&source.0),
            Error::Silence { .. } | Error::Stalled { .. } | Error::Cut { .. } => true,
            _ => false,
        }
    }
}

/// Tells a handshake that will never succeed from a network that is down.
fn is_about_tls(cause: &str) -> bool {
    cause.contains("certificate") || wants_certificate(cause) || speaks_plain(cause)
}

/// Tells a server that asks for our certificate, or does not like it: by its alert.
fn wants_certificate(cause: &str) -> bool {
    [
        "CertificateRequired",
        "BadCertificate",
        "CertificateUnknown",
        "UnknownCA",
        "CertificateExpired",
    ]
    .iter()
    .any(|alert| cause.contains(&format!("fatal alert: {alert}")))
}

fn speaks_plain(cause: &str) -> bool {
    cause.contains("corrupt message") || cause.contains("InvalidContentType")
}

fn in_certs_d(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == "certs.d")
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Error::Url { .. } | Error::Header { .. } => Kind::Usage,
            Error::Certificates { .. }
            | Error::Proxy { .. }
            | Error::Tls { .. }
            | Error::Thread { .. }
            | Error::Send { connect: true, .. } => Kind::Environment,
            _ => Kind::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        let text = match self {
            Error::Send { source, .. } if speaks_plain(&source.0) => {
                "the server speaks plain HTTP there: name it with --plain-http if that is meant"
            }
            Error::Send { source, .. } if wants_certificate(&source.0) => {
                "it knows its clients by certificate: put client.cert and client.key into \
                 ~/.config/containers/certs.d/HOST[:PORT], of an authority that it trusts"
            }
            Error::Send { source, .. } if source.0.contains("certificate") => {
                "if the server is to be trusted, put its authority's certificate into \
                 ~/.config/containers/certs.d/HOST[:PORT]/ca.crt, or name it with SSL_CERT_FILE"
            }
            Error::Send { connect: true, .. } => {
                "check the name, the network, and the proxy variables (https_proxy, no_proxy)"
            }
            Error::Certificates { path, .. } if in_certs_d(path) => {
                "a folder of certs.d holds *.crt of authorities, and client.cert with client.key"
            }
            Error::Offline { .. } => {
                "bring what is missing into the store first, or leave --offline out"
            }
            Error::Certificates { .. } => "check SSL_CERT_FILE",
            Error::Proxy { .. } => "proxies are given as http://HOST:PORT",
            Error::Silence { .. } | Error::Stalled { .. } | Error::Cut { .. } => {
                "try again: what has arrived whole is not moved again"
            }
            _ => return None,
        };
        Some(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_in_a_message_holds_no_secret() {
        let url = |text| redact(&Url::parse(text).unwrap());
        assert_eq!(
            url("https://me:pw@r.io/v2/a/blobs/uploads/?digest=sha256:1&_state=secret#x"),
            "https://r.io/v2/a/blobs/uploads/?digest=sha256:1&…"
        );
        assert_eq!(url("https://cdn/x?X-Amz-Signature=abc"), "https://cdn/x?…");
        assert_eq!(url("https://r.io/v2/"), "https://r.io/v2/");
    }
}
