//! The way into the build's user namespace: the outer process executes the same command again, the
//! inner one moves to new namespaces and waits until the outer has mapped its ids.

use std::fs;
use std::io::{self, BufReader};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command};
use std::sync::OnceLock;

use rustix::fs::Mode as FileMode;
use rustix::mount::MountPropagationFlags;
use rustix::process::{Pid, Resource, Rlimit, Signal};
use rustix::thread::UnshareFlags;

use crate::sandbox::examine::{self, Lack};
use crate::sandbox::ids::{self, Range};
use crate::sandbox::wire::{self, Word};
use crate::sandbox::{Error, helper, sys};

/// The name that the inner process is executed under, before the number of its socket.
const INNER: &str = "ocibuild:inner:";

/// The signals that the outer process hands on.
const FORWARDED: [i32; 4] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT];

/// How the build's ids are mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Root, with every id as it is.
    Root,
    /// A range of subordinate ids: the caller is root, `uid` and `gid` are the first of the others.
    Range {
        /// The machine's id of the namespace's user 1.
        uid: u32,
        /// The machine's id of the namespace's group 1.
        gid: u32,
    },
    /// One id, the caller's own.
    Single,
}

impl Mode {
    /// Returns the name of the folder of unpacked layers whose owners this mode can read.
    pub fn flavour(self) -> String {
        match self {
            Mode::Root => "root".to_owned(),
            Mode::Range { uid, gid } if uid == gid => format!("range-{uid}"),
            Mode::Range { uid, gid } => format!("range-{uid}-{gid}"),
            Mode::Single => "single".to_owned(),
        }
    }
}

/// Which mode is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Request {
    /// The best that there is.
    #[default]
    Auto,
    /// [`Mode::Root`].
    Root,
    /// [`Mode::Range`].
    Range,
    /// [`Mode::Single`].
    Single,
}

/// The namespaces that this process is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entered {
    /// How ids are mapped.
    pub mode: Mode,
}

/// Which side of [`enter`] this process is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// The inner one: go on with the work.
    Inside(Entered),
    /// The outer one: the work is over, and this is the exit code to end with.
    Ended(u8),
}

static ENTERED: OnceLock<Entered> = OnceLock::new();

/// Returns the namespaces that this process is in, if it is the inner one.
pub(super) fn entered() -> Option<Entered> {
    ENTERED.get().copied()
}

/// Enters the build's user and mount namespaces, by executing the whole command again inside, as
/// `argv[0]` then shows. To be called before any thread exists and before anything is done that
/// must not be done twice; in the process that is inside already it returns at once.
///
/// The outer process hands signals on and dies with the inner one, and the other way round.
pub fn enter(request: Request) -> Result<Entry, Error> {
    if let Some(entered) = entered() {
        return Ok(Entry::Inside(entered));
    }
    let ids = choose(request)?;
    let setup = |what: &str| {
        let what = what.to_owned();
        move |source: io::Error| Error::Setup { what, source }
    };
    let (ours, theirs) = UnixStream::pair().map_err(setup("make a socket"))?;
    let theirs = OwnedFd::from(theirs);
    let mut inner = spawn(&theirs, ids.mode()).map_err(setup("execute this program again"))?;
    // The end of the inner process shows only when nobody else holds its side.
    drop(theirs);
    let result = introduce(&ours, &mut inner, &ids);
    if let Err(error) = result {
        inner.kill().ok();
        inner.wait().ok();
        return Err(error);
    }
    attend(&mut inner).map(Entry::Ended).map_err(setup("wait for the inner process"))
}

/// Where the ids of the build come from.
enum Ids {
    Root,
    Range(Range),
    Single,
}

impl Ids {
    fn mode(&self) -> Mode {
        match self {
            Ids::Root => Mode::Root,
            Ids::Range(range) => Mode::Range { uid: range.uids.outside, gid: range.gids.outside },
            Ids::Single => Mode::Single,
        }
    }
}

