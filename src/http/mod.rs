//! The one HTTP client: TLS roots, proxies, timeouts, retries, redirects without credentials, and
//! URLs that can be shown.
//!
//! reqwest is asynchronous at heart. Its runtime lives here, in one background thread that starts
//! with the first request; a call waits on its own thread, and bodies pass between the two in large
//! pieces. reqwest's own blocking façade is not used, since it moves request bodies in pieces of
//! 8 KiB, wants them to live for ever, and knows no timeout but one for the whole request.

mod config;
mod dns;
mod engine;
mod error;
mod patience;
mod redirect;
mod request;
mod response;
mod retry;
mod tls;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub use config::{Config, Trust};
pub use error::{Cause, Error, redact};
pub use patience::Patience;
pub use redirect::same_origin;
pub use request::{Open, Payload, Request};
pub use reqwest::{Method, StatusCode, Url, header};
pub use response::Response;

use engine::Engine;
use redirect::Step;
use retry::Pauses;

/// How often one is asked to whom no connection stands.
const UNREACHABLE_TRIES: u32 = 4;

/// How many redirects one request follows.
const MOST_REDIRECTS: usize = 5;

/// Sends requests. Cheap to clone; the clones share connections.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    config: Config,
    trust: Trust,
    engine: Mutex<Option<Arc<Engine>>>,
    /// Where redirects lead goes without our certificate.
    elsewhere: Mutex<Option<Arc<Engine>>>,
    pauses: Pauses,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("config", &self.shared.config).finish_non_exhaustive()
    }
}

impl Client {
    /// Makes a client. Nothing is read and no thread starts before the first request.
    pub fn new(config: Config) -> Client {
        Client::of(config, Trust::default())
    }

    /// Makes a client with the same settings for a server of which more is known.
    #[must_use]
    pub fn trusting(&self, trust: Trust) -> Client {
        Client::of(self.shared.config.clone(), trust)
    }

    fn of(config: Config, trust: Trust) -> Client {
        let (engine, elsewhere) = (Mutex::default(), Mutex::default());
        let shared = Shared { config, trust, engine, elsewhere, pauses: Pauses::default() };
        Client { shared: Arc::new(shared) }
    }

    /// Returns the settings.
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// Returns the engine for the server that is meant, or for one that it leads to.
    fn engine(&self, meant: bool) -> Result<Arc<Engine>, Error> {
        let Shared { config, trust, engine, elsewhere, .. } = &*self.shared;
        let known = meant || trust.identity.is_none();
        let slot = if known { engine } else { elsewhere };
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(engine) = &*slot {
            return Ok(Arc::clone(engine));
        }
        let engine = Arc::new(if known {
            Engine::start(config, trust)?
        } else {
            Engine::start(config, &Trust { identity: None, ..trust.clone() })?
        });
        *slot = Some(Arc::clone(&engine));
        Ok(engine)
    }

    /// Sends a request and returns the answer, whatever its status, once its headers are here.
    ///
    /// Redirects are followed; `Authorization` goes to no other origin. What is worth another try is
    /// tried again when the request allows it: then a status such as 503 is returned only when it
    /// persists.
    pub fn send(&self, request: &Request<'_>) -> Result<Response, Error> {
        let config = &self.shared.config;
        if config.offline {
            return Err(Error::Offline { url: redact(request.url()) });
        }
        let mut tried = 1;
        loop {
            let host = request.url().host_str().unwrap_or_default();
            self.shared.pauses.wait(host);
            let outcome = self.follow(request);
            if outcome.is_ok() {
                self.shared.pauses.reached(host);
            }
            // A program that asks for something where nobody is wants to hear so soon, and a network
            // that is down does not come back while one looks at it.
            let is_nobody = matches!(outcome, Err(Error::Send { connect: true, .. }));
            let is_silent = matches!(outcome, Err(Error::Silence { .. }));
            let most = match (is_nobody, request.is_relayed()) {
                (true, true) => 2,
                (true, false) => UNREACHABLE_TRIES,
                (false, true) if is_silent => 1,
                (false, _) => config.tries,
            };
            let last = tried >= most.min(config.tries) || !request.retries();
            let why = match &outcome {
                Ok(_) if request.is_relayed() => return outcome,
                Ok(response) if !retry::is_worth_it(response.status()) => return outcome,
                Ok(response) => format!("the answer was {}", response.status()),
                Err(error) if error.is_transient() => error.to_string(),
                Err(_) => return outcome,
            };
            let asked = outcome.as_ref().ok().and_then(retry::retry_after);
            if let Some(wait) = asked.filter(|wait| *wait <= config.longest_wait) {
                // The others who talk to that host need not learn it for themselves.
                self.shared.pauses.set(host, wait);
            }
            if last || asked.is_some_and(|wait| wait > config.longest_wait) {
                return outcome.map_err(|error| error.after(tried));
            }
            let wait = asked.unwrap_or_else(|| retry::backoff(config, tried));
            let why = if is_nobody {
                let cause = outcome.as_ref().err().and_then(std::error::Error::source);
                let cause = cause.map_or_else(String::new, |cause| format!(" ({cause})"));
                format!("{host} cannot be reached{cause}")
            } else {
                format!("{} {}: {why}", request.method(), redact(request.url()))
            };
            let patience = request.patience().unwrap_or(&config.patience);
            if !self.wait(host, &why, wait, is_nobody, patience) {
                return outcome.map_err(|error| error.after(tried));
            }
            tried += 1;
        }
    }

    /// Waits before something is tried again, and says so. Returns `false` when all the waiting that
    /// is allowed has been done.
    pub fn pause(&self, url: &Url, why: &str, wait: Duration, patience: &Arc<Patience>) -> bool {
        self.wait(url.host_str().unwrap_or_default(), why, wait, false, patience)
    }

    fn wait(
        &self,
        host: &str,
        why: &str,
        wait: Duration,
        unreachable: bool,
        patience: &Arc<Patience>,
    ) -> bool {
        let report = &self.shared.config.report;
        let text = format!("{why}; trying again in {:.1} s", wait.as_secs_f64());
        // Several threads in the same trouble are one line, and so is a network that is down.
        if self.shared.pauses.is_news(host, wait, unreachable) {
            report.note(&text);
        } else {
            report.detail(&text);
        }
        match patience.wait(wait) {
            Ok(()) => true,
            Err(most) => {
                let most = most.as_secs();
                report.note(&format!("{host}: no more tries, after up to {most} s of waiting"));
                false
            }
        }
    }

    /// Sends a request once and follows where it leads.
    fn follow(&self, request: &Request<'_>) -> Result<Response, Error> {
        let mut url = request.url().clone();
        let mut trusted = true;
        for _ in 0..=MOST_REDIRECTS {
            let engine = self.engine(trusted)?;
            let response = engine.exchange(&self.shared.config, request, &url, trusted)?;
            if request.is_relayed() {
                return Ok(response);
            }
            match redirect::next(request.method(), &url, &response)? {
                Step::Stay => return Ok(response),
                Step::Go(next) => {
                    // Once away, never again: a redirect back could be anyone's doing.
                    trusted = trusted && same_origin(&url, &next);
                    url = next;
                }
            }
        }
        Err(Error::Redirects { url: redact(request.url()) })
    }
}
