//! Being let in: the challenge of a registry, the credential that answers it, and the tokens that
//! come of it (distribution, "Token Authentication").
//!
//! One [`Auth`] belongs to one repository. Several threads share it; when a token is needed one of
//! them fetches it and the others wait for that one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::http::{Client, Method, Payload, Request, Response, StatusCode, Url, header};

use super::challenge::{Challenge, parse};
use super::refusal::{Asking, refusal};
use super::{Credential, Error, Keychain, Secret};

/// Who asks token servers.
const CLIENT_ID: &str = "ocibuild";
/// How long a token lives whose server does not say (distribution, token specification).
const DEFAULT_LIFETIME: u64 = 60;
/// No token server's answer is larger.
const LIMIT: u64 = 1 << 20;

/// What a request needs to be allowed to do, as `repository:NAME:pull,push`; several for a mount.
pub(super) type Scopes = [String];

/// The state of being let into one repository.
#[derive(Debug)]
pub(super) struct Auth {
    client: Client,
    keychain: Arc<Keychain>,
    registry: String,
    repository: String,
    /// Looked up once; `None` in it is anonymous.
    credential: OnceLock<Option<Credential>>,
    state: Mutex<State>,
    /// Held while a token is fetched.
    fetching: Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    scheme: Scheme,
    tokens: BTreeMap<String, Token>,
    /// What was asked for last.
    asked: Option<String>,
}

/// How the registry wants to know us, as its last challenge said.
#[derive(Clone, Debug, Default)]
enum Scheme {
    #[default]
    Unknown,
    Basic,
    Bearer {
        realm: Url,
        service: Option<String>,
    },
}

#[derive(Clone)]
struct Token {
    value: String,
    obtained: Instant,
    lifetime: Duration,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token({} s)", self.lifetime.as_secs())
    }
}

impl Token {
    /// Tells whether more than `part` of its life is left.
    fn has_left(&self, part: f64) -> bool {
        self.obtained.elapsed() < self.lifetime.mul_f64(1.0 - part)
    }
}

/// How much of its life a token must have left before a request that is short, and before one that
/// carries a layer and whose end has to come before the token's.
const LEFT_FOR_SHORT: f64 = 0.1;
const LEFT_FOR_LONG: f64 = 0.5;

