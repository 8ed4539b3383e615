//! One transfer from upstream. Its body is kept while those who asked read it behind the writer, so
//! that neither a slow client nor one that goes away holds up or spoils what is recorded, and so that
//! many who ask for the same at once are served by one transfer.

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use super::ask::Ask;
use super::bodies::hash;
use super::head::Head;
use super::{Bodies, Method};
use crate::http::{Client, Error, Payload, Request, header};
use crate::oci::Digest;

/// A body moves in pieces of this size at most.
const PIECE: usize = 256 << 10;

/// How long a step's end waits for a body whose end is not in sight.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long it waits for an answer that nobody else waits for any more.
const SHORT_PATIENCE: Duration = Duration::from_secs(10);

/// Where a transfer stands.
#[derive(Clone, Debug)]
pub(super) enum State {
    /// Nothing came yet.
    Asked,
    /// The head is here, the body comes.
    Flowing(Flow),
    /// It is kept.
    Kept(Arc<Kept>),
    /// It did not come, or not whole; says why, without secrets.
    Failed(Arc<str>),
}

/// A body that comes.
#[derive(Clone, Debug)]
pub(super) struct Flow {
    pub(super) head: Arc<Head>,
    /// How long it is to be, where the server said so.
    pub(super) length: Option<u64>,
    /// Where it is written.
    pub(super) file: Arc<File>,
    /// How much of it is there.
    pub(super) written: u64,
    /// Whether that is all.
    pub(super) whole: bool,
}

/// An answer that is kept.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) head: Arc<Head>,
    pub(super) digest: Digest,
    pub(super) size: u64,
}

/// What the same question was answered with before.
#[derive(Clone, Debug)]
pub(super) struct Previous {
    pub(super) kept: Arc<Kept>,
    /// Whether that was another build, since when anything may have happened to the body.
    pub(super) is_old: bool,
}

impl Previous {
    fn is_here(&self, bodies: &dyn Bodies) -> bool {
        if !self.is_old {
            return true;
        }
        let file = bodies.open(&self.kept.digest).ok().flatten();
        let is_whole = |file| hash(file).is_ok_and(|digest| digest == self.kept.digest);
        match file.map(is_whole) {
            Some(whole) => {
                if !whole {
                    // So that the one that comes now is kept in its place.
                    bodies.discard(&self.kept.digest).ok();
                }
                whole
            }
            None => false,
        }
    }
}

/// A transfer, for all who wait for it.
#[derive(Debug)]
pub(super) struct Flight {
    state: watch::Sender<State>,
    given_up: AtomicBool,
}

impl Flight {
    pub(super) fn new() -> Flight {
        Flight { state: watch::Sender::new(State::Asked), given_up: AtomicBool::new(false) }
    }

    /// Returns where it stands.
    pub(super) fn state(&self) -> State {
        self.state.borrow().clone()
    }

