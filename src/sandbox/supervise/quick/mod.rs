//! Answers without a stop. A stop costs some microseconds, which is several times what `stat` takes,
//! and of most files nothing is known. So a process that has been stopped at one place again and
//! again gets instructions of ours there (`code`), which have the kernel answer and look up by
//! themselves (`table`) whether the supervisor may know more; only then do they ask it.
//!
//! Written is what the process's alone is: the private copy of a page of instructions, through
//! `/proc/PID/mem`, while its only thread waits for an answer. Where anything is other than
//! expected, or the kernel forbids it, all calls stop as before. x86-64 only.

#![expect(clippy::disallowed_types, reason = "asked at every stat of a step, and never listed")]

mod code;
mod hole;
mod table;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::calls::{Arch, Op};
use super::kernel::Answer;
use super::step::{Call, Handled};
use super::tracee::{Errno, Tracee, errno};
use code::{ASK, NAMES_MATTER_AT, OFF_AT, SIGN, TABLE_AT, TELL};
use hole::{Files, Hole};

pub(in crate::sandbox) use code::PASS;
pub(super) use table::Table;

/// After how many stops at one place a process is helped: most are stopped a few times only, and to
/// find room in one takes longer than to answer it.
const AFTER: u8 = 24;
/// How many processes are counted at a time.
const MOST: usize = 4096;
/// How many places of a process are.
const PLACES: usize = 64;
/// How many places of a process get an entry behind the image, and how long one is.
const ENTRIES: u64 = 6;
const ENTRY: u64 = 32;
/// `mov eax, NUMBER; syscall`.
const SITE: u64 = 7;

/// Who has been stopped how often, and where.
#[derive(Debug, Default)]
pub(super) struct Quick {
    counts: Mutex<HashMap<u32, Vec<(u64, u8)>>>,
    helped: AtomicBool,
}

impl Quick {
    fn counts(&self) -> MutexGuard<'_, HashMap<u32, Vec<(u64, u8)>>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a stop; helps the process where it is one of many.
    pub(super) fn count(&self, call: &Call<'_>) {
        if call.arch != Arch::X86_64 || call.ownership().table().is_none() || call.id.is_none() {
            return;
        }
        {
            let mut counts = self.counts();
            if counts.len() >= MOST {
                counts.clear();
            }
            let places = counts.entry(call.tracee.pid).or_default();
            let known = places.iter().position(|(at, _)| *at == call.returns_to);
            let Some(place) = known else {
                if places.len() < PLACES {
                    places.push((call.returns_to, 1));
                }
                return;
            };
            let count = &mut places[place].1;
            if *count >= AFTER {
                return;
            }
            *count += 1;
            if *count < AFTER {
                return;
            }
        }
        if call.restricted().is_none() && help(call).is_some() {
            self.helped.store(true, Ordering::Release);
        }
    }

    /// Forgets a process that is about to become another program.
    pub(super) fn forget(&self, tracee: Tracee) {
        self.counts().remove(&tracee.pid);
    }

    /// Has a process ask always from now on, since not all that root sees is for it.
    pub(super) fn end(&self, tracee: Tracee) -> Result<(), Errno> {
        if !self.helped.load(Ordering::Acquire) {
            return Ok(());
        }
        // Whose memory can't be looked at hasn't been helped.
        let Ok(files) = Files::of(tracee) else { return Ok(()) };
        for hole in files.holes(tracee, 0) {
            if has_image(tracee, hole.start) {
                tracee.overwrite(hole.start + OFF_AT, &1_u64.to_le_bytes())?;
            }
        }
        Ok(())
    }
}

/// Answers what the instructions of ours ask; `None` for a call of the process's own.
pub(super) fn requests(call: &Call<'_>) -> Option<Handled> {
    let table = call.ownership().table()?;
    match (call.op, call.arguments[5]) {
        (Op::Newfstatat, ASK) => Some(give_table(call, table)),
        (Op::Newfstatat, TELL) => Some(place_table(call).ok_or(libc::EINVAL)),
        _ => None,
    }
}

