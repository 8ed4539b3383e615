//! What an audit comes to, and what it found on the way; `schemas/audit.schema.json` has the JSON form.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

use crate::audit::{Comparison, PlatformComparison, Verdict};
use crate::describe::audited::Outcome;
use crate::oci::Digest;
use crate::ops::SignedReport;

/// What an audit comes to. The numbers are exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuditVerdict {
    /// The same digest.
    Reproduced,
    /// Other content.
    Differs,
    /// The same content in other documents or compression, or differences that rules of
    /// normalisation cover.
    Equivalent,
    /// No lock, or not the one that the image names.
    NoInputs,
    /// Bodies of the lock that are not to be had, or are not what was recorded.
    InputsMissing,
    /// A step that failed, or asked for what is not in the lock.
    RebuildFailed,
    /// None of the keys that were given signed the image.
    SignatureInvalid,
}

impl AuditVerdict {
    /// Returns the exit code.
    pub fn exit_code(self) -> u8 {
        match self {
            AuditVerdict::Reproduced => 0,
            AuditVerdict::Differs => 11,
            AuditVerdict::Equivalent => 13,
            AuditVerdict::NoInputs => 14,
            AuditVerdict::InputsMissing => 15,
            AuditVerdict::RebuildFailed => 16,
            AuditVerdict::SignatureInvalid => 17,
        }
    }

    /// Returns the word that a report begins with.
    pub fn word(self) -> &'static str {
        match self {
            AuditVerdict::Reproduced => "REPRODUCED",
            AuditVerdict::Differs => "DIFFERS",
            AuditVerdict::Equivalent => "EQUIVALENT",
            AuditVerdict::NoInputs => "NO INPUTS",
            AuditVerdict::InputsMissing => "INPUTS MISSING",
            AuditVerdict::RebuildFailed => "REBUILD FAILED",
            AuditVerdict::SignatureInvalid => "SIGNATURE INVALID",
        }
    }

    /// Judges a comparison.
    pub(in crate::ops) fn of(comparison: &Comparison) -> AuditVerdict {
        let documents = match comparison.verdict {
            Verdict::Identical => Outcome::Reproduced,
            Verdict::Equivalent | Verdict::Differs => Outcome::Equivalent,
        };
        let platforms = comparison.platforms.iter().map(outcome_of);
        AuditVerdict::from(platforms.fold(documents, Outcome::max))
    }

    /// Returns what it says of the image; `None` where nothing was compared.
    pub(super) fn outcome(self) -> Option<Outcome> {
        match self {
            AuditVerdict::Reproduced => Some(Outcome::Reproduced),
            AuditVerdict::Equivalent => Some(Outcome::Equivalent),
            AuditVerdict::Differs => Some(Outcome::Differs),
            _ => None,
        }
    }
}

impl From<Outcome> for AuditVerdict {
    fn from(outcome: Outcome) -> AuditVerdict {
        match outcome {
            Outcome::Reproduced => AuditVerdict::Reproduced,
            Outcome::Equivalent => AuditVerdict::Equivalent,
            Outcome::Differs => AuditVerdict::Differs,
        }
    }
}

/// Judges one platform: files that only differ by what rules of normalisation cover are equivalent.
pub(super) fn outcome_of(platform: &PlatformComparison) -> Outcome {
    match platform.verdict {
        Verdict::Identical => Outcome::Reproduced,
        Verdict::Equivalent => Outcome::Equivalent,
        Verdict::Differs => {
            let mut differences =
                platform.layers.iter().flat_map(|layer| &layer.differences).peekable();
            let both = platform.manifest.a.is_some() && platform.manifest.b.is_some();
            let some = differences.peek().is_some();
            if both && some && differences.all(|difference| difference.rule.is_some()) {
                Outcome::Equivalent
            } else {
                Outcome::Differs
            }
        }
    }
}

/// What an audit found.
#[derive(Clone, Debug, Serialize)]
pub struct AuditReport {
    /// The version of this form.
    pub schema: u32,
    /// The image, as it was called.
    pub image: String,
    /// Its digest.
    pub digest: Digest,
    /// What it comes to.
    pub verdict: AuditVerdict,
    /// The exit code that says so.
    pub exit_code: u8,
    /// Why, where nothing could be compared.
    pub reason: Vec<String>,
    /// What to do then.
    pub hint: Option<String>,
    /// The definition that was built again.
    pub definition: Option<PathBuf>,
    /// How its steps were run: `root`, `range` or `single`.
    pub mode: Option<String>,
    /// What the lock lists.
    pub inputs: Option<InputsReport>,
    /// The digest of what was built.
    pub rebuilt: Option<Digest>,
    /// What differs, where something does: the first is the image, the second what was built.
    pub comparison: Option<Comparison>,
    /// The signed statements about it, one for each document of the image that was built again.
    pub attested: Vec<SignedReport>,
}

/// What a lock lists.
#[derive(Clone, Debug, Default, Serialize)]
pub struct InputsReport {
    /// Answers of the network.
    pub fetches: usize,
    /// Their bodies, each once.
    pub bodies: usize,
    /// The bodies' bytes.
    pub bytes: u64,
    /// Bodies that the store had whole.
    pub here: usize,
    /// How many answers each authority vouches for.
    pub authorities: BTreeMap<String, usize>,
}
