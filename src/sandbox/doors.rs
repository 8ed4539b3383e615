//! The doors of a step's recorded network: sockets that are bound in its namespace before its
//! program runs, and served by the build from outside.
//!
//! ```text
//! step's namespace: lo alone
//!   every IPv4 and IPv6 address is local        (a local default route)
//!   :80, :443 over TCP, :53 over UDP and TCP    -> the build's recorder
//!   any other port                              -> refused at once, unless the step listens there
//! ```
//! So nothing is needed for a name or a bare address to reach the recorder, and nothing goes round
//! it: the namespace has no other way out. What was refused is seen by a raw socket, so that a step that
//! wants more than is recorded can be told so. A step that wants one of these ports for a server of its
//! own finds it taken.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6, TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use serde::{Deserialize, Serialize};

use crate::sandbox::sys;
use crate::sandbox::wire::Failure;

/// An address besides those of loopback: the C library takes a machine that has none for one
/// without IPv4, and then finds no address for a name.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
/// The loopback device is the first of every namespace.
const LOOPBACK: u32 = 1;

const HTTP: u16 = 80;
const HTTPS: u16 = 443;
const DNS: u16 = 53;

/// How many connections may wait to be taken.
const BACKLOG: i32 = 4096;

/// Sockets of a step's network, which listen at every address that the step may reach for.
#[derive(Debug)]
pub struct Doors {
    /// Port 80.
    pub http: Vec<TcpListener>,
    /// Port 443.
    pub https: Vec<TcpListener>,
    /// Port 53 over UDP.
    pub dns_udp: Vec<UdpSocket>,
    /// Port 53 over TCP.
    pub dns_tcp: Vec<TcpListener>,
    /// What found no door.
    pub refusals: Refusals,
}

/// Connections that were refused, but for those to loopback, where a step may wait for a server of its
/// own.
#[derive(Debug, Default)]
pub struct Refusals {
    /// A raw socket, on which the kernel's refusals arrive; some kernels may allow none.
    packets: Option<OwnedFd>,
}

impl Refusals {
    /// Returns the addresses that have refused a connection since it was last asked for; of IPv4, and
    /// as many as the socket holds.
    pub fn take(&self) -> BTreeSet<SocketAddrV4> {
        let mut found = BTreeSet::new();
        let mut packet = [0; 60];
        while let Some(socket) = &self.packets
            && let Ok((_, length)) = rustix::net::recv(socket, &mut packet, RecvFlags::DONTWAIT)
        {
            let header = usize::from(packet[0] & 0xf) * 4;
            let port = packet.get(header..header + 2).filter(|_| length >= header + 2);
            if let (Some([high, low]), [.., a, b, c, d]) = (port, &packet[..16]) {
                let port = u16::from_be_bytes([*high, *low]);
                found.insert(SocketAddrV4::new(Ipv4Addr::new(*a, *b, *c, *d), port));
            }
        }
        found
    }

    /// Opens the socket in this process' network namespace.
    fn watch() -> io::Result<OwnedFd> {
        const RST_ACK: u32 = 0x14;
        const LOOPBACK: u32 = 0x7f00_0000;
        let socket = rustix::net::socket_with(
            AddressFamily::INET,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(rustix::net::ipproto::TCP),
        )?;
        let statement = |code: u32, k: u32| libc::sock_filter {
            code: u16::try_from(code).unwrap_or(0),
            jt: 0,
            jf: 0,
            k,
        };
        let jump = |k: u32, jt: u8, jf: u8| libc::sock_filter {
            jt,
            jf,
            ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, k)
        };
        // Of TCP's header: the flags, and the number, which is 0 in the answer of a closed port.
        let filter = [
            statement(libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH, 0),
            statement(libc::BPF_LD | libc::BPF_B | libc::BPF_IND, 13),
            jump(RST_ACK, 0, 6),
            statement(libc::BPF_LD | libc::BPF_W | libc::BPF_IND, 4),
            jump(0, 0, 4),
            statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 12),
            statement(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0xff00_0000),
            jump(LOOPBACK, 1, 0),
            statement(libc::BPF_RET | libc::BPF_K, u32::MAX),
            statement(libc::BPF_RET | libc::BPF_K, 0),
        ];
        sys::filter_packets(socket.as_fd(), &filter)?;
        Ok(socket)
    }
}

/// The numbers of the same in the process that opened them.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Numbers {
    http: Vec<i32>,
    https: Vec<i32>,
    dns_udp: Vec<i32>,
    dns_tcp: Vec<i32>,
    refusals: Option<i32>,
}

impl Numbers {
    pub(super) fn of(doors: &Doors) -> Numbers {
        let listeners = |sockets: &[TcpListener]| sockets.iter().map(AsRawFd::as_raw_fd).collect();
        Numbers {
            http: listeners(&doors.http),
            https: listeners(&doors.https),
            dns_udp: doors.dns_udp.iter().map(AsRawFd::as_raw_fd).collect(),
            dns_tcp: listeners(&doors.dns_tcp),
            refusals: doors.refusals.packets.as_ref().map(AsRawFd::as_raw_fd),
        }
    }

    /// Takes the sockets, each by its number.
    pub(super) fn take(&self, take: impl Fn(i32) -> io::Result<OwnedFd>) -> io::Result<Doors> {
        let listeners = |numbers: &[i32]| -> io::Result<Vec<TcpListener>> {
            numbers.iter().map(|number| take(*number).map(TcpListener::from)).collect()
        };
        Ok(Doors {
            http: listeners(&self.http)?,
            https: listeners(&self.https)?,
            dns_udp: self
                .dns_udp
                .iter()
                .map(|number| take(*number).map(UdpSocket::from))
                .collect::<io::Result<_>>()?,
            dns_tcp: listeners(&self.dns_tcp)?,
            refusals: Refusals { packets: self.refusals.map(take).transpose()? },
        })
    }
}

