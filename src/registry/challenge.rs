//! `WWW-Authenticate` (RFC 9110, 11.6.1): several challenges, in one header or in many, with quoted
//! strings that hold commas.

use std::collections::BTreeMap;

/// One challenge: a scheme in lower case and its parameters, their names in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Challenge {
    pub(super) scheme: String,
    pub(super) parameters: BTreeMap<String, String>,
}

impl Challenge {
    /// Returns a parameter that is there and says something.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

/// Reads the challenges of all headers, in their order. What makes no sense is passed over: a
/// registry that sends garbage beside a good challenge still has a good challenge.
pub(super) fn parse<'a>(headers: impl Iterator<Item = &'a str>) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    for header in headers {
        let mut rest = header;
        loop {
            rest = rest.trim_start_matches([',', ' ', '\t']);
            let (word, after) = token(rest);
            if word.is_empty() {
                // Not a token where one has to be: look behind the next comma.
                match rest.split_once(',') {
                    Some((_, after)) => rest = after,
                    None => break,
                }
                continue;
            }
            let value =
                after.trim_start().strip_prefix('=').filter(|after| !after.starts_with('='));
            if let Some(value) = value {
                let (value, after) = value_of(value.trim_start());
                if let Some(challenge) = challenges.last_mut() {
                    challenge.parameters.insert(word.to_ascii_lowercase(), value);
                }
                rest = after;
            } else {
                let scheme = word.to_ascii_lowercase();
                challenges.push(Challenge { scheme, parameters: BTreeMap::new() });
                rest = after;
            }
        }
    }
    challenges
}

/// Splits a token (RFC 9110, 5.6.2) off.
fn token(text: &str) -> (&str, &str) {
    let end = text
        .bytes()
        .position(|c| !(c.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~/".contains(&c)))
        .unwrap_or(text.len());
    text.split_at(end)
}

/// Splits a token or a quoted string off and returns what it says. A quote that does not end ends
/// with the header.
fn value_of(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_registries_send() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/ubuntu:pull,push repository:a/b:pull""#;
        let [challenge] = &parse([hub].into_iter())[..] else { panic!() };
        assert_eq!(challenge.scheme, "bearer");
        assert_eq!(challenge.get("realm"), Some("https://auth.docker.io/token"));
        assert_eq!(
            challenge.get("scope"),
            Some("repository:library/ubuntu:pull,push repository:a/b:pull")
        );
        for (header, schemes) in [
            (r#"Basic realm="x, y", Bearer realm=z"#, vec!["basic", "bearer"]),
            (r#"BASIC Realm = "a\"b""#, vec!["basic"]),
            (r#"Negotiate, Basic realm="x""#, vec!["negotiate", "basic"]),
            (r#"Bearer realm="never ends, Basic"#, vec!["bearer"]),
            ("\u{1f980}, Basic", vec!["basic"]),
            ("", vec![]),
            ("=,=", vec![]),
        ] {
            let found: Vec<String> =
                parse([header].into_iter()).into_iter().map(|one| one.scheme).collect();
            assert_eq!(found, schemes, "{header}");
        }
        let escaped = parse([r#"Basic realm="a\"b""#].into_iter());
        assert_eq!(escaped[0].get("realm"), Some("a\"b"));
        assert_eq!(parse(["Basic", "Bearer realm=r"].into_iter()).len(), 2);
    }
}
