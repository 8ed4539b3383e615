//! The overlay mounts of a build.
//!
//! Every folder is handed to the kernel as `/proc/self/fd/N`, so that no path needs escaping and
//! none is too long: the old mount call takes 4096 bytes of options in all, the new one 255 bytes
//! for each path.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, UnmountFlags,
};

use crate::disk::{self, At};
use crate::rootfs::stack::{Folder, Stack};
use crate::rootfs::{Error, Extras, Lower, extras, masks, repairs};

/// The room that the old mount call leaves for `lowerdir=`.
const OPTIONS: usize = 3900;

/// A stack of layers, mounted. Dropping it unmounts; the upper folder stays.
#[derive(Debug)]
pub struct Mounted {
    upper: PathBuf,
    merged: MountPoint,
    parent: MountPoint,
}

impl Mounted {
    /// Returns the tree to run in.
    pub fn merged(&self) -> &Path {
        &self.merged.path
    }

    /// Returns the read-only view of the layers, without extras.
    pub fn parent(&self) -> &Path {
        &self.parent.path
    }

    /// Returns the folder that takes what is changed. After [`Mounted::unmount`] it may serve as a
    /// [`Lower`] without a sidecar.
    pub fn upper(&self) -> &Path {
        &self.upper
    }

    /// Unmounts both views and returns the upper folder.
    pub fn unmount(mut self) -> Result<PathBuf, Error> {
        self.merged.unmount()?;
        self.parent.unmount()?;
        Ok(std::mem::take(&mut self.upper))
    }
}

/// Something mounted on a folder, for as long as this lives.
#[derive(Debug)]
pub(super) struct MountPoint {
    path: PathBuf,
    mounted: bool,
}

impl MountPoint {
    pub(super) fn unmount(&mut self) -> Result<(), Error> {
        if !std::mem::take(&mut self.mounted) {
            return Ok(());
        }
        // Somebody may still look into it, from a thread or through a file held open: the mount is
        // then out of sight at once, and gone when they are done.
        rustix::mount::unmount(&self.path, UnmountFlags::NOFOLLOW)
            .or_else(|_| rustix::mount::unmount(&self.path, UnmountFlags::DETACH))
            .at("unmount", &self.path)?;
        Ok(())
    }
}

impl Drop for MountPoint {
    fn drop(&mut self) {
        // Nobody is left to tell; the mount ends with the namespace.
        self.unmount().ok();
    }
}

/// Stacks layers, from the bottom up, in the folder `space`, which is made if need be and becomes
/// the stack's own: it must hold nothing yet, and stay where it is while the stack is mounted.
///
/// A lower folder without a sidecar must be no upper folder of a live mount.
pub fn mount(lowers: &[Lower], space: &Path, extras: &Extras) -> Result<Mounted, Error> {
    let make = |name: &str| -> Result<PathBuf, Error> {
        let path = space.join(name);
        fs::create_dir(&path).at("create the folder", &path)?;
        Ok(path)
    };
    disk::make_dirs(space)?;
    let stack = Stack::new(lowers);
    let root = stack.effective(&[])?.unwrap_or(Folder::DEFAULT);

    let mut layers = Vec::new();
    for (at, lower) in lowers.iter().enumerate().rev() {
        layers.push(lower.tree.clone());
        if let Some(sidecar) = &lower.sidecar
            && !(sidecar.whiteouts.is_empty() && sidecar.opaque.is_empty())
        {
            let mask = make(&format!("mask-{at}"))?;
            masks::fill(&mask, &lower.tree, sidecar, &stack.below(at))?;
            layers.push(mask);
        }
    }
    let repaired = repairs::find(&stack, lowers)?;
    if !repaired.is_empty() {
        let dir = make("repairs")?;
        repairs::fill(&dir, &repaired)?;
        layers.insert(0, dir);
    }

    // An overlay without an upper folder, hence read-only, needs two lower ones.
    if layers.is_empty() {
        let nothing = make("nothing")?;
        root.apply(&nothing)?;
        layers.push(nothing);
    }
    let mut parent_layers = layers.clone();
    if parent_layers.len() < 2 {
        parent_layers.push(make("empty")?);
    }
    let parent_at = make("parent")?;
    let parent = overlay("the layers", &parent_layers, None, &parent_at)?;

    let extra = make("extras")?;
    if extras::fill(&extra, &parent_at, extras)? {
        root.apply(&extra)?;
        layers.insert(0, extra);
    }
    let upper = make("upper")?;
    let work = make("work")?;
    root.apply(&upper)?;
    let merged_at = make("merged")?;
    let merged = overlay("the tree", &layers, Some((&upper, &work)), &merged_at)?;
    Ok(Mounted { upper, merged, parent })
}

