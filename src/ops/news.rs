//! `lock --check`: what upstream has changed since a lock was written, asked without building.
//! Packages' own files are named by version and not asked for; the pages that list them are.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use crate::http::{Client, Request, Response, header};
use crate::lock::{
    self, Ecosystem, Layer, LayerDiff, Newest, Package, PackageChange, PlatformDiff, State,
    UrlChange, package_of, plain_version,
};
use crate::netlog::{Fetch, Method};
use crate::oci::{Digest, Platform};

use super::lock::{read, sources_of};
use super::{Access, Context, Error};

/// How many pages are asked for at once.
const JOBS: usize = 8;
/// The most bytes of a page.
const LIMIT: u64 = 512 << 20;

/// Which lock to look after.
#[derive(Clone, Debug)]
pub struct NewsOptions {
    /// The definition: a name in `manifests/`, or a path.
    pub name: String,
    /// The folder that it is looked for from.
    pub folder: PathBuf,
    /// The platforms; none is all that the lock has.
    pub platforms: Vec<Platform>,
    /// How the network is reached.
    pub access: Access,
}

/// What upstream has changed.
#[derive(Clone, Debug, Serialize)]
pub struct NewsReport {
    /// The lock.
    pub file: PathBuf,
    /// How many pages were asked for.
    pub asked: usize,
    /// What a new lock would bring, as far as indexes tell.
    pub platforms: Vec<PlatformDiff>,
    /// Pages that can't be asked for again: queries, and what came with credentials or by signed links.
    pub not_asked: Vec<String>,
    /// Pages that gave no answer, with why.
    pub troubles: BTreeMap<String, String>,
}

/// A question, once for all layers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Ask {
    url: String,
    accept: Option<String>,
    agent: Option<String>,
}

/// What a page says now.
enum Answer {
    Same,
    Changed(Vec<u8>),
    Gone,
    Moved(String),
    Trouble(String),
}

/// Asks upstream what has changed since a lock was written. Builds nothing.
pub fn lock_news(options: &NewsOptions, context: &Context<'_>) -> Result<NewsReport, Error> {
    let path = sources_of(&options.name, &options.folder)?;
    let file = lock::path_beside(&path);
    let lock = read(&file)?;
    let client = Client::new(options.access.client(context));
    let chosen = |name: &String| {
        options.platforms.is_empty()
            || options.platforms.iter().any(|platform| platform.to_string() == *name)
    };
    let layers: Vec<(&String, &String, &Layer)> = lock
        .platforms
        .iter()
        .filter(|(platform, _)| chosen(platform))
        .flat_map(|(platform, section)| {
            section.layers.iter().map(move |(name, layer)| (platform, name, layer))
        })
        .collect();
    let mut asks = BTreeMap::new();
    let mut not_asked = BTreeSet::new();
    for fetch in layers.iter().flat_map(|(_, _, layer)| &layer.fetches) {
        if let Some(ask) = Ask::of(fetch) {
            // Of answers in turn the last holds.
            asks.insert(ask, fetch);
        } else if is_secret(fetch) && package_of(&fetch.url).is_none() {
            not_asked.insert(fetch.url.clone());
        }
    }
    let answers = ask_all(&asks, &client);
    let troubles = answers
        .iter()
        .filter_map(|(ask, answer)| match answer {
            Answer::Trouble(why) => Some((ask.url.clone(), why.clone())),
            _ => None,
        })
        .collect();
    let mut indexes = Indexes { client: &client, known: BTreeMap::new() };
    let mut platforms: Vec<PlatformDiff> = Vec::new();
    for (platform, name, layer) in layers {
        let Some(diff) = compare(name, layer, &answers, &mut indexes) else { continue };
        match platforms.last_mut().filter(|last| last.platform == *platform) {
            Some(last) => last.layers.push(diff),
            None => platforms.push(PlatformDiff {
                platform: platform.clone(),
                state: State::Changed,
                layers: vec![diff],
            }),
        }
    }
    let not_asked = not_asked.into_iter().collect();
    Ok(NewsReport { file, asked: asks.len(), platforms, not_asked, troubles })
}

fn is_secret(fetch: &Fetch) -> bool {
    fetch.method != Method::Get || fetch.credentials || fetch.url.contains("REDACTED")
}

