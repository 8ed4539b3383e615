//! Process 1 of a step: makes the step's tree, gives up the build's user namespace for one of the
//! step's own, starts the command and reaps whatever ends.
//!
//! All mounts are made before the second user namespace is entered, by the first one's root. The
//! kernel then locks them: the step's root, who may mount and unmount, can't take a mask off /proc
//! or make /sys writable again, and owns neither this process nor the namespaces that it shares
//! with it. Set-uid programs keep their effect (no `no_new_privs`), so that `sudo` works in a step.

use std::ffi::{CString, OsStr};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::process::{DumpableBehavior, Resource, Rlimit, Signal, WaitOptions};
use rustix::thread::UnshareFlags;

use crate::sandbox::doors::Numbers;
use crate::sandbox::spec::{Network, Outcome, Spec};
use crate::sandbox::supervise::{self, Scope, Watch};
use crate::sandbox::sys::{self, Fork};
use crate::sandbox::user::{self, User};
use crate::sandbox::wire::{self, Failure, Reply, Word};
use crate::sandbox::{doors, filter, mounts};

/// Where programs are looked for when the environment doesn't say.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How many files a step may have open unless it asks for more: old tools close them one by one.
const OPEN_FILES: u64 = 1024;

/// Runs the command of `spec` and tells the helper how it went.
pub(super) fn main(spec: &Spec, watch: Watch, terminal: bool, helper: &UnixStream) -> ! {
    let reply = match run(spec, watch, terminal, helper) {
        Ok(outcome) => Reply::Ended(outcome),
        Err(failure) => Reply::Failed(failure),
    };
    wire::say(helper, &reply).ok();
    // The kernel kills what is left in the namespace.
    sys::exit_now(0)
}

fn run(spec: &Spec, watch: Watch, terminal: bool, helper: &UnixStream) -> Result<Outcome, Failure> {
    die_with_parent(helper)?;
    rustix::process::setsid().map_err(Failure::setup("start a session"))?;
    rustix::process::umask(Mode::from_raw_mode(0));
    if spec.network != Network::Host {
        sys::raise_loopback().map_err(Failure::setup("bring up the loopback device"))?;
        // As root of a machine could, the step's root may listen on any port of its network.
        fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0").ok();
    }
    if spec.network == Network::Recorded {
        let doors = doors::open()?;
        wire::say(helper, &Word::Doors { pid: 1, numbers: Numbers::of(&doors) })
            .and_then(|()| wire::wait_for_answer(helper))
            .map_err(Failure::setup("have the step's network served"))?;
    }
    rustix::system::sethostname(spec.hostname.as_bytes())
        .map_err(Failure::setup("set the host name"))?;
    mounts::make_tree(spec)?;
    let user = resolve(&spec.user)?;
    let terminal = if terminal { Some(open_terminal(&user, helper)?) } else { None };

    // It belongs to the build's user namespace, as the filter keeps a step from making another: the
    // owner of one may mount its cgroups and end, freeze or starve the builder, which is in them.
    // Kernels without cgroups have no namespace for them.
    sys::unshare(UnshareFlags::NEWCGROUP)
        .or_else(|error| match error.raw_os_error() {
            Some(libc::EINVAL) => Ok(()),
            _ => Err(error),
        })
        .map_err(Failure::setup("make a namespace of cgroups"))?;
    sys::unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNS)
        .map_err(Failure::setup("make the step's user namespace"))?;
    wire::say(helper, &Word::Unshared)
        .and_then(|()| wire::wait_for_answer(helper))
        .map_err(Failure::setup("have the step's ids mapped"))?;
    die_with_parent(helper)?;
    // The step must not reach this process' program or descriptors through /proc/1.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(Failure::setup("shield process 1"))?;

    let watch = match watch {
        Watch::Supervise { scope, .. } => match listen(watch, scope, &user, helper) {
            // Old kernels have no listener, and a process gets one only: under somebody else's, as
            // in some containers, there is none left. Only device nodes can't be made then.
            Err(Failure::NoListener { .. }) if scope == Scope::Light => Watch::Nothing,
            other => other.map(|()| watch)?,
        },
        Watch::Nothing | Watch::Discard => watch,
    };
    match sys::fork().map_err(Failure::setup("fork"))? {
        Fork::Parent(pid) => {
            drop(terminal);
            reap(pid).map_err(Failure::setup("wait for the command"))
        }
        Fork::Child => {
            if let Some(Err(failure)) = terminal.as_ref().map(adopt) {
                wire::say(helper, &Reply::Failed(failure)).ok();
                sys::exit_now(127)
            }
            let failure = execute(spec, watch, &user);
            wire::say(helper, &Reply::Failed(failure)).ok();
            sys::exit_now(127)
        }
    }
}

