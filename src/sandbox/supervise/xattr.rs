//! Extended attributes: file capabilities are remembered where the kernel would write its own form
//! of them; what not every tree can hold is refused in every mode, so that all give the same image;
//! `user.*` is the kernel's.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use super::Scope;
use super::calls::Op;
use super::kernel::{Answer, Status};
use super::stat::record_at;
use super::step::{Call, Handled};
use super::tracee::{At, Errno, Place, id, look_at};
use super::view::copy_up;
use crate::rootfs::{Record, Truth};

const CAPABILITY: &[u8] = b"security.capability";
/// The largest value of an attribute.
const LARGEST: usize = 65536;

fn is_refused(name: &[u8]) -> bool {
    name.starts_with(b"trusted.")
        || name.starts_with(b"system.posix_acl_")
        || (name.starts_with(b"security.") && name != CAPABILITY)
}

/// What a call asks for, whichever of the four forms it has.
struct Asked {
    at: At,
    name: u64,
    value: u64,
    size: u64,
    flags: u64,
}

fn asked(call: &Call<'_>) -> Result<Asked, Errno> {
    #[allow(clippy::enum_glob_use, reason = "a list of nothing else")]
    use Op::*;
    let a = call.arguments;
    let plain = |at: At| Asked { at, name: a[1], value: a[2], size: a[3], flags: a[4] };
    let list = |at: At| Asked { at, name: 0, value: a[1], size: a[2], flags: 0 };
    Ok(match call.op {
        Setxattr | Getxattr | Removexattr => plain(At::path(a[0], true)),
        Lsetxattr | Lgetxattr | Lremovexattr => plain(At::path(a[0], false)),
        Fsetxattr | Fgetxattr | Fremovexattr => plain(At::fd(a[0])),
        Listxattr => list(At::path(a[0], true)),
        Llistxattr => list(At::path(a[0], false)),
        Flistxattr => list(At::fd(a[0])),
        Listxattrat => Asked { value: a[3], size: a[4], ..plain(At::flags(a[0], a[1], a[2])) },
        Removexattrat => Asked { name: a[3], ..plain(At::flags(a[0], a[1], a[2])) },
        // As `struct xattr_args`: the value's address, its size, the flags.
        _ => {
            let args = call.tracee.bytes(a[4], 16)?;
            let long = |at: usize| args[at..at + 8].try_into().map_or(0, u64::from_le_bytes);
            let (value, rest) = (long(0), long(8));
            let (size, flags) = (rest & 0xffff_ffff, rest >> 32);
            Asked { at: At::flags(a[0], a[1], a[2]), name: a[3], value, size, flags }
        }
    })
}

pub(super) fn xattr(call: &Call<'_>) -> Handled {
    #[allow(clippy::enum_glob_use, reason = "a list of nothing else")]
    use Op::*;
    let full = call.step.scope() == Scope::Full;
    let sets = matches!(call.op, Setxattr | Lsetxattr | Fsetxattr | Setxattrat);
    let gets = matches!(call.op, Getxattr | Lgetxattr | Fgetxattr | Getxattrat);
    let lists = matches!(call.op, Listxattr | Llistxattr | Flistxattr | Listxattrat);
    if (gets || lists) && !call.ownership().has_capabilities() {
        // A tree that can't hold them has none.
        return Ok(Answer::Continue);
    }
    let Ok(asked) = asked(call) else { return Ok(Answer::Continue) };
    if lists {
        return if full { list(call, &asked) } else { Ok(Answer::Continue) };
    }
    let Ok(name) = call.tracee.text(asked.name) else { return Ok(Answer::Continue) };
    if is_refused(&name) && sets {
        return Err(libc::EOPNOTSUPP);
    }
    if name != CAPABILITY || !full {
        return Ok(Answer::Continue);
    }
    if gets {
        let place = call.place(asked.at)?;
        let value = capability(call, &place, &place.look()?)?.ok_or(libc::ENODATA)?;
        return give(call, &asked, &value);
    }
    let (fd, known) = open(call, asked.at)?;
    let had = known.as_ref().is_some_and(|bytes| !bytes.is_empty());
    if call.other().is_some_and(|who| !who.capable) {
        return Err(libc::EPERM);
    }
    let value = if sets {
        match id(asked.flags).cast_signed() {
            libc::XATTR_CREATE if had => return Err(libc::EEXIST),
            libc::XATTR_REPLACE if !had => return Err(libc::ENODATA),
            _ => {}
        }
        let size = usize::try_from(asked.size).unwrap_or(usize::MAX);
        if size > LARGEST {
            return Err(libc::E2BIG);
        }
        version_two(call.tracee.bytes(asked.value, size)?).ok_or(libc::EINVAL)?
    } else if had {
        Vec::new()
    } else {
        return Err(libc::ENODATA);
    };
    call.still_waits()?;
    let status = look_at(&fd)?;
    copy_up(call.view, fd.as_fd(), &status).map_err(|e| super::tracee::errno(&e))?;
    call.remember(fd.as_fd(), None, &Record { capability: Some(value), ..Record::default() })?;
    Ok(Answer::Value(0))
}

