//! The runtime in the background, and one exchange of request and answer over it.

use std::future::poll_fn;
use std::io::{self, Read};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, HeaderValue};
use reqwest::{Body, Url};
use tokio::runtime::{Builder, Handle};
use tokio::sync::{mpsc, oneshot};
use tokio::task;
use tokio::time::timeout;

use super::{Config, Error, Payload, Request, Response, Trust, redact, tls};

/// Request bodies move in pieces of this size: large enough that handing one over costs nothing
/// beside hashing it.
const PIECE: usize = 512 << 10;

/// Holds the runtime's thread and the connections.
pub(super) struct Engine {
    client: reqwest::Client,
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Engine {
    pub(super) fn start(config: &Config, trust: &Trust) -> Result<Engine, Error> {
        let client = tls::client(config, trust)?;
        let thread = |source| Error::Thread { source };
        let runtime = Builder::new_current_thread().enable_all().build().map_err(thread)?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new()
            .name("http".to_owned())
            .spawn(move || {
                // Ends when told to, and when the engine is gone without a word.
                runtime.block_on(stopped).ok();
                runtime.shutdown_background();
            })
            .map_err(thread)?;
        Ok(Engine { client, handle, stop: Some(stop), thread: Some(thread) })
    }

    /// Waits on this thread for something that the runtime drives; `None` when it takes too long.
    pub(super) fn wait<F: Future>(&self, most: Duration, future: F) -> Option<F::Output> {
        self.handle.block_on(async { timeout(most, future).await.ok() })
    }

    /// Sends the request to `url` and returns once the answer's headers are here.
    pub(super) fn exchange(
        self: &Arc<Engine>,
        config: &Config,
        request: &Request<'_>,
        url: &Url,
        trusted: bool,
    ) -> Result<Response, Error> {
        let mut outgoing = reqwest::Request::new(request.method().clone(), url.clone());
        let headers = outgoing.headers_mut();
        *headers = request.headers().clone();
        // A layer that was compressed once more on the way would not have its digest.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if !trusted {
            headers.remove(AUTHORIZATION);
        }
        // How long to wait for a relayed answer is the asking program's to say.
        let patience =
            if request.is_relayed() { config.commit_timeout } else { config.answer_timeout };
        let answer = match request.carried() {
            Payload::Empty => {
                if matches!(request.method().as_str(), "POST" | "PUT" | "PATCH") {
                    headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
                }
                self.wait(patience, self.client.execute(outgoing))
            }
            Payload::Bytes(bytes) => {
                *outgoing.body_mut() = Some(Body::from(Bytes::copy_from_slice(bytes)));
                self.wait(patience, self.client.execute(outgoing))
            }
            Payload::Stream { size, open } => {
                if let Some(size) = size {
                    headers.insert(CONTENT_LENGTH, HeaderValue::from(*size));
                }
                let body = open().map_err(|source| Error::Body { url: redact(url), source })?;
                self.upload(config, outgoing, body, *size)?
            }
        };
        match answer {
            None => Err(Error::Silence { url: redact(url), after: patience }),
            Some(Err(error)) => Err(Error::send(request.method(), url, &error)),
            Some(Ok(inner)) => {
                Ok(Response::new(Arc::clone(self), inner, url.clone(), config.idle_timeout))
            }
        }
    }

    /// Sends a body while reading it on this thread. A server that answers before it has read all
    /// (401, 413) is heard at once.
    fn upload(
        &self,
        config: &Config,
        mut outgoing: reqwest::Request,
        mut body: Box<dyn Read + Send + '_>,
        size: Option<u64>,
    ) -> Result<Option<reqwest::Result<reqwest::Response>>, Error> {
        let url = outgoing.url().clone();
        let (pieces, received) = mpsc::channel(2);
        *outgoing.body_mut() = Some(Body::wrap_stream(Pieces(received)));
        let mut answer = Answer(self.handle.spawn(self.client.execute(outgoing)));
        let mut left = size.unwrap_or(u64::MAX);
        while left > 0 {
            let piece = match read_piece(&mut *body, left, size.is_some()) {
                Ok(piece) => piece,
                Err(source) => return Err(Error::Body { url: redact(&url), source }),
            };
            if piece.is_empty() {
                break;
            }
            left -= piece.len() as u64;
            let sent = self.wait(config.idle_timeout, race(&mut answer, pieces.send(Ok(piece))));
            match sent {
                None => {
                    return Err(Error::Stalled { url: redact(&url), after: config.idle_timeout });
                }
                Some(Raced::Answer(early)) => return Ok(Some(early)),
                Some(Raced::Sent) => {}
            }
        }
        drop(pieces);
        match self.wait(config.commit_timeout, &mut answer) {
            Some(answer) => Ok(Some(answer)),
            None => Err(Error::Silence { url: redact(&url), after: config.commit_timeout }),
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// Reads the next piece: at least one byte where it is known that more must come.
fn read_piece(body: &mut dyn Read, left: u64, known: bool) -> io::Result<Bytes> {
    let most = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE);
    let mut piece = vec![0; most];
    let mut filled = 0;
    while filled < most {
        match body.read(&mut piece[filled..]) {
            Ok(0) if !known => break,
            Ok(0) => {
                let short = format!("{left} bytes are missing at the end");
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, short));
            }
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    piece.truncate(filled);
    Ok(Bytes::from(piece))
}

/// The answer to come; when nobody waits for it any more the request is given up, and with it the
/// connection, for its body is not complete.
struct Answer(task::JoinHandle<reqwest::Result<reqwest::Response>>);

impl Future for Answer {
    type Output = reqwest::Result<reqwest::Response>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match Pin::new(&mut self.0).poll(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(answer)) => Poll::Ready(answer),
            // It is cancelled only when dropped; what is left is a panic, which goes on here.
            Poll::Ready(Err(error)) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Poll::Pending,
            },
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.0.abort();
    }
}

enum Raced {
    Sent,
    Answer(reqwest::Result<reqwest::Response>),
}

/// Waits until a piece is taken or the answer is there.
async fn race<E>(answer: &mut Answer, send: impl Future<Output = Result<(), E>>) -> Raced {
    let mut send = pin!(send);
    let mut given_up = false;
    poll_fn(|context| {
        if let Poll::Ready(answer) = Pin::new(&mut *answer).poll(context) {
            return Poll::Ready(Raced::Answer(answer));
        }
        if given_up {
            return Poll::Pending;
        }
        match send.as_mut().poll(context) {
            Poll::Ready(Ok(())) => Poll::Ready(Raced::Sent),
            // Nobody reads the body any more, so the answer or an error is on its way.
            Poll::Ready(Err(_)) => {
                given_up = true;
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// The pieces of a body as reqwest takes them.
struct Pieces(mpsc::Receiver<io::Result<Bytes>>);

impl futures_core::Stream for Pieces {
    type Item = io::Result<Bytes>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Bytes>>> {
        self.0.poll_recv(context)
    }
}
