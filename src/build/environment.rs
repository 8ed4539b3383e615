//! What a step finds in its environment. Everything that can reach a layer is the same on every
//! machine; what is the host's (proxies, certificates) is named by constant paths or left to the
//! transport.

use std::collections::BTreeMap;

use crate::oci::Platform;

/// Where the builder's own files lie for a step; a mount that never reaches a layer.
pub(super) const SUPPORT: &str = "/run/ocibuild";
/// Where the tools' caches lie; a mount that starts empty for every layer.
pub(super) const CACHES: &str = "/var/cache/ocibuild";

/// Variables of the host that say how to reach the network, in both spellings.
const PROXIES: [&str; 8] = [
    "http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY",
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

/// What the environment of a layer's steps is made of.
#[derive(Debug)]
pub(super) struct Ingredients<'a> {
    /// The image's own variables so far.
    pub image: &'a [(String, String)],
    /// The platform that is built.
    pub platform: &'a Platform,
    /// The recipe's arguments, by name.
    pub args: &'a BTreeMap<String, String>,
    /// What `/etc/os-release` says: `DISTRIBUTION`, `CODENAME`, `RELEASE`.
    pub release: &'a BTreeMap<String, String>,
    /// The layer's source date, in seconds since 1970.
    pub source_date: i64,
    /// The caller's environment, for its proxies.
    pub host: &'a BTreeMap<String, String>,
    /// Whether the host has certificates to trust.
    pub trust: bool,
}

/// Returns the variables that all steps of a layer have; a step adds its own and `HOME`.
pub(super) fn of_layer(from: &Ingredients<'_>) -> BTreeMap<String, String> {
    let mut env: BTreeMap<String, String> = BTreeMap::new();
    let mut set = |name: &str, value: &str| env.insert(name.to_owned(), value.to_owned());
    set("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    for (name, value) in from.image {
        set(name, value);
    }
    for (name, value) in [
        ("LC_ALL", "C.UTF-8"),
        ("TZ", "UTC"),
        ("DEBIAN_FRONTEND", "noninteractive"),
        ("PYTHONHASHSEED", "0"),
        ("FORCE_SOURCE_DATE", "1"),
        ("npm_config_logs_max", "0"),
        ("npm_config_update_notifier", "false"),
        ("npm_config_fund", "false"),
        ("npm_config_audit", "false"),
        ("PIP_DISABLE_PIP_VERSION_CHECK", "1"),
        ("PIP_ROOT_USER_ACTION", "ignore"),
        ("GIT_TERMINAL_PROMPT", "0"),
    ] {
        set(name, value);
    }
    for (name, folder) in [
        ("PIP_CACHE_DIR", "pip"),
        ("npm_config_cache", "npm"),
        ("CONDA_PKGS_DIRS", "conda"),
        ("MAMBA_PKGS_DIRS", "conda"),
        ("XDG_CACHE_HOME", "xdg"),
        ("R_USER_CACHE_DIR", "r"),
        ("R_PKG_CACHE_DIR", "r-pkg"),
        ("UV_CACHE_DIR", "uv"),
    ] {
        set(name, &format!("{CACHES}/{folder}"));
    }
    set("SOURCE_DATE_EPOCH", &from.source_date.to_string());
    set("ARCH", &from.platform.architecture);
    set("MACHINE", from.platform.machine());
    set("OCIBUILD_RECIPE", &format!("{SUPPORT}/recipe"));
    for (name, value) in from.release {
        set(name, value);
    }
    for (name, value) in from.args {
        set(&name.to_uppercase().replace('-', "_"), value);
    }
    for name in PROXIES {
        if let Some(value) = from.host.get(name) {
            set(name, value);
        }
    }
    if from.trust {
        for name in TRUST {
            set(name, &format!("{SUPPORT}/ca.crt"));
        }
        set("APT_CONFIG", &format!("{SUPPORT}/apt.conf"));
    }
    env
}

/// The folders below [`CACHES`] that must exist, each writable for everybody.
pub(super) const CACHE_FOLDERS: [&str; 7] = ["pip", "npm", "conda", "xdg", "r", "r-pkg", "uv"];

/// The file behind `APT_CONFIG`.
pub(super) fn apt_conf() -> String {
    format!("Acquire::https::CaInfo \"{SUPPORT}/ca.crt\";\n")
}

/// The steps' `/etc/hosts`: loopback, the sandbox's own name, and what the host adds for its site.
pub(super) fn hosts(of_host: &str) -> String {
    let mut text = String::from(
        "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n127.0.1.1 ocibuild\n",
    );
    for line in of_host.lines() {
        let entry = line.split('#').next().unwrap_or("").trim();
        let address = entry.split_whitespace().next().unwrap_or("");
        let of_the_machine = address.is_empty()
            || address.starts_with("127.")
            || address == "::1"
            || address.starts_with("fe00")
            || address.starts_with("ff0");
        if !of_the_machine {
            text.push_str(entry);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_reaches_a_step_by_its_proxies_alone() {
        let host: BTreeMap<String, String> = [
            ("https_proxy", "http://proxy:3128"),
            ("LANG", "de_DE.UTF-8"),
            ("TZ", "Europe/Berlin"),
            ("SSL_CERT_FILE", "/home/me/ca.pem"),
            ("SECRET", "x"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        let env = of_layer(&Ingredients {
            image: &[("TZ".into(), "Etc/UTC".into()), ("CONDA_DIR".into(), "/opt/conda".into())],
            platform: &Platform::linux("arm64"),
            args: &[("r-version".to_owned(), "4.5".to_owned())].into(),
            release: &BTreeMap::new(),
            source_date: 7,
            host: &host,
            trust: true,
        });
        assert_eq!(env["https_proxy"], "http://proxy:3128");
        assert_eq!(env["SSL_CERT_FILE"], "/run/ocibuild/ca.crt");
        assert_eq!((env["TZ"].as_str(), env["CONDA_DIR"].as_str()), ("UTC", "/opt/conda"));
        assert_eq!((env["MACHINE"].as_str(), env["R_VERSION"].as_str()), ("aarch64", "4.5"));
        assert!(!env.contains_key("SECRET") && !env.contains_key("LANG"));
    }

    #[test]
    fn the_hosts_file_keeps_the_sites_entries() {
        let text = hosts("127.0.0.1 me\n10.0.0.7 mirror mirror.site # ours\n::1 me\n\n# none\n");
        assert!(text.contains("\n10.0.0.7 mirror mirror.site\n") && !text.contains(" me"));
    }
}
