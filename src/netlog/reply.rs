//! An answer in the form that the client wished: whole, a part, its head, or the word that nothing
//! changed. All of it is made of what is kept.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use tokio::sync::{mpsc, watch};
use tokio::task;

use super::Method;
use super::ask::{Ask, Wishes};
use super::flight::{Flow, State};
use super::head::{Head, seconds};

/// A body is read in pieces of this size.
const PIECE: u64 = 256 << 10;

/// Where a body is read.
pub(super) enum Source {
    /// There is none.
    Empty,
    /// A file with all of it.
    File(File),
    /// What is still coming.
    Flow(Flow, watch::Receiver<State>),
}

/// A body on its way to a client.
#[derive(Debug)]
pub(super) struct Served {
    text: Option<Bytes>,
    pieces: Option<mpsc::Receiver<io::Result<Bytes>>>,
    /// How many bytes are to come, where that is known.
    left: Option<u64>,
}

impl Body for Served {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(text) = self.text.take() {
            self.left = Some(0);
            return Poll::Ready(Some(Ok(Frame::data(text))));
        }
        let Some(pieces) = &mut self.pieces else { return Poll::Ready(None) };
        let piece = std::task::ready!(pieces.poll_recv(context));
        if let (Some(Ok(piece)), Some(left)) = (&piece, &mut self.left) {
            *left = left.saturating_sub(piece.len() as u64);
        }
        Poll::Ready(piece.map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.left == Some(0) && self.text.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.text, self.left) {
            (Some(text), _) => SizeHint::with_exact(text.len() as u64),
            (None, Some(left)) => SizeHint::with_exact(left),
            (None, None) => SizeHint::default(),
        }
    }
}

impl Served {
    fn empty() -> Served {
        Served { text: None, pieces: None, left: Some(0) }
    }

    /// Starts reading `from..to`; without a `to` up to the end, wherever that is.
    fn read(source: Source, from: u64, to: Option<u64>) -> Served {
        if matches!(source, Source::Empty) || to == Some(from) {
            return Served::empty();
        }
        let (sender, pieces) = mpsc::channel(2);
        task::spawn(pump(source, from, to, sender));
        Served { text: None, pieces: Some(pieces), left: to.map(|to| to - from) }
    }
}

/// Hands a body's pieces on until its end, or until nobody takes them.
async fn pump(
    source: Source,
    mut at: u64,
    to: Option<u64>,
    sender: mpsc::Sender<io::Result<Bytes>>,
) {
    let (file, mut growing) = match source {
        Source::Empty => return,
        Source::File(file) => (Arc::new(file), None),
        Source::Flow(flow, states) => (Arc::clone(&flow.file), Some((flow, states))),
    };
    let mut there = to.unwrap_or(u64::MAX);
    loop {
        if let Some((flow, states)) = &mut growing {
            match grown(flow, states, at).await {
                Ok(()) => there = flow.written.min(to.unwrap_or(u64::MAX)),
                Err(error) => {
                    sender.send(Err(error)).await.ok();
                    return;
                }
            }
        }
        if at >= there {
            return;
        }
        let (file, most) = (Arc::clone(&file), PIECE.min(there - at));
        let read = task::spawn_blocking(move || read_at(&file, at, most)).await;
        let read = read.unwrap_or_else(|error| Err(io::Error::other(error)));
        let failed = read.is_err();
        at += read.as_ref().map_or(0, |piece| piece.len() as u64);
        if sender.send(read).await.is_err() || failed || Some(at) == to {
            return;
        }
    }
}

/// Waits until there is more than `at` bytes, or no more to come.
async fn grown(flow: &mut Flow, states: &mut watch::Receiver<State>, at: u64) -> io::Result<()> {
    while !flow.whole && flow.written <= at {
        let reached = states
            .wait_for(|state| match state {
                State::Flowing(flow) => flow.whole || flow.written > at,
                _ => true,
            })
            .await
            .map(|state| state.clone());
        match reached {
            Ok(State::Flowing(now)) => *flow = now,
            Ok(State::Kept(kept)) => {
                flow.written = kept.size;
                flow.whole = true;
            }
            Ok(State::Failed(why)) => return Err(io::Error::other(why.to_string())),
            Ok(State::Asked) | Err(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
    Ok(())
}

fn read_at(file: &File, at: u64, most: u64) -> io::Result<Bytes> {
    let mut piece = vec![0; usize::try_from(most).unwrap_or(usize::MAX)];
    let count = file.read_at(&mut piece, at)?;
    if count == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    piece.truncate(count);
    Ok(Bytes::from(piece))
}

/// Makes an answer of one's own, in words.
pub(super) fn text(status: u16, text: &str) -> Response<Served> {
    let text = Bytes::from(format!("ocibuild: {text}\n"));
    let mut response =
        Response::new(Served { left: Some(text.len() as u64), text: Some(text), pieces: None });
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert("content-type", plain);
    response
}

/// Makes the answer to `ask` of what is kept. `size` is the body's where it is known.
pub(super) fn answer(
    ask: &Ask,
    head: &Head,
    size: Option<u64>,
    source: Source,
) -> Response<Served> {
    let mut response = Response::new(Served::empty());
    *response.status_mut() = StatusCode::from_u16(head.status).unwrap_or(StatusCode::BAD_GATEWAY);
    for (name, value) in &head.headers {
        let value = match (name.as_str(), &head.location) {
            ("location", Some(location)) => location,
            _ => value,
        };
        let parsed = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value));
        if let (Ok(name), Ok(value)) = parsed {
            response.headers_mut().insert(name, value);
        }
    }
    for (name, value) in &head.passing {
        let parsed = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value));
        if let (Ok(name), Ok(value)) = parsed {
            response.headers_mut().append(name, value);
        }
    }
    let is_ok = head.status == 200 && ask.method != Method::Post;
    if is_ok && is_unchanged(&ask.wishes, head) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response.headers_mut().remove("content-length");
        return response;
    }
    if is_ok {
        response.headers_mut().insert("accept-ranges", HeaderValue::from_static("bytes"));
    }
    if ask.method == Method::Head {
        if let Some(size) = size.filter(|_| !head.headers.contains_key("content-length")) {
            response.headers_mut().insert("content-length", HeaderValue::from(size));
        }
        return response;
    }
    let (mut from, mut to) = (0, size);
    if let (true, Some(size), Some(range)) = (is_ok, size, range_of(&ask.wishes, head)) {
        match parse(range, size) {
            Range::Whole => {}
            Range::Part(first, end) => {
                (from, to) = (first, Some(end));
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                set(&mut response, "content-range", &format!("bytes {first}-{}/{size}", end - 1));
            }
            Range::Beyond => {
                *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
                set(&mut response, "content-range", &format!("bytes */{size}"));
                return response;
            }
        }
    }
    *response.body_mut() = Served::read(source, from, to);
    response
}

