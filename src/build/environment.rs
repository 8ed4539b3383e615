//! What a step finds in its environment besides what the plan says: what is the machine's (proxies,
//! certificates), under constant paths. None of it is in a key.

use std::collections::BTreeMap;

/// Where the builder's own files lie for a step; a mount that never reaches a layer.
pub(super) const SUPPORT: &str = "/run/ocibuild";

/// Variables of the machine that say how to reach the network, in both spellings.
const PROXIES: [&str; 8] = [
    "http_proxy",
    "https_proxy",
    "ftp_proxy",
    "all_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
];

/// Variables by which tools find the certificates to trust; one is not enough, since each ecosystem
/// has its own.
const TRUST: [&str; 8] = [
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "NODE_EXTRA_CA_CERTS",
    "GIT_SSL_CAINFO",
    "AWS_CA_BUNDLE",
    "CONDA_SSL_VERIFY",
];

/// Completes a step's environment; `machine` is the caller's where the step is on its network.
pub(super) fn complete(
    planned: BTreeMap<String, String>,
    machine: Option<&BTreeMap<String, String>>,
    trust: bool,
    apt: bool,
) -> BTreeMap<String, String> {
    let mut env = planned;
    for name in PROXIES {
        if let Some(value) = machine.and_then(|machine| machine.get(name)) {
            env.insert(name.to_owned(), value.clone());
        }
    }
    if trust {
        for name in TRUST {
            env.insert(name.to_owned(), format!("{SUPPORT}/ca.crt"));
        }
    }
    if apt {
        env.insert("APT_CONFIG".to_owned(), format!("{SUPPORT}/apt.conf"));
    }
    env
}

/// The steps' `/etc/hosts`: loopback, the sandbox's own name, and what the machine adds for its site.
pub(super) fn hosts(of_machine: &str) -> String {
    let mut text = String::from(
        "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n127.0.1.1 ocibuild\n",
    );
    for line in of_machine.lines() {
        let entry = line.split('#').next().unwrap_or("").trim();
        let address = entry.split_whitespace().next().unwrap_or("");
        let of_itself = address.is_empty()
            || address.starts_with("127.")
            || address == "::1"
            || address.starts_with("fe00")
            || address.starts_with("ff0");
        if !of_itself {
            text.push_str(entry);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_machine_reaches_a_step_by_its_proxies_alone() {
        let machine = map(&[
            ("https_proxy", "http://proxy:3128"),
            ("LANG", "de_DE.UTF-8"),
            ("SSL_CERT_FILE", "/home/me/ca.pem"),
            ("SECRET", "x"),
        ]);
        let planned = map(&[("CONDA_DIR", "/opt/conda")]);
        let env = complete(planned, Some(&machine), true, true);
        assert_eq!(env["https_proxy"], "http://proxy:3128");
        assert_eq!(env["SSL_CERT_FILE"], "/run/ocibuild/ca.crt");
        assert_eq!(env["CONDA_DIR"], "/opt/conda");
        for absent in ["SECRET", "LANG"] {
            assert!(!env.contains_key(absent), "{absent}");
        }
    }

    #[test]
    fn the_hosts_file_keeps_the_sites_entries() {
        let text = hosts("127.0.0.1 me\n10.0.0.7 mirror mirror.site # ours\n::1 me\n\n# none\n");
        assert!(text.contains("\n10.0.0.7 mirror mirror.site\n") && !text.contains(" me"));
    }
}
