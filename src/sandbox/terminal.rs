//! The caller's terminal, and between it and a step's own everything that is typed and shown.
//!
//! A step never gets the caller's terminal itself: a program that holds one may change how it
//! behaves, or read what is typed after the step has ended. It has one of its own, on a `devpts` of
//! its own, whose other end the build holds.

use std::io::{self, PipeReader};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::termios::{LocalModes, OptionalActions, Termios};

/// How the caller's terminal was, while it passes each key on as it is.
static BEFORE: Mutex<Option<(OwnedFd, Termios)>> = Mutex::new(None);

fn before() -> MutexGuard<'static, Option<(OwnedFd, Termios)>> {
    BEFORE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes the caller's terminal again what it was before a step was attached to it; for a process
/// that is about to end by a signal.
pub fn restore_terminal() {
    if let Some((terminal, termios)) = before().take() {
        // Nobody is left to tell.
        rustix::termios::tcsetattr(terminal, OptionalActions::Now, &termios).ok();
    }
}

/// Asks for a line at a terminal, which does not show it.
pub fn read_hidden(terminal: BorrowedFd<'_>, question: &str) -> io::Result<String> {
    let termios = rustix::termios::tcgetattr(terminal)?;
    let mut hidden = termios.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    *before() = Some((terminal.try_clone_to_owned()?, termios));
    let mut line = Vec::new();
    let mut read = || -> io::Result<()> {
        rustix::termios::tcsetattr(terminal, OptionalActions::Flush, &hidden)?;
        rustix::io::write(terminal, question.as_bytes())?;
        let mut byte = [0];
        while rustix::io::retry_on_intr(|| rustix::io::read(terminal, &mut byte))? == 1 {
            if byte[0] == b'\n' {
                break;
            }
            line.push(byte[0]);
        }
        Ok(())
    };
    let outcome = read();
    restore_terminal();
    outcome?;
    String::from_utf8(line).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
}

/// A terminal that a person sits at.
#[derive(Debug)]
pub struct Terminal {
    input: OwnedFd,
    output: OwnedFd,
}

impl Terminal {
    /// Takes a terminal's two sides; `None` when one of them is no terminal.
    pub fn new(input: BorrowedFd<'_>, output: BorrowedFd<'_>) -> io::Result<Option<Terminal>> {
        if !rustix::termios::isatty(input) || !rustix::termios::isatty(output) {
            return Ok(None);
        }
        let (input, output) = (input.try_clone_to_owned()?, output.try_clone_to_owned()?);
        Ok(Some(Terminal { input, output }))
    }

    /// Passes everything to and from a step's terminal, until nobody holds that any more.
    pub(super) fn serve(&self, step: &OwnedFd) {
        let raw = self.pass_keys();
        let resized = UnixStream::pair().and_then(|(ours, theirs)| {
            let id = signal_hook::low_level::pipe::register(signal_hook::consts::SIGWINCH, theirs)?;
            Ok((ours, id))
        });
        self.resize(step);
        let ended = io::pipe();
        std::thread::scope(|scope| {
            let (ended, over) = match ended {
                Ok((ended, over)) => (Some(ended), Some(over)),
                Err(_) => (None, None),
            };
            let sizes = resized.as_ref().ok().map(|(sizes, _)| sizes);
            if let Some(ended) = ended {
                scope.spawn(move || self.keys(step, sizes, &ended));
            }
            pass(step, &self.output);
            // The other thread waits for this.
            drop(over);
        });
        if let Ok((_, id)) = resized {
            signal_hook::low_level::unregister(id);
        }
        if raw {
            restore_terminal();
        }
    }

    /// Has the terminal hand each key on: Ctrl-C is for the step's terminal to understand.
    fn pass_keys(&self) -> bool {
        let Ok(old) = rustix::termios::tcgetattr(&self.input) else { return false };
        let Ok(kept) = self.input.try_clone() else { return false };
        let mut raw = old.clone();
        raw.make_raw();
        *before() = Some((kept, old));
        rustix::termios::tcsetattr(&self.input, OptionalActions::Now, &raw).is_ok()
    }

    fn resize(&self, step: &OwnedFd) {
        if let Ok(size) = rustix::termios::tcgetwinsize(&self.output) {
            rustix::termios::tcsetwinsize(step, size).ok();
        }
    }

    /// Passes keys and sizes on until the step is over.
    fn keys(&self, step: &OwnedFd, sizes: Option<&UnixStream>, ended: &PipeReader) {
        let mut buffer = [0; 4096];
        let mut closed = false;
        loop {
            let sizes_fd = sizes.map_or(ended.as_fd(), AsFd::as_fd);
            let keys_fd = if closed { ended.as_fd() } else { self.input.as_fd() };
            let mut fds = [ended.as_fd(), sizes_fd, keys_fd]
                .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
            match rustix::event::poll(&mut fds, None) {
                Err(Errno::INTR) => continue,
                Err(_) => return,
                Ok(_) => {}
            }
            let [over, resized, typed] = fds.map(|fd| !fd.revents().is_empty());
            if over {
                return;
            }
            if resized && let Some(sizes) = sizes {
                rustix::io::read(sizes, &mut buffer[..64]).ok();
                self.resize(step);
            }
            if typed {
                match rustix::io::read(&self.input, &mut buffer) {
                    Err(Errno::INTR) => {}
                    // The person is gone, which for the step's terminal is its end too.
                    Ok(0) | Err(_) => closed = true,
                    Ok(length) => {
                        if write_all(step, &buffer[..length]).is_err() {
                            return;
                        }
                    }
                }
            }
        }
    }
}

/// Copies what a step's terminal shows, to its end, which is an error of the kernel's.
fn pass(from: &OwnedFd, to: &OwnedFd) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match rustix::io::read(from, &mut buffer) {
            Err(Errno::INTR) => {}
            Ok(0) | Err(_) => return,
            // With nobody to see it, the step still goes on.
            Ok(length) => {
                write_all(to, &buffer[..length]).ok();
            }
        }
    }
}

fn write_all(to: &OwnedFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
            Ok(length) => bytes = &bytes[length..],
        }
    }
    Ok(())
}