/// Makes a terminal among the step's own, hands its other end to the build, and returns it.
fn open_terminal(user: &User, helper: &UnixStream) -> Result<OwnedFd, Failure> {
    let what = "make a terminal";
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let build =
        rustix::fs::open("/dev/pts/ptmx", flags, Mode::empty()).map_err(Failure::setup(what))?;
    rustix::pty::unlockpt(&build).map_err(Failure::setup(what))?;
    let name = rustix::pty::ptsname(&build, Vec::new()).map_err(Failure::setup(what))?;
    let step =
        rustix::fs::open(name.as_c_str(), flags, Mode::empty()).map_err(Failure::setup(what))?;
    // Where one id is all there is, it is the owner already.
    rustix::fs::fchown(&step, Some(rustix::fs::Uid::from_raw(user.uid)), None).ok();
    wire::say(helper, &Word::Terminal { pid: 1, fd: build.as_raw_fd() })
        .and_then(|()| wire::wait_for_answer(helper))
        .map_err(Failure::setup("hand a terminal to the build"))?;
    Ok(step)
}

/// Makes a terminal that of this process, in a session of its own, so that a shell has its jobs.
fn adopt(terminal: &OwnedFd) -> Result<(), Failure> {
    let what = "take the terminal";
    rustix::process::setsid().map_err(Failure::setup(what))?;
    rustix::process::ioctl_tiocsctty(terminal).map_err(Failure::setup(what))?;
    rustix::stdio::dup2_stdin(terminal).map_err(Failure::setup(what))?;
    rustix::stdio::dup2_stdout(terminal).map_err(Failure::setup(what))?;
    rustix::stdio::dup2_stderr(terminal).map_err(Failure::setup(what))
}

/// Puts the filter before this process and all that it will start, and has a thread of the build
/// answer the calls that the filter stops.
fn listen(watch: Watch, scope: Scope, user: &User, helper: &UnixStream) -> Result<(), Failure> {
    if scope == Scope::Full {
        let limit = rustix::process::getrlimit(Resource::Rss);
        let current = Some(supervise::mark(limit.maximum, 0));
        rustix::process::setrlimit(Resource::Rss, Rlimit { current, ..limit })
            .map_err(Failure::setup("set a limit"))?;
    }
    let listener = supervise::install_listener(&filter::program(watch.beginning_as(user.uid)))
        .map_err(|error| Failure::NoListener { errno: wire::errno_of(&error) })?;
    let user = (user.uid, user.gid, user.groups.clone());
    let word = Word::Listening { pid: 1, fd: listener.as_raw_fd(), user };
    wire::say(helper, &word)
        .and_then(|()| wire::wait_for_answer(helper))
        .map_err(Failure::setup("have the step supervised"))
}

/// Has this process killed with the helper, and makes sure that the helper lives.
fn die_with_parent(helper: &UnixStream) -> Result<(), Failure> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(Failure::setup("watch the helper"))?;
    wire::say(helper, &Word::Alive)
        .and_then(|()| wire::wait_for_answer(helper))
        .map_err(Failure::setup("watch the helper"))
}

