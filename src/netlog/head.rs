//! What of an answer's head is kept, and given to every client, whether it came a moment ago or from
//! a lock: what programs decide by or write down, and nothing that changes from one day or one mirror
//! to the next.

use std::collections::BTreeMap;

use hyper::header::HeaderMap;

use super::secret;
use super::{Fetch, Method};
use crate::http::Url;

/// The headers that are kept as they are. Of the two that tell versions apart `last-modified` is
/// enough where it is given; `etag` often differs between mirrors with the same files.
const KEPT: [&str; 10] = [
    "content-disposition",
    "content-encoding",
    "content-type",
    "docker-content-digest",
    "last-modified",
    "link",
    "www-authenticate",
    "x-linked-etag",
    "x-linked-size",
    "x-repo-commit",
];

/// The headers that are handed on and not kept.
const PASSING: [&str; 2] = ["retry-after", "set-cookie"];

/// An answer's head.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) status: u16,
    /// As they stand in a lock.
    pub(super) headers: BTreeMap<String, String>,
    /// Where a redirect leads indeed; the lock's has no secrets.
    pub(super) location: Option<String>,
    /// What a program needs now and nobody later: cookies, and how long to wait before another try.
    /// A replay answers without, and needs neither.
    pub(super) passing: Vec<(String, String)>,
    /// What to ask upstream with whether anything changed.
    pub(super) etag: Option<String>,
}

impl std::fmt::Debug for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Of the rest some is secret.
        f.debug_struct("Head")
            .field("status", &self.status)
            .field("headers", &self.headers)
            .finish_non_exhaustive()
    }
}

impl Head {
    /// Takes what matters of an answer to `method` on `url`.
    pub(super) fn new(method: Method, url: &Url, status: u16, headers: &HeaderMap) -> Head {
        let mut kept = BTreeMap::new();
        for name in KEPT {
            let values: Vec<&str> =
                headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
            if !values.is_empty() {
                kept.insert(name.to_owned(), values.join(", "));
            }
        }
        let text = |name: &str| Some(headers.get(name)?.to_str().ok()?.trim().to_owned());
        let etag = text("etag");
        if let Some(etag) = &etag
            && (method == Method::Head || !kept.contains_key("last-modified"))
        {
            kept.insert("etag".to_owned(), etag.clone());
        }
        if method == Method::Head
            && let Some(length) = text("content-length")
        {
            kept.insert("content-length".to_owned(), length);
        }
        let location = text("location");
        if let Some(location) = &location {
            kept.insert("location".to_owned(), location_shown(url, location));
        }
        let mut passing = Vec::new();
        for name in PASSING {
            let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
            passing.extend(values.map(|value| (name.to_owned(), value.to_owned())));
        }
        let head = Head { status, headers: kept, location, passing, etag };
        if head.is_redirect() { head.without_body() } else { head }
    }

    /// Takes what a lock says.
    pub(super) fn of(fetch: &Fetch) -> Head {
        Head {
            status: fetch.status,
            headers: fetch.headers.clone(),
            location: fetch.headers.get("location").cloned(),
            passing: Vec::new(),
            etag: fetch.headers.get("etag").cloned(),
        }
    }

    /// Tells whether it leads elsewhere. What such an answer carries is dropped: nobody reads it, and
    /// it repeats the link, signature and all.
    pub(super) fn is_redirect(&self) -> bool {
        matches!(self.status, 301 | 302 | 303 | 307 | 308) && self.location.is_some()
    }

    fn without_body(mut self) -> Head {
        self.headers.retain(|name, _| !name.starts_with("content-"));
        self
    }

    /// Returns the date by which clients ask again.
    pub(super) fn last_modified(&self) -> Option<&str> {
        self.headers.get("last-modified").map(String::as_str)
    }
}

/// Reads a date as headers have it.
pub(super) fn seconds(date: &str) -> Option<i64> {
    let zoned = jiff::fmt::rfc2822::DateTimeParser::new().parse_zoned(date.trim()).ok()?;
    Some(zoned.timestamp().as_second())
}

/// Writes a redirect's target down: as it is where it holds nothing secret.
fn location_shown(url: &Url, location: &str) -> String {
    let Ok(target) = url.join(location) else { return location.to_owned() };
    let shown = secret::shown(&target);
    let is_plain = shown.text == {
        let mut target = target;
        target.set_fragment(None);
        target.to_string()
    };
    if is_plain { location.to_owned() } else { shown.text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(method: Method, status: u16, headers: &[(&'static str, &'static str)]) -> Head {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        Head::new(method, &Url::parse("https://a/b/c").unwrap(), status, &map)
    }

    #[test]
    fn what_changes_from_day_to_day_is_not_kept() {
        let head = head(
            Method::Get,
            200,
            &[
                ("date", "Mon, 30 Nov 2026 00:00:00 GMT"),
                ("set-cookie", "secret"),
                ("content-type", "text/plain"),
                ("last-modified", "Sun, 29 Nov 2026 00:00:00 GMT"),
                ("etag", "\"x\""),
                ("age", "7"),
            ],
        );
        let names: Vec<&str> = head.headers.keys().map(String::as_str).collect();
        assert_eq!(names, ["content-type", "last-modified"]);
        assert_eq!(head.etag.as_deref(), Some("\"x\""));
    }

    #[test]
    fn a_redirect_is_its_target_without_the_signature() {
        let signed = head(
            Method::Get,
            302,
            &[("location", "https://s/o?X-Amz-Signature=ab"), ("content-type", "text/html")],
        );
        assert_eq!(signed.location.as_deref(), Some("https://s/o?X-Amz-Signature=ab"));
        assert_eq!(signed.headers["location"], "https://s/o?X-Amz-Signature=REDACTED");
        assert_eq!(signed.headers.len(), 1);
        let plain = head(Method::Get, 302, &[("location", "../d#e")]);
        assert_eq!(plain.headers["location"], "../d#e");
    }
}
