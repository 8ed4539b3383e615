//! The threads that answer: they enter the step's mount namespace, so that its paths mean the same
//! to them, and take calls one after the other.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::mpsc::channel;
use std::sync::{Barrier, Condvar, Mutex, MutexGuard, PoisonError};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::thread::LinkNameSpaceType;

use super::calls::{self, Arch, Op, Theme};
use super::credentials::Credentials;
use super::kernel::{self, Answer, Receiver};
use super::owners::Ownership;
use super::step::{Call, Handled, Step};
use super::tracee::look_at;
use super::view::{View, below};
use super::{access, chown, create, exec, ids, moves, socket, stat, trace, write, xattr};

/// How many threads answer.
const THREADS: usize = 4;

/// Whether those who aren't root can be traced.
const TRACES: bool = cfg!(target_arch = "x86_64");

/// What a supervisor is given.
#[derive(Debug)]
pub(in crate::sandbox) struct Supervised<'s> {
    pub(in crate::sandbox) ownership: &'s Ownership,
    pub(in crate::sandbox) listener: OwnedFd,
    /// Process 1 of the step, in the build's process namespace.
    pub(in crate::sandbox) pid: i32,
    /// Whom the step begins as.
    pub(in crate::sandbox) user: (u32, u32, Vec<u32>),
}

/// Answers until nobody asks any more. `ready` is called when this thread is in place, `more` when
/// the step is to be ended since it wants what the scope doesn't cover. The calling thread gets
/// another root and can be used for nothing else afterwards.
pub(in crate::sandbox) fn supervise(
    with: &Supervised<'_>,
    ready: &(dyn Fn() + Sync),
    more: &(dyn Fn() + Sync),
) -> io::Result<()> {
    kernel::wake_in_place(with.listener.as_fd());
    let threads = std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, THREADS));
    let run = || -> io::Result<()> {
        let root = enter(with.pid)?;
        let (uid, gid, groups) = with.user.clone();
        let first = Credentials::new(uid, gid, groups);
        let step = Step::new(with.ownership, with.listener.as_fd(), root, first)
            .map_err(io::Error::from_raw_os_error)?;
        let (step, turn, apart) =
            (&step, &Turn::default(), &Barrier::new(threads + usize::from(TRACES)));
        std::thread::scope(|scope| {
            let workers: Vec<_> = (1..threads)
                .map(|_| {
                    scope.spawn(move || {
                        // It begins where this thread is, and then has a root and a folder of its
                        // own.
                        let result = kernel::leave_shared_folders();
                        apart.wait();
                        result.and_then(|()| answer_all(step, turn, more))
                    })
                })
                .collect();
            if TRACES {
                let (usher, requests) = channel();
                step.set_usher(Some(usher));
                scope.spawn(move || {
                    let result = kernel::leave_shared_folders();
                    apart.wait();
                    if result.is_ok() {
                        trace::usher(scope, step, requests);
                    }
                });
            }
            apart.wait();
            ready();
            let mut result = answer_all(step, turn, more);
            for worker in workers {
                let other = worker.join().unwrap_or_else(|_| Err(io::Error::other("a panic")));
                result = result.and(other);
            }
            step.set_usher(None);
            result
        })
    };
    let result = run();
    with.ownership.unpin();
    result
}

/// Moves this thread to the step's mounts and network, with the build's `/proc` as its folder. Returns the
/// step's root.
fn enter(pid: i32) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let proc = rustix::fs::open("/proc", flags, Mode::empty())?;
    let path = format!("/proc/{pid}/ns/mnt");
    let mounts = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let network = |pid: &str| {
        let path = format!("/proc/{pid}/ns/net");
        rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
    };
    let (own, network) = (network("self")?, network(&pid.to_string())?);
    if look_at(&own).map(|it| it.stx_ino) != look_at(&network).map(|it| it.stx_ino) {
        // For the sockets that the supervisor makes for a step.
        let kind = Some(LinkNameSpaceType::Network);
        rustix::thread::move_into_link_name_space(network.as_fd(), kind)?;
    }
    kernel::leave_shared_folders()?;
    let mount = Some(LinkNameSpaceType::Mount);
    rustix::thread::move_into_link_name_space(mounts.as_fd(), mount)?;
    let root = rustix::fs::open("/", flags, Mode::empty())?;
    rustix::process::fchdir(&proc)?;
    rustix::process::umask(Mode::empty());
    Ok(root)
}

/// Whose turn it is to wait for calls. A thread keeps the turn while it answers, since most steps
/// have one process at work and a change of threads costs more than an answer; it passes the turn
/// on when another call waits already.
#[derive(Default)]
struct Turn {
    state: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    taken: bool,
    idle: usize,
    over: bool,
}

