//! Programs of other architectures: what runs them here, and making it run them.
//!
//! Since Linux 6.7 a user namespace may have a `binfmt_misc` of its own, in which the build
//! registers a static qemu that it finds on the machine: no set-up by root, and nobody else sees
//! it. With the flag `F` the kernel opens the emulator once and for all, so nothing of it is put
//! into a tree. It lives as long as the file system is held open, which here is a descriptor and
//! no mount. A step's own user namespace lies below and is looked up through to ours; the step
//! reaches no file of it, and what it mounts itself is for its own namespace.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags};

use crate::disk;
use crate::oci::Platform;
use crate::sandbox::examine::Lack;
use crate::sandbox::{Error, enter, wire};

/// An architecture that images are made for.
struct Architecture {
    /// Go's name.
    name: &'static str,
    /// qemu's name.
    emulator: &'static str,
    /// The class of its ELF files: 1 of 32 bits, 2 of 64.
    class: u8,
    /// Their byte order: 1 little, 2 big.
    order: u8,
    /// Their machine.
    machine: u16,
}

#[rustfmt::skip]
const ARCHITECTURES: &[Architecture] = &[
    Architecture { name: "386", emulator: "i386", class: 1, order: 1, machine: 3 },
    Architecture { name: "amd64", emulator: "x86_64", class: 2, order: 1, machine: 62 },
    Architecture { name: "arm", emulator: "arm", class: 1, order: 1, machine: 40 },
    Architecture { name: "arm64", emulator: "aarch64", class: 2, order: 1, machine: 183 },
    Architecture { name: "loong64", emulator: "loongarch64", class: 2, order: 1, machine: 258 },
    Architecture { name: "ppc64le", emulator: "ppc64le", class: 2, order: 1, machine: 21 },
    Architecture { name: "riscv64", emulator: "riscv64", class: 2, order: 1, machine: 243 },
    Architecture { name: "s390x", emulator: "s390x", class: 2, order: 2, machine: 22 },
];

/// Looked through after `PATH`.
const PLACES: [&str; 2] = ["/usr/local/bin", "/usr/bin"];

/// Where the machine's own registrations are seen.
const MACHINE: &str = "/proc/sys/fs/binfmt_misc";

/// How the kernel is to start the emulator: with the name that the program was called by (`P`),
/// which qemu understands since 6.0; with the program opened for it (`O`) and with the rights of a
/// set-uid program (`C`), or else `sudo` would have none; from the file opened now (`F`).
const FLAGS: &str = "OCPF";
const OLDEST: u32 = 6;

/// What runs the programs of a platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Means {
    /// The processor.
    Processor,
    /// This emulator, registered for this build alone.
    Emulator(PathBuf),
    /// What the administrator has registered under this name.
    Registered(String),
}

impl fmt::Display for Means {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Means::Processor => f.write_str("this processor"),
            Means::Emulator(path) => write!(f, "{}, for the build alone", path.display()),
            Means::Registered(name) => write!(f, "the machine's registration `{name}`"),
        }
    }
}

/// A platform, and what runs its programs or why nothing does.
#[derive(Clone, Debug)]
pub struct Emulation {
    /// The platform.
    pub platform: Platform,
    /// What runs its programs.
    pub means: Result<Means, Lack>,
}

/// Tells for each architecture that an image can be for what runs its programs. To be called inside
/// of [`crate::sandbox::enter()`]; `path` is the caller's `PATH`.
pub fn emulations(path: &str) -> Vec<Emulation> {
    let platforms = ARCHITECTURES.iter().map(|one| Platform::linux(one.name));
    platforms.map(|platform| Emulation { means: provide(&platform, path), platform }).collect()
}

/// Makes the steps of this build able to run a platform's programs, and tells by what means. To be
/// called inside of [`crate::sandbox::enter()`]; `path` is the caller's `PATH`, where emulators are
/// looked for first.
pub fn provide(platform: &Platform, path: &str) -> Result<Means, Lack> {
    if is_native(platform, std::env::consts::ARCH) {
        return Ok(Means::Processor);
    }
    let Some(architecture) = ARCHITECTURES.iter().find(|one| one.name == platform.architecture)
    else {
        let text = format!("nothing is known of the architecture `{}`", platform.architecture);
        return Err(Lack::new(text, "build it on a machine of that kind"));
    };
    let own = find(architecture.emulator, path).and_then(|emulator| {
        register(architecture, &emulator)?;
        Ok(Means::Emulator(emulator))
    });
    own.or_else(|lack| match registered(architecture) {
        // The namespace's registrations hide the machine's.
        Some(name) if !has_own() => Ok(Means::Registered(name)),
        _ => Err(lack),
    })
}

