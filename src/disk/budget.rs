//! How much is on disk, and how much may be: an account for each writer, on one budget for all.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::list;

/// Returns the bytes that a tree takes on its disk, without what is mounted in it; a hard-linked file
/// counts once for each name's share. What cannot be looked at counts for nothing.
pub fn usage(path: &Path) -> u64 {
    fs::symlink_metadata(path).map_or(0, |metadata| usage_on(metadata.dev(), path, &metadata))
}

fn usage_on(device: u64, path: &Path, metadata: &fs::Metadata) -> u64 {
    if metadata.dev() != device {
        return 0;
    }
    let bytes = metadata.blocks() * 512;
    if !metadata.is_dir() {
        return bytes / metadata.nlink().max(1);
    }
    let names = list(path).unwrap_or_default();
    let below = names.iter().map(|name| {
        let path = path.join(name);
        fs::symlink_metadata(&path).map_or(0, |metadata| usage_on(device, &path, &metadata))
    });
    bytes + below.sum::<u64>()
}

/// Bytes that may be on disk, shared by all that write them.
#[derive(Debug)]
pub struct Budget {
    most: u64,
    used: AtomicU64,
}

/// A write beyond the budget.
#[derive(Debug, thiserror::Error)]
#[error("all of the {most} bytes that were allowed are taken")]
struct Spent {
    most: u64,
}

impl Budget {
    /// Makes one of `most` bytes, of which `used` are taken.
    pub fn new(most: u64, used: u64) -> Arc<Budget> {
        Arc::new(Budget { most, used: AtomicU64::new(used) })
    }

    /// Returns what is left.
    pub fn left(&self) -> u64 {
        self.most.saturating_sub(self.used.load(Ordering::Relaxed))
    }

    /// Begins the account of one writer.
    pub fn charge(self: &Arc<Budget>) -> Charge {
        Charge { budget: Arc::clone(self), taken: AtomicU64::new(0) }
    }

    fn spent(&self) -> io::Error {
        io::Error::new(io::ErrorKind::QuotaExceeded, Spent { most: self.most })
    }
}

/// What one writer has taken of a budget; given back when it is dropped, unless it was kept.
#[derive(Debug)]
pub struct Charge {
    budget: Arc<Budget>,
    taken: AtomicU64,
}

impl Charge {
    /// Takes bytes that are about to be written; with fewer left nothing is taken.
    pub fn take(&self, bytes: u64) -> io::Result<()> {
        let Budget { most, used } = &*self.budget;
        let more = |used: u64| used.checked_add(bytes).filter(|sum| sum <= most);
        used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .map_err(|_| self.budget.spent())?;
        self.taken.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Has exactly so many bytes taken, which are on disk by now; fails when that is too much.
    pub fn set(&self, bytes: u64) -> io::Result<()> {
        let before = self.taken.swap(bytes, Ordering::Relaxed);
        let used = &self.budget.used;
        let now = if bytes >= before {
            used.fetch_add(bytes - before, Ordering::Relaxed) + (bytes - before)
        } else {
            used.fetch_sub(before - bytes, Ordering::Relaxed) - (before - bytes)
        };
        if now > self.budget.most { Err(self.budget.spent()) } else { Ok(()) }
    }

    /// Ends the account: so many bytes stay on disk.
    pub fn keep(self, bytes: u64) {
        // They are there, whatever the budget says.
        self.set(bytes).ok();
        self.taken.store(0, Ordering::Relaxed);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(*self.taken.get_mut(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_shared_and_what_is_given_up_comes_back() {
        let budget = Budget::new(100, 40);
        let (one, other) = (budget.charge(), budget.charge());
        one.take(30).unwrap();
        other.take(20).unwrap();
        let error = other.take(11).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::QuotaExceeded);
        assert!(error.to_string().contains("100 bytes"), "{error}");
        assert_eq!(budget.left(), 10);
        other.keep(15);
        drop(one);
        assert_eq!(budget.left(), 45);
        let third = budget.charge();
        third.set(45).unwrap();
        assert!(third.set(46).is_err());
        third.set(5).unwrap();
        assert_eq!(budget.left(), 40);
    }
}
