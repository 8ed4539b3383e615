//! A recipe's own files: what they hash to, and their copy for the steps to see.
//!
//! A file counts by its path, its bytes and its exec bit. Time, owner and the rest of its mode,
//! which depend on the machine and on the umask of whoever checked it out, never do.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use serde::Serialize;

use super::FILE_NAME;
use crate::disk::{self, At};
use crate::fault::{Fault, Kind};
use crate::oci::{Digest, Hasher};
use crate::text::Problems;

/// Names that tools leave behind and that are no part of a recipe.
const LEFT_BEHIND: [&str; 6] =
    [".DS_Store", ".git", ".ipynb_checkpoints", ".mypy_cache", "__pycache__", "Thumbs.db"];

/// Endings of names that editors leave behind.
const ENDINGS_LEFT_BEHIND: [&str; 5] = ["~", ".swp", ".swo", ".orig", ".rej"];

/// The most files that a recipe may have.
const LIMIT: usize = 20_000;

/// What a path of a recipe is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Node {
    /// A folder.
    Folder,
    /// A file.
    File {
        /// Of its bytes.
        sha256: Digest,
        /// How many there are.
        size: u64,
        /// Whether its owner may execute it.
        exec: bool,
    },
    /// A symbolic link that stays in the recipe.
    Link {
        /// Where it points to.
        target: String,
    },
}

/// A path of a recipe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Relative to the recipe's folder, parts joined by `/`.
    pub path: String,
    /// What it is.
    #[serde(flatten)]
    pub node: Node,
}

/// The files that a recipe's steps can see, sorted by path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Files {
    entries: Vec<Entry>,
}

/// A recipe's files that could not be laid out for its steps.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The machine's fault.
    #[error("cannot lay out the recipe's files")]
    Disk(#[from] disk::Error),
    /// Somebody wrote to it meanwhile.
    #[error("{} has changed since the build began", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Error::Disk(error) => error.kind(),
            Error::Changed { .. } => Kind::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Error::Disk(error) => error.hint(),
            Error::Changed { .. } => {
                Some("leave the recipe's folder alone until the build has ended".to_owned())
            }
        }
    }
}

impl Files {
    /// Lists and hashes what is in a folder, but for `layer.toml` and what tools leave behind.
    pub fn of_folder(folder: &Path, problems: &Problems) -> Files {
        let mut files = Files::default();
        files.add_folder(folder, "", problems);
        files.entries.sort_by(|a, b| a.path.as_bytes().cmp(b.path.as_bytes()));
        files
    }

    fn add_folder(&mut self, folder: &Path, below: &str, problems: &Problems) {
        let names = match disk::list(&folder.join(below)) {
            Ok(names) => names,
            Err(error) => {
                problems.about(error.path(), format!("cannot be listed: {}", error.io()));
                return;
            }
        };
        for name in names {
            let path = folder.join(below).join(&name);
            let Some(name) = name.to_str().filter(|name| !name.contains(char::is_control)) else {
                problems.about(&path, "has a name that is no plain UTF-8");
                continue;
            };
            if ignored(name) || (below.is_empty() && name == FILE_NAME) {
                continue;
            }
            if self.entries.len() >= LIMIT {
                if self.entries.len() == LIMIT {
                    problems.about(folder, format!("holds more than {LIMIT} files"));
                }
                return;
            }
            let inner = if below.is_empty() { name.to_owned() } else { format!("{below}/{name}") };
            match node(folder, &inner) {
                Ok(Node::Folder) => {
                    self.entries.push(Entry { path: inner.clone(), node: Node::Folder });
                    self.add_folder(folder, &inner, problems);
                }
                Ok(node) => self.entries.push(Entry { path: inner, node }),
                Err(message) => problems.about(&path, message),
            }
        }
    }

    /// Returns the entries, sorted by path.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Returns what a path is; a link is followed to what it points to.
    pub fn get(&self, path: &str) -> Option<&Node> {
        let mut path = path.to_owned();
        for _ in 0..16 {
            match &self.entries.iter().find(|entry| entry.path == path)?.node {
                Node::Link { target } => path = resolve(&path, target)?,
                node => return Some(node),
            }
        }
        None
    }

