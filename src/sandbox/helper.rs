//! The helper process of a step. It starts process 1 of the step's namespaces, maps the ids of the
//! step's user namespace, and tells the build how the step ended. It stays outside of the step's
//! process namespace, and so can see and end all of it; what answers the step's system calls from
//! outside will live here, too.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::process::{Pid, Signal, WaitOptions};
use rustix::thread::UnshareFlags;

use crate::sandbox::spec::{Network, Outcome, Spec};
use crate::sandbox::supervise::Watch;
use crate::sandbox::sys::Fork;
use crate::sandbox::wire::{Failure, Order, Reply, Said, Word};
use crate::sandbox::{ids, init, sys, wire};

/// The name that a step's helper is executed under.
pub(super) const STEP: &str = "ocibuild:step";
/// The name that the process is executed under which tries out namespaces.
pub(super) const PROBE: &str = "ocibuild:probe";

/// The namespaces of every step, besides that of its users.
const NAMESPACES: UnshareFlags = UnshareFlags::NEWNS
    .union(UnshareFlags::NEWPID)
    .union(UnshareFlags::NEWIPC)
    .union(UnshareFlags::NEWUTS);

/// Does a helper's work and ends the process, when the name is one of a helper.
pub(super) fn run_if_named(name: &str) {
    match name {
        STEP => sys::exit_now(i32::from(step().is_err())),
        PROBE => {
            if let Err((what, error)) = probe() {
                let errno = wire::errno_of(&error);
                wire::say(io::stdout(), &Word::Refused { what: what.to_owned(), errno }).ok();
                io::stdout().flush().ok();
                sys::exit_now(1);
            }
            sys::exit_now(0);
        }
        _ => {}
    }
}

/// Makes a user namespace and does in it what a step needs done.
fn probe() -> Result<(), (&'static str, io::Error)> {
    sys::unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNS)
        .map_err(|error| ("create a user namespace", error))?;
    sys::unshare(NAMESPACES | UnshareFlags::NEWNET)
        .map_err(|error| ("create the namespaces of a step", error))?;
    rustix::system::sethostname(Spec::HOSTNAME.as_bytes())
        .map_err(|errno| ("set a host name", errno.into()))?;
    let mounting = |error: rustix::io::Errno| ("mount in a user namespace", error.into());
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).map_err(mounting)?;
    rustix::mount::mount("tmpfs", "/", "tmpfs", MountFlags::empty(), None).map_err(mounting)
}

/// Runs a step and says how it ended. An error means that nobody is left to be told.
fn step() -> io::Result<()> {
    sys::close_others();
    let control = UnixStream::from(rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3)?);
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    let mut orders = BufReader::new(control.try_clone()?);
    let Some(Order { spec, watch, terminal }) = wire::hear(&mut orders)? else { return Ok(()) };

    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    wire::say(&control, &Word::Alive)?;
    wire::wait_for_answer(&mut orders)?;

    let reply = match start(&spec, watch, terminal) {
        Ok(started) => attend_to_end(&started, &mut orders),
        Err(failure) => Reply::Failed(failure),
    };
    wire::say(&control, &reply)
}

/// Process 1 of a step, on its way.
struct Started {
    pid: Pid,
    socket: UnixStream,
    /// The /proc of the build, where this process' own root may be the step's by now.
    proc: OwnedFd,
}

fn start(spec: &Spec, watch: Watch, terminal: bool) -> Result<Started, Failure> {
    let mut flags = NAMESPACES;
    match spec.network {
        Network::Host => {}
        Network::Off | Network::Recorded => flags |= UnshareFlags::NEWNET,
    }
    sys::unshare(flags).map_err(Failure::setup("make the step's namespaces"))?;
    let proc = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let proc =
        rustix::fs::open("/proc", proc, Mode::empty()).map_err(Failure::setup("open /proc"))?;
    let (socket, theirs) = UnixStream::pair().map_err(Failure::setup("make a socket"))?;
    match sys::fork().map_err(Failure::setup("fork"))? {
        Fork::Child => {
            drop(socket);
            init::main(spec, watch, terminal, &theirs)
        }
        Fork::Parent(pid) => Ok(Started { pid, socket, proc }),
    }
}

/// Answers process 1 until it has said how the step went, and waits for the end of everything in
/// its namespace. Kills it when the build says so, or is gone.
fn attend_to_end(started: &Started, orders: &mut BufReader<UnixStream>) -> Reply {
    let pid = started.pid;
    let result = attend(started, orders);
    if !matches!(result, Ok(Some(_))) {
        rustix::process::kill_process(pid, Signal::KILL).ok();
    }
    // Process 1 ends last of all in its namespace.
    let signal = loop {
        match rustix::process::waitpid(Some(pid), WaitOptions::empty()) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(Some((_, status))) => break status.terminating_signal(),
            Ok(None) | Err(_) => break None,
        }
    };
    match result {
        Ok(Some(reply)) => reply,
        Ok(None) => Reply::Ended(Outcome::Signalled(signal.unwrap_or(libc::SIGKILL))),
        Err(error) => Reply::Failed(Failure::setup("talk to the step")(error)),
    }
}

/// Answers process 1. `None` when it is to be killed, or has been.
fn attend(started: &Started, orders: &mut BufReader<UnixStream>) -> io::Result<Option<Reply>> {
    let socket = &started.socket;
    let mut from = BufReader::new(socket);
    loop {
        if from.buffer().is_empty() {
            let fds = [orders.get_ref().as_fd(), socket.as_fd()];
            // A byte of the build's, the end or an error: all mean that the step is to end.
            if !orders.buffer().is_empty() || sys::wait_readable(fds)?[0] {
                return Ok(None);
            }
        }
        match wire::hear::<Said>(&mut from)? {
            None => return Ok(None),
            Some(Said::Reply(reply)) => return Ok(Some(reply)),
            Some(Said::Word(Word::Unshared)) => {
                map(started.pid, &started.proc)?;
                wire::answer(socket)?;
            }
            Some(Said::Word(
                word @ (Word::Listening { .. } | Word::Terminal { .. } | Word::Doors { .. }),
            )) => {
                let pid = started.pid.as_raw_nonzero().get();
                let word = match word {
                    Word::Listening { fd, user, .. } => Word::Listening { pid, fd, user },
                    Word::Terminal { fd, .. } => Word::Terminal { pid, fd },
                    Word::Doors { numbers, .. } => Word::Doors { pid, numbers },
                    other => other,
                };
                wire::say(orders.get_ref(), &Said::Word(word))?;
                if !wire::is_answer(&mut *orders)? {
                    return Ok(None);
                }
                wire::answer(socket)?;
            }
            Some(Said::Word(_)) => wire::answer(socket)?,
        }
    }
}

/// Gives the step's user namespace all the ids of the build's.
fn map(pid: Pid, proc: &OwnedFd) -> io::Result<()> {
    let open = |path: String, flags: OFlags| -> io::Result<File> {
        Ok(rustix::fs::openat(proc, path, flags | OFlags::CLOEXEC, Mode::empty())?.into())
    };
    for file in ["uid_map", "gid_map"] {
        let mut own = String::new();
        open(format!("self/{file}"), OFlags::RDONLY)?.read_to_string(&mut own)?;
        let map = ids::identity(&ids::parse_map(&own));
        let path = format!("{}/{file}", pid.as_raw_nonzero());
        open(path, OFlags::WRONLY)?.write_all(map.as_bytes())?;
    }
    Ok(())
}
