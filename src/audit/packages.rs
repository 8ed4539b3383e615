//! Packages by their managers' records, as differences need them: what is installed, and which paths
//! belong to it.

use crate::packages::{self, conda, dpkg, node, python, r};

/// A package that is installed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Package {
    pub(super) kind: &'static str,
    pub(super) name: String,
    /// Tells several of one name apart: the library or prefix; nothing for Debian's.
    pub(super) place: Vec<u8>,
    pub(super) version: String,
    /// The path of its record.
    pub(super) record: Vec<u8>,
}

/// What a record tells.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) packages: Vec<Package>,
    /// The package that the paths belong to, by kind and name.
    pub(super) owner: Option<(&'static str, String)>,
    /// Paths that belong to it.
    pub(super) paths: Vec<Vec<u8>>,
    /// A folder that belongs to it, with all below.
    pub(super) folder: Option<Vec<u8>>,
}

/// Which record a path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Record {
    Status,
    DebFiles,
    Conda,
    PipMetadata,
    PipFiles,
    R,
    Npm,
}

/// Tells whether a path is a record, by its name alone.
pub(super) fn record_of(path: &[u8]) -> Option<Record> {
    let path = std::str::from_utf8(path).ok()?;
    Some(if dpkg::is_status(path) {
        Record::Status
    } else if dpkg::of_list(path).is_some() {
        Record::DebFiles
    } else if conda::environment(path).is_some() {
        Record::Conda
    } else if python::is_metadata(path) {
        Record::PipMetadata
    } else if python::is_list(path) {
        Record::PipFiles
    } else if r::is_description(path) {
        Record::R
    } else if node::is_module(path) {
        Record::Npm
    } else {
        return None;
    })
}

/// Reads a record; what is not of the expected form tells nothing.
pub(super) fn read(record: Record, path: &[u8], bytes: &[u8]) -> Told {
    let text = String::from_utf8_lossy(bytes);
    match record {
        Record::Status => status(path, &text),
        Record::DebFiles => deb_files(path, bytes).unwrap_or_default(),
        Record::Conda => conda(path, &text).unwrap_or_default(),
        Record::PipMetadata => pip_metadata(path, &text).unwrap_or_default(),
        Record::PipFiles => pip_files(path, bytes),
        Record::R => r(path, &text).unwrap_or_default(),
        Record::Npm => npm(path, &text).unwrap_or_default(),
    }
}

fn status(path: &[u8], text: &str) -> Told {
    let package = |found: packages::Package| Package {
        kind: "deb",
        name: found.name,
        // Of several architectures of one package each is a package.
        place: found.architecture.unwrap_or_default().into_bytes(),
        version: found.version,
        record: path.to_vec(),
    };
    Told { packages: dpkg::packages(text).into_iter().map(package).collect(), ..Told::default() }
}

fn deb_files(path: &[u8], bytes: &[u8]) -> Option<Told> {
    let (name, _) = dpkg::of_list(std::str::from_utf8(path).ok()?)?;
    let mut paths = Vec::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        let listed = line.strip_prefix(b"/").unwrap_or_default();
        if listed.is_empty() || listed == b"." {
            continue;
        }
        // Where /lib is no link to /usr/lib, the list means what it says.
        let merged = dpkg::listed(listed);
        if merged != listed {
            paths.push(merged);
        }
        paths.push(listed.to_vec());
    }
    Some(Told { owner: Some(("deb", name.to_owned())), paths, ..Told::default() })
}

fn conda(path: &[u8], text: &str) -> Option<Told> {
    let (found, files) = conda::package(text)?;
    let prefix = split(split(path).0).0;
    let paths = files.iter().map(|file| join(prefix, file.as_bytes())).chain([path.to_vec()]);
    let build = found.qualifiers.get("build").map(|build| format!("-{build}"));
    let package = Package {
        kind: "conda",
        name: found.name.clone(),
        place: prefix.to_vec(),
        version: format!("{}{}", found.version, build.unwrap_or_default()),
        record: path.to_vec(),
    };
    Some(Told {
        packages: vec![package],
        owner: Some(("conda", found.name)),
        paths: paths.collect(),
        folder: None,
    })
}

fn pip_metadata(path: &[u8], text: &str) -> Option<Told> {
    let found = python::package(text)?;
    let (folder, _) = split(path);
    // An `egg-info` may be a file among the modules themselves.
    let own = [&b".dist-info"[..], b".egg-info"].iter().any(|end| ends(folder, end));
    let name = python::normalised(&found.name);
    let package = Package {
        kind: "pip",
        name: name.clone(),
        place: if own { split(folder).0 } else { folder }.to_vec(),
        version: found.version,
        record: path.to_vec(),
    };
    Some(Told {
        packages: vec![package],
        owner: Some(("pip", name)),
        paths: vec![path.to_vec()],
        folder: own.then(|| folder.to_vec()),
    })
}

