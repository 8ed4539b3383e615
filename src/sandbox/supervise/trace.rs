//! Those who believe to be another than root in a step that began as root. The step's filter lets
//! them read whatever root may, since it can't tell them from root, who isn't to be slowed down. So
//! they get a second filter, which they and their children keep; the calls that it hands over need
//! a tracer, and that is what a thread here is, to one such process and all that come from it.
//!
//! Where a process can't be traced (another tracer has it; Yama forbids it) it reads as root does.

use std::io;
use std::sync::mpsc::{Receiver, Sender};
use std::thread::Scope;

use super::calls::{self, Arch};
use super::kernel::{self, Answer, Notice};
use super::listener::answer;
use super::ptrace::{self, Event, Registers};
use super::step::{Call, Step};
use crate::sandbox::filter;

/// A thread of the step to be traced.
pub(super) struct Request {
    pub(super) thread: u32,
    /// Told when it is, or can't be.
    pub(super) done: Sender<()>,
}

/// Has each process that is asked for traced by a thread of its own.
pub(super) fn usher<'scope>(
    scope: &'scope Scope<'scope, '_>,
    step: &'scope Step<'_>,
    requests: Receiver<Request>,
) {
    for Request { thread, done } in requests {
        scope.spawn(move || {
            let thread = thread.cast_signed();
            let seized = kernel::leave_shared_folders().and_then(|()| ptrace::seize(thread));
            let is_traced = seized.is_ok();
            drop(done);
            if is_traced {
                follow(step, thread).ok();
            }
        });
    }
}

/// Answers until nothing is left of a process and of all that came from it.
fn follow(step: &Step<'_>, mut first: i32) -> io::Result<()> {
    let mut begun = false;
    while let Some((thread, event)) = ptrace::wait(None)? {
        match event {
            Event::Ended => {}
            Event::Signal(signal) if thread == first && !begun => {
                ptrace::until_call(thread, signal).ok();
            }
            Event::Signal(signal) => ptrace::go_on(thread, signal),
            Event::Halted { by_signal: true } => ptrace::listen(thread),
            // Where others of the process end for a new program, the stop that was asked for gets
            // lost, and this is the first one.
            Event::Executed if !begun => {
                first = thread;
                ptrace::until_call(thread, 0).ok();
            }
            // One that was stopped within a call returns from it first.
            Event::AtCall
                if thread == first
                    && !begun
                    && ptrace::call(thread).is_ok_and(|it| it.is_over()) =>
            {
                ptrace::until_call(thread, 0).ok();
            }
            Event::AtCall if thread == first && !begun => {
                begun = true;
                match add_filter(thread) {
                    Ok(true) => ptrace::go_on(thread, 0),
                    _ => ptrace::let_go(thread),
                }
            }
            _ if thread == first && !begun => {
                ptrace::until_call(thread, 0).ok();
            }
            Event::Handed => {
                hear(step, thread).ok();
                ptrace::go_on(thread, 0);
            }
            Event::AtCall | Event::Executed | Event::Halted { .. } | Event::Other => {
                ptrace::go_on(thread, 0);
            }
        }
    }
    Ok(())
}

/// Answers a call that the second filter handed over. Without an answer the kernel carries it out.
fn hear(step: &Step<'_>, thread: i32) -> io::Result<()> {
    let stopped = ptrace::call(thread)?;
    let Some(arch) = Arch::from_audit(stopped.architecture) else { return Ok(()) };
    let number = i32::try_from(stopped.number).unwrap_or(-1);
    let Some(row) = calls::find(arch, number) else { return Ok(()) };
    let mut notice = Notice::default();
    notice.pid = thread.cast_unsigned();
    notice.arguments = stopped.arguments;
    let result = match answer(&Call::traced(step, &notice, arch, row.0), row.1) {
        Answer::Continue | Answer::Told => return Ok(()),
        Answer::Value(value) => value,
        Answer::Error(errno) => -i64::from(errno),
    };
    let mut registers = ptrace::registers(thread)?;
    registers.skip(result);
    ptrace::set_registers(thread, &registers)
}

