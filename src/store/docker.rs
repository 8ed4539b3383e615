//! Docker's archive: `manifest.json` names a configuration and layers, plain tars as a rule, in old
//! archives behind symlinks. Read into an OCI image with the same configuration; written plain.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::export::open_layer;
use super::files::{Files, decoder, sniff};
use super::import::{ImportOptions, Loaded, Packed, choose, each, pour};
use super::root::{Tee, pack, stage_bytes, wrap};
use super::tarball::{self, Writer};
use super::{Error, Staged, Store, encode};
use crate::oci::media_type::Compression;
use crate::oci::{
    ConfigDocument, DOCUMENT_LIMIT, Descriptor, Digest, Hasher, Manifest, Reference, media_type,
};
use crate::report::{Report, Task, Unit};

/// One image of `manifest.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Image {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Reads an image and stages its blobs.
pub(super) fn load(
    store: &Store,
    files: &Files,
    options: &ImportOptions<'_>,
    report: &dyn Report,
) -> Result<Loaded, Error> {
    let manifest_path = files.label("manifest.json");
    let images: Vec<Image> = serde_json::from_slice(&files.read("manifest.json", DOCUMENT_LIMIT)?)
        .map_err(|source| Error::Json { path: manifest_path.clone(), source })?;
    let images = images
        .into_iter()
        .map(|image| {
            let mut names = image.repo_tags.clone().unwrap_or_default();
            names.extend(digest_in(&image.config).map(|digest| digest.to_string()));
            (names, image)
        })
        .collect();
    let (name, image) = choose(&manifest_path, images, options.select.as_deref())?;
    let (config_name, config_path) = (inside(files, &image.config)?, files.label(&image.config));
    let bytes = files.read(&config_name, DOCUMENT_LIMIT)?;
    let found = Digest::of(&bytes);
    if let Some(expected) = digest_in(&image.config).filter(|expected| *expected != found) {
        return Err(Error::Corrupt { path: config_path, expected, found });
    }
    let config = ConfigDocument::read(&bytes)
        .map_err(|source| Error::Json { path: config_path.clone(), source })?;
    let diff_ids = config.diff_ids();
    if diff_ids.len() != image.layers.len() {
        let what =
            format!("{} layers, but {} digests of layers", image.layers.len(), diff_ids.len());
        return Err(Error::Contradiction { path: config_path, what });
    }
    // An empty layer often comes several times.
    let mut unique = BTreeMap::new();
    for (diff_id, layer) in diff_ids.iter().zip(&image.layers) {
        unique.entry(*diff_id).or_insert(inside(files, layer)?);
    }
    let unique: Vec<(Digest, String)> = unique.into_iter().collect();
    // Compressors use all cores by themselves; two keep them busy while a layer ends.
    let layers = each(options.threads.min(2), &unique, |(diff_id, name)| {
        stage(store, files, options, *diff_id, name, report)
    })?;
    let by_diff_id: BTreeMap<Digest, Descriptor> = unique
        .iter()
        .zip(&layers)
        .map(|((diff_id, _), (_, descriptor, _))| (*diff_id, descriptor.clone()))
        .collect();
    let descriptors = diff_ids.iter().filter_map(|id| by_diff_id.get(id).cloned()).collect();
    let config_blob = stage_bytes(store, &bytes)?;
    let documents = wrap(&config_blob, descriptors, &config.platform(), &manifest_path)?;
    let mut blobs = vec![config_blob];
    let mut packed = Vec::new();
    for (blob, _, made) in layers {
        blobs.push(blob);
        packed.extend(made);
    }
    Ok(Loaded { blobs, documents, packed, name })
}

/// Cleans a name out of `manifest.json`.
fn inside(files: &Files, name: &str) -> Result<String, Error> {
    tarball::clean(name.as_bytes())
        .map(|clean| String::from_utf8_lossy(&clean).into_owned())
        .map_err(|source| Error::Archive { path: files.label("manifest.json"), source })
}

/// Returns the digest that a configuration's name is made of: `HEX.json` or `blobs/sha256/HEX`.
fn digest_in(name: &str) -> Option<Digest> {
    let file = name.rsplit('/').next().unwrap_or(name);
    format!("sha256:{}", file.strip_suffix(".json").unwrap_or(file)).parse().ok()
}

