//! Times of a layer: whatever the run wrote has the source date, and nothing is later than it.

use super::Times;
use super::tree::Tree;
use crate::layer::Error;

/// Sets the time of a changed path in place; tells whether it had to be set.
///
/// A time between the run's start and end is the clock's, and becomes the source date, so a clock
/// that is slow or fast does not matter; of all others those after the source date are clamped to
/// it. Fractions of a second go, since a layer holds none.
pub(super) fn clamp(tree: &Tree, path: &[u8], times: &Times) -> Result<bool, Error> {
    let Some(place) = tree.place(path)? else { return Ok(false) };
    let Some(stat) = place.stat()? else { return Ok(false) };
    let wanted = times.settled(stat.st_mtime);
    if wanted == stat.st_mtime && stat.st_mtime_nsec == 0 {
        return Ok(false);
    }
    place.set_time(wanted)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;

    use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

    use super::*;

    fn date(path: &Path, seconds: i64) {
        let time = Timespec { tv_sec: seconds, tv_nsec: 5 };
        let both = Timestamps { last_access: time, last_modification: time };
        utimensat(CWD, path, &both, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }

    #[test]
    fn times_of_the_run_become_the_source_date() {
        let dir = tempfile::tempdir().unwrap();
        let cases =
            [("old", 100, 100), ("later", 250, 200), ("run", 1000, 200), ("future", 9000, 200)];
        let mut changes = Vec::new();
        // A file, a dangling link and a folder of each.
        for (name, seconds, expected) in cases {
            for kind in ["file", "link", "folder"] {
                let path = dir.path().join(format!("{name}-{kind}"));
                match kind {
                    "file" => std::fs::write(&path, name).unwrap(),
                    "link" => std::os::unix::fs::symlink("nowhere", &path).unwrap(),
                    _ => std::fs::create_dir(&path).unwrap(),
                }
                date(&path, seconds);
                changes.push((format!("{name}-{kind}"), path, expected));
            }
        }
        let times = Times { start: 1000, end: 1001, source_date: 200 };
        let tree = Tree::open(dir.path()).unwrap();
        let clamped = || {
            let set = |name: &str| clamp(&tree, name.as_bytes(), &times).unwrap();
            changes.iter().filter(|(name, ..)| set(name)).count()
        };
        assert_eq!(clamped(), 12);
        for (_, path, expected) in &changes {
            let metadata = std::fs::symlink_metadata(path).unwrap();
            assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (*expected, 0), "{path:?}");
        }
        assert_eq!(clamped(), 0, "a second run changes nothing");
    }
}
