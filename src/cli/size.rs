//! Sizes as people write them.

/// Reads `14G`, `500M` or a count of bytes; units are powers of 1000, with `i` of 1024.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1_000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "t" | "tb" => 1_000_000_000_000,
        "ki" | "kib" => 1 << 10,
        "mi" | "mib" => 1 << 20,
        "gi" | "gib" => 1 << 30,
        "ti" | "tib" => 1 << 40,
        other => return Err(format!("`{other}` is no unit; use K, M, G, T or Ki, Mi, Gi, Ti")),
    };
    let count: u64 =
        digits.parse().map_err(|_| "give a whole number and a unit, as 14G".to_owned())?;
    count.checked_mul(unit).ok_or_else(|| "that is more than 64 bits hold".to_owned())
}

#[cfg(test)]
mod tests {
    #[test]
    fn sizes_with_units() {
        assert_eq!(super::parse("14G"), Ok(14_000_000_000));
        assert_eq!(super::parse("2Ki"), Ok(2048));
        assert_eq!(super::parse("7"), Ok(7));
        assert!(super::parse("G").is_err());
        assert!(super::parse("1X").is_err());
        assert!(super::parse("99999999T").is_err());
    }
}
