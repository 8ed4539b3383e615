//! Packages as their managers record them in a tree: what is installed, and which paths belong to it.
//!
//! ```text
//! deb    var/lib/dpkg/status, status.d/*          var/lib/dpkg/info/NAME.list
//! conda  PREFIX/conda-meta/*.json                 `files` in it
//! pip    FOLDER/NAME-VERSION.dist-info/METADATA   RECORD beside it
//! r      LIBRARY/NAME/DESCRIPTION                 all of LIBRARY/NAME
//! npm    …/node_modules/NAME/package.json         all of its folder
//! ```

use serde_json::Value;

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
    let (folder, name) = split(path);
    let (above, parent) = split(folder);
    let is_status = path == b"var/lib/dpkg/status"
        || (folder == b"var/lib/dpkg/status.d" && !ends(name, b".md5sums"));
    Some(if is_status {
        Record::Status
    } else if folder == b"var/lib/dpkg/info" && ends(name, b".list") {
        Record::DebFiles
    } else if parent == b"conda-meta" && ends(name, b".json") {
        Record::Conda
    } else if ends(parent, b".dist-info") && name == b"METADATA" {
        Record::PipMetadata
    } else if ends(parent, b".dist-info") && name == b"RECORD" {
        Record::PipFiles
    } else if name == b"DESCRIPTION" && !parent.is_empty() {
        Record::R
    } else if name == b"package.json" && is_node_module(above) {
        Record::Npm
    } else {
        return None;
    })
}

/// Reads a record; what is not of the expected form tells nothing.
pub(super) fn read(record: Record, path: &[u8], bytes: &[u8]) -> Told {
    match record {
        Record::Status => status(path, bytes),
        Record::DebFiles => deb_files(path, bytes),
        Record::Conda => conda(path, bytes).unwrap_or_default(),
        Record::PipMetadata => pip_metadata(path, bytes).unwrap_or_default(),
        Record::PipFiles => pip_files(path, bytes),
        Record::R => r(path, bytes).unwrap_or_default(),
        Record::Npm => npm(path, bytes).unwrap_or_default(),
    }
}

fn status(path: &[u8], bytes: &[u8]) -> Told {
    let text = String::from_utf8_lossy(bytes);
    let mut told = Told::default();
    for paragraph in text.split("\n\n") {
        let field = |name: &str| fields(paragraph).find(|(key, _)| *key == name).map(|(_, v)| v);
        // Parts of distroless images have no state.
        let installed = field("Status").is_none_or(|status| status.ends_with(" installed"));
        if let (true, Some(name), Some(version)) = (installed, field("Package"), field("Version")) {
            told.packages.push(Package {
                kind: "deb",
                name: name.to_owned(),
                // Of several architectures of one package each is a package.
                place: field("Architecture").unwrap_or_default().as_bytes().to_vec(),
                version: version.to_owned(),
                record: path.to_vec(),
            });
        }
    }
    told
}

fn deb_files(path: &[u8], bytes: &[u8]) -> Told {
    let (_, name) = split(path);
    let name = String::from_utf8_lossy(&name[..name.len() - b".list".len()]).into_owned();
    let name = name.split(':').next().unwrap_or_default().to_owned();
    let mut paths = Vec::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        let listed = line.strip_prefix(b"/").unwrap_or_default();
        if listed.is_empty() || listed == b"." {
            continue;
        }
        // Where /lib is a link to /usr/lib, the list goes on saying /lib.
        if [&b"bin/"[..], b"sbin/", b"lib/", b"lib32/", b"lib64/", b"libx32/"]
            .iter()
            .any(|folder| listed.starts_with(folder))
        {
            paths.push([b"usr/", listed].concat());
        }
        paths.push(listed.to_vec());
    }
    Told { owner: Some(("deb", name)), paths, ..Told::default() }
}

fn conda(path: &[u8], bytes: &[u8]) -> Option<Told> {
    let record: Value = serde_json::from_slice(bytes).ok()?;
    let name = record["name"].as_str()?.to_owned();
    let version = record["version"].as_str()?;
    let build = record["build"].as_str().unwrap_or_default();
    let prefix = split(split(path).0).0;
    let files = record["files"].as_array().map(Vec::as_slice).unwrap_or_default();
    let paths = files
        .iter()
        .filter_map(|file| file.as_str())
        .map(|file| join(prefix, file.as_bytes()))
        .chain([path.to_vec()])
        .collect();
    let version = format!("{version}{}{build}", if build.is_empty() { "" } else { "-" });
    let package = Package {
        kind: "conda",
        name: name.clone(),
        place: prefix.to_vec(),
        version,
        record: path.to_vec(),
    };
    Some(Told { packages: vec![package], owner: Some(("conda", name)), paths, folder: None })
}

