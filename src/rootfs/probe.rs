//! Does an overlay work in this folder? A mount that succeeds proves nothing: on a file system
//! without user extended attributes it does, and then removing a folder fails. So the whole cycle
//! is tried, in the very place.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{Gid, Mode, OFlags, Uid, XattrFlags};

use crate::rootfs::{Error, overlay, remove, stack};

/// Why an overlay, or a foreign owner, can't be used in a folder.
#[derive(Debug, thiserror::Error)]
#[error("{what} ({file_system})")]
pub struct Why {
    what: &'static str,
    file_system: String,
    hint: &'static str,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Why {
    /// Returns what the user can do about it.
    pub fn hint(&self) -> &'static str {
        self.hint
    }
}

/// Tries overlay's whole cycle with the upper folder in `dir`, first over a layer beside it, then over
/// one in `layers`; leaves nothing behind.
pub fn probe_overlay(dir: &Path, layers: &Path) -> Result<(), Why> {
    let device = |path| fs::metadata(path).map(|found| found.dev()).ok();
    cycle(dir, None)?;
    if device(dir) == device(layers) {
        return Ok(());
    }
    let mut over = Ok(());
    with_folder(layers, OVERLAY_HINT, &mut |lower| {
        over = cycle(dir, Some(lower));
        Ok(())
    })?;
    over.map_err(|why| Why {
        file_system: format!("{} over {}", why.file_system, file_system(layers)),
        hint: "choose a folder on a local disk (ext4, xfs, btrfs) with --store",
        ..why
    })
}

/// Tells whether a plain tree in `dir` would be as an overlay is. `by_inode` is whether owners are kept
/// beside it.
pub fn probe_plain(dir: &Path, by_inode: bool) -> Result<(), Why> {
    let system = file_system(dir);
    let flags = rustix::fs::statvfs(dir).map(|stat| stat.f_flag);
    let refused = |what, hint| Err(Why { what, file_system: system.clone(), hint, source: None });
    if by_inode && system == "fuse" {
        return refused(
            "files there have no numbers that last, by which their owners could be kept",
            "choose a folder on a local disk with --scratch",
        );
    }
    // The supervisor of one id looks after these bits itself.
    if !by_inode && flags.is_ok_and(|flags| flags.contains(rustix::fs::StatVfsMountFlags::NOSUID)) {
        return refused(
            "set-user-ID programs, as `su`, don't work there: it is mounted nosuid",
            "choose a folder on another file system with --scratch, or build with --mode=single",
        );
    }
    Ok(())
}

/// Tells whether copies in `to` of files in `from` can share their blocks.
pub fn probe_reflink(from: &Path, to: &Path) -> bool {
    let mut shared = false;
    let tried = with_folder(from, "", &mut |from| {
        with_folder(to, "", &mut |to| {
            let failed = |source: io::Error| ("files can't be created there", Some(source.into()));
            let (one, other) = (from.join("one"), to.join("other"));
            fs::write(&one, [1; 8192]).map_err(failed)?;
            let one = fs::File::open(&one).map_err(failed)?;
            let other = fs::File::create(&other).map_err(failed)?;
            shared = rustix::fs::ioctl_ficlone(&other, &one).is_ok();
            Ok(())
        })
        .map_err(|why| (why.what, why.source))
    });
    tried.is_ok() && shared
}

const OVERLAY_HINT: &str =
    "choose a folder on a local disk (ext4, xfs, btrfs) or in memory with --scratch";

/// Tries the cycle in `dir`, over a layer in the folder `lower` or in its own.
fn cycle(dir: &Path, lower: Option<&Path>) -> Result<(), Why> {
    with_folder(dir, OVERLAY_HINT, &mut |probe| {
        let failed = |what| move |source: io::Error| (what, Some(source.into()));
        let stacking = |what| move |source: Error| (what, Some(source.into()));
        let plain = "files can't be created there";
        let lower = lower.unwrap_or(probe).join("lower");
        let [upper, work, merged] = ["upper", "work", "merged"].map(|n| probe.join(n));
        for folder in [&lower, &lower.join("d"), &upper, &work, &merged] {
            fs::create_dir(folder).map_err(failed(plain))?;
        }
        for file in ["d/x", "gone", "moved"] {
            fs::write(lower.join(file), file).map_err(failed(plain))?;
        }
        let attribute = "user.ocibuild.probe";
        rustix::fs::setxattr(&upper, attribute, b"1", XattrFlags::empty())
            .map_err(|errno| failed("it keeps no user extended attributes")(errno.into()))?;
        let mut mounted = overlay::overlay(
            "an overlay to try",
            std::slice::from_ref(&lower),
            Some((&upper, &work)),
            &merged,
        )
        .map_err(stacking("the kernel mounts no overlay there"))?;
        let cycle = || -> io::Result<()> {
            fs::remove_dir_all(merged.join("d"))?;
            fs::create_dir(merged.join("d"))?;
            fs::remove_file(merged.join("gone"))?;
            fs::rename(merged.join("moved"), merged.join("d/renamed"))?;
            fs::write(merged.join("d/renamed"), "written")?;
            fs::create_dir(merged.join("new"))
        };
        cycle().map_err(failed("an overlay mounts there, but can't be written"))?;
        let opaque = stack::is_opaque(&upper.join("d"))
            .map_err(stacking("overlay's marks can't be read there"))?;
        let whiteout = fs::symlink_metadata(upper.join("gone"))
            .is_ok_and(|seen| seen.file_type().is_char_device() && seen.rdev() == 0);
        let renamed = fs::read(merged.join("d/renamed")).is_ok_and(|bytes| bytes == b"written");
        if !(opaque && whiteout && renamed) {
            return Err(("an overlay mounts there, but loses what is removed", None));
        }
        mounted.unmount().map_err(stacking("an overlay can't be unmounted there"))
    })
}