fn choose(request: Request) -> Result<Ids, Error> {
    let uid = rustix::process::geteuid().as_raw();
    let root = || examine::root().map(|()| Ids::Root);
    let range = || ids::find_range(uid).map(Ids::Range);
    let (mode, result) = match request {
        Request::Root => ("all ids", root()),
        Request::Range => ("a range of subordinate ids", range()),
        Request::Auto if uid == 0 => ("all ids", root().or_else(|_| range()).or(Ok(Ids::Single))),
        Request::Auto => ("one id", range().or(Ok(Ids::Single))),
        Request::Single => ("one id", Ok(Ids::Single)),
    };
    result.map_err(|lack| Error::Unavailable { mode, lack })
}

/// Executes this command again. The descriptor is inherited by number, which is safe as this
/// process has no second thread that could execute something meanwhile.
fn spawn(socket: &OwnedFd, mode: Mode) -> io::Result<Child> {
    rustix::io::fcntl_setfd(socket, rustix::io::FdFlags::empty())?;
    let (kind, uid, gid) = match mode {
        Mode::Root => ("root", 0, 0),
        Mode::Range { uid, gid } => ("range", uid, gid),
        Mode::Single => ("single", 0, 0),
    };
    let name = format!("{INNER}{}:{kind}:{uid}:{gid}", socket.as_raw_fd());
    Command::new("/proc/self/exe").arg0(name).args(std::env::args_os().skip(1)).spawn()
}

/// Takes the inner process through its first moments.
fn introduce(socket: &UnixStream, inner: &mut Child, ids: &Ids) -> Result<(), Error> {
    let setup = |what: &str| {
        let what = what.to_owned();
        move |source: io::Error| Error::Setup { what, source }
    };
    let mut from = BufReader::new(socket);
    loop {
        let word = wire::hear::<Word>(&mut from).map_err(setup("hear of the inner process"))?;
        match word {
            Some(Word::Unshared) => {
                map(inner.id(), ids)?;
                wire::answer(socket).map_err(setup("answer the inner process"))?;
            }
            Some(Word::Alive) => {
                return wire::answer(socket).map_err(setup("answer the inner process"));
            }
            Some(Word::Refused { what, errno }) => {
                let lack = examine::explain(&what, errno);
                return Err(Error::Unavailable { mode: "user namespaces", lack });
            }
            Some(Word::Listening { .. } | Word::Terminal { .. } | Word::Doors { .. }) | None => {
                let status = inner.wait().map(|status| status.to_string());
                return Err(Error::HelperDied { status: status.unwrap_or_default() });
            }
        }
    }
}

/// Writes the maps of the inner process.
fn map(pid: u32, ids: &Ids) -> Result<(), Error> {
    match ids {
        Ids::Root => {
            for file in ["uid_map", "gid_map"] {
                let own = fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
                let map = ids::identity(&ids::parse_map(&own));
                fs::write(format!("/proc/{pid}/{file}"), map).map_err(|source| {
                    let lack = examine::explain("map ids", wire::errno_of(&source));
                    Error::Unavailable { mode: "all ids", lack }
                })?;
            }
            Ok(())
        }
        Ids::Range(range) => {
            let uid = rustix::process::getuid().as_raw();
            let gid = rustix::process::getgid().as_raw();
            for (program, own, extent) in
                [(&range.uid_helper, uid, range.uids), (&range.gid_helper, gid, range.gids)]
            {
                let numbers = [pid, 0, own, 1, extent.inside, extent.outside, extent.count];
                let output = Command::new(program).args(numbers.map(|n| n.to_string())).output();
                let said = match output {
                    Ok(output) if output.status.success() => continue,
                    Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
                    Err(error) => error.to_string(),
                };
                let text = format!("{} refused: {said}", program.display());
                let fix = "check that /etc/subuid and /etc/subgid give this user a range that \
                           does not overlap with others, and run `ocibuild doctor`";
                let lack = Lack::new(text, fix);
                return Err(Error::Unavailable { mode: "a range of subordinate ids", lack });
            }
            Ok(())
        }
        Ids::Single => {
            // Who has no privileges may map her own group only where groups can't be dropped.
            let uid = rustix::process::geteuid().as_raw();
            let gid = rustix::process::getegid().as_raw();
            for (file, text) in [
                ("setgroups", "deny".to_owned()),
                ("uid_map", format!("0 {uid} 1")),
                ("gid_map", format!("0 {gid} 1")),
            ] {
                fs::write(format!("/proc/{pid}/{file}"), text).map_err(|source| {
                    let lack = examine::explain("map one id", wire::errno_of(&source));
                    Error::Unavailable { mode: "one id", lack }
                })?;
            }
            Ok(())
        }
    }
}

