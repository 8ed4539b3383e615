//! Logging in and out: a credential is tried at the registry, and goes into the file where docker,
//! podman and their kin look for it, or to the helper that the file names.
//!
//! All that such a file says beside is kept, in its order.

use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use rustix::fs::FlockOperation;
use serde_json::{Map, Value, json};

use crate::disk::{self, At};
use crate::http::{Method, Request, StatusCode, header};

use super::auth::Auth;
use super::credentials::{LIMIT, is_legacy, normalise, server_of};
use super::host::Wire;
use super::refusal::refusal;
use super::{Error, Keychain, Registries, helper};

impl Registries {
    /// Tries the keychain's credential for a registry at its API's root. Returns `false` when the
    /// registry lets in anyone, so that nothing is known of the credential.
    pub fn check_login(&self, registry: &str) -> Result<bool, Error> {
        let insecure = self.places.rule(registry).is_some_and(|rule| rule.insecure);
        let host = self.host(registry, if insecure { Wire::Any } else { Wire::Secure }, false);
        let base = host.base()?;
        let client = host.client.clone();
        let mut answer = client.send(&Request::new(Method::GET, base.clone()))?;
        let asks = answer.status() == StatusCode::UNAUTHORIZED;
        let auth = Auth::new(client.clone(), self.keychain.clone(), registry, "");
        if asks {
            let header = auth.renew(&base, &mut answer, &[], None)?;
            let request = Request::new(Method::GET, base).header(header::AUTHORIZATION, &header)?;
            answer = client.send(&request)?;
        }
        if answer.status() == StatusCode::OK {
            return Ok(asks);
        }
        Err(refusal(registry, "let us in", auth.asking(), &mut answer))
    }
}

impl Keychain {
    /// Keeps a credential for a registry and returns where: a file, or a helper.
    pub fn store(&self, registry: &str, user: &str, password: &str) -> Result<String, Error> {
        let path = self.target(registry)?;
        edit(&path, true, |file| {
            let server = server_of(normalise(registry));
            if let Some(name) = helper_of(file, registry) {
                helper::store(&name, server, (user, password), self.env())?;
                // Docker lists what its helper holds, and a password left beside would be stale.
                set(file, registry, &path, json!({}));
                return Ok(format!("docker-credential-{name}"));
            }
            let auth =
                base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
            set(file, registry, &path, json!({ "auth": auth }));
            Ok(path.display().to_string())
        })
    }

    /// Forgets the credentials for a registry wherever they are looked for; returns the files and
    /// helpers that had one. What comes from the environment stays.
    pub fn erase(&self, registry: &str) -> Result<Vec<String>, Error> {
        let mut had = Vec::new();
        for path in self.files() {
            if !path.exists() {
                continue;
            }
            had.extend(edit(&path, false, |file| {
                let mut had = Vec::new();
                if let Some(name) = helper_of(file, registry)
                    && helper::erase(&name, server_of(normalise(registry)), self.env())?
                {
                    had.push(format!("docker-credential-{name}"));
                }
                if remove(file, registry, is_legacy(&path)) {
                    had.push(path.display().to_string());
                }
                Ok(had)
            })?);
        }
        Ok(had)
    }

    /// Returns the file to write: the one that would be found first.
    fn target(&self, registry: &str) -> Result<PathBuf, Error> {
        let files: Vec<PathBuf> = self.files().into_iter().filter(|p| !is_legacy(p)).collect();
        let knows = |path: &&PathBuf| {
            read(path).is_ok_and(|file| {
                helper_of(&file, registry).is_some()
                    || entries(&file, false).is_some_and(|auths| {
                        auths.keys().any(|key| normalise(key) == normalise(registry))
                    })
            })
        };
        let chosen = match files.as_slice() {
            [only] => Some(only),
            all => all
                .iter()
                .find(knows)
                .or_else(|| self.get("DOCKER_CONFIG").and_then(|_| all.last()))
                .or_else(|| all.iter().find(|path| path.exists()))
                // Docker's is the one that every tool reads.
                .or_else(|| all.iter().rfind(|path| path.ends_with("config.json"))),
        };
        chosen.cloned().ok_or_else(|| Error::NoAuthFile { registry: registry.to_owned() })
    }
}

