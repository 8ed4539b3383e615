//! What a client can be told, most of it by the environment that `cli` hands over.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::Patience;
use crate::report::{Report, Silent};

/// Settings of a client.
#[derive(Clone)]
pub struct Config {
    /// How the program names itself.
    pub user_agent: String,
    /// A bundle of certificates to trust beside the system's (`SSL_CERT_FILE`).
    pub certificates: Option<PathBuf>,
    /// The proxy for `http:` URLs (`http_proxy`).
    pub http_proxy: Option<String>,
    /// The proxy for `https:` URLs (`https_proxy`).
    pub https_proxy: Option<String>,
    /// Hosts to reach without a proxy (`no_proxy`); loopback always is.
    pub no_proxy: String,
    /// How long a connection, TLS included, may take to stand.
    pub connect_timeout: Duration,
    /// How long an answer may take to begin.
    pub answer_timeout: Duration,
    /// How long it may take after a long upload, which a registry hashes and moves before it answers.
    pub commit_timeout: Duration,
    /// How long a body may stand still, in either direction.
    pub idle_timeout: Duration,
    /// How often a request is tried in all.
    pub tries: u32,
    /// The wait before the second try; it doubles from there.
    pub backoff: Duration,
    /// The longest wait that a server may ask for; when it asks for more we give up at once.
    pub longest_wait: Duration,
    /// Whether no request may be sent at all.
    pub offline: bool,
    /// How long is waited in all, whatever for; the clones of a configuration share it.
    pub patience: Arc<Patience>,
    /// Who hears of retries.
    pub report: Arc<dyn Report>,
}

/// What is true of one server alone: who vouches for it, and who we are to it. The files are read with
/// the first request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// Files of certificates of authorities, trusted beside the others.
    pub authorities: Vec<PathBuf>,
    /// Our certificate for a server that asks for one, and its key. No redirect leads it elsewhere.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Whether any certificate of the server's will do.
    pub anyone: bool,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Proxies may hold passwords.
        f.debug_struct("Config")
            .field("user_agent", &self.user_agent)
            .field("certificates", &self.certificates)
            .field("tries", &self.tries)
            .finish_non_exhaustive()
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            user_agent: concat!("ocibuild/", env!("CARGO_PKG_VERSION")).to_owned(),
            certificates: None,
            http_proxy: None,
            https_proxy: None,
            no_proxy: String::new(),
            connect_timeout: Duration::from_secs(30),
            answer_timeout: Duration::from_mins(1),
            commit_timeout: Duration::from_mins(10),
            idle_timeout: Duration::from_mins(1),
            tries: 6,
            backoff: Duration::from_secs(1),
            longest_wait: Duration::from_mins(1),
            offline: false,
            patience: Patience::new(Duration::from_mins(15)),
            report: Arc::new(Silent),
        }
    }
}

impl Config {
    /// Takes certificates and proxies from the environment's variables. `HTTP_PROXY` in capitals is
    /// left alone, as curl does, since a CGI server lets a client set it.
    pub fn from_env(env: &BTreeMap<String, String>) -> Config {
        let first = |names: &[&str]| {
            names.iter().find_map(|name| env.get(*name)).filter(|value| !value.is_empty()).cloned()
        };
        Config {
            certificates: first(&["SSL_CERT_FILE"]).map(PathBuf::from),
            http_proxy: first(&["http_proxy", "all_proxy", "ALL_PROXY"]),
            https_proxy: first(&["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]),
            no_proxy: first(&["no_proxy", "NO_PROXY"]).unwrap_or_default(),
            ..Config::default()
        }
    }

    /// Tells `report` of retries.
    #[must_use]
    pub fn reporting_to(mut self, report: Arc<dyn Report>) -> Config {
        self.report = report;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_variable_is_none() {
        let env = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let config = Config::from_env(&env(&[("https_proxy", ""), ("SSL_CERT_FILE", "/ca.crt")]));
        assert_eq!(config.https_proxy, None);
        assert_eq!(config.certificates, Some(PathBuf::from("/ca.crt")));
        let config = Config::from_env(&env(&[("HTTPS_PROXY", "http://p:1"), ("HTTP_PROXY", "x")]));
        assert_eq!(config.https_proxy.as_deref(), Some("http://p:1"));
        assert_eq!(config.http_proxy, None);
    }
}
