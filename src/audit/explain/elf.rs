//! Programs and libraries: which sections differ, and the build id.

use std::collections::BTreeMap;

use object::read::{File, Object as _, ObjectSection as _};

use super::super::cause::{Cause, Found};
use super::super::mask;
use super::{Explained, Parts, part};

/// Sections that name a build rather than being one.
const OF_THE_BUILD: [&str; 2] = [".note.gnu.build-id", ".gnu_debuglink"];

/// Explains two ELF files; `None` where one is damaged.
pub(super) fn explain(a: &[u8], b: &[u8]) -> Option<Explained> {
    let (old, new) = (File::parse(a).ok()?, File::parse(b).ok()?);
    let (mine, theirs) = (sections(&old), sections(&new));
    let mut names: Vec<&String> = mine.keys().chain(theirs.keys()).collect();
    // What names the build follows from the rest, and comes after it.
    names.sort_by_key(|name| (OF_THE_BUILD.contains(&name.as_str()), *name));
    names.dedup();
    let mut parts = Parts::default();
    for name in names {
        let (old_bytes, new_bytes) = match (mine.get(name), theirs.get(name)) {
            (Some(a), Some(b)) if a == b => continue,
            (Some(a), Some(b)) => (a, b),
            (Some(_), None) => {
                parts.push(part(name.clone(), "removed"), None);
                continue;
            }
            (None, _) => {
                parts.push(part(name.clone(), "added"), None);
                continue;
            }
        };
        let what = if name == OF_THE_BUILD[0] {
            format!("build id {} -> {}", id(&old), id(&new))
        } else {
            format!("{} -> {} bytes", old_bytes.len(), new_bytes.len())
        };
        let found = if OF_THE_BUILD.contains(&name.as_str()) {
            let alone = Found::guess(Cause::BuildPath, "what names the build alone: its id");
            Some(parts.found.clone().unwrap_or(alone))
        } else {
            mask::guess(old_bytes, new_bytes)
        };
        parts.push(part(name.clone(), what), found);
    }
    if parts.is_empty() {
        // The headers, or what no section covers.
        parts.push(part("headers", "bytes outside of all sections"), None);
    }
    Some(parts.finish("elf", "sections"))
}

fn sections<'d>(file: &File<'d>) -> BTreeMap<String, &'d [u8]> {
    let mut found = BTreeMap::new();
    for (number, section) in file.sections().enumerate() {
        let name = section.name().unwrap_or_default();
        if let Ok(data) = section.data() {
            let mut key = name.to_owned();
            if found.contains_key(&key) {
                key = format!("{name} ({number})");
            }
            found.insert(key, data);
        }
    }
    found
}

fn id(file: &File<'_>) -> String {
    match file.build_id() {
        Ok(Some(id)) => id.iter().map(|byte| format!("{byte:02x}")).collect(),
        _ => "none".to_owned(),
    }
}