impl Ask {
    /// Returns the question to a page that may have changed and can be asked for again.
    fn of(fetch: &Fetch) -> Option<Ask> {
        let answered = fetch.status == 200 || (300..400).contains(&fetch.status);
        let fixed = package_of(&fetch.url).is_some() || fetch.url.contains("/by-hash/");
        // A redirect of a package's URL to a mirror's is nothing new either.
        (answered && !fixed && !is_secret(fetch)).then(|| Ask {
            url: fetch.url.clone(),
            accept: fetch.variant.accept.clone(),
            agent: fetch.variant.agent.clone(),
        })
    }

    fn request(&self, fetch: &Fetch) -> Result<Request<'static>, crate::http::Error> {
        let mut request = Request::get(&self.url)?.relayed();
        // Who gives several forms of a page need not say so; the one that was given is compared.
        let form = fetch.headers.get("content-type").map(|kind| format!("{kind}, */*;q=0.1"));
        let conditions = [
            (header::IF_MODIFIED_SINCE, fetch.headers.get("last-modified")),
            (header::IF_NONE_MATCH, fetch.headers.get("etag")),
            (header::ACCEPT, self.accept.as_ref().or(form.as_ref())),
            (header::USER_AGENT, self.agent.as_ref()),
        ];
        for (name, value) in conditions {
            if let Some(value) = value {
                request = request.header(name, value)?;
            }
        }
        Ok(request)
    }

    fn ask(&self, fetch: &Fetch, client: &Client) -> Result<Answer, crate::http::Error> {
        let mut response = client.send(&self.request(fetch)?)?;
        let status = response.status().as_u16();
        if status == 304 {
            return Ok(Answer::Same);
        }
        if (300..400).contains(&status) {
            let now = location(&response);
            let was = fetch.headers.get("location");
            // What a lock says of a signed link has no signature.
            let plain = |url: &str| url.split('?').next().unwrap_or(url).to_owned();
            return Ok(match now {
                Some(now) if was.is_some_and(|was| plain(was) == plain(&now)) => Answer::Same,
                Some(now) => Answer::Moved(now),
                None => Answer::Gone,
            });
        }
        if status != 200 {
            return Ok(match status {
                404 | 410 => Answer::Gone,
                _ => Answer::Trouble(format!("it answered {status}")),
            });
        }
        let bytes = response.bytes(LIMIT)?;
        Ok(if Digest::of(&bytes) == fetch.digest { Answer::Same } else { Answer::Changed(bytes) })
    }
}

fn location(response: &Response) -> Option<String> {
    let location = response.header(header::LOCATION)?;
    Some(response.url().join(location).map_or_else(|_| location.to_owned(), Into::into))
}

fn ask_all(asks: &BTreeMap<Ask, &Fetch>, client: &Client) -> BTreeMap<Ask, Answer> {
    let list: Vec<(&Ask, &Fetch)> = asks.iter().map(|(ask, fetch)| (ask, *fetch)).collect();
    let next = AtomicUsize::new(0);
    let answers = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..JOBS.min(list.len()) {
            scope.spawn(|| {
                while let Some((ask, fetch)) = list.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let answer = ask
                        .ask(fetch, client)
                        .unwrap_or_else(|error| Answer::Trouble(error.to_string()));
                    let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
                    answers.insert((*ask).clone(), answer);
                }
            });
        }
    });
    answers.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Tells what the answers mean for one layer.
fn compare(
    name: &str,
    layer: &Layer,
    answers: &BTreeMap<Ask, Answer>,
    indexes: &mut Indexes<'_>,
) -> Option<LayerDiff> {
    let mut newest = Newest::new();
    let mut urls = BTreeSet::new();
    let mut packages = BTreeSet::new();
    for fetch in &layer.fetches {
        let Some(answer) = Ask::of(fetch).and_then(|ask| answers.get(&ask)) else { continue };
        let mut note = |state: State, index: bool| {
            urls.insert(UrlChange { url: fetch.url.clone(), state, index });
        };
        match answer {
            Answer::Same | Answer::Trouble(_) => {}
            Answer::Gone => note(State::Removed, lock::is_index(&fetch.url)),
            Answer::Changed(body) => {
                let found = indexes.read(&fetch.url, body, layer);
                note(State::Changed, lock::is_index(&fetch.url) || !found.is_empty());
                newest.extend(found);
            }
            Answer::Moved(now) => {
                let was = fetch.headers.get("location").and_then(|was| package_of(was));
                match (was, package_of(now)) {
                    (Some(was), Some(now)) if was != now => {
                        packages.insert(change(was.ecosystem, was.name, was.version, now.version));
                    }
                    _ => note(State::Changed, false),
                }
            }
        }
    }
    for Package { ecosystem, name, version } in locked(layer) {
        let Some(now) = newest.get(&(ecosystem, name.clone())) else { continue };
        if lock::compare(plain_version(now), plain_version(&version)).is_gt() {
            packages.insert(change(ecosystem, name, version, now.clone()));
        }
    }
    (!urls.is_empty() || !packages.is_empty()).then(|| LayerDiff {
        name: name.to_owned(),
        state: State::Changed,
        source_date: None,
        packages: packages.into_iter().collect(),
        urls: urls.into_iter().collect(),
    })
}

