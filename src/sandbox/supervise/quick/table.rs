//! What may be known of files, as bits that a process can look up itself: a bit for an inode's
//! number, one for a name. A bit that is set says nothing; one that isn't, that nothing is known.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};

const INODE_BITS: u32 = 25;
const NAME_BITS: u32 = 23;
pub(super) const INODES_SHIFT: u32 = 64 - INODE_BITS;
pub(super) const NAMES_SHIFT: u32 = 64 - NAME_BITS;
/// Where the bits of names begin, and how long the table is, in bytes.
pub(super) const NAMES_AT: u32 = 1 << (INODE_BITS - 3);
pub(super) const LENGTH: u32 = NAMES_AT + (1 << (NAME_BITS - 3));

/// Spreads numbers over the upper bits.
pub(super) const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
/// Of FNV-1a, by which a name becomes a number.
pub(super) const SEED: u64 = 0xcbf2_9ce4_8422_2325;
pub(super) const PRIME: u64 = 0x0000_0100_0000_01b3;

/// The bits, in a file of memory.
#[derive(Debug)]
pub(in crate::sandbox::supervise) struct Table {
    file: Mutex<OwnedFd>,
    readable: OwnedFd,
}

impl Table {
    /// Begins with no inode and some names.
    pub(in crate::sandbox::supervise) fn new<'n>(
        names: impl Iterator<Item = &'n [u8]>,
    ) -> io::Result<Table> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = rustix::fs::memfd_create("ocibuild-owners", flags)?;
        rustix::fs::ftruncate(&file, LENGTH.into())?;
        // A process that made it shorter would crash the others.
        rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let mut bits = Vec::new();
        for name in names {
            bits.resize((LENGTH - NAMES_AT) as usize, 0_u8);
            let (at, bit) = place_of(bit_of_name(name));
            bits[at] |= bit;
        }
        if !bits.is_empty() {
            write_all(&file, &bits, NAMES_AT.into())?;
        }
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let readable = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(Table { file: Mutex::new(file), readable })
    }

    /// Says that something may be known of an inode.
    pub(in crate::sandbox::supervise) fn note(&self, inode: u64) -> io::Result<()> {
        let (at, bit) = place_of(bit_of_inode(inode));
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let mut byte = [0];
        rustix::io::pread(&*file, &mut byte, at as u64)?;
        if byte[0] & bit == 0 {
            write_all(&file, &[byte[0] | bit], at as u64)?;
        }
        Ok(())
    }

    /// Returns a descriptor to read it by.
    pub(super) fn reader(&self) -> io::Result<OwnedFd> {
        self.readable.try_clone()
    }
}

fn write_all(file: &OwnedFd, mut bytes: &[u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = rustix::io::pwrite(file, bytes, at)?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        (bytes, at) = (&bytes[written..], at + written as u64);
    }
    Ok(())
}

fn bit_of_inode(inode: u64) -> u64 {
    inode.wrapping_mul(MULTIPLIER) >> INODES_SHIFT
}

fn bit_of_name(name: &[u8]) -> u64 {
    let number = name.iter().fold(SEED, |it, byte| (it ^ u64::from(*byte)).wrapping_mul(PRIME));
    number.wrapping_mul(MULTIPLIER) >> NAMES_SHIFT
}

/// The byte of a bit, and the bit in it.
fn place_of(bit: u64) -> (usize, u8) {
    ((bit / 8) as usize, 1 << (bit % 8))
}