/// Returns a file's capabilities, if it has any.
fn capability(call: &Call<'_>, place: &Place, status: &Status) -> Result<Option<Vec<u8>>, Errno> {
    let is_some = |record: &Record| record.capability.as_ref().is_some_and(|it| !it.is_empty());
    if !record_at(call, place, status).as_ref().is_some_and(is_some) {
        return Ok(None);
    }
    // Whether it has been written meanwhile, only the file itself tells.
    let fd = place.open()?;
    let record = call.record_of(fd.as_fd(), &look_at(&fd)?);
    Ok(Some(record).filter(is_some).and_then(|record| record.capability))
}

/// Opens the file, and tells what capabilities are remembered of it.
fn open(call: &Call<'_>, at: At) -> Result<(OwnedFd, Option<Vec<u8>>), Errno> {
    let fd = call.place(at)?.open()?;
    let status = look_at(&fd)?;
    let known = call.record_of(fd.as_fd(), &status).capability;
    Ok((fd, known))
}

/// Turns capabilities into the form without the id of a namespace's root.
fn version_two(mut value: Vec<u8>) -> Option<Vec<u8>> {
    match (value.get(3)?, value.len()) {
        (2, 20) => {}
        (3, 24) => {
            value.truncate(20);
            value[3] = 2;
        }
        _ => return None,
    }
    Some(value)
}

/// Hands out a value, or its size where there is no room for any.
fn give(call: &Call<'_>, asked: &Asked, value: &[u8]) -> Handled {
    let length = i64::try_from(value.len()).unwrap_or(0);
    if asked.size == 0 {
        return Ok(Answer::Value(length));
    }
    if asked.size < value.len() as u64 {
        return Err(libc::ERANGE);
    }
    call.tracee.write(asked.value, value)?;
    Ok(Answer::Value(length))
}

/// The names of a file's attributes, with the one that the kernel doesn't know of.
fn list(call: &Call<'_>, asked: &Asked) -> Handled {
    if call.ownership().is_empty() {
        return Ok(Answer::Continue);
    }
    let Ok(place) = call.place(asked.at) else { return Ok(Answer::Continue) };
    let Ok(status) = place.look() else { return Ok(Answer::Continue) };
    if capability(call, &place, &status)?.is_none() {
        return Ok(Answer::Continue);
    }
    let fd = place.open()?;
    let mut names = vec![0; LARGEST];
    let path = format!("self/fd/{}", fd.as_raw_fd());
    let length = rustix::fs::listxattr(path, &mut names).unwrap_or(0);
    names.truncate(length);
    names.extend_from_slice(CAPABILITY);
    names.push(0);
    give(call, asked, &names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_lose_the_root_of_their_namespace() {
        let mut three = vec![0; 24];
        (three[0], three[3], three[20]) = (1, 3, 9);
        let mut two = vec![0; 20];
        (two[0], two[3]) = (1, 2);
        assert_eq!(version_two(three), Some(two.clone()));
        assert_eq!(version_two(two.clone()), Some(two));
        assert_eq!(version_two(vec![0; 20]), None);
        assert_eq!(version_two(Vec::new()), None);
    }

    #[test]
    fn what_is_refused() {
        for name in ["trusted.overlay.opaque", "system.posix_acl_access", "security.selinux"] {
            assert!(is_refused(name.as_bytes()), "{name}");
        }
        for name in ["user.x", "security.capability"] {
            assert!(!is_refused(name.as_bytes()), "{name}");
        }
    }
}
