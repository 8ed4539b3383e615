//! Which package and version a URL is of. The path alone tells, so that a mirror's URL says the same.

use std::fmt;

use serde::Serialize;

/// Where packages come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Ecosystem {
    /// dpkg's.
    Deb,
    /// R's, from a repository like CRAN.
    R,
    /// Conda's.
    Conda,
    /// Python's, wheels and sources.
    Pip,
    /// Node's.
    Npm,
    /// Extensions of VS Code.
    Vsx,
    /// Files of a release on GitHub.
    Release,
}

impl fmt::Display for Ecosystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Ecosystem::Deb => "deb",
            Ecosystem::R => "r",
            Ecosystem::Conda => "conda",
            Ecosystem::Pip => "pip",
            Ecosystem::Npm => "npm",
            Ecosystem::Vsx => "vsx",
            Ecosystem::Release => "release",
        })
    }
}

/// A package that a URL is of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Package {
    /// Where it comes from.
    pub ecosystem: Ecosystem,
    /// Its name, as its tools write it.
    pub name: String,
    /// Its version; of conda with the build, as `1.26.4=py311h64a7726_0`.
    pub version: String,
}

/// Returns the package that a URL is of; `None` for indexes, scripts, and whatever says nothing.
pub fn package_of(url: &str) -> Option<Package> {
    let path = decoded(path_of(url));
    let segments: Vec<String> =
        path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
    let file = segments.last()?.as_str();
    let folders = &segments[..segments.len() - 1];
    let (ecosystem, (name, version)) = if let Some(stem) = strip(file, &[".deb", ".udeb"]) {
        (Ecosystem::Deb, deb(stem)?)
    } else if let Some(stem) = strip(file, &[".vsix"]) {
        (Ecosystem::Vsx, vsix(stem)?)
    } else if let Some(found) = gallery(&segments) {
        (Ecosystem::Vsx, found)
    } else if let Some(stem) = strip(file, &[".whl"]) {
        (Ecosystem::Pip, wheel(stem)?)
    } else if let Some(stem) = conda_stem(file, folders) {
        (Ecosystem::Conda, conda(stem)?)
    } else if let Some(stem) = strip(file, &[".tgz"]).filter(|_| is_npm(folders)) {
        (Ecosystem::Npm, npm(stem, folders)?)
    } else if let Some(stem) = strip(file, &[".tar.gz", ".tgz", ".zip"])
        .filter(|_| folders.iter().any(|part| part == "contrib"))
    {
        (Ecosystem::R, r(stem)?)
    } else if let Some(stem) = strip(file, &[".tar.gz", ".zip", ".tar.bz2"])
        .filter(|_| folders.first().is_some_and(|part| part == "packages"))
    {
        (Ecosystem::Pip, sdist(stem)?)
    } else {
        (Ecosystem::Release, release(&segments)?)
    };
    Some(Package { ecosystem, name, version })
}

/// Tells whether a URL is of an index of packages, which changes all the time.
pub fn is_index(url: &str) -> bool {
    let path = path_of(url);
    let file = path.rsplit('/').next().unwrap_or(path);
    let stem = file.split('.').next().unwrap_or(file);
    let lists = ["InRelease", "Release", "Packages", "Sources", "PACKAGES", "Contents-all"];
    lists.contains(&stem)
        || stem.starts_with("Translation-")
        || stem.starts_with("Contents-")
        || stem.starts_with("Components-")
        || path.contains("/by-hash/")
        || path.contains("/simple/")
        || matches!(stem, "repodata" | "current_repodata" | "repodata_shards")
        || file.ends_with(".whl.metadata")
}

fn path_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.split(['?', '#']).next().unwrap_or(rest);
    rest.find('/').map_or("", |at| &rest[at..])
}

fn strip<'a>(file: &'a str, endings: &[&str]) -> Option<&'a str> {
    endings.iter().find_map(|ending| file.strip_suffix(ending)).filter(|stem| !stem.is_empty())
}

/// Replaces `%2B` and the like.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        if let Some(byte) = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            out.push(byte);
            at += 3;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn pair(name: &str, version: &str) -> Option<(String, String)> {
    let good = !name.is_empty() && version.starts_with(|c: char| c.is_ascii_alphanumeric());
    good.then(|| (name.to_owned(), version.to_owned()))
}

/// Splits `name-1.2` where a version begins: before the first digit that follows a hyphen.
fn at_version(stem: &str) -> Option<(&str, &str)> {
    let digit = |at: &usize| stem[at + 1..].starts_with(|c: char| c.is_ascii_digit());
    let at = stem.match_indices('-').map(|(at, _)| at).find(digit)?;
    Some((&stem[..at], &stem[at + 1..]))
}

