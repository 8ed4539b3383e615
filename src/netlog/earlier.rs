//! What earlier builds fetched, so that a rebuild moves no body twice: upstream is asked whether it
//! still holds, and only a body that is here and whole stands in for its answer.

use std::collections::BTreeMap;

use super::ask::Ask;
use super::head::seconds;
use super::{Fetch, Method};

/// Answers of earlier builds, by their URLs.
#[derive(Debug, Default)]
pub struct Earlier {
    known: BTreeMap<String, Vec<Fetch>>,
}

impl Earlier {
    /// Takes the records of earlier builds, whatever their order.
    pub fn new(fetches: impl IntoIterator<Item = Fetch>) -> Earlier {
        let mut known: BTreeMap<String, Vec<Fetch>> = BTreeMap::new();
        for fetch in fetches {
            let tells = ["etag", "last-modified"].iter().any(|it| fetch.headers.contains_key(*it));
            if fetch.method == Method::Get && fetch.status == 200 && fetch.size > 0 && tells {
                known.entry(fetch.url.clone()).or_default().push(fetch);
            }
        }
        for fetches in known.values_mut() {
            fetches.sort_by_key(|fetch| {
                let date = fetch.headers.get("last-modified").and_then(|date| seconds(date));
                (date, fetch.digest)
            });
            fetches.dedup();
        }
        Earlier { known }
    }

    /// Returns the newest answer to a question.
    pub(super) fn of(&self, ask: &Ask) -> Option<&Fetch> {
        let fits = |fetch: &&Fetch| {
            let same = |has: &Option<String>, asked: &Option<String>| has.is_none() || has == asked;
            fetch.credentials == ask.shown.credentials
                && same(&fetch.variant.accept, &ask.accept)
                && same(&fetch.variant.agent, &ask.agent)
        };
        let known = self.known.get(&ask.shown.text).filter(|_| ask.method == Method::Get)?;
        known.iter().rev().find(fits)
    }
}
