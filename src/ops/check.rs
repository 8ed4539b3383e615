//! `verify` of an image: who signed it, and what else is claimed of it by whom.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::describe::sign::{Bundle, PublicKey, SIMPLE};
use crate::describe::{Statement, statement};
use crate::disk;
use crate::oci::{Digest, Reference};
use crate::transfer::Source;

use super::sign::{KEY_LIMIT, subjects, under_tag};
use super::{Access, Context, Error, attach};

/// What to verify, and by which keys.
#[derive(Clone, Debug)]
pub struct CheckOptions {
    /// The image, which is in its registry.
    pub reference: Reference,
    /// Public keys' files; a signature of any of them counts.
    pub keys: Vec<PathBuf>,
    /// How to reach the registry.
    pub access: Access,
}

/// What is signed of an image.
#[derive(Clone, Debug, Serialize)]
pub struct CheckReport {
    /// The image.
    pub reference: Reference,
    /// Its digest, which is what was signed.
    pub digest: Digest,
    /// Signatures of the image by the given keys.
    pub signatures: Vec<ClaimReport>,
    /// Further statements by them, about the image or one of its platforms.
    pub attestations: Vec<ClaimReport>,
    /// Bundles that are signed by others, or cannot be read.
    pub others: usize,
}

/// A statement by one of the keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClaimReport {
    /// What it is about.
    pub subject: Digest,
    /// The statement's type; of the older form, the payload's.
    pub claim: String,
    /// The key's file.
    pub key: PathBuf,
}

/// Looks for signatures of an image in its registry. None by the given keys is an error.
pub fn check(options: &CheckOptions, context: &Context<'_>) -> Result<CheckReport, Error> {
    let mut keys: Vec<(&Path, PublicKey)> = Vec::new();
    for path in &options.keys {
        let text = disk::read(path, KEY_LIMIT)?;
        let key =
            PublicKey::read(&text).map_err(|source| Error::Key { path: path.clone(), source })?;
        keys.push((path, key));
    }
    let reference = &options.reference;
    let registries = options.access.registries([reference], context)?;
    let registry = registries.open(reference);
    let root = registry.document(&registry.resolve(reference)?)?;
    let digest = root.digest();
    let mut report = CheckReport {
        reference: reference.clone(),
        digest,
        signatures: Vec::new(),
        attestations: Vec::new(),
        others: 0,
    };
    for subject in subjects(reference, &root, &registry)? {
        for one in attach::list(&registry, subject.digest)? {
            if !Bundle::is_type(&one.artifact_type) {
                continue;
            }
            let Some((key, claim)) = claim(&one.bytes, subject.digest, &keys) else {
                report.others += 1;
                continue;
            };
            let is_signature = claim == statement::SIGNATURE;
            let claim = ClaimReport { subject: subject.digest, claim, key: key.to_owned() };
            if !is_signature {
                report.attestations.push(claim);
            } else if subject.digest == digest {
                report.signatures.push(claim);
            }
        }
    }
    for simple in under_tag(digest, &registry)? {
        match keys.iter().find(|(_, key)| simple.verify(digest, key).is_ok()) {
            Some((path, _)) => report.signatures.push(ClaimReport {
                subject: digest,
                claim: SIMPLE.to_owned(),
                key: (*path).to_owned(),
            }),
            None => report.others += 1,
        }
    }
    if report.signatures.is_empty() {
        return Err(Error::NotSigned { image: reference.at(digest), others: report.others });
    }
    Ok(report)
}

/// Returns what a bundle claims of a subject by one of the keys, and which.
fn claim<'k>(
    bytes: &[u8],
    subject: Digest,
    keys: &[(&'k Path, PublicKey)],
) -> Option<(&'k Path, String)> {
    let bundle = Bundle::read(bytes).ok()?;
    let (key, statement) = keys
        .iter()
        .find_map(|(path, key)| Some((*path, Statement::read(bundle.verify(key).ok()?)?)))?;
    statement.is_about(subject).then_some((key, statement.predicate_type))
}
