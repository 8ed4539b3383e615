//! The table of rules: their names, what they look at, and what they do to it.

use super::{Times, accounts, java, r, tex, text};

/// A rule.
#[derive(Debug)]
pub struct Rule {
    /// What a recipe switches it off by.
    pub name: &'static str,
    /// What it does and why, in a sentence.
    pub about: &'static str,
    /// Which paths it looks at, as globs below the root; `**` stands for any folders.
    pub paths: &'static [&'static str],
    pub(super) act: Act,
}

/// Returns the new content of a file, or `None` to leave it as it is.
pub(super) type Rewrite = fn(&[u8], &Times) -> Option<Vec<u8>>;

#[derive(Clone, Copy, Debug)]
pub(super) enum Act {
    /// The file goes; one of the parent's is hidden.
    Remove,
    /// The file becomes empty.
    Empty,
    /// The file's content is put in order.
    Rewrite(Rewrite),
    /// Byte code is told the time of its source.
    Compiled,
    /// Times become the source date.
    Times,
}

/// The table of rules, in the order in which they apply.
pub static RULES: &[Rule] = &[
    Rule {
        name: "logs",
        about: "removes the package tools' logs, which hold the time of the run",
        paths: &[
            "var/log/alternatives.log",
            "var/log/apt/*",
            "var/log/bootstrap.log",
            "var/log/dpkg.log",
            "var/log/fontconfig.log",
        ],
        act: Act::Remove,
    },
    Rule {
        name: "apt-caches",
        about: "removes apt's binary caches, which hold times and addresses, and its archives",
        paths: &["var/cache/apt/*.bin", "var/cache/apt/archives/*.deb"],
        act: Act::Remove,
    },
    Rule {
        name: "ldconfig-cache",
        about: "removes ldconfig's auxiliary cache, which holds inode numbers",
        paths: &["var/cache/ldconfig/aux-cache"],
        act: Act::Remove,
    },
    Rule {
        name: "ssh-host-keys",
        about: "removes SSH host keys, which are random and would be everybody's",
        paths: &["etc/ssh/ssh_host_*_key", "etc/ssh/ssh_host_*_key.pub"],
        act: Act::Remove,
    },
    Rule {
        name: "snakeoil",
        about: "removes the self-signed certificate of ssl-cert, whose key would be everybody's",
        paths: &["etc/ssl/certs/ssl-cert-snakeoil.pem", "etc/ssl/private/ssl-cert-snakeoil.key"],
        act: Act::Remove,
    },
    Rule {
        name: "machine-id",
        about: "empties the machine's identity, which the first start makes anew",
        paths: &["etc/machine-id"],
        act: Act::Empty,
    },
    Rule {
        name: "dbus-machine-id",
        about: "removes the identity that D-Bus keeps of the machine",
        paths: &["var/lib/dbus/machine-id"],
        act: Act::Remove,
    },
    Rule {
        name: "random-seed",
        about: "removes saved randomness",
        paths: &["var/lib/systemd/random-seed", "var/lib/urandom/random-seed"],
        act: Act::Remove,
    },
    Rule {
        name: "rstudio-keys",
        about: "removes RStudio Server's secrets, which each start makes anew",
        paths: &[
            "etc/rstudio/secure-cookie-key",
            "var/lib/rstudio-server/secure-cookie-key",
            "var/lib/rstudio-server/session-rpc-key",
        ],
        act: Act::Remove,
    },
    Rule {
        name: "tool-leftovers",
        about: "removes what downloaders keep of their runs: caches outside of the builder's, notes and logs",
        paths: &[
            "**/.cache/pip/**",
            "**/.npm/_cacache/**",
            "**/.npm/_logs/*",
            "**/.npm/_update-notifier-last-checked",
            "**/.wget-hsts",
        ],
        act: Act::Remove,
    },
    Rule {
        name: "java-keystore",
        about: "dates the entries of Java's trust store to the source date, and signs it again",
        paths: &["etc/ssl/certs/java/cacerts"],
        act: Act::Rewrite(java::keystore),
    },
    Rule {
        name: "r-built",
        about: "dates R packages that were packed or built in the run to the source date",
        paths: &["**/DESCRIPTION"],
        act: Act::Rewrite(r::description),
    },
    Rule {
        name: "r-built-meta",
        about: "the same in a package's Meta/package.rds",
        paths: &["**/Meta/package.rds"],
        act: Act::Rewrite(r::package),
    },
    Rule {
        name: "gitconfig-order",
        about: "sorts the keys within sections of git's configuration, which git-lfs writes in random order",
        paths: &["etc/gitconfig"],
        act: Act::Rewrite(text::gitconfig),
    },
    Rule {
        name: "tex-logs",
        about: "removes the logs of TeX's formats and font maps, which hold the time of the run",
        paths: &["var/lib/texmf/web2c/*.log", "var/lib/texmf/web2c/*/*.log"],
        act: Act::Remove,
    },
    Rule {
        name: "tex-files",
        about: "sorts TeX's list of files, which is in the order in which a folder is read",
        paths: &["var/lib/texmf/ls-R*"],
        act: Act::Rewrite(tex::files),
    },
    Rule {
        name: "tex-settings",
        about: "sorts TeX's lists of formats and of font maps, which are in such an order, too",
        paths: &["var/lib/texmf/fmtutil.cnf-*", "var/lib/texmf/updmap.cfg-*"],
        act: Act::Rewrite(tex::settings),
    },
    Rule {
        name: "conda-history",
        about: "dates conda's history to the source date",
        paths: &["**/conda-meta/history"],
        act: Act::Rewrite(text::conda_history),
    },
    Rule {
        name: "extension-times",
        about: "dates the installation of VS Code extensions to the source date",
        paths: &["**/extensions/extensions.json", "**/extensions/*/package.json"],
        act: Act::Rewrite(text::installed_timestamps),
    },
    Rule {
        name: "shadow-days",
        about: "dates the last change of passwords made in the run to the source date",
        paths: &["etc/shadow", "etc/shadow-"],
        act: Act::Rewrite(accounts::shadow),
    },
    Rule {
        name: "pyc-times",
        about: "tells Python's byte code the normalised time of its source, or it would be compiled again at each start",
        paths: &["**/__pycache__/*.pyc"],
        act: Act::Compiled,
    },
    Rule {
        name: "times",
        about: "gives everything that the run wrote the source date, and nothing a later one",
        paths: &["**"],
        act: Act::Times,
    },
];
