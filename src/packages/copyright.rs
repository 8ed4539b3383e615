//! Debian's copyright files, as far as they are machine-readable (copyright-format 1.0): the licences
//! of all files of a source package, as one SPDX expression.
//!
//! A licence is told where each of the names in a file is one that the format defines, or that is
//! SPDX's own. Where one is not (`public-domain`, a maintainer's `custom-1`, `Artistic`, of which
//! there are two), nothing is.

/// Returns the package whose copyright file a path is.
pub fn of_file(path: &str) -> Option<&str> {
    let name = path.strip_prefix("usr/share/doc/")?.strip_suffix("/copyright")?;
    (!name.is_empty() && !name.contains('/')).then_some(name)
}

/// Returns the package whose folder of documents a path may be; one that shares another's has a link
/// there.
pub fn of_folder(path: &str) -> Option<&str> {
    let name = path.strip_prefix("usr/share/doc/")?;
    (!name.is_empty() && !name.contains('/')).then_some(name)
}

/// Reads a copyright file; `None` where it is of no known format, or not all of it is certain.
pub fn licence(text: &str) -> Option<String> {
    let mut all: Vec<String> = Vec::new();
    let mut is_head = true;
    for paragraph in text.split("\n\n") {
        // Of a folded field the first line counts: the others are the licence's own words.
        let field = |name: &str| {
            paragraph.lines().find_map(|line| {
                let (has, value) = line.split_once(':')?;
                has.eq_ignore_ascii_case(name).then(|| value.trim())
            })
        };
        if is_head {
            // Paragraphs of nothing but comments come before it, too.
            let Some(format) = field("Format") else {
                if paragraph.lines().all(|line| line.is_empty() || line.starts_with('#')) {
                    continue;
                }
                return None;
            };
            let known = format.trim_end_matches('/').ends_with("copyright-format/1.0");
            known.then_some(())?;
        }
        // A paragraph of a licence alone only gives the words of one that is named elsewhere.
        if is_head || field("Files").is_some() {
            match field("License") {
                Some(names) => {
                    let expression = expression(names)?;
                    if !all.contains(&expression) {
                        all.push(expression);
                    }
                }
                None if is_head => {}
                None => return None,
            }
        }
        is_head = false;
    }
    let several = all.len() > 1;
    let grouped = |one: &String| {
        if several && one.contains(" OR ") { format!("({one})") } else { one.clone() }
    };
    (!all.is_empty()).then(|| all.iter().map(grouped).collect::<Vec<_>>().join(" AND "))
}

/// Turns `A or B, and C` into an expression: `and` binds closer than `or`, unless after a comma.
fn expression(names: &str) -> Option<String> {
    let mut parts = Vec::new();
    for part in names.split(", and ") {
        let mut alternatives = Vec::new();
        for alternative in part.split(" or ") {
            let all: Option<Vec<String>> = alternative.split(" and ").map(one).collect();
            alternatives.push(all?.join(" AND "));
        }
        parts.push(alternatives.join(" OR "));
    }
    match parts.as_mut_slice() {
        [only] => Some(std::mem::take(only)),
        parts => {
            Some(parts.iter().map(|part| format!("({part})")).collect::<Vec<_>>().join(" AND "))
        }
    }
}

