//! The system calls that a supervisor answers, by their numbers on each architecture. A program's
//! architecture is its own, not the machine's: a step on x86-64 may run programs for i386.

use super::Scope;

/// A system call, whatever its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sandbox) enum Op {
    Chown,
    Lchown,
    Fchown,
    Fchownat,
    Chown16,
    Lchown16,
    Fchown16,
    Stat,
    Lstat,
    Fstat,
    Newfstatat,
    Stat64,
    Lstat64,
    Fstat64,
    Fstatat64,
    Statx,
    Setxattr,
    Lsetxattr,
    Fsetxattr,
    Setxattrat,
    Getxattr,
    Lgetxattr,
    Fgetxattr,
    Getxattrat,
    Listxattr,
    Llistxattr,
    Flistxattr,
    Listxattrat,
    Removexattr,
    Lremovexattr,
    Fremovexattr,
    Removexattrat,
    Mknod,
    Mknodat,
    Mkdir,
    Mkdirat,
    Symlink,
    Symlinkat,
    Open,
    Openat,
    Openat2,
    Creat,
    Rename,
    Renameat,
    Renameat2,
    Link,
    Linkat,
    Setuid,
    Setgid,
    Setreuid,
    Setregid,
    Setresuid,
    Setresgid,
    Setgroups,
    Setfsuid,
    Setfsgid,
    Getuid,
    Geteuid,
    Getgid,
    Getegid,
    Getresuid,
    Getresgid,
    Getgroups,
    Setuid16,
    Setgid16,
    Setreuid16,
    Setregid16,
    Setresuid16,
    Setresgid16,
    Setgroups16,
    Setfsuid16,
    Setfsgid16,
    Getuid16,
    Geteuid16,
    Getgid16,
    Getegid16,
    Getresuid16,
    Getresgid16,
    Getgroups16,
    Capget,
    Capset,
    Prctl,
    Chroot,
    Execve,
    Execveat,
    Setrlimit,
    Getrlimit,
    OldGetrlimit,
    Prlimit64,
    Access,
    Faccessat,
    Faccessat2,
    Chdir,
    Fchdir,
    Readlink,
    Readlinkat,
    Unlink,
    Rmdir,
    Unlinkat,
    Chmod,
    Fchmod,
    Fchmodat,
    Fchmodat2,
    Truncate,
    Truncate64,
    Utime,
    Utimes,
    Futimesat,
    Utimensat,
    UtimensatTime64,
    Statfs,
    Statfs64,
    InotifyAddWatch,
    Bind,
    Socketcall,
    Unshare,
    Clone,
    Setns,
}

/// When a filter asks about a call: always, or by one of its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sandbox) enum When {
    Always,
    /// The argument of this position has one of these bits.
    Bits(u8, u32),
    /// The argument of this position is one of these.
    Is(u8, &'static [u32]),
    /// The mode at this position is that of a device node.
    Device(u8),
}

/// What a call has to do with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sandbox) enum Theme {
    Owner,
    Stat,
    Xattr,
    SetXattr,
    Node,
    Create,
    Write,
    Move,
    /// What a process may that believes to be somebody else than root; root may all of it.
    Access,
    /// A socket of which only memory tells the family.
    Socket,
    SetId,
    GetId,
    Exec,
    Limit,
}

/// A call: its number on x86-64, i386 and aarch64, -1 where there is none.
pub(in crate::sandbox) struct Row(
    pub(in crate::sandbox) Op,
    pub(in crate::sandbox) Theme,
    pub(in crate::sandbox) When,
    pub(in crate::sandbox) [i32; 3],
);

const CREATES: u32 = libc::O_CREAT.cast_unsigned();
/// `O_CREAT`, and the one bit of `O_TMPFILE` that no other flag has.
pub(super) const MAKES: u32 =
    CREATES | (libc::O_TMPFILE.cast_unsigned() & !libc::O_DIRECTORY.cast_unsigned());
/// What opens a file to be written.
pub(super) const WRITES: u32 =
    libc::O_WRONLY.cast_unsigned() | libc::O_RDWR.cast_unsigned() | libc::O_TRUNC.cast_unsigned();
const RSS: &[u32] = &[5];
const KEEPCAPS: &[u32] = &[8];
/// `socket` and `bind` among the calls of `socketcall`.
const MEMORY: &[u32] = &[1, 2];
const NEWNS: u32 = 0x0002_0000;

