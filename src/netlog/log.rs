//! What was asked, in order, and the list that a lock makes of it.
//!
//! The list says nothing of who asked first, how often or side by side with what, so that recording
//! the same contents again gives the same list. What an answer depended on is found by comparing:
//! only where the same URL gave different answers do `Accept` and the asking program get into it, and
//! only where that explains nothing do the answers keep their order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::ask::Ask;
use super::flight::{Flight, Kept, State};
use super::secret;
use super::{AuthorityClass, Fetch, Method, Missing, Record, Refused, Trouble, Variant};
use crate::http::Url;
use crate::oci::Digest;

/// All that the steps of a layer did.
#[derive(Debug, Default)]
pub(super) struct Log {
    entries: Vec<Entry>,
    unlisted: BTreeSet<Missing>,
    refused: BTreeSet<Refused>,
    troubles: BTreeSet<Trouble>,
    /// What a replay gave.
    given: Vec<(Arc<str>, Fetch)>,
}

#[derive(Debug)]
struct Entry {
    step: Arc<str>,
    url: String,
    method: Method,
    credentials: bool,
    variant: Variant,
    flight: Arc<Flight>,
}

impl Log {
    /// Notes a question and the transfer that answers it.
    pub(super) fn asked(&mut self, step: &Arc<str>, ask: &Ask, flight: &Arc<Flight>) {
        self.entries.push(Entry {
            step: Arc::clone(step),
            url: ask.shown.text.clone(),
            method: ask.method,
            credentials: ask.shown.credentials,
            variant: ask.variant(),
            flight: Arc::clone(flight),
        });
    }

    /// Notes what a replay gave.
    pub(super) fn gave(&mut self, step: &Arc<str>, fetch: &Fetch) {
        self.given.push((Arc::clone(step), fetch.clone()));
    }

    pub(super) fn unlisted(&mut self, missing: Missing) -> bool {
        self.unlisted.insert(missing)
    }

    pub(super) fn refused(&mut self, refused: Refused) -> bool {
        self.refused.insert(refused)
    }

    pub(super) fn trouble(&mut self, trouble: Trouble) -> bool {
        self.troubles.insert(trouble)
    }

    /// Returns the transfers that a step began.
    pub(super) fn flights_of(&self, step: &str) -> Vec<Arc<Flight>> {
        let of_step = self.entries.iter().filter(|entry| &*entry.step == step);
        of_step.map(|entry| Arc::clone(&entry.flight)).collect()
    }

    /// Returns what `step`, or all of them, asked and got.
    pub(super) fn record(&self, step: Option<&str>) -> Record {
        let wanted = |name: &str| step.is_none_or(|step| step == name);
        let mut answered = Vec::new();
        let mut failed = Vec::new();
        for entry in self.entries.iter().filter(|entry| wanted(&entry.step)) {
            match entry.flight.state() {
                State::Kept(kept) => answered.push((entry, kept)),
                State::Failed(why) => failed.push((entry, why)),
                State::Asked | State::Flowing(_) => failed.push((entry, "it did not end".into())),
            }
        }
        let had: BTreeSet<(&str, Method)> =
            answered.iter().map(|(entry, _)| (entry.url.as_str(), entry.method)).collect();
        let mut troubles: BTreeSet<Trouble> =
            self.troubles.iter().filter(|trouble| wanted(&trouble.step)).cloned().collect();
        // What came whole at another try is no trouble.
        let holes = failed.iter().filter(|(entry, _)| !had.contains(&(&*entry.url, entry.method)));
        troubles.extend(holes.map(|(entry, why)| Trouble {
            url: entry.url.clone(),
            what: why.to_string(),
            step: entry.step.to_string(),
        }));
        let proven = behind_credentials(&answered);
        let mut fetches = list(&answered, &proven);
        fetches.extend(
            self.given.iter().filter(|(name, _)| wanted(name)).map(|(_, fetch)| fetch.clone()),
        );
        fetches.sort();
        fetches.dedup();
        Record {
            fetches,
            unlisted: self.unlisted.iter().filter(|it| wanted(&it.step)).cloned().collect(),
            refused: self.refused.iter().filter(|it| wanted(&it.step)).cloned().collect(),
            troubles: troubles.into_iter().collect(),
        }
    }
}

type Answered<'a> = (&'a Entry, Arc<Kept>);

