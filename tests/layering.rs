//! Which room may use which, and that no test is forgotten.
//!
//! The table is the architecture: a new room or a new arrow is a line here, to be looked at hard.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A room, and the rooms that it may use. In reading order: arrows point up the list only.
const ROOMS: &[(&str, &[&str])] = &[
    // Ground: knows nothing of building.
    ("fault", &[]),
    ("report", &[]),
    ("oci", &[]),
    ("disk", &["fault"]),
    ("text", &["fault", "disk"]),
    // Means: each does one thing to bytes or processes.
    ("http", &["fault", "report"]),
    ("netlog", &["fault", "report", "oci", "disk", "http"]),
    ("transfer", &["fault", "report", "oci"]),
    ("store", &["fault", "report", "oci", "disk", "transfer"]),
    ("registry", &["fault", "report", "oci", "disk", "http", "transfer"]),
    ("rootfs", &["fault", "report", "oci", "disk"]),
    ("changes", &["fault", "disk", "rootfs"]),
    ("layer", &["fault", "report", "oci", "disk", "rootfs", "changes"]),
    ("sandbox", &["fault", "report", "oci", "disk", "rootfs"]),
    ("packages", &[]),
    // Intent: text in, decisions out.
    ("definition", &["fault", "oci", "disk", "text"]),
    ("recipe", &["fault", "oci", "disk", "text"]),
    ("lock", &["fault", "oci", "disk", "text", "netlog"]),
    ("plan", &["fault", "oci", "disk", "text", "netlog", "definition", "recipe", "lock"]),
    // Work and verbs: may use all above them.
    ("build", EVERYTHING_BELOW_WORK),
    (
        "describe",
        &[
            "fault", "oci", "disk", "transfer", "layer", "packages", "netlog", "recipe", "lock",
            "plan",
        ],
    ),
    ("audit", &["fault", "report", "oci", "disk", "transfer", "layer", "packages"]),
    ("ops", EVERYTHING_BELOW_VERBS),
];

const EVERYTHING_BELOW_WORK: &[&str] = &[
    "fault",
    "report",
    "oci",
    "disk",
    "text",
    "http",
    "netlog",
    "transfer",
    "store",
    "registry",
    "rootfs",
    "changes",
    "layer",
    "sandbox",
    "packages",
    "definition",
    "recipe",
    "lock",
    "plan",
];

const EVERYTHING_BELOW_VERBS: &[&str] = &[
    "fault",
    "report",
    "oci",
    "disk",
    "text",
    "http",
    "netlog",
    "transfer",
    "store",
    "registry",
    "rootfs",
    "changes",
    "layer",
    "sandbox",
    "packages",
    "definition",
    "recipe",
    "lock",
    "plan",
    "build",
    "describe",
    "audit",
];

fn package() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The room that a file of `src` belongs to: `store` for `store/blobs.rs` and `fault` for `fault.rs`.
fn room_of(file: &Path) -> String {
    let relative = file.strip_prefix(package().join("src")).unwrap();
    let first = relative.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// Drops line comments, so that a link in a document is no arrow.
fn code_of(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n")
}

/// The first names after each `root::`, those in braces too.
fn names_after(code: &str, root: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices(root) {
        let joined =
            code[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_');
        if joined {
            continue;
        }
        let rest = &code[at + root.len()..];
        if let Some(list) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut item = String::new();
            for c in list.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => names.extend(first_name(&std::mem::take(&mut item))),
                    _ if depth == 0 => item.push(c),
                    _ => {}
                }
            }
            names.extend(first_name(&item));
        } else {
            names.extend(first_name(rest));
        }
    }
    names
}

fn first_name(text: &str) -> Option<String> {
    let name: String =
        text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (!name.is_empty()).then_some(name)
}

#[test]
fn names_are_found_in_every_spelling() {
    let code = "use crate::oci::Digest; use crate::{disk, store::{Store, Run}, fault::Fault};\n\
                let x = crate::layer::pack(); use mycrate::nothing;";
    let found: Vec<String> = names_after(code, "crate::").into_iter().collect();
    assert_eq!(found, ["disk", "fault", "layer", "oci", "store"]);
}

