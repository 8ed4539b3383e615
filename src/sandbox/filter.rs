//! The seccomp filter of a step: what it must not call, and what it may believe that it did.
//!
//! Answered with success and not done are `fsync` and its kin: a build that dies is thrown away
//! whole. Refused is what reaches past the namespaces or past a supervisor of file ownership. The
//! filter is written out here as the instructions of classic BPF; a system call's number depends on
//! the architecture of the program that makes it, so a step on x86-64 needs two columns.

use libc::sock_filter;

use crate::sandbox::supervise::{self, Arch, Scope, Theme, Watch, When};

/// What the step is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// It worked.
    Done,
    /// It isn't permitted.
    Refused,
    /// The kernel has no such call.
    Absent,
    /// The kernel knows no such family of sockets.
    NoFamily,
}

/// A call by its number on x86-64, on i386 and on aarch64; -1 where there is none.
type Row = (Answer, i32, i32, i32);

const CALLS: &[Row] = &[
    (Answer::Done, 74, 118, 82),      // fsync
    (Answer::Done, 75, 148, 83),      // fdatasync
    (Answer::Done, 162, 36, 81),      // sync
    (Answer::Done, 306, 344, 267),    // syncfs
    (Answer::Done, 277, 314, 84),     // sync_file_range
    (Answer::Absent, 425, 425, 425),  // io_uring_setup: its requests pass by any filter
    (Answer::Absent, 426, 426, 426),  // io_uring_enter
    (Answer::Absent, 427, 427, 427),  // io_uring_register
    (Answer::Refused, 246, 283, 104), // kexec_load
    (Answer::Refused, 320, -1, 294),  // kexec_file_load
    (Answer::Refused, 321, 357, 280), // bpf
    (Answer::Refused, 298, 336, 241), // perf_event_open
    (Answer::Absent, 248, 286, 217),  // add_key: keyrings know no namespaces
    (Answer::Absent, 249, 287, 218),  // request_key
    (Answer::Absent, 250, 288, 219),  // keyctl
    (Answer::Refused, 323, 374, 282), // userfaultfd
    (Answer::Refused, 304, 342, 265), // open_by_handle_at: opens what no path leads to
    (Answer::Absent, 435, 435, 435),  // clone3: its flags lie in memory; all fall back to clone
];

/// What an argument is looked at for.
#[derive(Clone, Copy, Debug)]
enum Test {
    Is(u32),
    Has(u32),
}

/// A call that is answered for one argument only: its row, which argument, and what is looked for.
type Guard = (Row, u32, Test);

const GUARDS: &[Guard] = &[
    // ioctl: TIOCSTI and TIOCLINUX type into a terminal.
    ((Answer::Refused, 16, 54, 29), 1, Test::Is(0x5412)),
    ((Answer::Refused, 16, 54, 29), 1, Test::Is(0x541c)),
    // unshare and clone: a cgroup namespace of its own lets a step mount the builder's cgroups.
    ((Answer::Refused, 272, 310, 97), 0, Test::Has(0x0200_0000)),
    ((Answer::Refused, 56, 120, 220), 0, Test::Has(0x0200_0000)),
    // socket: AF_VSOCK reaches the hypervisor past any network namespace.
    ((Answer::NoFamily, 41, 359, 198), 0, Test::Is(40)),
];

const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;
const AARCH64: u32 = 0xc000_00b7;
/// Set in the numbers of the x32 calls, which are those of x86-64 otherwise.
const X32: u32 = 0x4000_0000;

// Where the kernel puts what is asked about: `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
/// The lower half of the first argument; the others follow in steps of eight.
const ARGUMENT: u32 = if cfg!(target_endian = "little") { 16 } else { 20 };

const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;
const NOTIFY: u32 = 0x7fc0_0000;
const TRACE: u32 = 0x7ff0_0000;

