//! Whom we trust and by which way we go: the reqwest client of a configuration.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use reqwest::redirect::Policy;
use reqwest::{NoProxy, Proxy};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::{Cause, Config, Error, dns};

/// Where distributions keep the bundle of authorities. Read here, rather than by a library, because
/// libraries ask the process's environment, which is `cli`'s alone.
const SYSTEM_BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

pub(super) fn client(config: &Config) -> Result<reqwest::Client, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Tls { source: Cause::of(&error) })?
        .with_root_certificates(roots(config.certificates.as_deref())?)
        .with_no_client_auth();
    let mut builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .user_agent(&config.user_agent)
        .redirect(Policy::none())
        .referer(false)
        .retry(reqwest::retry::never())
        .connect_timeout(config.connect_timeout)
        .tcp_nodelay(true)
        .dns_resolver(Arc::new(dns::Resolver))
        // Servers and the boxes between drop quiet connections after a minute or so.
        .pool_idle_timeout(std::time::Duration::from_secs(20))
        .no_proxy();
    let direct = format!("localhost,127.0.0.0/8,::1,{}", config.no_proxy);
    for (variable, url, make) in [
        ("http_proxy", &config.http_proxy, Proxy::http as fn(String) -> reqwest::Result<Proxy>),
        ("https_proxy", &config.https_proxy, Proxy::https),
    ] {
        if let Some(url) = url {
            let bad = |error: reqwest::Error| Error::Proxy { variable, source: Cause::of(&error) };
            let proxy = make(url.clone()).map_err(bad)?;
            builder = builder.proxy(proxy.no_proxy(NoProxy::from_string(&direct)));
        }
    }
    builder.build().map_err(|error| Error::Tls { source: Cause::of(&error) })
}

/// Gathers the system's authorities and those of a bundle of the user's.
fn roots(bundle: Option<&Path>) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    if let Some(pem) = SYSTEM_BUNDLES.iter().find_map(|path| fs::read(path).ok()) {
        // A bundle may hold what no TLS library here understands; the others still count.
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).flatten());
    }
    if let Some(path) = bundle {
        let refuse = |reason: &str| Error::Certificates {
            path: path.to_owned(),
            source: Cause::from(reason.to_owned()),
        };
        let pem = fs::read(path).map_err(|error| refuse(&error.to_string()))?;
        let (added, _) =
            roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).flatten());
        if added == 0 {
            return Err(refuse("there is no certificate in it"));
        }
    }
    Ok(roots)
}
