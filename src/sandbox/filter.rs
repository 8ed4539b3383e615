//! The seccomp filter of a step: what it must not call, and what it may believe that it did.
//!
//! Answered with success and not done are `fsync` and its kin: a build that dies is thrown away
//! whole. Refused is what reaches past the namespaces or past a supervisor of file ownership. The
//! filter is written out here as the instructions of classic BPF; a system call's number depends on
//! the architecture of the program that makes it, so a step on x86-64 needs two columns.

use libc::sock_filter;

/// What the step is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// It worked.
    Done,
    /// It isn't permitted.
    Refused,
    /// The kernel has no such call.
    Absent,
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
];

/// `ioctl` on the three, and the requests that type into a terminal.
const IOCTL: (i32, i32, i32) = (16, 54, 29);
const TYPING: [u32; 2] = [0x5412, 0x541c];

const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;
const AARCH64: u32 = 0xc000_00b7;
/// Set in the numbers of the x32 calls, which are those of x86-64 otherwise.
const X32: u32 = 0x4000_0000;

// Where the kernel puts what is asked about: `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const SECOND_ARGUMENT: u32 = if cfg!(target_endian = "little") { 24 } else { 28 };

const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;

fn answer(answer: Answer) -> u32 {
    match answer {
        Answer::Done => ERRNO,
        Answer::Refused => ERRNO | libc::EPERM.cast_unsigned(),
        Answer::Absent => ERRNO | libc::ENOSYS.cast_unsigned(),
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

/// Appends the rules of one architecture.
fn rules(filter: &mut Vec<sock_filter>, architecture: u32, column: fn(&Row) -> i32, ioctl: i32) {
    let mut body = vec![load(NUMBER)];
    if architecture == X86_64 {
        body.extend([at_least(X32), give(answer(Answer::Absent))]);
    }
    for row in CALLS {
        if let Ok(number) = u32::try_from(column(row)) {
            body.extend([when(number, 1), give(answer(row.0))]);
        }
    }
    body.push(when(ioctl.cast_unsigned(), 5));
    body.push(load(SECOND_ARGUMENT));
    for request in TYPING {
        body.extend([when(request, 1), give(answer(Answer::Refused))]);
    }
    body.push(give(ALLOW));
    filter.push(load(ARCHITECTURE));
    let length = u8::try_from(body.len()).unwrap_or(u8::MAX);
    filter.push(when(architecture, length));
    filter.extend(body);
}

/// Returns the filter for programs that this machine can run. A program of an architecture that is
/// not listed gets nothing done.
pub(super) fn program() -> Vec<sock_filter> {
    let mut filter = Vec::new();
    if cfg!(target_arch = "aarch64") {
        rules(&mut filter, AARCH64, |row| row.3, IOCTL.2);
    } else {
        rules(&mut filter, X86_64, |row| row.1, IOCTL.0);
        rules(&mut filter, I386, |row| row.2, IOCTL.1);
    }
    filter.push(give(answer(Answer::Absent)));
    filter
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a filter as the kernel would.
    fn verdict(filter: &[sock_filter], architecture: u32, number: u32, second: u64) -> u32 {
        let mut data = [0; 64];
        data[..4].copy_from_slice(&number.to_ne_bytes());
        data[4..8].copy_from_slice(&architecture.to_ne_bytes());
        data[24..32].copy_from_slice(&second.to_ne_bytes());
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
                0x06 => return k,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    #[test]
    fn the_answers_for_each_architecture() {
        let mut filter = Vec::new();
        rules(&mut filter, X86_64, |row| row.1, IOCTL.0);
        rules(&mut filter, I386, |row| row.2, IOCTL.1);
        rules(&mut filter, AARCH64, |row| row.3, IOCTL.2);
        filter.push(give(answer(Answer::Absent)));
        let eperm = answer(Answer::Refused);
        let enosys = answer(Answer::Absent);
        for (architecture, fsync, bpf, ioctl, read) in
            [(X86_64, 74, 321, 16, 0), (I386, 118, 357, 54, 3), (AARCH64, 82, 280, 29, 63)]
        {
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
        ];
        let table: Vec<i64> = CALLS.iter().map(|row| i64::from(row.1)).collect();
        assert_eq!(table, native);
        assert_eq!(libc::SYS_ioctl, i64::from(IOCTL.0));
    }
}
