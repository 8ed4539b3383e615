//! Package URLs, by which other tools know a package (the purl specification, ECMA-427).

use crate::packages::{Held, Manager, Package, python};
use crate::plan::OsRelease;

/// Returns the address of a package; `None` where no registry has such a thing.
pub(super) fn of(package: &Package, release: &OsRelease) -> Option<String> {
    let qualifier = |name: &str| package.qualifiers.get(name).map(String::as_str);
    let mut qualifiers: Vec<(&str, String)> = Vec::new();
    let (path, version) = match package.manager {
        Manager::Deb => {
            if let Some(architecture) = &package.architecture {
                qualifiers.push(("arch", architecture.clone()));
            }
            let vendor = release.distribution.as_str();
            if !vendor.is_empty() {
                let number =
                    [&release.release, &release.codename].into_iter().find(|s| !s.is_empty());
                let distro = number.map_or_else(|| vendor.to_owned(), |n| format!("{vendor}-{n}"));
                qualifiers.push(("distro", distro));
            }
            if let Some((source, version)) = &package.source
                && (*source != package.name || *version != package.version)
            {
                qualifiers.push(("upstream", format!("{source}@{version}")));
            }
            let vendor = if vendor.is_empty() { "debian" } else { vendor };
            (format!("deb/{}/{}", escape(vendor), escape(&package.name)), &package.version)
        }
        Manager::Conda => {
            for name in ["build", "channel", "subdir"] {
                qualifiers.extend(qualifier(name).map(|value| (name, value.to_owned())));
            }
            (format!("conda/{}", escape(&package.name)), &package.version)
        }
        Manager::R => return of_r(package),
        Manager::Python => {
            (format!("pypi/{}", escape(&python::normalised(&package.name))), &package.version)
        }
        Manager::Npm => (npm(&package.name), &package.version),
    };
    Some(join(&path, version, &qualifiers))
}

/// Returns the address of what a conda package brings, which is what upstream published under that
/// name. Debian's are left out: it mends what it ships without changing the version, and whoever looks
/// for known faults by upstream's address would find those that are mended.
pub(super) fn of_held(owner: &Package, held: &Held) -> Option<String> {
    if owner.manager != Manager::Conda {
        return None;
    }
    let path = match held.manager {
        Manager::Python => format!("pypi/{}", escape(&python::normalised(&held.name))),
        Manager::R => format!("cran/{}", escape(&held.name)),
        Manager::Npm => npm(&held.name),
        Manager::Deb | Manager::Conda => return None,
    };
    Some(join(&path, &held.version, &[]))
}

fn of_r(package: &Package) -> Option<String> {
    let qualifier = |name: &str| package.qualifiers.get(name).map(String::as_str);
    match qualifier("home") {
        // The packages of R itself are published with it alone.
        Some("r") => None,
        Some("github") => {
            let repository = qualifier("repository")?.to_lowercase();
            let (user, name) = repository.split_once('/')?;
            let version = qualifier("commit").unwrap_or(&package.version);
            Some(join(&format!("github/{}/{}", escape(user), escape(name)), version, &[]))
        }
        Some("bioconductor") => {
            Some(join(&format!("bioconductor/{}", escape(&package.name)), &package.version, &[]))
        }
        _ => Some(join(&format!("cran/{}", escape(&package.name)), &package.version, &[])),
    }
}

fn npm(name: &str) -> String {
    match name.split_once('/') {
        Some((scope, name)) => format!("npm/{}/{}", escape(scope), escape(name)),
        None => format!("npm/{}", escape(name)),
    }
}

fn join(path: &str, version: &str, qualifiers: &[(&str, String)]) -> String {
    let mut text = format!("pkg:{path}@{}", escape(version));
    let mut qualifiers: Vec<String> =
        qualifiers.iter().map(|(name, value)| format!("{name}={}", escape(value))).collect();
    qualifiers.sort();
    if !qualifiers.is_empty() {
        text.push('?');
        text.push_str(&qualifiers.join("&"));
    }
    text
}

/// Escapes all but letters, digits and `.-_~:`.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b".-_~:".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_spelled_as_the_registries_do() {
        let trixie = OsRelease {
            distribution: "debian".into(),
            codename: "trixie".into(),
            release: "13".into(),
        };
        let mut deb = Package::new(Manager::Deb, "libstdc++6", "1:14.2.0-19");
        deb.architecture = Some("amd64".into());
        deb.source = Some(("gcc-14".into(), "14.2.0-19".into()));
        assert_eq!(
            of(&deb, &trixie).unwrap(),
            "pkg:deb/debian/libstdc%2B%2B6@1:14.2.0-19?arch=amd64&distro=debian-13&\
             upstream=gcc-14%4014.2.0-19"
        );
        let of = |manager, name| of(&Package::new(manager, name, "1.0"), &trixie).unwrap();
        assert_eq!(of(Manager::Python, "Jaraco.Text"), "pkg:pypi/jaraco-text@1.0");
        assert_eq!(of(Manager::Npm, "@types/node"), "pkg:npm/%40types/node@1.0");
        assert_eq!(of(Manager::R, "data.table"), "pkg:cran/data.table@1.0");
    }
}
