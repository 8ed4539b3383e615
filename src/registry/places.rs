//! Where images are read instead of where their names say: containers' `registries.conf`, as podman,
//! buildah and skopeo read it (containers-registries.conf(5)).
//!
//! ```text
//! name ── longest prefix ──> mirrors in their order, each for tags, digests or both, then location
//! ```
//! Names stay what they are; pushes go where they say, but heed `blocked` and `insecure`. Short names
//! count where somebody types one ([`super::short`]); a definition's mean the same everywhere.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::disk;
use crate::oci::Reference;

use super::short::ShortNames;
use super::{Error, Keychain};

/// No such file is larger.
const LIMIT: u64 = 4 << 20;

/// What the files say.
#[derive(Debug, Default)]
pub struct Places {
    rules: Vec<Rule>,
    short: ShortNames,
}

/// What is said of the names that begin with a prefix.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    prefix: String,
    location: String,
    pub(super) insecure: bool,
    pub(super) blocked: bool,
    mirrors: Vec<Mirror>,
    /// Where that is said.
    pub(super) file: PathBuf,
}

#[derive(Clone, Debug)]
struct Mirror {
    location: String,
    insecure: bool,
    serves: Serves,
}

/// What a place is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Serves {
    pub(super) tags: bool,
    pub(super) digests: bool,
}