/// Waits until the command is over, whatever else ends meanwhile.
fn reap(command: rustix::process::Pid) -> io::Result<Outcome> {
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == command => {
                if let Some(status) = status.exit_status() {
                    return Ok(Outcome::Exited(status));
                }
                if let Some(signal) = status.terminating_signal() {
                    return Ok(Outcome::Signalled(signal));
                }
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn resolve(name: &str) -> Result<User, Failure> {
    // An image without these files has no names, and numbers mean what they say.
    let read = |path: &str| {
        let bytes = fs::read(path).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    user::resolve(name, &read("/etc/passwd"), &read("/etc/group"))
        .map_err(|(what, name)| Failure::NoSuchUser { what: what.to_owned(), name })
}

/// Becomes the command; returns only when that fails.
fn execute(spec: &Spec, watch: Watch, user: &User) -> Failure {
    if let Err(failure) = prepare(spec, watch, user) {
        return failure;
    }
    let name = spec.argv.first().cloned().unwrap_or_default();
    Failure::Program { name, errno: wire::errno_of(&exec(spec, user)) }
}

/// Gives this process what the command is to find.
fn prepare(spec: &Spec, watch: Watch, user: &User) -> Result<(), Failure> {
    let limit = |resource, current: u64| {
        let maximum = rustix::process::getrlimit(resource).maximum;
        let current = Some(maximum.map_or(current, |maximum| current.min(maximum)));
        rustix::process::setrlimit(resource, Rlimit { current, maximum })
            .map_err(Failure::setup("set a limit"))
    };
    limit(Resource::Nofile, OPEN_FILES)?;
    limit(Resource::Core, 0)?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    rustix::process::chdir(&spec.workdir).map_err(Failure::setup(format!(
        "enter the folder `{}` in the image",
        spec.workdir.display()
    )))?;
    sys::default_signals();
    let has_ids = match watch {
        Watch::Supervise { scope, .. } => scope != Scope::Full,
        // Before the ids change, since it takes a capability.
        Watch::Nothing | Watch::Discard => {
            sys::install_filter(&filter::program(watch))
                .map_err(Failure::setup("filter system calls"))?;
            watch == Watch::Nothing
        }
    };
    // Where there is one id alone, the supervisor knows whom the step begins as.
    if !has_ids {
        return Ok(());
    }

    let gid = |id: u32| rustix::fs::Gid::from_raw(id);
    let groups: Vec<_> = user.groups.iter().map(|id| gid(*id)).collect();
    let what = || format!("become user {} with group {}", user.uid, user.gid);
    rustix::thread::set_thread_groups(&groups).map_err(Failure::setup(what()))?;
    rustix::thread::set_thread_res_gid(gid(user.gid), gid(user.gid), gid(user.gid))
        .map_err(Failure::setup(what()))?;
    let uid = rustix::fs::Uid::from_raw(user.uid);
    rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(Failure::setup(what()))
}

fn exec(spec: &Spec, user: &User) -> io::Error {
    let invalid = |_| io::Error::from_raw_os_error(libc::EINVAL);
    let text = |text: &[u8]| CString::new(text).map_err(invalid);
    let argv: Result<Vec<_>, _> =
        spec.argv.iter().map(|argument| text(argument.as_bytes())).collect();
    let home = (!spec.env.contains_key("HOME")).then(|| format!("HOME={}", user.home));
    let env: Result<Vec<_>, _> = spec
        .env
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .chain(home)
        .map(|pair| text(pair.as_bytes()))
        .collect();
    let (argv, env) = match (argv, env) {
        (Ok(argv), Ok(env)) => (argv, env),
        (Err(error), _) | (_, Err(error)) => return error,
    };
    let Some(program) = spec.argv.first() else {
        return io::Error::from_raw_os_error(libc::EINVAL);
    };
    if program.contains('/') {
        return argv
            .first()
            .map_or(io::ErrorKind::InvalidInput.into(), |p| sys::execve(p, &argv, &env));
    }
    // As execvp does, except that a file that isn't executable never becomes a script of sh.
    let mut seen = io::Error::from_raw_os_error(libc::ENOENT);
    let path = spec.env.get("PATH").map_or(PATH, String::as_str);
    for folder in path.split(':') {
        let file = Path::new(if folder.is_empty() { "." } else { folder }).join(program);
        let Ok(file) = text(OsStr::as_bytes(file.as_os_str())) else { continue };
        let error = sys::execve(&file, &argv, &env);
        match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => {}
            Some(libc::EACCES) => seen = error,
            _ => return error,
        }
    }
    seen
}
