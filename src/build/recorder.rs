//! The recorder of a build: one authority and one place for bodies, and for each layer a log of its
//! own.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Error;
use super::inputs::Inputs;
use super::trust::Certificate;
use crate::http::Client;
use crate::netlog::{Authority, Fetch, Mode, Netlog, Options};
use crate::report::Report;
use crate::store::Store;

/// What stands between the steps of a build and the network.
pub struct Recorder {
    authority: Arc<Authority>,
    certificate: Certificate,
    inputs: Arc<Inputs>,
    client: Client,
    report: Arc<dyn Report>,
    /// What the steps of a layer may ask for, by its name; a layer that is not here is recorded.
    pub replay: BTreeMap<String, Vec<Fetch>>,
    /// Whether a replayed body that the store lacks may be fetched again.
    pub upstream: bool,
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder").field("authority", &self.authority).finish_non_exhaustive()
    }
}

impl Recorder {
    /// Makes one that records; bodies go to the store, and requests through the client.
    pub fn new(store: &Store, client: Client, report: Arc<dyn Report>) -> Result<Recorder, Error> {
        let authority = Arc::new(Authority::new()?);
        Ok(Recorder {
            certificate: Certificate::of(&authority),
            authority,
            inputs: Arc::new(Inputs::new(store)),
            client,
            report,
            replay: BTreeMap::new(),
            upstream: true,
        })
    }

    pub(super) fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Begins the log of a layer.
    pub(super) fn begin(&self, layer: &str) -> Result<Netlog, Error> {
        let mode = match self.replay.get(layer) {
            None => Mode::Record,
            Some(fetches) => Mode::Replay { fetches: fetches.clone(), upstream: self.upstream },
        };
        Ok(Netlog::new(Options {
            authority: Arc::clone(&self.authority),
            bodies: Arc::<Inputs>::clone(&self.inputs),
            client: self.client.clone(),
            mode,
            report: Arc::clone(&self.report),
        })?)
    }

    /// Waits until all bodies are in the store.
    pub(super) fn settle(&self) -> Result<(), Error> {
        Ok(self.inputs.settle()?)
    }
}