/// One place to read a repository from.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Registry and repository.
    pub(super) name: String,
    pub(super) insecure: bool,
    pub(super) serves: Serves,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    registry: Vec<Entry>,
    #[serde(default)]
    registries: Old,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Entry {
    #[serde(default)]
    prefix: String,
    #[serde(default)]
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror_by_digest_only: bool,
    #[serde(default)]
    mirror: Vec<MirrorEntry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct MirrorEntry {
    #[serde(default)]
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    pull_from_mirror: String,
}

/// The first version of the format, which distributions still ship.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Old {
    insecure: OldList,
    block: OldList,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct OldList {
    registries: Vec<String>,
}

impl Places {
    /// Reads the files of this machine and user, those that are there: the file that
    /// `CONTAINERS_REGISTRIES_CONF` names, the user's, or the machine's, and what is dropped in beside
    /// the latter two. With a file of the user's nothing of the machine's counts.
    pub fn read(keychain: &Keychain) -> Result<Places, Error> {
        let home = || Some(Path::new(keychain.get("HOME")?).join(".config"));
        let own = keychain.get("XDG_CONFIG_HOME").map(PathBuf::from).or_else(home);
        let own = own.map(|config| config.join("containers"));
        let system = Path::new("/etc/containers");
        let mut files = Vec::new();
        let named = keychain.get("CONTAINERS_REGISTRIES_CONF").map(PathBuf::from);
        let of_user = own.as_ref().map(|own| own.join("registries.conf"));
        let only_own = named.is_none() && of_user.as_ref().is_some_and(|path| path.exists());
        match (named, of_user.filter(|_| only_own)) {
            (Some(path), _) | (None, Some(path)) => files.push(path),
            (None, None) => files.push(system.join("registries.conf")),
        }
        let dropped = (!only_own).then(|| system.to_owned()).into_iter().chain(own);
        for folder in dropped.map(|folder| folder.join("registries.conf.d")) {
            let names = disk::list(&folder).unwrap_or_default();
            let paths = names.into_iter().map(|name| folder.join(name));
            files.extend(paths.filter(|path| path.extension().is_some_and(|kind| kind == "conf")));
        }
        // Podman keeps what was chosen at its terminal here.
        let home = || Some(Path::new(keychain.get("HOME")?).join(".cache"));
        let cache = keychain.get("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
        files.extend(cache.map(|cache| cache.join("containers/short-name-aliases.conf")));
        let mut places = Places::default();
        for path in files {
            match disk::read(&path, LIMIT) {
                Ok(bytes) => places.add(&path, &bytes)?,
                // One that was named has to be there.
                Err(error) if error.is_not_found() && !is_named(&path, keychain) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(places)
    }

    /// Adds what a file says; it comes before what earlier files say of the same prefix.
    fn add(&mut self, path: &Path, bytes: &[u8]) -> Result<(), Error> {
        let refuse = |reason: String| Error::RegistriesFile { path: path.to_owned(), reason };
        let text = std::str::from_utf8(bytes).map_err(|error| refuse(error.to_string()))?;
        let at_line = |error: toml::de::Error| {
            let before = error.span().map_or("", |span| &text[..span.start.min(text.len())]);
            refuse(format!("line {}: {}", before.matches('\n').count() + 1, error.message()))
        };
        let file: File = toml::from_str(text).map_err(at_line)?;
        self.short.add(path, text).map_err(at_line)?;
        let mut rules: Vec<Rule> = Vec::new();
        for entry in file.registry {
            rules.push(entry.rule(path).map_err(refuse)?);
        }
        for name in
            file.registries.insecure.registries.iter().chain(&file.registries.block.registries)
        {
            let location = bare(name).map_err(refuse)?;
            if rules.iter().all(|rule| rule.prefix != location) {
                let is_in = |list: &OldList| list.registries.contains(name);
                rules.push(Rule {
                    prefix: location.clone(),
                    location,
                    insecure: is_in(&file.registries.insecure),
                    blocked: is_in(&file.registries.block),
                    mirrors: Vec::new(),
                    file: path.to_owned(),
                });
            }
        }
        for rule in &rules {
            let differs = |other: &&Rule| {
                other.location == rule.location
                    && !rule.location.is_empty()
                    && (other.insecure, other.blocked) != (rule.insecure, rule.blocked)
            };
            if rules.iter().any(|other| differs(&other)) {
                let reason =
                    format!("`{}` is insecure or blocked in one place only", rule.location);
                return Err(refuse(reason));
            }
        }
        self.rules.retain(|old| rules.iter().all(|new| new.prefix != old.prefix));
        self.rules.extend(rules);
        Ok(())
    }

    /// Returns what an alias of a name without a registry stands for, and the file that says so.
    pub fn alias(&self, text: &str) -> Result<Option<(Reference, &Path)>, Error> {
        self.short.alias(text)
    }

    /// Returns what a name without a registry is in the registry that is to be searched, and the file
    /// that says so. Where there are several it is an error that names them.
    pub fn search(&self, text: &str) -> Result<Option<(Reference, &Path)>, Error> {
        self.short.search(text)
    }

    /// Returns the rule for a name (registry and repository, or a registry alone).
    pub(super) fn rule(&self, name: &str) -> Option<&Rule> {
        let mut best: Option<(usize, &Rule)> = None;
        for rule in &self.rules {
            if let Some(length) = matched(name, &rule.prefix)
                && best.is_none_or(|(longest, _)| length > longest)
            {
                best = Some((length, rule));
            }
        }
        best.map(|(_, rule)| rule)
    }
}

impl Rule {
    /// Returns where a name that the rule is for is to be read from, in this order; the last one is
    /// what its location says.
    pub(super) fn places(&self, name: &str) -> Vec<Found> {
        let rest = &name[matched(name, &self.prefix).unwrap_or(name.len())..];
        let everything = Serves { tags: true, digests: true };
        let mirrors = self.mirrors.iter().map(|mirror| Found {
            name: format!("{}{rest}", mirror.location),
            insecure: mirror.insecure,
            serves: mirror.serves,
        });
        let primary = match self.location.as_str() {
            "" => name.to_owned(),
            location => format!("{location}{rest}"),
        };
        let primary = Found { name: primary, insecure: self.insecure, serves: everything };
        mirrors.chain([primary]).collect()
    }
}

impl Entry {
    fn rule(self, path: &Path) -> Result<Rule, String> {
        let wildcard = self.prefix.starts_with("*.");
        let location = match self.location.as_str() {
            "" if wildcard => String::new(),
            "" if self.prefix.is_empty() => {
                return Err("a [[registry]] has neither prefix nor location".to_owned());
            }
            "" => return Err(format!("the [[registry]] of `{}` has no location", self.prefix)),
            text => bare(text)?,
        };
        let prefix = if self.prefix.is_empty() { location.clone() } else { bare(&self.prefix)? };
        if prefix.contains('*') && (!wildcard || prefix[1..].contains(['*', '/', ':'])) {
            return Err(format!("`{prefix}` is no prefix: only `*.HOST` may have a star"));
        }
        let mut mirrors = Vec::new();
        for mirror in self.mirror {
            if mirror.location.is_empty() {
                return Err(format!("a mirror of `{prefix}` has no location"));
            }
            let both = self.mirror_by_digest_only;
            let serves = match mirror.pull_from_mirror.as_str() {
                "" => Serves { tags: !both, digests: true },
                _ if both => {
                    return Err(format!(
                        "`{prefix}` has mirror-by-digest-only, and a mirror with pull-from-mirror"
                    ));
                }
                "all" => Serves { tags: true, digests: true },
                "digest-only" => Serves { tags: false, digests: true },
                "tag-only" => Serves { tags: true, digests: false },
                other => {
                    return Err(format!(
                        "pull-from-mirror is all, digest-only or tag-only, not `{other}`"
                    ));
                }
            };
            let location = bare(&mirror.location)?;
            mirrors.push(Mirror { location, insecure: mirror.insecure, serves });
        }
        let (insecure, blocked) = (self.insecure, self.blocked);
        Ok(Rule { prefix, location, insecure, blocked, mirrors, file: path.to_owned() })
    }
}

fn is_named(path: &Path, keychain: &Keychain) -> bool {
    keychain.get("CONTAINERS_REGISTRIES_CONF").is_some_and(|named| Path::new(named) == path)
}

/// Takes a place as it is written: without a slash at its end, and it never has a scheme.
fn bare(text: &str) -> Result<String, String> {
    let trimmed = text.trim_end_matches('/');
    if trimmed.is_empty() || trimmed.contains("://") {
        return Err(format!("`{text}` is no place of images: write HOST[:PORT][/NAME]"));
    }
    Ok(trimmed.to_owned())
}

/// Returns how much of a name a prefix stands for. A host stands for all its ports, as with podman.
fn matched(name: &str, prefix: &str) -> Option<usize> {
    let end = match prefix.strip_prefix('*') {
        Some(suffix) => {
            let host = name.find([':', '/']).unwrap_or(name.len());
            (name[..host].len() > suffix.len() && name[..host].ends_with(suffix)).then_some(host)?
        }
        None => name.starts_with(prefix).then_some(prefix.len())?,
    };
    name[end..].chars().next().is_none_or(|next| matches!(next, ':' | '/' | '@')).then_some(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn of(text: &str) -> Result<Places, Error> {
        let mut places = Places::default();
        places.add(Path::new("r.conf"), text.as_bytes()).map(|()| places)
    }

    fn names(places: &Places, name: &str) -> Vec<String> {
        let found = places.rule(name).map(|rule| rule.places(name)).unwrap_or_default();
        found.into_iter().map(|place| place.name).collect()
    }

    #[test]
    fn the_longest_prefix_says_where_to_look() {
        let places = of(r#"
            unqualified-search-registries = ["docker.io"]
            short-name-mode = "enforcing"
            [[registry]]
            prefix = "example.com/foo"
            location = "internal.example/bar/"
            [[registry.mirror]]
            location = "m0.local/mirror-for-foo"
            [[registry.mirror]]
            location = "m1.local/mirrors/foo"
            insecure = true
            pull-from-mirror = "digest-only"
            [[registry]]
            location = "example.com"
            [[registry]]
            prefix = "*.wild.example"
            blocked = true
            [aliases]
            "x" = "docker.io/x/y"
        "#)
        .unwrap();
        assert_eq!(
            names(&places, "example.com/foo/image"),
            [
                "m0.local/mirror-for-foo/image",
                "m1.local/mirrors/foo/image",
                "internal.example/bar/image"
            ]
        );
        assert_eq!(names(&places, "example.com/fool"), ["example.com/fool"]);
        assert_eq!(names(&places, "example.com:5000/a"), ["example.com:5000/a"]);
        assert_eq!(names(&places, "example.com"), ["example.com"]);
        assert!(places.rule("example.comx/a").is_none());
        let name = "a.b.wild.example:5000/foo/bar";
        assert_eq!(names(&places, name), [name]);
        assert!(places.rule(name).unwrap().blocked);
        assert!(places.rule("wild.example/a").is_none());
        assert!(places.rule("x/a.wild.example").is_none());
        let mirror =
            &places.rule("example.com/foo/image").unwrap().places("example.com/foo/image")[1];
        assert!(mirror.insecure && mirror.serves == Serves { tags: false, digests: true });
    }

    #[test]
    fn a_later_file_replaces_a_prefix_and_the_first_format_is_read() {
        let mut places = of("[[registry]]\nlocation = \"a.example\"\nblocked = true").unwrap();
        let later = b"[registries.insecure]\nregistries = [\"a.example\", \"b.example\"]\n\
            [registries.block]\nregistries = [\"c.example\", \"b.example\"]\n\
            [registries.search]\nregistries = [\"d.example\"]";
        places.add(Path::new("later.conf"), later).unwrap();
        let of = |name: &str| places.rule(name).map(|rule| (rule.insecure, rule.blocked));
        assert_eq!(of("a.example/x"), Some((true, false)));
        assert_eq!(of("b.example/x"), Some((true, true)));
        assert_eq!(of("c.example/x"), Some((false, true)));
        assert_eq!(of("d.example/x"), None);
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (text, part) in [
            ("nonsense = [", "line 1"),
            ("[[registry]]\nblocked = true", "neither"),
            ("[[registry]]\nprefix = \"a.example\"", "no location"),
            ("[[registry]]\nlocation = \"http://a.example\"", "HOST"),
            ("[[registry]]\nprefix = \"a.*.example\"\nlocation = \"b\"", "star"),
            (
                "[[registry]]\nlocation = \"a\"\n[[registry.mirror]]\ninsecure = true",
                "mirror of `a`",
            ),
            (
                "[[registry]]\nlocation = \"a\"\n[[registry.mirror]]\nlocation = \"b\"\npull-from-mirror = \"x\"",
                "tag-only",
            ),
            (
                "[[registry]]\nlocation = \"a\"\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation = \"b\"\npull-from-mirror = \"all\"",
                "mirror-by-digest-only",
            ),
            (
                "[[registry]]\nlocation = \"a\"\ninsecure = true\n[[registry]]\nprefix = \"b\"\nlocation = \"a\"",
                "one place only",
            ),
            ("[[registry]]\nlocation = 5", "line 2"),
        ] {
            let error = of(text).unwrap_err().to_string();
            assert!(error.contains("r.conf") && error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn a_users_file_replaces_the_machines_and_a_named_one_has_to_be_there() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join(".config/containers/registries.conf.d");
        std::fs::create_dir_all(&folder).unwrap();
        let rule = |place: &str| format!("[[registry]]\nlocation = \"{place}\"\n");
        std::fs::write(folder.join("2.conf"), rule("dropped.example")).unwrap();
        std::fs::write(folder.join("3.txt"), "[").unwrap();
        std::fs::write(home.path().join("named"), rule("named.example")).unwrap();
        let read = |env: &[(&str, &str)]| {
            let path = home.path().to_str().unwrap();
            let env: BTreeMap<String, String> = env
                .iter()
                .chain(&[("HOME", "~")])
                .map(|(name, value)| ((*name).to_owned(), value.replace('~', path)))
                .collect();
            Places::read(&Keychain::new(&env))
        };
        let has = |places: &Places, name: &str| places.rule(name).is_some();
        let named = [("CONTAINERS_REGISTRIES_CONF", "~/named")];
        let places = read(&named).unwrap();
        assert!(has(&places, "named.example/a") && has(&places, "dropped.example/a"));
        std::fs::write(home.path().join(".config/containers/registries.conf"), rule("own.example"))
            .unwrap();
        let places = read(&[]).unwrap();
        assert!(has(&places, "own.example/a") && has(&places, "dropped.example/a"));
        assert!(!has(&read(&named).unwrap(), "own.example/a"));
        let error = read(&[("CONTAINERS_REGISTRIES_CONF", "~/absent")]).unwrap_err().to_string();
        assert!(error.contains("absent"), "{error}");
    }
}
