//! Where an answer sends us, and whether we go.

use reqwest::header::LOCATION;
use reqwest::{Method, Url};

use super::{Error, Response, redact};

pub(super) enum Step {
    Stay,
    Go(Url),
}

/// Decides what to do with an answer that came from `url`.
pub(super) fn next(method: &Method, url: &Url, response: &Response) -> Result<Step, Error> {
    let follows = match response.status().as_u16() {
        // These two let a client turn other methods into GET, which no registry means.
        301..=303 => matches!(*method, Method::GET | Method::HEAD),
        307 | 308 => true,
        _ => false,
    };
    let Some(location) = response.header(LOCATION).filter(|_| follows) else {
        return Ok(Step::Stay);
    };
    resolve(url, location).map(Step::Go)
}

fn resolve(url: &Url, location: &str) -> Result<Url, Error> {
    let target = url.join(location).ok().filter(|to| matches!(to.scheme(), "http" | "https"));
    match target {
        None => Err(Error::BadRedirect { url: redact(url) }),
        Some(target) if url.scheme() == "https" && target.scheme() == "http" => {
            Err(Error::Downgrade { url: redact(url), to: redact(&target) })
        }
        Some(target) => Ok(target),
    }
}

/// Tells whether two URLs share scheme, host and port.
pub fn same_origin(a: &Url, b: &Url) -> bool {
    a.scheme() == b.scheme()
        && a.host() == b.host()
        && a.port_or_known_default() == b.port_or_known_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        assert!(same_origin(&url("https://a/x"), &url("https://A:443/y?z")));
        for other in ["http://a/x", "https://a:8443/x", "https://a.b/x", "https://b/x"] {
            assert!(!same_origin(&url("https://a/x"), &url(other)), "{other}");
        }
    }

    #[test]
    fn a_redirect_never_leaves_tls_or_http() {
        let from = url("https://a/x/y");
        assert_eq!(resolve(&from, "../z").unwrap(), url("https://a/z"));
        assert_eq!(resolve(&from, "//b/z").unwrap(), url("https://b/z"));
        assert!(matches!(resolve(&from, "http://a/z"), Err(Error::Downgrade { .. })));
        assert!(matches!(resolve(&from, "file:///etc/passwd"), Err(Error::BadRedirect { .. })));
    }
}
