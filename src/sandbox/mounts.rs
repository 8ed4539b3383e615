//! The mounts of a step. All are made by root of the build's user namespace, before the step's own
//! is entered, and are locked for the step.
//!
//! Each mount is made apart and then moved to a place that was opened within the tree
//! (`RESOLVE_IN_ROOT`), so that no symlink of an image leads out of it.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
};

use crate::sandbox::spec::{Access, Network, Spec, What};
use crate::sandbox::sys;
use crate::sandbox::wire::Failure;

/// Devices of the machine that a step may use.
const DEVICES: &[&str] = &["null", "zero", "full", "random", "urandom", "tty"];

const LINKS: &[(&str, &str)] = &[
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// What tells of the machine or reaches into it, and isn't there for a step.
const MASKED: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// What a step may read and not write. Root of the machine is root in the step's eyes where all ids
/// are mapped, and the kernel asks for no capability to write some of these.
const READ_ONLY: &[&str] =
    &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

const NO_SUID_DEV: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);
const NO_SUID_DEV_EXEC: MountFlags = NO_SUID_DEV.union(MountFlags::NOEXEC);

/// Mounts everything and makes the tree this process' root.
pub(super) fn make_tree(spec: &Spec) -> Result<(), Failure> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).map_err(Failure::setup("detach the mounts"))?;
    // Only a mount can become a root.
    rustix::mount::mount_bind_recursive(&spec.root, &spec.root)
        .map_err(Failure::setup(format!("mount the tree {}", spec.root.display())))?;
    let tree = Tree::open(&spec.root)?;
    processes(&tree)?;
    devices(&tree)?;
    system(&tree, spec.network)?;
    for mount in &spec.mounts {
        attach(&tree, &mount.target, &mount.what)?;
    }
    let into = Failure::setup::<Errno>;
    rustix::process::fchdir(&tree.root).map_err(into("enter the tree"))?;
    rustix::process::pivot_root(".", ".").map_err(into("make the tree the root"))?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).map_err(into("leave the old root"))?;
    rustix::process::chdir("/").map_err(into("enter the tree"))
}

/// Makes one mount of the spec.
fn attach(tree: &Tree, target: &Path, what: &What) -> Result<(), Failure> {
    match what {
        What::Bind { source, access } => {
            let what = || format!("mount {} at `{}`", source.display(), target.display());
            let mount = copy(source).map_err(Failure::setup(what()))?;
            let stat = rustix::fs::fstat(&mount).map_err(Failure::setup(what()))?;
            let kind = if stat.st_mode & libc::S_IFMT == libc::S_IFDIR {
                Kind::Folder(0o755)
            } else {
                Kind::File
            };
            let place = tree.place(target, kind)?;
            put(&mount, &place, *access).map_err(Failure::setup(what()))
        }
        What::Memory { mode, bytes } => {
            let place = tree.place(target, Kind::Folder(*mode))?;
            let size = bytes.map(|bytes| format!(",size={bytes}")).unwrap_or_default();
            let options = format!("mode={mode:o},nr_inodes=0{size}");
            new("tmpfs", &place, NO_SUID_DEV, &options)
                .map_err(Failure::setup(format!("mount memory at `{}`", target.display())))
        }
        What::Folder { mode } => tree.place(target, Kind::Folder(*mode)).map(drop),
    }
}

/// `/proc` of the step's own process namespace.
fn processes(tree: &Tree) -> Result<(), Failure> {
    let place = tree.place(Path::new("/proc"), Kind::Folder(0o555))?;
    let fresh = new("proc", &place, NO_SUID_DEV_EXEC, "");
    fresh
        .or_else(|errno| match errno {
            // Where /proc is masked, as in a container, the kernel gives nobody a whole one.
            Errno::PERM => {
                let mount = copy(Path::new("/proc"))?;
                put(&mount, &place, Access::ReadWrite)
            }
            other => Err(other),
        })
        .map_err(Failure::setup("mount /proc"))?;
    for path in READ_ONLY {
        let Some(there) = tree.find(Path::new(path)) else { continue };
        copy_of(&there)
            .and_then(|mount| put(&mount, &there, Access::ReadOnly))
            .map_err(Failure::setup(format!("make {path} read-only")))?;
    }
    mask(tree, "/proc/")
}

