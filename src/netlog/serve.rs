//! The doors: connections in, TLS by the name that the client says, HTTP/1.1 and HTTP/2, questions for
//! names. What is none of these is refused and named.

use std::convert::Infallible;
use std::error::Error as StdError;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::LazyConfigAcceptor;

use super::ahead::{Ahead, Seen};
use super::ask::{Ask, Key, MOST_SENT};
use super::flight::Flight;
use super::reply::{self, Served};
use super::shared::Shared;
use super::{Doors, Method, dns};
use crate::http::Url;

/// How long to wait when no descriptor is left for a connection.
const BREATH: Duration = Duration::from_millis(50);

/// A step at its doors.
#[derive(Clone)]
pub(super) struct Guest {
    pub(super) shared: Arc<Shared>,
    pub(super) step: Arc<str>,
}

#[derive(Clone, Copy)]
enum Door {
    Plain,
    Tls,
    Names { v6: bool },
}

/// Serves all doors, on the runtime whose context this is called in.
pub(super) fn open(guest: &Guest, doors: Doors) -> io::Result<Vec<JoinHandle<()>>> {
    let v6 = doors
        .https
        .iter()
        .chain(&doors.http)
        .any(|door| door.local_addr().is_ok_and(|address| address.is_ipv6()));
    let kinds =
        [(doors.http, Door::Plain), (doors.https, Door::Tls), (doors.dns_tcp, Door::Names { v6 })];
    let mut tasks = Vec::new();
    for (listeners, door) in kinds {
        for listener in listeners {
            listener.set_nonblocking(true)?;
            let listener = TcpListener::from_std(listener)?;
            tasks.push(tokio::spawn(accept(guest.clone(), listener, door)));
        }
    }
    for socket in doors.dns_udp {
        socket.set_nonblocking(true)?;
        tasks.push(tokio::spawn(names(guest.clone(), UdpSocket::from_std(socket)?, v6)));
    }
    Ok(tasks)
}

/// Takes connections until the task is ended, which ends them too.
async fn accept(guest: Guest, listener: TcpListener, door: Door) {
    let mut connections = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                stream.set_nodelay(true).ok();
                let guest = guest.clone();
                match door {
                    Door::Plain => connections.spawn(plain(guest, stream)),
                    Door::Tls => connections.spawn(encrypted(guest, stream)),
                    Door::Names { v6 } => connections.spawn(names_by_stream(guest, stream, v6)),
                };
            }
            Err(_) => tokio::time::sleep(BREATH).await,
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn plain(guest: Guest, stream: TcpStream) {
    if let Err(error) = http1(&guest, stream, "http", None).await
        && error.is_parse()
    {
        guest.refuse("something that is not HTTP on the port of HTTP".to_owned());
    }
}

async fn encrypted(guest: Guest, stream: TcpStream) {
    let here = stream.local_addr().map(|address| address.ip().to_string()).unwrap_or_default();
    let acceptor = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream);
    let start = match acceptor.await {
        Ok(start) => start,
        Err(error) => {
            if error.kind() == io::ErrorKind::InvalidData {
                guest.refuse("something that is not TLS on the port of HTTPS".to_owned());
            }
            return;
        }
    };
    let name = start.client_hello().server_name().map_or(here, str::to_owned);
    let config = match guest.shared.authority().server(&name) {
        Ok(config) => config,
        Err(error) => {
            guest.refuse(format!("TLS with `{name}`: {error}"));
            return;
        }
    };
    let stream = match start.into_stream(config).await {
        Ok(stream) => stream,
        Err(error) => {
            guest.note_distrust(&name, &error);
            return;
        }
    };
    let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let outcome = if h2 {
        http2(&guest, stream, Some(name.clone())).await
    } else {
        http1(&guest, stream, "https", Some(name.clone())).await
    };
    if let Err(error) = outcome {
        guest.note_distrust(&name, &error);
    }
}