/// Tells whether a machine's own processor runs a platform's programs. A variant is not asked
/// after: most programs for the newer one run on the older.
fn is_native(platform: &Platform, machine: &str) -> bool {
    let machine = Platform::linux(machine);
    platform.architecture == machine.architecture
        || (machine.architecture == "amd64" && platform.architecture == "386")
}

/// Looks for a static qemu.
fn find(emulator: &str, path: &str) -> Result<PathBuf, Lack> {
    let (plain, explicit) = (format!("qemu-{emulator}"), format!("qemu-{emulator}-static"));
    let mut seen = None;
    for folder in path.split(':').filter(|folder| folder.starts_with('/')).chain(PLACES) {
        for name in [&explicit, &plain] {
            let file = Path::new(folder).join(name);
            match check(&file) {
                Ok(()) => return Ok(file),
                Err(Some(why)) => {
                    seen.get_or_insert(format!("{} {why}", file.display()));
                }
                Err(None) => {}
            }
        }
    }
    let text = seen.unwrap_or_else(|| format!("there is no {explicit} here"));
    let fix = format!(
        "install qemu-user-static, or put a static {plain} of version {OLDEST} or newer into a folder \
         of PATH; or have the administrator register it for the whole machine with the flag F \
         (Debian's package does; for others, `docker run --privileged tonistiigi/binfmt --install all`)"
    );
    Err(Lack::new(text, fix))
}

/// Tells why a file is no emulator that can be used; `None` when there is no file.
fn check(file: &Path) -> Result<(), Option<String>> {
    let mode = file.metadata().map_err(|_| None)?.permissions().mode();
    let mut head = Vec::new();
    let read = File::open(file).and_then(|file| file.take(4096).read_to_end(&mut head));
    match (read, is_static(&head)) {
        (Err(error), _) => return Err(Some(format!("cannot be read: {error}"))),
        _ if mode & 0o111 == 0 => return Err(Some("is not executable".to_owned())),
        (_, None) => return Err(Some("is no program".to_owned())),
        (_, Some(false)) => return Err(Some("is not a static program".to_owned())),
        (_, Some(true)) => {}
    }
    let output = Command::new(file).arg("--version").env_clear().stdin(Stdio::null()).output();
    let output = output.map_err(|error| Some(format!("cannot be run: {error}")))?;
    match version(&String::from_utf8_lossy(&output.stdout)) {
        Some(major) if major >= OLDEST => Ok(()),
        Some(major) => Err(Some(format!("is of version {major}, older than {OLDEST}"))),
        None => Err(Some("does not tell its version as qemu does".to_owned())),
    }
}

