//! `export`: an image of the store as a layout, an archive or a plain root file system. Archives of
//! one image are the same bytes wherever and whenever they are written.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::{Error, Form, Store, docker, flatten, layout};
use crate::disk::At;
use crate::oci::{ConfigDocument, Descriptor, Manifest, Platform, REF_NAME, Reference, media_type};
use crate::report::{Report, Task, Unit};
use crate::transfer::Verify;

/// The annotation by which containerd, and so Docker, names an image of a layout.
pub(super) const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// Where an image goes.
pub enum Output<'a> {
    /// A file, replaced when the new one is whole; or a folder for a layout.
    Path(&'a Path),
    /// Standard output, say, with its name for messages.
    Stream(&'a str, &'a mut dyn Write),
}

impl std::fmt::Debug for Output<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Output::Path(path) => f.debug_tuple("Path").field(path).finish(),
            Output::Stream(name, _) => f.debug_tuple("Stream").field(name).finish(),
        }
    }
}

/// How to export.
#[derive(Clone, Debug)]
pub struct ExportOptions {
    /// The form.
    pub form: Form,
    /// The one platform to take. Without it the forms that hold several take all, and the others
    /// this machine's, or the only one.
    pub platform: Option<Platform>,
}

/// What goes into a layout.
pub(super) struct Copied<'a> {
    pub(super) store: &'a Store,
    /// Sorted by digest, each once.
    pub(super) parts: Vec<Descriptor>,
    /// The entry of `index.json`.
    pub(super) entry: Descriptor,
    /// The target, for messages.
    pub(super) label: PathBuf,
    task: &'a Task<'a>,
}

impl Copied<'_> {
    /// Opens a part to be verified as it is read.
    pub(super) fn open(&self, part: &Descriptor) -> Result<Verify<File>, Error> {
        Ok(Verify::new(self.store.open_blob(&part.digest)?, part))
    }

    pub(super) fn advance(&self, bytes: u64) {
        self.task.advance(bytes);
    }
}

impl Store {
    /// Lists the blobs and documents below an image that are not here: some of a base may never
    /// have been fetched. Entries of an index without a manifest here count with it alone.
    pub fn missing(&self, descriptor: &Descriptor) -> Result<Vec<Descriptor>, Error> {
        let mut parts = Vec::new();
        self.parts(descriptor, &mut parts)?;
        parts.retain(|part| !self.has_whole(part));
        Ok(parts)
    }

    /// Writes an image of the store elsewhere. A failure leaves nothing there.
    pub fn export(
        &self,
        name: &Reference,
        output: Output<'_>,
        options: &ExportOptions,
        report: &dyn Report,
    ) -> Result<(), Error> {
        let found = self.resolve(name)?;
        let image = found.ok_or_else(|| Error::NoName {
            name: Box::new(name.clone()),
            path: self.root().to_owned(),
        })?;
        match output {
            Output::Path(folder) if options.form == Form::Layout => {
                self.export_copy(name, &image, options, folder.to_owned(), report, &mut |copied| {
                    layout::write_folder(copied, folder)
                })
            }
            Output::Path(path) => whole_file(path, &mut |out| {
                self.export_stream(name, &image, options, path.to_owned(), report, out)
            }),
            Output::Stream(label, out) => {
                self.export_stream(name, &image, options, label.into(), report, out)
            }
        }
    }

    fn export_stream(
        &self,
        name: &Reference,
        image: &Descriptor,
        options: &ExportOptions,
        label: PathBuf,
        report: &dyn Report,
        out: &mut dyn Write,
    ) -> Result<(), Error> {
        match options.form {
            Form::Layout => Err(Error::FolderToStream),
            Form::OciArchive => {
                self.export_copy(name, image, options, label, report, &mut |copied| {
                    layout::write_archive(copied, out)
                })
            }
            Form::DockerArchive => {
                let (_, manifest) = self.one_platform(name, image, options.platform.as_ref())?;
                docker::write(self, name, &manifest, &label, report, out)
            }
            Form::Tar => {
                let (_, manifest) = self.one_platform(name, image, options.platform.as_ref())?;
                flatten::write(self, &manifest, &label, report, out)
            }
        }
    }

