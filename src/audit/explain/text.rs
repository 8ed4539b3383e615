//! Texts, line by line.

use similar::TextDiff;

use super::super::mask;
use super::super::report::Explanation;
use super::Explained;

/// The largest text that is compared line by line, and the most lines.
const LIMIT: usize = 512 << 10;
const MOST_LINES: usize = 20_000;

/// The most bytes of a diff that are kept.
const DIFF_LIMIT: usize = 64 << 10;

/// Explains two texts.
pub(super) fn explain(a: &[u8], b: &[u8]) -> Explained {
    let (old, new) = (String::from_utf8_lossy(a), String::from_utf8_lossy(b));
    let found = mask::guess(a, b);
    let lines = |text: &str| text.lines().count();
    if a.len().max(b.len()) > LIMIT || lines(&old).max(lines(&new)) > MOST_LINES {
        let summary = format!("texts of {} and {} lines", lines(&old), lines(&new));
        let explanation = Explanation { kind: "text", summary, ..Explanation::default() };
        return Explained { explanation, found };
    }
    let diff = TextDiff::from_lines(old.as_ref(), new.as_ref());
    let (mut removed, mut added) = (0, 0);
    for change in diff.iter_all_changes() {
        match change.tag() {
            similar::ChangeTag::Delete => removed += 1,
            similar::ChangeTag::Insert => added += 1,
            similar::ChangeTag::Equal => {}
        }
    }
    let mut shown = diff.unified_diff().context_radius(2).header("a", "b").to_string();
    if shown.len() > DIFF_LIMIT {
        let mut end = DIFF_LIMIT;
        while !shown.is_char_boundary(end) {
            end -= 1;
        }
        shown.truncate(end);
        shown.push_str("\n… the rest is left out\n");
    }
    let summary = format!("{removed} lines removed, {added} added");
    let explanation = Explanation { kind: "text", summary, diff: Some(shown), parts: Vec::new() };
    Explained { explanation, found }
}
