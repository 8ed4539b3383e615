//! Ends the steps that run when the process is about to end.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::sandbox::Cancel;

static RUNNING: Mutex<Vec<Weak<Cancel>>> = Mutex::new(Vec::new());

/// Returns a handle for one step, which [`stop_steps`] triggers as long as the step holds it.
pub(super) fn register() -> Arc<Cancel> {
    let cancel = Arc::new(Cancel::default());
    let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    running.retain(|other| other.strong_count() > 0);
    running.push(Arc::downgrade(&cancel));
    cancel
}

/// Kills every step that runs in this process.
pub fn stop_steps() {
    let running = std::mem::take(&mut *RUNNING.lock().unwrap_or_else(PoisonError::into_inner));
    for cancel in running.iter().filter_map(Weak::upgrade) {
        cancel.trigger();
    }
}
