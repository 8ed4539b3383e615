//! `push`: an image of the store to its registry and its further destinations, the same bytes to
//! each. A destination's tag moves when everything below it is there.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use serde::Serialize;

use crate::oci::{Digest, Document, Reference};
use crate::registry::{Registries, Repository};
use crate::store::Store;
use crate::transfer::{self, Sink};

use super::Access;
use super::access::Origins;
use super::destinations::{destinations, documents, images};
use super::{Context, Error, attach, inputs, inspect, provenance, sbom};

/// What to push.
#[derive(Clone, Debug)]
pub struct PushOptions {
    /// Names in the store; none is all that were built here.
    pub references: Vec<Reference>,
    /// Other names to push to, in place of the image's own.
    pub to: Vec<Reference>,
    /// Leave out the definition's further destinations.
    pub only: bool,
    /// Push the platforms' manifests by digest, and move no tag.
    pub by_digest: bool,
    /// Further tags to move.
    pub tags: Vec<String>,
    /// Send everything, but move no tag.
    pub hold_tags: bool,
    /// What to send along of what is known of the images.
    pub attest: Attest,
    /// Whether the inputs that the lock lists go along.
    pub inputs: Inputs,
    /// How many blobs travel at once, to all destinations together.
    pub jobs: usize,
    /// How to reach registries.
    pub access: Access,
}

impl PushOptions {
    /// Tells whether what refers to an image of the store in a kind goes along.
    fn sends(&self, kind: &str) -> bool {
        match (kind, self.attest) {
            (inputs::INPUTS_KIND, _) => self.inputs != Inputs::None,
            (_, Attest::All) => true,
            (kind, Attest::Provenance) => kind == provenance::KIND,
            (_, Attest::None) => false,
        }
    }

    /// Pushes everything that was built to where its definition says.
    pub fn new(access: Access) -> PushOptions {
        PushOptions {
            references: Vec::new(),
            to: Vec::new(),
            only: false,
            by_digest: false,
            tags: Vec::new(),
            hold_tags: false,
            attest: Attest::All,
            inputs: Inputs::None,
            jobs: 4,
            access,
        }
    }
}

/// What goes with an image that was built here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Attest {
    /// Its packages, how it was built, and of a locked one definition, recipes and lock.
    #[default]
    All,
    /// How it was built, which takes no reading of layers.
    Provenance,
    /// Nothing.
    None,
}

/// Which inputs of a locked image go along.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Inputs {
    /// None.
    #[default]
    None,
    /// All, unless one came with credentials, which is an error.
    Public,
    /// All.
    All,
}

/// What was pushed where.
#[derive(Clone, Debug, Serialize)]
pub struct PushReport {
    /// The image's name in the store.
    pub image: Reference,
    /// Where it was pushed to.
    pub destination: Reference,
    /// What the destination now has: the index, or with `by_digest` a platform's manifest.
    pub digest: Digest,
    /// The tags that were moved.
    pub tags: Vec<String>,
    /// Blobs that were sent.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blobs that were there.
    pub existed: u64,
    /// Blobs that the registry took from another repository of its own.
    pub mounted: u64,
    /// What refers to the image and was sent along, or was there.
    pub attached: Vec<Digest>,
}

/// What came of pushing: a destination that fails doesn't undo what is done.
#[derive(Debug)]
#[must_use = "a failure may be in it"]
pub struct Pushed {
    /// What is finished, tags included.
    pub done: Vec<PushReport>,
    /// The first failure; the others were told as warnings.
    pub failure: Option<Error>,
}

/// One destination of an image, and what it is to get.
pub(super) struct Way<'a> {
    pub(super) image: Reference,
    pub(super) destination: Reference,
    pub(super) documents: Arc<[Document]>,
    pub(super) registry: Repository,
    pub(super) origins: Origins<'a>,
}

