//! Licences in the words of packages, as SPDX expressions where they are such.

use spdx::{Expression, ParseMode};

use crate::packages::Manager;

/// A licence as a package declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Licence {
    /// An expression of SPDX's own names.
    Expression(String),
    /// Anything else, word for word.
    Words(String),
}

/// Reads a package's word for its licence; `None` where it has none to say.
pub(super) fn read(manager: Manager, words: &str) -> Option<Licence> {
    let words = words.trim();
    if words.is_empty() {
        return None;
    }
    let expression = match manager {
        Manager::R => of_r(words),
        Manager::Python => of_classifier(words).map(str::to_owned).or_else(|| spdx(words)),
        _ => spdx(words),
    };
    Some(expression.map_or_else(|| Licence::Words(words.to_owned()), Licence::Expression))
}

/// Returns what SPDX's list knows, in SPDX's spelling.
fn spdx(words: &str) -> Option<String> {
    let canonical = match Expression::canonicalize(words) {
        Ok(Some(canonical)) => canonical,
        Ok(None) => words.to_owned(),
        Err(_) => return None,
    };
    let mode = ParseMode { allow_deprecated: true, ..ParseMode::STRICT };
    Expression::parse_mode(&canonical, mode).is_ok().then_some(canonical)
}

/// R's own list of alternatives, as `GPL (>= 2) | file LICENSE` ("Writing R Extensions", 1.1.2).
fn of_r(words: &str) -> Option<String> {
    let mut alternatives = Vec::new();
    for alternative in words.split('|') {
        // A file with the terms' blanks filled in does not make it another licence.
        let name = alternative.split('+').next().unwrap_or_default().trim();
        let (name, version) = match name.split_once('(') {
            Some((name, version)) => (name.trim(), version.trim_end_matches(')').trim()),
            None => (name, ""),
        };
        let later = version.strip_prefix(">=").map(str::trim);
        let exact = version.strip_prefix("==").map(str::trim);
        let gnu = |family: &str| {
            let point = |version: &str| {
                if version.contains('.') { version.to_owned() } else { format!("{version}.0") }
            };
            match (later, exact) {
                (Some(version), _) => Some(format!("{family}-{}-or-later", point(version))),
                (_, Some(version)) => Some(format!("{family}-{}-only", point(version))),
                // Any version that was ever published.
                (None, None) if version.is_empty() => Some(format!(
                    "{family}-{}-or-later",
                    if family == "LGPL" { "2.0" } else { "1.0" }
                )),
                (None, None) => None,
            }
        };
        let known = match name {
            "GPL" | "GNU General Public License" => gnu("GPL"),
            "LGPL" | "GNU Lesser General Public License" => gnu("LGPL"),
            "AGPL" | "GNU Affero General Public License" => gnu("AGPL"),
            "GPL-2" | "GPL-3" | "LGPL-2" | "LGPL-3" | "AGPL-3" if version.is_empty() => {
                Some(format!("{name}.0-only"))
            }
            "LGPL-2.1" if version.is_empty() => Some("LGPL-2.1-only".to_owned()),
            "Apache License" if later == Some("2") || later == Some("2.0") || exact.is_some() => {
                Some("Apache-2.0".to_owned())
            }
            "Apache License 2.0" => Some("Apache-2.0".to_owned()),
            "BSD_2_clause" => Some("BSD-2-Clause".to_owned()),
            "BSD_3_clause" => Some("BSD-3-Clause".to_owned()),
            "CC0" => Some("CC0-1.0".to_owned()),
            "Mozilla Public License 2.0" => Some("MPL-2.0".to_owned()),
            "BSL-1.0" | "Boost Software License" => Some("BSL-1.0".to_owned()),
            other if version.is_empty() => spdx(other),
            _ => None,
        };
        alternatives.push(known?);
    }
    Some(alternatives.join(" OR "))
}

/// The classifiers of the package index that name one licence and not a family.
fn of_classifier(words: &str) -> Option<&'static str> {
    Some(match words {
        "MIT License" => "MIT",
        "ISC License (ISCL)" => "ISC",
        "Mozilla Public License 2.0 (MPL 2.0)" => "MPL-2.0",
        "The Unlicense (Unlicense)" => "Unlicense",
        "zlib/libpng License" => "Zlib",
        "GNU General Public License v2 (GPLv2)" => "GPL-2.0-only",
        "GNU General Public License v2 or later (GPLv2+)" => "GPL-2.0-or-later",
        "GNU General Public License v3 (GPLv3)" => "GPL-3.0-only",
        "GNU General Public License v3 or later (GPLv3+)" => "GPL-3.0-or-later",
        "GNU Affero General Public License v3 or later (AGPLv3+)" => "AGPL-3.0-or-later",
        "Python Software Foundation License" => "PSF-2.0",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_expressions_where_they_mean_one() {
        for (manager, words, expected) in [
            (Manager::R, "GPL (>= 2)", Some("GPL-2.0-or-later")),
            (Manager::R, "GPL-2 | GPL-3", Some("GPL-2.0-only OR GPL-3.0-only")),
            (Manager::R, "MIT + file LICENSE", Some("MIT")),
            (Manager::R, "LGPL (>= 2.1)", Some("LGPL-2.1-or-later")),
            (Manager::R, "BSD_3_clause + file LICENSE", Some("BSD-3-Clause")),
            (Manager::R, "Apache License (>= 2)", Some("Apache-2.0")),
            (Manager::R, "Part of R 4.5.0", None),
            (Manager::R, "file LICENSE", None),
            (Manager::Python, "MIT License", Some("MIT")),
            (Manager::Python, "Apache-2.0 OR BSD-2-Clause", Some("Apache-2.0 OR BSD-2-Clause")),
            (Manager::Python, "Do what you like", None),
            (Manager::Npm, "(MIT OR CC0-1.0)", Some("(MIT OR CC0-1.0)")),
            (Manager::Npm, "SEE LICENSE IN x", None),
            (Manager::Conda, "BSD-3-Clause", Some("BSD-3-Clause")),
        ] {
            let found = match read(manager, words) {
                Some(Licence::Expression(text)) => Some(text),
                Some(Licence::Words(text)) => {
                    assert_eq!(text, words);
                    None
                }
                None => panic!("{words}"),
            };
            assert_eq!(found.as_deref(), expected, "{words}");
        }
        assert_eq!(read(Manager::Npm, " "), None);
    }
}