/// Reads the first number of `qemu-aarch64 version 7.2.22 (…)`.
fn version(text: &str) -> Option<u32> {
    let rest = text.split_once(" version ")?.1;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Tells of an ELF file of 64 bits whether it does without an interpreter; `None` when it is none.
fn is_static(head: &[u8]) -> Option<bool> {
    const INTERPRETER: u32 = 3;
    let field = |at: usize, length: usize| {
        let bytes = head.get(at..at + length)?;
        let number = |sum: u64, byte: &u8| (sum << 8) | u64::from(*byte);
        Some(match head.get(5)? {
            1 => bytes.iter().rev().fold(0, number),
            _ => bytes.iter().fold(0, number),
        })
    };
    if head.get(..5)? != b"\x7fELF\x02" {
        return None;
    }
    let (table, size, count) = (field(0x20, 8)?, field(0x36, 2)?, field(0x38, 2)?);
    for entry in 0..count {
        let at = usize::try_from(table.checked_add(entry * size)?).ok()?;
        if field(at, 4)? == u64::from(INTERPRETER) {
            return Some(false);
        }
    }
    Some(true)
}

/// The `binfmt_misc` of the build's user namespace.
struct Own {
    /// What keeps it.
    root: OwnedFd,
    names: BTreeSet<&'static str>,
}

static OWN: Mutex<Option<Own>> = Mutex::new(None);

fn has_own() -> bool {
    OWN.lock().unwrap_or_else(PoisonError::into_inner).is_some()
}

/// Registers an emulator for the build's user namespace, once.
fn register(architecture: &Architecture, emulator: &Path) -> Result<(), Lack> {
    let refused = |what: &str, error: &io::Error| {
        let errno = wire::errno_of(error);
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        let text = match errno {
            libc::EPERM => format!(
                "{} is here, but this kernel ({release}) lets only the administrator have programs \
                 emulated; others may since Linux 6.7",
                emulator.display()
            ),
            libc::ENODEV => "this kernel has no binfmt_misc".to_owned(),
            _ => format!("the kernel refused to {what} {}: {error}", emulator.display()),
        };
        let fix = match errno {
            libc::ENODEV => "have the administrator run `modprobe binfmt_misc`".to_owned(),
            _ => format!(
                "have the administrator register {} for the whole machine with the flag F, as \
                 installing qemu-user-static does (`systemctl restart systemd-binfmt`)",
                emulator.display()
            ),
        };
        Lack::new(text, fix)
    };
    if enter::entered().is_none() {
        // Elsewhere it could be the machine's own that is written to.
        return Err(refused("register", &io::Error::from_raw_os_error(libc::EPERM)));
    }
    let mut own = OWN.lock().unwrap_or_else(PoisonError::into_inner);
    if own.as_ref().is_some_and(|own| own.names.contains(architecture.name)) {
        return Ok(());
    }
    let Some(line) = line(architecture, emulator) else {
        return Err(refused("register", &io::Error::from_raw_os_error(libc::EINVAL)));
    };
    let Own { root, mut names } = match own.take() {
        Some(own) => own,
        None => Own {
            root: open().map_err(|error| refused("be told of", &error))?,
            names: BTreeSet::new(),
        },
    };
    let result =
        rustix::fs::openat(&root, "register", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(io::Error::from)
            .and_then(|file| File::from(file).write_all(&line));
    if result.is_ok() {
        names.insert(architecture.name);
    }
    *own = Some(Own { root, names });
    result.map_err(|error| refused("register", &error))
}

/// Makes the file system, which no path leads to.
fn open() -> io::Result<OwnedFd> {
    let context = rustix::mount::fsopen("binfmt_misc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_create(&context)?;
    let flags = FsMountFlags::FSMOUNT_CLOEXEC;
    Ok(rustix::mount::fsmount(&context, flags, MountAttrFlags::empty())?)
}

/// Puts what this build has registered where a mount namespace shows it, so that it outlives this
/// process in the program that it becomes.
pub fn keep_emulators() -> Result<(), Error> {
    let own = OWN.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(own) = own.as_ref() else { return Ok(()) };
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(&own.root, "", CWD, MACHINE, flags).map_err(|errno| Error::Setup {
        what: format!("mount the emulators at {MACHINE}"),
        source: errno.into(),
    })
}

/// What is written to register an emulator; `None` when its path can't be said.
fn line(architecture: &Architecture, emulator: &Path) -> Option<Vec<u8>> {
    let path = emulator.as_os_str().as_bytes();
    let delimiter = b":,;|!%".iter().copied().find(|byte| !path.contains(byte))?;
    let escaped =
        |bytes: &[u8]| bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect::<String>();
    let (magic, mask) = header(architecture);
    let name = format!("ocibuild-{}", architecture.name);
    let (magic, mask) = (escaped(&magic), escaped(&mask));
    let fields: [&[u8]; 8] = [
        b"",
        name.as_bytes(),
        b"M",
        b"",
        magic.as_bytes(),
        mask.as_bytes(),
        path,
        FLAGS.as_bytes(),
    ];
    Some(fields.join(&delimiter))
}

/// The first bytes of a program, and which of their bits tell what it is: both kinds of programs,
/// fixed in their place or not, of whatever system's conventions.
fn header(architecture: &Architecture) -> ([u8; 20], [u8; 20]) {
    let mut magic = [0; 20];
    magic[..4].copy_from_slice(b"\x7fELF");
    magic[4..7].copy_from_slice(&[architecture.class, architecture.order, 1]);
    let two = |number: u16| match architecture.order {
        1 => number.to_le_bytes(),
        _ => number.to_be_bytes(),
    };
    magic[16..18].copy_from_slice(&two(2));
    magic[18..].copy_from_slice(&two(architecture.machine));
    let mut mask = [0xff; 20];
    mask[7..16].fill(0);
    mask[16..18].copy_from_slice(&two(0xfffe));
    (magic, mask)
}

/// Looks for what the administrator has registered for an architecture, with the flag that makes it
/// work inside of a tree; returns its name.
fn registered(architecture: &Architecture) -> Option<String> {
    let read = |name: &Path| {
        let bytes = disk::read(&Path::new(MACHINE).join(name), 64 << 10).ok()?;
        String::from_utf8(bytes).ok()
    };
    if read(Path::new("status"))?.trim() != "enabled" {
        return None;
    }
    let (program, _) = header(architecture);
    disk::list(Path::new(MACHINE)).ok()?.into_iter().find_map(|name| {
        let entry = read(Path::new(&name))?;
        is_for(&entry, &program).then(|| name.to_string_lossy().into_owned())
    })
}

/// Tells whether an entry, as the kernel shows it, runs a program inside of any tree.
fn is_for(entry: &str, program: &[u8]) -> bool {
    let field = |name: &str| entry.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let bytes = |name: &str| {
        let hex = field(name)?;
        let pairs = (0..hex.len()).step_by(2).map(|at| hex.get(at..at + 2));
        pairs.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect::<Option<Vec<u8>>>()
    };
    let Some(magic) = bytes("magic ") else { return false };
    let mask = bytes("mask ").unwrap_or_else(|| vec![0xff; magic.len()]);
    let matches = |at: usize| {
        let byte = program.get(at).copied().unwrap_or(0);
        let mask = mask.get(at).copied().unwrap_or(0xff);
        (byte ^ magic[at]) & mask == 0
    };
    entry.starts_with("enabled")
        && field("flags:").is_some_and(|flags| flags.contains('F'))
        && field("offset ") == Some("0")
        && (0..magic.len()).all(matches)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str) -> &'static Architecture {
        ARCHITECTURES.iter().find(|one| one.name == name).unwrap()
    }

    #[test]
    fn a_processor_runs_its_own_programs_and_those_it_has_grown_from() {
        for (platform, machine, native) in [
            ("linux/amd64", "x86_64", true),
            ("linux/amd64/v3", "x86_64", true),
            ("linux/386", "x86_64", true),
            ("linux/arm64/v8", "aarch64", true),
            ("linux/arm64", "x86_64", false),
            ("linux/amd64", "aarch64", false),
            // Many of them can't.
            ("linux/arm/v7", "aarch64", false),
        ] {
            assert_eq!(is_native(&platform.parse().unwrap(), machine), native, "{platform}");
        }
    }

    #[test]
    fn an_emulator_is_registered_as_debian_would() {
        let line = line(of("arm64"), Path::new("/opt/a:b/qemu-aarch64")).unwrap();
        let expected = r",ocibuild-arm64,M,,\x7f\x45\x4c\x46\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00,\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00\x00\x00\x00\x00\x00\xfe\xff\xff\xff,/opt/a:b/qemu-aarch64,OCPF";
        assert_eq!(String::from_utf8(line).unwrap(), expected);
        let (magic, mask) = header(of("s390x"));
        assert_eq!(magic[16..], [0, 2, 0, 22]);
        assert_eq!(mask[16..], [0xff, 0xfe, 0xff, 0xff]);
    }

    #[test]
    fn the_machines_registration_serves_when_it_reaches_into_trees() {
        let entry = "enabled\ninterpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P\nflags: OPF\noffset 0\nmagic 7f454c460201010000000000000000000200b700\nmask ffffffffffffff00fffffffffffffffffeffffff\n";
        let (arm, amd) = (header(of("arm64")).0, header(of("amd64")).0);
        assert!(is_for(entry, &arm));
        assert!(!is_for(entry, &amd));
        assert!(!is_for(&entry.replace("OPF", "OP"), &arm));
        assert!(!is_for(&entry.replace("enabled", "disabled"), &arm));
        assert!(!is_for("enabled\ninterpreter /usr/bin/python3\nflags: F\nextension .py\n", &arm));
    }

    #[test]
    fn an_emulator_tells_its_version() {
        assert_eq!(
            version("qemu-aarch64 version 7.2.22 (Debian 1:7.2+dfsg-7)\nCopyright"),
            Some(7)
        );
        assert_eq!(version("qemu-arm version 10.0.0"), Some(10));
        assert_eq!(version("Usage: box64 FILE"), None);
    }

    #[test]
    fn a_program_that_needs_no_loader_is_static() {
        let mut head = vec![0; 64 + 2 * 56];
        head[..6].copy_from_slice(b"\x7fELF\x02\x01");
        head[0x20] = 64;
        head[0x36] = 56;
        head[0x38] = 2;
        head[64] = 1;
        assert_eq!(is_static(&head), Some(true));
        head[64 + 56] = 3;
        assert_eq!(is_static(&head), Some(false));
        assert_eq!(is_static(&head[..100]), None);
        assert_eq!(is_static(b"#!/bin/sh\nexec qemu"), None);
    }
}
