//! A blob that is read while it is still being written: what sends it on need not wait for its end.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::oci::Digest;

/// A blob to come, as its readers see it. Copies are cheap and stand for the same blob.
#[derive(Clone, Debug)]
pub struct Growing {
    file: Arc<File>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// How many bytes are in the file.
    written: u64,
    end: End,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum End {
    #[default]
    Open,
    Whole(Digest),
    Abandoned,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    fn wait(&self, until: impl Fn(&State) -> bool) -> State {
        let mut state = self.lock();
        while !until(&state) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        *state
    }
}

/// The writer's end: the blob is abandoned when this is dropped before it is whole.
#[derive(Debug)]
pub(super) struct Grower(Arc<Shared>);

impl Grower {
    /// Makes both ends over a file that can be read.
    pub(super) fn new(file: &File, written: u64) -> io::Result<(Grower, Growing)> {
        let shared = Arc::new(Shared::default());
        shared.lock().written = written;
        let growing = Growing { file: Arc::new(file.try_clone()?), shared: Arc::clone(&shared) };
        Ok((Grower(shared), growing))
    }

    /// Tells how many bytes are in the file.
    pub(super) fn grown(&self, written: u64) {
        self.0.change(|state| state.written = written);
    }

    /// Tells that there will be no more, and what the bytes hash to.
    pub(super) fn whole(&self, digest: Digest) {
        self.0.change(|state| state.end = End::Whole(digest));
    }
}

impl Drop for Grower {
    fn drop(&mut self) {
        self.0.change(|state| {
            if state.end == End::Open {
                state.end = End::Abandoned;
            }
        });
    }
}

impl Growing {
    /// Opens the bytes from the start. The stream waits for those to come, and fails when the blob
    /// is abandoned. It verifies nothing.
    pub fn open(&self) -> impl Read + Send + 'static {
        Reader { growing: self.clone(), at: 0 }
    }

    /// Waits for the end and returns the digest; `None` when there will be no blob.
    pub fn digest(&self) -> Option<Digest> {
        match self.shared.wait(|state| state.end != End::Open).end {
            End::Whole(digest) => Some(digest),
            End::Open | End::Abandoned => None,
        }
    }
}

struct Reader {
    growing: Growing,
    at: u64,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let at = self.at;
        let state = self.growing.shared.wait(|state| state.written > at || state.end != End::Open);
        if state.end == End::Abandoned {
            return Err(io::Error::other("the blob was given up while it was written"));
        }
        let there = usize::try_from(state.written - at).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.growing.file.read_at(&mut buffer[..there], at)?;
        if read == 0 && there > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::store::Store;

    #[test]
    fn a_reader_keeps_up_with_the_writer_and_sees_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let mut writer = store.raw_writer().unwrap();
        let growing = writer.share().unwrap();
        let piece = vec![7; 300_000];
        let reader = std::thread::spawn({
            let growing = growing.clone();
            move || {
                let mut bytes = Vec::new();
                growing.open().read_to_end(&mut bytes).map(|_| bytes)
            }
        });
        for _ in 0..5 {
            writer.write_all(&piece).unwrap();
        }
        let expected = piece.repeat(5);
        let digest = Digest::of(&expected);
        writer.commit_hashed(digest, expected.len() as u64).unwrap();
        assert!(reader.join().unwrap().unwrap() == expected);
        assert_eq!(growing.digest(), Some(digest));
    }

    #[test]
    fn an_abandoned_blob_is_an_error_to_its_readers() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let mut writer = store.raw_writer().unwrap();
        let growing = writer.share().unwrap();
        writer.write_all(b"a part").unwrap();
        drop(writer);
        assert!(growing.open().read_to_end(&mut Vec::new()).is_err());
        assert_eq!(growing.digest(), None);
    }
}
