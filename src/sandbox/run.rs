//! One command over a tree: starts its helper, streams what it writes, and ends it in time.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags};

use crate::report::Stream;
use crate::sandbox::spec::Network;
use crate::sandbox::supervise::{self, Owners, Supervised};
use crate::sandbox::wire::{self, Order, Reply, Said, Word};
use crate::sandbox::{Doors, Error, Outcome, Spec, Terminal, enter, helper};

/// The longest line that comes in one part.
const LINE: u64 = 64 << 10;

/// How many lines may wait for the caller.
const QUEUE: usize = 1024;

/// Ends running commands from another thread, as a signal's.
#[derive(Debug, Default)]
pub struct Cancel {
    state: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    triggered: bool,
    next: u64,
    commands: BTreeMap<u64, SyncSender<Event>>,
}

impl Cancel {
    /// Kills every command that runs with it, and keeps others from starting.
    pub fn trigger(&self) {
        let commands = {
            let mut state = self.lock();
            state.triggered = true;
            std::mem::take(&mut state.commands)
        };
        for sender in commands.values() {
            // One that has ended doesn't listen any more.
            sender.send(Event::Cancelled).ok();
        }
    }

    /// Tells whether it was triggered.
    pub fn is_triggered(&self) -> bool {
        self.lock().triggered
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a command told when it is to end; `None` when it must not begin.
    fn watch(&self, sender: &SyncSender<Event>) -> Option<u64> {
        let mut state = self.lock();
        if state.triggered {
            return None;
        }
        let number = state.next;
        state.next += 1;
        state.commands.insert(number, sender.clone());
        Some(number)
    }

    fn forget(&self, number: u64) {
        self.lock().commands.remove(&number);
    }
}

/// What happens while a command runs.
#[derive(Debug)]
enum Event {
    Line(Stream, Vec<u8>),
    Reply(Reply),
    Cancelled,
    /// It makes a device node.
    NeedsSupervision,
    /// What is to be done for it from outside can't be.
    Unattended(Error),
    /// One of the three streams is at its end.
    Closed,
}

/// Takes a line of what a command writes.
type Take<'t> = &'t mut dyn FnMut(Stream, &[u8]);

/// Takes the sockets of a command's network, to serve them until it has ended.
pub type Recorder<'r> = &'r (dyn Fn(Doors) -> io::Result<()> + Sync);

/// Who attends to a command from outside.
#[derive(Clone, Copy)]
pub struct Attendants<'a> {
    /// Who keeps the owners of files: in a namespace that has one id the tree can't.
    pub owners: Owners<'a>,
    /// Who serves [`Network::Recorded`]; called once, before the program starts.
    pub recorder: Option<Recorder<'a>>,
    /// What ends it.
    pub cancel: &'a Cancel,
}

impl std::fmt::Debug for Attendants<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attendants").field("owners", &self.owners).finish_non_exhaustive()
    }
}

/// Runs a command and waits until it and all that it started are gone. `output` gets each line that
/// it writes, without its end; a line longer than 64 KiB comes in parts.
pub fn run(spec: &Spec, by: Attendants<'_>, output: Take<'_>) -> Result<Outcome, Error> {
    begin(spec, by, Some(output), None)
}

/// Runs a command by hand, as [`run()`] does: at a terminal that passes everything to and from
/// `terminal`, or else with this process' own stdout and stderr and an empty stdin.
pub fn attach(
    spec: &Spec,
    by: Attendants<'_>,
    terminal: Option<&Terminal>,
) -> Result<Outcome, Error> {
    begin(spec, by, None, terminal)
}

