//! `audit --attest`: what an audit came to, signed and attached to the image that was audited.
//!
//! Only what was compared is told: that inputs are missing, say, is nothing that the image is.

use std::path::PathBuf;

use crate::audit::SubjectImage;
use crate::describe::audited::{Audited, AuditedPlatform, Outcome};
use crate::describe::sign::SigningKey;
use crate::layer::normalise;
use crate::oci::{Digest, Document, Reference};
use crate::registry::Repository;
use crate::transfer::Source;

use super::origin::LOCK;
use super::report::outcome_of;
use super::{Audit, AuditReport};
use crate::ops::sign::{SignedReport, Signer, read_key, subjects};
use crate::ops::{Context, Error, attach, provenance};

/// Who says what an audit came to.
#[derive(Clone, Debug)]
pub struct AttestOptions {
    /// The private key's file.
    pub key: PathBuf,
    /// Its password, where it is encrypted.
    pub password: Option<String>,
}

/// What was built again, beside what was published.
pub(super) struct Rebuilt {
    /// The index, where all of the image was built.
    pub(super) index: Option<Digest>,
    /// The platforms, each with the manifest that was built.
    pub(super) platforms: Vec<(SubjectImage, Option<Digest>)>,
}

/// All that attesting needs; made before anything is built, since a build takes its time.
pub(super) struct Attester<'a> {
    key: SigningKey,
    name: &'a Reference,
    registry: &'a Repository,
    root: Document,
    context: &'a Context<'a>,
}

impl<'a> Attester<'a> {
    /// Reads the key, and asks whether the image is where the statement goes.
    pub(super) fn new(options: &AttestOptions, audit: &Audit<'a>) -> Result<Attester<'a>, Error> {
        let key = read_key(&options.key, options.password.as_deref())?;
        let (Some(name), Some(registry)) = (audit.name, audit.remote) else {
            return Err(Error::Usage(
                "a statement is attached to an image in a registry: name it as it is there, without \
                 --offline"
                    .to_owned(),
            ));
        };
        let root = registry.document(&audit.subject.descriptor)?;
        Ok(Attester { key, name, registry, root, context: audit.context })
    }

    /// Signs what a report says, and attaches it to all that was built again.
    pub(super) fn attest(
        &self,
        rebuilt: &Rebuilt,
        report: &AuditReport,
    ) -> Result<Vec<SignedReport>, Error> {
        let Some(audited) = self.audited(rebuilt, report)? else { return Ok(Vec::new()) };
        let statement = audited.statement(&self.name.name())?;
        let signer = Signer { key: &self.key, registry: self.registry, context: self.context };
        let manifests: Vec<Digest> = audited.platforms.iter().map(|one| one.manifest).collect();
        let mut signed = Vec::new();
        for subject in subjects(self.name, &self.root, self.registry)? {
            let is_index = audited.index.is_some_and(|(index, _)| index == subject.digest);
            if is_index || manifests.contains(&subject.digest) {
                let attached = attach::list(self.registry, subject.digest)?;
                signed.extend(signer.attest(&subject, &statement, &attached)?);
            }
        }
        Ok(signed)
    }

    fn audited(&self, rebuilt: &Rebuilt, report: &AuditReport) -> Result<Option<Audited>, Error> {
        let Some(outcome) = report.verdict.outcome() else { return Ok(None) };
        let compared = |platform: &str| {
            let comparison = report.comparison.as_ref()?;
            comparison.platforms.iter().find(|one| one.platform == platform)
        };
        let platforms = rebuilt.platforms.iter().filter_map(|(image, ours)| {
            let platform = image.platform.to_string();
            let lock = image.labels.get(LOCK)?.parse().ok()?;
            let ours = (*ours)?;
            let found = compared(&platform).filter(|_| ours != image.manifest);
            let layers = found.into_iter().flat_map(|one| &one.layers);
            let paths =
                layers.fold((0, 0), |(all, odd), one| (all + one.paths, odd + one.unexplained));
            Some(AuditedPlatform {
                platform,
                manifest: image.manifest,
                rebuilt: ours,
                lock,
                outcome: found.map_or(Outcome::Reproduced, outcome_of),
                paths,
            })
        });
        let inputs = report.inputs.as_ref();
        Ok(Some(Audited {
            index: rebuilt.index.filter(|_| self.root.is_index()).map(|ours| (report.digest, ours)),
            outcome,
            platforms: platforms.collect(),
            rules: normalise::VERSION.to_owned(),
            mode: report.mode.clone().unwrap_or_default(),
            fetches: inputs.map_or(0, |inputs| inputs.fetches),
            fetched: inputs.is_some_and(|inputs| inputs.here < inputs.bodies),
            builder: provenance::builder()?,
        }))
    }
}
