//! The small values that people write: modes, durations, users, names and paths.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

/// A user or a group, by number or by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Principal {
    /// The number itself.
    Id(u32),
    /// A name that the tree's own `/etc/passwd` or `/etc/group` gives a number; never `root`, which is 0.
    Name(String),
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Principal::Id(id) => write!(f, "{id}"),
            Principal::Name(name) => f.write_str(name),
        }
    }
}

/// Whom a step runs as or a file belongs to, as `root`, `1000`, `1000:100` or `jovyan:users`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct User {
    /// The user.
    pub user: Principal,
    /// The group; the user's own in the tree's `/etc/passwd` where it is not said.
    pub group: Option<Principal>,
}

impl User {
    /// Returns the user that is 0, with the group 0.
    pub fn root() -> User {
        User { user: Principal::Id(0), group: Some(Principal::Id(0)) }
    }

    /// Reads one; the error says what is wrong.
    pub fn parse(text: &str) -> Result<User, String> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        let principal = |part: &str| {
            principal(part).ok_or_else(|| {
                format!("`{text}` is no user such as `root`, `1000`, `1000:100` or `jovyan:users`")
            })
        };
        // Root is 0 in every tree, also in one without `/etc/passwd`, and has one spelling in keys.
        let user = principal(user)?;
        let group = group.map(principal).transpose()?;
        let group = if user == Principal::Id(0) { group.or(Some(Principal::Id(0))) } else { group };
        Ok(User { user, group })
    }
}

fn principal(text: &str) -> Option<Principal> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        // The last number stands for "none" in chown and setuid.
        return text.parse().ok().filter(|id| *id != u32::MAX).map(Principal::Id);
    }
    let good = text.len() <= 32
        && text.bytes().enumerate().all(|(position, byte)| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => true,
            b'0'..=b'9' | b'-' | b'.' => position > 0,
            _ => false,
        });
    match text {
        "root" => Some(Principal::Id(0)),
        _ => good.then(|| Principal::Name(text.to_owned())),
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.group {
            Some(group) => write!(f, "{}:{group}", self.user),
            None => write!(f, "{}", self.user),
        }
    }
}

impl Serialize for User {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Reads a file's mode, three or four octal digits.
pub fn mode(text: &str) -> Result<u32, String> {
    let octal = text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    match u32::from_str_radix(text, 8) {
        Ok(mode) if octal && (3..=4).contains(&text.len()) => Ok(mode),
        _ => Err(format!("`{text}` is no mode such as `0644` or `4755`, octal")),
    }
}

/// Reads a length of time, as `90s`, `30m` or `1h30m`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let refuse = || format!("`{text}` is no length of time such as `90s`, `30m` or `1h30m`");
    let mut seconds: u64 = 0;
    let mut number: Option<u64> = None;
    let mut last = u64::MAX;
    for byte in text.bytes() {
        match byte {
            b'0'..=b'9' => {
                let digit = u64::from(byte - b'0');
                number = number.unwrap_or(0).checked_mul(10).and_then(|n| n.checked_add(digit));
                number.ok_or_else(refuse)?;
            }
            b'd' | b'h' | b'm' | b's' => {
                let unit = match byte {
                    b'd' => 86_400,
                    b'h' => 3600,
                    b'm' => 60,
                    _ => 1,
                };
                // Larger units first, each once.
                if unit >= last {
                    return Err(refuse());
                }
                last = unit;
                let part = number.take().ok_or_else(refuse)?.checked_mul(unit);
                seconds = part.and_then(|part| seconds.checked_add(part)).ok_or_else(refuse)?;
            }
            _ => return Err(refuse()),
        }
    }
    if number.is_some() || seconds == 0 {
        return Err(refuse());
    }
    Ok(Duration::from_secs(seconds))
}

/// Tells whether a text can name a recipe, an argument or a definition: small letters, digits,
/// `-`, and inside also `.` and `_`.
pub fn simple_name(text: &str) -> bool {
    let edge =
        |byte: Option<u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = text.as_bytes();
    edge(bytes.first().copied())
        && edge(bytes.last().copied())
        && bytes.iter().all(|b| {
            b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.')
        })
        && bytes.len() <= 128
}

/// Checks a path in the image.
pub fn absolute_path(text: &str) -> Result<(), String> {
    if !text.starts_with('/') {
        return Err(format!("`{text}` is no absolute path"));
    }
    match text.split('/').find(|part| matches!(*part, "." | "..")) {
        Some(part) => Err(format!("`{text}` has a `{part}` in it; write the path straight")),
        None if text.contains('\0') => Err("a path has no zero byte".to_owned()),
        None => Ok(()),
    }
}

/// Checks a path inside a recipe's folder and returns it without a `./` ahead or a `/` behind.
pub fn inner_path(text: &str) -> Result<String, String> {
    let trimmed = text.strip_prefix("./").unwrap_or(text);
    let trimmed = trimmed.strip_suffix('/').unwrap_or(trimmed);
    if trimmed == "." {
        return Ok(String::new());
    }
    let good = trimmed.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if good && !trimmed.contains('\0') {
        Ok(trimmed.to_owned())
    } else {
        Err(format!("`{text}` is no path inside the recipe's folder"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, seconds) in [("90s", 90), ("30m", 1800), ("1h30m", 5400), ("2d", 172_800)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for bad in ["", "30", "m", "0s", "30 m", "5m1h", "1m1m", "99999999999999999999s", "-1s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn users() {
        for good in ["1000", "1000:100", "jovyan:users", "_apt", "0:0"] {
            assert_eq!(User::parse(good).map(|user| user.to_string()), Ok(good.to_owned()));
        }
        for root in ["root", "0", "root:root", "0:root"] {
            assert_eq!(User::parse(root), Ok(User::root()));
        }
        for bad in ["", ":", "a b", "1000:", "4294967295", "-x", "a:b:c", "99999999999"] {
            assert!(User::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn modes_and_paths() {
        assert_eq!(mode("0644"), Ok(0o644));
        assert_eq!(mode("4755"), Ok(0o4755));
        for bad in ["", "64", "0o644", "0888", "+644", "00644", "u+x"] {
            assert!(mode(bad).is_err(), "{bad}");
        }
        assert!(absolute_path("/usr/lib/").is_ok());
        for bad in ["usr", "/usr/../etc", "/./x"] {
            assert!(absolute_path(bad).is_err(), "{bad}");
        }
        assert_eq!(inner_path("./conf/"), Ok("conf".to_owned()));
        assert_eq!(inner_path("."), Ok(String::new()));
        for bad in ["/etc/passwd", "../x", "a/../../b", "", "a//b"] {
            assert!(inner_path(bad).is_err(), "{bad}");
        }
        assert!(simple_name("opt-share") && simple_name("r4.5"));
        for bad in ["", "-r", "R", "a/b", "a b", ".x", "é"] {
            assert!(!simple_name(bad), "{bad}");
        }
    }
}
