//! A root file system as one tar, as `mmdebstrap` or `docker export` write it, into an image of one
//! layer. The tar is not unpacked and not rewritten: it streams through checks into the compressor.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use serde_json::json;

use super::files::{Input, decoder, sniff};
use super::import::{ImportOptions, Loaded, Packed};
use super::tarball::{Entry, Kind, Reader};
use super::{Error, Staged, Store};
use crate::disk::At;
use crate::oci::{
    ConfigDocument, Descriptor, Document, HistoryEntry, Index, Manifest, Platform, media_type,
};
use crate::report::{Report, Task, Unit};

/// Where a shell looks for programs when the image says nothing.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What is learned of a root file system as it passes.
#[derive(Default)]
struct Facts {
    entries: u64,
    newest: i64,
    /// How many programs there are for each architecture.
    machines: BTreeMap<&'static str, u64>,
}

/// Reads a root file system and stages its layer and configuration.
pub(super) fn load(
    store: &Store,
    input: Input<'_>,
    options: &ImportOptions<'_>,
    report: &dyn Report,
) -> Result<Loaded, Error> {
    let label = input.label();
    let (stream, compression, total): (Box<dyn Read + Send + '_>, _, _) = match input {
        Input::Path(path) => {
            let mut file = File::open(path).at("open", path)?;
            let (compression, start) =
                sniff(&mut file).map_err(|error| Error::of_stream(error, label.clone()))?;
            // A pipe cannot be rewound, and need not be.
            match file.rewind() {
                Ok(()) => {
                    let size = file.metadata().at("read", path)?.len();
                    (Box::new(file), compression, Some(size))
                }
                Err(_) => (Box::new(io::Cursor::new(start).chain(file)), compression, None),
            }
        }
        Input::Stream(_, mut stream) => {
            let (compression, start) =
                sniff(&mut stream).map_err(|error| Error::of_stream(error, label.clone()))?;
            (Box::new(io::Cursor::new(start).chain(stream)), compression, None)
        }
    };
    let task = Task::start(report, format!("import {}", label.display()), total, Unit::Bytes);
    let counted = Counted { inner: stream, task: &task };
    let stream =
        decoder(compression, counted).map_err(|error| Error::of_stream(error, label.clone()))?;
    let mut facts = Facts::default();
    let (layer, packed) = {
        let mut stream = Some(stream);
        pack(store, options, &label, &mut |out| match stream.take() {
            Some(stream) => pass(stream, out, &mut facts),
            None => Err(io::Error::other("the root file system was asked for twice")),
        })?
    };
    if facts.entries == 0 {
        return Err(Error::NoImage { path: label, what: "no files".to_owned() });
    }
    let platform = facts.platform(options.platform.as_ref(), report);
    let created = options.created.clone().unwrap_or_else(|| facts.created());
    let mut config = ConfigDocument::empty(&platform);
    config.set_created(&created);
    config.set_parameter("Env", json!([format!("PATH={PATH}")]));
    let history = HistoryEntry {
        created: Some(created),
        created_by: Some("ocibuild import".to_owned()),
        comment: None,
        empty_layer: false,
    };
    config.push_layer(packed.diff_id, &history);
    let bytes = config.encode().map_err(|source| Error::Encode { path: label.clone(), source })?;
    let config = stage_bytes(store, &bytes)?;
    let documents = wrap(&config, vec![packed.blob.clone()], &platform, &label)?;
    task.finish("done");
    Ok(Loaded { blobs: vec![layer, config], documents, packed: vec![packed], name: None })
}

/// Stages a small blob.
pub(super) fn stage_bytes(store: &Store, bytes: &[u8]) -> Result<Staged, Error> {
    let mut writer = store.writer()?;
    writer.write_all(bytes).at("write to", store.root())?;
    writer.finish(None)
}

/// Makes the manifest and the index of one image.
pub(super) fn wrap(
    config: &Staged,
    layers: Vec<Descriptor>,
    platform: &Platform,
    label: &Path,
) -> Result<Vec<Document>, Error> {
    let encode = |source| Error::Encode { path: label.to_owned(), source };
    let descriptor = Descriptor::new(media_type::CONFIG, config.digest(), config.size());
    let manifest = Manifest::new(descriptor, layers, BTreeMap::new());
    let manifest = Document::of_manifest(&manifest).map_err(encode)?;
    let mut entry = manifest.descriptor();
    entry.platform = Some(platform.clone());
    let index = Document::of_index(&Index::new(vec![entry], BTreeMap::new())).map_err(encode)?;
    Ok(vec![manifest, index])
}

