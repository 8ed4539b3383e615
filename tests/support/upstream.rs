//! The web, as a proxy shows it: pages under any host's name, which a test changes, counts and cuts off.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A page.
#[derive(Clone)]
struct Page {
    body: Vec<u8>,
    headers: Vec<(String, String)>,
    status: u16,
}

#[derive(Default)]
struct Web {
    pages: BTreeMap<String, Page>,
    asked: BTreeMap<String, usize>,
    cut: bool,
}

/// A running proxy; it stops with the process of the tests.
pub(crate) struct Upstream {
    address: String,
    web: Arc<Mutex<Web>>,
}

impl Upstream {
    /// Starts one without pages.
    pub(crate) fn new() -> Upstream {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let web = Arc::new(Mutex::new(Web::default()));
        let shared = Arc::clone(&web);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let web = Arc::clone(&shared);
                // A client that goes away is none of the server's troubles.
                std::thread::spawn(move || answer(&stream, &web).ok());
            }
        });
        Upstream { address, web }
    }

    /// What `http_proxy` has to say.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Puts a page up, dated like a file of a mirror.
    pub(crate) fn page(&self, url: &str, body: impl AsRef<[u8]>, date: &str) -> &Upstream {
        let headers = vec![("Last-Modified".to_owned(), date.to_owned())];
        let page = Page { body: body.as_ref().to_vec(), headers, status: 200 };
        self.web.lock().unwrap().pages.insert(url.to_owned(), page);
        self
    }

    /// Puts a page up for those who accept its type; others get another form of it. Nothing says that
    /// there are two.
    pub(crate) fn page_as(&self, url: &str, kind: &str, body: &str) -> &Upstream {
        let headers = vec![("Content-Type".to_owned(), kind.to_owned())];
        let page = Page { body: body.into(), headers, status: 200 };
        self.web.lock().unwrap().pages.insert(url.to_owned(), page);
        self
    }

    /// Puts a redirect up.
    pub(crate) fn redirect(&self, url: &str, to: &str) -> &Upstream {
        let headers = vec![("Location".to_owned(), to.to_owned())];
        let page = Page { body: Vec::new(), headers, status: 302 };
        self.web.lock().unwrap().pages.insert(url.to_owned(), page);
        self
    }

    /// Takes a page down.
    pub(crate) fn gone(&self, url: &str) {
        self.web.lock().unwrap().pages.remove(url);
    }

    /// Has every connection from now on end without an answer.
    pub(crate) fn cut(&self) {
        self.web.lock().unwrap().cut = true;
    }

    /// How often a page was asked for.
    pub(crate) fn asked(&self, url: &str) -> usize {
        self.web.lock().unwrap().asked.get(url).copied().unwrap_or(0)
    }

    /// How often anything was.
    pub(crate) fn asked_in_all(&self) -> usize {
        self.web.lock().unwrap().asked.values().sum()
    }
}

fn answer(mut stream: &TcpStream, web: &Mutex<Web>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream);
    loop {
        let mut request = String::new();
        if lines.read_line(&mut request)? == 0 {
            return Ok(());
        }
        let mut length = 0;
        let (mut since, mut accept) = (None, String::new());
        loop {
            let mut line = String::new();
            lines.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.trim().parse().unwrap_or(0),
                "accept" => value.trim().clone_into(&mut accept),
                "if-modified-since" => since = Some(value.trim().to_owned()),
                _ => {}
            }
        }
        std::io::copy(&mut (&mut lines).take(length), &mut std::io::sink())?;
        let url = request.split(' ').nth(1).unwrap_or("/").to_owned();
        let page = {
            let mut web = web.lock().unwrap();
            if web.cut {
                return Ok(());
            }
            *web.asked.entry(url.clone()).or_default() += 1;
            web.pages.get(&url).cloned()
        };
        let mut page = page.unwrap_or_else(|| Page {
            body: b"no such page\n".to_vec(),
            headers: Vec::new(),
            status: 404,
        });
        let kind = page.headers.iter_mut().find(|(name, _)| name == "Content-Type");
        if let Some((_, kind)) = kind.filter(|(_, kind)| !accept.contains(kind.as_str())) {
            "text/html".clone_into(kind);
            page.body = b"<html>another form</html>".to_vec();
        }
        let dated = |(name, value): &(String, String)| {
            name == "Last-Modified" && Some(value) == since.as_ref()
        };
        let unchanged = page.headers.iter().any(dated);
        let status = if unchanged { 304 } else { page.status };
        let mut head = format!("HTTP/1.1 {status} Said\r\n");
        for (name, value) in &page.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !unchanged {
            head.push_str(&format!("Content-Length: {}\r\n", page.body.len()));
        }
        write!(stream, "{head}\r\n")?;
        if !unchanged && !request.starts_with("HEAD ") {
            stream.write_all(&page.body)?;
        }
        stream.flush()?;
    }
}
