//! What all steps of a layer share: the transfers that are under way or kept, so that one question is
//! asked upstream once whoever asks it, and what is noted of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;

use super::ask::{Ask, Key};
use super::flight::{Flight, Kept, Previous, State};
use super::log::{Log, is_empty};
use super::replay::Replay;
use super::{
    Authority, Bodies, Earlier, Error, Fetch, Method, Missing, Mode, Options, Record, Refused,
    Trouble,
};
use crate::http::{self, Client};
use crate::oci::Digest;
use crate::report::Report;

/// What all steps of a layer share.
pub(super) struct Shared {
    pub(super) authority: Arc<Authority>,
    pub(super) bodies: Arc<dyn Bodies>,
    pub(super) client: Client,
    pub(super) report: Arc<dyn Report>,
    pub(super) replay: Option<Replay>,
    pub(super) earlier: Arc<Earlier>,
    pub(super) handle: Handle,
    pub(super) log: Mutex<Log>,
    flights: Mutex<Flights>,
    names: Mutex<Names>,
    pub(super) declared: Mutex<BTreeSet<Digest>>,
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

impl Shared {
    pub(super) fn new(options: Options, handle: Handle) -> Arc<Shared> {
        let replay = match options.mode {
            Mode::Record => None,
            Mode::Replay { fetches, upstream } => Some(Replay::new(fetches, upstream)),
        };
        Arc::new(Shared {
            authority: options.authority,
            bodies: options.bodies,
            client: options.client,
            report: options.report,
            replay,
            earlier: options.earlier,
            handle,
            log: Mutex::default(),
            flights: Mutex::default(),
            names: Mutex::default(),
            declared: Mutex::default(),
        })
    }

    pub(super) fn authority(&self) -> &Authority {
        &self.authority
    }

    pub(super) fn record(&self, step: Option<&str>) -> Record {
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
    pub(super) fn note_other_protocols(&self, step: &Arc<str>) {
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
    pub(super) fn open(&self, kept: &Kept) -> std::io::Result<Option<File>> {
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
    pub(super) fn flight(self: &Arc<Shared>, ask: &Ask, step: &Arc<str>) -> Arc<Flight> {
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
    pub(super) fn kept(self: &Arc<Shared>, ask: &Ask, step: &Arc<str>) -> Result<Arc<Kept>, Error> {
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
    pub(super) fn replayed(
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

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