fn begin(
    spec: &Spec,
    by: Attendants<'_>,
    output: Option<Take<'_>>,
    terminal: Option<&Terminal>,
) -> Result<Outcome, Error> {
    let Attendants { owners, recorder, cancel } = by;
    if enter::entered().is_none() {
        return Err(Error::Outside);
    }
    if spec.network == Network::Recorded && recorder.is_none() {
        return Err(Error::NoRecorder);
    }
    let setup = |what: &str| {
        let what = what.to_owned();
        move |source: io::Error| Error::Setup { what, source }
    };
    let deadline = spec.timeout.map(|timeout| Instant::now() + timeout);
    let (sender, events) = mpsc::sync_channel(QUEUE);
    let Some(number) = cancel.watch(&sender) else { return Ok(Outcome::Cancelled) };
    let result = std::thread::scope(|scope| {
        // Owned in here, so that a panic of the caller's function ends the helper and, with it, the
        // threads that the scope waits for.
        let events = events;
        let shown = output.is_none() && terminal.is_none();
        let mut helper = Helper::start(shown).map_err(setup("start the step's helper"))?;
        let order =
            Order { spec: spec.clone(), watch: owners.watch(), terminal: terminal.is_some() };
        wire::say(&helper.control, &order).map_err(setup("tell the step's helper"))?;
        let mut open = 1;
        if let Some(stream) = helper.child.stdout.take() {
            let sender = sender.clone();
            open += 1;
            scope.spawn(move || lines(stream, Stream::Out, &sender));
        }
        if let Some(stream) = helper.child.stderr.take() {
            let sender = sender.clone();
            open += 1;
            scope.spawn(move || lines(stream, Stream::Err, &sender));
        }
        let control = helper.control.try_clone().map_err(setup("copy a socket"))?;
        scope.spawn(move || replies(&control, by, terminal, &sender));
        let mut ignore = |_: Stream, _: &[u8]| {};
        follow(&mut helper, open, &events, output.unwrap_or(&mut ignore), deadline)
    });
    cancel.forget(number);
    result
}

/// The helper process of a command. It is killed when this is dropped.
struct Helper {
    child: Child,
    control: UnixStream,
}

impl Helper {
    fn start(shown: bool) -> io::Result<Helper> {
        // Without the copy there is still the shield of process 1.
        const ITSELF: &str = "/proc/self/exe";
        match sealed_copy() {
            None => Helper::execute(ITSELF, shown),
            Some(copy) => {
                Helper::execute(&copy, shown).or_else(|error| match error.kind() {
                    // Some machines allow programs from known places only.
                    io::ErrorKind::PermissionDenied => Helper::execute(ITSELF, shown),
                    _ => Err(error),
                })
            }
        }
    }

    fn execute(program: &str, shown: bool) -> io::Result<Helper> {
        let output = || if shown { Stdio::inherit() } else { Stdio::piped() };
        let (control, theirs) = UnixStream::pair()?;
        let child = Command::new(program)
            .arg0(helper::STEP)
            .env_clear()
            .stdin(OwnedFd::from(theirs))
            .stdout(output())
            .stderr(output())
            .spawn()?;
        Ok(Helper { child, control })
    }

    /// Ends the command, with all that it started.
    fn kill(&mut self) {
        // A helper that is gone has ended it already.
        self.control.write_all(b"k").ok();
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Returns the path of a copy of this program, sealed and in memory: a step that gets hold of it
/// through /proc can't change the program for the next run.
fn sealed_copy() -> Option<String> {
    static COPY: OnceLock<Option<OwnedFd>> = OnceLock::new();
    let copy = || -> io::Result<OwnedFd> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let mut memory = File::from(rustix::fs::memfd_create("ocibuild", flags)?);
        io::copy(&mut File::open("/proc/self/exe")?, &mut memory)?;
        let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
        rustix::fs::fcntl_add_seals(&memory, seals)?;
        Ok(memory.into())
    };
    let copy = COPY.get_or_init(|| copy().ok()).as_ref();
    copy.map(|memory| format!("/proc/self/fd/{}", memory.as_raw_fd()))
}

/// Sends the lines of a stream.
fn lines(stream: impl Read, which: Stream, to: &SyncSender<Event>) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        match stream.by_ref().take(LINE).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        if to.send(Event::Line(which, line)).is_err() {
            break;
        }
    }
    to.send(Event::Closed).ok();
}

