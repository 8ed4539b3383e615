//! An OCI layout outside of the store, as a folder or as a tar (image-spec, image-layout).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::blobs::read_small;
use super::export::{CONTAINERD_NAME, Copied, add_name, staged_beside};
use super::files::Files;
use super::import::{ImportOptions, Loaded, choose, each, pour};
use super::tarball::Writer;
use super::{Error, Staged, Store, VERSION, encode, error, index};
use crate::disk::{self, At};
use crate::oci::{Descriptor, Digest, Document, Index, REF_NAME, media_type};
use crate::report::{Report, Task, Unit};
use crate::transfer::Verify;

/// The most bytes that an `index.json` may have.
const INDEX_LIMIT: u64 = 64 << 20;

/// Indexes may lie in indexes; nobody nests them deeper than this.
const DEEPEST: usize = 4;

/// Reads an image and stages its blobs.
pub(super) fn load(
    store: &Store,
    files: &Files,
    options: &ImportOptions<'_>,
    report: &dyn Report,
) -> Result<Loaded, Error> {
    let (index_path, entries) = entries_of(files)?;
    let (name, entry) = choose(&index_path, entries, options.select.as_deref())?;
    let mut walk = Walk {
        files,
        report,
        documents: Vec::new(),
        seen: BTreeSet::new(),
        blobs: BTreeMap::new(),
    };
    walk.visit(&entry, 0)?;
    let Walk { documents, blobs, .. } = walk;
    let missing: Vec<Descriptor> =
        blobs.into_values().filter(|blob| !store.has_whole(blob)).collect();
    let blobs = each(options.threads, &missing, |blob| stage(store, files, blob, report))?;
    Ok(Loaded { blobs, documents, packed: Vec::new(), name })
}

/// Lists the images of a layout with the names that they go by, and says where they are listed.
pub(super) fn entries_of(files: &Files) -> Result<(PathBuf, Vec<Entry>), Error> {
    super::check_version(&files.read("oci-layout", 4096)?, &files.label("oci-layout"))?;
    let index_path = files.label("index.json");
    let index: Index = serde_json::from_slice(&files.read("index.json", INDEX_LIMIT)?)
        .map_err(|source| Error::Json { path: index_path.clone(), source })?;
    let entries = index
        .manifests
        .into_iter()
        .filter(|entry| {
            media_type::is_index(&entry.media_type) || media_type::is_manifest(&entry.media_type)
        })
        .map(|entry| (names_of(&entry), entry))
        .collect();
    Ok((index_path, entries))
}

/// An image of a layout, and its names.
type Entry = (Vec<String>, Descriptor);

/// Returns the names that an entry goes by, the fullest first, and its digest.
fn names_of(entry: &Descriptor) -> Vec<String> {
    let annotation = |key| entry.annotations.get(key).cloned();
    let names = annotation(CONTAINERD_NAME).into_iter().chain(annotation(REF_NAME));
    names.chain([entry.digest.to_string()]).collect()
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

struct Walk<'a> {
    files: &'a Files,
    report: &'a dyn Report,
    documents: Vec<Document>,
    seen: BTreeSet<Digest>,
    blobs: BTreeMap<Digest, Descriptor>,
}

impl Walk<'_> {
    fn visit(&mut self, descriptor: &Descriptor, depth: usize) -> Result<(), Error> {
        if !self.seen.insert(descriptor.digest) {
            return Ok(());
        }
        let name = blob_name(&descriptor.digest);
        let (reader, _) = self.files.open_file(&name)?;
        let bytes = read_small(reader, descriptor, &self.files.label(&name))?;
        let document = Document::read(bytes, Some(&descriptor.media_type))?;
        if document.is_index() {
            self.visit_entries(&document, depth)?;
        } else {
            let manifest = document.manifest()?;
            for blob in manifest.layers.into_iter().chain([manifest.config]) {
                self.blobs.entry(blob.digest).or_insert(blob);
            }
        }
        self.documents.push(document);
        Ok(())
    }

    fn visit_entries(&mut self, document: &Document, depth: usize) -> Result<(), Error> {
        if depth == DEEPEST {
            let what = format!("indexes in indexes, too deep at {}", document.digest());
            return Err(Error::NoImage { path: self.files.label("index.json"), what });
        }
        let mut left_out = Vec::new();
        let mut found = false;
        for entry in document.index()?.manifests {
            let is_document = media_type::is_index(&entry.media_type)
                || media_type::is_manifest(&entry.media_type);
            if !is_document {
                self.blobs.entry(entry.digest).or_insert(entry);
            } else if self.files.has(&blob_name(&entry.digest)) {
                self.visit(&entry, depth + 1)?;
                found = true;
            } else {
                left_out.push(entry);
            }
        }
        // Tools that save one platform of several leave the others' manifests out.
        let Some(first) = left_out.first() else { return Ok(()) };
        if !found {
            return Err(Error::NoFile { path: self.files.label(&blob_name(&first.digest)) });
        }
        for entry in left_out {
            let what =
                entry.platform.map_or(entry.digest.to_string(), |platform| platform.to_string());
            self.report.warning(&format!("the image for {what} is not in the file and stays away"));
        }
        Ok(())
    }
}