/// Pushes images: everything below the tags to all destinations at once, then it is read back
/// everywhere, and only then tags move. A destination that fails keeps no other from its tags; one
/// that holds something else than the store does keeps all. After an image that failed somewhere no
/// other is begun.
pub fn push(options: &PushOptions, context: &Context<'_>) -> Result<Pushed, Error> {
    let store = context.open()?;
    let (_, ways) = ways(options, &store, context)?;
    let mut pushed = Pushed { done: Vec::new(), failure: None };
    for of_image in &ways {
        if let (Inputs::Public | Inputs::All, Some(way)) = (options.inputs, of_image.first()) {
            let yes = options.inputs == Inputs::All;
            for document in way.documents.iter() {
                inputs::keep_inputs(&way.image, document, yes, &store)?;
            }
        }
        if let (Attest::All, Some(way)) = (options.attest, of_image.first()) {
            for document in way.documents.iter() {
                sbom::keep(&way.image, document, &way.origins, &store, context)?;
            }
        }
        pushed.failure = push_image(of_image, options, &store, context, &mut pushed.done).err();
        if pushed.failure.is_some() {
            break;
        }
    }
    Ok(pushed)
}

/// Finds what goes where: for each image its destinations.
pub(super) fn ways<'a>(
    options: &PushOptions,
    store: &'a Store,
    context: &Context<'_>,
) -> Result<(Registries, Vec<Vec<Way<'a>>>), Error> {
    let mut pushes = Vec::new();
    for image in images(options, store)? {
        let destinations = destinations(&image, options, store)?;
        pushes.push((image, destinations));
    }
    // An image's first destination is the one that was named; the definition's further ones have
    // their own credentials.
    let named = pushes.iter().filter_map(|(_, destinations)| destinations.first());
    let registries = options.access.registries(named, context)?;
    let mut ways = Vec::new();
    for (image, destinations) in pushes {
        let documents: Arc<[Document]> = documents(&image, options.by_digest, store)?.into();
        let mut blobs = Vec::new();
        for document in documents.iter() {
            for (_, manifest) in inspect::manifests(&image, document, store)? {
                blobs.extend(manifest.layers);
            }
        }
        let mut of_image = Vec::new();
        for destination in destinations {
            of_image.push(Way {
                image: image.clone(),
                documents: Arc::clone(&documents),
                registry: registries.open(&destination),
                destination,
                // Base layers that no step had to see were never here; they come from their registry.
                origins: Origins::new(store, &registries, &blobs)?,
            });
        }
        ways.push(of_image);
    }
    Ok((registries, ways))
}

/// What came of sending to one destination.
type Sent = Result<Vec<PushReport>, Error>;

