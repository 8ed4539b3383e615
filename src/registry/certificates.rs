//! Where docker and podman keep what they know of one registry's certificates
//! (containers-certs.d(5)): a folder named as the registry is in references, port and all.
//!
//! ```text
//! certs.d/registry.example:5000/
//!   ca.crt                    any *.crt: an authority that vouches for it
//!   client.cert  client.key   who we are to it
//! ```

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use crate::disk;
use crate::http::Trust;

use super::Keychain;

/// Returns what is known of a registry's certificates. Of several folders the first that is there
/// counts, as with podman; one that may not be read is as good as none.
pub(super) fn find(registry: &str, keychain: &Keychain) -> Trust {
    for folder in folders(keychain) {
        let folder = folder.join(registry);
        if let Ok(names) = disk::list(&folder) {
            return read(&folder, &names);
        }
    }
    Trust::default()
}

fn folders(keychain: &Keychain) -> Vec<PathBuf> {
    let home = || Some(Path::new(keychain.get("HOME")?).join(".config"));
    let own = keychain.get("XDG_CONFIG_HOME").map(PathBuf::from).or_else(home);
    own.into_iter()
        .chain(["/etc".into()])
        .map(|config: PathBuf| config.join("containers/certs.d"))
        .chain(["/etc/docker/certs.d".into()])
        .collect()
}

/// Sorts a folder's files. A certificate without its key is kept: to read the key fails, and names it.
fn read(folder: &Path, names: &[OsString]) -> Trust {
    let mut trust = Trust::default();
    for name in names {
        let path = folder.join(name);
        match path.extension().and_then(OsStr::to_str) {
            Some("crt") => trust.authorities.push(path),
            Some("cert" | "key") if trust.identity.is_none() => {
                trust.identity = Some((path.with_extension("cert"), path.with_extension("key")));
            }
            _ => {}
        }
    }
    trust
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::fs;

    #[test]
    fn the_first_folder_of_a_registry_counts_and_its_name_is_the_whole_one() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join(".config/containers/certs.d/r.example:5000");
        fs::create_dir_all(&folder).unwrap();
        for name in ["ca.crt", "more.crt", "client.key", "client.cert", "README"] {
            fs::write(folder.join(name), "").unwrap();
        }
        let of = |env: &[(&str, &str)], registry: &str| {
            let env: BTreeMap<String, String> =
                env.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
            find(registry, &Keychain::new(&env))
        };
        let env = [("HOME", home.path().to_str().unwrap())];
        let trust = of(&env, "r.example:5000");
        assert_eq!(trust.authorities, [folder.join("ca.crt"), folder.join("more.crt")]);
        assert_eq!(trust.identity, Some((folder.join("client.cert"), folder.join("client.key"))));
        for other in ["r.example", "r.example:443", "example:5000"] {
            assert_eq!(of(&env, other), Trust::default(), "{other}");
        }
        let env = [env[0], ("XDG_CONFIG_HOME", "/nowhere")];
        assert_eq!(of(&env, "r.example:5000"), Trust::default());
    }
}
