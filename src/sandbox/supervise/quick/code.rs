//! What is put into a process: the instructions that ask the kernel, and the supervisor only where
//! it may know more. They run in the place of a `syscall` instruction and change what that changes.

#![cfg_attr(
    target_arch = "x86_64",
    expect(unsafe_code, reason = "instructions for another process")
)]
#![cfg_attr(
    not(target_arch = "x86_64"),
    allow(dead_code, unused_imports, reason = "there are none")
)]

use super::table::{INODES_SHIFT, LENGTH, MULTIPLIER, NAMES_AT, NAMES_SHIFT, PRIME, SEED};

/// Stands in the sixth argument, which no `stat` has, of a call that the filter lets through.
pub(in crate::sandbox) const PASS: u64 = 0x6f63_6962_7569_6c64;
/// The same of a call that asks for the table, and of one that tells where it lies.
pub(super) const ASK: u64 = PASS + 1;
pub(super) const TELL: u64 = PASS + 2;

/// How many inodes a process remembers by itself of which nothing is known.
const REMEMBERED: u32 = 256;

/// What the image begins with.
pub(super) const SIGN: u64 = 0x4f63_6942_7569_4c44;

/// Where in the image the supervisor writes: whether to ask always, where the table lies in the
/// process, and whether names and links matter.
pub(super) const OFF_AT: u64 = 8;
pub(super) const TABLE_AT: u64 = 16;
pub(super) const NAMES_MATTER_AT: usize = 24;

#[cfg(target_arch = "x86_64")]
std::arch::global_asm!(
    include_str!("image.s"),
    sign = const SIGN,
    pass = const PASS,
    ask = const ASK,
    tell = const TELL,
    multiplier = const MULTIPLIER,
    seed = const SEED,
    prime = const PRIME,
    inodes_shift = const INODES_SHIFT,
    names_shift = const NAMES_SHIFT,
    names_at = const NAMES_AT,
    length = const LENGTH,
    room = const LENGTH + 32 * REMEMBERED,
    places = const REMEMBERED - 1,
    statx = const 332,
    newfstatat = const 262,
    stat = const 4,
    lstat = const 6,
    readlinkat = const 267,
    mmap = const 9,
    close = const 3,
    clock_gettime = const 228,
    coarse_clock = const 5,
    told = const 0x19d, // STATX_TYPE, STATX_NLINK, STATX_UID, STATX_GID, STATX_CTIME, STATX_INO
    nofollow = const 0x100,
    working_folder = const -100,
    kind = const 0xf000,
    symlink = const 0xa000,
    folder = const 0x4000,
    self_fd = const u64::from_le_bytes(*b"self/fd/"),
    proc_se = const u64::from_le_bytes(*b"/proc/se"),
);

/// The image, and where in it a call begins and where the table's place is told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Image {
    pub(super) bytes: &'static [u8],
    pub(super) entry: u64,
    pub(super) told: u64,
}

#[cfg(target_arch = "x86_64")]
unsafe extern "C" {
    #[link_name = "ocibuild_quick_start"]
    static START: u8;
    #[link_name = "ocibuild_quick_entry"]
    static ENTRY: u8;
    #[link_name = "ocibuild_quick_told"]
    static TOLD: u8;
    #[link_name = "ocibuild_quick_end"]
    static END: u8;
}

/// Returns the image for this machine's processes.
#[cfg(target_arch = "x86_64")]
pub(super) fn image() -> Image {
    let (start, entry, told, end) =
        (&raw const START, &raw const ENTRY, &raw const TOLD, &raw const END);
    let offset = |at: *const u8| at.addr() - start.addr();
    // SAFETY: the labels enclose bytes that are never written.
    let bytes = unsafe { std::slice::from_raw_parts(start, offset(end)) };
    Image { bytes, entry: offset(entry) as u64, told: offset(told) as u64 }
}

/// No process of another machine is asked for.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn image() -> Image {
    Image { bytes: &[], entry: 0, told: 0 }
}
