//! `import`: an image from a layout, an archive or a plain root file system into the store. All is
//! read and verified before anything is shown, so that a bad file leaves nothing behind.

use std::io::{self, Read, Write};
use std::path::Path;
use std::str::FromStr;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::files::{Files, Input, begins_as_archive};
use super::{Error, Staged, Store, docker, layout, root};
use crate::oci::{Descriptor, Digest, Document, Index, Platform, Reference};
use crate::report::Report;

/// A form that an image's file can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A folder with `oci-layout`, `index.json` and `blobs`.
    Layout,
    /// The same as one tar.
    OciArchive,
    /// What `docker save` writes and `docker load` reads.
    DockerArchive,
    /// A root file system as a tar, plain or compressed.
    Tar,
}

/// A text that names no form.
#[derive(Debug, Clone, thiserror::Error)]
#[error("`{0}` is no form of image; there are `layout`, `oci-archive`, `docker-archive` and `tar`")]
pub struct FormError(String);

impl FromStr for Form {
    type Err = FormError;

    fn from_str(text: &str) -> Result<Form, FormError> {
        match text {
            "layout" | "oci" => Ok(Form::Layout),
            "oci-archive" => Ok(Form::OciArchive),
            "docker-archive" => Ok(Form::DockerArchive),
            "tar" | "rootfs" => Ok(Form::Tar),
            other => Err(FormError(other.to_owned())),
        }
    }
}

/// What a compressor made of a tar.
#[derive(Clone, Debug, PartialEq)]
pub struct Packed {
    /// The digest of the tar.
    pub diff_id: Digest,
    /// The compressed bytes: type, digest and size.
    pub blob: Descriptor,
    /// The profile's name, under which the blob is remembered.
    pub profile: String,
}

/// Writes a tar, once.
pub type Produce<'a> = &'a mut (dyn FnMut(&mut dyn Write) -> io::Result<()> + Send);

/// Compresses what a producer writes, in one pass with both digests. The store knows no profiles:
/// who imports brings one.
pub type Pack<'a> = dyn Fn(Produce<'_>, &mut dyn Write) -> io::Result<Packed> + Sync + 'a;

/// What to import, and as what.
pub struct ImportOptions<'a> {
    /// The form; `None` finds out, and takes a stream for a root file system.
    pub form: Option<Form>,
    /// The image's name in the store; `None` is the one that it brings.
    pub name: Option<Reference>,
    /// Which image of several: its name or digest in the file.
    pub select: Option<String>,
    /// The platform of a root file system; `None` asks its programs.
    pub platform: Option<Platform>,
    /// Keep what the name stands for, and add this image's platforms to it.
    pub add: bool,
    /// When a root file system's image was made, in RFC 3339; `None` is its newest file's time.
    pub created: Option<String>,
    /// How many blobs are read at once.
    pub threads: usize,
    /// Compresses plain tars.
    pub pack: &'a Pack<'a>,
}

impl std::fmt::Debug for ImportOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImportOptions")
            .field("form", &self.form)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// What was imported.
#[derive(Clone, Debug, PartialEq)]
pub struct Imported {
    /// Its name in the store.
    pub name: Reference,
    /// The manifest or index that the name stands for.
    pub descriptor: Descriptor,
}

/// An image whose parts are verified and not yet shown.
pub(super) struct Loaded {
    pub(super) blobs: Vec<Staged>,
    /// Children before parents; the last is the image.
    pub(super) documents: Vec<Document>,
    /// Which blob a profile made of a diff id.
    pub(super) packed: Vec<Packed>,
    /// The name that the file gives the image.
    pub(super) name: Option<String>,
}

impl Store {
    /// Imports an image and names it.
    pub fn import(
        &self,
        input: Input<'_>,
        options: &ImportOptions<'_>,
        report: &dyn Report,
    ) -> Result<Imported, Error> {
        let label = input.label();
        let stream = matches!(input, Input::Stream(..));
        if let Input::Path(path) = &input
            && !path.exists()
        {
            return Err(Error::NoInput { path: label });
        }
        let loaded = if options.form == Some(Form::Tar) || (stream && options.form.is_none()) {
            root::load(self, input, options, report)?
        } else {
            self.load_files(input, options, report)?
        };
        let Loaded { blobs, documents, packed, name } = loaded;
        let own = || name.as_deref().and_then(named);
        let name =
            options.name.clone().or_else(own).ok_or(Error::Unnamed { path: label.clone() })?;
        let Some(image) = documents.last().map(Document::descriptor) else {
            return Err(Error::NoImage { path: label, what: "no image".to_owned() });
        };
        for blob in blobs {
            blob.publish()?;
        }
        for document in &documents {
            self.put_document(document)?;
        }
        for Packed { diff_id, blob, profile } in &packed {
            self.remember_blob(diff_id, profile, blob)?;
        }
        let image = match self.resolve(&name)? {
            Some(there) if options.add => self.joined(&name, &there, &image)?,
            _ => image,
        };
        self.tag(&name, &image)?;
        Ok(Imported { name, descriptor: image })
    }

