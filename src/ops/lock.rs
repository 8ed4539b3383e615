//! `lock diff` and `lock merge`: what is done with locks that are there.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::lock::{self, Lock};
use crate::text::Problems;
use crate::{disk, plan};

use super::Error;

/// Reads a lock that has to be there.
fn read(path: &Path) -> Result<Lock, Error> {
    let problems = Problems::new();
    let lock = lock::read(path, &problems);
    Ok(problems.finish(lock).map_err(plan::Error::from)?)
}

/// Tells what differs between an older lock and a newer one.
pub fn lock_diff(old: &Path, new: &Path) -> Result<lock::Diff, Error> {
    Ok(lock::diff(&read(old)?, &read(new)?))
}

/// What came of a merge.
#[derive(Clone, Debug, Serialize)]
pub struct MergeReport {
    /// The file that was written.
    pub file: PathBuf,
    /// The platforms in it.
    pub platforms: Vec<String>,
}

/// Puts locks of one definition, each for platforms of its own, into one file.
pub fn lock_merge(paths: &[PathBuf], output: &Path) -> Result<MergeReport, Error> {
    let locks = paths
        .iter()
        .map(|path| Ok((path.clone(), read(path)?)))
        .collect::<Result<Vec<_>, Error>>()?;
    let merged = lock::merge(&locks)?;
    write(&merged, output)?;
    let platforms = merged.platforms.into_keys().collect();
    Ok(MergeReport { file: output.to_owned(), platforms })
}

/// Writes a lock's file whole.
fn write(lock: &Lock, path: &Path) -> Result<(), Error> {
    Ok(disk::write_whole(path, lock::write(lock)?.as_bytes())?)
}
