//! Verifies a whole store: every blob against its name, and every name down to its layers.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::Store;
use super::error::Error;
use crate::disk::{self, At};
use crate::oci::{Descriptor, Digest, Hasher, media_type};
use crate::report::{Report, Task, Unit};

/// Something wrong with a store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Problem {
    /// A blob is not what its name says.
    #[error("{} holds {found}", path.display())]
    Corrupt {
        /// The blob's file.
        path: PathBuf,
        /// What its name says.
        digest: Digest,
        /// What it is.
        found: Digest,
    },
    /// A document that is needed, or its size, does not fit what points to it.
    #[error("{digest}, which {parent} needs, is {what}")]
    Unfit {
        /// The document or blob.
        digest: Digest,
        /// What points to it.
        parent: String,
        /// What is the matter, in a word or two.
        what: String,
    },
    /// Something lies among the blobs that is none.
    #[error("{} is no blob", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
}

impl Store {
    /// Hashes every blob, `threads` at a time, and follows every name; returns all that is wrong.
    /// A layer that is missing is no problem where its origin is known.
    pub fn verify(&self, threads: usize, report: &dyn Report) -> Result<Vec<Problem>, Error> {
        let dir = self.path("blobs/sha256");
        let mut problems = BTreeSet::new();
        let mut blobs = Vec::new();
        for name in disk::list(&dir)? {
            let path = dir.join(&name);
            match name.to_str().and_then(|hex| format!("sha256:{hex}").parse::<Digest>().ok()) {
                Some(digest) if path.is_file() => blobs.push((digest, path)),
                _ => {
                    problems.insert(Problem::Foreign { path });
                }
            }
        }
        problems.extend(hash_all(&blobs, threads, report)?);
        let damaged: BTreeSet<Digest> = problems
            .iter()
            .filter_map(|problem| match problem {
                Problem::Corrupt { digest, .. } => Some(*digest),
                _ => None,
            })
            .collect();
        for (name, descriptor) in self.names()? {
            self.follow(&descriptor, &name.to_string(), &damaged, &mut problems)?;
        }
        Ok(problems.into_iter().collect())
    }

    fn follow(
        &self,
        descriptor: &Descriptor,
        parent: &str,
        damaged: &BTreeSet<Digest>,
        problems: &mut BTreeSet<Problem>,
    ) -> Result<(), Error> {
        let digest = descriptor.digest;
        let mut unfit = |what: &str| {
            let (parent, what) = (parent.to_owned(), what.to_owned());
            problems.insert(Problem::Unfit { digest, parent, what });
        };
        let is_document = media_type::is_index(&descriptor.media_type)
            || media_type::is_manifest(&descriptor.media_type);
        if !self.has(&digest) {
            // Of an index, entries for other platforms may never have been fetched.
            if self.origins(&digest)?.is_empty() && !is_document {
                unfit("missing");
            }
            return Ok(());
        }
        if damaged.contains(&digest) {
            // Told already, with the file.
            return Ok(());
        }
        if !self.has_whole(descriptor) {
            unfit("of another size");
            return Ok(());
        }
        if !is_document {
            return Ok(());
        }
        let document = match self.document(descriptor) {
            Ok(document) => document,
            Err(Error::Document(error)) => {
                unfit(&error.to_string());
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let children = if document.is_index() {
            document.index()?.manifests
        } else {
            let manifest = document.manifest()?;
            manifest.layers.into_iter().chain([manifest.config]).collect()
        };
        for child in &children {
            self.follow(child, &digest.to_string(), damaged, problems)?;
        }
        Ok(())
    }
}

fn hash_all(
    blobs: &[(Digest, PathBuf)],
    threads: usize,
    report: &dyn Report,
) -> Result<Vec<Problem>, Error> {
    let total =
        blobs.iter().filter_map(|(_, path)| path.metadata().ok()).map(|data| data.len()).sum();
    let task = Task::start(report, "verify the store".to_owned(), Some(total), Unit::Bytes);
    let next = AtomicUsize::new(0);
    let found = Mutex::new((Vec::new(), None));
    thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                while let Some((digest, path)) = blobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let hashed = hash(path, &task);
                    let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                    match hashed {
                        Ok(found) if found == *digest => {}
                        Ok(other) => {
                            found.0.push(Problem::Corrupt {
                                path: path.clone(),
                                digest: *digest,
                                found: other,
                            });
                        }
                        Err(error) => found.1 = Some(error),
                    }
                }
            });
        }
    });
    match found.into_inner().unwrap_or_else(PoisonError::into_inner) {
        (_, Some(error)) => Err(error.into()),
        (problems, None) => {
            task.finish("done");
            Ok(problems)
        }
    }
}

fn hash(path: &Path, task: &Task<'_>) -> Result<Digest, disk::Error> {
    let mut file = File::open(path).at("open", path)?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        let read = file.read(&mut buffer).at("read", path)?;
        if read == 0 {
            return Ok(hasher.finish());
        }
        hasher.update(&buffer[..read]);
        task.advance(read as u64);
    }
}
