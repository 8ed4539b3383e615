//! The one order in which an image moves: what is below first, the name last.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::oci::{Descriptor, Digest, Document, Index, Platform, media_type};
use crate::report::{Report, STOPPED, Task, Unit};

use super::verify::Marks;
use super::{Body, Error, Placed, Sink, Source, Stream, Verify};

/// Indexes may lie in indexes; nobody nests them deeper than this.
pub(super) const DEEPEST: usize = 4;

/// What a copy may do.
pub struct Options<'a> {
    /// How many blobs move at once.
    pub jobs: usize,
    /// The platforms to bring; `None` is all of them. The index is copied as it is, so only a sink
    /// that accepts one with entries missing (a store, not a registry) takes part of an image.
    pub platforms: Option<Vec<Platform>>,
    /// Where else a blob may be found, asked in this order when the source does not give it.
    pub fallbacks: Vec<&'a dyn Source>,
    /// Leave the layers where they are, for a sink that can do without (a store).
    pub without_layers: bool,
}

impl std::fmt::Debug for Options<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("jobs", &self.jobs)
            .field("platforms", &self.platforms)
            .field("fallbacks", &self.fallbacks.len())
            .field("without_layers", &self.without_layers)
            .finish()
    }
}

impl Default for Options<'_> {
    fn default() -> Self {
        Options { jobs: 4, platforms: None, fallbacks: Vec::new(), without_layers: false }
    }
}

/// What a copy did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Blobs whose bytes were moved.
    pub written: u64,
    /// How many bytes those have.
    pub bytes: u64,
    /// Blobs that were there.
    pub existed: u64,
    /// Blobs that the sink took from a repository beside it.
    pub mounted: u64,
    /// Manifests and indexes that were moved.
    pub documents: u64,
}

impl std::ops::AddAssign for Summary {
    fn add_assign(&mut self, other: Summary) {
        self.written += other.written;
        self.bytes += other.bytes;
        self.existed += other.existed;
        self.mounted += other.mounted;
        self.documents += other.documents;
    }
}

/// Returns the entries of an index that a choice of platforms takes, in the index's order.
///
/// # Errors
/// Each wanted platform must be there; what is for no platform at all (attestations) comes only
/// where everything does.
pub fn select(
    digest: Digest,
    index: &Index,
    wanted: Option<&[Platform]>,
) -> Result<Vec<Descriptor>, Error> {
    let Some(wanted) = wanted else { return Ok(index.manifests.clone()) };
    let mut chosen = Vec::new();
    for platform in wanted {
        let Some(entry) = index.find(platform) else {
            let offered = index.manifests.iter().filter_map(|entry| entry.platform.clone());
            return Err(Error::NoPlatform {
                index: digest,
                wanted: Box::new(platform.clone()),
                offered: offered.filter(|has| has.architecture != "unknown").collect(),
            });
        };
        if !chosen.contains(entry) {
            chosen.push(entry.clone());
        }
    }
    Ok(chosen)
}

/// Copies a document and all below it, then the tags. Blobs and documents that the sink has are not
/// moved. Every document that was is read back by digest before a tag is set.
pub fn copy(
    source: &dyn Source,
    sink: &dyn Sink,
    root: &Document,
    tags: &[String],
    options: &Options<'_>,
    report: &dyn Report,
) -> Result<Summary, Error> {
    let mut walk = Walk {
        source,
        sink,
        options,
        documents: Vec::new(),
        blobs: BTreeMap::new(),
        configs: BTreeMap::new(),
    };
    walk.visit(root.clone(), options.platforms.as_deref(), 0)?;
    let Walk { documents, blobs, mut configs, .. } = walk;
    configs.retain(|digest, _| !blobs.contains_key(digest));
    let mut summary = Summary::default();
    // Configs come when all that they tell of is there.
    for blobs in [blobs, configs] {
        let blobs = blobs.into_values().collect();
        summary += copy_blobs(source, sink, blobs, options, &AtomicBool::new(false), report)?;
    }
    for document in &documents {
        sink.put_document(document, None)?;
        confirm(sink, document)?;
        summary.documents += 1;
    }
    for tag in tags {
        sink.put_document(root, Some(tag))?;
    }
    Ok(summary)
}

/// Reads a document back by digest; [`Error::ReadBack`] where other bytes come.
pub fn confirm(sink: &dyn Sink, document: &Document) -> Result<(), Error> {
    if sink.read_back(&document.descriptor())?.bytes() == document.bytes() {
        Ok(())
    } else {
        Err(Error::ReadBack { digest: document.digest() })
    }
}

struct Walk<'a> {
    source: &'a dyn Source,
    sink: &'a dyn Sink,
    options: &'a Options<'a>,
    /// Children before parents.
    documents: Vec<Document>,
    blobs: BTreeMap<Digest, Descriptor>,
    configs: BTreeMap<Digest, Descriptor>,
}

