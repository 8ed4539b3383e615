//! Where a registry's API is: `docker.io` lives elsewhere than its name says, and on loopback only
//! the registry itself knows whether it speaks TLS.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use crate::http::{self, Client, Method, Request, Response, StatusCode, Url};

use super::Error;
use super::sizes::Sizes;

/// The one registry whose API is not at its name.
const DOCKER_HUB: &str = "docker.io";

/// Tells whether a name is one of Docker Hub's.
pub(super) fn is_docker_hub(registry: &str) -> bool {
    matches!(
        registry,
        DOCKER_HUB | "index.docker.io" | "registry-1.docker.io" | "registry.hub.docker.com"
    )
}

/// What may be spoken with a registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wire {
    /// TLS; on loopback what the registry speaks.
    Secure,
    /// Plain HTTP.
    Plain,
    /// TLS whatever the certificate, or plain HTTP where there is none.
    Any,
}

/// A registry, as a reference names it.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) name: String,
    pub(super) client: Client,
    pub(super) sizes: Sizes,
    wire: Wire,
    base: Mutex<Option<Url>>,
}

impl Host {
    pub(super) fn new(name: &str, wire: Wire, client: Client) -> Host {
        let (sizes, base) = (Sizes::default(), Mutex::new(None));
        Host { name: name.to_owned(), client, sizes, wire, base }
    }

    /// Returns the API's root, `https://HOST/v2/`.
    pub(super) fn base(&self) -> Result<Url, Error> {
        let mut base = self.base.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(base) = &*base {
            return Ok(base.clone());
        }
        let found = match self.wire {
            Wire::Plain => self.root("http")?,
            _ if is_loopback(&self.name) => self.probe()?,
            Wire::Secure => self.root("https")?,
            Wire::Any => {
                let secure = self.root("https")?;
                if self.ask(&secure).is_ok() { secure } else { self.root("http")? }
            }
        };
        *base = Some(found.clone());
        Ok(found)
    }

    fn root(&self, scheme: &str) -> Result<Url, Error> {
        let host = if is_docker_hub(&self.name) { "registry-1.docker.io" } else { &self.name };
        let text = format!("{scheme}://{host}/v2/");
        Url::parse(&text).map_err(|_| Error::Host { registry: self.name.clone() })
    }

    fn ask(&self, root: &Url) -> Result<Response, http::Error> {
        self.client.send(&Request::new(Method::GET, root.clone()).once())
    }

    /// Asks a registry on this machine which it speaks. Plain HTTP comes first, since a server that
    /// wants TLS answers it with 400 or hangs up, and since nothing secret is said. A connection that
    /// broke looks like hanging up, so both are asked again before TLS is believed.
    fn probe(&self) -> Result<Url, Error> {
        let (plain, secure) = (self.root("http")?, self.root("https")?);
        for _ in 0..3 {
            match self.ask(&plain) {
                Ok(answer) if answer.status() != StatusCode::BAD_REQUEST => return Ok(plain),
                Ok(_) => return Ok(secure),
                // Nobody listens: a second question would be answered alike.
                Err(error @ http::Error::Send { connect: true, .. }) => {
                    return Err(error.into());
                }
                Err(_) => {}
            }
            if self.ask(&secure).is_ok() {
                return Ok(secure);
            }
        }
        Ok(secure)
    }
}

/// Tells whether a registry is on this machine by its name alone.
pub(super) fn is_loopback(registry: &str) -> bool {
    let host = match registry.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|c| c.is_ascii_digit()) => host,
        _ => registry,
    };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host.ends_with(".localhost")
        || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_known_by_name() {
        for yes in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.3.2.1", "[::1]:5000"] {
            assert!(is_loopback(yes), "{yes}");
        }
        for no in ["localhost.example.org", "10.0.0.1:5000", "127.0.0.1.nip.io", "ghcr.io"] {
            assert!(!is_loopback(no), "{no}");
        }
    }

    #[test]
    fn docker_hub_is_elsewhere() {
        let client = Client::new(crate::http::Config::default());
        let base =
            |name: &str| Host::new(name, Wire::Secure, client.clone()).base().unwrap().to_string();
        assert_eq!(base("docker.io"), "https://registry-1.docker.io/v2/");
        assert_eq!(base("ghcr.io"), "https://ghcr.io/v2/");
        let plain = Host::new("r.example:5000", Wire::Plain, client.clone()).base().unwrap();
        assert_eq!(plain.as_str(), "http://r.example:5000/v2/");
    }
}
