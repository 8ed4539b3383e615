//! `copy`: an image or an index from registry to registry, byte for byte, without touching the disk.

use serde::Serialize;

use crate::oci::{Descriptor, Digest, Document, Reference, media_type};
use crate::registry::Repository;
use crate::transfer::{self, Sink, Source};

use super::{Access, Context, Error};

/// Referrers have referrers (the signature of an SBOM); nobody goes deeper.
const DEEPEST: usize = 4;

/// What to copy.
#[derive(Clone, Debug)]
pub struct CopyOptions {
    /// The image.
    pub source: Reference,
    /// Its new name. One with a digest and no tag moves no tag.
    pub destination: Reference,
    /// Further tags to move.
    pub tags: Vec<String>,
    /// Take along what refers to the image: signatures, SBOMs, attestations.
    pub referrers: bool,
    /// How many blobs travel at once.
    pub jobs: usize,
    /// How to reach the registries; a login is the destination's.
    pub access: Access,
}

/// What was copied.
#[derive(Clone, Debug, Serialize)]
pub struct CopyReport {
    /// The image.
    pub source: Reference,
    /// Its new name.
    pub destination: Reference,
    /// What both now stand for.
    pub digest: Digest,
    /// Blobs that were sent, those of referrers too.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blobs that were there.
    pub existed: u64,
    /// Blobs that the registry took from another repository of its own.
    pub mounted: u64,
    /// What refers to the image and came along.
    pub referrers: Vec<Digest>,
}

/// Copies an image. The tags move when all of it is there, its referrers too.
pub fn copy(options: &CopyOptions, context: &Context<'_>) -> Result<CopyReport, Error> {
    let registries = options.access.registries([&options.destination], context)?;
    let source = registries.open(&options.source);
    let destination = registries.open(&options.destination);
    let root = source.document(&source.resolve(&options.source)?)?;
    if let Some(wanted) = options.destination.digest()
        && wanted != root.digest()
    {
        return Err(Error::Usage(format!(
            "{} is {}, which `{}` cannot name",
            options.source,
            root.digest(),
            options.destination
        )));
    }
    let copy = transfer::Options { jobs: options.jobs, ..transfer::Options::default() };
    let report = context.report.as_ref();
    report.note(&format!("copying {} to {}", options.source, options.destination));
    let mut summary = transfer::copy(&source, &destination, &root, &[], &copy, report)?;
    let mut along = Vec::new();
    if options.referrers {
        let mut subjects = vec![root.digest()];
        if root.is_index() {
            let index = root.index().map_err(transfer::Error::from)?;
            subjects.extend(index.manifests.iter().map(|entry| entry.digest));
        }
        for _ in 0..DEEPEST {
            let mut next = Vec::new();
            for subject in subjects {
                for entry in source.referrers(subject).map_err(transfer::Error::from)? {
                    if along.contains(&entry.digest) || entry.digest == root.digest() {
                        continue;
                    }
                    let (document, moved) = bring(&entry, &source, &destination, &copy, context)?;
                    summary += moved;
                    along.push(document.digest());
                    next.push(document.digest());
                }
            }
            subjects = next;
        }
    }
    transfer::confirm(&destination, &root)?;
    let own = match (options.destination.tag(), options.destination.digest()) {
        (Some(tag), _) => Some(tag),
        (None, Some(_)) => None,
        (None, None) => Some("latest"),
    };
    for tag in own.into_iter().chain(options.tags.iter().map(String::as_str)) {
        destination.put_document(&root, Some(tag))?;
    }
    Ok(CopyReport {
        source: options.source.clone(),
        destination: options.destination.clone(),
        digest: root.digest(),
        blobs: summary.written,
        bytes: summary.bytes,
        existed: summary.existed,
        mounted: summary.mounted,
        referrers: along,
    })
}

/// Copies one referrer, and has the destination list it.
fn bring(
    entry: &Descriptor,
    source: &Repository,
    destination: &Repository,
    options: &transfer::Options<'_>,
    context: &Context<'_>,
) -> Result<(Document, transfer::Summary), Error> {
    let mut entry = entry.clone();
    if !media_type::is_index(&entry.media_type) && !media_type::is_manifest(&entry.media_type) {
        media_type::MANIFEST.clone_into(&mut entry.media_type);
    }
    let document = source.document(&entry)?;
    let report = context.report.as_ref();
    let summary = transfer::copy(source, destination, &document, &[], options, report)?;
    // One that was there already may have lost its place in the list to a push that broke off.
    destination.list_referrer(&document)?;
    Ok((document, summary))
}
