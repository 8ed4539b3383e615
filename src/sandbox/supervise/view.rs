//! From where the files of a tree are looked at: by a thread that answers its step, or by the build.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Gid, Mode, Uid};

use super::kernel::Status;

/// From where a file is looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'v> {
    /// What leads to this process's descriptors.
    pub(super) own: &'static str,
    /// Where the tree's root is, or the folder below it that is `within`.
    pub(super) root: &'v Path,
    /// Which folder of the tree a process has for its root; empty for the tree's own root.
    pub(super) within: &'v [u8],
    /// The mount that the tree is seen through.
    pub(super) mount: u64,
}

/// The path of an open file in the tree.
pub(super) fn path_in(view: View<'_>, fd: BorrowedFd<'_>) -> Option<Vec<u8>> {
    let path = format!("{}/fd/{}", view.own, fd.as_raw_fd());
    below(view, &rustix::fs::readlinkat(CWD, path, Vec::new()).ok()?.into_bytes())
}

/// A path of the tree, from one that begins at the view's root.
pub(super) fn below(view: View<'_>, path: &[u8]) -> Option<Vec<u8>> {
    let root = view.root.as_os_str().as_bytes();
    let root = root.strip_suffix(b"/").unwrap_or(root);
    let rest = path.strip_prefix(root)?;
    let rest = if rest.is_empty() { rest } else { rest.strip_prefix(b"/")? };
    let parts = [view.within, rest];
    Some(parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(&b'/'))
}

/// Has overlay copy a file up, by giving it the mode that it has; a symlink, the owner.
pub(super) fn copy_up(view: View<'_>, fd: BorrowedFd<'_>, status: &Status) -> io::Result<()> {
    let mode = u32::from(status.stx_mode);
    if mode & libc::S_IFMT == libc::S_IFLNK {
        let owner = (Uid::from_raw(status.stx_uid), Gid::from_raw(status.stx_gid));
        rustix::fs::chownat(fd, "", Some(owner.0), Some(owner.1), AtFlags::EMPTY_PATH)?;
    } else {
        let path = format!("{}/fd/{}", view.own, fd.as_raw_fd());
        rustix::fs::chmodat(CWD, path, Mode::from_raw_mode(mode & 0o7777), AtFlags::empty())?;
    }
    Ok(())
}
