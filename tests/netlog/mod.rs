//! The recorder of the network, between real clients and a web of doubles.

mod clients;
mod large;
mod record;
mod replay;
mod room;
mod vouch;

use std::fs::File;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use ocibuild::http::Client;
use ocibuild::netlog::{
    Authority, Bodies, BodyWriter, Doors, Earlier, Fetch, Mode, Netlog, Options, Record, Session,
};
use ocibuild::oci::{Digest, Hasher};
use ocibuild::report::Silent;

use self::room::Room;
use crate::support::web::Web;
use crate::support::{TempDir, temp_dir};

/// Bodies in a folder, by their digests.
struct Folder(PathBuf);

struct Written {
    folder: PathBuf,
    file: tempfile::NamedTempFile,
    hasher: Hasher,
    size: u64,
}

impl Folder {
    fn path(&self, digest: &Digest) -> PathBuf {
        self.0.join(digest.hex())
    }
}

impl Bodies for Folder {
    fn open(&self, digest: &Digest) -> io::Result<Option<File>> {
        match File::open(self.path(digest)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other.map(Some),
        }
    }

    fn discard(&self, digest: &Digest) -> io::Result<()> {
        std::fs::remove_file(self.path(digest))
    }

    fn begin(&self) -> io::Result<Box<dyn BodyWriter>> {
        Ok(Box::new(Written {
            folder: self.0.clone(),
            file: tempfile::NamedTempFile::new_in(&self.0)?,
            hasher: Hasher::new(),
            size: 0,
        }))
    }
}

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl BodyWriter for Written {
    fn reader(&self) -> io::Result<File> {
        self.file.reopen()
    }

    fn commit(self: Box<Self>) -> io::Result<(Digest, u64)> {
        let digest = self.hasher.finish();
        self.file.persist(self.folder.join(digest.hex()))?;
        Ok((digest, self.size))
    }
}

/// A recorder with doors on free ports, and what its clients need.
struct Bench {
    dir: TempDir,
    authority: Arc<Authority>,
}

/// A step at the doors.
struct Step<'a> {
    netlog: Netlog,
    session: Session,
    http: u16,
    https: u16,
    room: Option<Room>,
    bench: &'a Bench,
}

impl Bench {
    fn new() -> Bench {
        let dir = temp_dir();
        let authority = Authority::new().unwrap();
        std::fs::create_dir(dir.path().join("bodies")).unwrap();
        std::fs::write(dir.path().join("ca.crt"), authority.certificate_pem()).unwrap();
        Bench { dir, authority: Arc::new(authority) }
    }

    fn bodies(&self) -> PathBuf {
        self.dir.path().join("bodies")
    }

    fn netlog(&self, web: &Web, mode: Mode) -> Netlog {
        self.netlog_after(web, mode, Earlier::default())
    }

    fn netlog_after(&self, web: &Web, mode: Mode, earlier: Earlier) -> Netlog {
        let mut config = web.config();
        config.tries = 1;
        config.idle_timeout = std::time::Duration::from_secs(20);
        Netlog::new(Options {
            authority: Arc::clone(&self.authority),
            bodies: Arc::new(Folder(self.bodies())),
            client: Client::new(config),
            mode,
            earlier: Arc::new(earlier),
            report: Arc::new(Silent),
        })
        .unwrap()
    }

    fn step(&self, web: &Web, mode: Mode) -> Step<'_> {
        self.serve(web, mode, bind([0, 0, 0]), None)
    }

    /// A step in a network namespace of its own, where the doors have the ports that programs expect.
    fn room(&self, web: &Web, mode: Mode) -> Step<'_> {
        let room = Room::new(self.dir.path());
        let doors = room.within(|| bind([80, 443, 53]));
        self.serve(web, mode, doors, Some(room))
    }

    fn serve(&self, web: &Web, mode: Mode, doors: Doors, room: Option<Room>) -> Step<'_> {
        let netlog = self.netlog(web, mode);
        let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
        let (http, https) = (port(&doors.http[0]), port(&doors.https[0]));
        let session = netlog.serve(doors, "layer: run").unwrap();
        Step { netlog, session, http, https, room, bench: self }
    }

    fn record<'a>(&'a self, web: &Web) -> Step<'a> {
        self.step(web, Mode::Record)
    }

    fn replay<'a>(&'a self, web: &Web, record: &Record) -> Step<'a> {
        let fetches = record.fetches.clone();
        self.step(web, Mode::Replay { fetches, upstream: false })
    }
}

fn bind(ports: [u16; 3]) -> Doors {
    let [http, https, dns] = ports.map(|port| (IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    let tcp = |at| vec![TcpListener::bind(at).unwrap()];
    Doors {
        http: tcp(http),
        https: tcp(https),
        dns_udp: vec![UdpSocket::bind(dns).unwrap()],
        dns_tcp: tcp(dns),
    }
}

impl Step<'_> {
    /// Makes a command in the step's own namespace.
    fn inside(&self, program: &str) -> Command {
        self.room.as_ref().unwrap().command(program, &self.authority())
    }

    /// Makes a curl that every name leads to the recorder, and which trusts its authority.
    fn curl(&self) -> Command {
        let mut curl = Command::new("curl");
        curl.env_clear()
            .env("PATH", std::env::var("PATH").unwrap())
            .args(["--silent", "--show-error", "--max-time", "600"])
            .args(["--connect-to", &format!(":80:127.0.0.1:{}", self.http)])
            .args(["--connect-to", &format!(":443:127.0.0.1:{}", self.https)])
            .arg("--cacert")
            .arg(self.authority());
        curl
    }

    fn authority(&self) -> PathBuf {
        self.bench.dir.path().join("ca.crt")
    }

    /// Fetches a URL and returns its body; a status of 400 and above fails the test.
    fn get(&self, url: &str) -> Vec<u8> {
        ok(self.curl().args(["--fail", url]))
    }

    /// Returns the status and the body.
    fn try_get(&self, url: &str) -> (String, String) {
        let text = ok(self.curl().args(["--write-out", "\n%{http_code}", url]));
        let text = String::from_utf8(text).unwrap();
        let (body, status) = text.rsplit_once('\n').unwrap();
        (status.to_owned(), body.to_owned())
    }

    fn end(self) -> Record {
        let mut of_step = self.session.end();
        let of_layer = self.netlog.record();
        // There was one step; only the layer's record says who vouches.
        for (one, other) in of_step.fetches.iter_mut().zip(&of_layer.fetches) {
            one.authority = other.authority;
        }
        assert_eq!(of_step, of_layer);
        of_layer
    }
}

fn ok(command: &mut Command) -> Vec<u8> {
    crate::support::run(command).stdout
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap()
}

fn urls(record: &Record) -> Vec<&str> {
    record.fetches.iter().map(|fetch| fetch.url.as_str()).collect()
}

fn only(record: &Record) -> &Fetch {
    let [fetch] = &record.fetches[..] else { panic!("{:#?}", record.fetches) };
    fetch
}

fn has_body(folder: &Path, digest: &Digest) -> bool {
    std::fs::read(folder.join(digest.hex())).is_ok_and(|bytes| Digest::of(&bytes) == *digest)
}
