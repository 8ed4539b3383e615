//! What a name stands for that somebody typed without a registry.

use crate::oci::Reference;
use crate::registry::{Keychain, Places, is_short};

use super::{Context, Error};

/// Where an image is that was named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    /// In a registry: what containers' `registries.conf` says of names without one counts.
    Registry,
    /// In the store, where names are full: an alias counts, and else Docker Hub is meant.
    Store,
}

/// Returns the full name of what somebody typed, and tells it where the text alone does not.
pub fn full_name(
    text: &str,
    whereabouts: Whereabouts,
    context: &Context<'_>,
) -> Result<Reference, Error> {
    let plain = || text.parse().map_err(|error| Error::Usage(format!("{error}")));
    if !is_short(text) {
        return plain();
    }
    let places = Places::read(&Keychain::new(context.env))?;
    let found = match places.alias(text)? {
        None if whereabouts == Whereabouts::Registry => places.search(text)?,
        alias => alias,
    };
    match found {
        None => plain(),
        Some((full, file)) => {
            context.report.note(&format!("`{text}` is {full}, by {}", file.display()));
            Ok(full)
        }
    }
}