impl Auth {
    pub(super) fn new(
        client: Client,
        keychain: Arc<Keychain>,
        registry: &str,
        repository: &str,
    ) -> Auth {
        Auth {
            client,
            keychain,
            registry: registry.to_owned(),
            repository: repository.to_owned(),
            credential: OnceLock::new(),
            state: Mutex::default(),
            fetching: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the `Authorization` that a request should go out with by what is known; `None` before
    /// the first challenge.
    pub(super) fn header(
        &self,
        base: &Url,
        scopes: &Scopes,
        long: bool,
    ) -> Result<Option<String>, Error> {
        let scheme = self.state().scheme.clone();
        match scheme {
            Scheme::Unknown => Ok(None),
            Scheme::Basic => self.basic().map(Some),
            Scheme::Bearer { realm, service } => {
                let left = if long { LEFT_FOR_LONG } else { LEFT_FOR_SHORT };
                let _one = self.fetching.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(token) = self.state().tokens.get(&scopes.join(" "))
                    && token.has_left(left)
                {
                    return Ok(Some(bearer(token)));
                }
                self.fetch(base, &realm, service.as_deref(), scopes, &[]).map(Some)
            }
        }
    }

    /// Answers a 401: returns the `Authorization` to try next. `used` is what the refused request
    /// carried.
    pub(super) fn renew(
        &self,
        base: &Url,
        refused: &mut Response,
        scopes: &Scopes,
        used: Option<&str>,
    ) -> Result<String, Error> {
        let challenges = parse(refused.header_values(header::WWW_AUTHENTICATE));
        let bearer_of = |one: &&Challenge| one.scheme == "bearer" && one.get("realm").is_some();
        if let Some(challenge) = challenges.iter().find(bearer_of) {
            let _one = self.fetching.lock().unwrap_or_else(PoisonError::into_inner);
            // Another thread may have been refused as well, and have the new token already.
            if let Some(token) = self.state().tokens.get(&scopes.join(" "))
                && token.has_left(LEFT_FOR_SHORT)
                && used != Some(&bearer(token))
            {
                return Ok(bearer(token));
            }
            let realm = self.realm(base, challenge.get("realm").unwrap_or_default())?;
            let service = challenge.get("service").map(str::to_owned);
            let scheme = Scheme::Bearer { realm: realm.clone(), service: service.clone() };
            self.state().scheme = scheme;
            let asked: Vec<&str> =
                challenge.get("scope").unwrap_or_default().split_whitespace().collect();
            return self.fetch(base, &realm, service.as_deref(), scopes, &asked);
        }
        if challenges.iter().any(|one| one.scheme == "basic") {
            self.state().scheme = Scheme::Basic;
            let header = self.basic()?;
            if used != Some(&header) {
                return Ok(header);
            }
            return Err(refusal(&self.registry, "let us in", self.asking(), refused));
        }
        let schemes = challenges.into_iter().map(|one| one.scheme).collect();
        Err(Error::Challenge { registry: self.registry.clone(), schemes })
    }

    /// Returns who asks, and for what, for messages.
    pub(super) fn asking(&self) -> Asking {
        Asking { account: self.account(), scopes: self.state().asked.clone() }
    }

    /// Returns whose credential is used and where it was found, for messages.
    pub(super) fn account(&self) -> Option<String> {
        let credential = self.credential().ok().flatten()?;
        Some(match credential.secret {
            Secret::Password { user, .. } => format!("`{user}` from {}", credential.found_in),
            Secret::Identity(_) => format!("the identity token from {}", credential.found_in),
        })
    }

    fn credential(&self) -> Result<Option<Credential>, Error> {
        if let Some(known) = self.credential.get() {
            return Ok(known.clone());
        }
        let found = self.keychain.find(&self.registry, &self.repository)?;
        Ok(self.credential.get_or_init(|| found).clone())
    }

    fn basic(&self) -> Result<String, Error> {
        match self.credential()? {
            Some(Credential { secret: Secret::Password { user, password }, .. }) => {
                Ok(basic(&user, &password))
            }
            Some(Credential { secret: Secret::Identity(_), .. }) | None => {
                Err(Error::NoCredential { registry: self.registry.clone() })
            }
        }
    }

    /// Takes a realm only where what we say there stays secret, unless it is not secret already.
    fn realm(&self, base: &Url, text: &str) -> Result<Url, Error> {
        let refuse = || Error::Realm {
            registry: self.registry.clone(),
            realm: text.chars().take(200).collect(),
        };
        let realm = base.join(text).map_err(|_| refuse())?;
        match (realm.scheme(), base.scheme()) {
            ("https", _) | ("http", "http") => Ok(realm),
            _ => Err(refuse()),
        }
    }

    /// Fetches a token and keeps it. The caller holds `fetching`.
    fn fetch(
        &self,
        base: &Url,
        realm: &Url,
        service: Option<&str>,
        scopes: &Scopes,
        asked: &[&str],
    ) -> Result<String, Error> {
        // What we need, and what the challenge wants beyond that.
        let mut wanted: Vec<&str> = scopes.iter().map(String::as_str).collect();
        for scope in asked {
            if !wanted.iter().any(|have| covers(have, scope)) {
                wanted.push(scope);
            }
        }
        self.state().asked = Some(wanted.join(" "));
        let credential = self.credential()?;
        let mut answer = match credential.as_ref().map(|found| &found.secret) {
            Some(Secret::Identity(identity)) => self.exchange(realm, service, &wanted, identity)?,
            Some(Secret::Password { user, password }) => {
                self.ask(realm, service, &wanted, Some(&basic(user, password)))?
            }
            None => self.ask(realm, service, &wanted, None)?,
        };
        if answer.status() != StatusCode::OK {
            let doing = format!("give a token for {}", base.host_str().unwrap_or_default());
            let server = realm.host_str().unwrap_or_default();
            return Err(refusal(server, &doing, self.asking(), &mut answer));
        }
        let invalid = || Error::Token { realm: crate::http::redact(realm) };
        let body = answer.bytes(LIMIT)?;
        let grant: Grant = serde_json::from_slice(&body).map_err(|_| invalid())?;
        let value = [grant.token, grant.access_token].into_iter().flatten().find(|t| !t.is_empty());
        let token = Token {
            value: value.ok_or_else(invalid)?,
            obtained: Instant::now(),
            lifetime: Duration::from_secs(grant.expires_in.unwrap_or(DEFAULT_LIFETIME)),
        };
        let header = bearer(&token);
        self.state().tokens.insert(scopes.join(" "), token);
        Ok(header)
    }

    fn ask(
        &self,
        realm: &Url,
        service: Option<&str>,
        scopes: &[&str],
        authorization: Option<&str>,
    ) -> Result<Response, Error> {
        let mut url = realm.clone();
        {
            let mut query = url.query_pairs_mut();
            query.extend_pairs(service.map(|service| ("service", service)));
            query.extend_pairs(scopes.iter().map(|scope| ("scope", scope)));
            query.append_pair("client_id", CLIENT_ID);
        }
        let mut request = Request::new(Method::GET, url);
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, authorization)?;
        }
        Ok(self.client.send(&request)?)
    }

