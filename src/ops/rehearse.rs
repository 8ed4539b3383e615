//! `push --dry-run`: what a push would find at each destination and what it would send and move.
//! Registries are asked, and nothing is written anywhere.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::oci::{Descriptor, Digest, Reference};
use crate::registry::Registries;
use crate::store::Store;
use crate::transfer::{self, Sink, Source};

use super::publish::{Way, first_failure, ways};
use super::{Context, Error, PushOptions};

/// What a push would do at one destination.
#[derive(Clone, Debug, Serialize)]
pub struct PushPlan {
    /// The image's name in the store.
    pub image: Reference,
    /// Where it would go.
    pub destination: Reference,
    /// What the destination would have: the index, or with `by_digest` a platform's manifest.
    pub digest: Digest,
    /// Every blob, and how it would come there.
    pub blobs: Vec<PlannedBlob>,
    /// Bytes that would be sent, manifests left out.
    pub upload_bytes: u64,
    /// Manifests and indexes that would be sent.
    pub manifests: u64,
    /// Manifests and indexes that are there.
    pub manifests_existing: u64,
    /// The tags that would be set.
    pub tags: Vec<PlannedTag>,
}

/// A blob, and how it would come to a destination.
#[derive(Clone, Debug, Serialize)]
pub struct PlannedBlob {
    /// The blob.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
    /// How it would come.
    pub how: How,
    /// The repository that it would be mounted from, or that it is fetched from for the upload
    /// because the store lacks it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

/// How a blob comes to a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// It is there.
    Exists,
    /// The registry is asked to take it from another of its repositories, where it is; if it does
    /// not, it is uploaded.
    Mount,
    /// Its bytes are sent.
    Upload,
}

/// A tag, before and after.
#[derive(Clone, Debug, Serialize)]
pub struct PlannedTag {
    /// The tag.
    pub tag: String,
    /// What it stands for now; `None` where there is none.
    pub now: Option<Digest>,
    /// Whether it would stand for something else afterwards.
    pub moves: bool,
}

/// What a rehearsal found, and the first destination that could not be asked.
#[derive(Debug)]
#[must_use = "a failure may be in it"]
pub struct Rehearsed {
    /// One entry a destination and document.
    pub plans: Vec<PushPlan>,
    /// The first failure; the others were told as warnings.
    pub failure: Option<Error>,
}

/// Tells what [`super::push()`] with the same options would do.
pub fn rehearse(options: &PushOptions, context: &Context<'_>) -> Result<Rehearsed, Error> {
    let store = context.open()?;
    let (registries, ways) = ways(options, &store, context)?;
    let mut plans = Vec::new();
    let mut failed = Vec::new();
    // What earlier ones bring to a registry, later ones can mount.
    let mut brought = Brought::new();
    for way in ways.iter().flatten() {
        match way.rehearse(options, &store, &registries, &mut brought) {
            Ok(found) => plans.extend(found),
            Err(error) => failed.push((&way.destination, error)),
        }
    }
    Ok(Rehearsed { plans, failure: first_failure(failed, context).err() })
}

/// By registry and digest, a repository that has the blob by then.
type Brought = BTreeMap<(String, Digest), Reference>;

impl Way<'_> {
    fn rehearse(
        &self,
        options: &PushOptions,
        store: &Store,
        registries: &Registries,
        brought: &mut Brought,
    ) -> Result<Vec<PushPlan>, Error> {
        let copy = transfer::Options {
            jobs: options.jobs,
            fallbacks: vec![&self.origins],
            ..transfer::Options::default()
        };
        let mut plans = Vec::new();
        for document in self.documents.iter() {
            let survey = transfer::survey(store, &self.registry, document, &copy)?;
            let mut blobs = Vec::new();
            for (blob, exists) in &survey.blobs {
                let (how, from) = match exists {
                    true => (How::Exists, None),
                    false => self.way_of(blob, store, registries, brought),
                };
                blobs.push(PlannedBlob { digest: blob.digest, size: blob.size, how, from });
            }
            for (blob, _) in &survey.blobs {
                let key = (self.destination.registry().to_owned(), blob.digest);
                brought.entry(key).or_insert_with(|| self.destination.clone());
            }
            let mut tags = Vec::new();
            for tag in self.tags(options) {
                let now = self.registry.tagged(&tag)?;
                tags.push(PlannedTag { tag, now, moves: now != Some(document.digest()) });
            }
            let uploads = blobs.iter().filter(|blob| blob.how == How::Upload);
            plans.push(PushPlan {
                image: self.image.clone(),
                destination: self.destination.clone(),
                digest: document.digest(),
                upload_bytes: uploads.map(|blob| blob.size).sum(),
                blobs,
                manifests: survey.documents.len() as u64,
                manifests_existing: survey.known_documents,
                tags,
            });
        }
        Ok(plans)
    }

    /// Finds how a blob would come that the destination lacks.
    fn way_of(
        &self,
        blob: &Descriptor,
        store: &Store,
        registries: &Registries,
        brought: &Brought,
    ) -> (How, Option<String>) {
        let registry = self.destination.registry();
        let mounts = |from: &Reference| {
            from.registry() == registry && from.name() != self.destination.name()
        };
        let origins = Source::origins(store, blob);
        for origin in origins.iter().filter(|origin| mounts(origin)) {
            // A push would try all the same; one that cannot be seen is likely not to be mounted.
            if registries.open(origin).has_blob(blob).unwrap_or(false) {
                return (How::Mount, Some(origin.name()));
            }
        }
        if let Some(earlier) = brought.get(&(registry.to_owned(), blob.digest))
            && mounts(earlier)
        {
            return (How::Mount, Some(earlier.name()));
        }
        let elsewhere = if store.has_whole(blob) { None } else { origins.first() };
        (How::Upload, elsewhere.map(Reference::name))
    }
}
