//! What is attached to an image in its registry: listed, read, and sent.

use serde_json::Value;

use crate::describe::sign::{Bundle, Simple};
use crate::describe::sources::SOURCES;
use crate::describe::{Artifact, Statement, statement};
use crate::oci::{Descriptor, Digest, Document, Platform, Reference, media_type};
use crate::registry::Repository;
use crate::store::Store;
use crate::transfer::{self, Source};

use super::{Access, Context, Error, inspect};

/// The type of an attached SPDX document in JSON.
pub(super) const SPDX: &str = "application/spdx+json";

/// The type of an attached statement without a signature.
pub(super) const STATEMENT: &str = "application/vnd.in-toto+json";

/// The most bytes of an attached document that are read.
const LIMIT: u64 = 64 << 20;

/// A document that refers to an image.
#[derive(Clone, Debug)]
pub(super) struct Attached {
    /// What it is.
    pub(super) artifact_type: String,
    /// The document itself.
    pub(super) bytes: Vec<u8>,
}

/// Reads what is attached to an image of the kinds that are known here.
pub(super) fn list(registry: &Repository, subject: Digest) -> Result<Vec<Attached>, Error> {
    let mut found = Vec::new();
    for mut entry in registry.referrers(subject)? {
        let Some(kind) = entry.artifact_type() else { continue };
        let artifact_type = kind.to_owned();
        if !Bundle::is_type(kind) && !matches!(kind, SPDX | STATEMENT | SOURCES) {
            continue;
        }
        media_type::MANIFEST.clone_into(&mut entry.media_type);
        let manifest = registry.document(&entry)?.manifest().map_err(transfer::Error::from)?;
        let [layer] = manifest.layers.as_slice() else { continue };
        let bytes = transfer::fetch(registry, layer, LIMIT)?;
        found.push(Attached { artifact_type, bytes });
    }
    Ok(found)
}

/// Whose document is wanted.
pub(super) struct Wanted<'a> {
    /// The image.
    pub(super) reference: &'a Reference,
    /// The platform; `None` is this machine's, or the only one.
    pub(super) platform: Option<&'a Platform>,
    /// Ask the registry even where the store has an image of that name.
    pub(super) remote: bool,
    /// How to reach the registry.
    pub(super) access: &'a Access,
    /// The kind that it is kept under in the store.
    pub(super) kind: &'a str,
}

/// Finds a document beside an image: in the store, else in its registry, where `read` tells it from
/// what else is attached. Returns the image's digest, too.
pub(super) fn find(
    wanted: &Wanted<'_>,
    read: &dyn Fn(&Attached, Digest) -> Option<Vec<u8>>,
    context: &Context<'_>,
) -> Result<(Digest, Option<Vec<u8>>), Error> {
    let Wanted { reference, platform, .. } = wanted;
    let store = context.open()?;
    let registries = wanted.access.registries([*reference], context)?;
    let found = if wanted.remote { None } else { store.resolve(reference)? };
    let of = |list: &[Attached], digest| list.iter().find_map(|one| read(one, digest));
    if let Some(descriptor) = found {
        let document = Source::document(&store, &descriptor)?;
        let here = |entry: &Descriptor| store.has_whole(entry);
        let chosen = inspect::choose(reference, *platform, &document, &store, &here)?;
        let digest = chosen.entry.digest;
        if let Some(bytes) = kept(digest, wanted.kind, &store)? {
            return Ok((digest, Some(bytes)));
        }
        // A pulled image's is still there; of others the name need not be a registry's.
        let list = list(&registries.open(reference), digest).unwrap_or_else(|error| {
            context.report.detail(&format!("{reference}: {error}"));
            Vec::new()
        });
        return Ok((digest, of(&list, digest)));
    }
    let registry = registries.open(reference);
    let document = registry.document(&registry.resolve(reference)?)?;
    let chosen = inspect::choose(reference, *platform, &document, &registry, &|_| true)?;
    let digest = chosen.entry.digest;
    Ok((digest, of(&list(&registry, digest)?, digest)))
}

