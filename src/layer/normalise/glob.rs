//! Globs over paths of a tree: `*` within a name, `**/` at the head any number of folders, `/**` at
//! the end all that is below, `**` everything.

/// Tells whether a path below the root matches.
pub(super) fn matches(glob: &str, path: &[u8]) -> bool {
    if glob == "**" {
        return true;
    }
    match glob.strip_prefix("**/") {
        Some(rest) => {
            matches(rest, path)
                || path
                    .iter()
                    .enumerate()
                    .any(|(position, byte)| *byte == b'/' && matches(rest, &path[position + 1..]))
        }
        None => in_order(glob.as_bytes(), path),
    }
}

fn in_order(glob: &[u8], path: &[u8]) -> bool {
    match glob.split_first() {
        None => path.is_empty(),
        Some((b'*', [b'*'])) => !path.is_empty(),
        Some((b'*', rest)) => {
            let name = path.iter().position(|byte| *byte == b'/').unwrap_or(path.len());
            (0..=name).any(|taken| in_order(rest, &path[taken..]))
        }
        Some((byte, rest)) => path.first() == Some(byte) && in_order(rest, &path[1..]),
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn stars_stay_within_a_name() {
        for (glob, path, expected) in [
            ("etc/ssh/ssh_host_*_key", "etc/ssh/ssh_host_rsa_key", true),
            ("etc/ssh/ssh_host_*_key", "etc/ssh/ssh_host_rsa_key.pub", false),
            ("var/log/apt/*", "var/log/apt/a/b", false),
            ("**/.wget-hsts", ".wget-hsts", true),
            ("**/.wget-hsts", "root/.wget-hsts", true),
            ("**/.wget-hsts", "root/x.wget-hsts", false),
            ("**/extensions/*/package.json", "opt/share/extensions/a.b-1/package.json", true),
            ("**/Meta/package.rds", "usr/lib/R/site-library/x/Meta/package.rds", true),
            ("**/.cache/pip/**", "home/me/.cache/pip/http/a/b", true),
            ("**/.cache/pip/**", "home/me/.cache/pip", false),
            ("**/.cache/pip/**", "home/me/.cache/pipx/a", false),
            ("**", "anything/at/all", true),
        ] {
            assert_eq!(matches(glob, path.as_bytes()), expected, "{glob} {path}");
        }
    }
}