impl Walk<'_> {
    /// Notes what is missing at the sink below a document, and the document after it.
    fn visit(
        &mut self,
        document: Document,
        wanted: Option<&[Platform]>,
        depth: usize,
    ) -> Result<(), Error> {
        if self.documents.iter().any(|seen| seen.digest() == document.digest())
            || self.sink.has_document(&document.descriptor())?
        {
            return Ok(());
        }
        if document.is_index() {
            if depth == DEEPEST {
                return Err(Error::TooDeep { index: document.digest() });
            }
            for entry in select(document.digest(), &document.index()?, wanted)? {
                if media_type::is_index(&entry.media_type)
                    || media_type::is_manifest(&entry.media_type)
                {
                    let child = self.child(&entry)?;
                    self.visit(child, None, depth + 1)?;
                } else {
                    self.blobs.entry(entry.digest).or_insert(entry);
                }
            }
        } else {
            let manifest = document.manifest()?;
            let layers = if self.options.without_layers { Vec::new() } else { manifest.layers };
            for blob in layers {
                self.blobs.entry(blob.digest).or_insert(blob);
            }
            self.configs.entry(manifest.config.digest).or_insert(manifest.config);
        }
        self.documents.push(document);
        Ok(())
    }

    fn child(&self, entry: &Descriptor) -> Result<Document, Error> {
        first_of(self.source, &self.options.fallbacks, |source| source.document(entry))
    }
}

/// Asks the source, then the fallbacks; if none answers, the source's own error counts.
pub(super) fn first_of<'s, T>(
    source: &'s dyn Source,
    fallbacks: &[&'s dyn Source],
    ask: impl Fn(&'s dyn Source) -> Result<T, Error>,
) -> Result<T, Error> {
    let error = match ask(source) {
        Ok(answer) => return Ok(answer),
        Err(error) => error,
    };
    fallbacks.iter().find_map(|other| ask(*other).ok()).ok_or(error)
}

/// Copies blobs and nothing over them, which the sink may drop again. It fails with
/// [`Error::Stopped`] soon after somebody sets `stop`.
pub fn copy_blobs(
    source: &dyn Source,
    sink: &dyn Sink,
    mut blobs: Vec<Descriptor>,
    options: &Options<'_>,
    stop: &AtomicBool,
    report: &dyn Report,
) -> Result<Summary, Error> {
    // The largest first: what takes longest must not start last. Ties by digest, for a stable order.
    blobs.sort_by(|a, b| b.size.cmp(&a.size).then(a.digest.cmp(&b.digest)));
    let next = AtomicUsize::new(0);
    let state = Mutex::new((Summary::default(), None::<Error>));
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let Some(blob) = blobs.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
            let result = copy_blob(source, sink, blob, options, stop, report);
            // A thread that panicked while it held the lock has left whole numbers behind.
            let mut state = state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            match result {
                Ok(Placed::Written) => {
                    state.0.written += 1;
                    state.0.bytes += blob.size;
                }
                Ok(Placed::Existed) => state.0.existed += 1,
                Ok(Placed::Mounted) => state.0.mounted += 1,
                Err(error) => {
                    stop.store(true, Ordering::Relaxed);
                    // The first failure is the cause; the others only followed.
                    state.1.get_or_insert(error);
                }
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..options.jobs.min(blobs.len()) {
            scope.spawn(work);
        }
        work();
    });
    match state.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        (_, Some(error)) => Err(error),
        (summary, None) => Ok(summary),
    }
}

fn copy_blob(
    source: &dyn Source,
    sink: &dyn Sink,
    blob: &Descriptor,
    options: &Options<'_>,
    stop: &AtomicBool,
    report: &dyn Report,
) -> Result<Placed, Error> {
    let task = Task::start(report, blob.digest.short(), Some(blob.size), Unit::Bytes);
    match sink.has_blob(blob) {
        Ok(false) => {}
        Ok(true) => {
            task.finish("exists");
            return Ok(Placed::Existed);
        }
        Err(error) => {
            if stop.load(Ordering::Relaxed) {
                task.finish(STOPPED);
            }
            return Err(error);
        }
    }
    let mut origins = source.origins(blob);
    for other in &options.fallbacks {
        origins.extend(other.origins(blob));
    }
    let marks = Arc::new(Marks::default());
    let open = |offset: u64| -> Result<Stream<'_>, Error> {
        let mark = marks.before(offset);
        let at = mark.at;
        let stream = first_of(source, &options.fallbacks, |source| source.blob(blob, at))?;
        let mut inner = Verify::from_mark(stream, blob, mark, &marks);
        io::copy(&mut inner.by_ref().take(offset - at), &mut io::sink())
            .map_err(|error| Error::of_stream(blob.digest, error))?;
        Ok(Box::new(Stoppable { inner, stop }))
    };
    let body = Body::new(&open, &origins);
    let placed = match sink.put_blob(blob, &body, &task) {
        // It is not this one's fault.
        Err(error) if stop.load(Ordering::Relaxed) => {
            task.finish(STOPPED);
            return Err(error);
        }
        // Bytes that were changed on the way may come right the second time.
        Err(error @ (Error::WrongDigest { .. } | Error::TooShort { .. })) => {
            report.detail(&format!("{error}; asking once more"));
            marks.clear();
            for one in options.fallbacks.iter().copied().chain([source]) {
                one.distrust(blob.digest);
            }
            sink.put_blob(blob, &body, &task)?
        }
        placed => placed?,
    };
    task.finish(match placed {
        Placed::Written => "done",
        Placed::Existed => "exists",
        Placed::Mounted => "mounted",
    });
    Ok(placed)
}

/// Ends a stream with an error as soon as another transfer has failed.
struct Stoppable<'a, R> {
    inner: R,
    stop: &'a AtomicBool,
}

impl<R: Read> Read for Stoppable<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Error::Stopped.into());
        }
        self.inner.read(buffer)
    }
}
