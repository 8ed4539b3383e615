//! What registries refuse, in their own words, and what it means.

use serde::Deserialize;

use crate::http::{Response, StatusCode, header};

use super::Error;

/// No error's explanation is larger.
const LIMIT: u64 = 64 << 10;

/// An answer that says no.
#[derive(Debug)]
#[must_use]
pub struct Refusal {
    /// The registry, or the token server.
    pub registry: String,
    /// What it was to do.
    pub doing: String,
    /// The status of its answer.
    pub status: StatusCode,
    /// Its code, as `MANIFEST_UNKNOWN`; empty when it gave none.
    pub code: String,
    /// Its explanation; empty when it gave none.
    pub message: String,
    /// How long it asks us to wait, as it wrote it.
    pub retry_after: Option<String>,
    /// Who asked, and for what.
    pub asking: Asking,
}

/// Who asks a registry, and what it was asked to allow.
#[derive(Clone, Debug, Default)]
pub struct Asking {
    /// The account and where it was found, if it is anyone in particular.
    pub account: Option<String>,
    /// The scopes of the last token that was asked for, where the registry wants tokens.
    pub scopes: Option<String>,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} does not {}: {}", self.registry, self.doing, self.status)?;
        if !self.code.is_empty() {
            write!(f, ", {}", self.code)?;
        }
        if !self.message.is_empty() {
            write!(f, ", {}", self.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for Refusal {}

#[derive(Deserialize)]
struct Answer {
    errors: Vec<Item>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Item {
    code: String,
    message: String,
    detail: serde_json::Value,
}

/// Makes an error of an answer: with the registry's own words if it has any (distribution-spec,
/// "Error Codes").
pub(super) fn refusal(registry: &str, doing: &str, asking: Asking, answer: &mut Response) -> Error {
    let retry_after = answer.header(header::RETRY_AFTER).map(str::to_owned);
    let (code, message) = words(&answer.bytes(LIMIT).unwrap_or_default());
    Error::Refused(Box::new(Refusal {
        registry: registry.to_owned(),
        doing: doing.to_owned(),
        status: answer.status(),
        code,
        message,
        retry_after,
        asking,
    }))
}

fn words(body: &[u8]) -> (String, String) {
    let clean = |text: &str| -> String {
        text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(300).collect()
    };
    if let Ok(Answer { errors }) = serde_json::from_slice(body)
        && let Some(first) = errors.into_iter().next()
    {
        let detail = match &first.detail {
            serde_json::Value::String(text) if !text.is_empty() => format!(" ({})", clean(text)),
            _ => String::new(),
        };
        return (clean(&first.code), clean(&first.message) + &detail);
    }
    let text = String::from_utf8_lossy(body);
    // Token servers and proxies: JSON of another form, plain words, or a page that helps nobody.
    if let Ok(value) = serde_json::from_slice::<serde_json::Value>(body) {
        let of = |key: &str| value.get(key).and_then(serde_json::Value::as_str).map(clean);
        let message = of("details").or(of("error_description")).or(of("message")).or(of("error"));
        return (String::new(), message.unwrap_or_default());
    }
    if text.trim_start().starts_with('<') {
        // Of a page the title says it all.
        let title = text.split_once("<title>").and_then(|(_, rest)| rest.split_once("</title>"));
        (String::new(), title.map(|(title, _)| clean(title)).unwrap_or_default())
    } else {
        (String::new(), clean(&text))
    }
}

/// Tells who asked, for what, and how to be somebody else.
pub(super) fn log_in(registry: &str, asking: &Asking) -> String {
    let scopes = asking.scopes.as_ref();
    let scopes = scopes.map_or_else(String::new, |scopes| format!(" for `{scopes}`"));
    match &asking.account {
        Some(account) => {
            format!("it was asked{scopes} as {account}: check that this account may do it")
        }
        None => format!(
            "it was asked{scopes} by nobody in particular, since no credential was found for it: log in with `ocibuild login {registry}`, or use --username and --password-stdin"
        ),
    }
}

impl Refusal {
    /// Tells what a registry's words mean, where they say more than status and code. Registries agree
    /// on neither of the latter: a quota is 403 DENIED with Harbor and Quay, an immutable tag 400
    /// `TAG_INVALID` with ECR, 412 with Harbor and 403 on Docker Hub.
    fn meaning(&self) -> Option<String> {
        let words = format!("{} {}", self.code, self.message).to_lowercase();
        // One that limits requests may call that a quota as well.
        let limits = self.status == StatusCode::TOO_MANY_REQUESTS;
        let says = |parts: &[&str]| !limits && parts.iter().any(|part| words.contains(part));
        let text = if says(&["immutab", "cannot be overwritten"]) {
            "the tag is there, and this registry lets nobody move it: push under another tag \
             (--to, --tag), or have it removed there first"
        } else if says(&[
            "quota",
            "configured upper limit",
            "storage limit",
            "insufficient storage",
        ]) {
            "the room that this account has there is used up: remove images there, or ask for more"
        } else if says(&["write_package", "create organization package", "expected scopes"]) {
            "the token may not write packages: a workflow needs `permissions: packages: write`, and a \
             package that is there has to let the repository in (its settings, Manage Actions access)"
        } else if self.status == StatusCode::PAYLOAD_TOO_LARGE && self.doing.contains("manifest") {
            "the registry takes no manifest of that size (4 MiB is what it should): annotations and \
             layers make it large"
        } else if self.doing.contains("take the manifest") && self.is_of_a_kind(&words) {
            "it may know nothing but Docker's own manifests, and this one is OCI's: use a newer registry, or \
             have skopeo write the older kind (skopeo copy --format v2s2)"
        } else {
            return None;
        };
        Some(text.to_owned())
    }

    /// Tells whether a manifest was refused for what it is: registries from before OCI's answer with
    /// 415, or call it invalid, unsupported or of an unknown type.
    fn is_of_a_kind(&self, words: &str) -> bool {
        let said = ["manifest_invalid", "unsupported", "media type", "mediatype", "content type"];
        self.status == StatusCode::UNSUPPORTED_MEDIA_TYPE
            || (self.status.is_client_error() && said.iter().any(|part| words.contains(part)))
    }

    /// Tells what to try.
    pub(super) fn hint(&self) -> Option<String> {
        if let Some(meaning) = self.meaning() {
            return Some(meaning);
        }
        let account = self.asking.account.as_deref();
        Some(match (self.status.as_u16(), self.code.as_str()) {
            (401 | 403, _) | (_, "DENIED" | "UNAUTHORIZED") => log_in(&self.registry, &self.asking),
            (429, _) => match (&self.retry_after, account) {
                (Some(wait), _) => format!("it asks to wait {wait} s before the next try"),
                (None, None) => "it limits anonymous clients: log in, or wait".to_owned(),
                (None, Some(_)) => "it limits its clients: wait before the next try".to_owned(),
            },
            (_, "MANIFEST_BLOB_UNKNOWN" | "BLOB_UNKNOWN") => {
                "it lost a blob that was there before: push again".to_owned()
            }
            (_, "NAME_UNKNOWN") => {
                "check the repository's name; some registries want it to be made first".to_owned()
            }
            (_, "NAME_INVALID") => {
                "the registry does not allow that name for a repository".to_owned()
            }
            (_, "UNSUPPORTED") => {
                "the registry does not allow that: it may be a read-only mirror".to_owned()
            }
            (_, "DIGEST_INVALID") => {
                "the bytes were changed on the way, or the local copy is damaged".to_owned()
            }
            (400, _) if self.message.contains("SSL certificate") => {
                "it knows its clients by certificate: put client.cert and client.key into \
                 ~/.config/containers/certs.d/HOST[:PORT], of an authority that it trusts"
                    .to_owned()
            }
            (404, _) => "check the name, and that the account may see it".to_owned(),
            (413, _) => {
                "the registry, or a proxy before it, takes no request of that size".to_owned()
            }
            (500.., _) => "the registry is in trouble: try again later".to_owned(),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registrys_own_words_are_found() {
        for (body, code, message) in [
            (
                r#"{"errors":[{"code":"DENIED","message":"requested access\nis denied","detail":[{"Type":"x"}]}]}"#,
                "DENIED",
                "requested access is denied",
            ),
            (r#"{"errors":[{"code":"X","message":"m","detail":"more"}]}"#, "X", "m (more)"),
            (
                r#"{"details":"incorrect username or password"}"#,
                "",
                "incorrect username or password",
            ),
            (r#"{"errors":[]}"#, "", ""),
            ("<html><body>502</body></html>", "", ""),
            (
                "<html>\r\n<head><title>413 Request Entity Too Large</title></head></html>",
                "",
                "413 Request Entity Too Large",
            ),
            ("rate limit exceeded", "", "rate limit exceeded"),
            ("", "", ""),
        ] {
            assert_eq!(words(body.as_bytes()), (code.to_owned(), message.to_owned()), "{body}");
        }
    }
}
