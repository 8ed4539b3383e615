//! Guesses a cause by the look of a difference: what is left equal when times are covered differs by
//! time, and so on. Works on bytes, so that text inside of a binary counts too.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::bytes::Regex;

use super::cause::{Cause, Found};

/// A pattern that is covered, the cause that it stands for, and the cause in words.
struct Mask {
    cause: Cause,
    text: &'static str,
    pattern: &'static LazyLock<Option<Regex>>,
}

macro_rules! pattern {
    ($name:ident, $text:expr) => {
        static $name: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new($text).ok());
    };
}

// Dates and times of day in the usual spellings, and seconds or fractions of them since 1970 from
// 2015 on.
pattern!(
    TIMES,
    r"(?-u)\b(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*,? )?(?:\d{1,2} (?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]* 20\d\d|(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]* +\d{1,2},? )|\b20\d\d[-/.]?[01]\d[-/.]?[0-3]\d(?:[T _-]?[0-2]\d[:.]?[0-5]\d[:.]?[0-5]\d)?(?:[.,]\d+)?(?:Z| UTC| GMT| ?[+-]\d\d:?\d\d)?|\b[0-2]?\d:[0-5]\d(?::[0-5]\d)?(?:[.,]\d+)?\b(?: 20\d\d)?|\b1[4-9]\d{8}(?:\d{3}|\d{6}|\d{9})?(?:\.\d+)?\b|\b20[1-9]\d\b"
);
// UUIDs, hexadecimal and base64 runs as long as keys and digests are, and names that mktemp, R and
// Python draw.
pattern!(
    RANDOM,
    r"(?-u)\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b|\b[0-9a-fA-F]{16,}\b|[A-Za-z0-9+/_-]{24,}={0,2}|\btmp[._-]?[A-Za-z0-9_]{6,}|\bRtmp[A-Za-z0-9]{6}|\bfile[0-9a-f]{8,}"
);
pattern!(
    PATHS,
    r#"(?-u)(?:/tmp|/var/tmp|/build|/run|/root|/home/[^/\s\x00]+)/[^\s"':;,()<>\x00]*"#
);
pattern!(HOSTS, r"(?-u)@[A-Za-z0-9][A-Za-z0-9.-]*");

static MASKS: [Mask; 4] = [
    Mask { cause: Cause::Time, text: "times in its content", pattern: &TIMES },
    Mask { cause: Cause::BuildPath, text: "folders of the build in its content", pattern: &PATHS },
    Mask { cause: Cause::HostName, text: "names of machines in its content", pattern: &HOSTS },
    Mask { cause: Cause::Random, text: "random values in its content", pattern: &RANDOM },
];

/// Tells what two contents differ by, if covering it makes them equal.
pub(super) fn guess(a: &[u8], b: &[u8]) -> Option<Found> {
    for mask in &MASKS {
        if covered(a, mask) == covered(b, mask) {
            return Some(Found::guess(mask.cause, mask.text));
        }
    }
    if is_reordered(a, b) {
        return Some(Found::guess(Cause::Order, "the same lines in another order"));
    }
    // All at once, and then the order of what is left.
    let all = |bytes: &[u8]| {
        MASKS.iter().fold(bytes.to_vec(), |bytes, mask| covered(&bytes, mask).into_owned())
    };
    let (a, b) = (all(a), all(b));
    if a == b {
        return Some(Found::guess(Cause::Time, "times and random values in its content"));
    }
    is_reordered(&a, &b)
        .then(|| Found::guess(Cause::Order, "the same lines in another order, with other times"))
}

fn covered<'b>(bytes: &'b [u8], mask: &Mask) -> Cow<'b, [u8]> {
    match mask.pattern.as_ref() {
        Some(pattern) => pattern.replace_all(bytes, &b"\0"[..]),
        None => Cow::Borrowed(bytes),
    }
}

/// Tells whether the lines are the same in another order, or the words within one line.
fn is_reordered(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() || a.contains(&0) {
        return false;
    }
    let sorted = |bytes: &'static str, text: &[u8]| -> Vec<Vec<u8>> {
        let mut parts: Vec<Vec<u8>> =
            text.split(|byte| bytes.as_bytes().contains(byte)).map(<[u8]>::to_vec).collect();
        parts.sort_unstable();
        parts
    };
    sorted("\n", a) == sorted("\n", b) || sorted("\n ,;:\t", a) == sorted("\n ,;:\t", b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_told_by_what_covers_it() {
        for (a, b, cause) in [
            (
                "built 2026-11-24 13:58:20 UTC by x",
                "built 2026-11-30 02:33:27 UTC by x",
                Cause::Time,
            ),
            ("Tue, 24 Nov 2026 13:58:20 GMT", "Mon, 30 Nov 2026 02:33:27 GMT", Cause::Time),
            ("Tue Nov 24 13:58:20 2026", "Mon Nov  9 02:33:27 2026", Cause::Time),
            ("{\"at\":1795528800123}", "{\"at\":1795990000000}", Cause::Time),
            ("make[1]: /tmp/tmp.Xy12/a.c:1", "make[1]: /tmp/tmp.Qw34zzz/a.c:1", Cause::BuildPath),
            ("ssh-rsa root@build-x", "ssh-rsa root@other", Cause::HostName),
            (
                "id 2f1c2f6e-9a6f-4a4b-8c7d-0a1b2c3d4e5f",
                "id 5f1c2f6e-9a6f-4a4b-8c7d-0a1b2c3d4e5e",
                Cause::Random,
            ),
            ("b\na\nc\n", "a\nb\nc\n", Cause::Order),
            ("set: x, y, z", "set: z, x, y", Cause::Order),
        ] {
            assert_eq!(
                guess(a.as_bytes(), b.as_bytes()).map(|found| found.cause),
                Some(cause),
                "{a}"
            );
        }
        assert_eq!(guess(b"version 1", b"version 2"), None);
        assert_eq!(guess(b"a\nb\n", b"a\nc\n"), None);
    }
}
