//! Who we are to a registry: the command line, the environment, and the files that docker, podman
//! and their kin write when one logs in (containers-auth.json(5), docker's config.json).
//!
//! The search goes on until a credential is found, not until a file is: a file of one tool often
//! stands before the one that knows the registry.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use serde::Deserialize;

use crate::disk;

use super::host::is_docker_hub;
use super::{Error, helper};

/// No authentication file is larger.
pub(super) const LIMIT: u64 = 4 << 20;

/// What proves who we are.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// A user and a password (or an access token in its place).
    Password {
        /// The user.
        user: String,
        /// The password.
        password: String,
    },
    /// An identity token, which is exchanged for access tokens.
    Identity(String),
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Secret::Password { user, .. } => write!(f, "Password({user:?}, …)"),
            Secret::Identity(_) => f.write_str("Identity(…)"),
        }
    }
}

/// A secret and where it was found, so that a registry's refusal can say whose it refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// The secret.
    pub secret: Secret,
    /// A file's path, a variable's name or an option.
    pub found_in: String,
}

/// Finds credentials. Nothing is read before somebody asks for one.
#[derive(Clone, Default)]
pub struct Keychain {
    logins: BTreeMap<String, (String, String)>,
    file: Option<PathBuf>,
    env: BTreeMap<String, String>,
}

