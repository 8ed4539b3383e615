//! A step's question answered: from the list that is replayed, from what is kept, or from a transfer
//! while it flows.

use std::sync::Arc;

use hyper::Response;
use tokio::task;

use super::Method;
use super::ask::Ask;
use super::flight::{Flow, Kept, State};
use super::head::Head;
use super::reply::{self, Served, Source};
use super::serve::Guest;

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
