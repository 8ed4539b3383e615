//! Why two builds differ: a package of another version, or one of the ways in which a build tells of
//! the machine, the moment and chance.

use serde::Serialize;

/// A kind of cause, in the order in which they are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// Another version of a package.
    Input,
    /// The clock.
    Time,
    /// The order in which a folder, a table or a set of threads gave things.
    Order,
    /// Keys, identities, temporary names.
    Random,
    /// The machine's name.
    HostName,
    /// A folder of the build.
    BuildPath,
    /// A rule of normalisation covers it, and was not applied.
    Rule,
    /// Permissions, owner, link or capability alone.
    Metadata,
    /// None that is known.
    Unexplained,
}

impl Cause {
    /// Returns the word that stands before a line.
    pub fn word(self) -> &'static str {
        match self {
            Cause::Input => "INPUT",
            Cause::Time => "TIME",
            Cause::Order => "ORDER",
            Cause::Random => "RANDOM",
            Cause::HostName => "HOST NAME",
            Cause::BuildPath => "BUILD PATH",
            Cause::Rule => "RULE",
            Cause::Metadata => "METADATA",
            Cause::Unexplained => "UNEXPLAINED",
        }
    }

    /// Returns what usually cures it, where no rule does.
    pub fn cure(self) -> Option<&'static str> {
        Some(match self {
            Cause::Time => {
                "a tool that heeds SOURCE_DATE_EPOCH, or remove it at the end of the step"
            }
            Cause::Order => {
                "sort it in the step; PYTHONHASHSEED=0 for Python's sets, `make -j1` for what runs at once"
            }
            Cause::Random => {
                "remove it at the end of the step, so that the first start makes it anew"
            }
            Cause::HostName => {
                "give the tool a name of its own, or remove it at the end of the step"
            }
            Cause::BuildPath => {
                "build below a folder of a fixed name; -ffile-prefix-map for C and C++"
            }
            Cause::Input => "build from the same lock",
            Cause::Rule | Cause::Metadata | Cause::Unexplained => return None,
        })
    }

    /// Returns what a rule of normalisation is about.
    pub(super) fn of_rule(name: &str) -> Cause {
        match name {
            "machine-id" | "dbus-machine-id" | "ssh-host-keys" | "snakeoil" | "random-seed"
            | "rstudio-keys" => Cause::Random,
            "gitconfig-order" | "ldconfig-cache" | "tex-files" | "tex-settings" => Cause::Order,
            "logs" | "apt-caches" | "java-keystore" | "r-built" | "r-built-meta" | "tex-logs"
            | "conda-history" | "extension-times" | "shadow-days" | "pyc-times" | "times"
            | "tool-leftovers" => Cause::Time,
            _ => Cause::Rule,
        }
    }
}

/// A cause with its words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) cause: Cause,
    pub(super) text: String,
    pub(super) certain: bool,
    pub(super) rule: Option<&'static str>,
}

impl Found {
    pub(super) fn guess(cause: Cause, text: impl Into<String>) -> Found {
        Found { cause, text: text.into(), certain: false, rule: None }
    }

    pub(super) fn sure(cause: Cause, text: impl Into<String>) -> Found {
        Found { cause, text: text.into(), certain: true, rule: None }
    }

    pub(super) fn unexplained(text: impl Into<String>) -> Found {
        Found { cause: Cause::Unexplained, text: text.into(), certain: true, rule: None }
    }

    /// Returns what would cure it.
    pub(super) fn cure(&self) -> Option<String> {
        match self.rule {
            Some(rule) => Some(format!("rule `{rule}`")),
            None => self.cause.cure().map(str::to_owned),
        }
    }
}
