//! Times of a layer: whatever the run wrote has the source date, and nothing is later than it.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT, utimensat};

use super::Times;
use crate::changes::Change;
use crate::disk::At;
use crate::layer::Error;

/// Sets the times of the changed paths in place, and returns how many had to be set.
///
/// A time between the run's start and end is the clock's, and becomes the source date, so a clock
/// that is slow or fast does not matter; of all others those after the source date are clamped to
/// it. Fractions of a second go, since a layer holds none.
pub(super) fn clamp(merged: &Path, changes: &[&Change], times: &Times) -> Result<u64, Error> {
    let mut count = 0;
    for change in changes {
        let path = merged.join(OsStr::from_bytes(&change.path));
        let metadata = match std::fs::symlink_metadata(&path) {
            Ok(metadata) => metadata,
            // A rule has removed it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(crate::disk::Error::new("look at", path, error).into()),
        };
        let found = metadata.mtime();
        let wanted = times.settled(found);
        if wanted == found && metadata.mtime_nsec() == 0 {
            continue;
        }
        set(&path, wanted, 0)?;
        count += 1;
    }
    Ok(count)
}

/// Sets the modification time of a path, which may be a symbolic link.
pub(super) fn set(path: &Path, seconds: i64, nanoseconds: i64) -> Result<(), Error> {
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: nanoseconds },
    };
    Ok(utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(io::Error::from)
        .at("set the time of", path)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::changes::Kind;

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
        let changes: Vec<&Change> = changes.iter().collect();
        assert_eq!(clamp(dir.path(), &changes, &times).unwrap(), 4);
        for (name, _, expected) in cases {
            let metadata = std::fs::metadata(dir.path().join(name)).unwrap();
            assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (expected, 0), "{name}");
        }
        assert_eq!(clamp(dir.path(), &changes, &times).unwrap(), 0, "a second run changes nothing");
    }
}
