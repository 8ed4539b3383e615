//! The root file system that an image's layers make together, as one tar. Nothing is unpacked: a
//! first pass over the layers keeps only names and decides which entry of which layer remains, a
//! second one picks the contents.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::ops::Bound;
use std::path::Path;

use super::export::open_layer;
use super::import::each;
use super::tarball::{Entry, Kind, Reader, Writer, clean};
use super::{Error, Store};
use crate::oci::{Descriptor, Manifest};
use crate::report::{Report, Task, Unit};

/// How many symlinks a path may lead through, as for the kernel.
const LINKS: u32 = 40;

/// An entry by its layer and its place in it. Hard links share the one of their file.
type Id = (usize, usize);

/// Writes the root file system of an image of one platform: folders, then what has no content, then
/// files in the order of their layers.
pub(super) fn write(
    store: &Store,
    manifest: &Manifest,
    label: &Path,
    report: &dyn Report,
    out: &mut dyn Write,
) -> Result<(), Error> {
    let total = manifest.layers.iter().map(|layer| 2 * layer.size).sum();
    let task = Task::start(report, format!("export {}", label.display()), Some(total), Unit::Bytes);
    let layers = each(2, &manifest.layers, |layer| {
        let entries = scan(store, layer)?;
        task.advance(layer.size);
        Ok(entries)
    })?;
    let mut tree = Tree::default();
    for (number, (entries, layer)) in layers.into_iter().zip(&manifest.layers).enumerate() {
        tree.apply(number, entries)
            .map_err(|source| Error::Archive { path: store.blob_path(&layer.digest), source })?;
    }
    let names = tree.names();
    let failed = |error| Error::of_stream(error, label.to_owned());
    let mut tar = Writer::new(out);
    for want_folders in [true, false] {
        for (path, node) in &tree.nodes {
            if let Some(entry) = &node.entry
                && (entry.kind == Kind::Folder) == want_folders
                && names.get(&node.id).and_then(|names| names.first()) == Some(&path.as_slice())
            {
                write_named(&mut tar, entry, &names[&node.id], &mut io::empty()).map_err(failed)?;
            }
        }
    }
    for (number, layer) in manifest.layers.iter().enumerate() {
        let from = names.range((number, 0)..(number + 1, 0));
        if from.into_iter().any(|(id, _)| tree.contents.contains(id)) {
            copy_files(store, layer, number, &tree, &names, &mut tar)?;
        }
        task.advance(layer.size);
    }
    tar.finish().map_err(failed)?;
    task.finish("done");
    Ok(())
}

/// Reads a layer's names.
fn scan(store: &Store, layer: &Descriptor) -> Result<Vec<Entry>, Error> {
    let read = || -> io::Result<Vec<Entry>> {
        let mut reader = Reader::new(open_layer(store, layer)?);
        let mut entries = Vec::new();
        while let Some(entry) = reader.next()? {
            entries.push(entry);
        }
        reader.finish()?;
        Ok(entries)
    };
    read().map_err(|error| Error::of_stream(error, store.blob_path(&layer.digest)))
}

/// Writes the files of a layer that remain.
fn copy_files(
    store: &Store,
    layer: &Descriptor,
    number: usize,
    tree: &Tree,
    names: &BTreeMap<Id, Vec<&[u8]>>,
    tar: &mut Writer<&mut dyn Write>,
) -> Result<(), Error> {
    let mut copy = || -> io::Result<()> {
        let mut reader = Reader::new(open_layer(store, layer)?);
        let mut place = 0;
        while let Some(entry) = reader.next()? {
            let id = (number, place);
            place += 1;
            if let Some(names) = names.get(&id).filter(|_| tree.contents.contains(&id)) {
                write_named(tar, &entry, names, &mut reader)?;
            }
        }
        reader.finish()
    };
    copy().map_err(|error| Error::of_stream(error, store.blob_path(&layer.digest)))
}

/// Writes an entry under its first name, and the others as hard links to it.
fn write_named(
    tar: &mut Writer<&mut dyn Write>,
    entry: &Entry,
    names: &[&[u8]],
    content: &mut dyn io::Read,
) -> io::Result<()> {
    let Some((first, others)) = names.split_first() else { return Ok(()) };
    tar.entry(&Entry { path: first.to_vec(), ..entry.clone() }, content)?;
    for other in others {
        let link = Entry {
            kind: Kind::Link,
            path: other.to_vec(),
            link: first.to_vec(),
            size: 0,
            device: (0, 0),
            xattrs: BTreeMap::new(),
            ..entry.clone()
        };
        tar.entry(&link, &mut io::empty())?;
    }
    Ok(())
}

/// What a path is.
struct Node {
    id: Id,
    kind: Kind,
    /// The header of what has no content.
    entry: Option<Entry>,
}

