//! The authority of one build: it signs for every name that a step speaks TLS with. Its key is never
//! written anywhere and ends with the process.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SerialNumber,
};
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::Error;
use crate::http::Cause;
use crate::oci::Digest;

/// What it calls itself in certificates.
const NAME: &str = "ocibuild, for one build";

/// The certificate authority of one build.
pub struct Authority {
    certificate: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
    /// All names share one key, which no program minds.
    key: KeyPair,
    serial: AtomicU64,
    known: Mutex<BTreeMap<String, Arc<ServerConfig>>>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("fingerprint", &self.fingerprint()).finish()
    }
}

fn failed(error: &(dyn std::error::Error + 'static)) -> Error {
    Error::Certificate { source: Cause::of(error) }
}

impl Authority {
    /// Makes a key and its certificate.
    pub fn new() -> Result<Authority, Error> {
        let key = KeyPair::generate().map_err(|error| failed(&error))?;
        let mut params = params(1);
        params.distinguished_name.push(DnType::CommonName, NAME);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(|error| failed(&error))?;
        Ok(Authority {
            certificate,
            issuer: Issuer::new(params, key),
            key: KeyPair::generate().map_err(|error| failed(&error))?,
            serial: AtomicU64::new(2),
            known: Mutex::new(BTreeMap::new()),
        })
    }

    /// Returns the certificate as programs are told to trust it.
    pub fn certificate_pem(&self) -> String {
        self.certificate.pem()
    }

    /// Returns the certificate's own bytes.
    pub fn certificate_der(&self) -> &[u8] {
        self.certificate.der()
    }

    /// Returns the digest of these bytes.
    pub fn fingerprint(&self) -> Digest {
        Digest::of(self.certificate_der())
    }

    /// Returns what a server with this name or address needs; the same for the same name.
    pub(super) fn server(&self, name: &str) -> Result<Arc<ServerConfig>, Error> {
        let name = name.to_ascii_lowercase();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = known.get(&name) {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(self.make_server(&name)?);
        known.insert(name, Arc::clone(&config));
        Ok(config)
    }

    fn make_server(&self, name: &str) -> Result<ServerConfig, Error> {
        let mut params = params(self.serial.fetch_add(1, Ordering::Relaxed));
        let subject = name.parse::<IpAddr>().map(rcgen::SanType::IpAddress);
        let subject = match subject {
            Ok(address) => address,
            Err(_) => rcgen::SanType::DnsName(
                name.try_into().map_err(|error: rcgen::Error| failed(&error))?,
            ),
        };
        params.subject_alt_names.push(subject);
        // The field holds 64 characters; the names that count are the alternative ones.
        if name.len() <= 64 {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let leaf = params.signed_by(&self.key, &self.issuer).map_err(|error| failed(&error))?;
        let chain: Vec<CertificateDer<'static>> =
            vec![leaf.der().clone(), self.certificate.der().clone()];
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| failed(&error))?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| failed(&error))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

/// What all certificates have in common. They are valid whatever a step takes the date to be.
fn params(serial: u64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.not_before = rcgen::date_time_ymd(1970, 1, 1);
    params.not_after = rcgen::date_time_ymd(2100, 1, 1);
    params.serial_number = Some(SerialNumber::from(serial));
    params
}
