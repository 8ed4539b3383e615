//! Answers from a list: nothing else is given. Each body is hashed before a step sees it, and one
//! that is missing or damaged comes from its URL again, if it still is what the list says.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};

use super::ask::Ask;
use super::bodies::hash;
use super::flight::Kept;
use super::head::Head;
use super::log::is_empty;
use super::secret::{self, REDACTED};
use super::{Bodies, Error, Fetch, Method, Variant};
use crate::http::{self, Client, Request, Url};
use crate::oci::{Digest, Hasher};

/// How many redirects lead to a signed link at most.
const MOST_REDIRECTS: usize = 10;

/// A list, and how far its turns are.
#[derive(Debug)]
pub(super) struct Replay {
    listed: BTreeMap<(String, Method), Vec<Fetch>>,
    upstream: bool,
    turns: Mutex<BTreeMap<Series, usize>>,
    /// Bodies that were hashed here; the inner lock is held while one is hashed or fetched.
    sound: Mutex<BTreeMap<Digest, Arc<Mutex<bool>>>>,
}

/// Names the answers that are given in turn.
type Series = (String, Method, Variant, bool);

impl Replay {
    pub(super) fn new(mut fetches: Vec<Fetch>, upstream: bool) -> Replay {
        fetches.sort();
        let mut listed: BTreeMap<_, Vec<Fetch>> = BTreeMap::new();
        for fetch in fetches {
            listed.entry((fetch.url.clone(), fetch.method)).or_default().push(fetch);
        }
        Replay {
            listed,
            upstream,
            turns: Mutex::new(BTreeMap::new()),
            sound: Mutex::new(BTreeMap::new()),
        }
    }

    /// Returns what the list says to a question.
    pub(super) fn find(&self, ask: &Ask) -> Option<Fetch> {
        let listed = |method: Method| self.listed.get(&(ask.shown.text.clone(), method));
        let known = match listed(ask.method) {
            None if ask.method == Method::Head => listed(Method::Get)?,
            other => other?,
        };
        let sent: Vec<&Fetch> = known.iter().filter(|it| it.variant.sent == ask.sent).collect();
        // Credentials choose where both were seen. An auditor without them gets what was recorded.
        let alike = sent.iter().any(|it| it.credentials == ask.shown.credentials);
        let fits = |it: &&&Fetch| !alike || it.credentials == ask.shown.credentials;
        let of: Vec<&Fetch> = sent.iter().filter(fits).copied().collect();
        let best = of.iter().map(|it| likeness(&it.variant, ask)).max()?;
        let first = of.iter().find(|it| likeness(&it.variant, ask) == best)?;
        let series: Vec<&&Fetch> = of
            .iter()
            .filter(|it| it.variant == first.variant && it.credentials == first.credentials)
            .collect();
        let name = (first.url.clone(), first.method, first.variant.clone(), first.credentials);
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = turns.entry(name).or_insert(0);
        // As in a record, a part of what was given already is no new question.
        let at = if ask.is_partial() && *turn > 0 { *turn - 1 } else { *turn };
        *turn = at + 1;
        let at = at.min(series.len() - 1);
        series.get(at).map(|fetch| (**fetch).clone())
    }

    /// Opens a listed body.
    pub(super) fn body(
        &self,
        fetch: &Fetch,
        ask: &Ask,
        client: &Client,
        bodies: &dyn Bodies,
    ) -> Result<Option<File>, Error> {
        if is_empty(&fetch.digest) {
            return Ok(None);
        }
        let slot = {
            let mut sound = self.sound.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(sound.entry(fetch.digest).or_default())
        };
        let mut sound = slot.lock().unwrap_or_else(PoisonError::into_inner);
        let at = |source: io::Error| Error::Body { url: fetch.url.clone(), source };
        if !*sound {
            let here = bodies.open(&fetch.digest).map_err(at)?;
            match here.map(hash).transpose().map_err(at)? {
                Some(found) if found == fetch.digest => {}
                other => {
                    let damaged = other.is_some();
                    if !self.upstream {
                        let (url, digest) = (fetch.url.clone(), fetch.digest);
                        return Err(if damaged {
                            Error::Damaged { url, digest }
                        } else {
                            Error::Absent { url, digest }
                        });
                    }
                    if damaged {
                        bodies.discard(&fetch.digest).map_err(at)?;
                    }
                    self.fetch_again(fetch, ask, client, bodies)?;
                }
            }
            *sound = true;
        }
        drop(sound);
        let missing = || Error::Absent { url: fetch.url.clone(), digest: fetch.digest };
        bodies.open(&fetch.digest).map_err(at)?.map(Some).ok_or_else(missing)
    }

