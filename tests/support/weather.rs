//! Bad weather between a client and a real registry: a proxy that on a seeded schedule cuts
//! connections, delays, refuses, shortens, flips a byte, sends a blob's readers to another host,
//! forgets upload sessions, and does what it was asked but loses the answer. It may take small requests
//! only.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What happens to one request and its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Event {
    /// The request ends in the middle.
    CutRequest,
    /// The answer ends in the middle.
    CutAnswer,
    /// The answer says that it is shorter than it is.
    Shorten,
    /// A byte of the answer is another one.
    Flip,
    /// All of it comes late.
    Delay,
    /// The registry never hears of it, and this is the answer.
    Refuse(u16),
    /// A blob is at another host.
    Redirect,
    /// The upload's session is not known any more.
    Forget,
    /// The registry did it, and nobody hears of that.
    LoseAnswer,
    /// The request is too large to be passed on.
    TooLarge,
}

/// The proxy. Its threads end with the test's process.
pub(crate) struct Weather {
    port: u16,
    fair: Arc<AtomicBool>,
    happened: Arc<Mutex<Vec<Event>>>,
}

struct Sky {
    server: String,
    /// Where the same blobs are had without any weather, under another name.
    elsewhere: String,
    seed: u64,
    /// No request may be larger.
    limit: u64,
    requests: AtomicU64,
    fair: Arc<AtomicBool>,
    happened: Arc<Mutex<Vec<Event>>>,
}

impl Weather {
    /// Stands before the registry at `server`; what happens follows from the seed and the order in
    /// which requests come.
    pub(crate) fn over(server: &str, seed: u64) -> Weather {
        Weather::over_with_limit(server, seed, u64::MAX)
    }

    /// The same, with a limit for what a request may bring.
    pub(crate) fn over_with_limit(server: &str, seed: u64, limit: u64) -> Weather {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (fair, happened) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let sky = Arc::new(Sky {
            server: server.to_owned(),
            elsewhere: server.replace("127.0.0.1", "localhost"),
            seed,
            limit,
            requests: AtomicU64::new(0),
            fair: Arc::clone(&fair),
            happened: Arc::clone(&happened),
        });
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let sky = Arc::clone(&sky);
                thread::spawn(move || sky.pass(&client));
            }
        });
        Weather { port, fair, happened }
    }

    /// Returns `127.0.0.1:PORT` of this end.
    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Ends all trouble.
    pub(crate) fn clear_up(&self) {
        self.fair.store(true, Ordering::SeqCst);
    }

    /// Returns what has happened.
    pub(crate) fn happened(&self) -> Vec<Event> {
        self.happened.lock().unwrap().clone()
    }
}