/// Reads a file of credentials as it stands; one that is missing or empty is an empty object.
fn read(path: &Path) -> Result<Map<String, Value>, Error> {
    let bytes = match disk::read(path, LIMIT) {
        Ok(bytes) => bytes,
        Err(error) if error.is_not_found() => return Ok(Map::new()),
        Err(error) => return Err(error.into()),
    };
    if bytes.trim_ascii().is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_slice(&bytes)
        .map_err(|source| Error::AuthFile { path: path.to_owned(), source })
}

/// Changes a file of credentials while no other process of ours does.
fn edit<T>(
    path: &Path,
    make: bool,
    change: impl FnOnce(&mut Map<String, Value>) -> Result<T, Error>,
) -> Result<T, Error> {
    // A link, as to a folder of dotfiles, stays one.
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let dir = path.parent().unwrap_or(Path::new("/"));
    if make {
        DirBuilder::new().recursive(true).mode(0o700).create(dir).at("create the folder", dir)?;
    }
    let folder = File::open(dir).at("open", dir)?;
    // Some network file systems lock no folders; then the last of two at once wins.
    rustix::fs::flock(&folder, FlockOperation::LockExclusive).ok();
    let mut file = read(&path)?;
    let before = file.clone();
    let result = change(&mut file)?;
    if file != before {
        let mut text = Vec::new();
        let format = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        let mut writer = serde_json::Serializer::with_formatter(&mut text, format);
        serde::Serialize::serialize(&file, &mut writer)
            .map_err(|source| Error::AuthFile { path: path.clone(), source })?;
        text.push(b'\n');
        disk::write_private(&path, &text)?;
    }
    Ok(result)
}

/// Returns the helper that a file names for a registry.
fn helper_of(file: &Map<String, Value>, registry: &str) -> Option<String> {
    let own = file.get("credHelpers").and_then(Value::as_object).and_then(|helpers| {
        let mut of = helpers.iter().filter(|(key, _)| normalise(key) == normalise(registry));
        of.find_map(|(_, name)| name.as_str())
    });
    own.or_else(|| file.get("credsStore")?.as_str())
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
}

fn entries(file: &Map<String, Value>, legacy: bool) -> Option<&Map<String, Value>> {
    if legacy { Some(file) } else { file.get("auths")?.as_object() }
}

/// Sets the one entry of a registry.
fn set(file: &mut Map<String, Value>, registry: &str, path: &Path, entry: Value) {
    let registry = normalise(registry);
    let auths = file.entry("auths").or_insert_with(|| json!({}));
    if !auths.is_object() {
        *auths = json!({});
    }
    let Some(auths) = auths.as_object_mut() else { return };
    let known = auths.keys().find(|key| normalise(key) == registry).cloned();
    // Docker knows its hub by an address only; the others know both.
    let docker = path.file_name().is_some_and(|name| name == "config.json");
    let key =
        known.unwrap_or_else(|| if docker { server_of(registry) } else { registry }.to_owned());
    auths.retain(|other, _| *other == key || normalise(other) != registry);
    auths.insert(key, entry);
}