/// Returns the statement that an attached document makes of an image, if it is one without a
/// signature.
pub(super) fn as_statement(one: &Attached, subject: Digest) -> Result<Option<Vec<u8>>, Error> {
    match one.artifact_type.as_str() {
        SPDX => {
            let Ok(document) = serde_json::from_slice::<Value>(&one.bytes) else { return Ok(None) };
            Ok(Some(Statement::encode(&[(None, subject)], statement::SPDX, &document)?))
        }
        STATEMENT => {
            let about = Statement::read(&one.bytes).is_some_and(|read| read.is_about(subject));
            Ok(about.then(|| one.bytes.clone()))
        }
        _ => Ok(None),
    }
}

/// Sends what refers to an image, and sees to it that it is listed.
pub(super) fn push(
    artifact: &Artifact,
    registry: &Repository,
    context: &Context<'_>,
) -> Result<Digest, Error> {
    let options = transfer::Options::default();
    let (document, report) = (&artifact.document, context.report.as_ref());
    transfer::copy(artifact, registry, document, &[], &options, report)?;
    registry.list_referrer(document)?;
    Ok(document.digest())
}

/// Sends signatures of the older form under their image's tag.
pub(super) fn push_tagged(
    signatures: &[Simple],
    tag: &str,
    registry: &Repository,
    context: &Context<'_>,
) -> Result<(), Error> {
    let blobs = signatures.iter().map(|one| (one.layer.clone(), one.payload.clone())).collect();
    let artifact = Artifact::signatures(blobs)?;
    let options = transfer::Options::default();
    let report = context.report.as_ref();
    let tags = [tag.to_owned()];
    transfer::copy(&artifact, registry, &artifact.document, &tags, &options, report)?;
    Ok(())
}

/// Keeps what refers to an image beside it in the store, in place of what was of its kind.
pub(super) fn keep(
    artifact: &Artifact,
    subject: Digest,
    kind: &str,
    store: &Store,
) -> Result<(), Error> {
    for bytes in artifact.blobs().values() {
        store.put_bytes(bytes)?;
    }
    store.put_document(&artifact.document)?;
    Ok(store.set_referrer(&subject, kind, &artifact.document.descriptor())?)
}

/// Returns the document of a kind that is kept beside an image of the store.
pub(super) fn kept(subject: Digest, kind: &str, store: &Store) -> Result<Option<Vec<u8>>, Error> {
    let all = store.referrers(&subject)?;
    let Some((_, entry)) = all.into_iter().find(|(has, _)| has == kind) else { return Ok(None) };
    let manifest = store.document(&entry)?.manifest().map_err(transfer::Error::from)?;
    let [layer] = manifest.layers.as_slice() else { return Ok(None) };
    Ok(Some(transfer::fetch(store, layer, LIMIT)?))
}

/// Sends what refers to a document of the store, and to the images below it, to where these are by
/// now; returns what was sent or was there.
pub(super) fn push_kept(
    document: &Document,
    wanted: &dyn Fn(&str) -> bool,
    registry: &Repository,
    store: &Store,
    context: &Context<'_>,
) -> Result<Vec<Digest>, Error> {
    let mut subjects = vec![document.digest()];
    if document.is_index() {
        let index = document.index().map_err(transfer::Error::from)?;
        subjects.extend(index.manifests.iter().map(|entry| entry.digest));
    }
    let options = transfer::Options::default();
    let report = context.report.as_ref();
    let mut sent = Vec::new();
    for subject in subjects {
        for (kind, entry) in store.referrers(&subject)? {
            if !wanted(&kind) {
                continue;
            }
            let document = store.document(&entry)?;
            transfer::copy(store, registry, &document, &[], &options, report)?;
            // One that was there already may have lost its place in the list to a push that broke off.
            registry.list_referrer(&document)?;
            sent.push(document.digest());
        }
    }
    Ok(sent)
}