impl Turn {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the turn; `false` when there is nothing left to do.
    fn take(&self) -> bool {
        let mut state = self.lock();
        state.idle += 1;
        while state.taken && !state.over {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.idle -= 1;
        state.taken = true;
        !state.over
    }

    /// Passes the turn on, if somebody is there to take it.
    fn pass(&self) -> bool {
        let mut state = self.lock();
        if state.idle == 0 {
            return false;
        }
        state.taken = false;
        self.changed.notify_one();
        true
    }

    fn end(&self) {
        self.lock().over = true;
        self.changed.notify_all();
    }
}

/// After how many short answers a thread looks whether another call waits, and how long it then
/// goes on looking each time.
const SHORT: u32 = 8;
const BUSY: u32 = 64;

/// Tells whether an answer may take long enough for another thread to be of use.
fn takes_long(theme: Theme) -> bool {
    !matches!(theme, Theme::Stat | Theme::Xattr | Theme::SetXattr | Theme::GetId | Theme::Limit)
}

/// Answers calls until there are none any more.
fn answer_all(step: &Step<'_>, turn: &Turn, more: &(dyn Fn() + Sync)) -> io::Result<()> {
    let receiver = Receiver::new(step.listener);
    let (mut short, mut busy) = (0, 0);
    while turn.take() {
        loop {
            let notice = match receiver.next() {
                Ok(Some(notice)) => notice,
                ended => {
                    turn.end();
                    return ended.map(|_| ());
                }
            };
            let known = Arch::from_audit(notice.architecture)
                .and_then(|arch| Some((arch, calls::find(arch, notice.number)?)));
            short = (short + 1) % SHORT;
            let looks = busy > 0 || short == 0 || known.is_some_and(|(_, row)| takes_long(row.1));
            let waits = looks && receiver.has_more();
            busy = if waits { BUSY } else { busy.saturating_sub(1) };
            let passed = waits && turn.pass();
            let answer = match known {
                Some((arch, row)) => answer(&Call::new(step, &notice, arch, row.0), row.1),
                None => Answer::Continue,
            };
            kernel::send(step.listener, notice.id, answer).inspect_err(|_| turn.end())?;
            if step.wants_more.load(Ordering::Acquire) {
                more();
            }
            if passed {
                break;
            }
        }
    }
    Ok(())
}

pub(super) fn answer(call: &Call<'_>, theme: Theme) -> Answer {
    let handle = |call: &Call<'_>| {
        if matches!(call.op, Op::Execve | Op::Execveat) {
            call.begin()?;
            call.step.quick.forget(call.tracee);
        }
        access::check(call)?;
        match theme {
            Theme::Owner => chown::chown(call),
            Theme::Stat => stat::stat(call),
            Theme::Xattr | Theme::SetXattr => xattr::xattr(call),
            Theme::Node | Theme::Create => create::create(call),
            Theme::Write => {
                write::truncate(call);
                Ok(Answer::Continue)
            }
            Theme::Move => {
                moves::relocate(call);
                Ok(Answer::Continue)
            }
            Theme::Access => access::act(call),
            Theme::Socket => socket::call(call),
            Theme::SetId => ids::set(call),
            Theme::GetId => ids::get(call),
            Theme::Exec => exec::execute(call),
            Theme::Limit => ids::limit(call),
        }
    };
    let handle = || -> Handled {
        // A descriptor is found without a root, and may be of a file outside of the process's own.
        if call.step.chroots.load(Ordering::Acquire) && !call.is_by_descriptor() {
            in_its_root(call, handle)
        } else {
            handle(call)
        }
    };
    // A call without an answer would wait forever.
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(handle));
    result.unwrap_or(Err(libc::EIO)).unwrap_or_else(Answer::Error)
}

/// Handles a call with the process's own root as this thread's, where it has another than the step.
fn in_its_root(call: &Call<'_>, handle: impl Fn(&Call<'_>) -> Handled) -> Handled {
    let raw = |error: rustix::io::Errno| error.raw_os_error();
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let path = format!("{}/root", call.tracee.pid);
    let Ok(root) = rustix::fs::openat(CWD, &path, flags, Mode::empty()) else {
        return Ok(Answer::Continue);
    };
    let status = look_at(&root)?;
    if call.step.is_root(&status) {
        return handle(call);
    }
    // In a mount namespace of its own the tree is another mount.
    let within = if call.step.is_root_folder(&status) {
        Vec::new()
    } else {
        let path = rustix::fs::readlinkat(CWD, &path, Vec::new()).map_err(raw)?;
        below(call.view, path.as_bytes()).unwrap_or_default()
    };
    let mount = if within.is_empty() { status.stx_mnt_id } else { call.view.mount };
    let call = &Call { view: View { within: &within, mount, ..call.view }, ..*call };
    let proc = rustix::fs::open(".", flags, Mode::empty()).map_err(raw)?;
    let switch = |to: &OwnedFd| -> Result<(), i32> {
        rustix::process::fchdir(to).map_err(raw)?;
        rustix::process::chroot(".").map_err(raw)?;
        rustix::process::fchdir(&proc).map_err(raw)
    };
    switch(&root)?;
    let result = handle(call);
    switch(&call.step.root)?;
    result
}