/// Pushes one image; what is finished goes to `done`, whatever fails.
fn push_image(
    ways: &[Way<'_>],
    options: &PushOptions,
    store: &Store,
    context: &Context<'_>,
    done: &mut Vec<PushReport>,
) -> Result<(), Error> {
    // Within a registry one after the other: the second repository then mounts what the first got.
    let mut hosts: BTreeMap<&str, Vec<&Way<'_>>> = BTreeMap::new();
    for way in ways {
        hosts.entry(way.destination.registry()).or_default().push(way);
    }
    let jobs = (options.jobs / hosts.len().max(1)).max(1);
    let sent = Mutex::new(Vec::new());
    let send = |ways: &[&Way<'_>]| -> Vec<Sent> {
        ways.iter().map(|way| way.send(jobs, options, store, context)).collect()
    };
    thread::scope(|scope| {
        for ways in hosts.values() {
            let (sent, send) = (&sent, &send);
            scope.spawn(move || {
                let results = send(ways);
                let mut sent = sent.lock().unwrap_or_else(PoisonError::into_inner);
                sent.extend(ways.iter().copied().zip(results));
            });
        }
    });
    let mut sent = sent.into_inner().unwrap_or_else(PoisonError::into_inner);
    sent.sort_by_key(|(way, _)| ways.iter().position(|one| one.destination == way.destination));
    for (way, result) in &sent {
        if result.is_ok() {
            way.check()?;
        }
    }
    let (mut reports, mut failed) = (Vec::new(), Vec::new());
    for (way, result) in sent {
        match result.and_then(|reports| way.tag(reports, options)) {
            Ok(done) => reports.extend(done),
            Err(error) => failed.push((&way.destination, error)),
        }
    }
    if !failed.is_empty() {
        for report in &reports {
            context.report.note(&format!("{} is done", report.destination));
        }
    }
    done.extend(reports);
    first_failure(failed, context)
}

/// Returns the first failure, and tells of the others.
pub(super) fn first_failure(
    failed: Vec<(&Reference, Error)>,
    context: &Context<'_>,
) -> Result<(), Error> {
    for (destination, error) in failed.iter().skip(1) {
        context.report.warning(&format!("{destination} failed, too: {error}"));
    }
    failed.into_iter().next().map_or(Ok(()), |(_, error)| Err(error))
}

impl Way<'_> {
    /// Sends everything below the tags.
    fn send(
        &self,
        jobs: usize,
        what: &PushOptions,
        store: &Store,
        context: &Context<'_>,
    ) -> Result<Vec<PushReport>, Error> {
        let Way { image, destination, .. } = self;
        let report = context.report.as_ref();
        report.note(&format!("pushing {image} to {destination}"));
        let mut reports = Vec::new();
        for document in self.documents.iter() {
            let copy = transfer::Options {
                jobs,
                fallbacks: vec![&self.origins],
                ..transfer::Options::default()
            };
            let summary = transfer::copy(store, &self.registry, document, &[], &copy, report)?;
            note_origins(store, document, destination)?;
            let wanted = |kind: &str| what.sends(kind);
            let attached = attach::push_kept(document, &wanted, &self.registry, store, context)?;
            reports.push(PushReport {
                image: image.clone(),
                destination: destination.clone(),
                digest: document.digest(),
                tags: Vec::new(),
                blobs: summary.written,
                bytes: summary.bytes,
                existed: summary.existed,
                mounted: summary.mounted,
                attached,
            });
        }
        Ok(reports)
    }

    /// Reads back what the tags are to stand for, and sees that every platform of it is there.
    fn check(&self) -> Result<(), Error> {
        for document in self.documents.iter() {
            transfer::confirm(&self.registry, document)?;
            if !document.is_index() {
                continue;
            }
            for entry in document.index().map_err(transfer::Error::from)?.manifests {
                if !self.registry.has_document(&entry)? {
                    return Err(Error::PlatformLost {
                        destination: self.destination.clone(),
                        manifest: entry.digest,
                    });
                }
            }
        }
        Ok(())
    }

    /// Returns the tags that are to move.
    pub(super) fn tags(&self, options: &PushOptions) -> Vec<String> {
        if options.by_digest || options.hold_tags {
            return Vec::new();
        }
        let own = self.destination.tag().unwrap_or("latest").to_owned();
        std::iter::once(own).chain(options.tags.iter().cloned()).collect()
    }

    /// Moves the tags.
    fn tag(
        &self,
        mut reports: Vec<PushReport>,
        options: &PushOptions,
    ) -> Result<Vec<PushReport>, Error> {
        for (document, report) in self.documents.iter().zip(&mut reports) {
            for tag in self.tags(options) {
                self.registry.put_document(document, Some(&tag))?;
                report.tags.push(tag);
            }
        }
        Ok(reports)
    }
}

/// Remembers that the destination's registry now has these blobs: a later push can mount them.
fn note_origins(store: &Store, document: &Document, destination: &Reference) -> Result<(), Error> {
    let mut digests = Vec::new();
    for (_, manifest) in inspect::manifests(destination, document, store)? {
        let blobs = manifest.layers.iter().chain([&manifest.config]);
        digests.extend(blobs.map(|blob| blob.digest));
    }
    store.add_origins(&digests, destination)?;
    Ok(())
}
