//! The recorded bodies that an audit builds from: which of them are here, whole, and which can be
//! brought from the registry of the image.

use std::collections::BTreeMap;

use crate::lock::Lock;
use crate::netlog::Fetch;
use crate::oci::{Descriptor, Digest, Document, Platform};
use crate::transfer::{self, Source, Verify};

use super::{Audit, AuditVerdict, Ended, InputsReport, Stop};
use crate::ops::{Error, inputs};

/// How many examples of what is missing are told.
const EXAMPLES: usize = 3;

impl Audit<'_> {
    /// Brings the inputs that are attached to the image; tells whether there were any.
    pub(super) fn bring_inputs(&self) -> Result<bool, Ended> {
        let (Some(name), Some(remote)) = (self.name, self.remote) else { return Ok(false) };
        let name = name.at(self.subject.descriptor.digest);
        // Where the registry does not have it, the inputs come from where they were recorded.
        let Ok(document) = remote.document(&self.subject.descriptor) else { return Ok(false) };
        // The store has to have the manifests to know what the inputs belong to.
        self.store.put_document(&document)?;
        for image in &self.images {
            if let Some(entry) = Audit::entry(&document, image.manifest)? {
                self.store.put_document(&remote.document(&entry)?)?;
            }
        }
        let report = self.context.report.as_ref();
        match inputs::pull_inputs(&name, &document, remote, self.store, report) {
            Ok(()) => Ok(true),
            Err(Error::NotAttached { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Finds the entry of a manifest in an index.
    fn entry(document: &Document, manifest: Digest) -> Result<Option<Descriptor>, Ended> {
        if !document.is_index() {
            return Ok(None);
        }
        let index = document.index().map_err(transfer::Error::from)?;
        Ok(index.manifests.into_iter().find(|entry| entry.digest == manifest))
    }

    /// Counts the inputs, and lists those that the store lacks or has damaged.
    pub(super) fn inputs<'f>(&self, fetches: &[&'f Fetch]) -> (InputsReport, Vec<&'f Fetch>) {
        let mut report = InputsReport { fetches: fetches.len(), ..InputsReport::default() };
        let mut bodies: BTreeMap<Digest, &Fetch> = BTreeMap::new();
        for fetch in fetches {
            bodies.entry(fetch.digest).or_insert(fetch);
            *report.authorities.entry(fetch.authority.to_string()).or_default() += 1;
        }
        report.bodies = bodies.len();
        report.bytes = bodies.values().map(|fetch| fetch.size).sum();
        let missing: Vec<&Fetch> =
            bodies.into_values().filter(|fetch| fetch.size > 0 && !self.is_whole(fetch)).collect();
        report.here = report.bodies - missing.len();
        (report, missing)
    }

    /// Tells whether a body is here and what its name says; all of it is read.
    fn is_whole(&self, fetch: &Fetch) -> bool {
        let Ok(file) = self.store.open_blob(&fetch.digest) else { return false };
        let descriptor = Descriptor::new("", fetch.digest, fetch.size);
        std::io::copy(&mut Verify::new(file, &descriptor), &mut std::io::sink()).is_ok()
    }

    pub(super) fn tell_inputs(&self, inputs: &InputsReport) {
        let authorities: Vec<String> =
            inputs.authorities.iter().map(|(name, count)| format!("{name} {count}")).collect();
        self.context.report.note(&format!(
            "3/5 inputs: {} of {} bodies here, {} answers{}{}",
            inputs.here,
            inputs.bodies,
            inputs.fetches,
            if authorities.is_empty() { "" } else { ": " },
            authorities.join(", ")
        ));
    }
}

/// Lists what a lock has for some platforms.
pub(super) fn fetches<'l>(lock: Option<&'l Lock>, platforms: &[Platform]) -> Vec<&'l Fetch> {
    let sections = lock
        .into_iter()
        .flat_map(|lock| platforms.iter().filter_map(|platform| lock.section(platform)));
    sections.flat_map(|section| section.layers.values()).flat_map(|layer| &layer.fetches).collect()
}

pub(super) fn missing_inputs(missing: &[&Fetch]) -> Stop {
    let mut reason =
        vec![format!("{} recorded bodies are not in the store, or damaged there", missing.len())];
    reason.extend(
        missing.iter().take(EXAMPLES).map(|fetch| format!("{} {}", fetch.digest, fetch.url)),
    );
    if missing.len() > EXAMPLES {
        reason.push(format!("and {} more", missing.len() - EXAMPLES));
    }
    Stop {
        verdict: AuditVerdict::InputsMissing,
        reason,
        hint: Some("without --offline they are fetched from where they were recorded".to_owned()),
    }
}
