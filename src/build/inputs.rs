//! What steps fetch, kept in the store: each body a blob, once. A body becomes durable and visible
//! behind the step's back, since a build has many hundreds and each takes the disk its time.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::netlog::{Bodies, BodyWriter};
use crate::oci::Digest;
use crate::store::{self, BlobWriter, Staged, Store};

/// How many bodies may wait for the disk. Each holds a file open.
const QUEUE: usize = 64;

/// The bodies of a store.
#[derive(Debug)]
pub(super) struct Inputs {
    shared: Arc<Shared>,
    /// Taken by `drop`.
    queue: Option<SyncSender<Staged>>,
    publisher: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    store: Store,
    state: Mutex<State>,
    done: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// What is whole and not yet visible: how many times, and its file.
    waiting: BTreeMap<Digest, (usize, File)>,
    failed: Option<store::Error>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, staged: Staged) {
        let digest = staged.digest();
        let outcome = staged.publish();
        let mut state = self.lock();
        if let Some((count, _)) = state.waiting.get_mut(&digest) {
            *count -= 1;
            if *count == 0 {
                state.waiting.remove(&digest);
            }
        }
        if let Err(error) = outcome {
            state.failed.get_or_insert(error);
        }
        self.done.notify_all();
    }
}

impl Inputs {
    /// Keeps bodies in a store.
    pub(super) fn new(store: &Store) -> Inputs {
        let (queue, staged) = mpsc::sync_channel::<Staged>(QUEUE);
        let shared = Arc::new(Shared {
            store: store.clone(),
            state: Mutex::default(),
            done: Condvar::new(),
        });
        let publisher = {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || staged.iter().for_each(|one| shared.publish(one)))
        };
        Inputs { shared, queue: Some(queue), publisher: Some(publisher) }
    }

    /// Waits until everything that was written so far is in the store.
    pub(super) fn settle(&self) -> Result<(), store::Error> {
        let mut state = self.shared.lock();
        while !state.waiting.is_empty() {
            state = self.shared.done.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.failed.take().map_or(Ok(()), Err)
    }
}

impl Drop for Inputs {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(publisher) = self.publisher.take() {
            publisher.join().ok();
        }
    }
}

impl Bodies for Inputs {
    fn open(&self, digest: &Digest) -> io::Result<Option<File>> {
        // An own place in the file, where a copy of the descriptor would share one.
        if let Some((_, file)) = self.shared.lock().waiting.get(digest) {
            return store::reopen(file).map(Some);
        }
        match File::open(self.shared.store.blob_path(digest)) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn discard(&self, digest: &Digest) -> io::Result<()> {
        self.shared.store.discard(digest).map_err(io::Error::other)
    }

    fn begin(&self) -> io::Result<Box<dyn BodyWriter>> {
        let writer = self.shared.store.writer().map_err(io::Error::other)?;
        let queue = self.queue.clone().ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(Box::new(Input { writer, queue, shared: Arc::clone(&self.shared) }))
    }
}

struct Input {
    writer: BlobWriter,
    queue: SyncSender<Staged>,
    shared: Arc<Shared>,
}

impl Write for Input {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

impl BodyWriter for Input {
    fn reader(&self) -> io::Result<File> {
        self.writer.reader()
    }

    fn commit(self: Box<Self>) -> io::Result<(Digest, u64)> {
        let reader = self.writer.reader()?;
        let staged = self.writer.finish(None).map_err(io::Error::other)?;
        let (digest, size) = (staged.digest(), staged.size());
        self.shared.lock().waiting.entry(digest).or_insert((0, reader)).0 += 1;
        self.queue.send(staged).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok((digest, size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn a_body_can_be_read_from_the_moment_that_it_is_whole_and_is_kept_once() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let inputs = Inputs::new(&store);
        for _ in 0..3 {
            let mut writer = inputs.begin().unwrap();
            writer.write_all(b"a body").unwrap();
            let (digest, size) = writer.commit().unwrap();
            assert_eq!((digest, size), (Digest::of(b"a body"), 6));
            let mut text = String::new();
            inputs.open(&digest).unwrap().unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, "a body");
        }
        inputs.begin().unwrap().write_all(b"cut").unwrap();
        inputs.settle().unwrap();
        assert_eq!(crate::disk::list(&dir.path().join("blobs/sha256")).unwrap().len(), 1);
        assert!(inputs.open(&Digest::of(b"cut")).unwrap().is_none());
    }
}