fn answer(answer: Answer) -> u32 {
    match answer {
        Answer::Done => ERRNO,
        Answer::Refused => ERRNO | libc::EPERM.cast_unsigned(),
        Answer::Absent => ERRNO | libc::ENOSYS.cast_unsigned(),
        Answer::NoFamily => ERRNO | libc::EAFNOSUPPORT.cast_unsigned(),
    }
}

const fn statement(code: u16, k: u32) -> sock_filter {
    sock_filter { code, jt: 0, jf: 0, k }
}

const fn load(offset: u32) -> sock_filter {
    statement(0x20, offset)
}

const fn give(action: u32) -> sock_filter {
    statement(0x06, action)
}

/// Goes on with the next instruction when the loaded value is `k`, or else skips `otherwise`.
const fn when(k: u32, otherwise: u8) -> sock_filter {
    sock_filter { code: 0x15, jt: 0, jf: otherwise, k }
}

/// Goes on with the next instruction when the loaded value is `k` or more, or else skips one.
const fn at_least(k: u32) -> sock_filter {
    sock_filter { code: 0x35, jt: 0, jf: 1, k }
}

/// Goes on with the next instruction when the loaded value has a bit of `k`, or else skips one.
const fn has(k: u32) -> sock_filter {
    sock_filter { code: 0x45, jt: 0, jf: 1, k }
}

/// The instructions that ask about one call that a supervisor may answer.
fn ask(number: u32, action: u32, when_asked: When) -> Vec<sock_filter> {
    let argument = |at: u8| load(ARGUMENT + 8 * u32::from(at));
    let each = |values: &[u32]| values.iter().flat_map(|it| [when(*it, 1), give(action)]).collect();
    let body = match when_asked {
        When::Always => vec![give(action)],
        When::Bits(at, bits) => {
            vec![argument(at), has(bits), give(action), give(ALLOW)]
        }
        When::Is(at, values) => {
            let tests: Vec<sock_filter> = each(values);
            [vec![argument(at)], tests, vec![give(ALLOW)]].concat()
        }
        When::Device(at) => {
            let kind = statement(0x54, libc::S_IFMT);
            let tests: Vec<sock_filter> = each(&[libc::S_IFCHR, libc::S_IFBLK]);
            [vec![argument(at), kind], tests, vec![give(ALLOW)]].concat()
        }
    };
    let length = u8::try_from(body.len()).unwrap_or(u8::MAX);
    [vec![when(number, length)], body].concat()
}

/// The same for a call of which the sixth argument may say that it isn't asked about.
fn ask_unless_passed(number: u32) -> Vec<sock_filter> {
    let lower = (supervise::PASS & 0xffff_ffff) as u32;
    let upper = (supervise::PASS >> 32) as u32;
    let sixth = ARGUMENT + 8 * 5;
    vec![
        when(number, 6),
        load(sixth),
        when(lower, 3),
        // The other half of the same argument.
        load(sixth ^ 4),
        when(upper, 1),
        give(ALLOW),
        give(NOTIFY),
    ]
}