/// Compresses what a producer writes into a staged blob. What the producer says is wrong counts,
/// not what the compressor makes of it.
pub(super) fn pack(
    store: &Store,
    options: &ImportOptions<'_>,
    label: &Path,
    produce: &mut (dyn FnMut(&mut dyn Write) -> io::Result<()> + Send),
) -> Result<(Staged, Packed), Error> {
    let mut writer = store.raw_writer()?;
    let mut fault = None;
    let mut guarded = |out: &mut dyn Write| match produce(out) {
        Ok(()) => Ok(()),
        Err(error) => {
            let again = io::Error::new(error.kind(), error.to_string());
            fault = Some(error);
            Err(again)
        }
    };
    let packed = (options.pack)(&mut guarded, &mut writer);
    match (packed, fault) {
        (_, Some(error)) | (Err(error), None) => Err(Error::of_stream(error, label.to_owned())),
        (Ok(packed), None) => {
            let staged = writer.finish(Some((packed.blob.digest, packed.blob.size)))?;
            Ok((staged, packed))
        }
    }
}

/// Passes a tar on, checking each entry.
fn pass(stream: impl Read, out: &mut dyn Write, facts: &mut Facts) -> io::Result<()> {
    let mut reader = Reader::new(Tee::new(stream, out));
    while let Some(entry) = reader.next()? {
        facts.note(&entry, &mut reader)?;
    }
    reader.finish()
}

impl Facts {
    fn note(&mut self, entry: &Entry, content: &mut dyn Read) -> io::Result<()> {
        let name = entry.path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        if name.starts_with(b".wh.") {
            let text = format!(
                "the entry `{}` is a whiteout, which a root file system has not",
                entry.name()
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        self.entries += 1;
        self.newest = self.newest.max(entry.mtime.0);
        if entry.kind == Kind::File && entry.mode & 0o111 != 0 && entry.size >= 20 {
            let mut head = [0; 20];
            content.read_exact(&mut head)?;
            if let Some(machine) = machine(&head) {
                *self.machines.entry(machine).or_default() += 1;
            }
        }
        Ok(())
    }

    /// Returns the platform that was asked for, else the one that most programs are for.
    fn platform(&self, wanted: Option<&Platform>, report: &dyn Report) -> Platform {
        let found =
            self.machines.iter().max_by_key(|(_, count)| **count).map(|(machine, _)| *machine);
        match (wanted, found) {
            (Some(wanted), found) => {
                if let Some(found) = found.filter(|found| *found != wanted.architecture) {
                    report.warning(&format!("the programs are for {found}, not for {wanted}"));
                }
                wanted.clone()
            }
            (None, Some(found)) => Platform::linux(found),
            (None, None) => Platform::host(),
        }
    }

    /// Spells the newest file's time, so that the same tar always gives the same image.
    fn created(&self) -> String {
        jiff::Timestamp::from_second(self.newest).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
    }
}

/// Returns the architecture that a program is for.
fn machine(head: &[u8; 20]) -> Option<&'static str> {
    if &head[..4] != b"\x7fELF" {
        return None;
    }
    let little = head[5] == 1;
    let code = [head[18], head[19]];
    let code = if little { u16::from_le_bytes(code) } else { u16::from_be_bytes(code) };
    match code {
        3 => Some("386"),
        21 if little => Some("ppc64le"),
        22 => Some("s390x"),
        40 => Some("arm"),
        62 => Some("amd64"),
        183 => Some("arm64"),
        243 => Some("riscv64"),
        258 => Some("loong64"),
        _ => None,
    }
}

/// Writes on what it reads.
pub(super) struct Tee<R, W> {
    inner: R,
    out: W,
    buffer: Vec<u8>,
    at: usize,
    end: usize,
}

impl<R, W> Tee<R, W> {
    pub(super) fn new(inner: R, out: W) -> Tee<R, W> {
        Tee { inner, out, buffer: vec![0; 256 << 10], at: 0, end: 0 }
    }
}

impl<R: Read, W: Write> Read for Tee<R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.end {
            self.end = 0;
            self.at = 0;
            let read = self.inner.read(&mut self.buffer)?;
            self.out.write_all(&self.buffer[..read])?;
            self.end = read;
        }
        let give = buffer.len().min(self.end - self.at);
        buffer[..give].copy_from_slice(&self.buffer[self.at..self.at + give]);
        self.at += give;
        Ok(give)
    }
}

struct Counted<'a, R> {
    inner: R,
    task: &'a Task<'a>,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.task.advance(read as u64);
        Ok(read)
    }
}
