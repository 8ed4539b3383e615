//! The calls of the kernel that follow a traced thread, and that have it make calls of ours: x86-64
//! machines alone, with programs of both of their architectures.

#![expect(unsafe_code, reason = "the tracer's share of it")]

use std::io;

use super::calls::Arch;

const CONTINUE: usize = 7;
const GET_REGISTERS: usize = 12;
const SET_REGISTERS: usize = 13;
const UNTIL_CALL: usize = 24;
const DETACH: usize = 17;
const SEIZE: usize = 0x4206;
const INTERRUPT: usize = 0x4207;
const LISTEN: usize = 0x4208;
const GET_MASK: usize = 0x420a;
const SET_MASK: usize = 0x420b;
const GET_CALL: usize = 0x420e;

/// Children are followed, new programs and calls that a filter hands over stop, stops at calls are
/// told from signals, and who is traced ends with the tracer.
const OPTIONS: usize = 0x1 | 0x2 | 0x4 | 0x8 | 0x10 | 0x80 | 0x0010_0000;
/// As the kernel sizes a set of signals.
const MASK: usize = 8;

/// The registers of a thread: `struct user_regs_struct`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Registers {
    r15_to_r12: [u64; 4],
    rbp: u64,
    rbx: u64,
    r11: u64,
    r10: u64,
    r9: u64,
    r8: u64,
    rax: u64,
    rcx: u64,
    rdx: u64,
    rsi: u64,
    rdi: u64,
    orig_rax: u64,
    rip: u64,
    rest: [u64; 10],
}

impl Registers {
    /// What the last call returned.
    pub(super) fn result(&self) -> i64 {
        self.rax.cast_signed()
    }

    /// Has the call that is about to begin be another one.
    pub(super) fn replace(&mut self, arch: Arch, number: u64, arguments: [u64; 6]) {
        self.orig_rax = number;
        if arch == Arch::I386 {
            [self.rbx, self.rcx, self.rdx, self.rsi, self.rdi, self.rbp] = arguments;
        } else {
            [self.rdi, self.rsi, self.rdx, self.r10, self.r8, self.r9] = arguments;
        }
    }

    /// Has the call that is about to begin, or was just made, begin (once more). Its instruction has
    /// two bytes, whichever it is.
    pub(super) fn again(&mut self) {
        self.rip -= 2;
        self.rax = self.orig_rax;
        // No restart of its own after a signal.
        self.orig_rax = u64::MAX;
    }

    /// Has the call that is about to begin return this instead.
    pub(super) fn skip(&mut self, result: i64) {
        self.orig_rax = u64::MAX;
        self.rax = result.cast_unsigned();
    }
}

/// A call that stopped: `struct ptrace_syscall_info`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stopped {
    kind: u8,
    padding: [u8; 3],
    pub(super) architecture: u32,
    instruction: u64,
    stack: u64,
    pub(super) number: u64,
    pub(super) arguments: [u64; 6],
    extra: u64,
}

impl Stopped {
    /// Tells whether the call has returned; or else it is about to begin.
    pub(super) fn is_over(&self) -> bool {
        self.kind == 2
    }
}

fn request(request: usize, thread: i32, address: usize, data: usize) -> io::Result<i64> {
    let thread = i64::from(thread);
    // SAFETY: where data is an address, the callers below give one of a struct of theirs that is
    // large enough, and that outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_ptrace, request, thread, address, data) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Begins to follow a thread and all that it will start.
pub(super) fn seize(thread: i32) -> io::Result<()> {
    request(SEIZE, thread, 0, OPTIONS)?;
    request(INTERRUPT, thread, 0, 0).map(|_| ())
}

/// Lets a stopped thread go on, with a signal where that isn't 0.
pub(super) fn go_on(thread: i32, signal: i32) {
    // One that was killed meanwhile doesn't.
    request(CONTINUE, thread, 0, usize::try_from(signal).unwrap_or(0)).ok();
}

/// Lets it go on until it makes a call, or returns from one.
pub(super) fn until_call(thread: i32, signal: i32) -> io::Result<()> {
    request(UNTIL_CALL, thread, 0, usize::try_from(signal).unwrap_or(0)).map(|_| ())
}

/// Lets it stay stopped, as a signal has it, until another wakes it.
pub(super) fn listen(thread: i32) {
    request(LISTEN, thread, 0, 0).ok();
}

/// Follows it no longer.
pub(super) fn let_go(thread: i32) {
    request(DETACH, thread, 0, 0).ok();
}

pub(super) fn registers(thread: i32) -> io::Result<Registers> {
    let mut registers = Registers::default();
    request(GET_REGISTERS, thread, 0, (&raw mut registers).addr())?;
    Ok(registers)
}

pub(super) fn set_registers(thread: i32, registers: &Registers) -> io::Result<()> {
    request(SET_REGISTERS, thread, 0, std::ptr::from_ref(registers).addr()).map(|_| ())
}

/// The signals that a thread blocks.
pub(super) fn mask(thread: i32) -> io::Result<u64> {
    let mut mask = 0_u64;
    request(GET_MASK, thread, MASK, (&raw mut mask).addr())?;
    Ok(mask)
}

pub(super) fn set_mask(thread: i32, mask: u64) -> io::Result<()> {
    request(SET_MASK, thread, MASK, (&raw const mask).addr()).map(|_| ())
}

/// The call that a thread is stopped at.
pub(super) fn call(thread: i32) -> io::Result<Stopped> {
    let mut stopped = Stopped::default();
    request(GET_CALL, thread, size_of::<Stopped>(), (&raw mut stopped).addr())?;
    Ok(stopped)
}

/// What became of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Ended,
    /// It is about to make a call, or has made one.
    AtCall,
    /// A filter hands a call over.
    Handed,
    /// It runs a new program, and has the number of its process.
    Executed,
    /// It is stopped: it was asked to be, or is new, or a signal had it stop.
    Halted {
        by_signal: bool,
    },
    /// A signal is about to reach it.
    Signal(i32),
    /// Anything else that needs no answer.
    Other,
}

/// Waits for something to happen to a thread that this one traces: to one, or to any of them.
/// `None` when there is none any more.
pub(super) fn wait(thread: Option<i32>) -> io::Result<Option<(i32, Event)>> {
    let mut status = 0;
    let waited = loop {
        let flags = libc::__WALL | libc::__WNOTHREAD;
        // SAFETY: the status is ours.
        let waited = unsafe { libc::waitpid(thread.unwrap_or(-1), &raw mut status, flags) };
        match io::Error::last_os_error() {
            _ if waited > 0 => break waited,
            error if error.raw_os_error() == Some(libc::EINTR) => {}
            error if error.raw_os_error() == Some(libc::ECHILD) => return Ok(None),
            error => return Err(error),
        }
    };
    if !libc::WIFSTOPPED(status) {
        return Ok(Some((waited, Event::Ended)));
    }
    let signal = libc::WSTOPSIG(status);
    let event = match status >> 16 {
        0 if signal == libc::SIGTRAP | 0x80 => Event::AtCall,
        0 => Event::Signal(signal),
        4 => Event::Executed,
        7 => Event::Handed,
        128 => Event::Halted { by_signal: signal != libc::SIGTRAP },
        _ => Event::Other,
    };
    Ok(Some((waited, event)))
}
