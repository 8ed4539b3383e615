//! One step under supervision: who its processes are, and what a handler gets.
//!
//! A process's credentials are an entry of the step's table. Which one, the process carries itself,
//! as the soft limit of its resident set: no kernel heeds that limit, and every kernel hands it on
//! over fork and exec, so that nobody has to follow processes.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, PoisonError, RwLock};

use super::Scope;
use super::calls::{Arch, Op};
use super::credentials::Credentials;
use super::kernel::{self, Answer, Notice, Status};
use super::owners::Ownership;
use super::quick::Quick;
use super::trace::Request;
use super::tracee::{At, Errno, Place, Tracee, errno, look_at};
use super::view::View;
use crate::rootfs::Record;

/// The limit that means the table's first entry.
const MARK: u64 = 0x6f63_6962_0000;

/// Returns the soft limit that stands for an entry of the table, below a hard limit.
pub(in crate::sandbox) fn mark(hard: Option<u64>, entry: u64) -> u64 {
    match hard {
        Some(hard) if hard < MARK + (1 << 32) => entry,
        _ => MARK + entry,
    }
}

pub(super) struct Step<'s> {
    pub(super) ownership: &'s Ownership,
    pub(super) listener: BorrowedFd<'s>,
    /// The step's root.
    pub(super) root: OwnedFd,
    root_status: Status,
    table: RwLock<Vec<Credentials>>,
    /// Whether the table's first entry is what starts the step, as root, and becomes its second.
    starts: bool,
    /// Whether a process may be somebody else than root.
    others: AtomicBool,
    /// Whether a process may have another root.
    pub(super) chroots: AtomicBool,
    /// Set when the step must run again with a wider scope.
    pub(super) wants_more: AtomicBool,
    pub(super) quick: Quick,
    /// Who has threads traced.
    usher: Mutex<Option<Sender<Request>>>,
}

impl<'s> Step<'s> {
    /// `root` is the step's, `first` who it begins as.
    pub(super) fn new(
        ownership: &'s Ownership,
        listener: BorrowedFd<'s>,
        root: OwnedFd,
        first: Credentials,
    ) -> Result<Step<'s>, Errno> {
        let starts = first.user.real != 0;
        let others = AtomicBool::new(first != Credentials::new(0, 0, first.groups.clone()));
        let table =
            if starts { vec![Credentials::new(0, 0, Vec::new()), first] } else { vec![first] };
        let table = RwLock::new(table);
        let root_status = look_at(&root)?;
        let (chroots, wants_more) = (AtomicBool::new(false), AtomicBool::new(false));
        Ok(Step {
            ownership,
            listener,
            root,
            root_status,
            table,
            starts,
            others,
            chroots,
            wants_more,
            quick: Quick::default(),
            usher: Mutex::new(None),
        })
    }

    /// Has threads traced from now on, or, with none, no longer.
    pub(super) fn set_usher(&self, usher: Option<Sender<Request>>) {
        *self.usher.lock().unwrap_or_else(PoisonError::into_inner) = usher;
    }

    /// Has a thread traced, unless it is.
    fn trace(&self, tracee: Tracee) {
        let usher = self.usher.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(usher) = usher.filter(|_| tracee.is_traced() == Ok(false)) else { return };
        let (done, is_done) = channel();
        if usher.send(Request { thread: tracee.pid, done }).is_ok() {
            // Whether it worked or not, an end is what is waited for.
            is_done.recv().ok();
        }
    }

    /// What a thread sees from the step's root.
    pub(super) fn view(&self) -> View<'static> {
        let mount = self.root_status.stx_mnt_id;
        View { own: "self", root: Path::new("/"), within: b"", mount }
    }

    pub(super) fn scope(&self) -> Scope {
        self.ownership.scope()
    }

    /// Tells whether a root is the step's own.
    pub(super) fn is_root(&self, status: &Status) -> bool {
        status.stx_mnt_id == self.root_status.stx_mnt_id && self.is_root_folder(status)
    }

    /// Tells whether a root is the same folder as the step's own, if through another mount.
    pub(super) fn is_root_folder(&self, status: &Status) -> bool {
        let id = |it: &Status| (it.stx_dev_major, it.stx_dev_minor, it.stx_ino);
        id(status) == id(&self.root_status)
    }
}

/// A system call of a step.
#[derive(Clone, Copy)]
pub(super) struct Call<'c> {
    pub(super) step: &'c Step<'c>,
    pub(super) tracee: Tracee,
    pub(super) arch: Arch,
    pub(super) op: Op,
    /// What the kernel knows it by; none where it is a tracer that stopped it.
    pub(super) id: Option<u64>,
    pub(super) arguments: [u64; 6],
    /// Where in its memory the process goes on.
    pub(super) returns_to: u64,
    /// What the answering thread sees from its root.
    pub(super) view: View<'c>,
}

pub(super) type Handled = Result<Answer, Errno>;

