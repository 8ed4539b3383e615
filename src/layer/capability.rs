//! File capabilities as a layer holds them: the v2 form of `security.capability`, which names no
//! user. A user namespace writes v3, which names the namespace's root.

/// The length of the v2 form.
pub(super) const LENGTH: usize = 20;

/// Turns any form of the attribute into v2; `None` when it is no capability at all.
pub(super) fn as_v2(raw: &[u8]) -> Option<[u8; LENGTH]> {
    let magic = u32::from_le_bytes(raw.get(..4)?.try_into().ok()?);
    let mut v2 = [0; LENGTH];
    match (magic >> 24, raw.len()) {
        // v1 has the lower 32 bits of each set.
        (1, 12) => v2[4..12].copy_from_slice(&raw[4..12]),
        (2, 20) | (3, 24) => v2[4..20].copy_from_slice(&raw[4..20]),
        _ => return None,
    }
    let effective = magic & 1;
    v2[..4].copy_from_slice(&(0x0200_0000 | effective).to_le_bytes());
    Some(v2)
}

/// Returns the hexadecimal digits of a capability.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a String cannot fail.
        write!(text, "{byte:02x}").ok();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespaced_capability_loses_its_root_and_nothing_else() {
        let mut v3 = vec![1, 0, 0, 3, 0, 4, 0, 0, 10, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0];
        let v2 = [&[1, 0, 0, 2], &v3[4..]].concat();
        v3.extend_from_slice(&100_000_u32.to_le_bytes());
        assert_eq!(as_v2(&v3).unwrap().as_slice(), v2);
        assert_eq!(as_v2(&v2).unwrap().as_slice(), v2);
        assert_eq!(as_v2(&v2[..19]), None);
        assert_eq!(as_v2(b""), None);
    }
}
