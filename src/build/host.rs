//! What the steps get of the machine that they run on, and no layer does: proxies, certificates,
//! names.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Recorder, environment};
use crate::disk;
use crate::http;
use crate::report::Report;
use crate::sandbox::Terminal;

/// Where distributions keep the certificates to trust.
const BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// The most bytes of such a bundle, of `/etc/hosts` and `/etc/resolv.conf`.
const LIMIT: u64 = 8 << 20;

/// The machine, as steps see it.
pub struct Host<'a> {
    /// The caller's environment.
    pub env: &'a BTreeMap<String, String>,
    /// The certificates to trust, as PEM.
    pub certificates: Option<Vec<u8>>,
    /// The steps' `/etc/resolv.conf`.
    pub resolv_conf: String,
    /// The steps' `/etc/hosts`.
    pub hosts: String,
    /// For fetch steps.
    pub client: http::Client,
    /// What stands between the steps and the network; `None` gives them the machine's own.
    pub recorder: Option<&'a Recorder>,
    /// Where progress goes.
    pub report: &'a dyn Report,
    /// Where a shell is opened when a step fails.
    pub terminal: Option<&'a Terminal>,
}

impl std::fmt::Debug for Host<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").finish_non_exhaustive()
    }
}

impl<'a> Host<'a> {
    /// Reads the machine's files.
    pub fn new(
        env: &'a BTreeMap<String, String>,
        client: http::Client,
        report: &'a dyn Report,
    ) -> Host<'a> {
        // A machine without one of these gives its steps less, which shows where it is needed.
        let text = |path: &str| {
            disk::read(Path::new(path), LIMIT).map_or_else(
                |_| String::new(),
                |bytes| String::from_utf8_lossy(&bytes).into_owned(),
            )
        };
        let named = env.get("SSL_CERT_FILE").map(String::as_str).filter(|path| !path.is_empty());
        let certificates = named.into_iter().chain(BUNDLES).find_map(|path| {
            disk::read(Path::new(path), LIMIT).ok().filter(|bytes| !bytes.is_empty())
        });
        Host {
            env,
            certificates,
            resolv_conf: text("/etc/resolv.conf"),
            hosts: environment::hosts(&text("/etc/hosts")),
            client,
            recorder: None,
            report,
            terminal: None,
        }
    }

    /// Has the steps' network recorded. They then see nothing of the machine's: neither its proxies
    /// and names nor the certificates that it trusts, which all are the recorder's matter.
    #[must_use]
    pub fn recording(self, recorder: &'a Recorder) -> Host<'a> {
        Host {
            certificates: Some(recorder.certificate().pem().as_bytes().to_vec()),
            resolv_conf: "nameserver 127.0.0.1\n".to_owned(),
            hosts: environment::hosts(""),
            recorder: Some(recorder),
            ..self
        }
    }

    /// Returns the caller's environment for a step, as far as the step is on the same network.
    pub(super) fn step_env(&self) -> Option<&BTreeMap<String, String>> {
        self.recorder.is_none().then_some(self.env)
    }
}