fn give_table(call: &Call<'_>, table: &Table) -> Handled {
    let reader = table.reader().map_err(|error| errno(&error))?;
    call.give(reader, true)
}

/// Notes in the process where its table lies, or that it has none.
fn place_table(call: &Call<'_>) -> Option<Answer> {
    let start = call.returns_to.checked_sub(code::image().told)?;
    if !has_image(call.tracee, start) || call.still_waits().is_err() {
        return None;
    }
    let address = call.arguments[0];
    let is_error = address.cast_signed() < 0;
    let (at, value) = if is_error { (OFF_AT, 1) } else { (TABLE_AT, address) };
    call.tracee.overwrite(start + at, &value.to_le_bytes()).ok()?;
    Some(Answer::Value(0))
}

fn has_image(tracee: Tracee, at: u64) -> bool {
    tracee.bytes(at, 8).is_ok_and(|bytes| bytes == SIGN.to_le_bytes())
}

/// Puts the image into the process, unless it is there, and has it called where the process waits.
fn help(call: &Call<'_>) -> Option<()> {
    let (tracee, image) = (call.tracee, code::image());
    let after = call.returns_to;
    let site = after.checked_sub(SITE)?;
    let number = tracee.bytes(site, 7).ok().and_then(|bytes| number_of(&bytes))?;
    let files = Files::of(tracee).ok()?;
    let syscall = after - 2;
    let (around, from) = around(tracee, syscall, &files.around(site)?)?;
    if tracee.threads() != Ok(1) || is_jumped_to(&around, from, syscall) {
        return None;
    }
    let near = files.holes(tracee, site);
    let entries_at = (image.bytes.len() as u64).next_multiple_of(16);
    let needed = entries_at + ENTRIES * ENTRY;
    let reaches = |hole: &&Hole| hole.start.abs_diff(site) < (1 << 31) - (1 << 20);
    let mut near = near.iter().filter(reaches).filter(|hole| hole.length >= needed);
    let (hole, is_new) = match near.clone().find(|hole| has_image(tracee, hole.start)) {
        Some(hole) => (hole, false),
        None => (near.find(|hole| is_empty(tracee, hole.start, needed))?, true),
    };
    let entry = (0..ENTRIES)
        .map(|number| hole.start + entries_at + number * ENTRY)
        .find(|at| is_empty(tracee, *at, ENTRY))?;
    call.still_waits().ok()?;
    if is_new {
        let mut bytes = image.bytes.to_vec();
        bytes[NAMES_MATTER_AT] = u8::from(call.ownership().upper.is_some());
        tracee.overwrite(hole.start, &bytes).ok()?;
    }
    tracee.overwrite(entry, &entry_of(number, entry, hole.start + image.entry, after)?).ok()?;
    let mut jump = vec![0xe9];
    jump.extend(distance(site + 5, entry)?);
    jump.extend([0x66, 0x90]);
    tracee.overwrite(site, &jump).ok()
}

fn is_empty(tracee: Tracee, at: u64, length: u64) -> bool {
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    tracee.bytes(at, length).is_ok_and(|bytes| bytes.iter().all(|byte| *byte == 0))
}

/// The number of the call that a place makes, if it is one that the image knows.
fn number_of(site: &[u8]) -> Option<u32> {
    let &[0xb8, a, b, c, d, 0x0f, 0x05] = site else { return None };
    let number = u32::from_le_bytes([a, b, c, d]);
    matches!(number, 4..=6 | 262 | 332).then_some(number)
}

/// Reads the instructions around an address; returns them and where they begin.
fn around(tracee: Tracee, at: u64, within: &Range<u64>) -> Option<(Vec<u8>, u64)> {
    const NEAR: u64 = 4096;
    let start = at.saturating_sub(NEAR).max(within.start);
    let length = usize::try_from((at + NEAR).min(within.end).checked_sub(start)?).ok()?;
    Some((tracee.bytes(start, length).ok()?, start))
}

