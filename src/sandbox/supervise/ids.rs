//! Who a process believes to be, asked and changed.

use super::calls::Op;
use super::chown::long_id;
use super::credentials::{Credentials, SAME};
use super::kernel::{self, Answer};
use super::layout::short_id;
use super::step::{Call, Handled};
use super::tracee::{Errno, id};

/// The most groups of a process, `NGROUPS_MAX`.
const MOST_GROUPS: u64 = 65536;

/// Tells whether a call is one whose ids have 16 bits.
fn is_short(op: Op) -> bool {
    #[allow(clippy::enum_glob_use, reason = "a list of nothing else")]
    use Op::*;
    matches!(
        op,
        Setuid16
            | Setgid16
            | Setreuid16
            | Setregid16
            | Setresuid16
            | Setresgid16
            | Setgroups16
            | Setfsuid16
            | Setfsgid16
            | Getuid16
            | Geteuid16
            | Getgid16
            | Getegid16
            | Getresuid16
            | Getresgid16
            | Getgroups16
    )
}

pub(super) fn get(call: &Call<'_>) -> Handled {
    let short = is_short(call.op);
    let who = call.credentials();
    let told = |id: u32| Ok(Answer::Value(i64::from(if short { short_id(id) } else { id })));
    match call.op {
        Op::Getuid | Op::Getuid16 => told(who.user.real),
        Op::Geteuid | Op::Geteuid16 => told(who.user.effective),
        Op::Getgid | Op::Getgid16 => told(who.group.real),
        Op::Getegid | Op::Getegid16 => told(who.group.effective),
        Op::Getresuid | Op::Getresuid16 => three(call, who.user, short),
        Op::Getresgid | Op::Getresgid16 => three(call, who.group, short),
        Op::Prctl => {
            let keeps = call.arguments[1] != 0;
            if keeps != who.keeps {
                call.become_other(Credentials { keeps, ..who })?;
            }
            Ok(Answer::Continue)
        }
        Op::Capget => capget(call, &who),
        _ => {
            let count = who.groups.len();
            let room = call.arguments[0];
            if room != 0 {
                if id(room) < u32::try_from(count).unwrap_or(u32::MAX) {
                    return Err(libc::EINVAL);
                }
                let bytes: Vec<u8> = who.groups.iter().flat_map(|id| encode(*id, short)).collect();
                call.tracee.write(call.arguments[1], &bytes)?;
            }
            Ok(Answer::Value(i64::try_from(count).unwrap_or(0)))
        }
    }
}

fn encode(id: u32, short: bool) -> Vec<u8> {
    if short { short_id(id).to_le_bytes()[..2].to_vec() } else { id.to_le_bytes().to_vec() }
}

fn three(call: &Call<'_>, ids: super::credentials::Ids, short: bool) -> Handled {
    for (address, id) in call.arguments.into_iter().zip([ids.real, ids.effective, ids.saved]) {
        call.tracee.write(address, &encode(id, short))?;
    }
    Ok(Answer::Value(0))
}

/// The kernel tells of root's capabilities, whoever the process believes to be. Another process's
/// are taken for its own: who asks for any wants to know what it may itself.
fn capget(call: &Call<'_>, who: &Credentials) -> Handled {
    let [header, data, ..] = call.arguments;
    if who.capable || data == 0 {
        return Ok(Answer::Continue);
    }
    let header = call.tracee.bytes(header, 8)?;
    let word = |at: usize| header[at..at + 4].try_into().map_or(0, u32::from_le_bytes);
    let sets = match word(0) {
        0x1998_0330 => 12,
        0x2007_1026 | 0x2008_0522 => 24,
        _ => return Ok(Answer::Continue),
    };
    call.tracee.write(data, &vec![0; sets])?;
    Ok(Answer::Value(0))
}

pub(super) fn set(call: &Call<'_>) -> Handled {
    #[allow(clippy::enum_glob_use, reason = "a list of nothing else")]
    use Op::*;
    let mut a = call.arguments.map(id);
    if is_short(call.op) {
        a = a.map(long_id);
    }
    let before = call.credentials();
    let mut who = before.clone();
    let may = who.capable;
    let mut value = 0;
    match call.op {
        Setuid | Setuid16 => who.change_user(|ids, may| ids.set(a[0], may))?,
        Setgid | Setgid16 => who.group.set(a[0], may)?,
        Setreuid | Setreuid16 => who.change_user(|ids, may| ids.set_two(a[0], a[1], may))?,
        Setregid | Setregid16 => who.group.set_two(a[0], a[1], may)?,
        Setresuid | Setresuid16 => {
            who.change_user(|ids, may| ids.set_three([a[0], a[1], a[2]], may))?;
        }
        Setresgid | Setresgid16 => who.group.set_three([a[0], a[1], a[2]], may)?,
        Setfsuid | Setfsuid16 => value = who.user.set_files(a[0], may),
        Setfsgid | Setfsgid16 => value = who.group.set_files(a[0], may),
        Setgroups | Setgroups16 => who.groups = groups(call, may)?,
        // What is given up is given up; more than it has, a process that isn't root can't ask for.
        Capset => {
            if may {
                return Ok(Answer::Continue);
            }
            let data = call.tracee.bytes(call.arguments[1], 4)?;
            return if data == [0; 4] { Ok(Answer::Value(0)) } else { Err(libc::EPERM) };
        }
        _ => return Ok(Answer::Continue),
    }
    if who != before {
        call.become_other(who)?;
    }
    Ok(Answer::Value(i64::from(value)))
}

fn groups(call: &Call<'_>, may: bool) -> Result<Vec<u32>, Errno> {
    let [count, address, ..] = call.arguments;
    if !may {
        return Err(libc::EPERM);
    }
    let count = u64::from(id(count));
    if count > MOST_GROUPS {
        return Err(libc::EINVAL);
    }
    let width = if is_short(call.op) { 2 } else { 4 };
    let count = usize::try_from(count).map_err(|_| libc::EINVAL)?;
    let bytes = call.tracee.bytes(address, count * width)?;
    let whole = |chunk: &[u8]| {
        let mut number = [0; 4];
        number[..width].copy_from_slice(chunk);
        u32::from_le_bytes(number)
    };
    let groups: Vec<u32> = bytes.chunks(width).map(whole).collect();
    if groups.contains(&SAME) { Err(libc::EINVAL) } else { Ok(groups) }
}

/// The limit that carries a process's credentials is not for it to see or set.
pub(super) fn limit(call: &Call<'_>) -> Handled {
    let a = call.arguments;
    let (old, wide) = match call.op {
        Op::Getrlimit | Op::OldGetrlimit => (a[1], call.arch != super::calls::Arch::I386),
        Op::Prlimit64 => (a[3], true),
        _ => (0, true),
    };
    if old != 0 {
        let (_, hard) = kernel::resident_limit(call.tracee.pid).unwrap_or((u64::MAX, u64::MAX));
        let bytes = if wide {
            [hard.to_le_bytes(), hard.to_le_bytes()].concat()
        } else {
            let hard = u32::try_from(hard).unwrap_or(u32::MAX).to_le_bytes();
            [hard, hard].concat()
        };
        call.tracee.write(old, &bytes)?;
    }
    Ok(Answer::Value(0))
}
