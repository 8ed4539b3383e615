//! Python's byte code (PEP 552): a magic number, flags, then for flags of zero the source's time and
//! size. A time that no longer is the source's makes Python compile the file at each start.

/// Returns the file with its source's time, or `None` when there is nothing to change: byte code
/// that is checked by hash, or that has the time already.
pub(super) fn retime(content: &[u8], mtime: i64) -> Option<Vec<u8>> {
    let header = content.get(..16)?;
    // The magic number ends so that a text-mode copy would show.
    if header.get(2..4)? != b"\r\n" || header.get(4..8)? != [0; 4] {
        return None;
    }
    // The field holds the low 32 bits.
    let time = u32::try_from(mtime.rem_euclid(1 << 32)).ok()?.to_le_bytes();
    if header.get(8..12)? == time {
        return None;
    }
    let mut new = content.to_vec();
    new[8..12].copy_from_slice(&time);
    Some(new)
}

#[cfg(test)]
mod tests {
    use super::retime;

    #[test]
    fn only_times_of_sources_are_changed() {
        let stamped = [0xa7, 0x0d, b'\r', b'\n', 0, 0, 0, 0, 1, 2, 3, 4, 9, 0, 0, 0, 0xe3];
        let new = retime(&stamped, 0x0403_0205).unwrap();
        assert_eq!(
            (&new[..8], &new[8..12], &new[12..]),
            (&stamped[..8], &[5, 2, 3, 4][..], &stamped[12..])
        );
        assert_eq!(retime(&new, 0x0403_0205), None);
        let mut hashed = stamped;
        hashed[4] = 3;
        assert_eq!(retime(&hashed, 7), None);
        assert_eq!(retime(b"short", 7), None);
    }
}
