//! What an audit came to, as a statement about the image: in-toto's predicate `test-result`, with one
//! test for the index and one for each platform, and below `DETAILS` what it has no member for.
//!
//! ```text
//! result         PASSED: the same digest; WARNED: the same content; FAILED: other content
//! configuration  the locks that were built from, and the program that built
//! ```
//! There is no time in it and no name of a machine: whoever audits the same with the same program in
//! the same mode says the same. `schemas/audited.schema.json` has the predicate.

use serde_json::{Value, json};

use super::provenance::Builder;
use super::{Error, Statement};
use crate::oci::Digest;

/// The predicate's type.
pub const AUDITED: &str = "https://in-toto.io/attestation/test-result/v0.1";

/// The member of the predicate that holds what only this program says; a URI, as in-toto asks of
/// members of one's own.
const DETAILS: &str = "https://github.com/rocker-org/ocibuild/audit/v1";

/// What a rebuilt image or platform is to the published one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// The same digest.
    Reproduced,
    /// The same content in another form.
    Equivalent,
    /// Other content.
    Differs,
}

impl Outcome {
    const ALL: [Outcome; 3] = [Outcome::Reproduced, Outcome::Equivalent, Outcome::Differs];

    /// Returns the verdict's name.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Reproduced => "reproduced",
            Outcome::Equivalent => "equivalent",
            Outcome::Differs => "differs",
        }
    }

    fn result(self) -> &'static str {
        match self {
            Outcome::Reproduced => "PASSED",
            Outcome::Equivalent => "WARNED",
            Outcome::Differs => "FAILED",
        }
    }
}

/// One platform that was built again.
#[derive(Clone, Debug)]
pub struct AuditedPlatform {
    /// Which.
    pub platform: String,
    /// What was published.
    pub manifest: Digest,
    /// What was built.
    pub rebuilt: Digest,
    /// The lock's section for it, by the image's label.
    pub lock: Digest,
    /// What the second is to the first.
    pub outcome: Outcome,
    /// How many paths differ, and how many of them have no known cause.
    pub paths: (usize, usize),
}

/// What an audit found.
#[derive(Clone, Debug)]
pub struct Audited {
    /// The image's index, where all of its platforms were built again.
    pub index: Option<(Digest, Digest)>,
    /// What the whole comes to.
    pub outcome: Outcome,
    /// The platforms.
    pub platforms: Vec<AuditedPlatform>,
    /// The rules of normalisation.
    pub rules: String,
    /// How the builder was root.
    pub mode: String,
    /// Answers of the network that were given again.
    pub fetches: usize,
    /// Whether bodies had to be fetched from where they were recorded.
    pub fetched: bool,
    /// The program.
    pub builder: Builder,
}

impl Audited {
    /// Returns the statement's bytes. Its subjects are the index and the platforms' manifests.
    pub fn statement(&self, image: &str) -> Result<Vec<u8>, Error> {
        let manifests = self.platforms.iter().map(|one| one.manifest);
        let index = self.index.map(|(published, _)| published);
        let subjects: Vec<_> =
            index.into_iter().chain(manifests).map(|digest| (Some(image), digest)).collect();
        Statement::encode(&subjects, AUDITED, &self.predicate())
    }

    fn predicate(&self) -> Value {
        let of_index = self.index.map(|(published, rebuilt)| {
            let same = published == rebuilt;
            ("index", if same { Outcome::Reproduced } else { self.outcome })
        });
        let of_platforms = self.platforms.iter().map(|one| (one.platform.as_str(), one.outcome));
        let tests: Vec<(&str, Outcome)> = of_index.into_iter().chain(of_platforms).collect();
        let with = |outcome| -> Vec<&str> {
            tests.iter().filter(|(_, has)| *has == outcome).map(|(name, _)| *name).collect()
        };
        let locks = self.platforms.iter().map(|one| {
            json!({ "name": format!("lock for {}", one.platform), "digest": sha256(one.lock) })
        });
        let program = json!({
            "name": "ocibuild",
            "digest": sha256(self.builder.executable),
            "annotations": { "version": self.builder.version },
        });
        let platforms: Vec<Value> = self.platforms.iter().map(platform).collect();
        json!({
            "result": self.outcome.result(),
            "configuration": locks.chain([program]).collect::<Vec<Value>>(),
            "passedTests": with(Outcome::Reproduced),
            "warnedTests": with(Outcome::Equivalent),
            "failedTests": with(Outcome::Differs),
            DETAILS: {
                "verdict": self.outcome.name(),
                "mode": self.mode,
                "rules": self.rules,
                "inputs": { "fetches": self.fetches, "fromUpstream": self.fetched },
                "platforms": platforms,
            },
        })
    }
}