/// Tries whether files in `dir` can be given to ids that the namespace maps; network file systems
/// often refuse.
pub fn probe_owners(dir: &Path) -> Result<(), Why> {
    let hint = "choose a folder on a local disk with --store; network file systems often refuse \
                files of subordinate ids";
    let failed =
        |source: io::Error| ("files can't be given to another user there", Some(source.into()));
    let keeps = |file: &fs::File| {
        let (uid, gid) = (Uid::from_raw(65534), Gid::from_raw(65534));
        rustix::fs::fchown(file, Some(uid), Some(gid)).map_err(|errno| failed(errno.into()))?;
        let seen = file.metadata().map_err(failed)?;
        match (seen.uid(), seen.gid()) {
            (65534, 65534) => Ok(()),
            _ => Err(("files there don't keep the owner they are given", None)),
        }
    };
    // Without a name nothing is left of it, however this process ends; network file systems have no
    // such files.
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    match rustix::fs::open(dir, flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) => keeps(&file.into()).map_err(|failure| why(dir, hint, failure)),
        Err(_) => with_folder(dir, hint, &mut |probe| {
            keeps(&fs::File::create(probe.join("owned")).map_err(failed)?)
        }),
    }
}

type Failure = (&'static str, Option<Box<dyn std::error::Error + Send + Sync>>);

/// Tries something in a folder of its own below `dir`.
fn with_folder(
    dir: &Path,
    hint: &'static str,
    attempt: &mut dyn FnMut(&Path) -> Result<(), Failure>,
) -> Result<(), Why> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let probe: PathBuf = dir.join(format!(".probe-{}-{number}", std::process::id()));
    let result = fs::create_dir(&probe)
        .map_err(|source| ("folders can't be created there", Some(source.into())))
        .and_then(|()| attempt(&probe));
    remove::remove_tree(&probe).ok();
    result.map_err(|failure| why(dir, hint, failure))
}

fn why(dir: &Path, hint: &'static str, (what, source): Failure) -> Why {
    Why { what, file_system: file_system(dir), hint, source }
}

/// Tells whether a folder lies on a file system that other machines serve, or a program does: trees
/// there are slow. What can't be told is none.
pub fn is_network(dir: &Path) -> bool {
    let network = ["nfs", "lustre", "gpfs", "cifs", "9p", "fuse", "ceph", "beegfs", "afs"];
    network.contains(&file_system(dir).as_str())
}

/// Names the file system that a folder lies on.
fn file_system(dir: &Path) -> String {
    let Ok(stat) = rustix::fs::statfs(dir) else { return "unknown file system".to_owned() };
    let name = match stat.f_type & 0xffff_ffff {
        0xef53 => "ext4",
        0x5846_5342 => "xfs",
        0x9123_683e => "btrfs",
        0x0102_1994 => "tmpfs",
        0x8584_58f6 => "ramfs",
        0x794c_7630 => "overlay",
        0x6969 => "nfs",
        0x0bd0_0bd0 => "lustre",
        0x6573_5546 => "fuse",
        0x2fc1_2fc1 => "zfs",
        0x4750_4653 => "gpfs",
        0xff53_4d42 | 0xfe53_4d42 => "cifs",
        0x0102_1997 => "9p",
        0x00c3_6400 => "ceph",
        0x1983_0326 => "beegfs",
        0x5346_414f | 0x6b41_4653 => "afs",
        other => return format!("file system {other:#x}"),
    };
    name.to_owned()
}
