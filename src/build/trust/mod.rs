//! How a step comes to trust the recorder: by the variables of `environment`, and, for the programs
//! that heed none, by its certificate in the tree's own stores while a step runs: the first bundle
//! that there is, and Java's.
//!
//! It is taken out of all of them afterwards, certificate by certificate, since a step may have made
//! them anew of what it found, and of copies that the step made. What is left of it in a layer after
//! that is an error. A file that nobody else has written to is then what it was, its time
//! too. `JAVA_TOOL_OPTIONS` is not set: each start of Java would say so on stderr, where many a
//! script looks for the version.

mod jks;
mod pem;
mod search;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, ResolveFlags, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;

use crate::changes::{self, Changes};
use crate::disk;
use crate::netlog::Authority;

pub(super) use search::Search;

/// Where distributions keep their bundle.
const BUNDLES: [&str; 6] = [
    "etc/ssl/certs/ca-certificates.crt",
    "etc/pki/tls/certs/ca-bundle.crt",
    "etc/ssl/ca-bundle.pem",
    "etc/pki/tls/cacert.pem",
    "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "etc/ssl/cert.pem",
];
/// Where they keep Java's.
const KEYSTORES: [&str; 3] = [
    "etc/ssl/certs/java/cacerts",
    "etc/pki/ca-trust/extracted/java/cacerts",
    "opt/conda/lib/jvm/lib/security/cacerts",
];
/// Where each Java has one of its own, or a link to the distribution's.
const JAVAS: [&str; 2] = ["usr/lib/jvm", "opt/java"];
const IN_JAVA: [&str; 2] = ["lib/security/cacerts", "jre/lib/security/cacerts"];
/// The most bytes of a store.
const LIMIT: u64 = 8 << 20;

/// The recorder's certificate, as programs read it.
#[derive(Debug)]
pub(super) struct Certificate {
    pem: String,
    der: Vec<u8>,
}

/// What the names of files have in them that certificates are copied to.
const COPIES: [&str; 6] = [".pem", ".crt", ".cer", "ca-bundle", "ca-certificates", "cacerts"];

/// A store with the recorder's certificate in it.
#[derive(Debug)]
pub(super) struct Added {
    path: PathBuf,
    /// What it was.
    before: Vec<u8>,
    modified: Timespec,
    /// What it is now.
    whole: Vec<u8>,
}

#[derive(Clone, Copy)]
enum Kind {
    Bundle,
    Keystore,
}

impl Certificate {
    pub(super) fn of(authority: &Authority) -> Certificate {
        Certificate { pem: authority.certificate_pem(), der: authority.certificate_der().to_vec() }
    }

    /// Returns the certificate as PEM.
    pub(super) fn pem(&self) -> &str {
        &self.pem
    }

    /// Adds the certificate to the stores of a tree.
    pub(super) fn add(&self, tree: &Path) -> io::Result<Vec<Added>> {
        let root = open_tree(tree)?;
        let mut added = Vec::new();
        let mut bundled = false;
        for (path, kind) in places(&root) {
            let is_bundle = matches!(kind, Kind::Bundle);
            if is_bundle && bundled {
                continue;
            }
            let Some(mut file) = open(&root, &path, OFlags::RDONLY)? else { continue };
            let modified = modified(&file)?;
            let before = read(&mut file)?;
            let whole = match kind {
                Kind::Bundle => Some(pem::with(&before, &self.pem)),
                Kind::Keystore => jks::with(&before, &self.der),
            };
            let Some(whole) = whole else { continue };
            bundled |= is_bundle;
            write(&root, &path, &whole, None)?;
            added.push(Added { path, before, modified, whole });
        }
        Ok(added)
    }

    /// Takes the certificate out of all stores of a tree.
    pub(super) fn remove(&self, tree: &Path, added: &[Added]) -> io::Result<()> {
        let root = open_tree(tree)?;
        for (path, _) in places(&root) {
            self.remove_from(&root, &path, added)?;
        }
        Ok(())
    }

    /// Takes it out of the copies that steps have made of a store, too.
    pub(super) fn remove_copies(&self, tree: &Path, changes: &Changes) -> io::Result<()> {
        let root = open_tree(tree)?;
        for change in changes.iter().filter(|change| change.kind == changes::Kind::Present) {
            let name = change.path.rsplit(|byte| *byte == b'/').next().unwrap_or(&change.path);
            let name = String::from_utf8_lossy(name).to_lowercase();
            if COPIES.iter().any(|part| name.contains(part)) {
                self.remove_from(&root, Path::new(OsStr::from_bytes(&change.path)), &[])?;
            }
        }
        Ok(())
    }

    fn remove_from(&self, root: &OwnedFd, path: &Path, added: &[Added]) -> io::Result<()> {
        let Some(mut file) = open(root, path, OFlags::RDONLY)? else { return Ok(()) };
        let content = read(&mut file)?;
        let ours = added.iter().find(|one| one.path == path && one.whole == content);
        let kept = match ours {
            Some(ours) => Some(ours.before.clone()),
            None => pem::without(&content, &self.der).or_else(|| jks::without(&content, &self.der)),
        };
        let Some(kept) = kept else { return Ok(()) };
        let time = match ours {
            Some(ours) => ours.modified,
            None => modified(&file)?,
        };
        write(root, path, &kept, Some(time))
    }

    /// Begins to look for it in a layer.
    pub(super) fn search(&self) -> Arc<Search> {
        Arc::new(Search::of(&self.der))
    }
}