#[test]
fn the_table_points_one_way() {
    let mut seen = BTreeSet::new();
    for (room, uses) in ROOMS {
        for used in *uses {
            assert!(
                seen.contains(used),
                "`{room}` may use `{used}`, which does not come before it"
            );
        }
        assert!(seen.insert(*room), "`{room}` is listed twice");
    }
}

#[test]
fn every_arrow_is_in_the_table() {
    let table: BTreeMap<&str, &[&str]> = ROOMS.iter().copied().collect();
    let mut files = Vec::new();
    sources(&package().join("src"), &mut files);
    let mut wrong = Vec::new();
    for file in &files {
        let room = room_of(file);
        if matches!(room.as_str(), "lib" | "main" | "cli") {
            continue;
        }
        let shown = file.strip_prefix(package()).unwrap().display();
        let Some(allowed) = table.get(room.as_str()) else {
            wrong.push(format!("{shown}: `{room}` is no room of tests/layering.rs"));
            continue;
        };
        let code = code_of(&std::fs::read_to_string(file).unwrap());
        for used in names_after(&code, "crate::") {
            if used != room
                && table.contains_key(used.as_str())
                && !allowed.contains(&used.as_str())
            {
                wrong.push(format!("{shown}: `{room}` may not use `{used}`"));
            } else if used != room && !table.contains_key(used.as_str()) {
                wrong.push(format!("{shown}: `crate::{used}` is no room"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_library_has_the_rooms_of_the_table_and_no_others() {
    let text = code_of(&std::fs::read_to_string(package().join("src/lib.rs")).unwrap());
    let listed: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("pub mod ")?.strip_suffix(';'))
        .collect();
    let known: BTreeSet<&str> = ROOMS.iter().map(|(room, _)| *room).collect();
    let strangers: Vec<&&str> = listed.difference(&known).collect();
    assert!(strangers.is_empty(), "rooms that are not in tests/layering.rs: {strangers:?}");
    assert!(!text.contains("mod cli"), "the command line belongs to the binary alone");
}

#[test]
fn the_command_line_is_the_binarys_alone() {
    let mut files = Vec::new();
    sources(&package().join("src"), &mut files);
    for file in &files {
        let code = code_of(&std::fs::read_to_string(file).unwrap());
        let room = room_of(file);
        if matches!(room.as_str(), "cli" | "main") {
            let rooms = ROOMS.iter().map(|(room, _)| *room);
            let reached = names_after(&code, "crate::");
            for room in rooms {
                assert!(
                    !reached.contains(room),
                    "{}: a room of the library is `ocibuild::{room}` here",
                    file.display()
                );
            }
        } else {
            assert!(!code.contains("mod cli;"), "{} holds the command line", file.display());
            assert!(
                names_after(&code, "clap::").is_empty() && !code.contains("use clap"),
                "{} parses arguments",
                file.display()
            );
        }
    }
}

#[test]
fn every_file_opens_with_what_it_is_for() {
    let mut files = Vec::new();
    sources(&package().join("src"), &mut files);
    sources(&package().join("tests"), &mut files);
    for file in &files {
        let text = std::fs::read_to_string(file).unwrap();
        assert!(text.starts_with("//!"), "{} has no sentence at its head", file.display());
    }
}

#[test]
fn no_test_file_is_forgotten() {
    let main = std::fs::read_to_string(package().join("tests/main.rs")).unwrap();
    for entry in std::fs::read_dir(package().join("tests")).unwrap() {
        let path = entry.unwrap().path();
        let module = if path.is_dir() {
            if !path.join("mod.rs").exists() {
                continue;
            }
            path.file_name().unwrap()
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            path.file_stem().unwrap()
        } else {
            continue;
        };
        let module = module.to_str().unwrap();
        assert!(
            module == "main" || main.lines().any(|line| line.trim() == format!("mod {module};")),
            "tests/main.rs does not name `{module}`"
        );
    }
}
