//! `login` and `logout`: a credential tried at its registry, and kept where other tools find it.

use serde::Serialize;

use crate::http;
use crate::oci::Reference;
use crate::registry::{self, Keychain, Places, Registries};

use super::{Context, Error};

/// Where to log in, and as whom.
#[derive(Clone)]
pub struct LoginOptions {
    /// The registry, as `ghcr.io` or `localhost:5000`.
    pub registry: String,
    /// The user.
    pub user: String,
    /// The password, or a token in its place.
    pub password: String,
    /// Whether the registry speaks plain HTTP though it is not on loopback.
    pub plain_http: bool,
}

impl std::fmt::Debug for LoginOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoginOptions")
            .field("registry", &self.registry)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// A login.
#[derive(Clone, Debug, Serialize)]
pub struct LoginReport {
    /// The registry.
    pub registry: String,
    /// The user.
    pub user: String,
    /// The file or the helper that keeps the credential.
    pub kept_in: String,
    /// Whether the registry looked at it; one that lets in anyone does not.
    pub verified: bool,
}

/// A logout.
#[derive(Clone, Debug, Serialize)]
pub struct LogoutReport {
    /// The registry.
    pub registry: String,
    /// The files and helpers that had a credential.
    pub removed_from: Vec<String>,
    /// Where one is still found, as a variable.
    pub still_in: Option<String>,
}

/// Tries a credential and keeps it; one that is refused is not kept.
pub fn login(options: &LoginOptions, context: &Context<'_>) -> Result<LoginReport, Error> {
    let registry = name_of(&options.registry)?;
    if options.user.is_empty() || options.password.is_empty() {
        return Err(Error::Usage("a login needs a user and a password".to_owned()));
    }
    if options.user.contains(':') {
        return Err(Error::Usage("a user's name holds no colon".to_owned()));
    }
    let keychain = Keychain::new(context.env);
    let config = http::Config::from_env(context.env).reporting_to(context.report.clone());
    let with = keychain.clone().with_login(&registry, &options.user, &options.password);
    let places = Places::read(&keychain)?;
    let mut registries = Registries::new(http::Client::new(config), with).with_places(places);
    if options.plain_http {
        registries = registries.with_plain_http(&registry);
    }
    let verified = registries.check_login(&registry)?;
    let kept_in = keychain.store(&registry, &options.user, &options.password)?;
    Ok(LoginReport { registry, user: options.user.clone(), kept_in, verified })
}

/// Forgets what is known of a registry.
pub fn logout(registry: &str, context: &Context<'_>) -> Result<LogoutReport, Error> {
    let registry = name_of(registry)?;
    let keychain = Keychain::new(context.env);
    let removed_from = keychain.erase(&registry)?;
    let still_in = keychain.find(&registry, "")?.map(|found| found.found_in);
    Ok(LogoutReport { registry, removed_from, still_in })
}

/// Takes what people write for a registry: its name, or its address.
fn name_of(text: &str) -> Result<String, Error> {
    let name = registry::normalise(text.trim());
    // A reference's own rules say what a host is.
    match format!("{name}/x").parse::<Reference>() {
        Ok(reference) if !name.contains('/') && reference.registry() == name => Ok(name.to_owned()),
        _ => Err(Error::Usage(format!("`{text}` is no registry: give it as HOST or HOST:PORT"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_named_as_people_do() {
        for (text, name) in [
            ("ghcr.io", "ghcr.io"),
            ("https://quay.io/", "quay.io"),
            ("docker.io", "docker.io"),
            ("https://index.docker.io/v1/", "docker.io"),
            ("localhost", "localhost"),
            ("127.0.0.1:5000", "127.0.0.1:5000"),
        ] {
            assert_eq!(name_of(text).unwrap(), name);
        }
        for text in ["", "ghcr.io/me", "name", "a b"] {
            assert!(name_of(text).is_err(), "{text}");
        }
    }
}
