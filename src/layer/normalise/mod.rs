//! The rules of identity: what is removed or rewritten in a finished tree so that two builds of the
//! same inputs give the same bytes. A versioned table of named rules; a recipe switches one off by
//! its name. All act in place, on the changed paths of the merged tree only.

mod accounts;
mod effect;
mod glob;
mod java;
mod python;
mod r;
mod rules;
mod tex;
mod text;
mod times;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use self::rules::Act;
use self::tree::{Place, Tree};
use super::Error;
use crate::changes::{Changes, Kind};

pub use self::effect::Effect;
pub use self::rules::{RULES, Rule};

/// Names this table of rules; it is part of every key and every lock.
pub const VERSION: &str = "n1";

/// The most bytes of a file that a rule rewrites; a larger one is not what the rule means.
const LIMIT: u64 = 16 << 20;

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
    changes: &Changes,
    without: &BTreeSet<String>,
    times: &Times,
) -> Result<BTreeMap<&'static str, u64>, Error> {
    let tree = Tree::open(merged)?;
    let mut counts = BTreeMap::new();
    let settles = !without.contains("times");
    for rule in RULES.iter().filter(|rule| !without.contains(rule.name)) {
        let mut count = 0;
        let mut cursor = changes.cursor();
        while let Some((path, kind)) = cursor.advance() {
            if kind != Kind::Present || !rule.paths.iter().any(|glob| glob::matches(glob, path)) {
                continue;
            }
            count += u64::from(match rule.act {
                Act::Times => times::clamp(&tree, path, times)?,
                Act::Compiled => python::retime(&tree, path, changes, times, settles)?,
                act => match tree.place(path)? {
                    Some(place) => apply(act, &place, times)?,
                    None => false,
                },
            });
        }
        if matches!(rule.act, Act::Compiled) && settles {
            count += python::retime_parents(&tree, changes, times)?;
        }
        if count > 0 {
            counts.insert(rule.name, count);
        }
    }
    Ok(counts)
}

