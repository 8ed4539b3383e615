//! R's packages: the times at which one was packed and built stand in DESCRIPTION and, as a gzipped
//! RDS, in Meta/package.rds. R knows no source date. Only times of the run are changed: a package that came
//! as a binary keeps its vendor's.

use std::io::Read;

use flate2::bufread::GzDecoder;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::Times;

/// `2026-11-24 14:00:00 UTC`
const STAMP: &str = "%Y-%m-%d %H:%M:%S UTC";
const LENGTH: usize = 23;
/// The most bytes that a package's metadata unpack to.
const LIMIT: u64 = 16 << 20;

/// Changes the stamps of installing and, where a package was built from its folder first, of packing.
pub(super) fn description(content: &[u8], times: &Times) -> Option<Vec<u8>> {
    let mut new = content.to_vec();
    let mut found = false;
    for line in new.split_mut(|byte| *byte == b'\n') {
        if line.starts_with(b"Built: R ") || line.starts_with(b"Packaged: ") {
            found |= retime(line, times);
        }
    }
    found.then_some(new)
}

/// Changes the stamps in a package's metadata, and packs them without compression: stored blocks
/// are the same bytes whatever compressor is at hand.
pub(super) fn package(content: &[u8], times: &Times) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    GzDecoder::new(content).take(LIMIT).read_to_end(&mut plain).ok()?;
    let whole = (plain.len() as u64) < LIMIT;
    (whole && retime(&mut plain, times)).then(|| stored(&plain))
}

/// Replaces every stamp that the clock gave in the run; tells whether there was one.
fn retime(text: &mut [u8], times: &Times) -> bool {
    let Some(wanted) =
        Timestamp::from_second(times.source_date).ok().map(|time| time.strftime(STAMP).to_string())
    else {
        return false;
    };
    let mut found = false;
    let mut at = 0;
    while at + LENGTH <= text.len() {
        let window = &mut text[at..at + LENGTH];
        if window.ends_with(b" UTC")
            && seconds(window).is_some_and(|time| times.is_of_the_run(time))
        {
            if window != wanted.as_bytes() {
                window.copy_from_slice(wanted.as_bytes());
                found = true;
            }
            at += LENGTH;
        } else {
            at += 1;
        }
    }
    found
}

fn seconds(stamp: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(stamp).ok()?.strip_suffix(" UTC")?;
    let time = DateTime::strptime("%Y-%m-%d %H:%M:%S", text).ok()?;
    Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second())
}

/// Wraps bytes as a gzip member of stored blocks (RFC 1951, 3.2.4; RFC 1952).
pub(super) fn stored(plain: &[u8]) -> Vec<u8> {
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let mut blocks = plain.chunks(65_535).peekable();
    if blocks.peek().is_none() {
        out.extend_from_slice(&[1, 0, 0, 0xff, 0xff]);
    }
    while let Some(block) = blocks.next() {
        out.push(u8::from(blocks.peek().is_none()));
        // A chunk has at most 65,535 bytes.
        let length = u16::try_from(block.len()).unwrap_or(u16::MAX);
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&(!length).to_le_bytes());
        out.extend_from_slice(block);
    }
    out.extend_from_slice(&libdeflater::crc32(plain).to_le_bytes());
    out.extend_from_slice(&u32::try_from(plain.len()).unwrap_or(u32::MAX).to_le_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: Times =
        Times { start: 1_795_528_700, end: 1_795_528_900, source_date: 1_700_000_000 };

    #[test]
    fn a_package_built_in_the_run_gets_the_source_date() {
        let text = b"Package: x\nPackaged: 2026-11-24 13:58:20 UTC; me\nDate: 2026-11-24 13:58:20 UTC\nBuilt: R 4.5.1; ; 2026-11-24 13:58:20 UTC; unix\n";
        let new = String::from_utf8(description(text, &TIMES).unwrap()).unwrap();
        assert_eq!(
            new,
            "Package: x\nPackaged: 2023-11-14 22:13:20 UTC; me\nDate: 2026-11-24 13:58:20 UTC\nBuilt: R 4.5.1; ; 2023-11-14 22:13:20 UTC; unix\n"
        );
        assert_eq!(description(new.as_bytes(), &TIMES), None);
        let vendors = b"Package: x\nPackaged: 2025-01-02 03:04:05 UTC; cran\nBuilt: R 4.5.1; ; 2025-01-02 03:04:05 UTC; unix\n";
        assert_eq!(description(vendors, &TIMES), None);
    }

    #[test]
    fn so_does_its_metadata() {
        let plain = b"X\n\0\0Built\0R 4.5.1; ; 2026-11-24 13:58:20 UTC; unix\0".repeat(2000);
        let new = package(&stored(&plain), &TIMES).unwrap();
        let mut read = Vec::new();
        GzDecoder::new(new.as_slice()).read_to_end(&mut read).unwrap();
        assert_eq!(read.len(), plain.len());
        assert_eq!(read.windows(10).filter(|window| window == b"2023-11-14").count(), 2000);
        assert_eq!(package(&new, &TIMES), None);
        assert_eq!(package(b"no gzip", &TIMES), None);
    }
}