/// `r-base-core_4.5.1-1_amd64`, and vendors' `rstudio-server-2024.12.0-467-amd64`.
fn deb(stem: &str) -> Option<(String, String)> {
    let mut parts = stem.splitn(3, '_');
    if let (Some(name), Some(version)) = (parts.next(), parts.next()) {
        return pair(name, version);
    }
    let (rest, _) = stem.rsplit_once('-').filter(|(_, arch)| {
        ["amd64", "arm64", "all", "i386", "armhf", "ppc64el", "s390x", "riscv64"].contains(arch)
    })?;
    let (name, version) = at_version(rest)?;
    pair(name, version)
}

/// `REditorSupport.r-2.8.4`, with `@linux-x64` where it is for one platform.
fn vsix(stem: &str) -> Option<(String, String)> {
    let stem = stem.split('@').next().unwrap_or(stem);
    let (name, version) = at_version(stem)?;
    pair(name, version)
}

/// Galleries' ways to say publisher, name and version in folders.
fn gallery(segments: &[String]) -> Option<(String, String)> {
    let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
    let found = parts.iter().rposition(|part| *part == "vspackage");
    if let Some([publisher, "vsextensions", name, version]) =
        found.and_then(|at| parts.get(at.checked_sub(4)?..at))
    {
        return pair(&format!("{publisher}.{name}"), version);
    }
    let (last, rest) = parts.split_last()?;
    if let ("Microsoft.VisualStudio.Services.VSIXPackage", [.., publisher, name, version]) =
        (*last, rest)
    {
        return pair(&format!("{publisher}.{name}"), version);
    }
    None
}

/// `platformdirs-4.14.8-py3-none-any`.
fn wheel(stem: &str) -> Option<(String, String)> {
    let mut parts = stem.split('-');
    let (name, version) = (parts.next()?, parts.next()?);
    pair(&normalised(name), version)
}

fn sdist(stem: &str) -> Option<(String, String)> {
    let (name, version) = at_version(stem)?;
    pair(&normalised(name), version)
}

/// One spelling of a Python package's name, by the index's own rule.
fn normalised(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '-' | '_' | '.' if out.ends_with('-') => {}
            '-' | '_' | '.' => out.push('-'),
            c => out.push(c.to_ascii_lowercase()),
        }
    }
    out
}

fn conda_stem<'a>(file: &'a str, folders: &[String]) -> Option<&'a str> {
    let subdirs = ["noarch", "linux-", "osx-", "win-"];
    let subdir = folders.last()?;
    let below_channel = subdirs.iter().any(|start| subdir.starts_with(start));
    strip(file, &[".conda"]).or_else(|| strip(file, &[".tar.bz2"]).filter(|_| below_channel))
}

/// `numpy-1.26.4-py311h64a7726_0`.
fn conda(stem: &str) -> Option<(String, String)> {
    let (rest, build) = stem.rsplit_once('-')?;
    let (name, version) = rest.rsplit_once('-')?;
    pair(name, &format!("{version}={build}"))
}

fn is_npm(folders: &[String]) -> bool {
    folders.last().is_some_and(|part| part == "-")
}

/// `/@scope/name/-/name-1.2.3`.
fn npm(stem: &str, folders: &[String]) -> Option<(String, String)> {
    let [.., before, name, _] = folders else {
        let [name, _] = folders else { return None };
        return pair(name, stem.strip_prefix(name.as_str())?.strip_prefix('-')?);
    };
    let version = stem.strip_prefix(name.as_str())?.strip_prefix('-')?;
    if before.starts_with('@') {
        return pair(&format!("{before}/{name}"), version);
    }
    pair(name, version)
}

/// `jsonlite_1.8.9`, below `contrib`.
fn r(stem: &str) -> Option<(String, String)> {
    let (name, version) = stem.split_once('_')?;
    // Binary packages name what they were built for behind their version.
    let version = version.split("_R").next().unwrap_or(version);
    pair(name, version)
}