    /// Makes an index of two: the platforms of the second, and what others the first has.
    fn joined(
        &self,
        name: &Reference,
        there: &Descriptor,
        image: &Descriptor,
    ) -> Result<Descriptor, Error> {
        let index = |descriptor: &Descriptor| {
            let document = self.document(descriptor)?;
            document.index().map_err(|_| Error::NoIndex {
                name: Box::new(name.clone()),
                digest: descriptor.digest,
            })
        };
        let (there, new) = (index(there)?, index(image)?);
        let mut manifests = new.manifests;
        for entry in there.manifests {
            if !manifests.iter().any(|other| other.platform == entry.platform) {
                manifests.push(entry);
            }
        }
        let joined = Document::of_index(&Index::new(manifests, there.annotations))
            .map_err(|source| Error::Encode { path: self.path("index.json"), source })?;
        self.put_document(&joined)?;
        Ok(joined.descriptor())
    }

    fn load_files(
        &self,
        input: Input<'_>,
        options: &ImportOptions<'_>,
        report: &dyn Report,
    ) -> Result<Loaded, Error> {
        let path = match &input {
            Input::Path(path) => Some(*path),
            Input::Stream(..) => None,
        };
        let label = input.label();
        if let (None, Some(path)) = (options.form, path)
            && !path.is_dir()
            && begins_as_archive(path)? == Some(false)
        {
            return root::load(self, input, options, report);
        }
        let files = Files::open(self, input)?;
        let form = options.form.or_else(|| detect(&files));
        match (form, path) {
            (Some(Form::Layout | Form::OciArchive), _) => {
                layout::load(self, &files, options, report)
            }
            (Some(Form::DockerArchive), _) => docker::load(self, &files, options, report),
            (_, Some(path)) if !path.is_dir() => {
                root::load(self, Input::Path(path), options, report)
            }
            _ => Err(Error::NoImage {
                path: label,
                what: "neither a layout nor an archive".to_owned(),
            }),
        }
    }
}

/// Tells by the files that it has which form an image has.
fn detect(files: &Files) -> Option<Form> {
    match files {
        // `docker save` writes both forms into one archive; OCI's keeps the digests.
        _ if files.has("oci-layout") && files.has("index.json") => Some(match files {
            Files::Folder(_) => Form::Layout,
            Files::Tar { .. } => Form::OciArchive,
        }),
        _ if files.has("manifest.json") => Some(Form::DockerArchive),
        _ => None,
    }
}

/// Takes a name that a file brings, if it is a whole one: `latest` alone names nothing.
fn named(name: &str) -> Option<Reference> {
    let whole = name.contains(['/', ':']) && !name.starts_with("sha256:");
    name.parse().ok().filter(|_| whole)
}

/// Chooses one of several things by name.
pub(super) fn choose<T>(
    path: &Path,
    things: Vec<(Vec<String>, T)>,
    select: Option<&str>,
) -> Result<(Option<String>, T), Error> {
    let offered: Vec<String> =
        things.iter().filter_map(|(names, _)| names.first().cloned()).collect();
    let count = things.len();
    let mut matching = things.into_iter().filter(|(names, _)| match select {
        None => true,
        Some(wanted) => names.iter().any(|name| {
            name == wanted || named(name).is_some_and(|name| named(wanted).as_ref() == Some(&name))
        }),
    });
    match (matching.next(), matching.next()) {
        // Of several with one name the first is as good as any.
        (Some((names, thing)), second) if second.is_none() || select.is_some() => {
            Ok((names.into_iter().next(), thing))
        }
        (None, _) if count == 0 => {
            Err(Error::NoImage { path: path.to_owned(), what: "no image".to_owned() })
        }
        _ => {
            let (path, wanted) = (path.to_owned(), select.map(str::to_owned));
            Err(Error::Which { path, wanted, offered })
        }
    }
}

/// Does the same to each of several things, some at once; the first error ends it.
pub(super) fn each<T: Sync, R: Send>(
    threads: usize,
    things: &[T],
    work: impl Fn(&T) -> Result<R, Error> + Sync,
) -> Result<Vec<R>, Error> {
    let next = AtomicUsize::new(0);
    let state = Mutex::new((Vec::new(), None));
    let run = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(thing) = things.get(at) else { return };
            let result = work(thing);
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            match result {
                Ok(result) => state.0.push((at, result)),
                Err(error) => {
                    next.store(things.len(), Ordering::Relaxed);
                    state.1.get_or_insert(error);
                }
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads.min(things.len()) {
            scope.spawn(run);
        }
        run();
    });
    match state.into_inner().unwrap_or_else(PoisonError::into_inner) {
        (_, Some(error)) => Err(error),
        (mut results, None) => {
            results.sort_by_key(|(at, _)| *at);
            Ok(results.into_iter().map(|(_, result)| result).collect())
        }
    }
}

/// Moves a stream, telling of the bytes as they pass.
pub(super) fn pour(
    mut from: impl Read,
    into: &mut dyn Write,
    mut passed: impl FnMut(u64),
) -> io::Result<u64> {
    let mut buffer = vec![0; 256 << 10];
    let mut total = 0;
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        into.write_all(&buffer[..read])?;
        total += read as u64;
        passed(read as u64);
    }
}
