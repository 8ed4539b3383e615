//! Questions for names (RFC 1035): every name has the recorder's address, so that what a step looks
//! for comes here. Other kinds of records are answered with none, for which every program has an
//! answer of its own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const A: u16 = 1;
const PTR: u16 = 12;
const AAAA: u16 = 28;
const INTERNET: u16 = 1;

/// The longest message that comes by UDP to us.
pub(super) const LONGEST: usize = 4096;

/// Long enough to spare questions, short enough to be forgotten.
const LIVES: u32 = 60;

/// Answers a message; `None` for what is no question. Also returns the name that was looked for.
pub(super) fn answer(message: &[u8], v6: bool) -> Option<(Vec<u8>, Option<String>)> {
    let head = message.get(..12)?;
    let is_query = head[2] & 0x80 == 0;
    let opcode = head[2] >> 3 & 0xf;
    let questions = u16::from_be_bytes([head[4], head[5]]);
    if !is_query {
        return None;
    }
    // The question's id, recursion desired and available.
    let mut reply = vec![head[0], head[1], 0x80 | head[2] & 0x79, 0x80];
    if opcode != 0 || questions != 1 {
        // Not implemented.
        reply[3] |= 4;
        reply.extend([0; 8]);
        return Some((reply, None));
    }
    let (name, end) = read_name(message, 12)?;
    let kind = u16::from_be_bytes([*message.get(end)?, *message.get(end + 1)?]);
    let class = u16::from_be_bytes([*message.get(end + 2)?, *message.get(end + 3)?]);
    let address = match kind {
        A => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        AAAA if v6 => Some(IpAddr::V6(Ipv6Addr::LOCALHOST)),
        _ => None,
    };
    let address = address.filter(|_| class == INTERNET && !name.is_empty());
    if kind == PTR {
        // No address has a name.
        reply[3] |= 3;
    }
    reply.extend([0, 1, 0, u8::from(address.is_some()), 0, 0, 0, 0]);
    reply.extend_from_slice(message.get(12..end + 4)?);
    if let Some(address) = address {
        // The name is the question's.
        reply.extend([0xc0, 12]);
        reply.extend(kind.to_be_bytes());
        reply.extend(INTERNET.to_be_bytes());
        reply.extend(LIVES.to_be_bytes());
        let bytes = match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        reply.extend(u16::try_from(bytes.len()).unwrap_or(0).to_be_bytes());
        reply.extend(bytes);
    }
    let looked_for = matches!(kind, A | AAAA).then_some(name).filter(|name| !name.is_empty());
    Some((reply, looked_for))
}

/// Reads a name, which a question has in full; returns where it ends.
fn read_name(message: &[u8], mut at: usize) -> Option<(String, usize)> {
    let mut labels: Vec<String> = Vec::new();
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        if length == 0 {
            return Some((labels.join("."), at));
        }
        if length > 63 || labels.len() > 127 {
            return None;
        }
        let label = message.get(at..at + length)?;
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
        at += length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(name: &str, kind: u16) -> Vec<u8> {
        let mut message = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.').filter(|label| !label.is_empty()) {
            message.push(u8::try_from(label.len()).unwrap());
            message.extend(label.as_bytes());
        }
        message.push(0);
        message.extend(kind.to_be_bytes());
        message.extend(1u16.to_be_bytes());
        message
    }

    #[test]
    fn every_name_is_here() {
        let (reply, name) = answer(&question("Mirror.example", A), false).unwrap();
        assert_eq!(name.as_deref(), Some("mirror.example"));
        assert_eq!(&reply[..4], [0xab, 0xcd, 0x81, 0x80]);
        assert_eq!(&reply[reply.len() - 4..], [127, 0, 0, 1]);
        let (reply, _) = answer(&question("mirror.example", AAAA), false).unwrap();
        assert_eq!(&reply[6..8], [0, 0], "no address, but no error either");
        assert_eq!(reply[3] & 0xf, 0);
        let (reply, _) = answer(&question("mirror.example", AAAA), true).unwrap();
        assert_eq!(reply[reply.len() - 1], 1);
        let (reply, name) = answer(&question("1.0.0.127.in-addr.arpa", PTR), true).unwrap();
        assert_eq!((reply[3] & 0xf, name), (3, None));
    }

    #[test]
    fn what_is_no_question_gets_no_answer_and_no_panic() {
        let whole = question("mirror.example", A);
        for cut in 0..whole.len() {
            assert!(answer(&whole[..cut], true).is_none(), "{cut}");
        }
        let mut reply = whole.clone();
        reply[2] |= 0x80;
        assert!(answer(&reply, true).is_none());
        let mut endless = whole;
        endless[12] = 0xc0;
        assert!(answer(&endless, true).is_none());
    }
}
