//! What a rule would do to a file that lies in no tree: for who wants to know whether a difference
//! between two copies is one that the rule covers.

use super::python;
use super::rules::{Act, Rule};
use super::{LIMIT, Times, glob};

/// What a rule does to a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    Untouched,
    /// It is not there afterwards.
    Removed,
    /// It is empty afterwards.
    Emptied,
    /// It has this content afterwards.
    Rewritten(Vec<u8>),
}

impl Rule {
    /// Tells whether the rule is about a path, given from the root without a slash in front.
    pub fn is_about(&self, path: &[u8]) -> bool {
        self.paths.iter().any(|pattern| glob::matches(pattern, path))
    }

    /// Tells what the rule would do to a file that it is about, if all its times were the run's.
    pub fn effect(&self, content: &[u8]) -> Effect {
        let times = Times { start: i64::MIN / 2, end: i64::MAX / 2, source_date: 0 };
        match self.act {
            Act::Remove => Effect::Removed,
            Act::Empty => Effect::Emptied,
            Act::Rewrite(rewrite) if content.len() as u64 <= LIMIT => {
                rewrite(content, &times).map_or(Effect::Untouched, Effect::Rewritten)
            }
            Act::Compiled => {
                python::with_stamp(content, 0).map_or(Effect::Untouched, Effect::Rewritten)
            }
            Act::Rewrite(_) | Act::Times => Effect::Untouched,
        }
    }
}