impl<'c> Call<'c> {
    pub(super) fn new(step: &'c Step<'c>, notice: &Notice, arch: Arch, op: Op) -> Call<'c> {
        let tracee = Tracee { pid: notice.pid };
        let (id, view) = (Some(notice.id), step.view());
        let (arguments, returns_to) = (notice.arguments, notice.instruction);
        Call { step, tracee, arch, op, id, arguments, returns_to, view }
    }

    /// One of a thread that a tracer has stopped.
    pub(super) fn traced(step: &'c Step<'c>, notice: &Notice, arch: Arch, op: Op) -> Call<'c> {
        Call { id: None, ..Call::new(step, notice, arch, op) }
    }

    pub(super) fn ownership(&self) -> &'c Ownership {
        self.step.ownership
    }

    pub(super) fn place(&self, at: At) -> Result<Place, Errno> {
        self.tracee.place(at)
    }

    /// Who the process is.
    pub(super) fn credentials(&self) -> Credentials {
        let table = self.step.table.read().unwrap_or_else(PoisonError::into_inner);
        let entry = if table.len() == 1 { Ok(0) } else { self.entry() };
        let found = entry.ok().and_then(|entry| table.get(entry)).or_else(|| table.first());
        found.cloned().unwrap_or_else(|| Credentials::new(0, 0, Vec::new()))
    }

    /// Who the process is, unless it is root like every other.
    pub(super) fn other(&self) -> Option<Credentials> {
        if self.step.scope() != Scope::Full || !self.step.others.load(Ordering::Acquire) {
            return None;
        }
        Some(self.credentials())
    }

    /// Has the process that starts the step become whom the step begins as.
    pub(super) fn begin(&self) -> Result<(), Errno> {
        if self.step.starts && self.entry() == Ok(0) {
            let table = self.step.table.read().unwrap_or_else(PoisonError::into_inner);
            let first = table.get(1).cloned();
            drop(table);
            first.map_or(Ok(()), |first| self.become_other(first))?;
        }
        Ok(())
    }

    /// Who the process is, where the kernel would ask whose a file is before it gets at it.
    pub(super) fn restricted(&self) -> Option<Credentials> {
        self.other().filter(Credentials::is_restricted)
    }

    /// Tells whether a file is named by a descriptor alone.
    pub(super) fn is_by_descriptor(&self) -> bool {
        #[allow(clippy::enum_glob_use, reason = "a list of nothing else")]
        use Op::*;
        let is_empty = |flags: u64| flags & u64::from(libc::AT_EMPTY_PATH.cast_unsigned()) != 0;
        match self.op {
            Fstat | Fstat64 | Fchown | Fchown16 | Fsetxattr | Fgetxattr | Flistxattr
            | Fremovexattr | Fchmod | Fchdir => true,
            Newfstatat | Fstatat64 => is_empty(self.arguments[3]),
            Statx => is_empty(self.arguments[2]),
            Fchownat => is_empty(self.arguments[4]),
            _ => false,
        }
    }

    fn entry(&self) -> Result<usize, Errno> {
        let (soft, _) = kernel::resident_limit(self.tracee.pid).map_err(|error| errno(&error))?;
        let entry = if soft >= MARK { soft - MARK } else { soft };
        usize::try_from(entry).map_err(|_| libc::EINVAL)
    }

    /// Fails where the process has ended meanwhile: its number may be another's by now, and what was
    /// read of it, too.
    pub(super) fn still_waits(&self) -> Result<(), Errno> {
        let waits = self.id.is_none_or(|id| kernel::is_waiting(self.step.listener, id));
        if waits { Ok(()) } else { Err(libc::ESRCH) }
    }

    /// Makes the process somebody else.
    pub(super) fn become_other(&self, credentials: Credentials) -> Result<(), Errno> {
        let is_restricted = credentials.is_restricted();
        let entry = {
            let mut table = self.step.table.write().unwrap_or_else(PoisonError::into_inner);
            let start = usize::from(self.step.starts);
            let known = table.iter().skip(start).position(|known| *known == credentials);
            known.map_or_else(
                || {
                    self.step.others.store(true, Ordering::Release);
                    table.push(credentials);
                    table.len() - 1
                },
                |at| at + start,
            )
        };
        let (_, hard) = kernel::resident_limit(self.tracee.pid).map_err(|error| errno(&error))?;
        let soft = mark((hard != u64::MAX).then_some(hard), entry as u64);
        self.still_waits()?;
        if is_restricted {
            self.step.quick.end(self.tracee)?;
        }
        kernel::set_resident_limit(self.tracee.pid, soft, hard).map_err(|error| errno(&error))?;
        if is_restricted && self.id.is_some() && !self.step.starts {
            self.step.trace(self.tracee);
        }
        Ok(())
    }

    /// Gives the process a descriptor, as the result of its call.
    pub(super) fn give(&self, fd: OwnedFd, close_on_exec: bool) -> Handled {
        let id = self.id.ok_or(libc::EIO)?;
        kernel::answer_with_fd(self.step.listener, id, fd, close_on_exec)
            .map_err(|error| errno(&error))
    }

    /// Remembers something of a file.
    pub(super) fn remember(
        &self,
        fd: BorrowedFd<'_>,
        known: Option<Record>,
        record: &Record,
    ) -> Result<(), Errno> {
        self.ownership().remember(self.view, fd, known, record).map_err(|error| errno(&error))
    }

    /// What is remembered of a file.
    pub(super) fn record_of(&self, fd: BorrowedFd<'_>, status: &Status) -> Record {
        self.ownership().of_fd(self.view, fd, status).unwrap_or_default()
    }

    /// The file's owner and group as the step sees them.
    pub(super) fn owner_of(&self, status: &Status, record: &Record) -> (u32, u32) {
        // Whose id isn't mapped is somebody of the machine: root, as where all are.
        let natural = |id: u32| if self.step.scope() == Scope::Full { 0 } else { id };
        (
            record.uid.unwrap_or_else(|| natural(status.stx_uid)),
            record.gid.unwrap_or_else(|| natural(status.stx_gid)),
        )
    }
}