fn platform(one: &AuditedPlatform) -> Value {
    let (paths, unexplained) = one.paths;
    json!({
        "platform": one.platform,
        "manifest": one.manifest,
        "rebuilt": one.rebuilt,
        "lock": one.lock,
        "verdict": one.outcome.name(),
        "differing": { "paths": paths, "unexplained": unexplained },
    })
}

fn sha256(digest: Digest) -> Value {
    json!({ "sha256": digest.hex() })
}

/// What somebody's statement says of an audit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// What it came to.
    pub outcome: Outcome,
    /// How the builder was root.
    pub mode: String,
    /// The program's release.
    pub version: String,
}

/// Reads what a statement says of an audit of one of its subjects; `None` where it is about something
/// else.
pub fn read(statement: &Statement, subject: Digest) -> Option<Claimed> {
    if statement.predicate_type != AUDITED || !statement.is_about(subject) {
        return None;
    }
    let details = statement.predicate.get(DETAILS)?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let subject = subject.to_string();
    // A platform may be what the whole is not.
    let own = details["platforms"].as_array()?.iter().find(|one| one["manifest"] == *subject);
    let verdict = own.map_or(&details["verdict"], |one| &one["verdict"]);
    let outcome = *Outcome::ALL.iter().find(|outcome| *verdict == outcome.name())?;
    let configuration = statement.predicate["configuration"].as_array()?;
    let program = configuration.iter().find(|one| one["name"] == "ocibuild")?;
    Some(Claimed {
        outcome,
        mode: text(&details["mode"])?,
        version: text(&program["annotations"]["version"])?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(outcome: Outcome) -> AuditedPlatform {
        AuditedPlatform {
            platform: format!("linux/{}", outcome.name()),
            manifest: Digest::of(outcome.name().as_bytes()),
            rebuilt: Digest::of(b"rebuilt"),
            lock: Digest::of(b"lock"),
            outcome,
            paths: (0, 0),
        }
    }

    #[test]
    fn the_whole_and_each_platform_have_a_verdict_of_their_own() {
        let index = Digest::of(b"index");
        let audited = Audited {
            index: Some((index, Digest::of(b"other"))),
            outcome: Outcome::Differs,
            platforms: vec![of(Outcome::Reproduced), of(Outcome::Differs)],
            rules: "n1".to_owned(),
            mode: "range".to_owned(),
            fetches: 3,
            fetched: false,
            builder: Builder { version: "1.2.3".to_owned(), executable: Digest::of(b"program") },
        };
        let bytes = audited.statement("localhost/built").unwrap();
        let statement = Statement::read(&bytes).unwrap();
        let outcome = |subject| read(&statement, subject).map(|claimed| claimed.outcome);
        assert_eq!(outcome(index), Some(Outcome::Differs));
        assert_eq!(outcome(Digest::of(b"reproduced")), Some(Outcome::Reproduced));
        assert_eq!(outcome(Digest::of(b"differs")), Some(Outcome::Differs));
        assert_eq!(outcome(Digest::of(b"rebuilt")), None, "it is no subject");
        let predicate = &statement.predicate;
        assert_eq!(predicate["result"], "FAILED");
        assert_eq!(predicate["failedTests"], json!(["index", "linux/differs"]));
        assert_eq!(predicate["passedTests"], json!(["linux/reproduced"]));
        let claimed = read(&statement, index).unwrap();
        assert_eq!((claimed.mode.as_str(), claimed.version.as_str()), ("range", "1.2.3"));
    }
}
