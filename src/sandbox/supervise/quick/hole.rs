//! Room for the image in a process: the unused end of a program's or library's last page of
//! instructions. The mapping is private, so that what is written there is the process's alone.

use std::ops::Range;

use crate::sandbox::supervise::tracee::{Errno, PAGE, Tracee};

/// A part of a process's memory, of a file: a line of `/proc/PID/maps`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mapping<'m> {
    start: u64,
    end: u64,
    offset: u64,
    executable: bool,
    /// Device and inode.
    file: (&'m str, &'m str),
}

/// The end of the instructions of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hole {
    pub(super) start: u64,
    pub(super) length: u64,
}

/// The files whose instructions a process has in its memory.
pub(super) struct Files {
    maps: String,
}

impl Files {
    pub(super) fn of(tracee: Tracee) -> Result<Files, Errno> {
        Ok(Files { maps: tracee.maps()? })
    }

    fn mappings(&self) -> Vec<Mapping<'_>> {
        self.maps.lines().filter_map(parse).collect()
    }

    /// Returns from where to where instructions lie without a gap around an address.
    pub(super) fn around(&self, address: u64) -> Option<Range<u64>> {
        let holds = |it: &&Mapping<'_>| it.executable && (it.start..it.end).contains(&address);
        self.mappings().iter().find(holds).map(|it| it.start..it.end)
    }

    /// Returns the ends of all instructions, those nearest to an address first.
    pub(super) fn holes(&self, tracee: Tracee, near: u64) -> Vec<Hole> {
        let mappings = self.mappings();
        let end = |mapping: &Mapping<'_>| {
            let head = mappings.iter().find(|it| it.file == mapping.file && it.offset == 0)?;
            let start = end_of(&headers(tracee, head.start)?, mapping)?.next_multiple_of(16);
            let length = start.next_multiple_of(PAGE).min(mapping.end).checked_sub(start)?;
            Some(Hole { start, length })
        };
        let mut holes: Vec<Hole> =
            mappings.iter().filter(|it| it.executable).filter_map(end).collect();
        holes.sort_by_key(|hole| hole.start.abs_diff(near));
        holes
    }
}

/// Reads a line; `None` where it is no private mapping of a file.
fn parse(line: &str) -> Option<Mapping<'_>> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let permissions = words.next()?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    let offset = number(words.next()?)?;
    let file = (words.next()?, words.next()?);
    (permissions.ends_with('p') && file.1 != "0").then_some(Mapping {
        start: number(start)?,
        end: number(end)?,
        offset,
        executable: permissions.starts_with("r-x"),
        file,
    })
}

/// A program header: type and flags, offset, size in the file.
type Header = (u32, u32, u64, u64);

/// Reads the program headers of a 64-bit ELF file that lies at an address.
fn headers(tracee: Tracee, at: u64) -> Option<Vec<Header>> {
    const ELF_64: &[u8] = b"\x7fELF\x02\x01";
    const SIZE: usize = 56;
    const MOST: usize = 32;
    let head = tracee.bytes(at, 64).ok()?;
    if !head.starts_with(ELF_64) {
        return None;
    }
    let count = usize::from(u16::from_le_bytes([head[56], head[57]])).min(MOST);
    let table = tracee.bytes(at.checked_add(long(&head, 32)?)?, count * SIZE).ok()?;
    let header = |it: &[u8]| {
        let int = |at: usize| Some(u32::from_le_bytes(it.get(at..at + 4)?.try_into().ok()?));
        Some((int(0)?, int(4)?, long(it, 8)?, long(it, 32)?))
    };
    table.chunks_exact(SIZE).map(header).collect()
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// Where in the process the file's part ends that a mapping is of.
fn end_of(headers: &[Header], mapping: &Mapping<'_>) -> Option<u64> {
    const LOAD: u32 = 1;
    const EXECUTABLE: u32 = 1;
    headers.iter().find_map(|&(kind, flags, offset, size)| {
        let begins = offset / PAGE * PAGE == mapping.offset;
        let end = mapping.start.checked_add(offset % PAGE)?.checked_add(size)?;
        (kind == LOAD && flags & EXECUTABLE != 0 && begins && end <= mapping.end).then_some(end)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_line_only_private_files_matter() {
        let line = "7f0000001000-7f0000156000 r-xp 00026000 fe:00 1234    /usr/lib/libc.so.6";
        let mapping = parse(line).unwrap();
        assert_eq!(
            (mapping.start, mapping.offset, mapping.executable),
            (0x7f00_0000_1000, 0x26000, true)
        );
        assert!(parse("7ffc00000000-7ffc00002000 r-xp 00000000 00:00 0    [vdso]").is_none());
        assert!(parse("7f0000001000-7f0000156000 r-xs 00000000 fe:00 7    /a").is_none());
    }

    #[test]
    fn instructions_end_where_their_header_says() {
        let mapping = parse("5000-8000 r-xp 00001000 fe:00 7 /a").unwrap();
        let headers = [(1, 4, 0, 0x400), (1, 5, 0x1040, 0x2100), (1, 6, 0x4000, 0x100)];
        assert_eq!(end_of(&headers, &mapping), Some(0x7140));
        let longer = [(1, 5, 0x1040, 0x4000)];
        assert_eq!(end_of(&longer, &mapping), None);
    }
}