    pub(super) fn watch(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// Waits for the head.
    pub(super) async fn begun(&self) -> State {
        self.until(|state| !matches!(state, State::Asked)).await
    }

    /// Waits for the end.
    pub(super) async fn ended(&self) -> State {
        self.until(|state| matches!(state, State::Kept(_) | State::Failed(_))).await
    }

    async fn until(&self, reached: impl Fn(&State) -> bool) -> State {
        let mut watch = self.state.subscribe();
        // It can't close while we hold the sender.
        let state = watch.wait_for(|state| reached(state)).await.map(|state| state.clone());
        state.unwrap_or_else(|_| State::Failed("the transfer was dropped".into()))
    }

    /// Waits for the end now that the step is over: as long as it takes where the end is in sight, and
    /// not for what may never come. What is given up here is in no record, however it goes on.
    pub(super) async fn finish(&self) {
        if matches!(self.state(), State::Asked) {
            tokio::time::timeout(SHORT_PATIENCE, self.begun()).await.ok();
        }
        if matches!(self.state(), State::Asked) {
            return self.given_up.store(true, Ordering::Relaxed);
        }
        if matches!(self.state(), State::Flowing(Flow { length: None, whole: false, .. })) {
            tokio::time::timeout(PATIENCE, self.ended()).await.ok();
            self.given_up.store(true, Ordering::Relaxed);
        }
        // Either it ends, or the next piece ends it.
        self.ended().await;
    }

    /// Carries it out on this thread. `previous` is what the same question was answered with before;
    /// upstream may say that this still holds.
    pub(super) fn run(
        &self,
        ask: &Ask,
        client: &Client,
        bodies: &dyn Bodies,
        previous: Option<Previous>,
    ) {
        let _end = End(self);
        let previous = previous.filter(|previous| previous.is_here(bodies)).map(|it| it.kept);
        let state = match self.carry(ask, client, bodies, previous) {
            Ok(kept) => State::Kept(kept),
            Err(why) => State::Failed(why.into()),
        };
        self.state.send_replace(state);
    }

    fn carry(
        &self,
        ask: &Ask,
        client: &Client,
        bodies: &dyn Bodies,
        previous: Option<Arc<Kept>>,
    ) -> Result<Arc<Kept>, String> {
        let mut asked = ask.clone();
        if let Some(previous) = &previous {
            if let Some(etag) = &previous.head.etag {
                asked.unless(header::IF_NONE_MATCH, etag);
            }
            if let Some(date) = previous.head.last_modified() {
                asked.unless(header::IF_MODIFIED_SINCE, date);
            }
        }
        let request = request(&asked);
        let mut response = client.send(&request).map_err(|error| told(&error))?;
        if self.given_up.load(Ordering::Relaxed) {
            return Err("nobody waited for the answer".to_owned());
        }
        let status = response.status().as_u16();
        if let (304, Some(previous)) = (status, previous) {
            return Ok(previous);
        }
        let head = Arc::new(Head::new(ask.method, &ask.url, status, response.headers()));
        if ask.method == Method::Head || head.is_redirect() || matches!(status, 204 | 304) {
            return Ok(Arc::new(Kept { head, digest: Digest::of(b""), size: 0 }));
        }
        let cannot_keep = |error: io::Error| format!("the body cannot be kept: {error}");
        let mut writer = bodies.begin().map_err(cannot_keep)?;
        let mut flow = Flow {
            head: Arc::clone(&head),
            length: response.content_length(),
            file: Arc::new(writer.reader().map_err(cannot_keep)?),
            written: 0,
            whole: false,
        };
        self.state.send_replace(State::Flowing(flow.clone()));
        let mut piece = vec![0; PIECE];
        loop {
            if self.given_up.load(Ordering::Relaxed) {
                return Err("nobody waited for the end of a body of unknown length".to_owned());
            }
            let count = response
                .read(&mut piece)
                .map_err(|error| told(&Error::of_body(&ask.url, error)))?;
            if count == 0 {
                break;
            }
            writer.write_all(&piece[..count]).map_err(cannot_keep)?;
            writer.flush().map_err(cannot_keep)?;
            flow.written += count as u64;
            self.state.send_replace(State::Flowing(flow.clone()));
        }
        if flow.written == 0 {
            return Ok(Arc::new(Kept { head, digest: Digest::of(b""), size: 0 }));
        }
        // The clients need not wait for the disk.
        flow.whole = true;
        self.state.send_replace(State::Flowing(flow));
        let (digest, size) = writer.commit().map_err(cannot_keep)?;
        Ok(Arc::new(Kept { head, digest, size }))
    }
}

/// Has nobody wait for a transfer whose thread is gone.
struct End<'a>(&'a Flight);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.state.send_if_modified(|state| {
            let is_open = matches!(state, State::Asked | State::Flowing(_));
            if is_open {
                *state = State::Failed("the recorder failed".into());
            }
            is_open
        });
    }
}

fn request(ask: &Ask) -> Request<'_> {
    let (method, once) = match ask.method {
        Method::Get => (crate::http::Method::GET, false),
        Method::Head => (crate::http::Method::HEAD, false),
        Method::Post => (crate::http::Method::POST, true),
    };
    let request = Request::new(method, ask.url.clone()).headers_of(ask.headers.clone()).relayed();
    let request = match ask.method {
        Method::Post => request.payload(Payload::Bytes(&ask.body)),
        _ => request,
    };
    if once { request.once() } else { request }
}

/// Writes an error with what lies below it; the client's errors show no secrets.
fn told(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
