//! Passwords' last change (shadow(5)), which is the day of the run for an account made in it.

use super::Times;

const DAY: i64 = 86_400;

/// Dates the third field of lines that were changed in the run, or later than the source date.
pub(super) fn shadow(content: &[u8], times: &Times) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(content).ok()?;
    let days = |seconds: i64| seconds.div_euclid(DAY);
    let mut lines = Vec::new();
    for line in text.split('\n') {
        let mut fields: Vec<String> = line.split(':').map(str::to_owned).collect();
        if let Some(field) = fields.get_mut(2)
            && let Ok(day) = field.parse::<i64>()
        {
            let of_the_run = (days(times.start)..=days(times.end)).contains(&day);
            if of_the_run || day > days(times.source_date) {
                *field = days(times.source_date).to_string();
            }
        }
        lines.push(fields.join(":"));
    }
    Some(lines.join("\n").into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_of_the_run_become_the_source_dates() {
        let times =
            Times { start: 20_000 * DAY + 5, end: 20_001 * DAY, source_date: 19_000 * DAY + 7 };
        let text = "root:*:18000:0:99999:7:::\njovyan:!:20000:0:99999:7:::\nnew:!:20001::::::\nlate:!:30000:\nodd\n";
        let expected = "root:*:18000:0:99999:7:::\njovyan:!:19000:0:99999:7:::\nnew:!:19000::::::\nlate:!:19000:\nodd\n";
        assert_eq!(shadow(text.as_bytes(), &times).unwrap(), expected.as_bytes());
        assert_eq!(shadow(expected.as_bytes(), &times).unwrap(), expected.as_bytes());
        assert_eq!(shadow(b"\xff", &times), None);
    }
}
