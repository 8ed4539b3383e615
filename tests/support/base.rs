//! Base images for tests: a tiny one of the machine's busybox, and Debian's as `scripts/base` makes
//! it, once for all tests.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};

use super::run;

/// A root file system of a few megabytes: busybox, the tools for capabilities and extended
/// attributes, and things for a layer to change, replace and remove.
pub(crate) fn tiny() -> &'static [u8] {
    static TAR: OnceLock<Vec<u8>> = OnceLock::new();
    TAR.get_or_init(make_tiny)
}

fn make_tiny() -> Vec<u8> {
    let mut tree = Tree { tar: tar::Builder::new(Vec::new()), seen: BTreeSet::new() };
    for (folder, mode) in [
        ("bin", 0o755),
        ("dev", 0o755),
        ("etc", 0o755),
        ("home/jovyan", 0o755),
        ("lib", 0o755),
        ("proc", 0o555),
        ("root", 0o700),
        ("run", 0o755),
        ("sbin", 0o755),
        ("srv/old/below", 0o755),
        ("srv/remade", 0o755),
        ("sys", 0o555),
        ("tmp", 0o1777),
        ("usr/bin", 0o755),
        ("usr/sbin", 0o755),
        ("var/tmp", 0o1777),
    ] {
        tree.folder(folder, mode);
    }
    tree.file(
        "etc/passwd",
        0o644,
        0,
        b"root:x:0:0:root:/root:/bin/sh\njovyan:x:1000:100::/home/jovyan:/bin/sh\n",
    );
    tree.file("etc/group", 0o644, 0, b"root:x:0:\nstaff:x:50:\nusers:x:100:\n");
    tree.file("etc/os-release", 0o644, 0, b"ID=tiny\nVERSION_ID=1\nVERSION_CODENAME=small\n");
    for name in [
        "srv/kept",
        "srv/changed",
        "srv/removed",
        "srv/old/below/deep",
        "srv/remade/gone",
        "srv/remade/back",
    ] {
        tree.file(name, 0o644, 0, name.as_bytes());
    }
    tree.file("srv/of-jovyan", 0o640, 1000, b"owned");
    // Shells look for bash; busybox's is close enough for what the tests say to it.
    tree.file("bin/bash", 0o755, 0, b"#!/bin/sh\nexec /bin/sh \"$@\"\n");
    tree.program("busybox", "bin/busybox");
    // Asks for names as the C library's programs do, busybox being built without it.
    tree.program("getent", "usr/bin/getent");
    for (tool, path) in
        [("setcap", "sbin/setcap"), ("getcap", "sbin/getcap"), ("setfattr", "usr/bin/setfattr")]
    {
        tree.program(tool, path);
    }
    tree.applets();
    tree.tar.into_inner().unwrap()
}

struct Tree {
    tar: tar::Builder<Vec<u8>>,
    seen: BTreeSet<String>,
}

impl Tree {
    fn header(mode: u32, owner: u64, size: u64, kind: tar::EntryType) -> tar::Header {
        let mut header = tar::Header::new_ustar();
        header.set_mode(mode);
        header.set_uid(owner);
        header.set_gid(owner);
        header.set_mtime(1_700_000_000);
        header.set_size(size);
        header.set_entry_type(kind);
        header
    }

    fn folder(&mut self, path: &str, mode: u32) {
        let mut whole = String::new();
        for part in path.split('/') {
            whole.push_str(part);
            if self.seen.insert(whole.clone()) {
                let mode = if whole == path { mode } else { 0o755 };
                let mut header = Tree::header(mode, 0, 0, tar::EntryType::Directory);
                self.tar.append_data(&mut header, format!("{whole}/"), &[][..]).unwrap();
            }
            whole.push('/');
        }
    }

    fn file(&mut self, path: &str, mode: u32, owner: u64, content: &[u8]) {
        if let Some((folder, _)) = path.rsplit_once('/') {
            self.folder(folder, 0o755);
        }
        if self.seen.insert(path.to_owned()) {
            let size = content.len() as u64;
            let mut header = Tree::header(mode, owner, size, tar::EntryType::Regular);
            self.tar.append_data(&mut header, path, content).unwrap();
        }
    }

    fn link(&mut self, path: &str, target: &str) {
        if self.seen.insert(path.to_owned()) {
            let mut header = Tree::header(0o777, 0, 0, tar::EntryType::Symlink);
            self.tar.append_link(&mut header, path, target).unwrap();
        }
    }

    /// Adds a name for each applet of busybox.
    fn applets(&mut self) {
        let applets = run(Command::new("busybox").arg("--list")).stdout;
        for applet in String::from_utf8(applets).unwrap().lines() {
            if applet != "busybox" {
                self.link(&format!("bin/{applet}"), "busybox");
            }
        }
    }

