//! What the steps of layers fetched: bodies among the blobs, named by a record beside the layer's key.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;

use super::{Candidate, Collection, Freed, What, records};
use crate::oci::Digest;
use crate::store::Error;

/// As much of a record as says which body it is.
#[derive(Deserialize)]
struct Body {
    digest: Digest,
    size: u64,
}

impl Collection<'_> {
    /// Returns the bodies that a key's record names, are here, and are kept by nothing yet.
    pub(super) fn bodies_of(
        &self,
        key: &Path,
        keep: &BTreeSet<Digest>,
    ) -> Result<BTreeMap<Digest, u64>, Error> {
        let Some(name) = key.file_name().filter(|_| !self.options.no_inputs) else {
            return Ok(BTreeMap::new());
        };
        let bodies: Option<Vec<Body>> = records::read(&self.store.path("fetches").join(name))?;
        Ok(bodies
            .unwrap_or_default()
            .into_iter()
            .filter(|body| !keep.contains(&body.digest) && self.store.has(&body.digest))
            .map(|body| (body.digest, body.size))
            .collect())
    }

    /// Keeps what the layers of named images were made from, whatever the budget: of keys that gave
    /// the same layer, the one used last tells.
    pub(super) fn keep_inputs_of_images(
        &self,
        candidates: &[Candidate],
        keep: &mut BTreeSet<Digest>,
        freed: &mut Freed,
    ) -> Result<(), Error> {
        let mut seen = BTreeSet::new();
        for candidate in candidates {
            let What::Key(Some(diff_id)) = &candidate.what else { continue };
            let blobs = self.blobs.get(diff_id).map_or(&[][..], Vec::as_slice);
            if blobs.iter().any(|blob| keep.contains(&blob.digest)) && seen.insert(*diff_id) {
                let bodies = self.bodies_of(&candidate.path, keep)?;
                freed.inputs += bodies.len() as u64;
                freed.inputs_bytes += bodies.values().sum::<u64>();
                keep.extend(bodies.into_keys());
            }
        }
        Ok(())
    }
}