/// Tells whether any of some instructions may jump to a `syscall`, past the number before it. What
/// only looks like a jump counts, too.
fn is_jumped_to(code: &[u8], from: u64, at: u64) -> bool {
    let jumps = |(index, window): (usize, &[u8])| {
        let here = from + index as u64;
        let short = matches!(window[0], 0x70..=0x7f | 0xe0..=0xe3 | 0xeb)
            && (here + 2).wrapping_add_signed(i64::from(window[1].cast_signed())) == at;
        let near = |operand: usize| {
            let distance = window[operand..operand + 4].try_into().map_or(0, i32::from_le_bytes);
            (here + operand as u64 + 4).wrapping_add_signed(i64::from(distance)) == at
        };
        short
            || window[0] == 0xe9 && near(1)
            || window[0] == 0x0f && matches!(window[1], 0x80..=0x8f) && near(2)
    };
    code.windows(6).enumerate().any(jumps)
}

/// What a place jumps to: below what leaf functions keep under their stack, calls the image, and
/// goes on behind the place.
fn entry_of(number: u32, at: u64, image: u64, after: u64) -> Option<Vec<u8>> {
    let mut bytes = vec![0xb8];
    bytes.extend(number.to_le_bytes());
    bytes.extend([0x48, 0x8d, 0x64, 0x24, 0x80]); // lea rsp, [rsp - 128]
    bytes.push(0xe8); // call
    bytes.extend(distance(at + bytes.len() as u64 + 4, image)?);
    bytes.extend([0x48, 0x8d, 0xa4, 0x24, 0x80, 0, 0, 0]); // lea rsp, [rsp + 128]
    bytes.push(0xe9); // jmp
    bytes.extend(distance(at + bytes.len() as u64 + 4, after)?);
    Some(bytes)
}

/// What a jump says that ends at one address and leads to another.
fn distance(from: u64, to: u64) -> Option<[u8; 4]> {
    let distance = to.wrapping_sub(from).cast_signed();
    i32::try_from(distance).ok().map(i32::to_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_that_are_known() {
        assert_eq!(number_of(&[0xb8, 6, 1, 0, 0, 0x0f, 0x05]), Some(262));
        assert_eq!(number_of(&[0xb8, 7, 1, 0, 0, 0x0f, 0x05]), None);
        assert_eq!(number_of(&[0xb9, 6, 1, 0, 0, 0x0f, 0x05]), None);
        assert_eq!(number_of(&[0xb8, 6, 1, 0, 0, 0x0f, 0x34]), None);
    }

    #[test]
    fn a_call_that_is_jumped_to_stays() {
        // A `syscall` at 0x1020 among instructions from 0x1000 on.
        let jumps = |at: usize, jump: &[u8]| {
            let mut code = [0x90; 64];
            code[0x20..0x22].copy_from_slice(&[0x0f, 0x05]);
            code[at..at + jump.len()].copy_from_slice(jump);
            is_jumped_to(&code, 0x1000, 0x1020)
        };
        assert!(!jumps(0, &[0x90]));
        assert!(jumps(0, &[0xeb, 0x1e]) && !jumps(0, &[0xeb, 0x19]));
        assert!(jumps(0x30, &[0x75, 0xee]));
        assert!(jumps(2, &[0xe9, 0x19, 0, 0, 0]));
        assert!(jumps(0x30, &[0x0f, 0x84, 0xea, 0xff, 0xff, 0xff]));
    }

    #[test]
    fn jumps_reach_two_gigabytes() {
        assert_eq!(distance(0x2000, 0x1000), Some([0, 0xf0, 0xff, 0xff]));
        assert_eq!(distance(0, 1 << 31), None);
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_image_has_its_places_where_it_is_written_to() {
        let image = code::image();
        assert_eq!(image.bytes[..8], SIGN.to_le_bytes());
        assert!(image.bytes[8..NAMES_MATTER_AT + 8].iter().all(|byte| *byte == 0));
        assert_eq!(image.entry, NAMES_MATTER_AT as u64 + 8);
        // A page's end has room for it in most libraries.
        assert!(image.bytes.len() + 6 * 32 < 1300, "{}", image.bytes.len());
    }
}