/// Removes all entries of a registry; tells whether one of them held something.
fn remove(file: &mut Map<String, Value>, registry: &str, legacy: bool) -> bool {
    let auths =
        if legacy { Some(file) } else { file.get_mut("auths").and_then(Value::as_object_mut) };
    let mut had = false;
    if let Some(auths) = auths {
        auths.retain(|key, entry| {
            let goes = normalise(key) == normalise(registry);
            had |= goes && entry.as_object().is_some_and(|entry| !entry.is_empty());
            !goes
        });
    }
    had
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn keychain(home: &Path, extra: &[(&str, &str)]) -> Keychain {
        let home = home.to_str().unwrap();
        let mut env: BTreeMap<String, String> =
            extra.iter().map(|(k, v)| ((*k).into(), v.replace('~', home))).collect();
        env.insert("HOME".into(), home.into());
        env.insert("XDG_RUNTIME_DIR".into(), format!("{home}/run"));
        Keychain::new(&env)
    }

    #[test]
    fn a_login_keeps_what_else_the_file_says() {
        let home = tempfile::tempdir().unwrap();
        let keys = keychain(home.path(), &[]);
        let docker = home.path().join(".docker/config.json");
        assert_eq!(keys.store("a.example", "me", "pa:ss").unwrap(), docker.to_str().unwrap());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode(&docker), mode(docker.parent().unwrap())), (0o600, 0o700));
        let odd =
            r#"{"z":1,"auths":{"index.docker.io":{"auth":"bWU6eA=="},"k":{"auth":"x"}},"a":[2]}"#;
        fs::write(&docker, odd).unwrap();
        fs::set_permissions(&docker, fs::Permissions::from_mode(0o644)).unwrap();
        keys.store("docker.io", "you", "new").unwrap();
        keys.store("b.example:5000", "b", "b").unwrap();
        let text = fs::read_to_string(&docker).unwrap();
        let squeezed: String = text.split_whitespace().collect();
        assert_eq!(
            squeezed,
            r#"{"z":1,"auths":{"index.docker.io":{"auth":"eW91Om5ldw=="},"k":{"auth":"x"},"b.example:5000":{"auth":"Yjpi"}},"a":[2]}"#
        );
        assert_eq!(mode(&docker), 0o600);
        assert_eq!(keys.erase("docker.io").unwrap(), [docker.to_str().unwrap()]);
        assert!(keys.find("docker.io", "x").unwrap().is_none());
        assert!(keys.find("b.example:5000", "x").unwrap().is_some());
        assert!(keys.erase("docker.io").unwrap().is_empty());
        assert_eq!(disk::list(docker.parent().unwrap()).unwrap(), ["config.json"]);
    }

    #[test]
    fn the_file_is_the_one_that_is_in_use() {
        let home = tempfile::tempdir().unwrap();
        let auth = home.path().join(".config/containers/auth.json");
        fs::create_dir_all(auth.parent().unwrap()).unwrap();
        fs::write(&auth, "").unwrap();
        let stored = |env: &[(&str, &str)]| {
            let keys = keychain(home.path(), env);
            let stored = keys.store("docker.io", "u", "p").unwrap();
            assert!(keys.find("docker.io", "a").unwrap().is_some());
            keys.erase("docker.io").unwrap();
            stored
        };
        let path = |name: &str| home.path().join(name).display().to_string();
        assert_eq!(stored(&[]), path(".config/containers/auth.json"));
        assert_eq!(stored(&[("DOCKER_CONFIG", "~/d")]), path("d/config.json"));
        assert_eq!(stored(&[("REGISTRY_AUTH_FILE", "~/own.json")]), path("own.json"));
        // A link is followed, and stays.
        let link = home.path().join("link.json");
        std::os::unix::fs::symlink(home.path().join("own.json"), &link).unwrap();
        stored(&[("REGISTRY_AUTH_FILE", "~/link.json")]);
        assert!(link.is_symlink());
        fs::write(&link, "[").unwrap();
        let keys = keychain(home.path(), &[("REGISTRY_AUTH_FILE", "~/link.json")]);
        assert!(keys.store("a.example", "u", "p").is_err());
        assert_eq!(fs::read_to_string(&link).unwrap(), "[");
        assert!(Keychain::default().with_file(Path::new("/proc/x")).store("a", "b", "c").is_err());
    }

    #[test]
    fn a_helper_keeps_it_where_the_file_names_one() {
        let home = tempfile::tempdir().unwrap();
        let bin = home.path().join("bin");
        fs::create_dir(&bin).unwrap();
        let program = bin.join("docker-credential-mem");
        let text = "#!/bin/sh\ncd \"$HOME\"\ncase $1 in store) cat >kept;; erase) rm kept;;\n\
            get) cat kept 2>/dev/null || { echo credentials not found in native keychain; exit 1; };; esac\n";
        fs::write(&program, text).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let file = home.path().join(".docker/config.json");
        fs::create_dir(home.path().join(".docker")).unwrap();
        fs::write(&file, r#"{"credsStore":"mem","auths":{"a.example":{"auth":"b2xkOngK"}}}"#)
            .unwrap();
        let keys = keychain(home.path(), &[("PATH", "~/bin:/usr/bin:/bin")]);
        assert_eq!(keys.store("a.example", "me", "hush").unwrap(), "docker-credential-mem");
        let text = fs::read_to_string(&file).unwrap();
        assert!(!text.contains("auth\""), "{text}");
        let kept = fs::read_to_string(home.path().join("kept")).unwrap();
        assert!(kept.contains("\"a.example\"") && kept.contains("hush"), "{kept}");
        assert_eq!(keys.erase("a.example").unwrap(), ["docker-credential-mem"]);
        assert!(!home.path().join("kept").exists());
        assert!(keys.erase("a.example").unwrap().is_empty());
    }
}
