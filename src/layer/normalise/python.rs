//! Python's byte code (PEP 552): a magic number, flags, then for flags of zero the source's time and
//! size. A time that is not the source's makes Python compile the file at each start.

/// Returns the source's time that the file has; `None` for byte code that is checked by hash, and
/// for what is no byte code.
pub(super) fn stamp(content: &[u8]) -> Option<u32> {
    let header = content.get(..16)?;
    // The magic number ends so that a text-mode copy would show.
    if header.get(2..4)? != b"\r\n" || header.get(4..8)? != [0; 4] {
        return None;
    }
    Some(u32::from_le_bytes(header.get(8..12)?.try_into().ok()?))
}

/// Returns a time as the field holds it: its low 32 bits.
pub(super) fn field(seconds: i64) -> u32 {
    let [a, b, c, d, ..] = seconds.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// Returns the file, which has a stamp, with another one.
pub(super) fn restamped(mut content: Vec<u8>, stamp: u32) -> Vec<u8> {
    content[8..12].copy_from_slice(&stamp.to_le_bytes());
    content
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_times_of_sources_are_stamps() {
        let stamped = [0xa7, 0x0d, b'\r', b'\n', 0, 0, 0, 0, 1, 2, 3, 4, 9, 0, 0, 0, 0xe3];
        assert_eq!(stamp(&stamped), Some(0x0403_0201));
        let new = restamped(stamped.to_vec(), 0x0403_0205);
        assert_eq!(new[8..12], [5, 2, 3, 4]);
        assert_eq!((&new[..8], &new[12..]), (&stamped[..8], &stamped[12..]));
        let mut hashed = stamped;
        hashed[4] = 3;
        assert_eq!(stamp(&hashed), None);
        assert_eq!(stamp(b"short"), None);
        assert_eq!(field((1 << 32) + 7), 7);
        assert_eq!(field(-1), u32::MAX);
    }
}
