//! The rules of identity: what is removed or rewritten in a finished tree so that two builds of the
//! same inputs give the same bytes. A versioned table of named rules; a recipe switches one off by
//! its name. All act in place, on the changed paths of the merged tree only.

mod accounts;
mod glob;
mod java;
mod python;
mod r;
mod text;
mod times;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::Error;
use crate::changes::{Change, Kind};
use crate::disk::At;

/// Names this table of rules; it is part of every key and every lock.
pub const VERSION: &str = "n1";

/// The most bytes of a file that a rule rewrites; a larger one is not what the rule means.
const LIMIT: u64 = 16 << 20;

/// A rule.
#[derive(Debug)]
pub struct Rule {
    /// What a recipe switches it off by.
    pub name: &'static str,
    /// What it does and why, in a sentence.
    pub about: &'static str,
    /// Which paths it looks at, as globs below the root; `**/` stands for any folders.
    pub paths: &'static [&'static str],
    act: Act,
}

/// Returns the new content of a file, or `None` to leave it as it is.
type Rewrite = fn(&[u8], &Times) -> Option<Vec<u8>>;

#[derive(Clone, Copy, Debug)]
enum Act {
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
        about: "removes what downloaders and npm note of their runs",
        paths: &["**/.npm/_logs/*", "**/.npm/_update-notifier-last-checked", "**/.wget-hsts"],
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
        about: "dates R packages that were built in the run to the source date",
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

/// The clock of a layer's run, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// When the first step began.
    pub start: i64,
    /// When the last step ended.
    pub end: i64,
    /// What stands for the time of the run.
    pub source_date: i64,
}

impl Times {
    /// Returns what a time becomes: the source date if the clock gave it during the run, or if it is
    /// later than that; else it stays.
    fn settled(&self, seconds: i64) -> i64 {
        if self.is_of_the_run(seconds) { self.source_date } else { seconds.min(self.source_date) }
    }

    /// Tells whether a time is one that the clock gave during the run.
    fn is_of_the_run(&self, seconds: i64) -> bool {
        (self.start..=self.end).contains(&seconds)
    }
}

/// Applies the rules in place to the changed paths of a merged tree, but for those `without`.
///
/// What changed has to be asked for again afterwards. A second run changes nothing. Returns how
/// many paths each rule touched.
pub fn normalise(
    merged: &Path,
    changes: &[Change],
    without: &BTreeSet<String>,
    times: &Times,
) -> Result<BTreeMap<&'static str, u64>, Error> {
    let mut counts = BTreeMap::new();
    let present: Vec<&Change> =
        changes.iter().filter(|change| change.kind == Kind::Present).collect();
    let settles = !without.contains("times");
    for rule in RULES.iter().filter(|rule| !without.contains(rule.name)) {
        if let Act::Times = rule.act {
            counts.insert(rule.name, times::clamp(merged, &present, times)?);
            continue;
        }
        for change in &present {
            if !rule.paths.iter().any(|glob| glob::matches(glob, &change.path)) {
                continue;
            }
            let path = merged.join(OsStr::from_bytes(&change.path));
            let touched = match rule.act {
                Act::Compiled => compiled(merged, &change.path, &present, times, settles)?,
                act => apply(act, &path, times)?,
            };
            if touched {
                *counts.entry(rule.name).or_insert(0) += 1;
            }
        }
    }
    counts.retain(|_, count| *count > 0);
    Ok(counts)
}

/// Returns the metadata of a file; `None` for anything else, and for what a rule has removed.
fn file_at(path: &Path) -> Result<Option<fs::Metadata>, Error> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(metadata.is_file().then_some(metadata)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(crate::disk::Error::new("look at", path, error).into()),
    }
}

/// Applies a rule to one path; tells whether it changed anything.
fn apply(act: Act, path: &Path, times: &Times) -> Result<bool, Error> {
    let Some(metadata) = file_at(path)? else { return Ok(false) };
    match act {
        Act::Remove => {
            // The folder keeps its time, as if the file had never been there.
            let folder = path.parent().unwrap_or(Path::new("/"));
            let before = fs::symlink_metadata(folder).at("look at", folder)?;
            fs::remove_file(path).at("remove", path)?;
            times::set(folder, before.mtime(), before.mtime_nsec())?;
            Ok(true)
        }
        Act::Empty if metadata.len() == 0 => Ok(false),
        Act::Empty => replace(path, &metadata, b"").map(|()| true),
        Act::Rewrite(rewrite) if metadata.len() <= LIMIT => {
            let content = read(path)?;
            match rewrite(&content, times) {
                Some(new) if new != content => replace(path, &metadata, &new).map(|()| true),
                _ => Ok(false),
            }
        }
        Act::Rewrite(_) | Act::Compiled | Act::Times => Ok(false),
    }
}