/// `/coder/code-server/releases/download/v4.96.2/…`.
fn release(segments: &[String]) -> Option<(String, String)> {
    let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
    let [owner, repository, "releases", "download", tag, _] = parts.as_slice() else {
        return None;
    };
    pair(&format!("{owner}/{repository}"), tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_tell_their_packages() {
        for (url, told) in [
            (
                "http://m.example/debian/pool/main/r/r-base/r-base-core_4.5.1-1_amd64.deb",
                "deb r-base-core 4.5.1-1",
            ),
            (
                "http://m.example/pool/main/g/g/g%2b%2b-12_12.2.0-14%2bdeb12u1_amd64.deb",
                "deb g++-12 12.2.0-14+deb12u1",
            ),
            (
                "https://d.example/server/jammy/amd64/rstudio-server-2024.12.0-467-amd64.deb",
                "deb rstudio-server 2024.12.0-467",
            ),
            ("https://c.example/src/contrib/jsonlite_1.8.9.tar.gz", "r jsonlite 1.8.9"),
            (
                "https://c.example/cran/__linux__/noble/2026-01-15/src/contrib/Rcpp_1.0.13-1.tar.gz?r=1",
                "r Rcpp 1.0.13-1",
            ),
            (
                "https://a.example/conda-forge/linux-64/numpy-1.26.4-py311h64a7726_0.conda",
                "conda numpy 1.26.4=py311h64a7726_0",
            ),
            (
                "https://a.example/conda-forge/noarch/ca-certificates-2026.1.1-0.tar.bz2",
                "conda ca-certificates 2026.1.1=0",
            ),
            (
                "https://f.example/packages/ab/cd/0123/Platform_Dirs-4.14.8-py3-none-any.whl",
                "pip platform-dirs 4.14.8",
            ),
            ("https://f.example/packages/ab/cd/0123/pyyaml-6.0.4.tar.gz", "pip pyyaml 6.0.4"),
            ("https://n.example/@types/node/-/node-22.1.0.tgz", "npm @types/node 22.1.0"),
            ("https://n.example/@types%2fnode/-/node-22.1.0.tgz", "npm @types/node 22.1.0"),
            ("https://n.example/node-pty/-/node-pty-1.1.0-beta.3.tgz", "npm node-pty 1.1.0-beta.3"),
            ("https://n.example/artifactory/api/npm/semver/-/semver-7.6.3.tgz", "npm semver 7.6.3"),
            (
                "https://v.example/api/REditorSupport/r/2.8.4/file/REditorSupport.r-2.8.4.vsix",
                "vsx REditorSupport.r 2.8.4",
            ),
            (
                "https://v.example/api/ms/p/linux-x64/1.0.0/file/ms.p-1.0.0@linux-x64.vsix",
                "vsx ms.p 1.0.0",
            ),
            (
                "https://v.example/vscode/gallery/publishers/quarto/vsextensions/quarto/1.117.0/vspackage",
                "vsx quarto.quarto 1.117.0",
            ),
            (
                "https://v.example/vscode/asset/quarto/quarto/1.117.0/Microsoft.VisualStudio.Services.VSIXPackage",
                "vsx quarto.quarto 1.117.0",
            ),
            (
                "https://github.com/coder/code-server/releases/download/v4.96.2/code-server_4.96.2_amd64.deb",
                "deb code-server 4.96.2",
            ),
            (
                "https://github.com/quarto-dev/quarto-cli/releases/download/v1.6.0/quarto.tar.gz",
                "release quarto-dev/quarto-cli v1.6.0",
            ),
        ] {
            let package = package_of(url).unwrap_or_else(|| panic!("{url}"));
            let said = format!("{} {} {}", package.ecosystem, package.name, package.version);
            assert_eq!(said, told, "{url}");
            assert!(!is_index(url), "{url}");
        }
    }

    #[test]
    fn what_is_no_package_is_none() {
        for url in [
            "http://m.example/debian/dists/bookworm/InRelease",
            "http://m.example/debian/dists/bookworm/main/binary-amd64/Packages.xz",
            "http://m.example/debian/dists/b/main/binary-amd64/by-hash/SHA256/0123abcd",
            "http://m.example/debian/dists/b/main/i18n/Translation-en.xz",
            "https://p.example/simple/jupyterlab/",
            "https://f.example/packages/ab/cd/0/jupyterlab-4.4.0-py3-none-any.whl.metadata",
            "https://c.example/src/contrib/PACKAGES.rds",
            "https://a.example/conda-forge/linux-64/repodata.json.zst",
        ] {
            assert_eq!(package_of(url), None, "{url}");
            assert!(is_index(url), "{url}");
        }
        for url in
            ["https://x.example", "https://x.example/install.sh", "nonsense", "http://h/%zz.deb"]
        {
            assert_eq!(package_of(url), None, "{url}");
            assert!(!is_index(url), "{url}");
        }
    }
}
