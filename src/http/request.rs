//! A request as the callers write it.

use std::io::{self, Read};
use std::sync::Arc;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Url};

use super::{Error, Patience};

/// Opens a body from its start; called again for each try.
pub type Open<'a> = dyn Fn() -> io::Result<Box<dyn Read + Send + 'a>> + 'a;

/// What a request carries.
pub enum Payload<'a> {
    /// Nothing.
    Empty,
    /// Bytes at hand.
    Bytes(&'a [u8]),
    /// Bytes that are read while they are sent.
    Stream {
        /// How many there are; `None` where their end alone tells.
        size: Option<u64>,
        /// Opens them.
        open: &'a Open<'a>,
    },
}

impl std::fmt::Debug for Payload<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Payload::Empty => f.write_str("Empty"),
            Payload::Bytes(bytes) => write!(f, "Bytes({})", bytes.len()),
            Payload::Stream { size, .. } => write!(f, "Stream({size:?})"),
        }
    }
}

/// A request, to be sent with [`super::Client::send`].
pub struct Request<'a> {
    method: Method,
    url: Url,
    headers: HeaderMap,
    payload: Payload<'a>,
    retries: bool,
    relayed: bool,
    patience: Option<Arc<Patience>>,
}

impl std::fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Neither headers nor the URL's query: both may hold secrets.
        f.debug_struct("Request")
            .field("method", &self.method)
            .field("url", &super::redact(&self.url))
            .field("payload", &self.payload)
            .finish_non_exhaustive()
    }
}

impl<'a> Request<'a> {
    /// Makes a request without headers and body that is tried again when that may help.
    pub fn new(method: Method, url: Url) -> Request<'a> {
        Request {
            method,
            url,
            headers: HeaderMap::new(),
            payload: Payload::Empty,
            retries: true,
            relayed: false,
            patience: None,
        }
    }

    /// Makes a GET request of a URL's text.
    pub fn get(url: &str) -> Result<Request<'a>, Error> {
        let parsed = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        match parsed {
            Some(url) => Ok(Request::new(Method::GET, url)),
            None => Err(Error::Url { text: url.chars().take(300).collect() }),
        }
    }

    /// Adds a header. One whose value no header can have (a line break in a token) is an error.
    pub fn header(mut self, name: HeaderName, value: &str) -> Result<Request<'a>, Error> {
        let mut value = HeaderValue::from_str(value)
            .map_err(|_| Error::Header { name: name.as_str().to_owned() })?;
        value.set_sensitive(name == reqwest::header::AUTHORIZATION);
        self.headers.append(name, value);
        Ok(self)
    }

    /// Gives it a body.
    #[must_use]
    pub fn payload(mut self, payload: Payload<'a>) -> Request<'a> {
        self.payload = payload;
        self
    }

    /// Has it sent once only, whatever happens.
    #[must_use]
    pub fn once(mut self) -> Request<'a> {
        self.retries = false;
        self
    }

    /// Has the answer handed on as it is: a redirect is not followed, and a bad status is the asking
    /// program's to judge. A connection that fails is still tried again.
    #[must_use]
    pub fn relayed(mut self) -> Request<'a> {
        self.relayed = true;
        self
    }

    /// Takes another program's headers in place of those it has.
    #[must_use]
    pub fn headers_of(mut self, headers: HeaderMap) -> Request<'a> {
        self.headers = headers;
        self
    }

    /// Has its waits count for a part of all.
    #[must_use]
    pub fn within(mut self, patience: &Arc<Patience>) -> Request<'a> {
        self.patience = Some(Arc::clone(patience));
        self
    }

    /// Returns the method.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// Returns where it goes first.
    pub fn url(&self) -> &Url {
        &self.url
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    pub(super) fn carried(&self) -> &Payload<'a> {
        &self.payload
    }

    pub(super) fn patience(&self) -> Option<&Arc<Patience>> {
        self.patience.as_ref()
    }

    pub(super) fn retries(&self) -> bool {
        self.retries
    }

    pub(super) fn is_relayed(&self) -> bool {
        self.relayed
    }
}