    /// Fetches a body from where it came, and keeps it if it is the same.
    fn fetch_again(
        &self,
        fetch: &Fetch,
        ask: &Ask,
        client: &Client,
        bodies: &dyn Bodies,
    ) -> Result<(), Error> {
        let failed = |error: &http::Error| Error::Fetch {
            url: fetch.url.clone(),
            source: http::Cause::from(error.to_string()),
        };
        let url = match self.true_url(&fetch.url, client, 0) {
            Some(url) => url,
            None => ask.url.clone(),
        };
        let method = match fetch.method {
            Method::Post => http::Method::POST,
            Method::Get | Method::Head => http::Method::GET,
        };
        let request = Request::new(method, url).headers_of(ask.headers.clone()).relayed();
        let request = request.payload(http::Payload::Bytes(&ask.body));
        let mut response = client.send(&request).map_err(|error| failed(&error))?;
        let at = |source: io::Error| Error::Body { url: fetch.url.clone(), source };
        let mut writer = bodies.begin().map_err(at)?;
        let mut hasher = Hasher::new();
        let mut piece = vec![0; 256 << 10];
        loop {
            let count = response
                .read(&mut piece)
                .map_err(|error| failed(&http::Error::of_body(request.url(), error)))?;
            if count == 0 {
                break;
            }
            hasher.update(&piece[..count]);
            writer.write_all(&piece[..count]).map_err(at)?;
        }
        let found = hasher.finish();
        if found != fetch.digest {
            return Err(Error::Changed { url: fetch.url.clone(), expected: fetch.digest, found });
        }
        writer.commit().map_err(at)?;
        Ok(())
    }

    /// Finds what a link without its signature stands for: whoever redirected to it is asked again.
    fn true_url(&self, shown: &str, client: &Client, depth: usize) -> Option<Url> {
        let url = Url::parse(shown).ok()?;
        if !shown.contains(REDACTED) {
            return Some(url);
        }
        if depth >= MOST_REDIRECTS {
            return None;
        }
        let leads_here = |fetch: &&Fetch| {
            let target = Head::of(fetch)
                .location
                .and_then(|location| Url::parse(&fetch.url).ok()?.join(&location).ok());
            target.is_some_and(|target| secret::shown(&target).text == shown)
        };
        let parent = self.listed.values().flatten().find(leads_here)?;
        let from = self.true_url(&parent.url, client, depth + 1)?;
        let request = Request::new(http::Method::GET, from).relayed();
        let response = client.send(&request).ok()?;
        let target = request.url().join(response.header(http::header::LOCATION)?).ok()?;
        (secret::shown(&target).text == shown).then_some(target)
    }
}

/// Tells how well a variant fits a question.
fn likeness(variant: &Variant, ask: &Ask) -> u8 {
    let score = |has: &Option<String>, asked: &Option<String>| match has {
        Some(_) if has == asked => 2,
        None => 1,
        Some(_) => 0,
    };
    score(&variant.accept, &ask.accept) * 3 + score(&variant.agent, &ask.agent)
}

impl Kept {
    pub(super) fn of(fetch: &Fetch) -> Kept {
        Kept { head: Arc::new(Head::of(fetch)), digest: fetch.digest, size: fetch.size }
    }
}
