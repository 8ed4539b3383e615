//! What `stat` and its kin write, as each architecture lays it out.

use super::calls::{Arch, Op};
use super::kernel::Status;

/// A struct that a call fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    X86_64,
    Aarch64,
    /// `stat64` of i386.
    I386,
    /// `stat` of i386, whose ids have 16 bits.
    I386Short,
}

impl Layout {
    /// Returns what a call fills.
    pub(super) fn of(arch: Arch, op: Op) -> Layout {
        match (arch, op) {
            (Arch::X86_64, _) => Layout::X86_64,
            (Arch::Aarch64, _) => Layout::Aarch64,
            (Arch::I386, Op::Stat | Op::Lstat | Op::Fstat) => Layout::I386Short,
            (Arch::I386, _) => Layout::I386,
        }
    }

    /// Writes a status out; `None` where a number is too large for it.
    pub(super) fn encode(self, status: &Status) -> Option<Vec<u8>> {
        let mut out = Out(Vec::with_capacity(144));
        let device = |major, minor| encode_device(major, minor);
        let dev = device(status.stx_dev_major, status.stx_dev_minor);
        let rdev = device(status.stx_rdev_major, status.stx_rdev_minor);
        let mode = u32::from(status.stx_mode);
        let times = [status.stx_atime, status.stx_mtime, status.stx_ctime];
        match self {
            Layout::X86_64 => {
                out.long(u64::from(dev)).long(status.stx_ino).long(status.stx_nlink.into());
                out.int(mode).int(status.stx_uid).int(status.stx_gid).int(0);
                out.long(rdev.into()).long(status.stx_size).long(status.stx_blksize.into());
                out.long(status.stx_blocks);
                for time in times {
                    out.long(time.tv_sec.cast_unsigned()).long(time.tv_nsec.into());
                }
                out.long(0).long(0).long(0);
            }
            Layout::Aarch64 => {
                out.long(u64::from(dev)).long(status.stx_ino);
                out.int(mode).int(status.stx_nlink).int(status.stx_uid).int(status.stx_gid);
                out.long(rdev.into()).long(0).long(status.stx_size);
                out.int(status.stx_blksize).int(0).long(status.stx_blocks);
                for time in times {
                    out.long(time.tv_sec.cast_unsigned()).long(time.tv_nsec.into());
                }
                out.int(0).int(0);
            }
            Layout::I386 => {
                out.long(u64::from(dev)).int(0).int(low(status.stx_ino));
                out.int(mode).int(status.stx_nlink).int(status.stx_uid).int(status.stx_gid);
                out.long(rdev.into()).int(0).long(status.stx_size);
                out.int(status.stx_blksize).long(status.stx_blocks);
                for time in times {
                    out.int(low(time.tv_sec.cast_unsigned())).int(time.tv_nsec);
                }
                out.long(status.stx_ino);
            }
            Layout::I386Short => {
                out.int(dev).int(u32::try_from(status.stx_ino).ok()?);
                out.short(mode).short(status.stx_nlink);
                out.short(short_id(status.stx_uid)).short(short_id(status.stx_gid));
                out.int(rdev).int(u32::try_from(status.stx_size).ok()?);
                out.int(status.stx_blksize).int(u32::try_from(status.stx_blocks).ok()?);
                for time in times {
                    out.int(low(time.tv_sec.cast_unsigned())).int(time.tv_nsec);
                }
                out.int(0).int(0);
            }
        }
        Some(out.0)
    }
}

/// A device's number as the kernel tells it: 12 bits of major, 20 of minor.
fn encode_device(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// The major and minor number of a device, from what `mknod` is given.
pub(super) fn decode_device(device: u64) -> (u32, u32) {
    let device = low(device);
    ((device & 0x000f_ff00) >> 8, (device & 0xff) | ((device >> 12) & 0x000f_ff00))
}

/// The id that the kernel tells where only 16 bits are.
pub(super) fn short_id(id: u32) -> u32 {
    if id > 0xffff { 65534 } else { id }
}

fn low(number: u64) -> u32 {
    (number & 0xffff_ffff) as u32
}

struct Out(Vec<u8>);

impl Out {
    fn long(&mut self, value: u64) -> &mut Out {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn int(&mut self, value: u32) -> &mut Out {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn short(&mut self, value: u32) -> &mut Out {
        self.0.extend(&value.to_le_bytes()[..2]);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::supervise::kernel;

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn what_the_kernel_of_this_machine_would_have_written() {
        use std::os::unix::fs::MetadataExt;
        let path = c"/proc/self/exe";
        let status = kernel::statx(libc::AT_FDCWD, path, 0, libc::STATX_BASIC_STATS).unwrap();
        let bytes = Layout::X86_64.encode(&status).unwrap();
        assert_eq!(bytes.len(), size_of::<libc::stat>());
        let own = std::fs::metadata("/proc/self/exe").unwrap();
        let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        assert_eq!([long(0), long(8), long(48)], [own.dev(), own.ino(), own.size()]);
        assert_eq!(long(88), own.mtime().cast_unsigned());
    }

    #[test]
    fn each_architecture_has_its_places() {
        let mut status = kernel::statx(libc::AT_FDCWD, c"/", 0, libc::STATX_BASIC_STATS).unwrap();
        (status.stx_uid, status.stx_gid) = (0x0001_2345, 7);
        for (layout, length, at, uid) in [
            (Layout::X86_64, 144, 28, 0x0001_2345),
            (Layout::Aarch64, 128, 24, 0x0001_2345),
            (Layout::I386, 96, 24, 0x0001_2345),
        ] {
            let bytes = layout.encode(&status).unwrap();
            assert_eq!(bytes.len(), length);
            let found = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
            assert_eq!(found, uid, "{layout:?}");
        }
        let short = Layout::I386Short.encode(&status).unwrap();
        assert_eq!((short.len(), &short[12..16]), (64, [0xfe, 0xff, 7, 0].as_slice()));
        assert_eq!(decode_device(u64::from(encode_device(0x123, 0x4_5678))), (0x123, 0x4_5678));
    }
}