/// `/sys`: of the step's own network where it has one, or else the machine's; or an empty folder
/// where neither is possible.
fn system(tree: &Tree, network: Network) -> Result<(), Failure> {
    let place = tree.place(Path::new("/sys"), Kind::Folder(0o555))?;
    let flags = NO_SUID_DEV_EXEC | MountFlags::RDONLY;
    if network == Network::Host || new("sysfs", &place, flags, "").is_err() {
        copy(Path::new("/sys")).and_then(|mount| put(&mount, &place, Access::ReadOnly)).ok();
    }
    mask(tree, "/sys/")
}

/// Hides what of [`MASKED`] lies below a folder.
fn mask(tree: &Tree, below: &str) -> Result<(), Failure> {
    for path in MASKED.iter().filter(|path| path.starts_with(below)) {
        let Some(there) = tree.find(Path::new(path)) else { continue };
        let stat = rustix::fs::fstat(&there).map_err(Failure::setup(format!("look at {path}")))?;
        let hidden = if stat.st_mode & libc::S_IFMT == libc::S_IFDIR {
            new("tmpfs", &there, NO_SUID_DEV_EXEC | MountFlags::RDONLY, "mode=555,size=4k")
        } else {
            copy(Path::new("/dev/null")).and_then(|mount| put(&mount, &there, Access::ReadOnly))
        };
        hidden.map_err(Failure::setup(format!("mask {path}")))?;
    }
    Ok(())
}

/// `/dev`: the harmless devices, terminals of the step's own and shared memory.
fn devices(tree: &Tree) -> Result<(), Failure> {
    let place = tree.place(Path::new("/dev"), Kind::Folder(0o755))?;
    new("tmpfs", &place, MountFlags::NOSUID | MountFlags::NOEXEC, "mode=755,size=65536k")
        .map_err(Failure::setup("mount /dev"))?;
    for name in DEVICES {
        let source = Path::new("/dev").join(name);
        let Ok(mount) = copy(&source) else { continue };
        let place = tree.place(&source, Kind::File)?;
        put(&mount, &place, Access::ReadWrite)
            .map_err(Failure::setup(format!("mount /dev/{name}")))?;
    }
    let dev = tree.place(Path::new("/dev"), Kind::Folder(0o755))?;
    for (name, target) in LINKS {
        rustix::fs::symlinkat(*target, &dev, *name)
            .map_err(Failure::setup(format!("create /dev/{name}")))?;
    }
    let place = tree.place(Path::new("/dev/pts"), Kind::Folder(0o755))?;
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    let options = "newinstance,ptmxmode=0666,mode=0620";
    // Group 5 is `tty` wherever it matters; it isn't there where one id is mapped alone.
    new("devpts", &place, flags, &format!("{options},gid=5"))
        .or_else(|_| new("devpts", &place, flags, options))
        .map_err(Failure::setup("mount /dev/pts"))?;
    let place = tree.place(Path::new("/dev/shm"), Kind::Folder(0o1777))?;
    new("tmpfs", &place, NO_SUID_DEV, "mode=1777").map_err(Failure::setup("mount /dev/shm"))
}

/// Mounts a new file system on a place.
fn new(kind: &str, place: &OwnedFd, flags: MountFlags, options: &str) -> Result<(), Errno> {
    let options = CString::new(options).map_err(|_| Errno::INVAL)?;
    let options: Option<&CStr> = (!options.is_empty()).then_some(&options);
    rustix::mount::mount(kind, path_of(place), kind, flags, options)
}

/// Copies what is mounted at a path of the machine, with all below it, to be put elsewhere.
fn copy(source: &Path) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    rustix::mount::open_tree(CWD, source, flags)
}