/// The tree as it stands after some layers, by path.
#[derive(Default)]
struct Tree {
    nodes: BTreeMap<Vec<u8>, Node>,
    /// The files with content.
    contents: BTreeSet<Id>,
}

impl Tree {
    /// Applies a layer: first what it takes away from those below, then what it brings.
    fn apply(&mut self, number: usize, entries: Vec<Entry>) -> io::Result<()> {
        for entry in &entries {
            let (folder, name) = split(&entry.path);
            if !name.starts_with(b".wh.") {
                continue;
            }
            let folder = self.follow(folder, entry)?;
            if name == b".wh..wh..opq" {
                self.remove_below(&folder);
            } else if !name.starts_with(b".wh..wh.") {
                let hidden = clean(&join(&folder, &name[4..]))
                    .ok()
                    .filter(|hidden| *hidden != folder)
                    .ok_or_else(|| odd(entry, "hides nothing"))?;
                self.nodes.remove(&hidden);
                self.remove_below(&hidden);
            }
        }
        for (place, entry) in entries.into_iter().enumerate() {
            if !split(&entry.path).1.starts_with(b".wh.") {
                self.put((number, place), entry)?;
            }
        }
        Ok(())
    }

    /// Returns where a folder really is: some builders write through the symlinks of a base, as
    /// `lib/x` where `lib` is `usr/lib`. None leads out of the root.
    fn follow(&self, folder: &[u8], entry: &Entry) -> io::Result<Vec<u8>> {
        let mut ahead: Vec<&[u8]> = folder.rsplit(|byte| *byte == b'/').collect();
        let mut real: Vec<u8> = Vec::new();
        let mut links = 0;
        while let Some(part) = ahead.pop() {
            match part {
                b"" | b"." => continue,
                b".." => {
                    real.truncate(split(&real).0.len());
                    continue;
                }
                _ => {}
            }
            let path = join(&real, part);
            match self.nodes.get(&path) {
                Some(Node { kind: Kind::Symlink, entry: Some(link), .. }) => {
                    links += 1;
                    if links > LINKS {
                        return Err(odd(entry, "lies behind too many symlinks"));
                    }
                    if link.link.first() == Some(&b'/') {
                        real.clear();
                    }
                    ahead.extend(link.link.rsplit(|byte| *byte == b'/'));
                }
                Some(node) if node.kind != Kind::Folder => {
                    let above = String::from_utf8_lossy(&path);
                    return Err(odd(entry, &format!("lies below `{above}`, which is no folder")));
                }
                _ => real = path,
            }
        }
        Ok(real)
    }

    fn put(&mut self, id: Id, mut entry: Entry) -> io::Result<()> {
        if entry.path.is_empty() && entry.kind != Kind::Folder {
            return Err(odd(&entry, "is the root, but no folder"));
        }
        let (folder, name) = split(&entry.path);
        entry.path = join(&self.follow(folder, &entry)?, name);
        let node = match entry.kind {
            Kind::Link => {
                let (folder, name) = split(&entry.link);
                let link = join(&self.follow(folder, &entry)?, name);
                if link == entry.path {
                    return Err(odd(&entry, "links to itself"));
                }
                match self.nodes.get(&link) {
                    Some(target) if target.kind != Kind::Folder => {
                        Node { id: target.id, kind: target.kind, entry: target.entry.clone() }
                    }
                    _ => {
                        let link = String::from_utf8_lossy(&link);
                        return Err(odd(&entry, &format!("links to `{link}`, which is not there")));
                    }
                }
            }
            Kind::File => {
                self.contents.insert(id);
                Node { id, kind: Kind::File, entry: None }
            }
            kind => Node { id, kind, entry: Some(entry.clone()) },
        };
        if node.kind != Kind::Folder {
            self.remove_below(&entry.path);
        }
        self.nodes.insert(entry.path, node);
        Ok(())
    }

    fn remove_below(&mut self, folder: &[u8]) {
        // All below the root but the root itself, or all that begins with `folder/`.
        let (from, to) = if folder.is_empty() {
            (Bound::Excluded(Vec::new()), Bound::Unbounded)
        } else {
            let end = [folder, b"0"].concat();
            (Bound::Included([folder, b"/"].concat()), Bound::Excluded(end))
        };
        let below: Vec<Vec<u8>> =
            self.nodes.range((from, to)).map(|(path, _)| path.clone()).collect();
        for path in below {
            self.nodes.remove(&path);
        }
    }

    /// Returns each remaining entry's names in order.
    fn names(&self) -> BTreeMap<Id, Vec<&[u8]>> {
        let mut names: BTreeMap<Id, Vec<&[u8]>> = BTreeMap::new();
        for (path, node) in &self.nodes {
            names.entry(node.id).or_default().push(path);
        }
        names
    }
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    if folder.is_empty() { name.to_vec() } else { [folder, b"/", name].concat() }
}

fn odd(entry: &Entry, what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the entry `{}` {what}", entry.name()))
}
