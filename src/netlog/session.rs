//! A recorder at work: one for a layer, with a session for each step.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use hyper::Response;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task;

use super::ask::{Ask, Key};
use super::flight::{Flight, Flow, Kept, Previous, State};
use super::head::Head;
use super::log::{Log, is_empty};
use super::replay::Replay;
use super::reply::{self, Served, Source};
use super::serve::{self, Guest};
use super::vouch;
use super::{
    Authority, Bodies, Doors, Earlier, Error, Fetch, Method, Missing, Mode, Options, Record,
    Refused, Trouble,
};
use crate::http::{self, Client, Url};
use crate::oci::Digest;
use crate::report::Report;

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

/// What all steps of a layer share.
pub(super) struct Shared {
    authority: Arc<Authority>,
    bodies: Arc<dyn Bodies>,
    client: Client,
    report: Arc<dyn Report>,
    replay: Option<Replay>,
    earlier: Arc<Earlier>,
    handle: Handle,
    log: Mutex<Log>,
    flights: Mutex<Flights>,
    names: Mutex<Names>,
    declared: Mutex<BTreeSet<Digest>>,
}

/// Transfers by what they answer.
#[derive(Default)]
struct Flights {
    /// The last for each question.
    known: BTreeMap<Key, Arc<Flight>>,
    /// Those that were begun for requests which are still on their way.
    expected: BTreeMap<Key, Vec<Arc<Flight>>>,
}

/// Names that were looked up, and those that a request came for.
#[derive(Default)]
struct Names {
    looked_up: BTreeSet<(Arc<str>, String)>,
    asked_for: BTreeSet<String>,
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
        let replay = match options.mode {
            Mode::Record => None,
            Mode::Replay { fetches, upstream } => Some(Replay::new(fetches, upstream)),
        };
        let shared = Arc::new(Shared {
            authority: options.authority,
            bodies: options.bodies,
            client: options.client,
            report: options.report,
            replay,
            earlier: options.earlier,
            handle: runtime.handle().clone(),
            log: Mutex::default(),
            flights: Mutex::default(),
            names: Mutex::default(),
            declared: Mutex::default(),
        });
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn authority(&self) -> &Authority {
        &self.authority
    }

    fn record(&self, step: Option<&str>) -> Record {
        lock(&self.log).record(step)
    }

    /// Notes what can't be recorded, and says so once.
    pub(super) fn refuse(&self, step: &Arc<str>, what: String) {
        let warning = format!("{step}: {what} can't be recorded");
        let refused = Refused { what, step: step.to_string() };
        if lock(&self.log).refused(refused) {
            self.report.warning(&warning);
        }
    }

    pub(super) fn asked_for(&self, host: &str) {
        lock(&self.names).asked_for.insert(host.trim_end_matches('.').to_ascii_lowercase());
    }

    pub(super) fn looked_up(&self, step: &Arc<str>, name: String) {
        lock(&self.names).looked_up.insert((Arc::clone(step), name));
    }

    /// A name that was looked up and never asked for over HTTP was wanted for something else, most
    /// likely: that goes to a port where nobody listens, so that this is all we hear of it.
    fn note_other_protocols(&self, step: &Arc<str>) {
        let names = lock(&self.names);
        let others: Vec<String> = names
            .looked_up
            .iter()
            .filter(|(of, name)| of == step && !names.asked_for.contains(name))
            .filter(|(_, name)| name.contains('.') && !name.starts_with('_'))
            .map(|(_, name)| name.clone())
            .collect();
        drop(names);
        for name in others {
            let what = format!("`{name}`, which was looked up and then not asked over HTTP");
            self.refuse(step, what);
        }
    }

    fn trouble(&self, step: &Arc<str>, url: &str, error: &Error) {
        let mut what = error.to_string();
        if let Some(source) = std::error::Error::source(error) {
            what = format!("{what}: {source}");
        }
        let trouble = Trouble { url: url.to_owned(), what, step: step.to_string() };
        let warning = format!("{step}: {}", trouble.what);
        if lock(&self.log).trouble(trouble) {
            self.report.warning(&warning);
        }
    }

