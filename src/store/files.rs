//! The files of an image that lies outside of the store: in a folder, or in a tar that is indexed
//! once and then read by offset. Nothing of a tar is unpacked, so none of its names reaches a disk.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::tarball::{Kind, Reader};
use super::{Error, Store};
use crate::disk::At;
use crate::oci::Digest;
use crate::oci::media_type::Compression;

/// Links in a tar may point to links; nobody chains more than this.
const LINKS: usize = 16;

/// Where an image comes from.
pub enum Input<'a> {
    /// A file or folder.
    Path(&'a Path),
    /// Standard input, say, with its name for messages.
    Stream(&'a str, &'a mut (dyn Read + Send)),
}

impl std::fmt::Debug for Input<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Input").field(&self.label()).finish()
    }
}

impl Input<'_> {
    /// Returns the name for messages.
    pub(super) fn label(&self) -> PathBuf {
        match self {
            Input::Path(path) => path.to_path_buf(),
            Input::Stream(name, _) => PathBuf::from(name),
        }
    }
}

/// Files by their names.
pub(super) enum Files {
    Folder(PathBuf),
    Tar { label: PathBuf, file: File, members: BTreeMap<String, Member> },
}

pub(super) enum Member {
    Content {
        at: u64,
        size: u64,
    },
    Link(String),
    /// A device, or a link that leads out; why it cannot be read.
    Odd(&'static str),
}

impl Files {
    /// Takes a folder, or indexes a tar. One that is compressed or a stream is first written to a
    /// nameless file in the store's run folder.
    pub(super) fn open(store: &Store, input: Input<'_>) -> Result<Files, Error> {
        let label = input.label();
        let failed = |error| Error::of_stream(error, label.clone());
        let file = match input {
            Input::Path(path) if path.is_dir() => return Ok(Files::Folder(path.to_owned())),
            Input::Path(path) => {
                let mut file = File::open(path).at("open", path)?;
                let (compression, _) = sniff(&mut file).map_err(failed)?;
                file.seek(SeekFrom::Start(0)).at("read", path)?;
                match compression {
                    Compression::None => file,
                    _ => spool(store, decoder(compression, file).map_err(failed)?, &label)?,
                }
            }
            Input::Stream(_, mut stream) => {
                let (compression, start) = sniff(&mut stream).map_err(failed)?;
                let whole = io::Cursor::new(start).chain(stream);
                spool(store, decoder(compression, whole).map_err(failed)?, &label)?
            }
        };
        let members =
            index(&file).map_err(|source| Error::Archive { path: label.clone(), source })?;
        Ok(Files::Tar { label, file, members })
    }

    /// Tells whether there is such a file.
    pub(super) fn has(&self, name: &str) -> bool {
        match self {
            Files::Folder(folder) => folder.join(name).is_file(),
            Files::Tar { members, .. } => !matches!(find(members, name), Found::Nothing),
        }
    }

    /// Returns a file's name for messages.
    pub(super) fn label(&self, name: &str) -> PathBuf {
        match self {
            Files::Folder(folder) => folder.join(name),
            Files::Tar { label, .. } => label.join(name),
        }
    }

    /// Opens a file and returns its size. `name` is one of the format's own, or clean.
    pub(super) fn open_file(&self, name: &str) -> Result<(Box<dyn Read + Send + '_>, u64), Error> {
        let missing = || Error::NoFile { path: self.label(name) };
        if let Files::Tar { members, .. } = self
            && let Found::Odd(why) = find(members, name)
        {
            return Err(Error::Contradiction { path: self.label(name), what: why.to_owned() });
        }
        match self {
            Files::Folder(folder) => {
                let path = folder.join(name);
                // A pipe would never end; a symlink is fine, for all content is verified.
                let metadata = fs::metadata(&path).map_err(|_| missing())?;
                if !metadata.is_file() {
                    return Err(missing());
                }
                let file = File::open(&path).at("open", &path)?;
                Ok((Box::new(file), metadata.len()))
            }
            Files::Tar { file, members, .. } => {
                let Found::Content { at, size } = find(members, name) else {
                    return Err(missing());
                };
                Ok((Box::new(Slice { file, at, left: size }), size))
            }
        }
    }

