//! Names to addresses without the C library, whose resolver loads modules at run time and so works
//! in no static program: `/etc/hosts`, then the name servers of `/etc/resolv.conf`. What only a
//! module of the C library knows (NIS, LDAP, mDNS) is not found.

mod message;
mod settings;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket as Probe};
use std::path::Path;
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use message::{Answer, Kind};
use settings::Settings;

/// The most bytes of an answer by UDP; a longer one comes by TCP.
const DATAGRAM: usize = 1232;

/// A name that has no address.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("there is no host `{name}`")]
    NoSuchName { name: String },
    #[error("`{name}` is no name of a host")]
    BadName { name: String },
    #[error("no name server answers for `{name}`")]
    NoAnswer {
        name: String,
        #[source]
        source: io::Error,
    },
}

/// Resolves names by the machine's files, which are read anew for each name: a laptop that moves
/// gets other servers.
#[derive(Debug)]
pub(super) struct Resolver;

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let name = name.as_str().to_owned();
        Box::pin(async move {
            let settings = Settings::read(Path::new("/etc/resolv.conf"), Path::new("/etc/hosts"));
            let found = lookup(&Arc::new(settings), &name).await?;
            let addresses = found.into_iter().map(|address| SocketAddr::new(address, 0));
            Ok(Box::new(addresses) as Addrs)
        })
    }
}

/// Returns the addresses of a host, the ones to try first before others.
async fn lookup(settings: &Arc<Settings>, name: &str) -> Result<Vec<IpAddr>, Error> {
    if let Ok(address) = name.trim_matches(['[', ']']).parse() {
        return Ok(vec![address]);
    }
    let known = settings.hosts(name);
    if !known.is_empty() {
        return Ok(sorted(known));
    }
    let bare = name.trim_end_matches('.').to_ascii_lowercase();
    if bare == "localhost" || bare.ends_with(".localhost") {
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    for full in settings.candidates(name) {
        // Both at once; the runtime is that of the engine, which this is driven by.
        let (shared, asked) = (Arc::clone(settings), full.clone());
        let six = tokio::spawn(async move { ask(&shared, &asked, Kind::Six).await });
        let four = ask(settings, &full, Kind::Four).await;
        let six = six.await.unwrap_or_else(|_| Ok(Vec::new()));
        match (four, six) {
            // Some servers drop what they don't know, which for many was the newer kind.
            (Ok(four), six) if !four.is_empty() => {
                return Ok(sorted(four.into_iter().chain(six.unwrap_or_default()).collect()));
            }
            (_, Ok(six)) if !six.is_empty() => return Ok(sorted(six)),
            (Ok(_), Ok(_)) => {}
            (Err(error), _) | (_, Err(error)) => return Err(error),
        }
    }
    Err(Error::NoSuchName { name: name.to_owned() })
}

/// Puts the family first that this machine has a way to.
fn sorted(mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    // Connecting a datagram socket sends nothing, but needs a route.
    let reachable = |address: &IpAddr| {
        Probe::bind((Ipv6Addr::UNSPECIFIED, 0))
            .is_ok_and(|socket| socket.connect((*address, 443)).is_ok())
    };
    let six = addresses.iter().find(|address| address.is_ipv6()).is_some_and(reachable);
    addresses.sort_by_key(|address| address.is_ipv6() != six);
    addresses
}

/// Asks the servers, one after the other, for one kind of addresses; none means that there are none.
async fn ask(settings: &Settings, name: &str, kind: Kind) -> Result<Vec<IpAddr>, Error> {
    let mut last = io::Error::from(io::ErrorKind::TimedOut);
    for _ in 0..settings.attempts {
        for server in &settings.servers {
            let bad = || Error::BadName { name: name.to_owned() };
            let (id, question) = message::question(name, kind).ok_or_else(bad)?;
            let asked = timeout(settings.timeout, exchange(*server, id, &question)).await;
            match asked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(answer) => match message::read(&answer, id, kind) {
                    Some(Answer::Addresses(addresses)) => return Ok(addresses),
                    Some(Answer::NoSuchName) => return Ok(Vec::new()),
                    other => {
                        let text = match other {
                            Some(Answer::Failed(code)) => {
                                format!("{server} answers with code {code}")
                            }
                            _ => format!("{server} answers with something that is no answer"),
                        };
                        last = io::Error::other(text);
                    }
                },
                Err(error) => last = io::Error::new(error.kind(), format!("{server}: {error}")),
            }
        }
    }
    Err(Error::NoAnswer { name: name.to_owned(), source: last })
}

/// Sends one question to a server and returns what belongs to it.
async fn exchange(server: SocketAddr, id: u16, question: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr =
        if server.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut buffer = vec![0; DATAGRAM];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let answer = &buffer[..length];
        // Somebody may guess the port; what is not of this question is none of ours.
        if !message::belongs(answer, id, question) {
            continue;
        }
        if message::is_cut(answer) {
            return by_stream(server, question).await;
        }
        return Ok(answer.to_vec());
    }
}

async fn by_stream(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), question].concat()).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}