    /// Opens what is kept; `None` for an empty body.
    fn open(&self, kept: &Kept) -> std::io::Result<Option<File>> {
        if is_empty(&kept.digest) {
            return Ok(None);
        }
        let gone = || {
            let text = format!("the body {} is not where it was kept", kept.digest);
            std::io::Error::new(std::io::ErrorKind::NotFound, text)
        };
        self.bodies.open(&kept.digest)?.map(Some).ok_or_else(gone)
    }

    /// Returns the transfer that answers a question: one that is under way, one that is kept when a
    /// part of it is wanted, or a new one.
    fn flight(self: &Arc<Shared>, ask: &Ask, step: &Arc<str>) -> Arc<Flight> {
        let mut flights = lock(&self.flights);
        let question = if ask.method == Method::Get { ask.whole() } else { ask.clone() };
        if ask.is_partial()
            && let Some(flight) = flights.known.get(&ask.whole().key())
            && !matches!(flight.state(), State::Failed(_))
        {
            return Arc::clone(flight);
        }
        let flight = match flights.expected.get_mut(&question.key()).and_then(Vec::pop) {
            Some(expected) => expected,
            None => self.begin(&mut flights, &question),
        };
        lock(&self.log).asked(step, &question, &flight);
        flight
    }

    /// Begins the transfer for a request that will be asked in a moment.
    pub(super) fn expect(self: &Arc<Shared>, ask: &Ask) -> Option<(Key, Arc<Flight>)> {
        if self.replay.is_some() || ask.is_partial() {
            return None;
        }
        let question = ask.whole();
        let mut flights = lock(&self.flights);
        let flight = self.begin(&mut flights, &question);
        let key = question.key();
        flights.expected.entry(key.clone()).or_default().insert(0, Arc::clone(&flight));
        Some((key, flight))
    }

    /// Forgets requests that will not be asked after all.
    pub(super) fn expect_no_more(&self, expected: Vec<(Key, Arc<Flight>)>) {
        let mut flights = lock(&self.flights);
        for (key, flight) in expected {
            if let Some(waiting) = flights.expected.get_mut(&key) {
                waiting.retain(|other| !Arc::ptr_eq(other, &flight));
                if waiting.is_empty() {
                    flights.expected.remove(&key);
                }
            }
        }
    }

    /// Joins the transfer that is under way for the same question, or starts one.
    fn begin(self: &Arc<Shared>, flights: &mut Flights, question: &Ask) -> Arc<Flight> {
        let key = question.key();
        let mut previous = None;
        if question.method != Method::Post
            && let Some(flight) = flights.known.get(&key)
        {
            match flight.state() {
                State::Asked | State::Flowing(_) => return Arc::clone(flight),
                State::Kept(kept) if kept.head.status == 200 => {
                    previous = Some(Previous { kept, is_old: false });
                }
                State::Kept(_) | State::Failed(_) => {}
            }
        }
        if previous.is_none()
            && let Some(fetch) = self.earlier.of(question)
        {
            previous = Some(Previous { kept: Arc::new(Kept::of(fetch)), is_old: true });
        }
        let flight = Arc::new(Flight::new());
        if question.method != Method::Post {
            flights.known.insert(key, Arc::clone(&flight));
        }
        let (shared, running) = (Arc::clone(self), Arc::clone(&flight));
        let question = question.clone();
        self.handle.spawn_blocking(move || {
            running.run(&question, &shared.client, &*shared.bodies, previous);
        });
        flight
    }

    /// Answers the builder's own question.
    fn kept(self: &Arc<Shared>, ask: &Ask, step: &Arc<str>) -> Result<Arc<Kept>, Error> {
        let url = || ask.shown.text.clone();
        if let Some(replay) = &self.replay {
            let (fetch, _) = self.replayed(replay, ask, step)?;
            return Ok(Arc::new(Kept::of(&fetch)));
        }
        match self.handle.block_on(self.flight(ask, step).ended()) {
            State::Kept(kept) => Ok(kept),
            State::Failed(why) => {
                Err(Error::Fetch { url: url(), source: http::Cause::from(why.to_string()) })
            }
            State::Asked | State::Flowing(_) => Err(Error::Unlisted { url: url() }),
        }
    }