/// Returns SPDX's name for one of the format's short names.
fn one(name: &str) -> Option<String> {
    let name = name.trim();
    let (plain, later) = match name.strip_suffix('+') {
        Some(plain) => (plain, true),
        None => (name, false),
    };
    if let Some((family, version)) = plain.rsplit_once('-')
        && let family @ ("GPL" | "LGPL" | "AGPL" | "GFDL" | "GFDL-NIV") = family
    {
        return gnu(family, version, later);
    }
    if later {
        return None;
    }
    Some(
        match name {
            "Expat" | "MIT" => "MIT",
            "Apache-2.0" | "Apache-2" => "Apache-2.0",
            "Apache-1.0" => "Apache-1.0",
            "Apache-1.1" => "Apache-1.1",
            "Artistic-2.0" => "Artistic-2.0",
            "BSD-2-clause" | "BSD-2-Clause" => "BSD-2-Clause",
            "BSD-3-clause" | "BSD-3-Clause" => "BSD-3-Clause",
            "BSD-4-clause" | "BSD-4-Clause" => "BSD-4-Clause",
            "BSL-1.0" => "BSL-1.0",
            "CC0" | "CC0-1.0" => "CC0-1.0",
            "CC-BY-3.0" => "CC-BY-3.0",
            "CC-BY-4.0" => "CC-BY-4.0",
            "CC-BY-SA-3.0" => "CC-BY-SA-3.0",
            "CC-BY-SA-4.0" => "CC-BY-SA-4.0",
            "CDDL-1.0" | "CDDL" => "CDDL-1.0",
            "CPL-1.0" | "CPL" => "CPL-1.0",
            "ISC" => "ISC",
            "LPPL-1.3c" => "LPPL-1.3c",
            "MPL-1.1" => "MPL-1.1",
            "MPL-2.0" => "MPL-2.0",
            "Python-2.0" => "Python-2.0",
            "QPL-1.0" => "QPL-1.0",
            "W3C" => "W3C",
            "Zlib" | "zlib" => "Zlib",
            "Zope-2.1" => "ZPL-2.1",
            _ => return None,
        }
        .to_owned(),
    )
}

fn gnu(family: &str, version: &str, later: bool) -> Option<String> {
    let version = match version {
        "1" | "2" | "3" => format!("{version}.0"),
        point => point.to_owned(),
    };
    let end = if later { "or-later" } else { "only" };
    // Without the family's odd cases there are versions that never were.
    let known = match family {
        "GPL" => ["1.0", "2.0", "3.0"].contains(&version.as_str()),
        "LGPL" => ["2.0", "2.1", "3.0"].contains(&version.as_str()),
        "AGPL" => version == "3.0",
        _ => ["1.1", "1.2", "1.3"].contains(&version.as_str()),
    };
    known.then(|| match family {
        "GFDL-NIV" => format!("GFDL-{version}-no-invariants-{end}"),
        _ => format!("{family}-{version}-{end}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nUpstream-Name: x\n";

    fn of(rest: &str) -> Option<String> {
        licence(&format!("{HEAD}\n{rest}"))
    }

    #[test]
    fn licences_of_all_files_are_one_expression() {
        let text = "Files: *\nCopyright: a\nLicense: GPL-2+\n long words\n\n\
                    Files: lib/*\nCopyright: b\nLicense: Expat or LGPL-2.1\n\n\
                    Files: debian/*\nCopyright: c\nLicense: GPL-2+\n\n\
                    License: GPL-2+\n On Debian systems\n";
        assert_eq!(of(text).as_deref(), Some("GPL-2.0-or-later AND (MIT OR LGPL-2.1-only)"));
        let text = "Files: *\nLicense: GPL-3+ or Expat, and GFDL-NIV-1.3+\n";
        let expected = "(GPL-3.0-or-later OR MIT) AND (GFDL-1.3-no-invariants-or-later)";
        assert_eq!(of(text).as_deref(), Some(expected));
    }

    #[test]
    fn what_is_not_certain_is_not_told() {
        for name in
            ["public-domain", "Artistic", "GPL", "GPL-2+ with OpenSSL exception", "GPL-4", ""]
        {
            let text = format!("Files: *\nLicense: ISC\n\nFiles: b\nLicense: {name}\n");
            assert_eq!(of(&text), None, "{name}");
        }
        assert_eq!(licence("This package was debianized by\nLicense: GPL-2\n"), None);
        assert_eq!(of("Comment: nothing\n"), None);
    }

    #[test]
    fn files_are_known_by_their_place() {
        assert_eq!(of_file("usr/share/doc/bash/copyright"), Some("bash"));
        assert_eq!(of_file("usr/share/doc/bash/examples/copyright"), None);
        assert_eq!(of_folder("usr/share/doc/libgcc-s1"), Some("libgcc-s1"));
        assert_eq!(of_folder("usr/share/doc/bash/copyright"), None);
    }
}