    /// Returns the paths of files, for "did you mean".
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| entry.path.as_str())
    }

    /// Copies the files below `to`, which exists: 0755 or 0644 by their exec bit, owned by the
    /// caller, with `mtime` (seconds since 1970). A file that is no longer what was hashed is an
    /// error, for the layer's key would lie.
    pub fn stage(&self, folder: &Path, to: &Path, mtime: i64) -> Result<(), Error> {
        for entry in &self.entries {
            let staged = to.join(&entry.path);
            match &entry.node {
                Node::Folder => fs::create_dir(&staged).at("create the folder", &staged)?,
                Node::Link { target } => symlink(target, &staged).at("create the link", &staged)?,
                Node::File { sha256, exec, .. } => {
                    let source = folder.join(&entry.path);
                    if copy(&source, &staged)? != *sha256 {
                        return Err(Error::Changed { path: source });
                    }
                    chmod(&staged, if *exec { 0o755 } else { 0o644 })?;
                }
            }
        }
        // Folders last, children first: what is put into them changes their time.
        for entry in self.entries.iter().rev() {
            let staged = to.join(&entry.path);
            if entry.node == Node::Folder {
                chmod(&staged, 0o755)?;
            }
            set_time(&staged, mtime)?;
        }
        chmod(to, 0o755)?;
        set_time(to, mtime)
    }
}

fn chmod(path: &Path, mode: u32) -> Result<(), Error> {
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode)).at("set the mode of", path)?)
}

fn set_time(path: &Path, seconds: i64) -> Result<(), Error> {
    use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
        .at("set the time of", path)?)
}

fn ignored(name: &str) -> bool {
    LEFT_BEHIND.contains(&name) || ENDINGS_LEFT_BEHIND.iter().any(|end| name.ends_with(end))
}

/// Returns what a path in the folder is, or what is wrong with it.
fn node(folder: &Path, inner: &str) -> Result<Node, String> {
    let path = folder.join(inner);
    let told = |error: io::Error| format!("cannot be read: {error}");
    let metadata = fs::symlink_metadata(&path).map_err(told)?;
    let kind = metadata.file_type();
    if kind.is_dir() {
        Ok(Node::Folder)
    } else if kind.is_symlink() {
        let target = fs::read_link(&path).map_err(told)?;
        let target = target.to_str().ok_or("points to a name that is no UTF-8")?.to_owned();
        let end = resolve(inner, &target)
            .ok_or_else(|| format!("is a link to `{target}`, outside the recipe's folder"))?;
        // By name alone is not enough: a link on the way may lead out.
        let real = |path: &Path| fs::canonicalize(path);
        match (real(folder), real(&folder.join(&end))) {
            (Ok(home), Ok(end)) if end.starts_with(&home) => Ok(Node::Link { target }),
            (Ok(_), Ok(_)) => Err(format!("is a link to `{target}`, outside the recipe's folder")),
            _ => Err(format!("is a link to `{target}`, which isn't there")),
        }
    } else if kind.is_file() {
        let (sha256, size) = hash(&path).map_err(told)?;
        // The owner's bit alone, as git keeps it: the others follow the umask.
        Ok(Node::File { sha256, size, exec: metadata.mode() & 0o100 != 0 })
    } else {
        Err("is neither a file nor a folder nor a link".to_owned())
    }
}

/// Returns the path in the folder that a link at `path` points to, by name.
fn resolve(path: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&OsStr> = Path::new(path).parent()?.iter().collect();
    for component in Path::new(target).components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                parts.pop()?;
            }
            Component::Normal(name) => parts.push(name),
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    let joined = parts.iter().map(|part| part.as_bytes()).collect::<Vec<_>>().join(&b'/');
    String::from_utf8(joined).ok()
}

fn open(path: &Path) -> io::Result<fs::File> {
    let flags = rustix::fs::OFlags::NOFOLLOW.union(rustix::fs::OFlags::NONBLOCK).bits();
    fs::File::options().read(true).custom_flags(flags.cast_signed()).open(path)
}

fn hash(path: &Path) -> io::Result<(Digest, u64)> {
    through(&mut open(path)?, &mut io::sink())
}

fn copy(from: &Path, to: &Path) -> Result<Digest, Error> {
    let mut source = open(from).at("open", from)?;
    let mut staged = fs::File::create_new(to).at("create", to)?;
    let (digest, _) = through(&mut source, &mut staged).at("copy", from)?;
    Ok(digest)
}