/// Tells a compiled file the time that its source will have; runs before the times are set. One that
/// is older than its source must not become current by it, so it gets a time that no source has.
fn compiled(
    merged: &Path,
    path: &[u8],
    present: &[&Change],
    times: &Times,
    settles: bool,
) -> Result<bool, Error> {
    let place = merged.join(OsStr::from_bytes(path));
    let (Some(metadata), Some(source)) =
        (file_at(&place)?, source_of(Path::new(OsStr::from_bytes(path))))
    else {
        return Ok(false);
    };
    let content = read(&place)?;
    let Some(stamp) = python::stamp(&content) else { return Ok(false) };
    let wanted = match file_at(&merged.join(&source))? {
        None if settles => python::field(times.settled(stamp.into())),
        None => stamp,
        Some(of_source) if python::field(of_source.mtime()) != stamp => 0,
        Some(of_source) => {
            let source = source.as_os_str().as_bytes();
            let changed = present.binary_search_by(|change| change.path.as_slice().cmp(source));
            if settles && changed.is_ok() {
                python::field(times.settled(of_source.mtime()))
            } else {
                stamp
            }
        }
    };
    if wanted == stamp {
        return Ok(false);
    }
    replace(&place, &metadata, &python::restamped(content, wanted)).map(|()| true)
}

/// Returns the source beside the `__pycache__` that a compiled file lies in.
fn source_of(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let module = name.split(".cpython-").next().filter(|module| *module != name)?;
    Some(path.parent()?.parent()?.join(format!("{module}.py")))
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let mut content = Vec::new();
    let mut file = open(path, File::options().read(true))?;
    file.read_to_end(&mut content).at("read", path)?;
    Ok(content)
}

/// Replaces a file's content and keeps its time, which is another rule's matter. In place, so that
/// owner, mode and hard links stay.
fn replace(path: &Path, metadata: &fs::Metadata, content: &[u8]) -> Result<(), Error> {
    let mut file = open(path, File::options().write(true).truncate(true))?;
    file.write_all(content).at("write", path)?;
    times::set(path, metadata.mtime(), metadata.mtime_nsec())
}

fn open(path: &Path, options: &mut fs::OpenOptions) -> Result<File, Error> {
    Ok(options.custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC).open(path).at("open", path)?)
}