    /// Answers from the list, noting what is not there.
    fn replayed(
        &self,
        replay: &Replay,
        ask: &Ask,
        step: &Arc<str>,
    ) -> Result<(Fetch, Option<File>), Error> {
        let Some(fetch) = replay.find(ask) else {
            let url = ask.shown.text.clone();
            let missing = Missing {
                url: url.clone(),
                method: ask.method.to_string(),
                step: step.to_string(),
            };
            let warning = format!("{step}: {} {url} is not in the lock", ask.method);
            if lock(&self.log).unlisted(missing) {
                self.report.warning(&warning);
            }
            return Err(Error::Unlisted { url });
        };
        lock(&self.log).gave(step, &fetch);
        // A head needs no body.
        let file = if ask.method == Method::Head {
            Ok(None)
        } else {
            replay.body(&fetch, ask, &self.client, &*self.bodies)
        };
        match file {
            Ok(file) => Ok((fetch, file)),
            Err(error) => {
                self.trouble(step, &fetch.url, &error);
                Err(error)
            }
        }
    }
}

impl Guest {
    /// Answers a step's question.
    pub(super) async fn answer(&self, ask: Ask) -> Response<Served> {
        if self.shared.replay.is_some() { self.replay(ask).await } else { self.record(ask).await }
    }

    async fn replay(&self, ask: Ask) -> Response<Served> {
        let guest = self.clone();
        let asked = ask.clone();
        let found = task::spawn_blocking(move || {
            let shared = &guest.shared;
            shared.replay.as_ref().map(|replay| shared.replayed(replay, &asked, &guest.step))
        });
        match found.await {
            Ok(Some(Ok((fetch, file)))) => {
                let kept = Kept::of(&fetch);
                let source = file.map_or(Source::Empty, Source::File);
                reply::answer(&ask, &kept.head, size_of(&kept, fetch.method), source)
            }
            Ok(Some(Err(error))) => reply::text(504, &error.to_string()),
            Ok(None) | Err(_) => reply::text(500, "the recorder failed"),
        }
    }

    async fn record(&self, ask: Ask) -> Response<Served> {
        let flight = self.shared.flight(&ask, &self.step);
        let mut state = flight.begun().await;
        if ask.wishes.range.is_some() && matches!(state, State::Flowing(Flow { length: None, .. }))
        {
            // A part of what has no length yet.
            state = flight.ended().await;
        }
        if let State::Kept(kept) = &state {
            self.note_redirect(&ask, &kept.head);
        }
        match state {
            State::Flowing(flow) => {
                let (head, length) = (Arc::clone(&flow.head), flow.length);
                reply::answer(&ask, &head, length, Source::Flow(flow, flight.watch()))
            }
            State::Kept(kept) => {
                let shared = Arc::clone(&self.shared);
                let opened = Arc::clone(&kept);
                let file = task::spawn_blocking(move || shared.open(&opened)).await;
                let method = if kept.head.headers.contains_key("content-length") {
                    Method::Head
                } else {
                    Method::Get
                };
                match file {
                    Ok(Ok(file)) => {
                        let source = file.map_or(Source::Empty, Source::File);
                        reply::answer(&ask, &kept.head, size_of(&kept, method), source)
                    }
                    Ok(Err(error)) => reply::text(502, &error.to_string()),
                    Err(_) => reply::text(500, "the recorder failed"),
                }
            }
            State::Failed(why) => {
                reply::text(502, &format!("{} {}: {why}", ask.method, ask.shown.text))
            }
            State::Asked => reply::text(500, "the recorder failed"),
        }
    }
}

impl Guest {
    /// Names a redirect to where the recorder is not, since all that is heard of it later is that
    /// nobody is there.
    fn note_redirect(&self, ask: &Ask, head: &Head) {
        let target = head.location.as_ref().filter(|_| head.is_redirect());
        let Some(target) = target.and_then(|location| ask.url.join(location).ok()) else { return };
        let port = target.port_or_known_default();
        let is_ours = matches!((target.scheme(), port), ("http", Some(80)) | ("https", Some(443)));
        if !is_ours {
            self.refuse(format!("a redirect to {}", super::secret::shown(&target).text));
        }
    }
}

/// Returns the size that an answer may announce: what is recorded of a HEAD says nothing of it but by
/// its header.
fn size_of(kept: &Kept, method: Method) -> Option<u64> {
    (method != Method::Head).then_some(kept.size)
}
