//! Times of a layer: whatever the run wrote has the source date, and nothing is later than it.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT, utimensat};

use super::Times;
use crate::changes::{Change, Kind};
use crate::disk::At;
use crate::layer::Error;

/// Sets the times of the changed paths in place, and returns how many had to be set.
///
/// A time at or after the run's start is the run's own, whatever a step says it is: so a clock that
/// is slow or fast does not matter. Of older ones those after the source date are clamped to it.
/// Fractions of a second go, since a layer holds none.
pub(super) fn clamp(merged: &Path, changes: &[Change], times: &Times) -> Result<u64, Error> {
    let mut count = 0;
    for change in changes.iter().filter(|change| change.kind == Kind::Present) {
        let path = merged.join(OsStr::from_bytes(&change.path));
        let metadata = std::fs::symlink_metadata(&path).at("look at", &path)?;
        let found = metadata.mtime();
        let wanted =
            if found >= times.start { times.source_date } else { found.min(times.source_date) };
        if wanted == found && metadata.mtime_nsec() == 0 {
            continue;
        }
        let set = Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
            last_modification: Timespec { tv_sec: wanted, tv_nsec: 0 },
        };
        utimensat(CWD, &path, &set, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(io::Error::from)
            .at("set the time of", &path)?;
        count += u64::from(wanted != found);
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_the_run_become_the_source_date() {
        let dir = tempfile::tempdir().unwrap();
        let set = |name: &str, seconds: i64| {
            let path = dir.path().join(name);
            std::fs::write(&path, name).unwrap();
            let time = Timespec { tv_sec: seconds, tv_nsec: 5 };
            let both = Timestamps { last_access: time, last_modification: time };
            utimensat(CWD, &path, &both, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        };
        let cases =
            [("old", 100, 100), ("later", 250, 200), ("run", 1000, 200), ("future", 9000, 200)];
        for (name, seconds, _) in cases {
            set(name, seconds);
        }
        let changes: Vec<Change> = cases
            .iter()
            .map(|(name, ..)| Change { path: name.as_bytes().to_vec(), kind: Kind::Present })
            .collect();
        let times = Times { start: 1000, end: 1001, source_date: 200 };
        assert_eq!(clamp(dir.path(), &changes, &times).unwrap(), 3);
        for (name, _, expected) in cases {
            let metadata = std::fs::metadata(dir.path().join(name)).unwrap();
            assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (expected, 0), "{name}");
        }
        assert_eq!(clamp(dir.path(), &changes, &times).unwrap(), 0, "a second run changes nothing");
    }
}