/// Appends the rules of one architecture.
fn rules(filter: &mut Vec<sock_filter>, architecture: Arch, column: fn(&Row) -> i32, watch: Watch) {
    let mut body = vec![load(NUMBER)];
    if architecture == Arch::X86_64 {
        body.extend([at_least(X32), give(answer(Answer::Absent))]);
    }
    for row in CALLS {
        if let Ok(number) = u32::try_from(column(row)) {
            body.extend([when(number, 1), give(answer(row.0))]);
        }
    }
    for (row, argument, test) in GUARDS {
        if let Ok(number) = u32::try_from(column(row)) {
            body.extend([when(number, 4), load(ARGUMENT + 8 * argument)]);
            body.push(match *test {
                Test::Is(value) => when(value, 1),
                Test::Has(bits) => has(bits),
            });
            body.extend([give(answer(row.0)), load(NUMBER)]);
        }
    }
    let is_asked = matches!(watch, Watch::Supervise { .. });
    if architecture == Arch::I386 && !is_asked {
        // Which family `socketcall` is to make a socket of lies in memory, where nobody looks.
        body.extend(ask(102, answer(Answer::Absent), When::Is(0, &[1])));
    }
    for row in supervise::CALLS {
        let Ok(number) = u32::try_from(row.3[architecture as usize]) else { continue };
        match watch {
            Watch::Discard if matches!(row.1, Theme::Owner | Theme::SetId | Theme::Node) => {
                let when = supervise::wanted(Scope::Light, row, false, false).unwrap_or(row.2);
                body.extend(ask(number, answer(Answer::Done), when));
            }
            Watch::Supervise { scope, by_path, strict } => {
                if let Some(when) = supervise::wanted(scope, row, by_path, strict) {
                    let passes = scope == Scope::Full
                        && architecture == Arch::X86_64
                        && row.1 == Theme::Stat;
                    body.extend(if passes {
                        ask_unless_passed(number)
                    } else {
                        ask(number, NOTIFY, when)
                    });
                }
            }
            _ => {}
        }
    }
    body.push(give(ALLOW));
    filter.push(load(ARCHITECTURE));
    let audit = match architecture {
        Arch::X86_64 => X86_64,
        Arch::I386 => I386,
        Arch::Aarch64 => AARCH64,
    };
    // A condition can skip 255 instructions at most, and these may be more.
    let here = sock_filter { code: 0x15, jt: 1, jf: 0, k: audit };
    filter.extend([here, statement(0x05, u32::try_from(body.len()).unwrap_or(u32::MAX))]);
    filter.extend(body);
}

/// Returns the filter for programs that this machine can run. A program of an architecture that is
/// not listed gets nothing done.
pub(super) fn program(watch: Watch) -> Vec<sock_filter> {
    let mut filter = Vec::new();
    if cfg!(target_arch = "aarch64") {
        rules(&mut filter, Arch::Aarch64, |row| row.3, watch);
    } else {
        rules(&mut filter, Arch::X86_64, |row| row.1, watch);
        rules(&mut filter, Arch::I386, |row| row.2, watch);
    }
    filter.push(give(answer(Answer::Absent)));
    filter
}

