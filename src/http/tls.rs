//! Whom we trust and by which way we go: the reqwest client of a configuration.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use reqwest::redirect::Policy;
use reqwest::{NoProxy, Proxy};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{DigitallySignedStruct, InconsistentKeys, RootCertStore, SignatureScheme};

use super::{Cause, Config, Error, Trust, dns};

/// Where distributions keep the bundle of authorities. Read here, rather than by a library, because
/// libraries ask the process's environment, which is `cli`'s alone.
const SYSTEM_BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

pub(super) fn client(config: &Config, trust: &Trust) -> Result<reqwest::Client, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Tls { source: Cause::of(&error) })?;
    let builder = if trust.anyone {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anyone { provider: Arc::clone(&provider) }))
    } else {
        builder.with_root_certificates(roots(config, trust)?)
    };
    let tls = match &trust.identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            builder.with_client_cert_resolver(Arc::new(identity(certificate, key, &provider)?))
        }
    };
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

fn refuse(path: &Path, reason: &str) -> Error {
    Error::Certificates { path: path.to_owned(), source: Cause::from(reason.to_owned()) }
}

/// Gathers the system's authorities, those of a bundle of the user's and those of one server.
fn roots(config: &Config, trust: &Trust) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    if let Some(pem) = SYSTEM_BUNDLES.iter().find_map(|path| fs::read(path).ok()) {
        // A bundle may hold what no TLS library here understands; the others still count.
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).flatten());
    }
    for path in config.certificates.iter().chain(&trust.authorities) {
        let pem = fs::read(path).map_err(|error| refuse(path, &error.to_string()))?;
        let (added, _) =
            roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).flatten());
        if added == 0 {
            return Err(refuse(path, "there is no certificate in it"));
        }
    }
    Ok(roots)
}

/// Reads our own certificate, with those between it and its authority, and the key.
fn identity(
    certificate: &Path,
    key: &Path,
    provider: &CryptoProvider,
) -> Result<SingleCertAndKey, Error> {
    let pem = fs::read(certificate).map_err(|error| refuse(certificate, &error.to_string()))?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem).flatten().collect();
    if chain.is_empty() {
        return Err(refuse(certificate, "there is no certificate in it"));
    }
    let pem = fs::read(key).map_err(|error| refuse(key, &error.to_string()))?;
    let secret = PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|_| refuse(key, "there is no private key in it that needs no password"))?;
    let secret = provider
        .key_provider
        .load_private_key(secret)
        .map_err(|error| refuse(key, &error.to_string()))?;
    let pair = CertifiedKey::new(chain, secret);
    // Whatever else is odd about a certificate is for the server to judge: openssl's default is one
    // of version 1, which only our own library does not read.
    if let Err(error @ rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) =
        pair.keys_match()
    {
        return Err(refuse(key, &error.to_string()));
    }
    Ok(SingleCertAndKey::from(pair))
}

/// Takes the certificate of any server, for one that the user called insecure. What it signs still
/// has to be signed with the key of that certificate.
#[derive(Debug)]
struct Anyone {
    provider: Arc<CryptoProvider>,
}

impl Anyone {
    fn known(&self) -> &WebPkiSupportedAlgorithms {
        &self.provider.signature_verification_algorithms
    }
}

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, self.known())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, self.known())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.known().supported_schemes()
    }
}
