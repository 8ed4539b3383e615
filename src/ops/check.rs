//! `verify` of an image: who signed it, and what else is claimed of it by whom.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::describe::audited::{self, Claimed, Outcome};
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
    /// Public keys' files; a signature of any of them counts. None asks for no signature.
    pub keys: Vec<PathBuf>,
    /// Public keys' files of auditors, each of whom must have reproduced the image.
    pub auditors: Vec<PathBuf>,
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
    /// What audits by the given keys came to, of the image or one of its platforms.
    pub audits: Vec<AuditClaim>,
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

/// What an audit by one of the keys came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuditClaim {
    /// What was audited.
    pub subject: Digest,
    /// `reproduced`, `equivalent` or `differs`.
    pub verdict: &'static str,
    /// How the auditor was root: `root`, `range` or `single`.
    pub mode: String,
    /// The release that audited.
    pub version: String,
    /// The key's file.
    pub key: PathBuf,
}

/// A key that somebody gave.
struct Key<'a> {
    path: &'a Path,
    key: PublicKey,
}

fn read_keys(paths: &[PathBuf]) -> Result<Vec<Key<'_>>, Error> {
    let mut keys = Vec::new();
    for path in paths {
        let text = disk::read(path, KEY_LIMIT)?;
        let key =
            PublicKey::read(&text).map_err(|source| Error::Key { path: path.clone(), source })?;
        keys.push(Key { path, key });
    }
    Ok(keys)
}

/// Looks for signatures of an image in its registry, and for what audits of it came to. None by the
/// given keys, or an auditor who did not reproduce it, is an error.
pub fn check(options: &CheckOptions, context: &Context<'_>) -> Result<CheckReport, Error> {
    let (signers, auditors) = (read_keys(&options.keys)?, read_keys(&options.auditors)?);
    let reference = &options.reference;
    let registries = options.access.registries([reference], context)?;
    let registry = registries.open(reference);
    let root = registry.document(&registry.resolve(reference)?)?;
    let digest = root.digest();
    let mut report = CheckReport {
        reference: reference.clone(),
        digest,
        signatures: Vec::new(),
        audits: Vec::new(),
        attestations: Vec::new(),
        others: 0,
    };
    let subjects: Vec<Digest> =
        subjects(reference, &root, &registry)?.iter().map(|subject| subject.digest).collect();
    for subject in &subjects {
        for one in attach::list(&registry, *subject)? {
            if Bundle::is_type(&one.artifact_type) {
                report.bundle(&one.bytes, *subject, &signers, &auditors);
            }
        }
    }
    for simple in under_tag(digest, &registry)? {
        match signers.iter().find(|one| simple.verify(digest, &one.key).is_ok()) {
            Some(Key { path, .. }) => report.signatures.push(ClaimReport {
                subject: digest,
                claim: SIMPLE.to_owned(),
                key: (*path).to_owned(),
            }),
            None => report.others += 1,
        }
    }
    let image = || reference.at(digest);
    if !signers.is_empty() && report.signatures.is_empty() {
        return Err(Error::NotSigned { image: image(), others: report.others });
    }
    for Key { path, .. } in auditors {
        if let Err(found) = report.is_reproduced(path, &subjects) {
            return Err(Error::NotReproduced { image: image(), key: path.to_owned(), found });
        }
    }
    Ok(report)
}

impl CheckReport {
    /// Adds what a bundle says of a subject.
    fn bundle(&mut self, bytes: &[u8], subject: Digest, signers: &[Key<'_>], auditors: &[Key<'_>]) {
        let bundle = Bundle::read(bytes).ok();
        let by = |keys: &[Key<'_>]| {
            let bundle = bundle.as_ref()?;
            let claim = |one: &Key<'_>| {
                let statement = Statement::read(bundle.verify(&one.key).ok()?)?;
                Some((one.path.to_owned(), statement))
            };
            keys.iter().find_map(claim).filter(|(_, statement)| statement.is_about(subject))
        };
        let (signed, audited) = (by(signers), by(auditors));
        if signed.is_none() && audited.is_none() {
            self.others += 1;
            return;
        }
        if let Some((key, statement)) = audited.as_ref().or(signed.as_ref())
            && let Some(Claimed { outcome, mode, version }) = audited::read(statement, subject)
        {
            let (key, verdict) = (key.clone(), outcome.name());
            self.audits.push(AuditClaim { subject, verdict, mode, version, key });
            return;
        }
        // An auditor's key is none that an image's signature is asked of.
        let Some((key, Statement { predicate_type: claim, .. })) = signed else { return };
        let is_signature = claim == statement::SIGNATURE;
        let claim = ClaimReport { subject, claim, key };
        if !is_signature {
            self.attestations.push(claim);
        } else if subject == self.digest {
            self.signatures.push(claim);
        }
    }

    /// Tells whether an auditor reproduced the image or each of its platforms, and found nothing
    /// else; else, what he found.
    fn is_reproduced(&self, auditor: &Path, subjects: &[Digest]) -> Result<(), Vec<String>> {
        let own: Vec<&AuditClaim> = self.audits.iter().filter(|one| one.key == auditor).collect();
        let reproduced = Outcome::Reproduced.name();
        let is = |subject: &Digest| own.iter().any(|one| one.subject == *subject);
        let whole = is(&self.digest) || (subjects.len() > 1 && subjects[1..].iter().all(is));
        if whole && own.iter().all(|one| one.verdict == reproduced) {
            return Ok(());
        }
        Err(own.iter().map(|one| format!("{} {}", one.subject.short(), one.verdict)).collect())
    }
}
