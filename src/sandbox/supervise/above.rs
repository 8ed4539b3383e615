//! The numbers that a file of an overlay has: the one that the tree shows, and that of the upper
//! folder, under which its record is.

#![expect(clippy::disallowed_types, reason = "asked at every stat of a step, and never listed")]

use std::collections::HashMap;
use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::Ordering;

use super::identity::{Entry, Key};
use super::kernel::{self, Status};
use super::owners::Ownership;
use super::view::{View, path_in};

/// Returns the entry of a number, and the number that it is under, if another.
pub(super) fn follow(entries: &HashMap<Key, Entry>, key: Key) -> Option<(Key, &Entry)> {
    let entry = entries.get(&key)?;
    let above = entry.above.and_then(|above| Some((above, entries.get(&above)?)));
    Some(above.filter(|(_, it)| it.identity == entry.identity).unwrap_or((key, entry)))
}

impl Ownership {
    /// Tells whether a file without a record under its number may have one by another of its links.
    pub(super) fn may_have_links(&self, status: &Status) -> bool {
        let is_folder = u32::from(status.stx_mode) & libc::S_IFMT == libc::S_IFDIR;
        self.upper.is_some()
            && status.stx_nlink > 1
            && !is_folder
            && self.has_entries.load(Ordering::Acquire)
    }

    /// The number that a file of the overlay has in the upper folder.
    pub(super) fn key_above(
        &self,
        view: View<'_>,
        fd: BorrowedFd<'_>,
        status: &Status,
    ) -> Option<Key> {
        let upper = self.upper.as_ref()?;
        if status.stx_mnt_id != view.mount {
            return None;
        }
        let path = path_in(view, fd)?;
        let own = format!("{}/fd/{}/", view.own, upper.as_raw_fd());
        let path = CString::new([own.as_bytes(), &path].concat()).ok()?;
        let flags = libc::AT_SYMLINK_NOFOLLOW;
        let above = kernel::statx(libc::AT_FDCWD, &path, flags, libc::STATX_INO).ok()?;
        Some((self.device, above.stx_ino))
    }
}