use When::{Always, Bits, Is};

/// All of them; those that programs call most come first.
#[rustfmt::skip]
pub(in crate::sandbox) const CALLS: &[Row] = &[
    Row(Op::Openat, Theme::Create, Bits(2, MAKES), [257, 295, 56]),
    Row(Op::Open, Theme::Create, Bits(1, MAKES), [2, 5, -1]),
    Row(Op::Newfstatat, Theme::Stat, Always, [262, -1, 79]),
    Row(Op::Fstat, Theme::Stat, Always, [5, 108, 80]),
    Row(Op::Stat, Theme::Stat, Always, [4, 106, -1]),
    Row(Op::Lstat, Theme::Stat, Always, [6, 107, -1]),
    Row(Op::Statx, Theme::Stat, Always, [332, 383, 291]),
    Row(Op::Fstatat64, Theme::Stat, Always, [-1, 300, -1]),
    Row(Op::Stat64, Theme::Stat, Always, [-1, 195, -1]),
    Row(Op::Lstat64, Theme::Stat, Always, [-1, 196, -1]),
    Row(Op::Fstat64, Theme::Stat, Always, [-1, 197, -1]),
    Row(Op::Chown, Theme::Owner, Always, [92, 212, -1]),
    Row(Op::Lchown, Theme::Owner, Always, [94, 198, -1]),
    Row(Op::Fchown, Theme::Owner, Always, [93, 207, 55]),
    Row(Op::Fchownat, Theme::Owner, Always, [260, 298, 54]),
    Row(Op::Chown16, Theme::Owner, Always, [-1, 182, -1]),
    Row(Op::Lchown16, Theme::Owner, Always, [-1, 16, -1]),
    Row(Op::Fchown16, Theme::Owner, Always, [-1, 95, -1]),
    Row(Op::Setxattr, Theme::SetXattr, Always, [188, 226, 5]),
    Row(Op::Lsetxattr, Theme::SetXattr, Always, [189, 227, 6]),
    Row(Op::Fsetxattr, Theme::SetXattr, Always, [190, 228, 7]),
    Row(Op::Getxattr, Theme::Xattr, Always, [191, 229, 8]),
    Row(Op::Lgetxattr, Theme::Xattr, Always, [192, 230, 9]),
    Row(Op::Fgetxattr, Theme::Xattr, Always, [193, 231, 10]),
    Row(Op::Listxattr, Theme::Xattr, Always, [194, 232, 11]),
    Row(Op::Llistxattr, Theme::Xattr, Always, [195, 233, 12]),
    Row(Op::Flistxattr, Theme::Xattr, Always, [196, 234, 13]),
    Row(Op::Removexattr, Theme::Xattr, Always, [197, 235, 14]),
    Row(Op::Lremovexattr, Theme::Xattr, Always, [198, 236, 15]),
    Row(Op::Fremovexattr, Theme::Xattr, Always, [199, 237, 16]),
    Row(Op::Setxattrat, Theme::SetXattr, Always, [463, 463, 463]),
    Row(Op::Getxattrat, Theme::Xattr, Always, [464, 464, 464]),
    Row(Op::Listxattrat, Theme::Xattr, Always, [465, 465, 465]),
    Row(Op::Removexattrat, Theme::Xattr, Always, [466, 466, 466]),
    Row(Op::Mknod, Theme::Node, Always, [133, 14, -1]),
    Row(Op::Mknodat, Theme::Node, Always, [259, 297, 33]),
    Row(Op::Mkdir, Theme::Create, Always, [83, 39, -1]),
    Row(Op::Mkdirat, Theme::Create, Always, [258, 296, 34]),
    Row(Op::Symlink, Theme::Create, Always, [88, 83, -1]),
    Row(Op::Symlinkat, Theme::Create, Always, [266, 304, 36]),
    Row(Op::Openat2, Theme::Create, Always, [437, 437, 437]),
    Row(Op::Creat, Theme::Create, Always, [85, 8, -1]),
    Row(Op::Rename, Theme::Move, Always, [82, 38, -1]),
    Row(Op::Renameat, Theme::Move, Always, [264, 302, 38]),
    Row(Op::Renameat2, Theme::Move, Always, [316, 353, 276]),
    Row(Op::Link, Theme::Move, Always, [86, 9, -1]),
    Row(Op::Linkat, Theme::Move, Always, [265, 303, 37]),
    Row(Op::Setuid, Theme::SetId, Always, [105, 213, 146]),
    Row(Op::Setgid, Theme::SetId, Always, [106, 214, 144]),
    Row(Op::Setreuid, Theme::SetId, Always, [113, 203, 145]),
    Row(Op::Setregid, Theme::SetId, Always, [114, 204, 143]),
    Row(Op::Setresuid, Theme::SetId, Always, [117, 208, 147]),
    Row(Op::Setresgid, Theme::SetId, Always, [119, 210, 149]),
    Row(Op::Setgroups, Theme::SetId, Always, [116, 206, 159]),
    Row(Op::Setfsuid, Theme::SetId, Always, [122, 215, 151]),
    Row(Op::Setfsgid, Theme::SetId, Always, [123, 216, 152]),
    Row(Op::Capset, Theme::SetId, Always, [126, 185, 91]),
    Row(Op::Setuid16, Theme::SetId, Always, [-1, 23, -1]),
    Row(Op::Setgid16, Theme::SetId, Always, [-1, 46, -1]),
    Row(Op::Setreuid16, Theme::SetId, Always, [-1, 70, -1]),
    Row(Op::Setregid16, Theme::SetId, Always, [-1, 71, -1]),
    Row(Op::Setresuid16, Theme::SetId, Always, [-1, 164, -1]),
    Row(Op::Setresgid16, Theme::SetId, Always, [-1, 170, -1]),
    Row(Op::Setgroups16, Theme::SetId, Always, [-1, 81, -1]),
    Row(Op::Setfsuid16, Theme::SetId, Always, [-1, 138, -1]),
    Row(Op::Setfsgid16, Theme::SetId, Always, [-1, 139, -1]),
    Row(Op::Getuid, Theme::GetId, Always, [102, 199, 174]),
    Row(Op::Geteuid, Theme::GetId, Always, [107, 201, 175]),
    Row(Op::Getgid, Theme::GetId, Always, [104, 200, 176]),
    Row(Op::Getegid, Theme::GetId, Always, [108, 202, 177]),
    Row(Op::Getresuid, Theme::GetId, Always, [118, 209, 148]),
    Row(Op::Getresgid, Theme::GetId, Always, [120, 211, 150]),
    Row(Op::Getgroups, Theme::GetId, Always, [115, 205, 158]),
    Row(Op::Capget, Theme::GetId, Always, [125, 184, 90]),
    Row(Op::Getuid16, Theme::GetId, Always, [-1, 24, -1]),
    Row(Op::Geteuid16, Theme::GetId, Always, [-1, 49, -1]),
    Row(Op::Getgid16, Theme::GetId, Always, [-1, 47, -1]),
    Row(Op::Getegid16, Theme::GetId, Always, [-1, 50, -1]),
    Row(Op::Getresuid16, Theme::GetId, Always, [-1, 165, -1]),
    Row(Op::Getresgid16, Theme::GetId, Always, [-1, 171, -1]),
    Row(Op::Getgroups16, Theme::GetId, Always, [-1, 80, -1]),
    Row(Op::Prctl, Theme::GetId, Is(0, KEEPCAPS), [157, 172, 167]),
    Row(Op::Chroot, Theme::Exec, Always, [161, 61, 51]),
    Row(Op::Execve, Theme::Exec, Always, [59, 11, 221]),
    Row(Op::Execveat, Theme::Exec, Always, [322, 358, 281]),
    Row(Op::Setrlimit, Theme::Limit, Is(0, RSS), [160, 75, 164]),
    Row(Op::Getrlimit, Theme::Limit, Is(0, RSS), [97, 191, 163]),
    Row(Op::OldGetrlimit, Theme::Limit, Is(0, RSS), [-1, 76, -1]),
    Row(Op::Prlimit64, Theme::Limit, Is(1, RSS), [302, 340, 261]),
    Row(Op::Bind, Theme::Create, Always, [49, 361, 200]),
    Row(Op::Socketcall, Theme::Socket, Is(0, MEMORY), [-1, 102, -1]),
    Row(Op::Unshare, Theme::Exec, Bits(0, NEWNS), [272, 310, 97]),
    Row(Op::Clone, Theme::Exec, Bits(0, NEWNS), [56, 120, 220]),
    Row(Op::Setns, Theme::Exec, Always, [308, 346, 268]),
    Row(Op::Truncate, Theme::Write, Always, [76, 92, 45]),
    Row(Op::Truncate64, Theme::Write, Always, [-1, 193, -1]),
    Row(Op::Access, Theme::Access, Always, [21, 33, -1]),
    Row(Op::Faccessat, Theme::Access, Always, [269, 307, 48]),
    Row(Op::Faccessat2, Theme::Access, Always, [439, 439, 439]),
    Row(Op::Chdir, Theme::Access, Always, [80, 12, 49]),
    Row(Op::Fchdir, Theme::Access, Always, [81, 133, 50]),
    Row(Op::Readlink, Theme::Access, Always, [89, 85, -1]),
    Row(Op::Readlinkat, Theme::Access, Always, [267, 305, 78]),
    Row(Op::Unlink, Theme::Access, Always, [87, 10, -1]),
    Row(Op::Rmdir, Theme::Access, Always, [84, 40, -1]),
    Row(Op::Unlinkat, Theme::Access, Always, [263, 301, 35]),
    Row(Op::Chmod, Theme::Access, Always, [90, 15, -1]),
    Row(Op::Fchmod, Theme::Access, Always, [91, 94, 52]),
    Row(Op::Fchmodat, Theme::Access, Always, [268, 306, 53]),
    Row(Op::Fchmodat2, Theme::Access, Always, [452, 452, 452]),
    Row(Op::Utime, Theme::Access, Always, [132, 30, -1]),
    Row(Op::Utimes, Theme::Access, Always, [235, 271, -1]),
    Row(Op::Futimesat, Theme::Access, Always, [261, 299, -1]),
    Row(Op::Utimensat, Theme::Access, Always, [280, 320, 88]),
    Row(Op::UtimensatTime64, Theme::Access, Always, [-1, 412, -1]),
    Row(Op::Statfs, Theme::Access, Always, [137, 99, 43]),
    Row(Op::Statfs64, Theme::Access, Always, [-1, 268, -1]),
    Row(Op::InotifyAddWatch, Theme::Access, Always, [254, 292, 27]),
];