fn pip_files(path: &[u8], bytes: &[u8]) -> Told {
    let folder = split(path).0;
    let (place, own) = split(folder);
    let own = String::from_utf8_lossy(own);
    let name = own.trim_end_matches(".dist-info");
    let name = name.rsplit_once('-').map_or(name, |(name, _)| name);
    let paths = python::listed(bytes).map(|file| match file.strip_prefix(b"/") {
        Some(absolute) => absolute.to_vec(),
        None => join(place, file),
    });
    Told {
        owner: Some(("pip", python::normalised(name))),
        paths: paths.collect(),
        ..Told::default()
    }
}

fn r(path: &[u8], text: &str) -> Option<Told> {
    let found = r::package(text)?;
    let (folder, _) = split(path);
    let (place, name) = split(folder);
    if name != found.name.as_bytes() {
        return None;
    }
    Some(of_folder("r", &found, place, path))
}

fn npm(path: &[u8], text: &str) -> Option<Told> {
    let found = node::package(text)?;
    let (folder, _) = split(path);
    // The name has a scope's slash in it.
    let place = folder.strip_suffix(found.name.as_bytes())?;
    Some(of_folder("npm", &found, place, path))
}

/// A package that has the folder of its record to itself.
fn of_folder(kind: &'static str, found: &packages::Package, place: &[u8], path: &[u8]) -> Told {
    let package = Package {
        kind,
        name: found.name.clone(),
        place: place.to_vec(),
        version: found.version.clone(),
        record: path.to_vec(),
    };
    Told {
        packages: vec![package],
        owner: Some((kind, found.name.clone())),
        paths: Vec::new(),
        folder: Some(split(path).0.to_vec()),
    }
}

/// Splits a path into its folder and its last name.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

/// Joins a folder and a path below or beside it.
fn join(folder: &[u8], path: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> =
        folder.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).collect();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join(&b'/')
}

fn ends(name: &[u8], end: &[u8]) -> bool {
    name.len() > end.len() && name.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(path: &str, text: &str) -> Told {
        read(record_of(path.as_bytes()).unwrap(), path.as_bytes(), text.as_bytes())
    }

    fn shown(told: &Told) -> Vec<String> {
        let package = |p: &Package| format!("{} {} {}", p.kind, p.name, p.version);
        told.packages.iter().map(package).collect()
    }

    fn paths(told: &Told) -> Vec<String> {
        told.paths.iter().map(|path| String::from_utf8(path.clone()).unwrap()).collect()
    }

    #[test]
    fn each_managers_record_is_read() {
        let debian = "Package: a\nStatus: install ok installed\nVersion: 1:2-3\nArchitecture: all\n\n\
                      Package: b\nStatus: deinstall ok config-files\nVersion: 1\n";
        assert_eq!(shown(&told("var/lib/dpkg/status", debian)), ["deb a 1:2-3"]);
        let list =
            told("var/lib/dpkg/info/libc6:amd64.list", "/.\n/lib\n/lib/x.so\n/usr/share/a\n");
        assert_eq!(list.owner, Some(("deb", "libc6".to_owned())));
        assert_eq!(paths(&list), ["lib", "usr/lib/x.so", "lib/x.so", "usr/share/a"]);
        let conda = told(
            "opt/conda/conda-meta/a-1-0.json",
            r#"{"name":"a","version":"1","build":"h1","files":["bin/a"]}"#,
        );
        assert_eq!(shown(&conda), ["conda a 1-h1"]);
        assert_eq!(paths(&conda), ["opt/conda/bin/a", "opt/conda/conda-meta/a-1-0.json"]);
        let pip =
            told("opt/v/lib/Foo_Bar-1.0.dist-info/METADATA", "Name: Foo.Bar\nVersion: 1.0\n\nx: y");
        assert_eq!(shown(&pip), ["pip foo-bar 1.0"]);
        let pip = told(
            "opt/v/lib/Foo_Bar-1.0.dist-info/RECORD",
            "foo/a.py,sha256=x,1\n\"foo/a,b.py\",,\n../bin/foo,,\n",
        );
        assert_eq!(pip.owner, Some(("pip", "foo-bar".to_owned())));
        assert_eq!(paths(&pip), ["opt/v/lib/foo/a.py", "opt/v/lib/foo/a,b.py", "opt/v/bin/foo"]);
        let r = told("usr/lib/R/x/DESCRIPTION", "Package: x\nVersion: 2.1\nBuilt: R 4\n");
        assert_eq!(
            (shown(&r), r.folder),
            (vec!["r x 2.1".to_owned()], Some(b"usr/lib/R/x".to_vec()))
        );
        assert!(told("src/x/DESCRIPTION", "Package: x\nVersion: 2.1\n").packages.is_empty());
        let npm = told("n/node_modules/@s/p/package.json", r#"{"name":"@s/p","version":"3.0.0"}"#);
        assert_eq!(shown(&npm), ["npm @s/p 3.0.0"]);
        assert_eq!(record_of(b"n/node_modules/p/lib/package.json"), None);
        let egg = told("opt/v/lib/six-1.16.egg-info", "Name: six\nVersion: 1.16\n");
        assert_eq!((shown(&egg), egg.folder), (vec!["pip six 1.16".to_owned()], None));
    }
}
