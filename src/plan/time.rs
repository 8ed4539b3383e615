//! The date of a layer, and its spelling.

use jiff::Timestamp;
use jiff::fmt::rfc2822;

use crate::oci::ConfigDocument;

/// 1980-01-01, the earliest date that a zip can hold, and so a wheel or a jar made by a step.
const EARLIEST: i64 = 315_532_800;

/// Spells seconds since 1970 as RFC 3339 in UTC; what no calendar holds becomes its bound.
pub fn rfc3339(seconds: i64) -> String {
    let bound = if seconds < 0 { Timestamp::MIN } else { Timestamp::MAX };
    Timestamp::from_second(seconds).unwrap_or(bound).to_string()
}

/// Reads a date as HTTP writes it, in seconds since 1970; `None` for anything else.
pub fn http_date(text: &str) -> Option<i64> {
    rfc2822::DateTimeParser::new().parse_timestamp(text.trim()).ok().map(Timestamp::as_second)
}

/// Returns the base's date in seconds since 1970, and a warning when it had to be made up.
pub(super) fn of_base(config: &ConfigDocument) -> (i64, Option<String>) {
    let made_up = |reason: &str| {
        let warning = format!(
            "the base {reason}: files of new layers are dated 1980-01-01 (SOURCE_DATE_EPOCH sets \
             another date)"
        );
        (EARLIEST, Some(warning))
    };
    let Some(created) = config.created() else {
        return made_up("does not say when it was made");
    };
    match created.parse::<Timestamp>() {
        Ok(timestamp) if timestamp.as_second() >= EARLIEST => (timestamp.as_second(), None),
        Ok(_) => made_up("says that it was made before 1980"),
        Err(_) => made_up(&format!("says `{}` for its date", created.escape_debug())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Platform;

    #[test]
    fn dates_of_bases() {
        let mut config = ConfigDocument::empty(&Platform::linux("amd64"));
        assert_eq!(of_base(&config).0, EARLIEST);
        for (created, seconds) in [
            ("2025-02-10T12:00:00.123456789Z", 1_739_188_800),
            ("2025-02-10T14:00:00+02:00", 1_739_188_800),
            ("0001-01-01T00:00:00Z", EARLIEST),
            ("1970-01-01T00:00:00Z", EARLIEST),
            ("yesterday", EARLIEST),
        ] {
            config.set_created(created);
            assert_eq!(of_base(&config).0, seconds, "{created}");
            assert_eq!(of_base(&config).1.is_some(), seconds == EARLIEST, "{created}");
        }
        assert_eq!(http_date("Mon, 10 Feb 2025 12:00:00 GMT"), Some(1_739_188_800));
        assert_eq!(http_date("yesterday"), None);
        assert_eq!(rfc3339(1_739_188_800), "2025-02-10T12:00:00Z");
        assert_eq!(rfc3339(i64::MAX), Timestamp::MAX.to_string());
    }
}