fn change(ecosystem: Ecosystem, name: String, old: String, new: String) -> PackageChange {
    PackageChange { ecosystem, name, old: vec![old], new: vec![new], other_bytes: Vec::new() }
}

/// Returns the packages of a layer, each with the newest version that it has.
fn locked(layer: &Layer) -> Vec<Package> {
    let mut found: BTreeMap<(Ecosystem, String), String> = BTreeMap::new();
    for fetch in layer.fetches.iter().filter(|fetch| fetch.status == 200) {
        let Some(Package { ecosystem, name, version }) = package_of(&fetch.url) else { continue };
        let has = found.entry((ecosystem, name)).or_insert_with(|| version.clone());
        if lock::compare(&version, has).is_gt() {
            *has = version;
        }
    }
    found
        .into_iter()
        .map(|((ecosystem, name), version)| Package { ecosystem, name, version })
        .collect()
}

/// Indexes that changed pages lead to, each fetched once.
struct Indexes<'a> {
    client: &'a Client,
    known: BTreeMap<String, Newest>,
}

impl Indexes<'_> {
    /// Returns what a changed page says of packages, by itself or by what it lists.
    fn read(&mut self, url: &str, body: &[u8], layer: &Layer) -> Newest {
        let Some((folder, file)) = url.rsplit_once('/') else { return Newest::new() };
        match file {
            "InRelease" | "Release" => {
                let mut found = Newest::new();
                for index in indexes_of_release(&format!("{folder}/"), body, layer) {
                    found.extend(self.fetch(index));
                }
                found
            }
            // R's own form of what lies beside it.
            "PACKAGES.rds" => self.fetch(format!("{folder}/PACKAGES.gz")),
            _ => lock::newest(url, body),
        }
    }

    fn fetch(&mut self, url: String) -> Newest {
        if let Some(known) = self.known.get(&url) {
            return known.clone();
        }
        // One that can't be had only means that fewer packages are told of.
        let body = Request::get(&url)
            .and_then(|request| self.client.send(&request))
            .and_then(|mut response| {
                if response.status().is_success() { response.bytes(LIMIT) } else { Ok(Vec::new()) }
            })
            .unwrap_or_default();
        let found = lock::newest(&url, &body);
        self.known.insert(url, found.clone());
        found
    }
}

/// Returns the lists of packages that a layer had of an apt repository, as its release names them now.
fn indexes_of_release(folder: &str, release: &[u8], layer: &Layer) -> BTreeSet<String> {
    let release = String::from_utf8_lossy(release);
    let listed: BTreeSet<&str> = release
        .lines()
        .filter(|line| line.starts_with(' '))
        .filter_map(|line| line.split_whitespace().nth(2))
        .collect();
    let mut indexes = BTreeSet::new();
    for fetch in &layer.fetches {
        let Some(rest) = fetch.url.strip_prefix(folder) else { continue };
        let part = rest.split("by-hash/").next().unwrap_or(rest);
        let part = part.rfind('/').map_or("", |at| &part[..=at]);
        let names = ["Packages.xz", "Packages.gz", "Packages"].map(|name| format!("{part}{name}"));
        if let Some(name) = names.iter().find(|name| listed.contains(name.as_str())) {
            indexes.insert(format!("{folder}{name}"));
        }
    }
    indexes
}

impl NewsReport {
    /// Tells whether upstream has something that the lock has not.
    pub fn has_news(&self) -> bool {
        !self.platforms.is_empty()
    }

    /// Says what it can't tell of.
    pub fn doubts(&self) -> Vec<String> {
        let silent = |(url, why): (&String, &String)| format!("{url} gave no answer: {why}");
        let mut doubts: Vec<String> = self.troubles.iter().map(silent).collect();
        if !self.not_asked.is_empty() {
            doubts.push(format!(
                "{} queries and private or signed pages were not asked for again",
                self.not_asked.len()
            ));
        }
        doubts
    }
}
