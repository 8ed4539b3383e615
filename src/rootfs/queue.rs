//! Work on the folders of a tree by several threads: each job may bring others.

use std::sync::{Condvar, Mutex, PoisonError};

struct State<J, E> {
    jobs: Vec<J>,
    /// Jobs that are being done.
    busy: usize,
    failed: Option<E>,
}

/// Does all jobs and those that they bring, in no order, and returns the first error. `work` gets a
/// job and what takes further ones.
pub fn in_parallel<J: Send, E: Send>(
    first: Vec<J>,
    work: impl Fn(J, &mut Vec<J>) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let state = Mutex::new(State { jobs: first, busy: 0, failed: None });
    let changed = Condvar::new();
    let lock = || state.lock().unwrap_or_else(PoisonError::into_inner);
    let run = || {
        let mut more = Vec::new();
        let mut held = lock();
        loop {
            if held.failed.is_some() || (held.jobs.is_empty() && held.busy == 0) {
                break;
            }
            let Some(job) = held.jobs.pop() else {
                held = changed.wait(held).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            held.busy += 1;
            drop(held);
            let result = work(job, &mut more);
            held = lock();
            held.busy -= 1;
            held.jobs.append(&mut more);
            if let Err(error) = result {
                held.failed.get_or_insert(error);
            }
            changed.notify_all();
        }
        drop(held);
        changed.notify_all();
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(8);
        for _ in 1..threads {
            scope.spawn(run);
        }
        run();
    });
    let failed = state.into_inner().unwrap_or_else(PoisonError::into_inner).failed;
    failed.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn all_jobs_are_done_and_an_error_ends_them() {
        let done = AtomicU32::new(0);
        let work = |depth: u32, more: &mut Vec<u32>| {
            done.fetch_add(1, Ordering::Relaxed);
            if depth < 8 {
                more.extend([depth + 1, depth + 1]);
            }
            Ok::<(), u32>(())
        };
        in_parallel(vec![0], work).unwrap();
        assert_eq!(done.load(Ordering::Relaxed), 511);
        let fail = |job: u32, _: &mut Vec<u32>| if job == 3 { Err(job) } else { Ok(()) };
        assert_eq!(in_parallel((0..9).collect(), fail), Err(3));
    }
}