/// Returns the filter that a process gets besides which believes to be another than root. Of two
/// filters the one that has a call answered wins over the one that hands it to a tracer.
pub(super) fn second() -> Vec<sock_filter> {
    let mut filter = Vec::new();
    for (architecture, audit) in [(Arch::X86_64, X86_64), (Arch::I386, I386)] {
        let mut body = vec![load(NUMBER)];
        for row in supervise::CALLS.iter().filter(|row| supervise::is_for_others(row)) {
            if let Ok(number) = u32::try_from(row.3[architecture as usize]) {
                body.extend(ask(number, TRACE, When::Always));
            }
        }
        body.push(give(ALLOW));
        let length = u8::try_from(body.len()).unwrap_or(u8::MAX);
        filter.extend([load(ARCHITECTURE), when(audit, length)]);
        filter.extend(body);
    }
    filter.push(give(ALLOW));
    filter
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a filter as the kernel would; both arguments are the same.
    fn verdict(filter: &[sock_filter], architecture: u32, number: u32, argument: u64) -> u32 {
        run(filter, architecture, number, &[argument, argument, 0])
    }

    /// The same, by the third argument.
    fn third(filter: &[sock_filter], architecture: u32, number: u32, argument: u64) -> u32 {
        run(filter, architecture, number, &[0, 0, argument])
    }

    fn run(filter: &[sock_filter], architecture: u32, number: u32, arguments: &[u64]) -> u32 {
        let mut data = [0; 64];
        data[..4].copy_from_slice(&number.to_ne_bytes());
        data[4..8].copy_from_slice(&architecture.to_ne_bytes());
        for (place, argument) in data[16..].chunks_mut(8).zip(arguments) {
            place.copy_from_slice(&argument.to_ne_bytes());
        }
        let (mut at, mut value) = (0, 0);
        loop {
            let sock_filter { code, jt, jf, k } = filter[at];
            let jump = |truth: bool| usize::from(if truth { jt } else { jf });
            at += 1;
            match code {
                0x20 => {
                    let bytes = data[k as usize..][..4].try_into().unwrap();
                    value = u32::from_ne_bytes(bytes);
                }
                0x15 => at += jump(value == k),
                0x35 => at += jump(value >= k),
                0x45 => at += jump(value & k != 0),
                0x54 => value &= k,
                0x05 => at += k as usize,
                0x06 => return k,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    /// The rules of all architectures at once.
    fn every(filter: &mut Vec<sock_filter>, watch: Watch) {
        rules(filter, Arch::X86_64, |row| row.1, watch);
        rules(filter, Arch::I386, |row| row.2, watch);
        rules(filter, Arch::Aarch64, |row| row.3, watch);
    }

    #[test]
    fn what_a_supervisor_answers_on_each_architecture() {
        let filter = |scope, by_path, strict| {
            let mut filter = Vec::new();
            every(&mut filter, Watch::Supervise { scope, by_path, strict });
            filter
        };
        let full = filter(Scope::Full, false, false);
        let light = filter(Scope::Light, false, false);
        let by_path = filter(Scope::Full, true, false);
        let strict = filter(Scope::Full, false, true);
        let creat = u64::from(libc::O_CREAT.cast_unsigned());
        for (architecture, chown, mknodat, openat, rename, fsync) in [
            (X86_64, 260, 259, 257, 264, 74),
            (I386, 298, 297, 295, 302, 118),
            (AARCH64, 54, 33, 56, 38, 82),
        ] {
            assert_eq!(verdict(&full, architecture, chown, 0), NOTIFY);
            assert_eq!(verdict(&light, architecture, chown, 0), ALLOW);
            assert_eq!(third(&light, architecture, mknodat, u64::from(libc::S_IFCHR)), NOTIFY);
            assert_eq!(third(&light, architecture, mknodat, u64::from(libc::S_IFBLK)), NOTIFY);
            assert_eq!(third(&light, architecture, mknodat, u64::from(libc::S_IFIFO)), ALLOW);
            assert_eq!(third(&full, architecture, openat, creat | 1), NOTIFY);
            assert_eq!(third(&full, architecture, openat, 0), ALLOW);
            assert_eq!(third(&full, architecture, openat, 1), NOTIFY);
            assert_eq!(third(&strict, architecture, openat, 0), NOTIFY);
            assert_eq!(verdict(&strict, architecture, rename, 0), NOTIFY);
            assert_eq!(verdict(&full, architecture, 439, 0), ALLOW);
            assert_eq!(verdict(&strict, architecture, 439, 0), NOTIFY);
            assert_eq!(verdict(&full, architecture, rename, 0), ALLOW);
            assert_eq!(verdict(&by_path, architecture, rename, 0), NOTIFY);
            assert_eq!(verdict(&full, architecture, fsync, 0), ERRNO);
        }
        for filter in [&full, &light] {
            assert_eq!(verdict(filter, I386, 102, 1), NOTIFY);
            assert_eq!(verdict(filter, I386, 102, 3), ALLOW);
        }
        let mut discard = Vec::new();
        every(&mut discard, Watch::Discard);
        assert_eq!(verdict(&discard, X86_64, 105, 0), ERRNO);
        assert_eq!(third(&discard, X86_64, 259, u64::from(libc::S_IFCHR)), ERRNO);
        assert_eq!(verdict(&discard, X86_64, 102, 0), ALLOW);
        assert_eq!(verdict(&discard, I386, 102, 1), answer(Answer::Absent));
    }

    #[test]
    fn who_looks_up_owners_by_itself_is_let_through() {
        let filter = |scope| {
            let mut filter = Vec::new();
            every(&mut filter, Watch::Supervise { scope, by_path: true, strict: false });
            filter
        };
        let sixth = |scope, architecture, number, argument| {
            run(&filter(scope), architecture, number, &[0, 0, 0, 0, 0, argument])
        };
        let pass = supervise::PASS;
        for number in [4, 5, 6, 262, 332] {
            assert_eq!(sixth(Scope::Full, X86_64, number, pass), ALLOW);
            for other in [0, pass + 1, pass ^ (1 << 32), pass & 0xffff_ffff] {
                assert_eq!(sixth(Scope::Full, X86_64, number, other), NOTIFY);
            }
            assert_eq!(sixth(Scope::Nodes, X86_64, number, pass), NOTIFY);
        }
        assert_eq!(sixth(Scope::Full, X86_64, 260, pass), NOTIFY);
        assert_eq!(sixth(Scope::Full, I386, 300, pass), NOTIFY);
        assert_eq!(sixth(Scope::Full, AARCH64, 79, pass), NOTIFY);
    }

    #[test]
    fn the_answers_for_each_architecture() {
        let mut filter = Vec::new();
        every(&mut filter, Watch::Nothing);
        filter.push(give(answer(Answer::Absent)));
        let eperm = answer(Answer::Refused);
        let enosys = answer(Answer::Absent);
        for (architecture, fsync, bpf, ioctl, read, clone, socket) in [
            (X86_64, 74, 321, 16, 0, 56, 41),
            (I386, 118, 357, 54, 3, 120, 359),
            (AARCH64, 82, 280, 29, 63, 220, 198),
        ] {
            // As fork calls it, and with a namespace of cgroups.
            assert_eq!(verdict(&filter, architecture, clone, 0x0120_0011), ALLOW);
            assert_eq!(verdict(&filter, architecture, clone, 0x0200_0011), eperm);
            assert_eq!(verdict(&filter, architecture, socket, 2), ALLOW);
            assert_eq!(verdict(&filter, architecture, socket, 40), answer(Answer::NoFamily));
            assert_eq!(verdict(&filter, architecture, fsync, 0), ERRNO);
            assert_eq!(verdict(&filter, architecture, bpf, 0), eperm);
            assert_eq!(verdict(&filter, architecture, 425, 0), enosys);
            assert_eq!(verdict(&filter, architecture, ioctl, 0x5412), eperm);
            // The kernel looks at the lower half of the request only.
            assert_eq!(verdict(&filter, architecture, ioctl, 0x1_0000_541c), eperm);
            assert_eq!(verdict(&filter, architecture, ioctl, 0x5401), ALLOW);
            assert_eq!(verdict(&filter, architecture, read, 0x5412), ALLOW);
        }
        assert_eq!(verdict(&filter, X86_64, X32 | 1, 0), enosys);
        assert_eq!(verdict(&filter, 0x1234, 0, 0), enosys);
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_numbers_are_those_of_the_system() {
        let native = [
            libc::SYS_fsync,
            libc::SYS_fdatasync,
            libc::SYS_sync,
            libc::SYS_syncfs,
            libc::SYS_sync_file_range,
            libc::SYS_io_uring_setup,
            libc::SYS_io_uring_enter,
            libc::SYS_io_uring_register,
            libc::SYS_kexec_load,
            libc::SYS_kexec_file_load,
            libc::SYS_bpf,
            libc::SYS_perf_event_open,
            libc::SYS_add_key,
            libc::SYS_request_key,
            libc::SYS_keyctl,
            libc::SYS_userfaultfd,
            libc::SYS_open_by_handle_at,
            libc::SYS_clone3,
        ];
        let table: Vec<i64> = CALLS.iter().map(|row| i64::from(row.1)).collect();
        assert_eq!(table, native);
        let (ioctl, unshare) = (libc::SYS_ioctl, libc::SYS_unshare);
        let guarded = [ioctl, ioctl, unshare, libc::SYS_clone, libc::SYS_socket];
        let table: Vec<i64> = GUARDS.iter().map(|guard| i64::from(guard.0.1)).collect();
        assert_eq!(table, guarded);
    }
}
