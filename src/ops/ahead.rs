//! What goes to an image's destinations while it is being made, ahead of the push: the layers as they
//! are compressed, and meanwhile the base's. A failure is no more than a delay, since the push that
//! follows sends what is missing; only that one moves tags.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Scope;

use crate::oci::Descriptor;
use crate::registry::Repository;
use crate::report::{Report, Task, Unit};
use crate::store::{Growing, Store};
use crate::transfer;

use super::access::Origins;

/// The way ahead for one platform.
pub(super) struct Ahead<'a> {
    store: &'a Store,
    origins: &'a Origins<'a>,
    base: &'a [Descriptor],
    repositories: &'a [Repository],
    report: &'a dyn Report,
    begun: AtomicBool,
    stop: AtomicBool,
}

impl<'a> Ahead<'a> {
    /// Prepares to send to these repositories, which may be none.
    pub(super) fn new(
        store: &'a Store,
        origins: &'a Origins<'a>,
        base: &'a [Descriptor],
        repositories: &'a [Repository],
        report: &'a dyn Report,
    ) -> Ahead<'a> {
        let (begun, stop) = (AtomicBool::new(false), AtomicBool::new(false));
        Ahead { store, origins, base, repositories, report, begun, stop }
    }

    /// Takes a layer that is beginning to be written. The threads end with it, whole or given up.
    pub(super) fn begun<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        layer: &str,
        blob: &Growing,
    ) {
        // Not before the first layer: until then the line is the base's own, on its way into trees.
        let first = !self.begun.swap(true, Ordering::Relaxed);
        for repository in self.repositories {
            let (layer, blob) = (layer.to_owned(), blob.clone());
            scope.spawn(move || self.layer(&layer, &blob, repository));
            if first {
                scope.spawn(move || self.base(repository));
            }
        }
    }

    /// Has what is still on its way end soon, unless the image was made.
    pub(super) fn end(&self, made: bool) {
        self.stop.store(!made, Ordering::Relaxed);
    }

    fn layer(&self, layer: &str, blob: &Growing, repository: &Repository) {
        let task = Task::start(self.report, format!("send {layer}"), None, Unit::Bytes);
        match repository.put_growing(blob.open(), || blob.digest(), &task) {
            Ok(Some(_)) => task.finish("done"),
            Ok(None) => {}
            Err(error) => self.report.detail(&format!(
                "{layer} could not be sent to {} while it was made: {error}",
                repository.name()
            )),
        }
    }

    fn base(&self, repository: &Repository) {
        let options = transfer::Options {
            // The layers themselves shall not wait for a line that is full of the base.
            jobs: 2,
            fallbacks: vec![self.origins],
            ..transfer::Options::default()
        };
        let blobs = self.base.to_vec();
        let (stop, report) = (&self.stop, self.report);
        if let Err(error) =
            transfer::copy_blobs(self.store, repository, blobs, &options, stop, report)
        {
            let name = repository.name();
            report.detail(&format!("the base could not be sent to {name} ahead: {error}"));
        }
    }
}