impl std::fmt::Debug for Keychain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The environment may hold tokens.
        f.debug_struct("Keychain").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Keychain {
    /// Takes the environment: `HOME`, `REGISTRY_AUTH_FILE`, `DOCKER_CONFIG`, `PATH` and the like.
    pub fn new(env: &BTreeMap<String, String>) -> Keychain {
        Keychain { env: env.clone(), ..Keychain::default() }
    }

    /// Uses this user and password for a registry, and for no other: a build that is pushed with a
    /// password may read its base elsewhere.
    #[must_use]
    pub fn with_login(mut self, registry: &str, user: &str, password: &str) -> Keychain {
        let login = (user.to_owned(), password.to_owned());
        self.logins.insert(normalise(registry).to_owned(), login);
        self
    }

    /// Reads this file and no other.
    #[must_use]
    pub fn with_file(mut self, file: &Path) -> Keychain {
        self.file = Some(file.to_owned());
        self
    }

    /// Finds the credential for a repository; `None` is anonymous.
    pub fn find(&self, registry: &str, repository: &str) -> Result<Option<Credential>, Error> {
        if let Some((user, password)) = self.logins.get(normalise(registry)) {
            let secret = Secret::Password { user: user.clone(), password: password.clone() };
            return Ok(Some(Credential { secret, found_in: "the command line".to_owned() }));
        }
        let variable = variable_of(registry);
        if let Some((user, password)) = self.get(&variable).and_then(|text| text.split_once(':')) {
            let secret = Secret::Password { user: user.to_owned(), password: password.to_owned() };
            return Ok(Some(Credential { secret, found_in: variable }));
        }
        for path in self.files() {
            let bytes = match disk::read(&path, LIMIT) {
                Ok(bytes) => bytes,
                // One that was named on the command line has to be there.
                Err(error) if error.is_not_found() && self.file.is_none() => continue,
                Err(error) => return Err(error.into()),
            };
            let file = AuthFile::parse(&bytes, is_legacy(&path))
                .map_err(|source| Error::AuthFile { path: path.clone(), source })?;
            if let Some(secret) = file.find(registry, repository, &self.env)? {
                return Ok(Some(Credential { secret, found_in: path.display().to_string() }));
            }
        }
        // The runner's own token is only a guess, so whatever was written down comes first.
        if registry == "ghcr.io"
            && let Some(token) = self.get("GITHUB_TOKEN")
        {
            let user = self.get("GITHUB_ACTOR").unwrap_or("x-access-token").to_owned();
            let secret = Secret::Password { user, password: token.to_owned() };
            return Ok(Some(Credential { secret, found_in: "GITHUB_TOKEN".to_owned() }));
        }
        Ok(None)
    }

    pub(super) fn env(&self) -> &BTreeMap<String, String> {
        &self.env
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.env.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Returns the files to look into, in their order.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        if let Some(file) = &self.file {
            return vec![file.clone()];
        }
        if let Some(file) = self.get("REGISTRY_AUTH_FILE") {
            return vec![PathBuf::from(file)];
        }
        let home = self.get("HOME").map(PathBuf::from);
        let runtime = self.get("XDG_RUNTIME_DIR").map_or_else(
            || PathBuf::from(format!("/run/containers/{}", rustix::process::getuid().as_raw())),
            |dir| Path::new(dir).join("containers"),
        );
        let below_home = |path: &str| home.as_ref().map(|home| home.join(path));
        let config = self.get("XDG_CONFIG_HOME").map(PathBuf::from).or(below_home(".config"));
        let docker = self.get("DOCKER_CONFIG").map(PathBuf::from).or(below_home(".docker"));
        [
            Some(runtime.join("auth.json")),
            config.map(|dir| dir.join("containers/auth.json")),
            docker.map(|dir| dir.join("config.json")),
            below_home(".dockercfg"),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// Returns the variable that holds `user:password` of a registry, as `OCIBUILD_AUTH_GHCR_IO`.
fn variable_of(registry: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    format!("OCIBUILD_AUTH_{}", registry.chars().map(plain).collect::<String>())
}

/// Docker's oldest file has no wrapper around the registries.
pub(super) fn is_legacy(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == ".dockercfg")
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct AuthFile {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
    #[serde(default)]
    creds_store: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
}

impl AuthFile {
    fn parse(bytes: &[u8], legacy: bool) -> Result<AuthFile, serde_json::Error> {
        if bytes.trim_ascii().is_empty() {
            return Ok(AuthFile::default());
        }
        if legacy {
            let auths = serde_json::from_slice(bytes)?;
            return Ok(AuthFile { auths, ..AuthFile::default() });
        }
        serde_json::from_slice(bytes)
    }

    fn find(
        &self,
        registry: &str,
        repository: &str,
        env: &BTreeMap<String, String>,
    ) -> Result<Option<Secret>, Error> {
        let registry = normalise(registry);
        let server = server_of(registry);
        let helper = self.cred_helpers.iter().find(|(key, _)| normalise(key) == registry);
        if let Some((_, name)) = helper.filter(|(_, name)| !name.is_empty())
            && let Some(secret) = helper::get(name, server, env)?
        {
            return Ok(Some(secret));
        }
        // The most specific key first: `quay.io/ns/repo`, `quay.io/ns`, `quay.io`.
        let full = format!("{registry}/{repository}");
        let mut key = full.as_str();
        loop {
            let mut entries = self.auths.iter().filter(|(name, _)| normalise(name) == key);
            if let Some(secret) = entries.find_map(|(_, entry)| entry.secret()) {
                return Ok(Some(secret));
            }
            match key.rsplit_once('/') {
                Some((shorter, _)) => key = shorter,
                None => break,
            }
        }
        if self.creds_store.is_empty() {
            return Ok(None);
        }
        helper::get(&self.creds_store, server, env)
    }
}

impl Entry {
    fn secret(&self) -> Option<Secret> {
        if !self.identitytoken.is_empty() {
            return Some(Secret::Identity(self.identitytoken.clone()));
        }
        if let Some((user, password)) = decode(&self.auth) {
            return Some(Secret::Password { user, password });
        }
        let (user, password) = (self.username.clone(), self.password.clone());
        (!user.is_empty()).then_some(Secret::Password { user, password })
    }
}

/// Reads base64 of `user:password`, split at the first colon. Padding may be missing, and some
/// tools leave a zero byte at the end.
fn decode(auth: &str) -> Option<(String, String)> {
    let bytes = base64::engine::general_purpose::STANDARD_NO_PAD
        .decode(auth.trim().trim_end_matches('='))
        .ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (user, password) = text.trim_end_matches('\0').split_once(':')?;
    (!user.is_empty()).then(|| (user.to_owned(), password.to_owned()))
}

/// Brings a key of an authentication file, or a registry's name, to `host` or `host/path`; all names
/// of Docker Hub are one.
pub fn normalise(key: &str) -> &str {
    let key = key.trim_start_matches("https://").trim_start_matches("http://");
    let key = key.trim_end_matches('/');
    let key = key.strip_suffix("/v1").or_else(|| key.strip_suffix("/v2")).unwrap_or(key);
    if is_docker_hub(key) { "docker.io" } else { key }
}

/// Returns the name under which docker logs in to a registry, by which helpers know it.
pub(super) fn server_of(registry: &str) -> &str {
    match registry {
        "docker.io" => "https://index.docker.io/v1/",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    struct Home(tempfile::TempDir);

    impl Home {
        fn new(files: &[(&str, &str)]) -> Home {
            let dir = tempfile::tempdir().unwrap();
            for (name, text) in files {
                let path = dir.path().join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(&path, text).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
            }
            Home(dir)
        }

        fn keychain(&self, extra: &[(&str, &str)]) -> Keychain {
            let home = self.0.path().to_str().unwrap();
            let mut env: BTreeMap<String, String> =
                extra.iter().map(|(k, v)| ((*k).into(), v.replace('~', home))).collect();
            env.insert("HOME".into(), home.into());
            env.entry("XDG_RUNTIME_DIR".into()).or_insert(format!("{home}/run"));
            Keychain::new(&env)
        }
    }

    fn user(keychain: &Keychain, registry: &str, repository: &str) -> String {
        match keychain.find(registry, repository).unwrap().map(|found| found.secret) {
            None => "-".to_owned(),
            Some(Secret::Password { user, password }) => format!("{user}:{password}"),
            Some(Secret::Identity(token)) => format!("<{token}>"),
        }
    }

    // base64 of `me:pa:ss`, of `ns:x` without padding, and of `nul:x` with a zero byte.
    const FILE: &str = r#"{"auths":{
        "https://index.docker.io/v1/":{"auth":"bWU6cGE6c3M="},
        "quay.io/ns":{"auth":"bnM6eA"},
        "quay.io":{"auth":"bnVsOngA"},
        "https://r.example:5000/v2/":{"username":"plain","password":"word"},
        "id.example":{"auth":"bWU6cGE6c3M=","identitytoken":"abc"},
        "empty.example":{}}}"#;

    #[test]
    fn keys_match_as_the_tools_mean_them() {
        let home = Home::new(&[(".docker/config.json", FILE)]);
        let keychain = home.keychain(&[]);
        for (registry, repository, expected) in [
            ("docker.io", "library/ubuntu", "me:pa:ss"),
            ("quay.io", "ns/repo", "ns:x"),
            ("quay.io", "nsother/repo", "nul:x"),
            ("r.example:5000", "a", "plain:word"),
            ("r.example", "a", "-"),
            ("id.example", "a", "<abc>"),
            ("empty.example", "a", "-"),
        ] {
            assert_eq!(user(&keychain, registry, repository), expected, "{registry}/{repository}");
        }
    }

    #[test]
    fn the_search_goes_on_until_there_is_a_credential() {
        let first = r#"{"auths":{"quay.io":{"auth":"cnVuOjE="}}}"#;
        let home = Home::new(&[
            ("run/containers/auth.json", first),
            (".docker/config.json", FILE),
            (".dockercfg", r#"{"old.example":{"auth":"b2xkOjE="}}"#),
            ("only.json", r#"{"auths":{"x.example":{"auth":"b25seTox"}}}"#),
        ]);
        let keychain = home.keychain(&[("GITHUB_TOKEN", "t"), ("GITHUB_ACTOR", "octo")]);
        assert_eq!(user(&keychain, "quay.io", "ns/repo"), "run:1");
        assert_eq!(user(&keychain, "docker.io", "a/b"), "me:pa:ss");
        assert_eq!(user(&keychain, "old.example", "a"), "old:1");
        assert_eq!(user(&keychain, "ghcr.io", "a"), "octo:t");
        let only = home.keychain(&[("REGISTRY_AUTH_FILE", "~/only.json")]);
        assert_eq!(user(&only, "quay.io", "ns/repo"), "-");
        assert_eq!(user(&only, "x.example", "a"), "only:1");
        let named = home.keychain(&[("OCIBUILD_AUTH_QUAY_IO", "robot:pass:word")]);
        assert_eq!(user(&named, "quay.io", "ns/repo"), "robot:pass:word");
        let named = named.with_login("quay.io", "a", "b");
        assert_eq!(user(&named, "quay.io", "ns/repo"), "a:b");
        assert_eq!(user(&named, "docker.io", "a/b"), "me:pa:ss");
        assert!(home.keychain(&[]).with_file(Path::new("/nowhere")).find("a", "b").is_err());
    }

    #[test]
    fn helpers_are_asked_and_believed() {
        let helper = "#!/bin/sh\nread server\ncase $1:$server in\n\
            get:store.example) echo '{\"Username\":\"u\",\"Secret\":\"s\"}';;\n\
            get:https://index.docker.io/v1/) echo '{\"Username\":\"<token>\",\"Secret\":\"id\"}';;\n\
            get:none.example) echo credentials not found in native keychain; exit 1;;\n\
            *) echo locked; exit 1;;\nesac\n";
        let home = Home::new(&[
            ("bin/docker-credential-test", helper),
            (
                ".docker/config.json",
                r#"{"credsStore":"test","credHelpers":{"gone.example":"missing"}}"#,
            ),
        ]);
        let keychain = home.keychain(&[("PATH", "~/bin:/usr/bin:/bin")]);
        assert_eq!(user(&keychain, "store.example", "a"), "u:s");
        assert_eq!(user(&keychain, "docker.io", "a/b"), "<id>");
        assert_eq!(user(&keychain, "none.example", "a"), "-");
        let locked = keychain.find("locked.example", "a").unwrap_err().to_string();
        assert!(locked.contains("docker-credential-test") && locked.contains("locked"), "{locked}");
        let missing = keychain.find("gone.example", "a").unwrap_err().to_string();
        assert!(missing.contains("docker-credential-missing"), "{missing}");
    }

    #[test]
    fn a_broken_file_is_named() {
        let home = Home::new(&[(".docker/config.json", "{\"auths\": [}")]);
        let error = home.keychain(&[]).find("a.example", "b").unwrap_err().to_string();
        assert!(error.contains(".docker/config.json"), "{error}");
    }
}