impl Sky {
    /// Chooses what happens to a request, or nothing, and a number to do it by.
    fn choose(&self, method: &str, target: &str, length: u64) -> (Option<Event>, u64) {
        if length > self.limit {
            self.happened.lock().unwrap().push(Event::TooLarge);
            return (Some(Event::TooLarge), 0);
        }
        let number = self.requests.fetch_add(1, Ordering::SeqCst);
        let mut state = (self.seed << 20 | number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for shift in [30, 27, 31] {
            state = (state ^ state >> shift).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        }
        if self.fair.load(Ordering::SeqCst) {
            return (None, state);
        }
        let gets_blob = method == "GET" && target.contains("/blobs/sha256:");
        let in_session = target.contains("/blobs/uploads/") && method != "POST";
        let event = match state >> 8 & 127 {
            0..=5 => Event::CutRequest,
            6..=11 => Event::CutAnswer,
            12..=15 => Event::Shorten,
            16..=19 => Event::Flip,
            20..=23 => Event::Delay,
            24..=26 => Event::Refuse(429),
            27..=28 => Event::Refuse(500),
            29..=30 => Event::Refuse(502),
            31..=32 => Event::Refuse(503),
            33..=36 => Event::LoseAnswer,
            37..=46 if gets_blob => Event::Redirect,
            37..=40 if in_session => Event::Forget,
            _ => return (None, state >> 16),
        };
        self.happened.lock().unwrap().push(event);
        (Some(event), state >> 16)
    }

    fn pass(&self, client: &TcpStream) -> io::Result<()> {
        let mut from_client = BufReader::new(client.try_clone()?);
        let request = read_head(&mut from_client)?;
        let mut words = request.split(' ');
        let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let length = header(&request, "content-length").and_then(|text| text.parse().ok());
        let length = length.unwrap_or(0);
        let (event, number) = self.choose(method, target, length);
        let instead = match event {
            Some(Event::Refuse(429)) => Some(("429", "Retry-After: 0".to_owned(), "")),
            Some(Event::Refuse(503)) => Some(("503", "X: X".to_owned(), "")),
            Some(Event::Refuse(502)) => Some(("502", "X: X".to_owned(), "")),
            Some(Event::TooLarge) => Some(("413", "X: X".to_owned(), "")),
            Some(Event::Refuse(_)) => Some(("500", "X: X".to_owned(), "")),
            Some(Event::Forget) => {
                Some(("404", "X: X".to_owned(), r#"{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN"}]}"#))
            }
            Some(Event::Redirect) => {
                Some(("307", format!("Location: http://{}{target}", self.elsewhere), ""))
            }
            _ => None,
        };
        if let Some((status, more, body)) = instead {
            // All of the request is taken, so that the client comes to read this.
            io::copy(&mut from_client.take(length), &mut io::sink())?;
            let length = body.len();
            write!(
                &mut &*client,
                "HTTP/1.1 {status} X\r\n{more}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            )?;
            return client.shutdown(Shutdown::Both);
        }
        if event == Some(Event::Delay) {
            thread::sleep(Duration::from_millis(20 + number % 40));
        }
        let server = TcpStream::connect(&self.server)?;
        let cut = (event == Some(Event::CutRequest)).then_some(number % 200_000);
        let mut to_server = server.try_clone()?;
        write!(to_server, "{}Connection: close\r\n\r\n", without(&request, "connection"))?;
        let (mut upward, hang_up) = (from_client, client.try_clone()?);
        thread::spawn(move || {
            let mut body = upward.by_ref().take(cut.unwrap_or(u64::MAX));
            io::copy(&mut body, &mut to_server).ok();
            if cut.is_some() {
                to_server.shutdown(Shutdown::Both).ok();
                hang_up.shutdown(Shutdown::Both).ok();
            }
        });
        let result = answer(client, &server, event, number);
        client.shutdown(Shutdown::Both).ok();
        server.shutdown(Shutdown::Both).ok();
        result
    }
}

/// Passes the registry's answer on, as the weather has it.
fn answer(
    mut client: &TcpStream,
    server: &TcpStream,
    event: Option<Event>,
    number: u64,
) -> io::Result<()> {
    let mut from_server = BufReader::new(server);
    let mut head = read_head(&mut from_server)?;
    let length = header(&head, "content-length").and_then(|text| text.parse::<u64>().ok());
    let at = |length: Option<u64>| number % length.unwrap_or(1).max(1);
    match event {
        Some(Event::LoseAnswer) => {
            io::copy(&mut from_server, &mut io::sink())?;
            return Ok(());
        }
        Some(Event::Shorten) if length.is_some_and(|length| length > 0) => {
            head = without(&head, "content-length");
            head.push_str(&format!("Content-Length: {}\r\n", at(length)));
            write!(client, "{head}\r\n")?;
            io::copy(&mut from_server.take(at(length)), &mut client)?;
            return Ok(());
        }
        _ => write!(client, "{head}\r\n")?,
    }
    match event {
        Some(Event::CutAnswer) => {
            io::copy(&mut from_server.take(at(length)), &mut client)?;
        }
        Some(Event::Flip) => {
            io::copy(&mut from_server.by_ref().take(at(length)), &mut client)?;
            let mut byte = [0];
            if from_server.read(&mut byte)? == 1 {
                client.write_all(&[byte[0] ^ 1])?;
            }
            io::copy(&mut from_server, &mut client)?;
        }
        _ => {
            io::copy(&mut from_server, &mut client)?;
        }
    }
    Ok(())
}

/// Reads a message's first line and headers, without the empty line.
fn read_head(stream: &mut impl BufRead) -> io::Result<String> {
    let mut head = String::new();
    loop {
        let before = head.len();
        if stream.read_line(&mut head)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if &head[before..] == "\r\n" {
            head.truncate(before);
            return Ok(head);
        }
    }
}

fn is_named(line: &str, name: &str) -> bool {
    line.split_once(':').is_some_and(|(found, _)| found.eq_ignore_ascii_case(name))
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let line = head.lines().find(|line| is_named(line, name))?;
    line.split_once(':').map(|(_, value)| value.trim())
}

fn without(head: &str, name: &str) -> String {
    head.split_inclusive("\r\n").filter(|line| !is_named(line, name)).collect()
}