/// A program's architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sandbox) enum Arch {
    X86_64 = 0,
    I386 = 1,
    Aarch64 = 2,
}

impl Arch {
    /// Returns the architecture that the kernel has this number for.
    pub(in crate::sandbox) fn from_audit(number: u32) -> Option<Arch> {
        match number {
            0xc000_003e => Some(Arch::X86_64),
            0x4000_0003 => Some(Arch::I386),
            0xc000_00b7 => Some(Arch::Aarch64),
            _ => None,
        }
    }
}

/// Returns the call that has a number.
pub(super) fn find(arch: Arch, number: i32) -> Option<&'static Row> {
    CALLS.iter().find(|row| row.3[arch as usize] == number)
}

/// Tells whether a call is to be looked at where another than root makes it, if it isn't anyway.
pub(in crate::sandbox) fn is_for_others(row: &Row) -> bool {
    matches!(row.1, Theme::Access | Theme::Move) || matches!(row.0, Op::Open | Op::Openat)
}

/// Tells when a scope wants a call answered. `by_path` is where owners of files are known by path;
/// `strict`, where the step begins as another than root.
pub(in crate::sandbox) fn wanted(
    scope: Scope,
    row: &Row,
    by_path: bool,
    strict: bool,
) -> Option<When> {
    let wanted = match (scope, row.1) {
        (_, Theme::Node | Theme::SetXattr | Theme::Socket) | (Scope::Nodes, Theme::Stat) => true,
        (Scope::Light, _) => false,
        (Scope::Nodes, Theme::Create) => by_path,
        (Scope::Nodes, Theme::Exec) => !matches!(row.0, Op::Execve | Op::Execveat),
        (_, Theme::Move) => by_path || strict,
        (Scope::Nodes, _) => false,
        (Scope::Full, Theme::Access) => strict,
        (Scope::Full, _) => true,
    };
    let when = match (row.0, row.2) {
        (Op::Mknod, _) if scope != Scope::Full => When::Device(1),
        (Op::Mknodat, _) if scope != Scope::Full => When::Device(2),
        (Op::Open | Op::Openat, _) if strict => When::Always,
        (Op::Open | Op::Openat, Bits(at, bits)) if scope == Scope::Full => Bits(at, bits | WRITES),
        (_, when) => when,
    };
    wanted.then_some(when)
}
