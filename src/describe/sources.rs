//! What an image was built from, as it goes with the image: the definition, its recipes and its lock,
//! in a tar that is a project of its own. With the inputs that the lock lists it is all that building
//! the image again takes.

use std::path::{Component, Path, PathBuf};

use tar::{Archive, Builder, EntryType, Header};

use super::Error;
use crate::disk::{self, At};
use crate::lock;
use crate::oci::Digest;
use crate::plan::Sources;
use crate::recipe::Node;

/// The type of the artifact and of the tar in it.
pub const SOURCES: &str = "application/vnd.ocibuild.sources.v1+tar";

/// Annotation of the artifact: where in the tar the definition is.
pub const DEFINITION: &str = "dev.ocibuild.definition";

/// The most bytes of a file of a recipe that go along.
const LARGEST: u64 = 64 << 20;

/// A project as it goes with an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// The tar.
    pub tar: Vec<u8>,
    /// Where in it the definition is.
    pub definition: String,
}

/// Packs a project's files as far as a definition needs them. The same files give the same bytes.
pub fn pack(sources: &Sources) -> Result<Packed, Error> {
    let file = &sources.definition.file;
    let folder = file.path().parent().unwrap_or(Path::new(""));
    let root = folder.parent().unwrap_or(Path::new(""));
    let mut writer = Writer { tar: Builder::new(Vec::new()) };
    let definition = below(root, file.path())?;
    writer.file(&definition, file.text().as_bytes(), false)?;
    if let Some(lock) = &sources.lock {
        let name = below(root, &lock::path_beside(file.path()))?;
        writer.file(&name, lock::write(lock)?.as_bytes(), false)?;
    }
    let mut recipes: Vec<_> = sources.recipes.iter().collect();
    recipes.sort_by(|a, b| a.folder.cmp(&b.folder));
    recipes.dedup_by(|a, b| a.folder == b.folder);
    for recipe in recipes {
        let name = below(root, recipe.file.path())?;
        writer.file(&name, recipe.file.text().as_bytes(), false)?;
        let folder = below(root, &recipe.folder)?;
        for entry in recipe.files.entries() {
            let name = format!("{folder}/{}", entry.path);
            match &entry.node {
                Node::Folder => writer.entry(&name, EntryType::Directory, 0o755, &[])?,
                Node::Link { target } => writer.link(&name, target)?,
                Node::File { sha256, exec, .. } => {
                    let path = recipe.folder.join(&entry.path);
                    let bytes = disk::read(&path, LARGEST)?;
                    if Digest::of(&bytes) != *sha256 {
                        return Err(Error::Changed { path });
                    }
                    writer.file(&name, &bytes, *exec)?;
                }
            }
        }
    }
    let tar = writer.tar.into_inner().map_err(Error::Tar)?;
    Ok(Packed { tar, definition })
}

/// Returns a path as it is in the project.
fn below(root: &Path, path: &Path) -> Result<String, Error> {
    let mut names: Vec<&str> = Vec::new();
    let outside = || Error::Outside { path: path.to_owned(), root: root.to_owned() };
    for component in path.strip_prefix(root).map_err(|_| outside())?.components() {
        match component {
            Component::Normal(name) => names.push(name.to_str().ok_or_else(outside)?),
            Component::ParentDir if !names.is_empty() => {
                names.pop();
            }
            Component::CurDir => {}
            _ => return Err(outside()),
        }
    }
    Ok(names.join("/"))
}

struct Writer {
    tar: Builder<Vec<u8>>,
}

impl Writer {
    fn file(&mut self, name: &str, bytes: &[u8], exec: bool) -> Result<(), Error> {
        self.entry(name, EntryType::Regular, if exec { 0o755 } else { 0o644 }, bytes)
    }

    fn entry(&mut self, name: &str, kind: EntryType, mode: u32, bytes: &[u8]) -> Result<(), Error> {
        let mut header = header(kind, mode);
        header.set_size(bytes.len() as u64);
        self.tar.append_data(&mut header, name, bytes).map_err(Error::Tar)
    }

    fn link(&mut self, name: &str, target: &str) -> Result<(), Error> {
        let mut header = header(EntryType::Symlink, 0o777);
        self.tar.append_link(&mut header, name, target).map_err(Error::Tar)
    }
}

fn header(kind: EntryType, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    header
}

/// Unpacks a project into a folder that is made for it. What would lie outside of it is refused.
pub fn unpack(tar: &[u8], folder: &Path) -> Result<(), Error> {
    std::fs::create_dir(folder).at("make", folder)?;
    let mut archive = Archive::new(tar);
    archive.set_overwrite(false);
    archive.set_preserve_mtime(false);
    for entry in archive.entries().map_err(Error::Tar)? {
        let mut entry = entry.map_err(Error::Tar)?;
        let kind = entry.header().entry_type();
        let known = matches!(kind, EntryType::Regular | EntryType::Directory | EntryType::Symlink);
        let path = PathBuf::from(String::from_utf8_lossy(&entry.path_bytes()).into_owned());
        let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
        if !known || !plain || !entry.unpack_in(folder).map_err(Error::Tar)? {
            return Err(Error::Stray { name: path });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tar(name: &str, kind: EntryType, target: &str) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        let mut head = header(kind, 0o644);
        head.set_size(0);
        // The name as it is: the builder would refuse some.
        head.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        head.set_link_name_literal(target).unwrap();
        head.set_cksum();
        builder.append(&head, &[][..]).unwrap();
        builder.into_inner().unwrap()
    }

    #[test]
    fn nothing_is_unpacked_beside_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        for (number, (name, kind)) in [
            ("../evil", EntryType::Regular),
            ("/tmp/evil-of-a-test", EntryType::Regular),
            ("hard", EntryType::Link),
            ("node", EntryType::Char),
        ]
        .into_iter()
        .enumerate()
        {
            let folder = dir.path().join(number.to_string());
            let error = unpack(&tar(name, kind, "/etc/passwd"), &folder).unwrap_err();
            assert!(matches!(error, Error::Stray { .. }), "{name}: {error}");
        }
        assert!(!dir.path().join("evil").exists());
        let there = dir.path().join("0");
        assert!(matches!(unpack(&[], &there), Err(Error::Disk(_))));
    }

    #[test]
    fn a_path_is_told_from_the_projects_folder() {
        let root = Path::new("/p");
        assert_eq!(below(root, Path::new("/p/manifests/../layers/r")).unwrap(), "layers/r");
        assert!(below(root, Path::new("/q/x")).is_err());
        assert!(below(root, Path::new("/p/../q")).is_err());
    }
}
