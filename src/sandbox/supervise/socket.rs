//! `socketcall` of i386: what it is asked for lies in memory, which could change after a look at it.
//! The supervisor makes the socket itself, in the step's network, of the families that need no more
//! than any process may.

use super::calls::Op;
use super::kernel::{self, Answer};
use super::step::{Call, Handled};
use super::tracee::errno;
use super::{create, tracee};

/// `socket` and `bind` among its calls.
const SOCKET: u64 = 1;
const BIND: u64 = 2;

/// The bits of a kind of socket that aren't flags.
const KIND: i32 = 0xf;

pub(super) fn call(call: &Call<'_>) -> Handled {
    let [number, address, ..] = call.arguments;
    let number = u64::from(tracee::id(number));
    if number != SOCKET && number != BIND {
        return Ok(Answer::Continue);
    }
    let bytes = call.tracee.bytes(u64::from(tracee::id(address)), 12)?;
    let word = |at: usize| bytes[at..at + 4].try_into().map_or(0, i32::from_le_bytes);
    let words = [word(0), word(4), word(8)];
    if number == BIND {
        let arguments = words.map(|it| u64::from(it.cast_unsigned()));
        let mut bind = Call { op: Op::Bind, ..*call };
        bind.arguments[..3].copy_from_slice(&arguments);
        super::access::check(&bind)?;
        return create::create(&bind);
    }
    let [domain, kind, protocol] = words;
    match domain {
        libc::AF_UNIX | libc::AF_NETLINK => {}
        libc::AF_INET | libc::AF_INET6 if kind & KIND != libc::SOCK_RAW => {}
        libc::AF_INET | libc::AF_INET6 | libc::AF_PACKET => return Err(libc::EPERM),
        _ => return Err(libc::EAFNOSUPPORT),
    }
    let socket = kernel::socket(domain, kind, protocol).map_err(|error| errno(&error))?;
    let close = kind & libc::SOCK_CLOEXEC != 0;
    call.give(socket, close)
}
