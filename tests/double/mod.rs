//! A web server of a few lines that answers as a test tells it: the double of a registry, of a CDN or
//! of a token server, for what the real ones can't be made to do.
//!
//! Each request is a connection of its own, handed to the test's function with its number; the reply
//! says status, headers and body, and may lie about the body's length or end in the middle of it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// Returns a header's value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(has, _)| has.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// Returns `METHOD /path` without the query.
    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.method, self.target.split('?').next().unwrap())
    }
}

/// What to answer.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// How many bytes of the body are sent before the connection ends.
    sent: usize,
    chunked: bool,
    /// Whether it is left waiting there instead, or from the beginning.
    stalls: bool,
    silent: bool,
}

impl Reply {
    pub(crate) fn new(status: u16) -> Reply {
        Reply {
            status,
            headers: Vec::new(),
            body: Vec::new(),
            sent: usize::MAX,
            chunked: false,
            stalls: false,
            silent: false,
        }
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Reply {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn body(mut self, bytes: impl Into<Vec<u8>>) -> Reply {
        self.body = bytes.into();
        self
    }

    /// Ends the connection after so many bytes of the body.
    pub(crate) fn cut(mut self, sent: usize) -> Reply {
        self.sent = sent;
        self
    }

    /// Sends so many bytes of the body, and then nothing for as long as the client bears it.
    pub(crate) fn stall(self, sent: usize) -> Reply {
        Reply { stalls: true, ..self.cut(sent) }
    }

    /// Sends nothing at all for as long as the client bears it.
    pub(crate) fn silent(mut self) -> Reply {
        self.silent = true;
        self
    }

    /// Sends the body without saying how long it is.
    pub(crate) fn chunked(mut self) -> Reply {
        self.chunked = true;
        self
    }

    fn write(&self, stream: &mut TcpStream, head: bool) -> std::io::Result<()> {
        use std::fmt::Write as _;
        let mut text = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", self.status);
        for (name, value) in &self.headers {
            write!(text, "{name}: {value}\r\n").unwrap();
        }
        let says_length = self.headers.iter().any(|(name, _)| name == "Content-Length");
        if self.chunked {
            text.push_str("Transfer-Encoding: chunked\r\n");
        } else if !says_length && self.status != 204 {
            write!(text, "Content-Length: {}\r\n", self.body.len()).unwrap();
        }
        text.push_str("\r\n");
        stream.write_all(text.as_bytes())?;
        if head {
            return Ok(());
        }
        let body = &self.body[..self.sent.min(self.body.len())];
        if self.chunked {
            for piece in body.chunks(1000) {
                write!(stream, "{:x}\r\n", piece.len())?;
                stream.write_all(piece)?;
                stream.write_all(b"\r\n")?;
            }
            stream.write_all(b"0\r\n\r\n")
        } else {
            stream.write_all(body)
        }
    }
}

/// The server; it stops when dropped.
pub(crate) struct Double {
    address: std::net::SocketAddr,
    seen: Arc<Mutex<Vec<Request>>>,
    stop: Arc<AtomicBool>,
    eager: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Double {
    /// Starts a server that answers with what `reply` returns for a request and its number from 0.
    pub(crate) fn start(
        reply: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static,
    ) -> Double {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let eager = Arc::new(AtomicBool::new(false));
        let (reply, log, end) = (Arc::new(reply), Arc::clone(&seen), Arc::clone(&stop));
        let before = Arc::clone(&eager);
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if end.load(Ordering::SeqCst) {
                    return;
                }
                let (reply, log) = (Arc::clone(&reply), Arc::clone(&log));
                // A client that goes away is nothing to the server.
                let eager = before.load(Ordering::SeqCst);
                thread::spawn(move || serve(stream?, &*reply, &log, eager));
            }
        });
        Double { address, seen, stop, eager, thread: Some(thread) }
    }

    /// Has it answer when it has read a request's headers, and never read a body.
    pub(crate) fn answer_before_the_body(&self) {
        self.eager.store(true, Ordering::SeqCst);
    }

    /// Returns `127.0.0.1:PORT`.
    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    /// Returns what was asked so far.
    pub(crate) fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    /// Returns how many requests began with `line`, as `PUT /v2/`.
    pub(crate) fn count(&self, line: &str) -> usize {
        self.seen().iter().filter(|request| request.line().starts_with(line)).count()
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        TcpStream::connect(self.address).ok();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

fn serve(
    stream: TcpStream,
    reply: &(dyn Fn(&Request, usize) -> Reply + Send + Sync),
    log: &Mutex<Vec<Request>>,
    eager: bool,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return Ok(()) };
    let mut request = Request {
        method: method.to_owned(),
        target: target.to_owned(),
        headers: Vec::new(),
        body: Vec::new(),
    };
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        request.headers.push((name.to_owned(), value.trim().to_owned()));
    }
    let length = request.header("content-length").map_or(0, |length| length.parse().unwrap());
    if !eager {
        request.body.resize(length, 0);
        reader.read_exact(&mut request.body)?;
    }
    let number = {
        let mut log = log.lock().unwrap();
        log.push(request.clone());
        log.len() - 1
    };
    let mut stream = stream;
    let reply = reply(&request, number);
    if !reply.silent {
        reply.write(&mut stream, request.method == "HEAD")?;
    }
    if reply.silent || reply.stalls || eager {
        // Until the client hangs up, which has to come from itself. What it sends is not taken off
        // its hands.
        stream.set_read_timeout(Some(Duration::from_mins(10)))?;
        while !eager && reader.read(&mut [0; 1000])? > 0 {}
        if eager {
            thread::sleep(Duration::from_millis(1500));
        }
    }
    stream.shutdown(Shutdown::Both)
}