/// Waits for the inner process, handing signals on.
fn attend(inner: &mut Child) -> io::Result<u8> {
    let mut signals = FORWARDED.to_vec();
    signals.push(libc::SIGCHLD);
    // Until here, a signal ends this process, and with it the inner one.
    sys::block(&signals)?;
    loop {
        if let Some(status) = inner.try_wait()? {
            let code = match (status.code(), status.signal()) {
                (Some(code), _) => code,
                (None, signal) => 128 + signal.unwrap_or(0),
            };
            return Ok(u8::try_from(code).unwrap_or(u8::MAX));
        }
        let (signal, by_kernel) = sys::wait_for(&signals)?;
        // What the terminal sends, it sends to the inner process itself.
        if signal == libc::SIGCHLD || by_kernel {
            continue;
        }
        let pid = i32::try_from(inner.id()).ok().and_then(Pid::from_raw);
        if let (Some(pid), Some(signal)) = (pid, Signal::from_named_raw(signal)) {
            rustix::process::kill_process(pid, signal).ok();
        }
    }
}

/// Does the work of a helper and ends the process, when it was executed as one of the sandbox's;
/// makes the inner process of [`enter`] of this one, when it was executed as that, and returns.
/// Must be the first thing that `main` does.
pub fn run_if_helper() {
    sys::expect_children();
    let name = std::env::args_os().next().and_then(|name| name.into_string().ok());
    let Some(name) = name else { return };
    if let Some(rest) = name.strip_prefix(INNER) {
        match become_inner(rest) {
            Ok(entered) => {
                ENTERED.set(entered).ok();
            }
            // The outer process knows why, or is gone.
            Err(_) => sys::exit_now(1),
        }
    } else {
        helper::run_if_named(&name);
    }
}

fn become_inner(parameters: &str) -> io::Result<Entered> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
    let [fd, kind, uid, gid] = parameters.split(':').collect::<Vec<_>>()[..] else {
        return Err(invalid());
    };
    let number = |text: &str| text.parse::<u32>().map_err(|_| invalid());
    let (uid, gid) = (number(uid)?, number(gid)?);
    let fd = fd.parse().map_err(|_| invalid())?;
    let mode = match kind {
        "root" => Mode::Root,
        "range" => Mode::Range { uid, gid },
        "single" => Mode::Single,
        _ => return Err(invalid()),
    };
    let socket = UnixStream::from(sys::inherited(fd).ok_or_else(invalid)?);
    let refused = |what: &str| {
        let (what, socket) = (what.to_owned(), &socket);
        move |error: io::Error| {
            let errno = wire::errno_of(&error);
            wire::say(socket, &Word::Refused { what, errno }).ok();
            error
        }
    };
    sys::unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNS)
        .map_err(refused("create a user namespace"))?;
    wire::say(&socket, &Word::Unshared)?;
    wire::wait_for_answer(&socket)?;
    settle().map_err(refused("mount in a user namespace"))?;
    wire::say(&socket, &Word::Alive)?;
    wire::wait_for_answer(&socket)?;
    Ok(Entered { mode })
}

/// Makes this process root of its new namespaces.
fn settle() -> io::Result<()> {
    let (uid, gid) = (rustix::fs::Uid::ROOT, rustix::fs::Gid::ROOT);
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    // After the ids, since a change of them takes it back.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let downstream = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", downstream)?;
    // What the build writes must not depend on who calls it.
    rustix::process::umask(FileMode::from_raw_mode(0o022));
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let all = Rlimit { current: limit.maximum, maximum: limit.maximum };
    rustix::process::setrlimit(Resource::Nofile, all)?;
    Ok(())
}
