//! The recorder: in a step's own network namespace ports 80 and 443 and DNS belong to it, so that
//! every body a step fetches passes here, is kept, and can be given again.
//!
//! ```text
//! step --sockets--> serve --key--> record: one transfer upstream, kept while it is handed on
//!                                  replay: the listed answer from the bodies, else 504 and a note
//! ```
//!
//! The answers to a step are made of what the record keeps and of nothing else, in both modes, so
//! that a step can't tell a replay from the build that was recorded.

mod ahead;
mod answer;
mod ask;
mod authority;
mod bodies;
mod dns;
mod earlier;
mod error;
mod fetch;
mod flight;
mod head;
mod log;
mod replay;
mod reply;
mod secret;
mod serve;
mod session;
mod shared;
mod vouch;

use std::net::{TcpListener, UdpSocket};
use std::sync::Arc;

pub use authority::Authority;
pub use bodies::{Bodies, BodyWriter};
pub use earlier::Earlier;
pub use error::Error;
pub use fetch::{
    AuthorityClass, Fetch, Method, Missing, Record, Refused, Trouble, UnknownWord, Variant,
};
pub use session::{Fetched, Netlog, Session};

use crate::http::Client;
use crate::report::Report;

/// The sockets of one step, bound in its namespace.
#[derive(Debug, Default)]
pub struct Doors {
    /// Where plain HTTP comes in.
    pub http: Vec<TcpListener>,
    /// Where TLS comes in.
    pub https: Vec<TcpListener>,
    /// Where questions for names come in.
    pub dns_udp: Vec<UdpSocket>,
    /// Where they come in by TCP.
    pub dns_tcp: Vec<TcpListener>,
}

/// Where answers come from.
#[derive(Clone, Debug)]
pub enum Mode {
    /// From upstream; every answer is kept.
    Record,
    /// From what was kept.
    Replay {
        /// What a layer's steps may ask for.
        fetches: Vec<Fetch>,
        /// Whether a body that is not here may be fetched from its URL; it is verified by digest.
        upstream: bool,
    },
}

/// What a recorder is made of. There is one for each layer: what a step may ask for, and how often it
/// got another answer, is a matter of its layer.
pub struct Options {
    /// Signs for all names; shared by all layers of a build.
    pub authority: Arc<Authority>,
    /// Keeps the bodies.
    pub bodies: Arc<dyn Bodies>,
    /// The way upstream, with the host's proxies and authorities.
    pub client: Client,
    /// Whether to record.
    pub mode: Mode,
    /// What need not be moved again if it still holds.
    pub earlier: Arc<Earlier>,
    /// Who hears of what can't be recorded.
    pub report: Arc<dyn Report>,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("authority", &self.authority).finish_non_exhaustive()
    }
}