/// Makes every address local in this process' network namespace, where loopback is up, and listens
/// there.
pub(super) fn open() -> Result<Doors, Failure> {
    Request::address(ADDRESS)
        .send()
        .and_then(|()| Request::default_route(Request::IPV4).send())
        .map_err(Failure::setup("make the routes of the step's network"))?;
    // As with the sockets below.
    Request::default_route(Request::IPV6).send().ok();
    let listeners = |port: u16| -> Result<Vec<TcpListener>, Failure> {
        let sockets = bind(port, SocketType::STREAM)?.into_iter().map(|socket| {
            rustix::net::listen(&socket, BACKLOG).map_err(Failure::setup(listening(port)))?;
            Ok(TcpListener::from(socket))
        });
        sockets.collect()
    };
    Ok(Doors {
        http: listeners(HTTP)?,
        https: listeners(HTTPS)?,
        dns_udp: bind(DNS, SocketType::DGRAM)?.into_iter().map(UdpSocket::from).collect(),
        dns_tcp: listeners(DNS)?,
        // Without it what was refused is refused all the same.
        refusals: Refusals { packets: Refusals::watch().ok() },
    })
}

fn listening(port: u16) -> String {
    format!("listen on port {port} of the step's network")
}

/// Binds a socket of each family to a port.
fn bind(port: u16, kind: SocketType) -> Result<Vec<OwnedFd>, Failure> {
    let bind = |family: AddressFamily| -> Result<OwnedFd, Errno> {
        let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
        if family == AddressFamily::INET6 {
            rustix::net::sockopt::set_ipv6_v6only(&socket, true)?;
            rustix::net::bind(&socket, &SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0))?;
        } else {
            rustix::net::bind(&socket, &SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port))?;
        }
        Ok(socket)
    };
    let ipv4 = bind(AddressFamily::INET).map_err(Failure::setup(listening(port)))?;
    // A kernel may have no IPv6, and then nothing reaches for it.
    Ok([ipv4].into_iter().chain(bind(AddressFamily::INET6)).collect())
}

/// A request to the kernel's routing, as `rtnetlink` has it: a header, the message and attributes.
struct Request(Vec<u8>);

impl Request {
    const IPV4: u8 = 2;
    const IPV6: u8 = 10;
    const REQUEST_ACKNOWLEDGED_CREATE: u16 = 0x1 | 0x4 | 0x400;
    const NEW_ADDRESS: u16 = 20;
    const NEW_ROUTE: u16 = 24;
    const IFA_LOCAL: u16 = 2;
    const RTA_OIF: u16 = 4;
    const TABLE_LOCAL: u8 = 255;
    const PROTOCOL_BOOT: u8 = 3;
    const SCOPE_HOST: u8 = 254;
    const TYPE_LOCAL: u8 = 2;

    /// Gives the loopback device an address.
    fn address(address: Ipv4Addr) -> Request {
        let mut message = vec![Request::IPV4, 32, 0, Request::SCOPE_HOST];
        message.extend(LOOPBACK.to_ne_bytes());
        Request::new(Request::NEW_ADDRESS, message, Request::IFA_LOCAL, address.octets())
    }

    /// Makes all addresses of a family local.
    fn default_route(family: u8) -> Request {
        let (table, protocol) = (Request::TABLE_LOCAL, Request::PROTOCOL_BOOT);
        let (scope, kind) = (Request::SCOPE_HOST, Request::TYPE_LOCAL);
        let message = vec![family, 0, 0, 0, table, protocol, scope, kind, 0, 0, 0, 0];
        Request::new(Request::NEW_ROUTE, message, Request::RTA_OIF, LOOPBACK.to_ne_bytes())
    }

    fn new(kind: u16, message: Vec<u8>, attribute: u16, value: [u8; 4]) -> Request {
        const ATTRIBUTE: u16 = 8;
        // The length comes first, and is known last.
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(Request::REQUEST_ACKNOWLEDGED_CREATE.to_ne_bytes());
        // The number of the request and of who asks, which the kernel repeats.
        bytes.extend([0; 8]);
        bytes.extend(message);
        bytes.extend(ATTRIBUTE.to_ne_bytes());
        bytes.extend(attribute.to_ne_bytes());
        bytes.extend(value);
        let length = u32::try_from(bytes.len()).unwrap_or(0);
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        Request(bytes)
    }

    /// Has the kernel do it.
    fn send(&self) -> io::Result<()> {
        let (kind, flags) = (SocketType::RAW, SocketFlags::CLOEXEC);
        let socket = rustix::net::socket_with(AddressFamily::NETLINK, kind, flags, None)?;
        rustix::net::send(&socket, &self.0, SendFlags::empty())?;
        let mut answer = [0; 512];
        let (read, _) = rustix::net::recv(&socket, &mut answer, RecvFlags::empty())?;
        // After the header an error's negative number, or 0.
        let error =
            answer.get(16..20).filter(|_| read >= 20).and_then(|bytes| bytes.try_into().ok());
        match error.map(i32::from_ne_bytes) {
            Some(0) => Ok(()),
            Some(errno) => Err(io::Error::from_raw_os_error(-errno)),
            None => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}