    /// Adds a program of this machine and the libraries that it loads.
    fn program(&mut self, name: &str, path: &str) {
        let found = ["/bin", "/usr/bin", "/sbin", "/usr/sbin"]
            .iter()
            .map(|folder| Path::new(folder).join(name))
            .find(|path| path.exists())
            .unwrap_or_else(|| panic!("the tests need `{name}`; scripts/test installs it"));
        self.file(path, 0o755, 0, &std::fs::read(&found).unwrap());
        let listed = Command::new("ldd").arg(&found).output().unwrap().stdout;
        for word in String::from_utf8_lossy(&listed).split_whitespace() {
            if word.starts_with('/') && Path::new(word).is_file() {
                self.file(&word[1..], 0o755, 0, &std::fs::read(word).unwrap());
            }
        }
    }
}

/// A root file system of another architecture: its busybox, with a name for each applet.
pub(crate) fn foreign(arch: &str) -> Vec<u8> {
    let kept = cache().join(format!("busybox-{arch}"));
    if !kept.exists() {
        let dir = super::temp_dir();
        let packed = dir.path().join("packed.tar");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/base");
        run(Command::new(script).args(["--arch", arch, "--only", "busybox-static"]).arg(&packed));
        let unpack = ["-C", ".", "-xf", "packed.tar", "./bin/busybox"];
        run(Command::new("tar").args(unpack).current_dir(dir.path()));
        std::fs::copy(dir.path().join("bin/busybox"), &kept).unwrap();
    }
    let mut tree = Tree { tar: tar::Builder::new(Vec::new()), seen: BTreeSet::new() };
    for (folder, mode) in [("dev", 0o755), ("proc", 0o555), ("srv", 0o755), ("tmp", 0o1777)] {
        tree.folder(folder, mode);
    }
    tree.file("etc/passwd", 0o644, 0, b"root:x:0:0:root:/root:/bin/sh\n");
    tree.file("etc/os-release", 0o644, 0, b"ID=tiny\n");
    tree.file("bin/bash", 0o755, 0, b"#!/bin/sh\nexec /bin/sh \"$@\"\n");
    tree.file("bin/busybox", 0o755, 0, &std::fs::read(kept).unwrap());
    tree.applets();
    tree.tar.into_inner().unwrap()
}

/// What [`debian`] is, for arm64; its packages configure themselves by emulation.
pub(crate) fn debian_arm64() -> &'static Path {
    static TAR: OnceLock<PathBuf> = OnceLock::new();
    TAR.get_or_init(|| made("debian-arm64.tar", &["--arch", "arm64"]))
}

/// A tar that `scripts/base` makes, unless it is kept from an earlier run.
fn made(name: &str, options: &[&str]) -> PathBuf {
    let tar = cache().join(name);
    if !tar.exists() {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/base");
        let partial = cache().join(format!("{name}.partial"));
        let mut command = Command::new(script);
        run(command.args(options).arg(&partial).env("OCIBUILD_BIN", super::cli::binary()));
        std::fs::rename(&partial, &tar).unwrap();
    }
    tar
}

/// A program of Debian's newest packages, for what older ones don't have. Its C library is this
/// machine's.
pub(crate) fn newest(package: &str) -> PathBuf {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let kept = cache().join(package);
    if !kept.exists() {
        let dir = super::temp_dir();
        let packed = dir.path().join("packed.tar");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/base");
        run(Command::new(script).args(["--suite", "sid", "--only", package]).arg(&packed));
        let file = format!("./usr/bin/{package}");
        run(Command::new("tar").args(["-xf", "packed.tar", &file]).current_dir(dir.path()));
        std::fs::copy(dir.path().join(file), cache().join("newest.partial")).unwrap();
        std::fs::rename(cache().join("newest.partial"), &kept).unwrap();
    }
    kept
}

/// Where what is costly to make is kept from run to run.
fn cache() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-cache");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// The Debian root file system that `scripts/base` makes from the machine's own apt sources.
pub(crate) fn debian() -> &'static Path {
    static TAR: OnceLock<PathBuf> = OnceLock::new();
    TAR.get_or_init(|| made("debian.tar", &[]))
}

/// The Debian whose apt has signatures verified by sqv.
pub(crate) fn new_debian() -> &'static Path {
    static TAR: OnceLock<PathBuf> = OnceLock::new();
    TAR.get_or_init(|| made("trixie.tar", &["--suite", "trixie"]))
}

/// The oldest Debian that the mirrors still have with its updates.
pub(crate) fn old_debian() -> &'static Path {
    static TAR: OnceLock<PathBuf> = OnceLock::new();
    TAR.get_or_init(|| made("bullseye.tar", &["--suite", "bullseye"]))
}