/// Applies a rule to one path; tells whether it changed anything.
fn apply(act: Act, place: &Place<'_>, times: &Times) -> Result<bool, Error> {
    let Some(stat) = place.file()? else { return Ok(false) };
    match act {
        Act::Remove => place.remove()?,
        Act::Empty if stat.st_size > 0 => place.replace(b"")?,
        Act::Rewrite(rewrite) if is_small(&stat) => {
            let content = place.read()?;
            match rewrite(&content, times) {
                Some(new) if new != content => place.replace(&new)?,
                _ => return Ok(false),
            }
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn is_small(stat: &rustix::fs::Stat) -> bool {
    u64::try_from(stat.st_size).is_ok_and(|size| size <= LIMIT)
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
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};

    use super::*;
    use crate::changes::Change;

    fn date(path: &Path, seconds: i64) {
        let time = Timespec { tv_sec: seconds, tv_nsec: 7 };
        let both = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, path, &both, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }

    /// Lists the paths and the folders above them.
    fn present(names: &[&str]) -> Changes {
        let mut changes = Vec::new();
        for name in names {
            for (end, _) in name.match_indices('/').chain([(name.len(), "")]) {
                changes.push(Change { path: name.as_bytes()[..end].to_vec(), kind: Kind::Present });
            }
        }
        changes.into_iter().collect()
    }

    #[test]
    fn every_rule_does_its_work_and_a_second_run_changes_nothing() {
        const RUN: i64 = 1_795_528_700;
        const SOURCE_DATE: i64 = 1_700_000_000;
        let dir = tempfile::tempdir().unwrap();
        let built: &[u8] = b"Package: x\nBuilt: R 4.5.1; ; 2026-11-24 13:58:25 UTC; unix\n";
        let stamp = u32::try_from(RUN).unwrap().to_le_bytes();
        let code =
            [&[0xcb, 0x0d, b'\r', b'\n', 0, 0, 0, 0], &stamp[..], &[6, 0, 0, 0, 0xe3]].concat();
        let keystore = java::store(1_795_528_800_000);
        let metadata = r::stored(built);
        let files: &[(&str, &[u8])] = &[
            ("etc/gitconfig", b"[a]\n\tz = 1\n\ty = 0\n"),
            ("etc/machine-id", b"0123456789abcdef\n"),
            ("etc/shadow", b"root:*:20781:0:99999:7:::\n"),
            ("etc/ssh/ssh_host_rsa_key", b"secret"),
            ("etc/ssh/sshd_config", b"Port 22\n"),
            ("etc/ssl/certs/java/cacerts", &keystore),
            ("etc/ssl/private/ssl-cert-snakeoil.key", b"secret"),
            ("home/me/.cache/pip/http/a/b", b"date: now"),
            ("opt/conda/conda-meta/history", b"==> 2026-11-24 13:58:20 <==\n"),
            ("opt/m/__pycache__/mod.cpython-312.pyc", &code),
            ("opt/m/mod.py", b"x = 1\n"),
            ("opt/r/x/DESCRIPTION", built),
            ("opt/r/x/Meta/package.rds", &metadata),
            ("opt/x/extensions/extensions.json", b"{\"installedTimestamp\":1795528800123}"),
            ("var/cache/apt/pkgcache.bin", b"pointers"),
            ("var/cache/ldconfig/aux-cache", b"inodes"),
            ("var/lib/dbus/machine-id", b"0123456789abcdef\n"),
            ("var/lib/rstudio-server/secure-cookie-key", b"secret"),
            ("var/lib/systemd/random-seed", b"secret"),
            ("var/lib/texmf/ls-R", b"./:\nweb2c\nls-R\n"),
            ("var/lib/texmf/updmap.cfg-TEXLIVEDIST", b"Map b\nMap a\n"),
            ("var/lib/texmf/web2c/updmap.log", b"now"),
            ("var/log/apt/history.log", b"Start-Date: now\n"),
            ("var/log/faillog", b"kept"),
        ];
        let names: Vec<&str> = files.iter().map(|(name, _)| *name).collect();
        let changes = present(&names);
        for (name, content) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, content).unwrap();
        }
        let mut dated: Vec<Change> = changes.iter().collect();
        dated.reverse();
        for change in dated {
            date(&dir.path().join(std::str::from_utf8(&change.path).unwrap()), RUN);
        }
        let times = Times { start: RUN, end: RUN + 100, source_date: SOURCE_DATE };
        let counts = normalise(dir.path(), &changes, &BTreeSet::new(), &times).unwrap();
        for rule in RULES.iter().filter(|rule| rule.name != "times") {
            assert_eq!(counts.get(rule.name), Some(&1), "{}", rule.name);
        }
        for (name, content) in files {
            let path = dir.path().join(name);
            match *name {
                "etc/machine-id" => assert_eq!(fs::read(path).unwrap(), b""),
                "etc/ssh/sshd_config" | "opt/m/mod.py" | "var/log/faillog" => {
                    assert_eq!(fs::read(path).unwrap(), *content, "{name}");
                }
                _ => assert_ne!(fs::read(path).ok().as_deref(), Some(*content), "{name}"),
            }
        }
        for change in &changes {
            let path = dir.path().join(std::str::from_utf8(&change.path).unwrap());
            if let Ok(metadata) = fs::symlink_metadata(&path) {
                let time = (metadata.mtime(), metadata.mtime_nsec());
                assert_eq!(time, (SOURCE_DATE, 0), "{}", path.display());
            }
        }
        let again = normalise(dir.path(), &changes, &BTreeSet::new(), &times).unwrap();
        assert!(again.is_empty(), "{again:?}");
    }

    #[test]
    fn nothing_behind_a_symbolic_link_is_touched() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, outside) = (dir.path().join("tree"), dir.path().join("outside"));
        fs::create_dir(&tree).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("machine-id"), "theirs").unwrap();
        fs::write(outside.join("shadow"), "root:*:30000:0:99999:7:::\n").unwrap();
        for name in ["machine-id", "shadow"] {
            date(&outside.join(name), 5);
        }
        symlink(&outside, tree.join("etc")).unwrap();
        fs::create_dir_all(tree.join("var/lib/dbus")).unwrap();
        symlink(outside.join("machine-id"), tree.join("var/lib/dbus/machine-id")).unwrap();
        let changes = present(&["etc/machine-id", "etc/shadow", "var/lib/dbus/machine-id"]);
        let times = Times { start: 1, end: 10, source_date: 1_700_000_000 };
        normalise(&tree, &changes, &BTreeSet::new(), &times).unwrap();
        assert_eq!(fs::read(outside.join("machine-id")).unwrap(), b"theirs");
        assert_eq!(fs::read(outside.join("shadow")).unwrap(), b"root:*:30000:0:99999:7:::\n");
        for name in ["machine-id", "shadow"] {
            assert_eq!(fs::metadata(outside.join(name)).unwrap().mtime(), 5, "{name}");
        }
        assert!(fs::symlink_metadata(tree.join("var/lib/dbus/machine-id")).is_ok());
    }

    #[test]
    fn a_rule_is_switched_off_by_its_name() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("etc")).unwrap();
        fs::write(dir.path().join("etc/machine-id"), "id").unwrap();
        let changes = present(&["etc/machine-id"]);
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
                date(&dir.path().join(&path), time);
                if of_layer {
                    changes.push(Change { path: path.into_bytes(), kind: Kind::Present });
                }
            }
            let path = format!("m/__pycache__/{name}.cpython-312.opt-1.pyc");
            fs::write(dir.path().join(&path), code(compiled)).unwrap();
            date(&dir.path().join(&path), RUN + 5);
            changes.push(Change { path: path.into_bytes(), kind: Kind::Present });
        }
        let changes: Changes = changes.into_iter().collect();
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
    fn byte_code_of_a_parent_does_not_become_current_by_chance() {
        const RUN: i64 = 1_795_530_000;
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("m/__pycache__");
        fs::create_dir_all(&cache).unwrap();
        // Dates of the source when it was compiled, of the source date, and what the byte code has.
        for (name, source_date, expected) in
            [("mod", 1_700_000_000, 0), ("mod.x", 1_700_000_000, 1_700_000_000), ("zero", 0, 1)]
        {
            let of_compiled = source_date;
            let mut code = vec![0xcb, 0x0d, b'\r', b'\n', 0, 0, 0, 0];
            code.extend_from_slice(&python::field(of_compiled).to_le_bytes());
            code.extend_from_slice(&[9, 0, 0, 0, 0xe3]);
            let compiled = cache.join(format!("{name}.cpython-312.pyc"));
            fs::write(&compiled, &code).unwrap();
            date(&compiled, 1_600_000_000);
            // Changed in this layer, but for the module whose name only begins alike.
            let source = dir.path().join(format!("m/{name}.py"));
            fs::write(&source, "x = 2\n").unwrap();
            date(&source, if name == "mod.x" { of_compiled } else { RUN });
            let changes = if name == "mod.x" {
                Changes::default()
            } else {
                present(&[&format!("m/{name}.py")])
            };
            let times = Times { start: RUN, end: RUN + 1, source_date };
            for _ in 0..2 {
                normalise(dir.path(), &changes, &BTreeSet::new(), &times).unwrap();
                let read = fs::read(&compiled).unwrap();
                assert_eq!(read[8..12], u32::to_le_bytes(expected), "{name}");
                assert_eq!(fs::metadata(&compiled).unwrap().mtime(), 1_600_000_000);
            }
        }
    }

    #[test]
    fn a_folder_keeps_its_time_when_a_rule_removes_from_it() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("var/log");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("dpkg.log"), "now\n").unwrap();
        date(&folder, 1_500_000_000);
        let changes = present(&["var/log/dpkg.log"]);
        let times = Times { start: 1, end: 2, source_date: 1_700_000_000 };
        normalise(dir.path(), &changes, &BTreeSet::new(), &times).unwrap();
        assert!(!folder.join("dpkg.log").exists());
        assert_eq!(fs::metadata(&folder).unwrap().mtime(), 1_500_000_000);
    }
}
