//! What one layer says of packages: the files of package managers in its tar, and what it hides.

use std::collections::BTreeMap;

use crate::describe::Error;
use crate::layer::{self, Blob, Entry, EntryKind, Limits};
use crate::oci::{Descriptor, Digest, media_type};
use crate::packages::{Package, conda, copyright, dpkg, node, python, r};
use crate::transfer::Source;

/// The most bytes of a file that are read; a status file of every package there is has fewer.
const LARGEST: u64 = 128 << 20;

/// What one layer says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Finds {
    /// By path.
    pub(super) found: BTreeMap<String, Find>,
    /// Paths that the layers below no longer show, with all below them.
    pub(super) gone: Vec<String>,
    /// Folders that show nothing of the layers below.
    pub(super) opaque: Vec<String>,
}

/// A file of a package manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Find {
    /// A status file.
    Debs(Vec<Package>),
    /// The files of a Debian package, as far as another manager's are among them.
    List { name: String, architecture: Option<String>, paths: Vec<String> },
    /// The record of a conda package, with such files.
    Conda { package: Package, paths: Vec<String> },
    /// A package of R, Python or npm.
    Module(Package),
    /// The licences of a Debian package's files, where all of them are certain.
    Licence(Option<String>),
    /// Where a Debian package has its documents with another's: that one's name.
    Documents(String),
    /// The distribution's word for itself.
    Release(String),
}

/// Reads a layer of an image; its bytes are verified on the way.
pub fn read(
    layer: &Descriptor,
    diff_id: Option<Digest>,
    source: &dyn Source,
) -> Result<Finds, Error> {
    let Some(compression) = media_type::compression_of(&layer.media_type) else {
        let media_type = layer.media_type.clone();
        return Err(Error::NoLayer { digest: layer.digest, media_type });
    };
    let blob = Blob { digest: layer.digest, size: layer.size, compression, diff_id };
    let mut stream = source.blob(layer, 0)?;
    let mut finds = Finds::default();
    layer::entries(&blob, &mut stream, &Limits::of_blob(layer.size), &mut |entry, content| {
        let path = String::from_utf8_lossy(&entry.path).into_owned();
        match entry.kind {
            EntryKind::Whiteout => finds.gone.push(path),
            EntryKind::Opaque => finds.opaque.push(path),
            EntryKind::File if is_wanted(&path) && entry.size <= LARGEST => {
                let mut bytes = Vec::new();
                content.read(&mut |piece| {
                    bytes.extend_from_slice(piece);
                    Ok(())
                })?;
                finds.take(path.clone(), find(&path, &String::from_utf8_lossy(&bytes)));
            }
            EntryKind::Symlink if copyright::of_folder(&path).is_some() => {
                let other = link_target(&entry);
                let other = other.rsplit('/').next().unwrap_or_default().to_owned();
                finds.take(path, Some(Find::Documents(other)));
            }
            // conda and pnpm link an environment's files to those of a cache.
            EntryKind::HardLink if is_wanted(&path) => {
                let find = finds.found.get(&link_target(&entry)).cloned();
                finds.take(path, find);
            }
            // Whatever else has such a name is in the way of the one below.
            EntryKind::Folder => {}
            _ if is_wanted(&path) => finds.take(path, None),
            _ => {}
        }
        Ok(())
    })?;
    Ok(finds)
}

impl Finds {
    fn take(&mut self, path: String, find: Option<Find>) {
        match find {
            Some(find) => {
                self.found.insert(path, find);
            }
            None => self.gone.push(path),
        }
    }
}

fn link_target(entry: &Entry) -> String {
    let target = String::from_utf8_lossy(&entry.link);
    let names: Vec<&str> =
        target.split('/').filter(|name| !name.is_empty() && *name != ".").collect();
    names.join("/")
}

/// Tells by its path whether a file may be a package manager's.
fn is_wanted(path: &str) -> bool {
    dpkg::is_status(path)
        || is_release(path)
        || dpkg::of_list(path).is_some()
        || conda::environment(path).is_some()
        || copyright::of_file(path).is_some()
        || is_module(path)
}

fn is_release(path: &str) -> bool {
    matches!(path, "etc/os-release" | "usr/lib/os-release")
}

/// What is unpacked in conda's cache of packages is not installed.
fn is_module(path: &str) -> bool {
    (python::is_metadata(path) || r::is_description(path) || node::is_module(path))
        && !path.split('/').any(|name| name == "pkgs")
}

fn find(path: &str, text: &str) -> Option<Find> {
    if dpkg::is_status(path) {
        return Some(Find::Debs(dpkg::packages(text)));
    }
    if is_release(path) {
        return Some(Find::Release(text.to_owned()));
    }
    if let Some((name, architecture)) = dpkg::of_list(path) {
        let place =
            |line: &str| String::from_utf8(dpkg::listed(line.as_bytes())).unwrap_or_default();
        let paths = text.lines().map(place).filter(|path| is_module(path)).collect();
        let (name, architecture) = (name.to_owned(), architecture.map(str::to_owned));
        return Some(Find::List { name, architecture, paths });
    }
    if copyright::of_file(path).is_some() {
        return Some(Find::Licence(copyright::licence(text)));
    }
    if let Some(environment) = conda::environment(path) {
        let (mut package, files) = conda::package(text)?;
        package.paths.push(path.to_owned());
        let below = |file: &String| {
            if environment.is_empty() { file.clone() } else { format!("{environment}/{file}") }
        };
        let paths = files.iter().map(below).filter(|path| is_module(path)).collect();
        return Some(Find::Conda { package, paths });
    }
    let mut package = if python::is_metadata(path) {
        python::package(text)
    } else if r::is_description(path) {
        r::package(text)
    } else {
        node::package(text)
    }?;
    package.paths.push(path.to_owned());
    Some(Find::Module(package))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_installed_things_are_looked_at() {
        for (path, is) in [
            ("var/lib/dpkg/status", true),
            ("var/lib/dpkg/status.d/base", true),
            ("var/lib/dpkg/status.d/base.md5sums", false),
            ("var/lib/dpkg/status-old", false),
            ("var/lib/dpkg/info/r-base-core.list", true),
            ("opt/conda/conda-meta/x-1-0.json", true),
            ("opt/conda/pkgs/x-1-0/site-packages/x-1.dist-info/METADATA", false),
            ("opt/conda/lib/python3.12/site-packages/x-1.dist-info/METADATA", true),
            ("usr/lib/R/library/base/DESCRIPTION", true),
            ("usr/share/doc/x/README", false),
        ] {
            assert_eq!(is_wanted(path), is, "{path}");
        }
    }

    #[test]
    fn a_list_keeps_what_another_manager_knows_too() {
        let list = "/.\n/usr\n/usr/lib/R/library/mass/DESCRIPTION\n/usr/lib/R/library/mass/INDEX\n";
        let found = find("var/lib/dpkg/info/r-cran-mass.list", list).unwrap();
        let Find::List { name, paths, .. } = found else { panic!("no list") };
        assert_eq!(name, "r-cran-mass");
        assert_eq!(paths, ["usr/lib/R/library/mass/DESCRIPTION"]);
    }
}