/// Answers the helper and sends on how the command went.
fn replies(
    control: &UnixStream,
    by: Attendants<'_>,
    terminal: Option<&Terminal>,
    to: &SyncSender<Event>,
) {
    let unattended = |error: Error| {
        to.send(Event::Unattended(error)).ok();
    };
    std::thread::scope(|scope| {
        let mut from = BufReader::new(control);
        while let Ok(Some(said)) = wire::hear::<Said>(&mut from) {
            match said {
                Said::Word(Word::Listening { pid, fd, user }) => {
                    let Owners::Kept(ownership) = by.owners else { break };
                    scope.spawn(move || {
                        let ready = || {
                            wire::answer(control).ok();
                        };
                        let more = || {
                            to.send(Event::NeedsSupervision).ok();
                        };
                        let ended = take(pid, fd).and_then(|listener| {
                            let with = Supervised { ownership, listener, pid, user };
                            supervise::supervise(&with, &ready, &more)
                        });
                        if let Err(source) = ended {
                            unattended(Error::Supervisor { source });
                        }
                    });
                }
                Said::Word(Word::Terminal { pid, fd }) => {
                    let Some(terminal) = terminal else { break };
                    match take(pid, fd) {
                        Ok(step) => {
                            wire::answer(control).ok();
                            scope.spawn(move || terminal.serve(&step));
                        }
                        Err(source) => unattended(Error::Supervisor { source }),
                    }
                }
                Said::Word(Word::Doors { pid, numbers }) => {
                    let Some(recorder) = by.recorder else { break };
                    let doors = numbers.take(|number| take(pid, number));
                    match doors.and_then(recorder) {
                        Ok(()) => {
                            wire::answer(control).ok();
                        }
                        Err(source) => unattended(Error::NoDoors { source }),
                    }
                }
                Said::Word(_) => {
                    wire::answer(control).ok();
                }
                Said::Reply(reply) => {
                    to.send(Event::Reply(reply)).ok();
                }
            }
        }
    });
    to.send(Event::Closed).ok();
}

/// Takes a descriptor of process 1 of a step.
fn take(pid: i32, fd: i32) -> io::Result<OwnedFd> {
    let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
    let process = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
    Ok(rustix::process::pidfd_getfd(process, fd, PidfdGetfdFlags::empty())?)
}

/// Hands on what happens until all `open` streams are at their end.
fn follow(
    helper: &mut Helper,
    mut open: u32,
    events: &Receiver<Event>,
    output: Take<'_>,
    mut deadline: Option<Instant>,
) -> Result<Outcome, Error> {
    let mut reply = None;
    let mut ended_by_us = None;
    let mut unattended = None;
    while open > 0 {
        let event = match deadline {
            None => events.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(at) => events.recv_timeout(at.saturating_duration_since(Instant::now())),
        };
        match event {
            Ok(Event::Line(stream, line)) => output(stream, &line),
            Ok(Event::Reply(said)) => reply = Some(said),
            Ok(Event::Closed) => open -= 1,
            Ok(Event::Cancelled) => {
                ended_by_us.get_or_insert(Outcome::Cancelled);
                helper.kill();
            }
            Ok(Event::NeedsSupervision) => {
                ended_by_us.get_or_insert(Outcome::NeedsSupervision);
                helper.kill();
            }
            Ok(Event::Unattended(error)) => {
                unattended.get_or_insert(error);
                helper.kill();
            }
            Err(RecvTimeoutError::Timeout) => {
                ended_by_us.get_or_insert(Outcome::TimedOut);
                deadline = None;
                helper.kill();
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    let status = helper.child.wait();
    if let Some(error) = unattended {
        return Err(error);
    }
    if ended_by_us == Some(Outcome::NeedsSupervision) {
        return Ok(Outcome::NeedsSupervision);
    }
    match (reply, ended_by_us) {
        // What was over before we could end it counts.
        (Some(Reply::Ended(outcome @ Outcome::Exited(_))), _)
        | (Some(Reply::Ended(outcome)), None)
        | (_, Some(outcome)) => Ok(outcome),
        (Some(Reply::Failed(failure)), None) => Err(failure.into()),
        (None, None) => {
            let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
            Err(Error::HelperDied { status })
        }
    }
}
