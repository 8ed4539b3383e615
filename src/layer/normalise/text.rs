//! Texts that tools write in random order or with the time of the run.

use jiff::Timestamp;

use super::Times;

/// Sorts the keys within each section, as far as that changes no meaning: a section with a key that
/// stands twice, or with a comment, is left.
pub(super) fn gitconfig(content: &[u8], _: &Times) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(content).ok()?;
    if !text.ends_with('\n') || text.contains('\r') {
        return None;
    }
    let mut sections: Vec<Vec<&str>> = vec![Vec::new()];
    for line in text.lines() {
        if line.starts_with('[') {
            sections.push(Vec::new());
        }
        sections.last_mut()?.push(line);
    }
    let mut new = String::new();
    for section in &mut sections {
        if let [head, keys @ ..] = section.as_mut_slice() {
            let name = |line: &&str| line.split('=').next().unwrap_or("").trim().to_owned();
            let mut names: Vec<String> = keys.iter().map(name).collect();
            names.sort();
            names.dedup();
            let plain = keys.iter().all(|line| line.contains('=') && !line.ends_with('\\'));
            if head.starts_with('[') && plain && names.len() == keys.len() {
                keys.sort_by_key(name);
            }
        }
        for line in section {
            new.push_str(line);
            new.push('\n');
        }
    }
    Some(new.into_bytes())
}

/// Dates the heads of conda's revisions, `==> 2026-11-24 14:00:00 <==`.
pub(super) fn conda_history(content: &[u8], times: &Times) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(content).ok()?;
    let date =
        Timestamp::from_second(times.source_date).ok()?.strftime("%Y-%m-%d %H:%M:%S").to_string();
    let mut new = String::new();
    for line in text.split_inclusive('\n') {
        let stamp = line.trim_end().strip_prefix("==> ").and_then(|rest| rest.strip_suffix(" <=="));
        match stamp.filter(|stamp| stamp.len() == date.len() && *stamp > date.as_str()) {
            // A revision of a base is older than its date, and stays.
            Some(_) => {
                new.push_str("==> ");
                new.push_str(&date);
                new.push_str(" <==\n");
            }
            None => new.push_str(line),
        }
    }
    Some(new.into_bytes())
}

/// Dates `"installedTimestamp": 1795530193123`, in milliseconds, where it is later than the source
/// date.
pub(super) fn installed_timestamps(content: &[u8], times: &Times) -> Option<Vec<u8>> {
    const KEY: &str = "\"installedTimestamp\":";
    let text = std::str::from_utf8(content).ok()?;
    let limit = times.source_date.checked_mul(1000)?;
    let mut new = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(KEY) {
        let (before, after) = rest.split_at(at + KEY.len());
        new.push_str(before);
        let blank = after.len() - after.trim_start().len();
        let digits = after[blank..].bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = after.split_at(blank + digits);
        match number.trim_start().parse::<i64>() {
            Ok(time) if time > limit => {
                new.push_str(&number[..blank]);
                new.push_str(&limit.to_string());
            }
            _ => new.push_str(number),
        }
        rest = tail;
    }
    new.push_str(rest);
    Some(new.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: Times =
        Times { start: 1_795_528_700, end: 1_795_528_900, source_date: 1_700_000_000 };

    #[test]
    fn keys_are_sorted_and_sections_stay() {
        let text = "[filter \"lfs\"]\n\tsmudge = git-lfs smudge -- %f\n\tprocess = git-lfs filter-process\n\trequired = true\n[a]\n\tz = 1\n\tz = 0\n";
        let new = String::from_utf8(gitconfig(text.as_bytes(), &TIMES).unwrap()).unwrap();
        assert_eq!(
            new,
            "[filter \"lfs\"]\n\tprocess = git-lfs filter-process\n\trequired = true\n\tsmudge = git-lfs smudge -- %f\n[a]\n\tz = 1\n\tz = 0\n"
        );
        assert_eq!(gitconfig(b"[a]\r\n\tz = 1\r\n", &TIMES), None);
    }

    #[test]
    fn revisions_of_the_run_are_dated() {
        let text = "==> 2023-01-01 00:00:00 <==\n# cmd: x\n==> 2026-11-24 13:58:20 <==\n+a-1\n";
        let new = String::from_utf8(conda_history(text.as_bytes(), &TIMES).unwrap()).unwrap();
        assert_eq!(
            new,
            "==> 2023-01-01 00:00:00 <==\n# cmd: x\n==> 2023-11-14 22:13:20 <==\n+a-1\n"
        );
    }

    #[test]
    fn installations_are_dated() {
        let text =
            r#"[{"a":{"installedTimestamp":1795528800123,"x":1}},{"installedTimestamp": 5}]"#;
        let new =
            String::from_utf8(installed_timestamps(text.as_bytes(), &TIMES).unwrap()).unwrap();
        assert_eq!(
            new,
            r#"[{"a":{"installedTimestamp":1700000000000,"x":1}},{"installedTimestamp": 5}]"#
        );
    }
}