fn copy_of(place: &OwnedFd) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_EMPTY_PATH;
    rustix::mount::open_tree(place, "", flags)
}

/// Puts a copied mount on a place.
fn put(mount: &OwnedFd, place: &OwnedFd, access: Access) -> Result<(), Errno> {
    let attributes = match access {
        Access::ReadOnly => sys::make_read_only(mount.as_fd()),
        Access::ReadWrite => Ok(()),
    };
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount, "", place, "", flags)?;
    match attributes {
        Ok(()) => Ok(()),
        // Before Linux 5.12 a mount is remounted where it is, and those below it are not reached.
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
            let stat = rustix::fs::fstatvfs(mount)?;
            let kept =
                MountFlags::from_bits_truncate(u32::try_from(stat.f_flag.bits()).unwrap_or(0));
            let flags = kept | MountFlags::BIND | MountFlags::RDONLY;
            rustix::mount::mount_remount(path_of(mount), flags, c"")
        }
        Err(error) => Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
    }
}

/// A path that means what a descriptor means.
fn path_of(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// What a mount needs as its place.
#[derive(Clone, Copy)]
enum Kind {
    File,
    /// A folder, made with this mode where it is missing.
    Folder(u32),
}

/// The tree, from outside.
struct Tree {
    root: OwnedFd,
    /// The mount of the tree itself, in which nothing may be created.
    mount: u64,
}

impl Tree {
    fn open(root: &Path) -> Result<Tree, Failure> {
        let what = || Failure::setup(format!("open the tree {}", root.display()));
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(root, flags, Mode::empty()).map_err(what())?;
        let mount = mount_of(root.as_fd()).map_err(what())?;
        Ok(Tree { root, mount })
    }

    /// Opens a path as the step would see it; `None` when there is nothing.
    fn find(&self, path: &Path) -> Option<OwnedFd> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        crate::disk::open_below(&self.root, path, flags, ResolveFlags::IN_ROOT).ok()
    }

    /// Opens the place of a mount; makes it when it is missing and doesn't lie in the tree itself.
    fn place(&self, path: &Path, kind: Kind) -> Result<OwnedFd, Failure> {
        let missing = || Failure::NoMountPoint { path: path.display().to_string() };
        let names: Vec<_> = path
            .components()
            .filter_map(|component| match component {
                Component::Normal(name) => Some(name),
                _ => None,
            })
            .collect();
        if let Some(place) = self.find(path) {
            return Ok(place);
        }
        let Some((last, above)) = names.split_last() else { return Err(missing()) };
        let mut here = PathBuf::from("/");
        let mut folder = self.find(&here).ok_or_else(missing)?;
        let what = || Failure::setup(format!("create `{}`", path.display()));
        for name in above {
            here.push(name);
            if self.find(&here).is_none() {
                self.check(&folder).ok_or_else(missing)?;
                rustix::fs::mkdirat(&folder, *name, Mode::from_raw_mode(0o755)).map_err(what())?;
            }
            folder = self.find(&here).ok_or_else(missing)?;
        }
        self.check(&folder).ok_or_else(missing)?;
        match kind {
            Kind::Folder(mode) => {
                rustix::fs::mkdirat(&folder, *last, Mode::from_raw_mode(mode)).map_err(what())?;
            }
            Kind::File => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                rustix::fs::openat(&folder, *last, flags, Mode::from_raw_mode(0o644))
                    .map_err(what())?;
            }
        }
        self.find(path).ok_or_else(missing)
    }

    /// Tells that something may be created in a folder.
    fn check(&self, folder: &OwnedFd) -> Option<()> {
        (mount_of(folder.as_fd()).ok()? != self.mount).then_some(())
    }
}

/// Returns the number of the mount that something lies on.
fn mount_of(fd: BorrowedFd<'_>) -> Result<u64, Errno> {
    let seen = rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
    Ok(seen.stx_mnt_id)
}