    fn export_copy(
        &self,
        name: &Reference,
        image: &Descriptor,
        options: &ExportOptions,
        label: PathBuf,
        report: &dyn Report,
        write: &mut dyn FnMut(&Copied<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut entry = match &options.platform {
            Some(platform) => self.one_platform(name, image, Some(platform))?.0,
            None => image.clone(),
        };
        let mut parts = Vec::new();
        self.parts(&entry, &mut parts)?;
        parts.sort_by_key(|part| part.digest);
        parts.dedup_by_key(|part| part.digest);
        if let Some(part) = parts.iter().find(|part| !self.has(&part.digest)) {
            return Err(Error::Missing { digest: part.digest, path: self.root().to_owned() });
        }
        if name.digest().is_none() {
            for key in [REF_NAME, CONTAINERD_NAME] {
                entry.annotations.insert(key.to_owned(), name.to_string());
            }
        }
        let total = parts.iter().map(|part| part.size).sum();
        let task = Task::start(report, format!("export {name}"), Some(total), Unit::Bytes);
        write(&Copied { store: self, parts, entry, label, task: &task })?;
        task.finish("done");
        Ok(())
    }

    /// Adds a document and all that it reaches to `parts`.
    fn parts(&self, descriptor: &Descriptor, parts: &mut Vec<Descriptor>) -> Result<(), Error> {
        parts.push(descriptor.clone());
        let is_document = media_type::is_index(&descriptor.media_type)
            || media_type::is_manifest(&descriptor.media_type);
        if is_document && self.has(&descriptor.digest) {
            let document = self.document(descriptor)?;
            if document.is_index() {
                for entry in document.index()?.manifests {
                    self.parts(&entry, parts)?;
                }
            } else {
                let manifest = document.manifest()?;
                parts.extend(manifest.layers.into_iter().chain([manifest.config]));
            }
        }
        Ok(())
    }

    /// Returns one platform's manifest: the wanted, else this machine's, else the only one.
    fn one_platform(
        &self,
        name: &Reference,
        image: &Descriptor,
        wanted: Option<&Platform>,
    ) -> Result<(Descriptor, Manifest), Error> {
        let document = self.document(image)?;
        if document.is_index() {
            let index = document.index()?;
            let offered = || -> Vec<Platform> {
                let all = index.manifests.iter().filter_map(|entry| entry.platform.clone());
                all.filter(|platform| platform.architecture != "unknown").collect()
            };
            let host = Platform::host();
            let found = match (wanted, index.find(wanted.unwrap_or(&host)), &index.manifests[..]) {
                (_, Some(found), _) => found,
                (None, None, [only]) => only,
                (wanted, ..) => {
                    let wanted = Box::new(wanted.unwrap_or(&host).clone());
                    return Err(Error::NoPlatform {
                        name: name.to_string(),
                        wanted,
                        offered: offered(),
                    });
                }
            };
            return Ok((found.clone(), self.document(found)?.manifest()?));
        }
        let manifest = document.manifest()?;
        if let Some(wanted) = wanted {
            let path = self.blob_path(&manifest.config.digest);
            let config = ConfigDocument::read(&self.read_blob(&manifest.config)?)
                .map_err(|source| Error::Json { path, source })?;
            let has = config.platform();
            if !has.satisfies(wanted) {
                let (name, wanted) = (name.to_string(), Box::new(wanted.clone()));
                return Err(Error::NoPlatform { name, wanted, offered: vec![has] });
            }
        }
        Ok((image.clone(), manifest))
    }
}

/// Puts an entry into an index, in place of one of the same name.
pub(super) fn add_name(entries: &mut Vec<Descriptor>, entry: &Descriptor) {
    let name = entry.annotations.get(REF_NAME);
    entries.retain(|other| match name {
        Some(name) => other.annotations.get(REF_NAME) != Some(name),
        None => other != entry,
    });
    entries.push(entry.clone());
}

/// Returns the name of a file that is to replace another when it is whole.
pub(super) fn staged_beside(target: &Path) -> PathBuf {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    target.with_file_name(format!(".{name}.{}.new", std::process::id()))
}

/// Writes a file beside its place, and puts it there when it is whole.
fn whole_file(
    path: &Path,
    write: &mut dyn FnMut(&mut dyn Write) -> Result<(), Error>,
) -> Result<(), Error> {
    if path.exists() && !path.is_file() {
        // A pipe or a device, `/dev/stdout` say.
        let mut file = File::options().write(true).open(path).at("open", path)?;
        return write(&mut file);
    }
    let staged = staged_beside(path);
    let mut attempt = || -> Result<(), Error> {
        let file = File::create(&staged).at("create", &staged)?;
        let mut out = Named { file: io::BufWriter::with_capacity(1 << 20, file), path };
        write(&mut out)?;
        out.flush().map_err(|error| Error::of_stream(error, path.to_owned()))?;
        out.file.get_ref().sync_data().at("write", path)?;
        Ok(fs::rename(&staged, path).at("create", path)?)
    };
    let done = attempt();
    if done.is_err() {
        fs::remove_file(&staged).ok();
    }
    done
}

/// A file whose errors name it.
struct Named<'a> {
    file: io::BufWriter<File>,
    path: &'a Path,
}

impl Write for Named<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes).map_err(|error| super::error::named("write", self.path, error))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush().map_err(|error| super::error::named("write", self.path, error))
    }
}

/// Opens a layer's tar: verified, decompressed.
pub(super) fn open_layer<'a>(
    store: &'a Store,
    layer: &Descriptor,
) -> Result<Box<dyn Read + Send + 'a>, Error> {
    let mut file = store.open_blob(&layer.digest)?;
    let path = store.blob_path(&layer.digest);
    // Foreign types exist; the first bytes do not lie.
    let (compression, _) = super::files::sniff(&mut file).at("read", &path)?;
    io::Seek::rewind(&mut file).at("read", &path)?;
    Ok(super::files::decoder(compression, Verify::new(file, layer)).at("read", &path)?)
}
