//! What of a URL may be written down. Secrets become `REDACTED`, and so does what a server makes up
//! for one request (a signed link's date and signature), since it would be another in each record.
//!
//! A URL is always compared in this form, so that a replayed redirect, whose target holds no
//! signature any more, leads to what was recorded. Two URLs that differ in a secret alone are one
//! here: their answers are told apart by turn.

use crate::http::Url;

/// Stands for what is not written down.
pub(super) const REDACTED: &str = "REDACTED";

/// Names of parameters that are secrets as they are.
const SECRETS: [&str; 27] = [
    "access_key",
    "accesskey",
    "access_token",
    "api-key",
    "api_key",
    "apikey",
    "auth",
    "auth_token",
    "authorization",
    "authtoken",
    "client_secret",
    "credential",
    "credentials",
    "jwt",
    "key",
    "pass",
    "passwd",
    "password",
    "private_token",
    "pwd",
    "secret",
    "session",
    "session_id",
    "sessionid",
    "sig",
    "signature",
    "token",
];

/// Ends of names that are secrets too.
const SECRET_ENDS: [&str; 6] = ["-token", "_token", "_secret", "-secret", "_password", "api-key"];

/// Names that are made up for one request where a link is signed.
const SIGNED: [&str; 22] = [
    "awsaccesskeyid",
    "exp",
    "expires",
    "expires_at",
    "expiry",
    "googleaccessid",
    "hmac",
    "key-pair-id",
    "nonce",
    "policy",
    "se",
    "skoid",
    "sktid",
    "skt",
    "ske",
    "sks",
    "skv",
    "sp",
    "st",
    "timestamp",
    "ts",
    "verify",
];

/// Beginnings of names that whole families of signed links use.
const FAMILIES: [&str; 3] = ["x-amz-", "x-goog-", "x-oss-"];

/// A URL as it may be written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) text: String,
    /// Whether the caller proved with it who it is, as opposed to a server's having signed it.
    pub(super) credentials: bool,
}

/// Writes a URL down.
pub(super) fn shown(url: &Url) -> Shown {
    let mut plain = url.clone();
    let mut credentials = !plain.username().is_empty() || plain.password().is_some();
    // These fail only for URLs without a host, which no request has.
    plain.set_username("").ok();
    plain.set_password(None).ok();
    plain.set_fragment(None);
    plain.set_query(None);
    let mut text = plain.to_string();
    if let Some(path) = without_token(plain.path()) {
        credentials = true;
        plain.set_path(&path);
        text = plain.to_string();
    }
    let Some(query) = url.query() else { return Shown { text, credentials } };
    let pairs: Vec<&str> = query.split('&').collect();
    let is_signed = pairs.iter().any(|pair| is_signature(&name_of(pair)));
    let mut separator = '?';
    for pair in pairs {
        let name = name_of(pair);
        text.push(separator);
        separator = '&';
        let hidden = pair.contains('=')
            && (is_secret(&name) || is_signed && (SIGNED.contains(&&*name) || is_family(&name)));
        if !hidden {
            text.push_str(pair);
            continue;
        }
        text.push_str(pair.split('=').next().unwrap_or_default());
        text.push('=');
        text.push_str(REDACTED);
        credentials |= !is_signed;
    }
    Shown { text, credentials }
}

fn name_of(pair: &str) -> String {
    let name = pair.split('=').next().unwrap_or_default();
    name.replace("%2D", "-").replace("%2d", "-").replace("%5F", "_").to_ascii_lowercase()
}

fn is_secret(name: &str) -> bool {
    SECRETS.contains(&name) || SECRET_ENDS.iter().any(|end| name.ends_with(end))
}

fn is_family(name: &str) -> bool {
    FAMILIES.iter().any(|start| name.starts_with(start))
}

fn is_signature(name: &str) -> bool {
    matches!(name, "sig" | "signature" | "hmac" | "jwt" | "policy") || name.ends_with("-signature")
}

/// Hides the token in a path as channels of conda packages have it: `/t/TOKEN/channel`. Archives of
/// Debian and `PyPI` file what begins with that letter the same way, below `pool` and `source`.
fn without_token(path: &str) -> Option<String> {
    let (before, rest) = path.split_once("/t/")?;
    let (token, after) = rest.split_once('/')?;
    let is_filed = token.starts_with('t')
        && before.split('/').any(|folder| matches!(folder, "pool" | "source"));
    let looks_secret = !is_filed
        && token.len() >= 12
        && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        && token.bytes().any(|byte| byte.is_ascii_digit());
    looks_secret.then(|| format!("{before}/t/{REDACTED}/{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> (String, bool) {
        let shown = shown(&Url::parse(text).unwrap());
        (shown.text, shown.credentials)
    }

    #[test]
    fn secrets_are_hidden_and_the_rest_stays() {
        assert_eq!(of("https://a/x?b=1&c=%20#d"), ("https://a/x?b=1&c=%20".to_owned(), false));
        assert_eq!(of("https://me:pw@a/x"), ("https://a/x".to_owned(), true));
        assert_eq!(
            of("https://a/x?v=1&access_token=abc&n"),
            ("https://a/x?v=1&access_token=REDACTED&n".to_owned(), true)
        );
        assert_eq!(
            of("https://conda.a/t/xy-0123456789ab/main/noarch/repodata.json"),
            ("https://conda.a/t/REDACTED/main/noarch/repodata.json".to_owned(), true)
        );
        for open in [
            "https://a/t/tables/x",
            "http://a/debian/pool/main/t/twitter-bootstrap3/libjs-bootstrap_3.4.1_all.deb",
            "https://a/packages/source/t/typing-extensions4/x.tar.gz",
        ] {
            assert_eq!(of(open), (open.to_owned(), false));
        }
        assert!(of("https://a/pool/t/xy-0123456789ab/main").1);
        assert_eq!(of("https://a/x?X-Api-Key=1").0, "https://a/x?X-Api-Key=REDACTED");
    }

    #[test]
    fn a_signed_link_is_the_same_each_time_and_no_credential() {
        let one = of("https://s/o?X-Amz-Date=20261130T000000Z&X-Amz-Signature=ab&response=x");
        let two = of("https://s/o?X-Amz-Date=20261201T000000Z&X-Amz-Signature=cd&response=x");
        assert_eq!(one, two);
        assert_eq!(one.0, "https://s/o?X-Amz-Date=REDACTED&X-Amz-Signature=REDACTED&response=x");
        assert!(!one.1);
        let blob = of("https://s/o?sp=r&sv=2018&se=2026-11-30T00%3A00Z&sig=a%2Fb%3D&rscd=file.deb");
        assert_eq!(
            blob.0,
            "https://s/o?sp=REDACTED&sv=2018&se=REDACTED&sig=REDACTED&rscd=file.deb"
        );
        // What was written down reads as itself.
        assert_eq!(of(&blob.0).0, blob.0);
        // Without a signature a date is a date.
        assert_eq!(of("https://s/o?expires=1").0, "https://s/o?expires=1");
    }
}