fn pip_metadata(path: &[u8], bytes: &[u8]) -> Option<Told> {
    let text = String::from_utf8_lossy(bytes);
    let head = text.split("\n\n").next()?;
    let field = |name: &str| fields(head).find(|(key, _)| *key == name).map(|(_, value)| value);
    let name = pip_name(field("Name")?);
    let folder = split(path).0;
    let package = Package {
        kind: "pip",
        name: name.clone(),
        place: split(folder).0.to_vec(),
        version: field("Version")?.to_owned(),
        record: path.to_vec(),
    };
    Some(Told {
        packages: vec![package],
        owner: Some(("pip", name)),
        paths: Vec::new(),
        folder: Some(folder.to_vec()),
    })
}

fn pip_files(path: &[u8], bytes: &[u8]) -> Told {
    let folder = split(path).0;
    let (place, own) = split(folder);
    let own = String::from_utf8_lossy(own);
    let name = own.trim_end_matches(".dist-info");
    let name = name.rsplit_once('-').map_or(name, |(name, _)| name);
    let paths = bytes
        .split(|byte| *byte == b'\n')
        .filter_map(|line| {
            // `"a,b",hash,size` where a name has a comma.
            let file = match line.strip_prefix(b"\"") {
                Some(quoted) => quoted.split(|byte| *byte == b'"').next()?,
                None => line.split(|byte| *byte == b',').next()?,
            };
            (!file.is_empty()).then(|| match file.strip_prefix(b"/") {
                Some(absolute) => absolute.to_vec(),
                None => join(place, file),
            })
        })
        .collect();
    Told { owner: Some(("pip", pip_name(name))), paths, ..Told::default() }
}

fn r(path: &[u8], bytes: &[u8]) -> Option<Told> {
    let text = String::from_utf8_lossy(bytes);
    let field = |name: &str| fields(&text).find(|(key, _)| *key == name).map(|(_, value)| value);
    let name = field("Package")?;
    let folder = split(path).0;
    // Only what is installed has been built.
    field("Built")?;
    if split(folder).1 != name.as_bytes() {
        return None;
    }
    let package = Package {
        kind: "r",
        name: name.to_owned(),
        place: split(folder).0.to_vec(),
        version: field("Version")?.to_owned(),
        record: path.to_vec(),
    };
    Some(Told {
        packages: vec![package],
        owner: Some(("r", name.to_owned())),
        paths: Vec::new(),
        folder: Some(folder.to_vec()),
    })
}

fn npm(path: &[u8], bytes: &[u8]) -> Option<Told> {
    let record: Value = serde_json::from_slice(bytes).ok()?;
    let name = record["name"].as_str()?.to_owned();
    let folder = split(path).0;
    if !ends(folder, name.as_bytes()) {
        return None;
    }
    let package = Package {
        kind: "npm",
        name: name.clone(),
        place: folder[..folder.len() - name.len()].to_vec(),
        version: record["version"].as_str()?.to_owned(),
        record: path.to_vec(),
    };
    Some(Told {
        packages: vec![package],
        owner: Some(("npm", name)),
        paths: Vec::new(),
        folder: Some(folder.to_vec()),
    })
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

/// Tells whether a folder is `node_modules`, or a scope in one.
fn is_node_module(folder: &[u8]) -> bool {
    let (above, name) = split(folder);
    name == b"node_modules" || (name.starts_with(b"@") && split(above).1 == b"node_modules")
}

fn pip_name(name: &str) -> String {
    let mut plain = String::new();
    for part in name.split(['-', '_', '.']).filter(|part| !part.is_empty()) {
        if !plain.is_empty() {
            plain.push('-');
        }
        plain.push_str(&part.to_lowercase());
    }
    plain
}

/// Lists the fields of a paragraph in the manner of Debian's control files, without continued lines.
fn fields(paragraph: &str) -> impl Iterator<Item = (&str, &str)> {
    paragraph
        .lines()
        .filter(|line| !line.starts_with([' ', '\t']))
        .filter_map(|line| line.split_once(':'))
        .map(|(key, value)| (key, value.trim()))
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
    }
}
