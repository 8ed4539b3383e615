//! How registries are reached: one client for the process, a registry a host, credentials from
//! where the field keeps them.

use std::collections::BTreeMap;

use crate::http;
use crate::oci::Reference;
use crate::registry::{self, Registry};

use super::{Context, Error};

/// What the caller said about reaching registries.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// User and password, before any that are found in files.
    pub login: Option<(String, String)>,
    /// Registries that speak plain HTTP though they are not on loopback.
    pub plain_http: Vec<String>,
}
