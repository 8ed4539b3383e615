//! What the machine allows, with what to do where it doesn't.

/// Something that the machine lacks.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct Lack {
    text: String,
    fix: String,
}

impl Lack {
    /// Returns what to do about it.
    pub fn fix(&self) -> String {
        self.fix.clone()
    }
}

/// How well something works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// As it should.
    Works,
    /// Not, but a build gets along without.
    Missing,
    /// Not, and no build is possible without.
    Broken,
}

/// What was found out about one thing, for `doctor`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The thing, as `user namespaces`.
    pub subject: &'static str,
    /// How well it works.
    pub state: State,
    /// What was seen.
    pub detail: String,
    /// What to do about it.
    pub fix: Option<String>,
}

/// Examines what a build needs of the machine, without changing anything.
pub fn examine() -> Vec<Finding> {
    Vec::new()
}
