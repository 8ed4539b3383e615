//! A token server as distribution specifies it, for a `docker-registry` that wants tokens.

use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use super::registry::{Auth, Registry, Tls};
use super::{TempDir, run, temp_dir};
use crate::double::{Double, Reply, Request};

/// What the registry adds to a token's end before it believes that it is over.
const LEEWAY: u64 = 60;

/// Makes tokens and says who asked for them.
pub(crate) struct TokenServer {
    pub(crate) double: Double,
    dir: TempDir,
}

impl TokenServer {
    /// Starts a server whose tokens are good for `lives` seconds and say that they are for `says`;
    /// `None` says nothing. Only `user` with `password`, or who has the identity token that is the
    /// password with `-identity`, may push, and nobody else may see repositories below `private/`.
    pub(crate) fn start(lives: u64, says: Option<u64>, user: &str, password: &str) -> TokenServer {
        let dir = temp_dir();
        run(Command::new("openssl").current_dir(dir.path()).args([
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            "key.pem",
            "-out",
            "cert.pem",
            "-days",
            "2",
            "-subj",
            "/CN=token server",
        ]));
        let known = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
        let identity = format!("{password}-identity");
        let files = dir.path().to_owned();
        let number = AtomicU64::new(0);
        let double = Double::start(move |request, _| {
            let number = number.fetch_add(1, Ordering::SeqCst);
            if request.method == "POST" {
                let form = String::from_utf8_lossy(&request.body).into_owned();
                let form: Vec<(String, String)> = pairs(&form).collect();
                let has =
                    |name: &str, value: &str| form.contains(&(name.to_owned(), value.to_owned()));
                if !has("grant_type", "refresh_token") || !has("refresh_token", &identity) {
                    return Reply::new(401).body(r#"{"details":"no such identity"}"#);
                }
                let token = sign(&files, &claims(&form, true, lives, number), number);
                return Reply::new(200).body(format!(r#"{{"access_token":"{token}"}}"#));
            }
            let is_known = match request.header("authorization") {
                Some(given) if given == known => true,
                Some(_) => {
                    return Reply::new(401).body(r#"{"details":"incorrect username or password"}"#);
                }
                None => false,
            };
            let asked: Vec<(String, String)> = pairs(query(request)).collect();
            let token = sign(&files, &claims(&asked, is_known, lives, number), number);
            let lifetime = says.map_or(String::new(), |says| format!(r#","expires_in":{says}"#));
            Reply::new(200).body(format!(r#"{{"token":"{token}"{lifetime}}}"#))
        });
        TokenServer { double, dir }
    }

    /// Starts a registry that takes these tokens, behind TLS or not.
    pub(crate) fn registry(&self, tls: Option<&Tls>) -> Registry {
        let auth = Auth::Token {
            realm: &format!("http://{}/token", self.double.host()),
            service: "registry",
            issuer: "tests",
            bundle: &self.dir.path().join("cert.pem"),
        };
        Registry::start(tls, &auth)
    }

    /// Returns the scopes that were asked for, one string a request.
    pub(crate) fn asked(&self) -> Vec<String> {
        let scopes = |request: &Request| {
            let scopes = pairs(query(request)).filter(|(name, _)| name == "scope");
            scopes.map(|(_, scope)| scope).collect::<Vec<_>>()
        };
        self.double.seen().iter().map(|request| scopes(request).join(" ")).collect()
    }
}

fn query(request: &Request) -> &str {
    request.target.split_once('?').map_or("", |(_, query)| query)
}

/// The pairs of a query or a form; several scopes in one come each on its own.
fn pairs(text: &str) -> impl Iterator<Item = (String, String)> + '_ {
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs.flat_map(|(name, value)| {
        let value = value.replace("%3A", ":").replace("%2F", "/").replace("%2C", ",");
        let values: Vec<_> = value.split('+').map(str::to_owned).collect();
        values.into_iter().map(|value| (name.to_owned(), value))
    })
}

fn claims(asked: &[(String, String)], is_known: bool, lives: u64, number: u64) -> String {
    let mut access = Vec::new();
    for (_, scope) in asked.iter().filter(|(name, _)| name == "scope") {
        let parts: Vec<&str> = scope.split(':').collect();
        let [kind, name, actions] = parts[..] else { panic!("{scope}") };
        let allowed: Vec<String> = actions
            .split(',')
            .filter(|action| is_known || (*action == "pull" && !name.starts_with("private/")))
            .map(|action| format!("\"{action}\""))
            .collect();
        access.push(format!(
            r#"{{"type":"{kind}","name":"{name}","actions":[{}]}}"#,
            allowed.join(",")
        ));
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    format!(
        r#"{{"iss":"tests","sub":"","aud":"registry","exp":{},"nbf":{},"iat":{},"jti":"{number}","access":[{}]}}"#,
        now + lives - LEEWAY,
        now - 300,
        now - 300,
        access.join(",")
    )
}

fn sign(dir: &std::path::Path, claims: &str, number: u64) -> String {
    let pem = std::fs::read_to_string(dir.join("cert.pem")).unwrap();
    let certificate: String = pem.lines().filter(|line| !line.starts_with("---")).collect();
    let head = format!(r#"{{"typ":"JWT","alg":"RS256","x5c":["{certificate}"]}}"#);
    let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(head), URL_SAFE_NO_PAD.encode(claims));
    let file = dir.join(format!("claims-{number}"));
    std::fs::write(&file, &text).unwrap();
    let signature = run(Command::new("openssl")
        .current_dir(dir)
        .args(["dgst", "-sha256", "-sign", "key.pem"])
        .arg(&file))
    .stdout;
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
}