    /// Reads a small file whole.
    pub(super) fn read(&self, name: &str, limit: u64) -> Result<Vec<u8>, Error> {
        let (reader, size) = self.open_file(name)?;
        let path = self.label(name);
        if size > limit {
            return Err(Error::Size { path, expected: limit, found: size });
        }
        let mut bytes = Vec::new();
        reader.take(limit).read_to_end(&mut bytes).at("read", path)?;
        Ok(bytes)
    }
}

/// What a name leads to.
enum Found {
    Content { at: u64, size: u64 },
    Odd(&'static str),
    Nothing,
}

fn find(members: &BTreeMap<String, Member>, name: &str) -> Found {
    let mut name = name;
    for _ in 0..LINKS {
        match members.get(name) {
            None => return Found::Nothing,
            Some(Member::Content { at, size }) => return Found::Content { at: *at, size: *size },
            Some(Member::Odd(why)) => return Found::Odd(why),
            Some(Member::Link(target)) => name = target,
        }
    }
    Found::Odd("a link that goes round in circles")
}

/// Lists a tar's files and links; the last of a name counts, as for everyone who unpacks.
fn index(file: &File) -> io::Result<BTreeMap<String, Member>> {
    let length = file.metadata()?.len();
    let mut reader = Reader::new(file);
    let mut members = BTreeMap::new();
    while let Some(entry) = reader.next()? {
        let at = reader.position();
        let is_sparse = reader.is_sparse();
        let (file, bytes) = reader.skipped();
        file.seek_relative(i64::try_from(bytes).map_err(io::Error::other)?)?;
        if reader.position() > length {
            let cut = format!("the archive is cut short in the entry `{}`", entry.name());
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, cut));
        }
        // Names that are no text are none that a format asks for.
        let Ok(name) = String::from_utf8(entry.path.clone()) else { continue };
        let member = match entry.kind {
            Kind::File if is_sparse => Member::Odd("a file with holes"),
            Kind::File => Member::Content { at, size: entry.size },
            Kind::Symlink => {
                let folder =
                    entry.path.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
                match resolve(&[&entry.path[..folder], &entry.link].concat()) {
                    Some(target) => Member::Link(target),
                    None => Member::Odd("a link that leaves the archive"),
                }
            }
            Kind::Link => Member::Link(String::from_utf8_lossy(&entry.link).into_owned()),
            Kind::Folder => continue,
            Kind::Char | Kind::Block | Kind::Fifo => Member::Odd("neither a file nor a link"),
        };
        members.insert(name, member);
    }
    Ok(members)
}

/// Follows `..` within the archive only.
fn resolve(path: &[u8]) -> Option<String> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    String::from_utf8(parts.join(&b'/')).ok()
}

/// Tells by its first names whether a compressed tar is an image's archive rather than a root file
/// system, so that only the former is decompressed to a file.
pub(super) fn begins_as_archive(path: &Path) -> Result<Option<bool>, Error> {
    let mut file = File::open(path).at("open", path)?;
    let failed = |error| Error::of_stream(error, path.to_owned());
    let (compression, _) = sniff(&mut file).map_err(failed)?;
    if compression == Compression::None {
        return Ok(None);
    }
    file.seek(SeekFrom::Start(0)).at("read", path)?;
    let mut reader = Reader::new(decoder(compression, file).map_err(failed)?);
    while let Some(entry) = reader.next().map_err(failed)? {
        let name = entry.name();
        let first = name.split('/').next().unwrap_or_default();
        if !first.is_empty() {
            let stem = first.split('.').next().unwrap_or_default();
            let known = ["oci-layout", "index.json", "manifest.json", "repositories", "blobs"];
            return Ok(Some(
                known.contains(&first) || format!("sha256:{stem}").parse::<Digest>().is_ok(),
            ));
        }
    }
    Ok(Some(false))
}

/// A part of a file, read by offset, so that several can be read at once.
struct Slice<'a> {
    file: &'a File,
    at: u64,
    left: u64,
}

impl Read for Slice<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read_at(&mut buffer[..most], self.at)?;
        self.at += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}

/// Reads the first bytes and tells by them how the stream is compressed.
pub(super) fn sniff(mut stream: impl Read) -> io::Result<(Compression, Vec<u8>)> {
    let mut start = Vec::new();
    stream.by_ref().take(6).read_to_end(&mut start)?;
    let compression = match &start[..] {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
        b"\xfd7zXZ\0" => return Err(unsupported("xz")),
        [b'B', b'Z', b'h', ..] => return Err(unsupported("bzip2")),
        _ => Compression::None,
    };
    Ok((compression, start))
}

fn unsupported(name: &str) -> io::Error {
    let text = format!("it is compressed with {name}; plain, gzip and zstd are read");
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// Decompresses a stream, through all its members.
pub(super) fn decoder<'a>(
    compression: Compression,
    stream: impl Read + Send + 'a,
) -> io::Result<Box<dyn Read + Send + 'a>> {
    Ok(match compression {
        Compression::None => Box::new(stream),
        Compression::Gzip => {
            let buffered = io::BufReader::with_capacity(256 << 10, stream);
            Box::new(flate2::bufread::MultiGzDecoder::new(buffered))
        }
        Compression::Zstd => Box::new(zstd::Decoder::new(stream)?),
    })
}

/// Writes a stream to a file that vanishes by itself.
fn spool(store: &Store, mut stream: impl Read, label: &Path) -> Result<File, Error> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let run = store.scratch()?;
    let path = run.path().join(format!("spool-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
    let mut file =
        File::options().read(true).write(true).create_new(true).open(&path).at("create", &path)?;
    fs::remove_file(&path).at("remove", &path)?;
    let mut buffer = vec![0; 256 << 10];
    loop {
        let read = match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Error::of_stream(error, label.to_owned())),
        };
        io::Write::write_all(&mut file, &buffer[..read]).at("write to", run.path())?;
    }
    file.seek(SeekFrom::Start(0)).at("read", &path)?;
    Ok(file)
}