fn set(response: &mut Response<Served>, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

/// Tells whether the client has it already.
fn is_unchanged(wishes: &Wishes, head: &Head) -> bool {
    match (&wishes.if_none_match, &wishes.if_modified_since) {
        (Some(tags), _) => {
            let weak = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
            let ours = head.headers.get("etag").map(|tag| weak(tag));
            tags.trim() == "*" || tags.split(',').any(|tag| Some(weak(tag)) == ours)
        }
        (None, Some(since)) => match (head.last_modified(), seconds(since)) {
            (Some(ours), Some(since)) => seconds(ours).is_some_and(|ours| ours <= since),
            _ => false,
        },
        (None, None) => false,
    }
}

/// Returns the range to heed: with `If-Range` only where the rest belongs to what the client has.
fn range_of<'a>(wishes: &'a Wishes, head: &Head) -> Option<&'a str> {
    let range = wishes.range.as_deref()?;
    match &wishes.if_range {
        Some(has) => {
            let ours = [head.headers.get("etag").map(String::as_str), head.last_modified()];
            (!has.starts_with("W/") && ours.contains(&Some(has))).then_some(range)
        }
        None => Some(range),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Range {
    Whole,
    /// From, and up to but without.
    Part(u64, u64),
    Beyond,
}

/// Reads a range of bytes. Several at once may be answered with the whole (RFC 9110, 14.2).
fn parse(range: &str, size: u64) -> Range {
    let Some(spec) = range.strip_prefix("bytes=").filter(|spec| !spec.contains(',')) else {
        return Range::Whole;
    };
    let Some((first, last)) = spec.trim().split_once('-') else { return Range::Whole };
    match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), _) if first >= size => Range::Beyond,
        (Ok(first), Ok(last)) if first <= last => Range::Part(first, (last + 1).min(size)),
        (Ok(first), Err(_)) if last.is_empty() => Range::Part(first, size),
        (Err(_), Ok(last)) if first.is_empty() && last > 0 && size > 0 => {
            Range::Part(size.saturating_sub(last), size)
        }
        (Err(_), Ok(_)) if first.is_empty() => Range::Beyond,
        _ => Range::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_rfc_has_them() {
        assert_eq!(parse("bytes=0-0", 10), Range::Part(0, 1));
        assert_eq!(parse("bytes=4-", 10), Range::Part(4, 10));
        assert_eq!(parse("bytes=-3", 10), Range::Part(7, 10));
        assert_eq!(parse("bytes=-30", 10), Range::Part(0, 10));
        assert_eq!(parse("bytes=2-30", 10), Range::Part(2, 10));
        assert_eq!(parse("bytes=10-", 10), Range::Beyond);
        assert_eq!(parse("bytes=-0", 10), Range::Beyond);
        assert_eq!(parse("bytes=5-2", 10), Range::Whole);
        assert_eq!(parse("bytes=0-1,3-4", 10), Range::Whole);
        assert_eq!(parse("items=0-1", 10), Range::Whole);
    }

    #[test]
    fn what_the_client_has_is_told_by_tag_before_date() {
        let mut head = Head { status: 200, ..Head::default() };
        head.headers.insert("last-modified".to_owned(), "Sun, 29 Nov 2026 10:00:00 GMT".to_owned());
        let since =
            |date: &str| Wishes { if_modified_since: Some(date.to_owned()), ..Wishes::default() };
        assert!(is_unchanged(&since("Sun, 29 Nov 2026 10:00:00 GMT"), &head));
        assert!(is_unchanged(&since("Mon, 30 Nov 2026 10:00:00 GMT"), &head));
        assert!(!is_unchanged(&since("Sat, 28 Nov 2026 10:00:00 GMT"), &head));
        let mut wishes = since("Mon, 30 Nov 2026 10:00:00 GMT");
        wishes.if_none_match = Some("\"a\", W/\"b\"".to_owned());
        assert!(!is_unchanged(&wishes, &head));
        head.headers.insert("etag".to_owned(), "\"b\"".to_owned());
        assert!(is_unchanged(&wishes, &head));
    }
}
