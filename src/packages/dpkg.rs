//! dpkg's status file, and its lists of files (deb-control(5)).

use super::fields::{self, Paragraph};
use super::{Manager, Package};

/// Tells whether a path is a status file, or a paragraph of a `status.d`, as distroless images have it.
pub fn is_status(path: &str) -> bool {
    path == "var/lib/dpkg/status"
        || path
            .strip_prefix("var/lib/dpkg/status.d/")
            .is_some_and(|name| !name.ends_with(".md5sums"))
}

/// Reads a status file, or one paragraph of a `status.d`. Packages that are not installed, though
/// their configuration is still there, are left out.
pub fn packages(text: &str) -> Vec<Package> {
    fields::all(text).filter_map(|paragraph| package(&paragraph)).collect()
}

fn package(paragraph: &Paragraph) -> Option<Package> {
    if let Some(status) = paragraph.get("Status")
        && status.split_whitespace().nth(2) != Some("installed")
    {
        return None;
    }
    let (name, version) = (paragraph.get("Package")?, paragraph.get("Version")?);
    let mut package = Package::new(Manager::Deb, name, version);
    package.architecture = paragraph.text("Architecture");
    package.maintainer = paragraph.text("Maintainer");
    package.homepage = paragraph.text("Homepage");
    // `Source: name (version)`, where either differs from the binary package's.
    let source = paragraph.get("Source").unwrap_or(name);
    let (source, told) = match source.split_once('(') {
        Some((source, version)) => (source.trim(), version.trim_end_matches(')').trim()),
        None => (source, version),
    };
    package.source = Some((source.to_owned(), told.to_owned()));
    Some(package)
}

/// Returns the package that a list of files in `var/lib/dpkg/info` is of: `name` or `name:arch`.
pub fn of_list(path: &str) -> Option<(&str, Option<&str>)> {
    let name = path.strip_prefix("var/lib/dpkg/info/")?.strip_suffix(".list")?;
    Some(match name.split_once(':') {
        Some((name, architecture)) => (name, Some(architecture)),
        None => (name, None),
    })
}

/// Returns where in a layer a path of a list is. The folders that were merged into `/usr` are still
/// listed under their old names.
pub fn listed(path: &[u8]) -> Vec<u8> {
    let path = path.strip_prefix(b"/").unwrap_or(path);
    let old = [&b"bin/"[..], b"sbin/", b"lib/", b"lib32/", b"lib64/", b"libx32/"]
        .iter()
        .any(|folder| path.starts_with(folder));
    if old { [b"usr/", path].concat() } else { path.to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_installed_is_told_with_its_source() {
        let text = "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\n\
                    Source: glibc\nVersion: 2.41-12\nMaintainer: GNU Libc Maintainers <a@b>\n\
                    Conffiles:\n /etc/x 0123\n\n\
                    Package: old\nStatus: deinstall ok config-files\nVersion: 1\n\n\
                    Package: libx\nStatus: install ok installed\nSource: x (2-1)\nVersion: 2-1+b1\n\n\
                    Package: base-files\nVersion: 12\n";
        let found = packages(text);
        let names: Vec<&str> = found.iter().map(|package| package.name.as_str()).collect();
        assert_eq!(names, ["libc6", "libx", "base-files"]);
        assert_eq!(found[0].source, Some(("glibc".into(), "2.41-12".into())));
        assert_eq!(found[1].source, Some(("x".into(), "2-1".into())));
    }

    #[test]
    fn lists_name_their_package_and_paths_follow_the_merge() {
        assert_eq!(of_list("var/lib/dpkg/info/bash.list"), Some(("bash", None)));
        let foreign = of_list("var/lib/dpkg/info/libc6:amd64.list");
        assert_eq!(foreign, Some(("libc6", Some("amd64"))));
        assert_eq!(of_list("var/lib/dpkg/info/bash.md5sums"), None);
        assert_eq!(listed(b"/lib/x"), b"usr/lib/x");
        assert_eq!(listed(b"/usr/lib/x"), b"usr/lib/x");
    }
}
