//! When to try again, and how long to wait until then.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use reqwest::header::{DATE, RETRY_AFTER};

use super::{Config, Response};

/// No wait of our own choice is longer.
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);

/// Tells whether the same request may fare better later.
pub(super) fn is_worth_it(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429 | 500 | 502 | 503 | 504)
}

/// Returns how long the server asks us to wait.
pub(super) fn retry_after(response: &Response) -> Option<Duration> {
    parse(response.header(RETRY_AFTER)?, response.header(DATE))
}

/// Reads seconds or a date. A date is taken relative to the server's own clock, whose word the
/// answer also carries: then ours need not be right.
fn parse(after: &str, date: Option<&str>) -> Option<Duration> {
    let after = after.trim();
    if let Ok(seconds) = after.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let read = |text: &str| {
        let zoned = jiff::fmt::rfc2822::DateTimeParser::new().parse_zoned(text.trim()).ok()?;
        Some(zoned.timestamp().as_second())
    };
    let wait = read(after)?.checked_sub(read(date?)?)?;
    Some(Duration::from_secs(wait.try_into().unwrap_or(0)))
}

/// Returns how long to wait after `tried` tries: anything up to a bound that doubles, so that
/// clients which failed together do not come back together.
pub(super) fn backoff(config: &Config, tried: u32) -> Duration {
    let bound = config.backoff.saturating_mul(1 << (tried - 1).min(10)).min(LONGEST_BACKOFF);
    // The standard library's seed of its hash maps is the randomness at hand. Never less than a
    // tenth: at once is no wait.
    let random = std::hash::RandomState::new().build_hasher().finish() % 1000;
    bound.mul_f64(0.1 + 0.9 * f64::from(u32::try_from(random).unwrap_or(0)) / 1000.0)
}

/// Hosts that asked for quiet, and until when; and what was said of their troubles.
#[derive(Debug, Default)]
pub(super) struct Pauses {
    quiet: Mutex<BTreeMap<String, Instant>>,
    told: Mutex<BTreeMap<String, Told>>,
}

/// What the user knows of a host.
#[derive(Debug)]
enum Told {
    /// That it is waited for until then.
    Until(Instant),
    /// That it cannot be reached.
    Unreachable,
}

impl Pauses {
    /// Notes that nobody should talk to `host` for some time.
    pub(super) fn set(&self, host: &str, wait: Duration) {
        let until = Instant::now() + wait;
        let mut hosts = self.quiet.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = hosts.entry(host.to_owned()).or_insert(until);
        *slot = until.max(*slot);
    }

    /// Tells whether a wait is worth a line: one at a time for a host, and one alone for as long as
    /// it cannot be reached.
    pub(super) fn is_news(&self, host: &str, wait: Duration, unreachable: bool) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let old = match told.get(host) {
            Some(Told::Unreachable) => unreachable,
            Some(Told::Until(until)) => !unreachable && now < *until,
            None => false,
        };
        if !old {
            let new = if unreachable { Told::Unreachable } else { Told::Until(now + wait) };
            told.insert(host.to_owned(), new);
        }
        !old
    }

    /// Notes that a host has answered.
    pub(super) fn reached(&self, host: &str) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(told.get(host), Some(Told::Unreachable)) {
            told.remove(host);
        }
    }

    /// Waits as long as `host` asked for.
    pub(super) fn wait(&self, host: &str) {
        let until = self.quiet.lock().unwrap_or_else(PoisonError::into_inner).get(host).copied();
        if let Some(until) = until {
            std::thread::sleep(until.saturating_duration_since(Instant::now()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date_of_the_servers_clock() {
        assert_eq!(parse("7", None), Some(Duration::from_secs(7)));
        let date = Some("Wed, 21 Oct 2015 07:28:00 GMT");
        let after = "Wed, 21 Oct 2015 07:28:30 GMT";
        assert_eq!(parse(after, date), Some(Duration::from_secs(30)));
        assert_eq!(parse("Wed, 21 Oct 2015 07:27:00 GMT", date), Some(Duration::ZERO));
        assert_eq!(parse(after, None), None);
        assert_eq!(parse("soon", date), None);
    }

    #[test]
    fn waits_grow_to_a_bound_and_differ() {
        let config = Config::default();
        for tried in 1..40 {
            let wait = backoff(&config, tried);
            assert!(wait >= config.backoff / 10 && wait <= LONGEST_BACKOFF, "{tried}: {wait:?}");
        }
        let waits: std::collections::BTreeSet<_> = (0..20).map(|_| backoff(&config, 3)).collect();
        assert!(waits.len() > 1);
    }
}
