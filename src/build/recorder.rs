//! The recorder of a build: one authority and one place for bodies, and for each layer a log of its
//! own.

use std::sync::{Arc, OnceLock};

use super::Error;
use super::inputs::Inputs;
use super::trust::Certificate;
use crate::http::Client;
use crate::netlog::{Authority, Earlier, Mode, Netlog, Options};
use crate::plan::Layer;
use crate::report::Report;
use crate::store::Store;

/// What stands between the steps of a build and the network.
pub struct Recorder {
    authority: Arc<Authority>,
    certificate: Certificate,
    inputs: Arc<Inputs>,
    store: Store,
    /// What earlier builds recorded, read when the first layer needs it.
    earlier: OnceLock<Arc<Earlier>>,
    client: Client,
    report: Arc<dyn Report>,
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
            store: store.clone(),
            earlier: OnceLock::new(),
            client,
            report,
        })
    }

    pub(super) fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Begins the log of a layer. A locked one is answered from its lock; what is listed there and
    /// the store lacks comes from its URL.
    pub(super) fn begin(&self, layer: &Layer) -> Result<Netlog, Error> {
        let mode = match &layer.pins {
            None => Mode::Record,
            Some(pins) => Mode::Replay {
                fetches: pins.fetches.to_vec(),
                upstream: !self.client.config().offline,
            },
        };
        let earlier = match (&layer.pins, self.earlier.get()) {
            (Some(_), _) => Arc::default(),
            (None, Some(earlier)) => Arc::clone(earlier),
            (None, None) => {
                let read = Arc::new(Earlier::new(self.store.all_fetches()?));
                Arc::clone(self.earlier.get_or_init(|| read))
            }
        };
        Ok(Netlog::new(Options {
            authority: Arc::clone(&self.authority),
            bodies: Arc::<Inputs>::clone(&self.inputs),
            client: self.client.clone(),
            mode,
            earlier,
            report: Arc::clone(&self.report),
        })?)
    }

    /// Waits until all bodies are in the store.
    pub(super) fn settle(&self) -> Result<(), Error> {
        Ok(self.inputs.settle()?)
    }
}
