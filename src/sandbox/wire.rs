//! What the processes of the sandbox say to each other: JSON, one message a line, over a socket.
//!
//! ```text
//! build  → helper   Order, and later a byte (or the end of the stream): kill the step
//! helper → build    Reply
//! helper → build    Word::Doors, Word::Listening, Word::Terminal   build → helper   a byte each
//! init   → helper   Word::Alive; Word::Unshared; those three; Reply  helper → init    a byte each
//! inner  → outer    Word::Unshared; Word::Alive or Word::Refused  outer → inner  a byte each
//! ```
//! A process asks to be killed with its parent and then says `Alive`: the answer proves that the
//! parent was still there to be watched.

use std::io::{self, BufRead, Read, Write};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::sandbox::doors::Numbers;
use crate::sandbox::supervise::Watch;
use crate::sandbox::{Error, Outcome, Spec};

/// The byte that answers a word.
const GO: u8 = b'g';

/// What a step's helper is to do.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) spec: Spec,
    pub(super) watch: Watch,
    /// Whether the step gets a terminal of its own.
    pub(super) terminal: bool,
}

/// How a step went.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Reply {
    Ended(Outcome),
    Failed(Failure),
}

/// What a process below waits for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Word {
    /// It is in a new user namespace, which has no ids yet.
    Unshared,
    /// It will die with its parent.
    Alive,
    /// Its system calls are to be answered through its descriptor `fd`. Process 1 of the step does
    /// not know its number outside, which the helper adds.
    Listening { pid: i32, fd: i32, user: (u32, u32, Vec<u32>) },
    /// Its terminal is to be served through its descriptor `fd`; `pid` as above.
    Terminal { pid: i32, fd: i32 },
    /// Its network is to be served through descriptors of its; `pid` as above.
    Doors { pid: i32, numbers: Numbers },
    /// The kernel refused something.
    Refused { what: String, errno: i32 },
}

/// What comes from below: a word to be answered, or the last reply.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Said {
    Word(Word),
    Reply(Reply),
}

/// Why a step could not be started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Failure {
    Setup { what: String, errno: i32 },
    NoSuchUser { what: String, name: String },
    NoMountPoint { path: String },
    Program { name: String, errno: i32 },
    NoListener { errno: i32 },
}

impl Failure {
    /// Says what was tried when an error came.
    pub(super) fn setup<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Failure {
        let what = what.into();
        move |error| Failure::Setup { what, errno: errno_of(&error.into()) }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        let source = io::Error::from_raw_os_error;
        match failure {
            Failure::Setup { what, errno } => Error::Setup { what, source: source(errno) },
            Failure::NoSuchUser { what, name } => Error::NoSuchUser { what, name },
            Failure::NoMountPoint { path } => Error::NoMountPoint { path },
            Failure::Program { name, errno } => {
                Error::Program { program: name, source: source(errno) }
            }
            Failure::NoListener { errno } => Error::NoSupervision { source: source(errno) },
        }
    }
}

/// Returns the number of a system's error, as far as it has one.
pub(super) fn errno_of(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

/// Says something.
pub(super) fn say(mut to: impl Write, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    to.write_all(&line)
}

/// Waits for something to be said; `None` when nothing will.
pub(super) fn hear<T: DeserializeOwned>(from: &mut impl BufRead) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    if from.read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    Ok(Some(serde_json::from_slice(&line)?))
}

/// Answers a word.
pub(super) fn answer(mut to: impl Write) -> io::Result<()> {
    to.write_all(&[GO])
}

/// Waits for the answer to a word. It is an error when the other side is gone.
pub(super) fn wait_for_answer(mut from: impl Read) -> io::Result<()> {
    let mut byte = [0];
    from.read_exact(&mut byte)
}

/// Waits for a byte; tells whether it is the answer to a word.
pub(super) fn is_answer(mut from: impl Read) -> io::Result<bool> {
    let mut byte = [0];
    from.read_exact(&mut byte)?;
    Ok(byte == [GO])
}
