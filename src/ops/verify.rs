//! `verify`: the whole store against the names of its blobs.

use serde::Serialize;

use crate::store::Problem;

use super::{Context, Error};

/// What is wrong with a store.
#[derive(Clone, Debug, Serialize)]
pub struct VerifyReport {
    /// Whether nothing is.
    pub ok: bool,
    /// One entry a finding.
    pub problems: Vec<Damage>,
}

/// Something wrong.
#[derive(Clone, Debug, Serialize)]
pub struct Damage {
    /// `corrupt`, `unfit` or `foreign`.
    pub kind: &'static str,
    /// The blob by its name, where it has one.
    pub digest: Option<String>,
    /// What is the matter, in a sentence.
    pub problem: String,
}

/// Hashes every blob of the store and follows every name; changes nothing.
pub fn verify(context: &Context<'_>) -> Result<VerifyReport, Error> {
    let found = context.open()?.verify(context.threads, context.report.as_ref())?;
    let problems: Vec<Damage> = found
        .iter()
        .map(|problem| {
            let (kind, digest) = match problem {
                Problem::Corrupt { digest, .. } => ("corrupt", Some(digest)),
                Problem::Unfit { digest, .. } => ("unfit", Some(digest)),
                Problem::Foreign { .. } => ("foreign", None),
            };
            Damage { kind, digest: digest.map(ToString::to_string), problem: problem.to_string() }
        })
        .collect();
    Ok(VerifyReport { ok: problems.is_empty(), problems })
}
