//! Questions and answers of the domain name system (RFC 1035), as far as addresses go.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const HEADER: usize = 12;
const RECURSION_DESIRED: u16 = 0x0100;
const RESPONSE: u16 = 0x8000;
const CUT: u16 = 0x0200;
const INTERNET: u16 = 1;
const ALIAS: u16 = 5;

/// A kind of addresses, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Four = 1,
    Six = 28,
}

/// What a server says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The name exists; it may have no address of the kind.
    Addresses(Vec<IpAddr>),
    NoSuchName,
    /// It could not find out.
    Failed(u8),
}

/// Returns a question and the number that its answer has; `None` for what is no name.
pub(super) fn question(name: &str, kind: Kind) -> Option<(u16, Vec<u8>)> {
    // Keyed by the system's randomness, and another one each time.
    let id = RandomState::new().build_hasher().finish().to_be_bytes();
    let id = u16::from_be_bytes([id[0], id[1]]);
    let mut bytes = Vec::with_capacity(name.len() + 18);
    for number in [id, RECURSION_DESIRED, 1, 0, 0, 0] {
        bytes.extend(number.to_be_bytes());
    }
    for label in name.trim_end_matches('.').split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..64).contains(length))?;
        bytes.push(length);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    if bytes.len() > HEADER + 255 {
        return None;
    }
    for number in [kind as u16, INTERNET] {
        bytes.extend(number.to_be_bytes());
    }
    Some((id, bytes))
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

/// Tells whether a message answers this very question.
pub(super) fn belongs(answer: &[u8], id: u16, question: &[u8]) -> bool {
    let (Some(asked), Some(repeated)) =
        (question.get(HEADER..), answer.get(HEADER..question.len()))
    else {
        return false;
    };
    number(answer, 0) == Some(id)
        && number(answer, 2).is_some_and(|flags| flags & RESPONSE != 0)
        && number(answer, 4) == Some(1)
        && repeated.eq_ignore_ascii_case(asked)
}

/// Tells whether the answer did not fit into its datagram.
pub(super) fn is_cut(answer: &[u8]) -> bool {
    number(answer, 2).is_some_and(|flags| flags & CUT != 0)
}

/// Reads an answer; `None` for what is none.
pub(super) fn read(bytes: &[u8], id: u16, kind: Kind) -> Option<Answer> {
    let flags = number(bytes, 2)?;
    if number(bytes, 0)? != id || flags & RESPONSE == 0 {
        return None;
    }
    match flags & 0xf {
        0 => {}
        3 => return Some(Answer::NoSuchName),
        code => return Some(Answer::Failed(u8::try_from(code).ok()?)),
    }
    let (questions, answers) = (number(bytes, 4)?, number(bytes, 6)?);
    let mut at = HEADER;
    let mut wanted = Vec::new();
    for _ in 0..questions {
        let (name, after) = name_at(bytes, at)?;
        wanted = vec![name];
        at = after + 4;
    }
    let mut addresses = Vec::new();
    for _ in 0..answers {
        let (owner, after) = name_at(bytes, at)?;
        let (of, class) = (number(bytes, after)?, number(bytes, after + 2)?);
        let length = usize::from(number(bytes, after + 8)?);
        let data = after + 10;
        let value = bytes.get(data..data + length)?;
        at = data + length;
        // What the server adds about other names is not believed.
        if class != INTERNET || !wanted.contains(&owner) {
            continue;
        }
        if of == ALIAS {
            wanted.push(name_at(bytes, data)?.0);
        } else if of == kind as u16 {
            addresses.push(match kind {
                Kind::Four => Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?).into(),
                Kind::Six => Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?).into(),
            });
        }
    }
    Some(Answer::Addresses(addresses))
}

/// Reads a name, in small letters, and returns where what follows begins.
fn name_at(bytes: &[u8], mut at: usize) -> Option<(Vec<u8>, usize)> {
    let (mut name, mut end) = (Vec::new(), None);
    // Each jump must lead back, so that there is no circle.
    let mut limit = at;
    loop {
        let length = *bytes.get(at)?;
        match length {
            0 => return Some((name, end.unwrap_or(at + 1))),
            1..=63 => {
                let label = bytes.get(at + 1..at + 1 + usize::from(length))?;
                name.extend(label.iter().map(u8::to_ascii_lowercase));
                name.push(b'.');
                at += 1 + usize::from(length);
            }
            192.. => {
                end.get_or_insert(at + 2);
                at = usize::from(number(bytes, at)? & 0x3fff);
                if at >= limit {
                    return None;
                }
                limit = at;
            }
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer to `question` with these records, whose names are pointers or written out.
    fn answer(question: &[u8], flags: u16, records: &[(&[u8], u16, &[u8])]) -> Vec<u8> {
        let mut bytes = question.to_vec();
        bytes[2..4].copy_from_slice(&(RESPONSE | flags).to_be_bytes());
        bytes[7] = u8::try_from(records.len()).unwrap();
        for (owner, kind, data) in records {
            bytes.extend(*owner);
            bytes.extend(kind.to_be_bytes());
            bytes.extend([0, 1, 0, 0, 0, 9, 0, u8::try_from(data.len()).unwrap()]);
            bytes.extend(*data);
        }
        bytes
    }

    const ITSELF: &[u8] = &[0xc0, 12];

    #[test]
    fn an_alias_is_followed_and_strangers_are_not() {
        let (id, asked) = question("Registry.test", Kind::Four).unwrap();
        let records: &[(&[u8], u16, &[u8])] = &[
            (ITSELF, 5, b"\x01c\x04test\x00"),
            (b"\x05other\x00", 1, &[9, 9, 9, 9]),
            (b"\x01C\x04test\x00", 1, &[10, 0, 0, 7]),
        ];
        let bytes = answer(&asked, 0, records);
        assert!(belongs(&bytes, id, &asked) && !belongs(&bytes, id ^ 1, &asked));
        let expected = Answer::Addresses(vec![IpAddr::from([10, 0, 0, 7])]);
        assert_eq!(read(&bytes, id, Kind::Four), Some(expected));
        assert_eq!(read(&answer(&asked, 3, &[]), id, Kind::Four), Some(Answer::NoSuchName));
        assert_eq!(read(&answer(&asked, 2, &[]), id, Kind::Four), Some(Answer::Failed(2)));
    }

    #[test]
    fn whatever_a_server_sends_is_survived() {
        let (id, asked) = question("a.b", Kind::Six).unwrap();
        let whole = answer(&asked, 0, &[(ITSELF, 28, &[7; 16])]);
        for length in 0..whole.len() {
            assert_eq!(read(&whole[..length], id, Kind::Six), None, "{length}");
        }
        for at in 0..whole.len() {
            for byte in [0, 1, 63, 64, 0xc0, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = byte;
                read(&bytes, id, Kind::Six);
            }
        }
        let circle = answer(&asked, 0, &[(&[0xc0, 21], 28, &[7; 16])]);
        assert_eq!(read(&circle, id, Kind::Six), None);
    }

    #[test]
    fn what_is_no_name_is_not_asked_for() {
        for bad in ["", "a..b", ".", &"x".repeat(64), &"abcdefg.".repeat(40)] {
            assert_eq!(question(bad, Kind::Four), None, "{bad}");
        }
        assert!(question("a.b.", Kind::Four).is_some());
    }
}