/// Mounts an overlay of folders, the topmost first.
pub(super) fn overlay(
    what: &'static str,
    lowers: &[PathBuf],
    upper: Option<(&Path, &Path)>,
    at: &Path,
) -> Result<MountPoint, Error> {
    let open = |path: &Path| -> Result<OwnedFd, disk::Error> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(CWD, path, flags, Mode::empty()).at("open", path)
    };
    let lowers = lowers.iter().map(|path| open(path)).collect::<Result<Vec<_>, _>>()?;
    let upper = match upper {
        Some((upper, work)) => Some((open(upper)?, open(work)?)),
        None => None,
    };
    let upper = upper.as_ref().map(|(upper, work)| (name_of(upper), name_of(work)));
    let names: Vec<String> = lowers.iter().map(name_of).collect();

    let upper = upper.as_ref();
    mount_new(&names, upper, at)
        .or_else(|refusal| match refusal.errno {
            // Kernels before 6.8 don't know `lowerdir+`, and some say so only at the end.
            Errno::NOSYS | Errno::INVAL => mount_old(&names, upper, at).map_err(|errno| {
                let errno = if refusal.said.is_empty() { errno } else { refusal.errno };
                Refusal { errno, ..refusal }
            }),
            _ => Err(refusal),
        })
        .map_err(|refusal| match refusal.errno {
            Errno::TOOBIG => Error::TooManyLayers { count: names.len() },
            errno => {
                Error::Mount { what, at: at.to_owned(), kernel: refusal.said, source: errno.into() }
            }
        })?;
    Ok(MountPoint { path: at.to_owned(), mounted: true })
}

fn name_of(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Why the kernel did not mount.
struct Refusal {
    errno: Errno,
    /// What it said in words.
    said: String,
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Refusal {
        Refusal { errno, said: String::new() }
    }
}

/// Tells whether owners are remembered by inode, as where one id alone is mapped. Then `xino` makes
/// the numbers of folders last, however many file systems the layers are on; elsewhere it would
/// only give programs of 32 bits numbers that they can't hold.
fn remembers_by_inode() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().nth(2) == Some("1")
}

/// Mounts through the calls of Linux 5.2, with `lowerdir+` of 6.8.
///
/// `volatile` spares the syncs of every copy-up and of the unmount: a build that dies is thrown
/// away whole.
fn mount_new(
    lowers: &[String],
    upper: Option<&(String, String)>,
    at: &Path,
) -> Result<(), Refusal> {
    let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let context = context.as_fd();
    let said = |errno: Errno| {
        let mut text = [0; 1024];
        let length = rustix::io::read(context, &mut text).unwrap_or(0);
        let said = String::from_utf8_lossy(&text[..length]);
        let said = said.trim().trim_start_matches("e overlay: ").to_owned();
        Refusal { errno, said }
    };
    for lower in lowers {
        // A kernel that says here that it doesn't know the name is not to be quoted.
        rustix::mount::fsconfig_set_string(context, "lowerdir+", lower.as_str())?;
    }
    rustix::mount::fsconfig_set_flag(context, "userxattr").map_err(said)?;
    if remembers_by_inode() {
        rustix::mount::fsconfig_set_string(context, "xino", "on").map_err(said)?;
    }
    if let Some((upper, work)) = upper {
        rustix::mount::fsconfig_set_string(context, "upperdir", upper.as_str()).map_err(said)?;
        rustix::mount::fsconfig_set_string(context, "workdir", work.as_str()).map_err(said)?;
        rustix::mount::fsconfig_set_flag(context, "volatile").map_err(said)?;
    }
    rustix::mount::fsconfig_create(context).map_err(said)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOATIME;
    let mount =
        rustix::mount::fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(said)?;
    let from_fd = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(rustix::mount::move_mount(mount.as_fd(), "", CWD, at, from_fd)?)
}

/// Mounts through the old call.
fn mount_old(lowers: &[String], upper: Option<&(String, String)>, at: &Path) -> Result<(), Errno> {
    let lowers = lowers.join(":");
    if lowers.len() > OPTIONS {
        return Err(Errno::TOOBIG);
    }
    let xino = if remembers_by_inode() { ",xino=on" } else { "" };
    let options = match upper {
        None => format!("userxattr{xino},lowerdir={lowers}"),
        Some((upper, work)) => {
            format!("userxattr{xino},volatile,lowerdir={lowers},upperdir={upper},workdir={work}")
        }
    };
    let options = std::ffi::CString::new(options).map_err(|_| Errno::INVAL)?;
    rustix::mount::mount("overlay", at, "overlay", MountFlags::NOATIME, options.as_c_str())
}