/// Passes bytes on and returns what they hash to, and how many there were.
fn through(source: &mut impl Read, sink: &mut impl Write) -> io::Result<(Digest, u64)> {
    let mut hasher = Hasher::new();
    let mut size = 0;
    let mut buffer = vec![0; 64 << 10];
    loop {
        match source.read(&mut buffer) {
            Ok(0) => return Ok((hasher.finish(), size)),
            Ok(count) => {
                hasher.update(&buffer[..count]);
                sink.write_all(&buffer[..count])?;
                size += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(folder: &Path) -> (Files, Vec<String>) {
        let problems = Problems::new();
        let files = Files::of_folder(folder, &problems);
        let told = match problems.finish(Some(())) {
            Ok(()) => Vec::new(),
            Err(error) => error.problems().iter().map(|p| p.message.clone()).collect(),
        };
        (files, told)
    }

    #[test]
    fn bytes_and_exec_bit_count_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path();
        fs::create_dir(folder.join("conf")).unwrap();
        fs::write(folder.join("conf/b"), "b").unwrap();
        fs::write(folder.join("a.sh"), "a").unwrap();
        fs::write(folder.join("layer.toml"), "").unwrap();
        symlink("a.sh", folder.join("link")).unwrap();
        let (first, told) = read(folder);
        assert_eq!(told, [""; 0]);
        let paths: Vec<&str> = first.paths().collect();
        assert_eq!(paths, ["a.sh", "conf", "conf/b", "link"]);
        assert!(matches!(first.get("link"), Some(Node::File { .. })));

        let chmod = |mode| {
            fs::set_permissions(folder.join("a.sh"), fs::Permissions::from_mode(mode)).unwrap();
        };
        chmod(0o600);
        fs::write(folder.join("layer.toml"), "about = 'x'").unwrap();
        fs::write(folder.join("a.sh~"), "x").unwrap();
        fs::create_dir(folder.join(".git")).unwrap();
        set_time(&folder.join("a.sh"), 12).unwrap();
        assert_eq!(read(folder).0, first);
        chmod(0o700);
        let executable = read(folder).0;
        assert_ne!(executable, first);
        chmod(0o777);
        assert_eq!(read(folder).0, executable);
        fs::write(folder.join("conf/b"), "c").unwrap();
        assert_ne!(read(folder).0, executable);
    }

    #[test]
    fn links_stay_inside() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("r");
        fs::create_dir_all(folder.join("sub")).unwrap();
        fs::write(dir.path().join("secret"), "x").unwrap();
        fs::write(folder.join("in"), "x").unwrap();
        symlink("../in", folder.join("sub/good")).unwrap();
        symlink("/etc/passwd", folder.join("absolute")).unwrap();
        symlink("../secret", folder.join("out")).unwrap();
        symlink("nowhere", folder.join("dangling")).unwrap();
        let (files, told) = read(&folder);
        assert_eq!(files.paths().collect::<Vec<_>>(), ["in", "sub", "sub/good"]);
        assert_eq!(
            told,
            [
                "is a link to `/etc/passwd`, outside the recipe's folder",
                "is a link to `nowhere`, which isn't there",
                "is a link to `../secret`, outside the recipe's folder",
            ]
        );
    }

    #[test]
    fn staging_gives_one_form_and_notices_a_change() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("r");
        fs::create_dir_all(folder.join("sub")).unwrap();
        fs::write(folder.join("sub/a"), "x").unwrap();
        fs::set_permissions(folder.join("sub/a"), fs::Permissions::from_mode(0o700)).unwrap();
        symlink("sub/a", folder.join("l")).unwrap();
        let (files, _) = read(&folder);
        let to = dir.path().join("to");
        fs::create_dir(&to).unwrap();
        files.stage(&folder, &to, 86_400).unwrap();
        for (path, mode) in [("sub", 0o40755), ("sub/a", 0o100_755), ("", 0o40755)] {
            let metadata = fs::symlink_metadata(to.join(path)).unwrap();
            assert_eq!((metadata.mode(), metadata.mtime()), (mode, 86_400), "{path}");
        }
        assert_eq!(fs::symlink_metadata(to.join("l")).unwrap().mtime(), 86_400);
        fs::write(folder.join("sub/a"), "y").unwrap();
        let again = dir.path().join("again");
        fs::create_dir(&again).unwrap();
        assert!(matches!(files.stage(&folder, &again, 0), Err(Error::Changed { .. })));
    }
}