/// The numbers of `mmap`, `munmap` and `seccomp`.
fn numbers(arch: Arch) -> [u64; 3] {
    match arch {
        Arch::X86_64 => [9, 11, 317],
        Arch::I386 => [192, 91, 354],
        Arch::Aarch64 => [222, 215, 277],
    }
}

/// Room for the filter in the process.
const ROOM: u64 = 16384;
/// Where in it the filter itself begins, behind what tells of it.
const START: usize = 16;

/// Has a thread that is about to make a call put the second filter before itself, and then make its
/// call. Tells whether the filter is there.
fn add_filter(thread: i32) -> io::Result<bool> {
    let stopped = ptrace::call(thread)?;
    let before = ptrace::registers(thread)?;
    let mask = ptrace::mask(thread)?;
    let Some(arch) = Arch::from_audit(stopped.architecture) else { return Ok(false) };
    // A signal's handler must not run with these registers.
    ptrace::set_mask(thread, u64::MAX)?;
    let mut hand = Hand { thread, arch, before, has_called: false };
    let result = hand.add_filter();
    let mut after = before;
    if hand.has_called {
        after.again();
    }
    ptrace::set_registers(thread, &after)?;
    ptrace::set_mask(thread, mask)?;
    result
}

/// Has a thread make calls of ours.
struct Hand {
    thread: i32,
    arch: Arch,
    before: Registers,
    has_called: bool,
}

impl Hand {
    fn add_filter(&mut self) -> io::Result<bool> {
        let [mmap, munmap, seccomp] = numbers(self.arch);
        let filter = filter::second();
        let length = u16::try_from(filter.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        // Readable and writable; private and of no file.
        let room = self.call(mmap, [0, ROOM, 3, 0x22, u64::MAX, 0])?;
        let Ok(room) = u64::try_from(room) else { return Ok(false) };
        let program = room + START as u64;
        let mut bytes = u64::from(length).to_le_bytes().to_vec();
        if self.arch == Arch::I386 {
            bytes.truncate(4);
            bytes.extend(u32::try_from(program).unwrap_or(0).to_le_bytes());
        } else {
            bytes.extend(program.to_le_bytes());
        }
        bytes.resize(START, 0);
        for line in filter {
            bytes.extend(line.code.to_le_bytes());
            bytes.extend([line.jt, line.jf]);
            bytes.extend(line.k.to_le_bytes());
        }
        let written = kernel::write_memory(self.thread.cast_unsigned(), room, &bytes);
        let operation = u64::from(libc::SECCOMP_SET_MODE_FILTER);
        let added = match written {
            Ok(()) => self.call(seccomp, [operation, 0, room, 0, 0, 0]).map(|result| result == 0),
            Err(error) => Err(error),
        };
        self.call(munmap, [room, ROOM, 0, 0, 0, 0])?;
        added
    }

    fn call(&mut self, number: u64, arguments: [u64; 6]) -> io::Result<i64> {
        let mut registers = self.before;
        registers.replace(self.arch, number, arguments);
        if self.has_called {
            registers.again();
        }
        ptrace::set_registers(self.thread, &registers)?;
        if self.has_called {
            self.until_call()?;
        }
        self.has_called = true;
        self.until_call()?;
        let result = ptrace::registers(self.thread)?.result();
        // A program of 32 bits has its errors there as well.
        let is_error = |it: i64| (-4095..0).contains(&it);
        let short = i64::from((result & 0xffff_ffff) as i32);
        Ok(match self.arch {
            Arch::I386 if is_error(short) => short,
            Arch::I386 => result & 0xffff_ffff,
            _ => result,
        })
    }

    fn until_call(&self) -> io::Result<()> {
        let mut signal = 0;
        loop {
            ptrace::until_call(self.thread, signal)?;
            signal = match ptrace::wait(Some(self.thread))? {
                Some((_, Event::AtCall)) => return Ok(()),
                Some((_, Event::Signal(signal))) => signal,
                None | Some((_, Event::Ended)) => return Err(io::ErrorKind::NotFound.into()),
                Some(_) => 0,
            };
        }
    }
}
