//! A lock's file into a [`Lock`].

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::{Base, Layer, Lock, Section, VERSION};
use crate::netlog::Fetch;
use crate::oci::{Digest, Platform, Reference};
use crate::text::{File, Item, Problems, Table, Text};

/// The most bytes of a lock: some ten thousand answers for each of three platforms.
const LIMIT: u64 = 16 << 20;

/// Reads a lock that may be there; `None` when there is none, or a wrong one.
pub fn load(path: &Path, problems: &Problems) -> Option<Lock> {
    if path.symlink_metadata().is_err() {
        return None;
    }
    read(path, problems)
}

/// Reads a lock that has to be there.
pub fn read(path: &Path, problems: &Problems) -> Option<Lock> {
    parse(&File::read_up_to(path, LIMIT, problems)?, problems)
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
        // What another version says would only read as mistakes.
        return None;
    }
    let rules = table.required_text("rules", "\"1\"");
    if !table.has("base") {
        table.missing("base", "{ reference = \"…\", digest = \"sha256:…\" }");
    }
    let base = table.table("base").and_then(base);
    let mut platforms = BTreeMap::new();
    for (name, span, inner) in table.table("platform").map(Table::into_tables).unwrap_or_default() {
        match name.parse::<Platform>() {
            Err(error) => problems.meaning(file, span, error.to_string()),
            Ok(platform) => {
                platforms.extend(section(inner).map(|section| (platform.to_string(), section)));
            }
        }
    }
    table.finish(&[]);
    let lock = Lock { rules: rules?.value, base: base?, platforms };
    (problems.count() == before).then_some(lock)
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(
    table: &Table<'_>,
    text: Option<Text>,
) -> Option<T> {
    let text = text?;
    match text.value.parse() {
        Ok(value) => Some(value),
        Err(error) => {
            table.wrong(text.span, error.to_string());
            None
        }
    }
}

fn base(mut table: Table<'_>) -> Option<Base> {
    let reference = table.required_text("reference", "\"quay.io/jupyter/minimal-notebook\"");
    let reference: Option<Reference> = parsed(&table, reference);
    let digest = table.required_text("digest", "\"sha256:…\"");
    let digest: Option<Digest> = parsed(&table, digest);
    table.finish(&[]);
    Some(Base { reference: reference?, digest: digest? })
}

fn section(mut table: Table<'_>) -> Option<Section> {
    let base = table.required_text("base", "\"sha256:…\"");
    let base: Option<Digest> = parsed(&table, base);
    let mut layers = BTreeMap::new();
    for (name, _, inner) in table.table("layer").map(Table::into_tables).unwrap_or_default() {
        layers.extend(layer(inner).map(|layer| (name, layer)));
    }
    table.finish(&[]);
    Some(Section { base: base?, layers })
}

fn layer(mut table: Table<'_>) -> Option<Layer> {
    if !table.has("source-date") {
        table.missing("source-date", "1739188800");
    }
    let date = table.integer("source-date").and_then(|(seconds, span)| {
        if seconds < 0 {
            table.wrong(span, "a date before 1970");
            return None;
        }
        Some(seconds)
    });
    let items = table.list("fetches").map(|(items, _)| items).unwrap_or_default();
    let mut fetches = Vec::with_capacity(items.len());
    for item in items {
        let span = item.span();
        if !matches!(item, Item::Table(_)) {
            table.mistyped("an item of fetches", "a table", &item);
            continue;
        }
        match serde_json::from_value::<Fetch>(item.into_json()) {
            Ok(fetch) => fetches.push(fetch),
            Err(error) => table.problems().shape(table.file(), span, error.to_string()),
        }
    }
    table.finish(&[]);
    Some(Layer::new(date?, fetches))
}
