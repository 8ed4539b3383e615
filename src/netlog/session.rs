//! A recorder at work: one for a layer, with a session for each step.

use std::fs::File;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio::task;

use super::ask::Ask;
use super::serve::{self, Guest};
use super::shared::{Shared, lock};
use super::vouch;
use super::{Authority, Doors, Error, Options, Record};
use crate::http::{self, Url};
use crate::oci::Digest;

/// How many redirects the builder's own fetches follow.
const MOST_REDIRECTS: usize = 10;

/// The recorder of one layer.
pub struct Netlog {
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Netlog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Netlog").field("authority", &self.shared.authority).finish_non_exhaustive()
    }
}

/// A body that the builder fetched itself.
#[derive(Debug)]
pub struct Fetched {
    /// The body, from its start; `None` when there is nothing in it.
    pub file: Option<File>,
    /// Its digest.
    pub digest: Digest,
    /// Its size.
    pub size: u64,
}

/// One step's doors, served until it ends.
#[must_use = "a session is served as long as it lives"]
pub struct Session {
    guest: Guest,
    tasks: Vec<task::JoinHandle<()>>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("step", &self.guest.step).finish_non_exhaustive()
    }
}

impl Netlog {
    /// Makes a recorder and starts its thread.
    pub fn new(options: Options) -> Result<Netlog, Error> {
        let start = |source| Error::Start { source };
        let runtime = Builder::new_current_thread().enable_all().build().map_err(start)?;
        let shared = Shared::new(options, runtime.handle().clone());
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new()
            .name("netlog".to_owned())
            .spawn(move || {
                // Ends when told to, and when the recorder is gone without a word.
                runtime.block_on(stopped).ok();
                runtime.shutdown_background();
            })
            .map_err(start)?;
        Ok(Netlog { shared, stop: Some(stop), thread: Some(thread) })
    }

    /// Returns the authority that signs here.
    pub fn authority(&self) -> &Arc<Authority> {
        &self.shared.authority
    }

    /// Tells whether all answers were recorded before.
    pub fn is_replay(&self) -> bool {
        self.shared.replay.is_some()
    }

    /// Serves a step's sockets; `step` is its name in what is noted.
    pub fn serve(&self, doors: Doors, step: &str) -> Result<Session, Error> {
        let guest = Guest { shared: Arc::clone(&self.shared), step: step.into() };
        let _context = self.shared.handle.enter();
        let tasks = serve::open(&guest, doors).map_err(|source| Error::Start { source })?;
        Ok(Session { guest, tasks })
    }

    /// Fetches a URL for the builder itself, as a step would: recorded or replayed, redirects
    /// followed. `declared` is the digest that the recipe gives; it vouches for the body where it is
    /// the same, which is the caller's to check.
    pub fn fetch(
        &self,
        url: &str,
        step: &str,
        declared: Option<&Digest>,
    ) -> Result<Fetched, Error> {
        let unreadable = || Error::Fetch {
            url: url.chars().take(300).collect(),
            source: http::Cause::from("it is no http or https URL".to_owned()),
        };
        let parsed = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let mut next = parsed.ok_or_else(unreadable)?;
        let step: Arc<str> = step.into();
        for _ in 0..=MOST_REDIRECTS {
            let ask = Ask::own(next);
            let kept = self.shared.kept(&ask, &step)?;
            let shown = || ask.shown.text.clone();
            if let Some(location) = kept.head.location.as_ref().filter(|_| kept.head.is_redirect())
            {
                let target = ask.url.join(location).ok();
                next = target
                    .filter(|to| to.scheme() == "https" || ask.url.scheme() == "http")
                    .ok_or_else(|| Error::Fetch {
                        url: shown(),
                        source: http::Cause::from("it redirects out of https".to_owned()),
                    })?;
                continue;
            }
            if kept.head.status != 200 {
                return Err(Error::Status { url: shown(), status: kept.head.status });
            }
            if declared == Some(&kept.digest) {
                lock(&self.shared.declared).insert(kept.digest);
            }
            let file =
                self.shared.open(&kept).map_err(|source| Error::Body { url: shown(), source })?;
            return Ok(Fetched { file, digest: kept.digest, size: kept.size });
        }
        Err(Error::Fetch {
            url: super::secret::shown(&Url::parse(url).map_err(|_| unreadable())?).text,
            source: http::Cause::from("it redirects too often".to_owned()),
        })
    }

    /// Returns what all steps of the layer asked so far: this is what a lock holds, since whether
    /// answers differed shows only over the whole layer.
    /// Here each body has its class, which takes a pass over the indexes among them.
    pub fn record(&self) -> Record {
        let mut record = self.shared.record(None);
        if self.shared.replay.is_none() {
            let declared = lock(&self.shared.declared).clone();
            vouch::classify(&mut record.fetches, &*self.shared.bodies, &declared);
        }
        record
    }
}

impl Drop for Netlog {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

impl Session {
    /// Ends it: closes the doors, waits for the transfers that are under way, so that what is
    /// recorded does not depend on how soon a client hung up, and returns what this step did.
    pub fn end(mut self) -> Record {
        let shared = Arc::clone(&self.guest.shared);
        let tasks = std::mem::take(&mut self.tasks);
        for task in &tasks {
            task.abort();
        }
        shared.handle.block_on(async {
            for task in tasks {
                // Cancelled, which is what was asked for.
                task.await.ok();
            }
            let flights = lock(&shared.log).flights_of(&self.guest.step);
            for flight in flights {
                flight.finish().await;
            }
        });
        shared.note_other_protocols(&self.guest.step);
        shared.record(Some(&self.guest.step))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}
