//! Python's installed distributions, by `*.dist-info/METADATA` or the older `*.egg-info` (core
//! metadata specification).

use super::fields::Paragraph;
use super::{Manager, Package};

/// Tells whether a path is a distribution's metadata. What another distribution carries along in a
/// `_vendor` is part of that one.
pub fn is_metadata(path: &str) -> bool {
    let folder = if let Some(folder) = path.strip_suffix("/METADATA") {
        folder.strip_suffix(".dist-info")
    } else if let Some(folder) = path.strip_suffix("/PKG-INFO") {
        folder.strip_suffix(".egg-info")
    } else {
        path.strip_suffix(".egg-info")
    };
    let Some(folder) = folder else { return false };
    let name = folder.rsplit('/').next().unwrap_or_default();
    // pip renames what it is about to remove.
    !name.is_empty() && !name.starts_with('~') && !folder.contains("/_vendor/")
}

/// Tells whether a path is a distribution's list of files.
pub fn is_list(path: &str) -> bool {
    path.strip_suffix("/RECORD").is_some_and(|folder| folder.ends_with(".dist-info"))
}

/// Returns the paths of a list of files; relative ones are so to the folder above the list's own.
pub fn listed(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let files = bytes.split(|byte| *byte == b'\n').filter_map(|line| {
        // `"a,b",hash,size` where a name has a comma.
        match line.strip_prefix(b"\"") {
            Some(quoted) => quoted.split(|byte| *byte == b'"').next(),
            None => line.split(|byte| *byte == b',').next(),
        }
    });
    files.filter(|file| !file.is_empty())
}

/// Reads a distribution's metadata.
pub fn package(text: &str) -> Option<Package> {
    let paragraph = Paragraph::first(text);
    let mut package =
        Package::new(Manager::Python, paragraph.get("Name")?, paragraph.get("Version")?);
    package.licence = licence(&paragraph);
    let author = paragraph.get("Author-email").or(paragraph.get("Maintainer-email"));
    package.maintainer = match (paragraph.get("Author"), author) {
        (Some(name), Some(address)) if !address.contains('<') => {
            Some(format!("{name} <{address}>"))
        }
        (name, address) => address.or(name).map(str::to_owned),
    };
    package.homepage = paragraph.text("Home-page").or_else(|| {
        paragraph.every("Project-URL").find_map(|line| {
            let (label, url) = line.split_once(',')?;
            label.trim().eq_ignore_ascii_case("homepage").then(|| url.trim().to_owned())
        })
    });
    Some(package)
}

/// The expression, else the short text, else the classifier. Some put the whole licence there.
fn licence(paragraph: &Paragraph) -> Option<String> {
    const LONGEST: usize = 120;
    let told = paragraph.get("License-Expression").or_else(|| paragraph.get("License"));
    let told = told.filter(|text| text.len() <= LONGEST && *text != "UNKNOWN");
    told.map(str::to_owned).or_else(|| {
        paragraph
            .every("Classifier")
            .filter_map(|line| line.strip_prefix("License :: "))
            .map(|line| line.rsplit(" :: ").next().unwrap_or(line).to_owned())
            .find(|name| name != "OSI Approved")
    })
}

/// Returns the one spelling of a name (simple repository API).
pub fn normalised(name: &str) -> String {
    let mut text = String::new();
    for character in name.chars() {
        match character {
            '-' | '_' | '.' if text.ends_with('-') => {}
            '-' | '_' | '.' => text.push('-'),
            other => text.extend(other.to_lowercase()),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_known_by_its_place() {
        let lib = "usr/lib/python3/dist-packages";
        for (path, is) in [
            ("numpy-1.26.dist-info/METADATA", true),
            ("numpy-1.26.dist-info/RECORD", false),
            ("six.egg-info/PKG-INFO", true),
            ("six-1.16.egg-info", true),
            ("~umpy-1.26.dist-info/METADATA", false),
            ("setuptools/_vendor/wheel-0.43.dist-info/METADATA", false),
            ("METADATA", false),
        ] {
            assert_eq!(is_metadata(&format!("{lib}/{path}")), is, "{path}");
        }
    }

    #[test]
    fn a_licence_is_told_in_the_shortest_form_there_is() {
        let of = |lines: &str| {
            package(&format!("Metadata-Version: 2.1\nName: x\nVersion: 1\n{lines}"))
                .unwrap()
                .licence
        };
        assert_eq!(of("License-Expression: MIT\nLicense: x\n").as_deref(), Some("MIT"));
        assert_eq!(of("License: BSD\n").as_deref(), Some("BSD"));
        let long = format!(
            "License: {}\nClassifier: License :: OSI Approved :: MIT License\n",
            "x".repeat(200)
        );
        assert_eq!(of(&long).as_deref(), Some("MIT License"));
        assert_eq!(of(""), None);
    }

    #[test]
    fn names_have_one_spelling() {
        assert_eq!(normalised("Jaraco.Text"), "jaraco-text");
        assert_eq!(normalised("a__b"), "a-b");
    }
}
