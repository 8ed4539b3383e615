//! A web of a few hosts: a proxy as a host's network has one, behind which every name is a server of
//! the test's, over HTTP and over TLS that an authority of the test's vouches for.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use ocibuild::http::Config;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::{TempDir, temp_dir};

/// The proxy; it stops when dropped.
pub(crate) struct Web {
    inner: Arc<Inner>,
    dir: TempDir,
    thread: Option<JoinHandle<()>>,
}

struct Inner {
    address: std::net::SocketAddr,
    hosts: Mutex<BTreeMap<String, String>>,
    issuer: Issuer<'static, KeyPair>,
    key: KeyPair,
    stop: AtomicBool,
    passed: AtomicUsize,
}

impl Web {
    /// Starts a web of names and the servers (`127.0.0.1:PORT`, plain HTTP) behind them.
    pub(crate) fn start(hosts: &[(&str, String)]) -> Web {
        let dir = temp_dir();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(dir.path().join("ca.crt"), certificate.pem()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let hosts = hosts.iter().map(|(name, to)| ((*name).to_owned(), to.clone())).collect();
        let inner = Arc::new(Inner {
            address: listener.local_addr().unwrap(),
            hosts: Mutex::new(hosts),
            issuer: Issuer::new(params, key),
            key: KeyPair::generate().unwrap(),
            stop: AtomicBool::new(false),
            passed: AtomicUsize::new(0),
        });
        let web = Arc::clone(&inner);
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if web.stop.load(Ordering::SeqCst) {
                    return;
                }
                let web = Arc::clone(&web);
                // A client that goes away is nothing to the proxy.
                thread::spawn(move || web.serve(stream?));
            }
        });
        Web { inner, dir, thread: Some(thread) }
    }

    /// The authority's certificate, as `SSL_CERT_FILE` takes it.
    pub(crate) fn authority(&self) -> PathBuf {
        self.dir.path().join("ca.crt")
    }

    /// The proxy's URL.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.inner.address)
    }

    /// How a client of ours gets there.
    pub(crate) fn config(&self) -> Config {
        Config {
            certificates: Some(self.authority()),
            http_proxy: Some(self.url()),
            https_proxy: Some(self.url()),
            ..Config::default()
        }
    }

    /// Has a name lead to another server, or to none.
    pub(crate) fn moves(&self, name: &str, to: Option<String>) {
        let mut hosts = self.inner.hosts.lock().unwrap();
        match to {
            Some(to) => hosts.insert(name.to_owned(), to),
            None => hosts.remove(name),
        };
    }

    /// How many requests passed so far.
    pub(crate) fn passed(&self) -> usize {
        self.inner.passed.load(Ordering::SeqCst)
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.inner.stop.store(true, Ordering::SeqCst);
        TcpStream::connect(self.inner.address).ok();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

impl Inner {
    fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        let head = read_head(&mut BufReader::with_capacity(1, stream.try_clone()?))?;
        let line = head.lines().next().unwrap_or_default().to_owned();
        let mut words = line.split_whitespace();
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        if method == "CONNECT" {
            let name = target.split(':').next().unwrap_or_default();
            stream.write_all(b"HTTP/1.1 200 Connected\r\n\r\n")?;
            let mut secure = StreamOwned::new(self.tls(name), stream);
            let head = read_head(&mut BufReader::with_capacity(1, &mut secure))?;
            let outcome = self.relay(name, &head, &mut secure);
            if outcome.is_ok() {
                secure.conn.send_close_notify();
                secure.flush()?;
            }
            return secure.sock.shutdown(Shutdown::Both);
        }
        let rest = target.strip_prefix("http://").unwrap_or_default();
        let (name, path) = rest.split_once('/').unwrap_or((rest, ""));
        let head = head.replacen(target, &format!("/{path}"), 1);
        self.relay(name, &head, &mut stream).ok();
        stream.shutdown(Shutdown::Both)
    }

    /// Hands a request to the server behind a name, and its answer back, to their ends. An answer that
    /// breaks off is an error.
    fn relay(&self, name: &str, head: &str, client: &mut (impl Read + Write)) -> io::Result<()> {
        let to = self.hosts.lock().unwrap().get(name).cloned();
        let Some(to) = to else {
            return client.write_all(
                b"HTTP/1.1 502 No such host\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            );
        };
        self.passed.fetch_add(1, Ordering::SeqCst);
        let mut server = TcpStream::connect(to)?;
        server.write_all(head.as_bytes())?;
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
        });
        io::copy(&mut Read::take(&mut *client, length.unwrap_or(0)), &mut server)?;
        let mut piece = vec![0; 1 << 20];
        loop {
            let count = server.read(&mut piece)?;
            if count == 0 {
                return client.flush();
            }
            client.write_all(&piece[..count])?;
        }
    }

    fn tls(&self, name: &str) -> ServerConnection {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.use_authority_key_identifier_extension = true;
        let leaf = params.signed_by(&self.key, &self.issuer).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key)
            .unwrap();
        ServerConnection::new(Arc::new(config)).unwrap()
    }
}

fn read_head(reader: &mut impl BufRead) -> io::Result<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(head)
}
