//! `manifests/NAME.lock`: what was chosen for a definition, so that it can be chosen again.
//!
//! Written and read as TOML: `lock` is the format's version, `[base]` pins the base for each
//! platform, `[source-dates]` says the date of each layer in seconds since 1970. It holds no
//! digest of an output.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use serde_json::json;

use crate::oci::{Digest, Platform, Reference, json as canonical};
use crate::text::{File, Problems, Span, Table};

/// The format's version that is written here.
pub const VERSION: i64 = 1;

/// What was chosen for a definition.
#[derive(Clone, Debug)]
pub struct Lock {
    /// The file.
    pub file: Arc<File>,
    /// The base as it was.
    pub base: Option<Base>,
    /// The date of each layer, in seconds since 1970.
    pub source_dates: BTreeMap<String, i64>,
    /// Where the dates stand.
    pub source_date_spans: BTreeMap<String, Span>,
}

/// A base as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Base {
    /// The definition's word for it.
    pub reference: Reference,
    /// What that named: an index, or a manifest where there is no index.
    pub digest: Digest,
    /// The manifest for each platform, as `linux/amd64`.
    pub platforms: BTreeMap<String, Digest>,
    /// Where it stands in the file.
    #[serde(skip)]
    pub span: Span,
}

impl Lock {
    /// Returns the digest of what is chosen, whatever the file's comments and its order.
    pub fn digest(&self) -> Result<Digest, canonical::EncodeError> {
        let value = json!({
            "lock": VERSION,
            "base": self.base,
            "source-dates": self.source_dates,
        });
        Ok(Digest::of(&canonical::encode(&value)?))
    }

    /// Returns the base's manifest for a platform.
    pub fn base_manifest(&self, platform: &Platform) -> Option<Digest> {
        self.base.as_ref()?.platforms.get(&platform.to_string()).copied()
    }
}

/// Reads the lock that lies beside a definition; `None` when there is none, or a wrong one.
pub fn load_beside(definition: &Path, problems: &Problems) -> Option<Lock> {
    let path = definition.with_extension("lock");
    if path.symlink_metadata().is_err() {
        return None;
    }
    parse(&File::read(&path, problems)?, problems)
}

/// Reads a lock's text.
pub fn parse(file: &Arc<File>, problems: &Problems) -> Option<Lock> {
    let before = problems.count();
    let mut table = Table::read(file, problems);
    if !table.has("lock") {
        table.missing("lock", &VERSION.to_string());
    }
    if let Some((version, span)) = table.integer("lock")
        && version != VERSION
    {
        let message = format!(
            "this lock has version {version}; this ocibuild reads {VERSION}: lock again, or use \
             the ocibuild that wrote it"
        );
        problems.meaning(file, span, message);
        // What a newer version says would only read as mistakes.
        return None;
    }
    let base = table.table("base").and_then(base);
    let dates = table.table("source-dates").map(dates).unwrap_or_default();
    table.finish(&[]);
    (problems.count() == before).then(|| Lock {
        file: Arc::clone(file),
        base,
        source_dates: dates.iter().map(|(name, (date, _))| (name.clone(), *date)).collect(),
        source_date_spans: dates.into_iter().map(|(name, (_, span))| (name, span)).collect(),
    })
}

fn base(mut table: Table<'_>) -> Option<Base> {
    let span = table.span();
    let reference = table.required_text("reference", "\"quay.io/jupyter/minimal-notebook\"");
    let reference = reference.and_then(|text| match text.value.parse::<Reference>() {
        Ok(reference) => Some(reference),
        Err(error) => {
            table.wrong(text.span, error.to_string());
            None
        }
    });
    let digest = table.required_text("digest", "\"sha256:…\"");
    let digest = digest.and_then(|text| match text.value.parse::<Digest>() {
        Ok(digest) => Some(digest),
        Err(error) => {
            table.wrong(text.span, error.to_string());
            None
        }
    });
    let mut platforms = BTreeMap::new();
    for (name, (key, text)) in table.map("platforms").unwrap_or_default() {
        match (name.parse::<Platform>(), text.value.parse::<Digest>()) {
            (Err(error), _) => table.wrong(key, error.to_string()),
            (_, Err(error)) => table.wrong(text.span, error.to_string()),
            (Ok(platform), Ok(digest)) => {
                platforms.insert(platform.to_string(), digest);
            }
        }
    }
    table.finish(&[]);
    Some(Base { reference: reference?, digest: digest?, platforms, span })
}

fn dates(table: Table<'_>) -> BTreeMap<String, (i64, Span)> {
    let (file, problems) = (table.file(), table.problems());
    let mut dates = BTreeMap::new();
    for (name, seconds, span) in table.into_integers() {
        if seconds < 0 {
            problems.meaning(file, span, "a date before 1970");
        } else {
            dates.insert(name, (seconds, span));
        }
    }
    dates
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_lock_and_refuses_a_newer_one() {
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let text = format!(
            "lock = 1\n[base]\nreference = 'quay.io/a/b:t'\ndigest = 'sha256:{hex}'\n\
             [base.platforms]\n'linux/amd64' = 'sha256:{hex}'\n[source-dates]\nr = 1700000000\n"
        );
        let problems = Problems::new();
        let lock = parse(&File::of_text("ml.lock", text.clone()), &problems);
        let lock = problems.finish(lock).unwrap();
        assert_eq!(lock.source_dates["r"], 1_700_000_000);
        assert!(lock.base_manifest(&Platform::linux("amd64")).is_some());
        assert!(lock.base_manifest(&Platform::linux("arm64")).is_none());

        let problems = Problems::new();
        let commented = File::of_text("ml.lock", format!("# again\n{text}"));
        assert_eq!(parse(&commented, &problems).unwrap().digest().unwrap(), lock.digest().unwrap());

        let problems = Problems::new();
        let newer = parse(&File::of_text("ml.lock", "lock = 2\nnews = true\n"), &problems);
        let error = problems.finish(newer).unwrap_err();
        assert_eq!(error.problems().len(), 1);
        assert!(error.problems()[0].message.contains("version 2"));
    }
}