/// Stages a layer: a plain tar compressed, a compressed one as it is; either way the tar must be
/// the one that the configuration says.
fn stage(
    store: &Store,
    files: &Files,
    options: &ImportOptions<'_>,
    diff_id: Digest,
    name: &str,
    report: &dyn Report,
) -> Result<(Staged, Descriptor, Option<Packed>), Error> {
    let path = files.label(name);
    let failed = |error: io::Error| Error::of_stream(error, path.clone());
    let (mut reader, size) = files.open_file(name)?;
    let (compression, start) = sniff(&mut reader).map_err(failed)?;
    let mut reader = io::Cursor::new(start).chain(reader);
    let task = Task::start(report, diff_id.short(), Some(size), Unit::Bytes);
    let right = |found: Digest| {
        if found == diff_id {
            Ok(())
        } else {
            Err(Error::Corrupt { path: path.clone(), expected: diff_id, found })
        }
    };
    let media_type = match compression {
        Compression::None => {
            let (staged, packed) = pack(store, options, &path, &mut |out| {
                pour(&mut reader, out, |bytes| task.advance(bytes)).map(|_| ())
            })?;
            right(packed.diff_id)?;
            task.finish("done");
            return Ok((staged, packed.blob.clone(), Some(packed)));
        }
        Compression::Gzip => media_type::LAYER_GZIP,
        Compression::Zstd => media_type::LAYER_ZSTD,
    };
    let mut writer = store.writer()?;
    let mut hash = Hashing::default();
    let mut tee = Tee::new(reader, &mut writer);
    {
        let plain = decoder(compression, Lent(&mut tee)).map_err(failed)?;
        pour(plain, &mut hash, |_| {}).map_err(failed)?;
    }
    // What a decoder leaves at the end belongs to the blob too.
    pour(&mut tee, &mut io::sink(), |_| {}).map_err(failed)?;
    right(hash.0.finish())?;
    let staged = writer.finish(None)?;
    let descriptor = Descriptor::new(media_type, staged.digest(), staged.size());
    task.finish("done");
    Ok((staged, descriptor, None))
}

/// Lends a reader to a decoder that wants to own one.
struct Lent<'a, R>(&'a mut R);

impl<R: Read> Read for Lent<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

#[derive(Default)]
struct Hashing(Hasher, u64);

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        self.1 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes an image of one platform. A tar's header comes before its content and says the size, so
/// each layer is decompressed twice.
pub(super) fn write(
    store: &Store,
    name: &Reference,
    manifest: &Manifest,
    label: &Path,
    report: &dyn Report,
    out: &mut dyn Write,
) -> Result<(), Error> {
    let failed = |error: io::Error| Error::of_stream(error, label.to_owned());
    let config_bytes = store.read_blob(&manifest.config)?;
    let config_path = || -> PathBuf { store.blob_path(&manifest.config.digest) };
    let config = ConfigDocument::read(&config_bytes)
        .map_err(|source| Error::Json { path: config_path(), source })?;
    let diff_ids = config.diff_ids();
    if diff_ids.len() != manifest.layers.len() {
        let what =
            format!("{} layers, but {} digests of layers", manifest.layers.len(), diff_ids.len());
        return Err(Error::Contradiction { path: config_path(), what });
    }
    let total = manifest.layers.iter().map(|layer| 2 * layer.size).sum();
    let task = Task::start(report, format!("export {name}"), Some(total), Unit::Bytes);
    let mut tar = Writer::new(out);
    let mut written = BTreeMap::new();
    for (layer, diff_id) in manifest.layers.iter().zip(&diff_ids) {
        if written.contains_key(diff_id) {
            continue;
        }
        let path = store.blob_path(&layer.digest);
        let read = |error| Error::of_stream(error, path.clone());
        let mut hash = Hashing::default();
        pour(open_layer(store, layer)?, &mut hash, |_| {}).map_err(read)?;
        let Hashing(hasher, size) = hash;
        let found = hasher.finish();
        if found != *diff_id {
            return Err(Error::Corrupt { path, expected: *diff_id, found });
        }
        task.advance(layer.size);
        let file = format!("{}.tar", diff_id.hex());
        tar.file(&file, size, &mut open_layer(store, layer)?).map_err(read)?;
        task.advance(layer.size);
        written.insert(*diff_id, file);
    }
    let config_name = format!("{}.json", manifest.config.digest.hex());
    tar.file(&config_name, config_bytes.len() as u64, &mut &config_bytes[..]).map_err(failed)?;
    let image = Image {
        config: config_name,
        repo_tags: Some(name.digest().is_none().then(|| name.to_string()).into_iter().collect()),
        layers: diff_ids.iter().filter_map(|diff_id| written.get(diff_id).cloned()).collect(),
    };
    let bytes = encode(&[image], label)?;
    tar.file("manifest.json", bytes.len() as u64, &mut &bytes[..]).map_err(failed)?;
    tar.finish().map_err(failed)?;
    task.finish("done");
    Ok(())
}