    /// Exchanges an identity token (distribution, "OAuth 2.0 Token Authentication"). Where the server
    /// knows no such exchange it is asked in the older way.
    fn exchange(
        &self,
        realm: &Url,
        service: Option<&str>,
        scopes: &[&str],
        identity: &str,
    ) -> Result<Response, Error> {
        // The URL's own encoder writes a form.
        let mut form = realm.clone();
        form.set_query(None);
        form.query_pairs_mut()
            .append_pair("grant_type", "refresh_token")
            .append_pair("refresh_token", identity)
            .append_pair("service", service.unwrap_or_default())
            .append_pair("client_id", CLIENT_ID)
            .append_pair("scope", &scopes.join(" "));
        let request = Request::new(Method::POST, realm.clone())
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")?
            .payload(Payload::Bytes(form.query().unwrap_or_default().as_bytes()));
        let answer = self.client.send(&request)?;
        match answer.status() {
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
                self.ask(realm, service, scopes, Some(&basic("<token>", identity)))
            }
            _ => Ok(answer),
        }
    }
}

#[derive(Deserialize)]
struct Grant {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

fn bearer(token: &Token) -> String {
    format!("Bearer {}", token.value)
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// Tells whether a scope allows all that another one does.
fn covers(have: &str, wanted: &str) -> bool {
    match (have.rsplit_once(':'), wanted.rsplit_once(':')) {
        (Some((have, may)), Some((wanted, needs))) => {
            have == wanted && needs.split(',').all(|one| may.split(',').any(|other| other == one))
        }
        _ => have == wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_covers_what_it_allows() {
        assert!(covers("repository:a/b:pull,push", "repository:a/b:pull"));
        assert!(covers("repository:a/b:pull,push", "repository:a/b:push,pull"));
        assert!(!covers("repository:a/b:pull", "repository:a/b:pull,push"));
        assert!(!covers("repository:a/b:pull", "repository:a/c:pull"));
    }

    #[test]
    fn secrets_go_only_where_they_stay_secret() {
        let client = Client::new(crate::http::Config::default());
        let auth = Auth::new(client, Arc::default(), "r.example", "a/b");
        let tls = Url::parse("https://r.example/v2/").unwrap();
        let plain = Url::parse("http://127.0.0.1:5000/v2/").unwrap();
        assert!(auth.realm(&tls, "https://auth.example/token").is_ok());
        assert!(auth.realm(&tls, "http://auth.example/token").is_err());
        assert!(auth.realm(&plain, "http://127.0.0.1:5001/token").is_ok());
        assert!(auth.realm(&tls, "file:///etc/passwd").is_err());
        assert_eq!(auth.realm(&tls, "/token").unwrap().as_str(), "https://r.example/token");
    }
}
