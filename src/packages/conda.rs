//! conda's environments, by the records in `conda-meta`.

use serde::Deserialize;

use super::{Manager, Package};

/// What a record says; everything else is passed over.
#[derive(Deserialize)]
struct Record {
    name: String,
    version: String,
    #[serde(default)]
    build: Option<String>,
    #[serde(default)]
    subdir: Option<String>,
    #[serde(default)]
    channel: Option<String>,
    #[serde(default)]
    url: Option<String>,
    #[serde(default)]
    license: Option<String>,
    #[serde(default)]
    md5: Option<String>,
    #[serde(default)]
    sha256: Option<String>,
    #[serde(default)]
    files: Vec<String>,
}

/// Returns the environment that a record belongs to.
pub fn environment(path: &str) -> Option<&str> {
    let (folder, name) = path.rsplit_once('/')?;
    let environment = folder.strip_suffix("conda-meta")?;
    let is_record = name.strip_suffix(".json").is_some_and(|name| !name.is_empty());
    is_record.then(|| environment.trim_end_matches('/'))
}

/// Reads a record; returns the package and its files below the environment.
pub fn package(text: &str) -> Option<(Package, Vec<String>)> {
    let record: Record = serde_json::from_str(text).ok()?;
    let mut package = Package::new(Manager::Conda, &record.name, &record.version);
    let channel = record.channel.as_deref().map(channel);
    for (name, value) in
        [("build", record.build), ("channel", channel), ("subdir", record.subdir.clone())]
    {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            package.qualifiers.insert(name.to_owned(), value);
        }
    }
    package.architecture = record.subdir;
    package.licence = record.license.filter(|text| !text.is_empty());
    package.download = record.url.filter(|url| url.contains("://")).map(|url| without_token(&url));
    for (algorithm, hash) in [("MD5", record.md5), ("SHA256", record.sha256)] {
        if let Some(hash) = hash.filter(|hash| hash.bytes().all(|c| c.is_ascii_hexdigit())) {
            package.checksums.insert(algorithm.to_owned(), hash.to_lowercase());
        }
    }
    Some((package, record.files))
}

/// Shortens a channel's address to its name, as `conda-forge`.
fn channel(text: &str) -> String {
    const PLATFORMS: [&str; 6] =
        ["noarch", "linux-64", "linux-aarch64", "linux-ppc64le", "linux-s390x", "linux-32"];
    let path = text.trim_end_matches('/');
    let path = PLATFORMS
        .iter()
        .find_map(|platform| path.strip_suffix(platform)?.strip_suffix('/'))
        .unwrap_or(path);
    path.rsplit('/').next().unwrap_or(path).to_owned()
}

/// Takes credentials out of an address: a private channel's token is part of its path.
fn without_token(url: &str) -> String {
    let mut url = url.to_owned();
    if let Some((before, after)) = url.split_once("/t/")
        && let Some((_, rest)) = after.split_once('/')
    {
        url = format!("{before}/{rest}");
    }
    if let Some((scheme, rest)) = url.split_once("://")
        && let Some(at) = rest.split('/').next().and_then(|host| host.rfind('@'))
    {
        url = format!("{scheme}://{}", &rest[at + 1..]);
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_and_tokens_are_not_told() {
        let text = r#"{"name":"numpy","version":"2.0","build":"py312_0","subdir":"linux-64",
            "channel":"https://conda.example.org/conda-forge/linux-64","sha256":"AB",
            "url":"https://me:secret@conda.example.org/t/tk-123/conda-forge/linux-64/numpy.conda",
            "license":"BSD-3-Clause","files":["lib/x"],"extra":1}"#;
        let (package, files) = package(text).unwrap();
        assert_eq!(package.qualifiers["channel"], "conda-forge");
        let url = "https://conda.example.org/conda-forge/linux-64/numpy.conda";
        assert_eq!(package.download.as_deref(), Some(url));
        assert_eq!(package.checksums["SHA256"], "ab");
        assert_eq!(files, ["lib/x"]);
        assert_eq!(environment("opt/conda/conda-meta/numpy-2.0.json"), Some("opt/conda"));
        assert_eq!(environment("opt/conda/conda-meta/history"), None);
    }
}
