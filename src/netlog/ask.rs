//! A request as it came from a step: what goes upstream of it, what tells it from others, and what
//! the client wished of the answer's form, which is not upstream's business, since what is recorded
//! is whole.

use bytes::Bytes;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};

use super::secret::{self, Shown};
use super::{Method, Variant};
use crate::http::Url;
use crate::oci::Digest;

/// The most that a query may send.
pub(super) const MOST_SENT: usize = 64 << 20;

/// Headers that stay here: those of one connection, and those that would make the answer less than
/// the whole body in its plain form.
const KEPT_BACK: [&str; 22] = [
    "accept-encoding",
    "cache-control",
    "connection",
    "content-length",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "keep-alive",
    "pragma",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A request of a step's.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) shown: Shown,
    /// What goes upstream.
    pub(super) headers: HeaderMap,
    /// What was sent.
    pub(super) body: Bytes,
    pub(super) sent: Option<Digest>,
    pub(super) accept: Option<String>,
    pub(super) agent: Option<String>,
    pub(super) wishes: Wishes,
}

/// What the client wished of the answer's form.
#[derive(Clone, Debug, Default)]
pub(super) struct Wishes {
    pub(super) range: Option<String>,
    pub(super) if_range: Option<String>,
    pub(super) if_none_match: Option<String>,
    pub(super) if_modified_since: Option<String>,
}

/// Tells requests apart while a layer is made: two with the same key have the same answer at the same
/// time. Held in memory only, since it knows secrets.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    url: String,
    method: Method,
    sent: Option<Digest>,
    accept: Option<String>,
    agent: Option<String>,
    proofs: Vec<Vec<u8>>,
}

impl Ask {
    /// Takes a request's headers and what it sent.
    pub(super) fn new(method: Method, url: Url, given: &HeaderMap, body: Bytes) -> Ask {
        let text = |name: &str| Some(given.get(name)?.to_str().ok()?.trim().to_owned());
        let named: Vec<String> = given
            .get_all("connection")
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(|name| name.trim().to_ascii_lowercase())
            .collect();
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            let stays = KEPT_BACK.contains(&name.as_str())
                || named.iter().any(|connection| connection == name.as_str());
            if !stays {
                headers.append(name.clone(), value.clone());
            }
        }
        let mut shown = secret::shown(&url);
        shown.credentials |=
            ["authorization", "cookie"].iter().any(|name| headers.contains_key(*name));
        Ask {
            sent: (method == Method::Post).then(|| Digest::of(&body)),
            method,
            url,
            shown,
            headers,
            body,
            accept: text("accept").filter(|accept| accept != "*/*"),
            agent: text("user-agent").map(|agent| class_of(&agent)),
            wishes: Wishes {
                range: text("range"),
                if_range: text("if-range"),
                if_none_match: text("if-none-match"),
                if_modified_since: text("if-modified-since"),
            },
        }
    }

    /// Makes a request of the builder's own.
    pub(super) fn own(url: Url) -> Ask {
        Ask {
            method: Method::Get,
            shown: secret::shown(&url),
            url,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            sent: None,
            accept: None,
            agent: None,
            wishes: Wishes::default(),
        }
    }

    pub(super) fn key(&self) -> Key {
        let proofs = ["authorization", "cookie"].iter().flat_map(|name| {
            self.headers.get_all(*name).iter().map(|value| value.as_bytes().to_vec())
        });
        Key {
            url: self.url.to_string(),
            method: self.method,
            sent: self.sent,
            accept: self.accept.clone(),
            agent: self.agent.clone(),
            proofs: proofs.collect(),
        }
    }

    /// Returns all that the answer could depend on.
    pub(super) fn variant(&self) -> Variant {
        Variant { sent: self.sent, accept: self.accept.clone(), agent: self.agent.clone() }
    }

    /// Tells whether a body that was recorded already will do, without another look upstream: a part
    /// of it or its headers.
    pub(super) fn is_partial(&self) -> bool {
        self.method == Method::Head || self.wishes.range.is_some()
    }

    /// Returns the same question as a GET of everything.
    pub(super) fn whole(&self) -> Ask {
        let mut whole = self.clone();
        whole.method = Method::Get;
        whole.wishes = Wishes::default();
        whole
    }

    /// Asks upstream to say no more than that nothing changed, if so.
    pub(super) fn unless(&mut self, name: HeaderName, value: &str) {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
    }
}

/// Says which program asks, as far as a server may care: the name that its `User-Agent` begins with,
/// and of R the version, by which servers choose among binary packages. Not more, since programs tell
/// the kernel and the processor there.
fn class_of(agent: &str) -> String {
    let name: String =
        agent.chars().take_while(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).collect();
    let version = agent
        .strip_prefix("R (")
        .or_else(|| agent.strip_prefix("R/"))
        .and_then(|rest| rest.split([' ', ')']).find(|word| word.contains('.')));
    match version {
        Some(version) => format!("R {version}"),
        None => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_its_name_and_of_r_the_version() {
        assert_eq!(class_of("pip/23.0.1 {\"system\":{\"release\":\"6.18\"}}"), "pip");
        assert_eq!(class_of("R (4.5.1 x86_64-pc-linux-gnu x86_64 linux-gnu)"), "R 4.5.1");
        assert_eq!(class_of("Debian APT-HTTP/1.3 (2.6.1)"), "Debian");
        assert_eq!(class_of(""), "");
    }
}