/// Refuses a name in `without` that no rule has.
pub fn check_names(without: &BTreeSet<String>) -> Result<(), Error> {
    match without.iter().find(|name| !RULES.iter().any(|rule| rule.name == name.as_str())) {
        Some(name) => Err(Error::NoSuchRule(name.clone())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_put_in_order_once_and_stays_so() {
        let dir = tempfile::tempdir().unwrap();
        let files = [
            ("etc/machine-id", "0123456789abcdef\n"),
            ("etc/shadow", "root:*:29777:0:99999:7:::\n"),
            ("etc/ssh/ssh_host_rsa_key", "secret"),
            ("etc/ssh/sshd_config", "Port 22\n"),
            ("opt/m/mod.py", "x = 1\n"),
            ("var/log/apt/history.log", "Start-Date: now\n"),
            ("var/log/faillog", "kept"),
        ];
        let mut changes = Vec::new();
        for (name, content) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, content).unwrap();
            let mut above = String::new();
            for part in name.split('/') {
                above = if above.is_empty() { part.to_owned() } else { format!("{above}/{part}") };
                changes.push(Change { path: above.clone().into_bytes(), kind: Kind::Present });
            }
        }
        changes.sort();
        changes.dedup();
        let now = fs::metadata(dir.path().join("etc/shadow")).unwrap().mtime();
        let times = Times { start: now - 5, end: now, source_date: 1_700_000_000 };
        let counts = normalise(dir.path(), &changes, &BTreeSet::new(), &times).unwrap();
        assert_eq!((counts["logs"], counts["ssh-host-keys"], counts["machine-id"]), (1, 1, 1));
        assert_eq!(fs::read(dir.path().join("etc/machine-id")).unwrap(), b"");
        assert!(!dir.path().join("var/log/apt/history.log").exists());
        assert!(dir.path().join("var/log/faillog").exists());
        for name in ["etc", "etc/ssh", "etc/machine-id", "var/log/apt", "opt/m/mod.py"] {
            let metadata = fs::metadata(dir.path().join(name)).unwrap();
            assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (1_700_000_000, 0), "{name}");
        }
        let again = normalise(dir.path(), &changes, &BTreeSet::new(), &times).unwrap();
        assert!(again.is_empty(), "{again:?}");
    }

    #[test]
    fn a_rule_is_switched_off_by_its_name() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("etc")).unwrap();
        fs::write(dir.path().join("etc/machine-id"), "id").unwrap();
        let changes = [Change { path: b"etc/machine-id".to_vec(), kind: Kind::Present }];
        let times = Times { start: 1, end: 2, source_date: 1 };
        let without = BTreeSet::from(["machine-id".to_owned()]);
        check_names(&without).unwrap();
        normalise(dir.path(), &changes, &without, &times).unwrap();
        assert_eq!(fs::read(dir.path().join("etc/machine-id")).unwrap(), b"id");
        assert!(check_names(&BTreeSet::from(["machine".to_owned()])).is_err());
    }

    #[test]
    fn byte_code_follows_its_source_and_stale_byte_code_stays_stale() {
        const RUN: i64 = 1_795_530_000;
        const SOURCE_DATE: i64 = 1_700_000_000;
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("m/__pycache__");
        fs::create_dir_all(&cache).unwrap();
        let code = |time: i64| {
            let mut bytes = vec![0xcb, 0x0d, b'\r', b'\n', 0, 0, 0, 0];
            bytes.extend_from_slice(&python::field(time).to_le_bytes());
            bytes.extend_from_slice(&[9, 0, 0, 0, 0xe3]);
            bytes
        };
        // Name, the source's time, the byte code's, whether the source is of this layer, the result.
        let cases = [
            ("run", Some(RUN + 3), RUN + 3, true, SOURCE_DATE),
            ("old", Some(1_600_000_000), 1_600_000_000, true, 1_600_000_000),
            ("late", Some(RUN + 900), RUN + 900, true, SOURCE_DATE),
            ("parents", Some(RUN - 900), RUN - 900, false, RUN - 900),
            ("stale", Some(RUN + 4), RUN + 3, true, 0),
            ("alone", None, RUN + 3, true, SOURCE_DATE),
        ];
        let mut changes = Vec::new();
        for (name, source, compiled, of_layer, _) in cases {
            if let Some(time) = source {
                let path = format!("m/{name}.py");
                fs::write(dir.path().join(&path), "x = 1\n").unwrap();
                times::set(&dir.path().join(&path), time, 7).unwrap();
                if of_layer {
                    changes.push(Change { path: path.into_bytes(), kind: Kind::Present });
                }
            }
            let path = format!("m/__pycache__/{name}.cpython-312.opt-1.pyc");
            fs::write(dir.path().join(&path), code(compiled)).unwrap();
            times::set(&dir.path().join(&path), RUN + 5, 7).unwrap();
            changes.push(Change { path: path.into_bytes(), kind: Kind::Present });
        }
        changes.sort();
        let times = Times { start: RUN, end: RUN + 10, source_date: SOURCE_DATE };
        let counts = normalise(dir.path(), &changes, &BTreeSet::new(), &times).unwrap();
        assert_eq!(counts["pyc-times"], 4);
        for (name, source, .., expected) in cases {
            let path = cache.join(format!("{name}.cpython-312.opt-1.pyc"));
            assert_eq!(fs::read(&path).unwrap(), code(expected), "{name}");
            assert_eq!(fs::metadata(&path).unwrap().mtime(), SOURCE_DATE);
            if source.is_some() && name != "stale" {
                let source = fs::metadata(dir.path().join(format!("m/{name}.py"))).unwrap();
                assert_eq!(source.mtime(), expected, "{name}");
            }
        }
        let again = normalise(dir.path(), &changes, &BTreeSet::new(), &times).unwrap();
        assert!(again.is_empty(), "{again:?}");
    }

    #[test]
    fn a_folder_keeps_its_time_when_a_rule_removes_from_it() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("var/log");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("dpkg.log"), "now\n").unwrap();
        times::set(&folder, 1_500_000_000, 0).unwrap();
        let changes: Vec<Change> = ["var", "var/log", "var/log/dpkg.log"]
            .map(|path| Change { path: path.as_bytes().to_vec(), kind: Kind::Present })
            .to_vec();
        let times = Times { start: 1, end: 2, source_date: 1_700_000_000 };
        normalise(dir.path(), &changes, &BTreeSet::new(), &times).unwrap();
        assert!(!folder.join("dpkg.log").exists());
        assert_eq!(fs::metadata(&folder).unwrap().mtime(), 1_500_000_000);
    }
}