async fn http1(
    guest: &Guest,
    stream: impl AsyncRead + AsyncWrite + Unpin,
    scheme: &'static str,
    name: Option<String>,
) -> hyper::Result<()> {
    let name = Arc::new(name);
    let mut expected = Expected { guest, flights: Vec::new() };
    let ahead = Ahead::new(stream, |seen: Seen| expected.add(&seen, scheme));
    hyper::server::conn::http1::Builder::new()
        .header_read_timeout(None)
        .auto_date_header(false)
        .half_close(true)
        .pipeline_flush(true)
        .serve_connection(
            TokioIo::new(ahead),
            service_fn(|request| handle(guest.clone(), request, scheme, Arc::clone(&name))),
        )
        .await
}

async fn http2(
    guest: &Guest,
    stream: impl AsyncRead + AsyncWrite + Unpin,
    name: Option<String>,
) -> hyper::Result<()> {
    let (name, guest) = (Arc::new(name), guest.clone());
    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .auto_date_header(false)
        .serve_connection(
            TokioIo::new(stream),
            service_fn(move |request| handle(guest.clone(), request, "https", Arc::clone(&name))),
        )
        .await
}

/// What a connection has sent and the server not come to yet.
struct Expected<'a> {
    guest: &'a Guest,
    flights: Vec<(Key, Arc<Flight>)>,
}

impl Expected<'_> {
    /// Begins the transfer for a request.
    fn add(&mut self, seen: &Seen, scheme: &str) {
        let host = seen.headers.get("host").and_then(|host| host.to_str().ok());
        let url = match host {
            _ if seen.target.contains("://") => Url::parse(&seen.target),
            Some(host) => Url::parse(&format!("{scheme}://{host}{}", seen.target)),
            None => return,
        };
        if let Ok(url) = url
            && !is_own(&url)
        {
            let ask = Ask::new(Method::Get, url, &seen.headers, Bytes::new());
            self.flights.extend(self.guest.shared.expect(&ask));
        }
    }
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        // A client that hung up asks for nothing any more.
        self.guest.shared.expect_no_more(std::mem::take(&mut self.flights));
    }
}

/// Answers a request; whatever happens is an answer.
async fn handle(
    guest: Guest,
    request: Request<Incoming>,
    scheme: &'static str,
    name: Arc<Option<String>>,
) -> Result<Response<Served>, Infallible> {
    Ok(match read(&guest, request, scheme, name.as_deref()).await {
        Ok(ask) => guest.answer(ask).await,
        Err(response) => response,
    })
}

/// Reads a request as far as it can be recorded.
async fn read(
    guest: &Guest,
    request: Request<Incoming>,
    scheme: &str,
    name: Option<&str>,
) -> Result<Ask, Response<Served>> {
    let (head, body) = request.into_parts();
    let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
    let host = match (head.uri.authority(), header("host"), name) {
        (Some(authority), _, _) => authority.as_str(),
        (None, Some(host), _) => host,
        (None, None, Some(name)) => name,
        (None, None, None) => return Err(reply::text(400, "the request names no host")),
    };
    if head.method == hyper::Method::CONNECT {
        return Err(guest.refuse_answering(format!("a tunnel to {host}")));
    }
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let Ok(url) = Url::parse(&format!("{scheme}://{host}{path}")) else {
        return Err(reply::text(400, "the request's URL can't be read"));
    };
    guest.shared.asked_for(url.host_str().unwrap_or_default());
    if is_own(&url) {
        // The step means itself, and this port is not its own; the host's is none of its business.
        return Err(reply::text(
            502,
            &format!("{} is the step itself, where ports 80 and 443 are taken", url.authority()),
        ));
    }
    if header("upgrade").is_some_and(|to| to.to_ascii_lowercase().contains("websocket")) {
        return Err(guest.refuse_answering(format!("a WebSocket to {}", url.authority())));
    }
    let method = match head.method {
        hyper::Method::GET => Method::Get,
        hyper::Method::HEAD => Method::Head,
        hyper::Method::POST => Method::Post,
        ref other => {
            let what = format!("{other} on {}", url.authority());
            return Err(guest.refuse_answering(what));
        }
    };
    let sent = if method == Method::Post {
        match Limited::new(body, MOST_SENT).collect().await {
            Ok(sent) => sent.to_bytes(),
            Err(error) if error.is::<http_body_util::LengthLimitError>() => {
                let what = format!("a POST of more than {MOST_SENT} bytes to {}", url.authority());
                guest.refuse(what.clone());
                return Err(reply::text(413, &format!("{what} can't be recorded")));
            }
            Err(_) => return Err(reply::text(400, "the request's body broke off")),
        }
    } else {
        Bytes::new()
    };
    Ok(Ask::new(method, url, &head.headers, sent))
}