/// Returns the certificates of a bundle as a trust store of Java's.
pub(super) fn keystore(bundle: &[u8]) -> Vec<u8> {
    jks::store(&pem::certificates(bundle))
}

/// Lists where a tree may have stores.
fn places(root: &OwnedFd) -> Vec<(PathBuf, Kind)> {
    let mut places: Vec<(PathBuf, Kind)> =
        BUNDLES.iter().map(|path| (PathBuf::from(path), Kind::Bundle)).collect();
    places.extend(KEYSTORES.iter().map(|path| (PathBuf::from(path), Kind::Keystore)));
    for folder in JAVAS {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(open) = disk::open_below(root, Path::new(folder), flags, IN_TREE) else { continue };
        let own = PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd()));
        for name in disk::list(&own).unwrap_or_default() {
            for file in IN_JAVA {
                places.push((Path::new(folder).join(&name).join(file), Kind::Keystore));
            }
        }
    }
    places
}

const IN_TREE: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

fn open_tree(tree: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(tree, flags, Mode::empty())?)
}

/// Opens a store where the tree's links lead; `None` where there is none. Opening for writing copies
/// a file of the layers below up, and is kept for those that are written.
fn open(root: &OwnedFd, path: &Path, access: OFlags) -> io::Result<Option<File>> {
    let flags = access | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match disk::open_below(root, path, flags, IN_TREE) {
        Ok(fd) => {
            let file = File::from(fd);
            let metadata = file.metadata()?;
            Ok((metadata.is_file() && metadata.len() <= LIMIT).then_some(file))
        }
        // A dangling link, or a folder on the way that is none: such a tree has no store there.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::ISDIR | Errno::LOOP | Errno::NXIO) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn modified(file: &File) -> io::Result<Timespec> {
    let stat = rustix::fs::fstat(file)?;
    let nanoseconds = i64::try_from(stat.st_mtime_nsec).unwrap_or(0);
    Ok(Timespec { tv_sec: stat.st_mtime, tv_nsec: nanoseconds })
}

fn read(file: &mut File) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    file.take(LIMIT).read_to_end(&mut content)?;
    Ok(content)
}

/// Gives a store another content, and the time of its last change if that is told.
fn write(root: &OwnedFd, path: &Path, content: &[u8], time: Option<Timespec>) -> io::Result<()> {
    let Some(mut file) = open(root, path, OFlags::WRONLY)? else {
        return Err(io::ErrorKind::NotFound.into());
    };
    file.set_len(0)?;
    file.write_all(content)?;
    if let Some(time) = time {
        let omitted = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        let times = Timestamps { last_access: omitted, last_modification: time };
        rustix::fs::futimens(&file, &times)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, symlink};

    /// A tree with a bundle behind a link and a Java.
    fn tree(bundle: &str, keystore: &[u8]) -> (tempfile::TempDir, [PathBuf; 2]) {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["etc/pki/tls/certs", "usr/share", "usr/lib/jvm/java-8/jre/lib/security"] {
            std::fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        symlink("/usr/share/bundle", dir.path().join("etc/pki/tls/certs/ca-bundle.crt")).unwrap();
        let files = ["usr/share/bundle", "usr/lib/jvm/java-8/jre/lib/security/cacerts"]
            .map(|path| dir.path().join(path));
        std::fs::write(&files[0], bundle).unwrap();
        std::fs::write(&files[1], keystore).unwrap();
        (dir, files)
    }

    fn certificate() -> Certificate {
        Certificate::of(&Authority::new().unwrap())
    }

    #[test]
    fn stores_are_afterwards_what_they_were() {
        let [ours, other] = [certificate(), certificate()];
        let (bundle, java) = (other.pem().trim_end(), keystore(other.pem().as_bytes()));
        let (tree, files) = tree(bundle, &java);
        let state = || {
            files.each_ref().map(|path| {
                let metadata = std::fs::metadata(path).unwrap();
                (std::fs::read(path).unwrap(), metadata.mtime(), metadata.mtime_nsec())
            })
        };
        let before = state();
        let added = ours.add(tree.path()).unwrap();
        let with = std::fs::read_to_string(&files[0]).unwrap();
        assert!(with.starts_with(bundle) && with.contains(ours.pem().trim_end()), "{with}");
        let java = std::fs::read(&files[1]).unwrap();
        assert!(java.windows(ours.der.len()).any(|window| window == ours.der));
        ours.remove(tree.path(), &added).unwrap();
        assert_eq!(state(), before);
    }

    #[test]
    fn stores_that_a_step_made_anew_lose_the_certificate_alone() {
        let [ours, first, second] = [certificate(), certificate(), certificate()];
        let (tree, files) = tree(first.pem(), &keystore(first.pem().as_bytes()));
        let added = ours.add(tree.path()).unwrap();
        // In another order, and without the mark.
        let all = [first.pem(), ours.pem(), second.pem()].concat();
        std::fs::write(&files[0], &all).unwrap();
        std::fs::write(&files[1], keystore(all.as_bytes())).unwrap();
        ours.remove(tree.path(), &added).unwrap();
        let now = std::fs::read_to_string(&files[0]).unwrap();
        assert_eq!(now, [first.pem(), second.pem()].concat());
        let java = std::fs::read(&files[1]).unwrap();
        let has = |one: &Certificate| java.windows(one.der.len()).any(|window| window == one.der);
        assert_eq!([&ours, &first, &second].map(has), [false, true, true]);
        for file in &files {
            std::fs::remove_file(file).unwrap();
        }
        assert!(ours.add(tree.path()).unwrap().is_empty());
        ours.remove(tree.path(), &[]).unwrap();
    }
}
