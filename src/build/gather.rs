//! What a locked layer's steps will ask for and the store lacks, brought from the repositories that
//! may have it: whoever pushed an image with its inputs left them there as blobs. What is nowhere
//! comes from its URL when a step asks for it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Error;
use crate::netlog::Fetch;
use crate::oci::{Descriptor, Digest};
use crate::report::{Report, Task, Unit};
use crate::store::Store;
use crate::transfer::Source;

/// How many bodies travel at once.
const JOBS: usize = 8;
/// After how many that it does not have a repository is left alone.
const PATIENCE: usize = 4;

/// Brings the missing bodies; a body that nobody has is no error.
pub(super) fn gather(
    fetches: &[Fetch],
    store: &Store,
    places: &[&dyn Source],
    report: &dyn Report,
) -> Result<(), Error> {
    let empty = Digest::of(b"");
    let missing: BTreeMap<Digest, u64> = fetches
        .iter()
        .filter(|fetch| fetch.digest != empty && !store.has(&fetch.digest))
        .map(|fetch| (fetch.digest, fetch.size))
        .collect();
    if missing.is_empty() || places.is_empty() {
        return Ok(());
    }
    let missing: Vec<Descriptor> = missing
        .into_iter()
        .map(|(digest, size)| Descriptor::new("application/octet-stream", digest, size))
        .collect();
    let total = missing.iter().map(|body| body.size).sum();
    let task = Task::start(report, "fetch inputs".to_owned(), Some(total), Unit::Bytes);
    let work = Work {
        store,
        misses: places.iter().map(|_| AtomicUsize::new(0)).collect(),
        places,
        task: &task,
    };
    let next = AtomicUsize::new(0);
    let found: Mutex<(BTreeSet<Digest>, Option<Error>)> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..JOBS.min(missing.len()) {
            scope.spawn(|| {
                while let Some(body) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = work.bring(body);
                    let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                    match outcome {
                        Ok(true) => {
                            found.0.insert(body.digest);
                        }
                        Ok(false) => {}
                        Err(error) => found.1 = Some(error),
                    }
                }
            });
        }
    });
    let (found, error) = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    task.finish(&format!("{} of {}", found.len(), missing.len()));
    error.map_or(Ok(()), Err)
}

struct Work<'a> {
    store: &'a Store,
    places: &'a [&'a dyn Source],
    /// What each place was asked for in vain, since it last had something.
    misses: Vec<AtomicUsize>,
    task: &'a Task<'a>,
}

impl Work<'_> {
    /// Brings one body from the first place that has it.
    fn bring(&self, body: &Descriptor) -> Result<bool, Error> {
        for (place, misses) in self.places.iter().zip(&self.misses) {
            if misses.load(Ordering::Relaxed) >= PATIENCE {
                continue;
            }
            let Ok(mut stream) = place.blob(body, 0) else {
                misses.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            let mut writer = self.store.writer()?;
            // What is cut, or is something else, leaves nothing, and the next place may do better.
            if let Ok(bytes) = io::copy(&mut stream, &mut writer)
                && writer.commit(Some((body.digest, body.size))).is_ok()
            {
                self.task.advance(bytes);
                misses.store(0, Ordering::Relaxed);
                return Ok(true);
            }
        }
        Ok(false)
    }
}
