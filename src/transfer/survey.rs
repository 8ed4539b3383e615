//! What a copy would find at its sink. Nothing is moved.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::oci::{Descriptor, Digest, Document, media_type};

use super::copy::{DEEPEST, first_of};
use super::{Error, Options, Sink, Source};

/// What a sink has of an image, and what it lacks.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// Manifests and indexes that it lacks, children before parents.
    pub documents: Vec<Descriptor>,
    /// How many it has.
    pub known_documents: u64,
    /// All blobs by digest, and whether it has them.
    pub blobs: Vec<(Descriptor, bool)>,
}

/// Asks a sink what it has of a document and all below it.
pub fn survey(
    source: &dyn Source,
    sink: &dyn Sink,
    root: &Document,
    options: &Options<'_>,
) -> Result<Survey, Error> {
    let mut look = Look {
        source,
        sink,
        options,
        seen: Vec::new(),
        survey: Survey::default(),
        blobs: BTreeMap::new(),
    };
    look.visit(root, false, 0)?;
    let Look { mut survey, blobs, .. } = look;
    survey.blobs = ask_for_blobs(sink, blobs.into_values().collect(), options.jobs)?;
    Ok(survey)
}

struct Look<'a> {
    source: &'a dyn Source,
    sink: &'a dyn Sink,
    options: &'a Options<'a>,
    seen: Vec<Digest>,
    survey: Survey,
    /// With whether a document that the sink has vouches for them.
    blobs: BTreeMap<Digest, (Descriptor, bool)>,
}

impl Look<'_> {
    fn visit(&mut self, document: &Document, within: bool, depth: usize) -> Result<(), Error> {
        if self.seen.contains(&document.digest()) {
            return Ok(());
        }
        self.seen.push(document.digest());
        let here = within || self.sink.has_document(&document.descriptor())?;
        if !document.is_index() {
            let manifest = document.manifest()?;
            for blob in manifest.layers.into_iter().chain([manifest.config]) {
                self.note(blob, here);
            }
        } else if depth == DEEPEST {
            return Err(Error::TooDeep { index: document.digest() });
        } else {
            for entry in document.index()?.manifests {
                let nested = media_type::is_index(&entry.media_type)
                    || media_type::is_manifest(&entry.media_type);
                if !nested {
                    self.note(entry, here);
                    continue;
                }
                match first_of(self.source, &self.options.fallbacks, |from| from.document(&entry)) {
                    Ok(child) => self.visit(&child, here, depth + 1)?,
                    // It would not be read, since all below its index is there.
                    Err(_) if here => self.survey.known_documents += 1,
                    Err(error) => return Err(error),
                }
            }
        }
        if here {
            self.survey.known_documents += 1;
        } else {
            self.survey.documents.push(document.descriptor());
        }
        Ok(())
    }

    fn note(&mut self, blob: Descriptor, here: bool) {
        let known = self.blobs.entry(blob.digest).or_insert((blob, here));
        known.1 |= here;
    }
}

/// Asks for the blobs for which no document vouches, several at a time.
fn ask_for_blobs(
    sink: &dyn Sink,
    mut blobs: Vec<(Descriptor, bool)>,
    jobs: usize,
) -> Result<Vec<(Descriptor, bool)>, Error> {
    let unknown: Vec<usize> =
        blobs.iter().enumerate().filter(|(_, (_, here))| !here).map(|(at, _)| at).collect();
    let next = AtomicUsize::new(0);
    let answers = Mutex::new(Vec::new());
    let ask = || {
        while let Some(at) = unknown.get(next.fetch_add(1, Ordering::Relaxed)) {
            let answer = sink.has_blob(&blobs[*at].0);
            let failed = answer.is_err();
            answers.lock().unwrap_or_else(PoisonError::into_inner).push((*at, answer));
            if failed {
                next.store(unknown.len(), Ordering::Relaxed);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..jobs.min(unknown.len()) {
            scope.spawn(ask);
        }
        ask();
    });
    for (at, answer) in answers.into_inner().unwrap_or_else(PoisonError::into_inner) {
        blobs[at].1 = answer?;
    }
    Ok(blobs)
}