/// Copies and verifies a blob without showing it.
fn stage(
    store: &Store,
    files: &Files,
    blob: &Descriptor,
    report: &dyn Report,
) -> Result<Staged, Error> {
    let name = blob_name(&blob.digest);
    let path = files.label(&name);
    let (reader, found) = files.open_file(&name)?;
    if found != blob.size {
        return Err(Error::Size { path, expected: blob.size, found });
    }
    let task = Task::start(report, blob.digest.short(), Some(blob.size), Unit::Bytes);
    let mut writer = store.raw_writer()?;
    pour(Verify::new(reader, blob), &mut writer, |bytes| task.advance(bytes))
        .map_err(|error| Error::of_stream(error, path))?;
    let staged = writer.finish(Some((blob.digest, blob.size)))?;
    task.finish("done");
    Ok(staged)
}

/// Writes an image as a layout into a folder: a new one as a whole, or into a layout that is there.
pub(super) fn write_folder(copied: &Copied<'_>, folder: &Path) -> Result<(), Error> {
    if folder.join("oci-layout").is_file() {
        return add_to(copied, folder);
    }
    if folder.exists() && !disk::list(folder)?.is_empty() {
        return Err(Error::NotALayout { path: folder.to_owned() });
    }
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let staged = folder.with_file_name(format!(".{name}.{}.new", std::process::id()));
    let write = || -> Result<(), Error> {
        disk::make_dirs(&staged.join("blobs/sha256"))?;
        fs::write(staged.join("oci-layout"), VERSION).at("write", staged.join("oci-layout"))?;
        fs::write(staged.join("index.json"), index::EMPTY)
            .at("write", staged.join("index.json"))?;
        add_to(copied, &staged)?;
        Ok(fs::rename(&staged, folder).at("create", folder)?)
    };
    let written = write();
    if written.is_err() {
        fs::remove_dir_all(&staged).ok();
    }
    written
}

fn add_to(copied: &Copied<'_>, folder: &Path) -> Result<(), Error> {
    let version = folder.join("oci-layout");
    super::read_version(&version)?;
    for part in &copied.parts {
        let target = folder.join(blob_name(&part.digest));
        if fs::metadata(&target).is_ok_and(|has| has.len() == part.size) {
            continue;
        }
        write_part(copied, part, &target)?;
    }
    // Others may add to the same layout; `oci-layout` is the one file that nobody replaces.
    let _lock = error::lock(&version)?;
    let path = folder.join("index.json");
    let mut index = index::read(&path)?;
    add_name(&mut index.manifests, &copied.entry);
    Ok(disk::write_whole(&path, &encode(&index, &path)?)?)
}

fn write_part(copied: &Copied<'_>, part: &Descriptor, target: &Path) -> Result<(), Error> {
    let staged = staged_beside(target);
    let write = || -> Result<(), Error> {
        let mut file = File::create(&staged).at("create", &staged)?;
        pour(copied.open(part)?, &mut file, |bytes| copied.advance(bytes))
            .map_err(|error| Error::of_stream(error, target.to_owned()))?;
        file.sync_data().at("write", &staged)?;
        Ok(fs::rename(&staged, target).at("create", target)?)
    };
    let written = write();
    if written.is_err() {
        fs::remove_file(&staged).ok();
    }
    written
}

/// Writes an image as a layout in a tar.
pub(super) fn write_archive(copied: &Copied<'_>, out: &mut dyn Write) -> Result<(), Error> {
    let mut tar = Writer::new(out);
    let failed = |error: io::Error| Error::of_stream(error, copied.label.clone());
    tar.folder("blobs").map_err(failed)?;
    tar.folder("blobs/sha256").map_err(failed)?;
    for part in &copied.parts {
        let mut content = Counted { inner: copied.open(part)?, copied };
        tar.file(&blob_name(&part.digest), part.size, &mut content).map_err(failed)?;
    }
    let mut manifests = Vec::new();
    add_name(&mut manifests, &copied.entry);
    let bytes = encode(&Index::new(manifests, BTreeMap::new()), &copied.label)?;
    tar.file("index.json", bytes.len() as u64, &mut &bytes[..]).map_err(failed)?;
    tar.file("oci-layout", VERSION.len() as u64, &mut VERSION.as_bytes()).map_err(failed)?;
    tar.finish().map_err(failed)?;
    Ok(())
}

struct Counted<'a, R> {
    inner: R,
    copied: &'a Copied<'a>,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.copied.advance(read as u64);
        Ok(read)
    }
}