/// Tells whether a URL is of the machine itself.
fn is_own(url: &Url) -> bool {
    let name = url.host_str().unwrap_or_default().trim_end_matches('.').to_ascii_lowercase();
    let bare = name.trim_matches(['[', ']']);
    match bare.parse::<std::net::IpAddr>() {
        Ok(std::net::IpAddr::V4(address)) => {
            address.is_loopback() || address.is_unspecified() || address.is_link_local()
        }
        Ok(std::net::IpAddr::V6(address)) => {
            address.is_loopback()
                || address.is_unspecified()
                || address.to_ipv4_mapped().is_some_and(|address| address.is_loopback())
        }
        Err(_) => name == "localhost" || name.ends_with(".localhost"),
    }
}

async fn names(guest: Guest, socket: UdpSocket, v6: bool) {
    let mut message = vec![0; dns::LONGEST];
    loop {
        match socket.recv_from(&mut message).await {
            Ok((length, from)) => {
                if let Some((reply, name)) = dns::answer(&message[..length], v6) {
                    guest.looked_up(name);
                    socket.send_to(&reply, from).await.ok();
                }
            }
            Err(_) => tokio::time::sleep(BREATH).await,
        }
    }
}

/// Answers questions for names by TCP, each with its length before it.
async fn names_by_stream(guest: Guest, mut stream: TcpStream, v6: bool) {
    while let Ok(length) = stream.read_u16().await {
        let mut message = vec![0; usize::from(length)];
        if stream.read_exact(&mut message).await.is_err() {
            return;
        }
        let Some((reply, name)) = dns::answer(&message, v6) else { return };
        guest.looked_up(name);
        let mut framed = u16::try_from(reply.len()).unwrap_or(0).to_be_bytes().to_vec();
        framed.extend(reply);
        if stream.write_all(&framed).await.is_err() {
            return;
        }
    }
}

impl Guest {
    /// Notes what can't be recorded.
    pub(super) fn refuse(&self, what: String) {
        self.shared.refuse(&self.step, what);
    }

    fn refuse_answering(&self, what: String) -> Response<Served> {
        let answer = reply::text(501, &format!("{what} can't be recorded"));
        self.refuse(what);
        answer
    }

    /// Notes that a program hung up on the build's authority.
    fn note_distrust(&self, name: &str, error: &(dyn StdError + 'static)) {
        let mut cause = Some(error);
        while let Some(error) = cause {
            let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            let tls = error
                .downcast_ref::<rustls::Error>()
                .or_else(|| inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()));
            if let Some(rustls::Error::AlertReceived(alert)) = tls
                && *alert != rustls::AlertDescription::CloseNotify
            {
                let what = format!(
                    "TLS with `{name}`: the program does not trust the build's authority ({alert:?})"
                );
                self.refuse(what);
                return;
            }
            cause = error.source();
        }
    }

    fn looked_up(&self, name: Option<String>) {
        if let Some(name) = name {
            self.shared.looked_up(&self.step, name);
        }
    }
}