/// Finds the URLs that somebody with credentials was led to: the link is as good as they are.
fn behind_credentials(answered: &[Answered<'_>]) -> BTreeSet<String> {
    let mut proven: BTreeSet<String> = BTreeSet::new();
    loop {
        let before = proven.len();
        for (entry, kept) in answered {
            if (entry.credentials || proven.contains(&entry.url))
                && let Some(location) = kept.head.headers.get("location")
                && let Ok(url) = Url::parse(&entry.url)
                && let Ok(target) = url.join(location)
            {
                proven.insert(secret::shown(&target).text);
            }
        }
        if proven.len() == before {
            return proven;
        }
    }
}

/// Makes the list of a lock. `proven` are URLs whose answers are as private as if the request itself
/// had come with credentials.
fn list(answered: &[Answered<'_>], proven: &BTreeSet<String>) -> Vec<Fetch> {
    let mut groups: BTreeMap<_, Vec<&Answered<'_>>> = BTreeMap::new();
    for answer in answered {
        let (entry, _) = answer;
        let key = (entry.url.as_str(), entry.method, entry.variant.sent, entry.credentials);
        groups.entry(key).or_default().push(answer);
    }
    let gets: BTreeSet<(&str, bool, u16)> = answered
        .iter()
        .filter(|(entry, _)| entry.method == Method::Get)
        .map(|(entry, kept)| (entry.url.as_str(), entry.credentials, kept.head.status))
        .collect();
    let mut fetches = Vec::new();
    for ((url, method, _, credentials), group) in groups {
        let lasting: Vec<&Answered<'_>> = if group.iter().any(|(_, kept)| !is_passing(kept)) {
            group.into_iter().filter(|(_, kept)| !is_passing(kept)).collect()
        } else {
            group
        };
        let told = |answer: &&Answered<'_>| (url, credentials, answer.1.head.status);
        // A HEAD is answered from the GET, whichever of them came first.
        if method == Method::Head && lasting.iter().all(|answer| gets.contains(&told(answer))) {
            continue;
        }
        for (variant, part) in parted(&lasting) {
            fetches.extend(in_turn(&variant, &part));
        }
        if proven.contains(url) {
            let of_url = fetches.iter_mut().rev().take_while(|fetch| fetch.url == url);
            of_url.for_each(|fetch| fetch.credentials = true);
        }
    }
    fetches
}

/// Tells whether the same request may well fare better in the next build.
fn is_passing(kept: &Kept) -> bool {
    matches!(kept.head.status, 408 | 425 | 429 | 500..)
}

fn is_same(one: &Kept, other: &Kept) -> bool {
    let of =
        |kept: &Kept| (kept.head.status, kept.digest, kept.head.headers.get("location").cloned());
    of(one) == of(other)
}

fn is_uniform(group: &[&Answered<'_>]) -> bool {
    group.windows(2).all(|pair| is_same(&pair[0].1, &pair[1].1))
}

type Parts<'a, 'e> = BTreeMap<Variant, Vec<&'a Answered<'e>>>;

/// Parts answers to the same request by the least that explains how they differ.
fn parted<'a, 'e>(group: &[&'a Answered<'e>]) -> Parts<'a, 'e> {
    let by = |accept: bool, agent: bool| {
        let mut parts: Parts<'a, 'e> = BTreeMap::new();
        for answer in group {
            let full = &answer.0.variant;
            let variant = Variant {
                sent: full.sent,
                accept: full.accept.clone().filter(|_| accept),
                agent: full.agent.clone().filter(|_| agent),
            };
            parts.entry(variant).or_default().push(answer);
        }
        parts
    };
    for (accept, agent) in [(false, false), (true, false), (false, true), (true, true)] {
        let parts = by(accept, agent);
        if parts.values().all(|part| is_uniform(part)) {
            return parts;
        }
    }
    by(false, false)
}

/// Lists answers in the order in which they were asked for; one is enough where all are the same, and
/// the last stands for its repetitions.
fn in_turn(variant: &Variant, part: &[&Answered<'_>]) -> Vec<Fetch> {
    let mut last = part.len().saturating_sub(1);
    while last > 0 && is_same(&part[last - 1].1, &part[last].1) {
        last -= 1;
    }
    part[..=last]
        .iter()
        .zip(0..)
        .map(|((entry, kept), turn)| Fetch {
            url: entry.url.clone(),
            method: entry.method,
            variant: variant.clone(),
            credentials: entry.credentials,
            turn,
            status: kept.head.status,
            digest: kept.digest,
            size: kept.size,
            headers: kept.head.headers.clone(),
            authority: unproven(&entry.url),
        })
        .collect()
}

/// Returns who vouches where nothing in the body's name or content does.
fn unproven(url: &str) -> AuthorityClass {
    if url.starts_with("https:") { AuthorityClass::TlsOnly } else { AuthorityClass::None }
}

/// Bodies that hold nothing are not kept.
pub(super) fn is_empty(digest: &Digest) -> bool {
    *digest == Digest::of(b"")
}
