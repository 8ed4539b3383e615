//! What an index of packages has: the newest version of each. Enough of apt's, R's, Python's, npm's and
//! conda's formats to tell a user what a new lock would bring; which version a tool would take is the
//! tool's to say.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::io::{self, Read};

use serde_json::Value;

use super::{Ecosystem, package_of};

/// The most memory that unpacking may take, in KiB.
const MEMORY: u32 = 256 << 10;
/// The most bytes of an index, once it is unpacked.
const LIMIT: u64 = 1 << 30;

/// The newest versions in an index, by where packages come from and by their names.
pub type Newest = BTreeMap<(Ecosystem, String), String>;

/// Reads an index; what is none, or can't be read, has no packages.
pub fn newest(url: &str, body: &[u8]) -> Newest {
    let path = url.split(['?', '#']).next().unwrap_or(url);
    let file = path.rsplit('/').next().unwrap_or(path);
    let stem = file.split('.').next().unwrap_or(file);
    let Ok(text) = unpacked(body) else { return Newest::new() };
    let mut found = Newest::new();
    match stem {
        "Packages" => stanzas(&text, Ecosystem::Deb, &mut found),
        "PACKAGES" => stanzas(&text, Ecosystem::R, &mut found),
        "repodata" | "current_repodata" => conda(&text, &mut found),
        _ if path.contains("/simple/") => pip(&text, &mut found),
        _ => npm(&text, &mut found),
    }
    found
}

/// Undoes a compression, told by its first bytes.
fn unpacked(body: &[u8]) -> io::Result<Vec<u8>> {
    let reader: Box<dyn Read + '_> = if body.starts_with(&[0x1f, 0x8b]) {
        Box::new(flate2::read::MultiGzDecoder::new(body))
    } else if body.starts_with(b"\xfd7zXZ\0") {
        Box::new(lzma_rust2::XzReader::new_mem_limit(body, true, MEMORY))
    } else if body.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        Box::new(zstd::stream::read::Decoder::new(body)?)
    } else {
        return Ok(body.to_vec());
    };
    let mut text = Vec::new();
    reader.take(LIMIT).read_to_end(&mut text)?;
    Ok(text)
}

fn add(found: &mut Newest, ecosystem: Ecosystem, name: &str, version: &str) {
    match found.get_mut(&(ecosystem, name.to_owned())) {
        Some(has) if compare(version, has) == Ordering::Greater => version.clone_into(has),
        Some(_) => {}
        None => {
            found.insert((ecosystem, name.to_owned()), version.to_owned());
        }
    }
}

/// apt's and R's: paragraphs of fields.
fn stanzas(text: &[u8], ecosystem: Ecosystem, found: &mut Newest) {
    let text = String::from_utf8_lossy(text);
    let (mut name, mut version) = ("", "");
    for line in text.lines().chain([""]) {
        if let Some(value) = line.strip_prefix("Package:") {
            name = value.trim();
        } else if let Some(value) = line.strip_prefix("Version:") {
            version = value.trim();
        } else if line.is_empty() {
            if !name.is_empty() && !version.is_empty() {
                add(found, ecosystem, name, version);
            }
            (name, version) = ("", "");
        }
    }
}

/// A project's page, as HTML or as JSON: the names of its files say the versions.
fn pip(text: &[u8], found: &mut Newest) {
    let text = String::from_utf8_lossy(text);
    for word in text.split(['"', '<', '>', '#']) {
        let file = word.rsplit('/').next().unwrap_or(word);
        // The folder is what tells a source archive from others.
        let Some(package) = package_of(&format!("http://x/packages/{file}")) else { continue };
        // Whoever asks for no version gets none of these.
        let early = package.version.replace("post", "").contains(|c: char| c.is_ascii_alphabetic());
        if package.ecosystem == Ecosystem::Pip && !early {
            add(found, Ecosystem::Pip, &package.name, &package.version);
        }
    }
}

fn npm(text: &[u8], found: &mut Newest) {
    let Ok(value) = serde_json::from_slice::<Value>(text) else { return };
    if let (Some(name), Some(version)) =
        (value["name"].as_str(), value["dist-tags"]["latest"].as_str())
    {
        add(found, Ecosystem::Npm, name, version);
    }
}

fn conda(text: &[u8], found: &mut Newest) {
    let Ok(value) = serde_json::from_slice::<Value>(text) else { return };
    let tables = [&value["packages"], &value["packages.conda"]];
    for entry in tables.into_iter().filter_map(Value::as_object).flat_map(|table| table.values()) {
        if let (Some(name), Some(version)) = (entry["name"].as_str(), entry["version"].as_str()) {
            add(found, Ecosystem::Conda, name, version);
        }
    }
}

/// Returns a version as files are named after it: without dpkg's epoch, without conda's build.
pub fn plain_version(version: &str) -> &str {
    let version = match version.split_once(':') {
        Some((epoch, rest)) if epoch.chars().all(|c| c.is_ascii_digit()) => rest,
        _ => version,
    };
    version.split('=').next().unwrap_or(version)
}

/// Compares versions by dpkg's rule, which puts all the others' in order as well.
pub fn compare(a: &str, b: &str) -> Ordering {
    let parts = |version: &str| {
        let (epoch, rest) = match version.split_once(':') {
            Some((epoch, rest)) => (epoch.parse::<u64>().unwrap_or(0), rest),
            None => (0, version),
        };
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
        (epoch, upstream.to_owned(), revision.to_owned())
    };
    let (a, b) = (parts(a), parts(b));
    a.0.cmp(&b.0).then_with(|| verrevcmp(&a.1, &b.1)).then_with(|| verrevcmp(&a.2, &b.2))
}

/// Compares runs of other characters by their order, in which `~` comes before the end and letters
/// before the rest, and runs of digits by their number, in turn.
fn verrevcmp(a: &str, b: &str) -> Ordering {
    let order = |c: Option<&u8>| match c {
        None => 0,
        Some(c) if c.is_ascii_digit() => 0,
        Some(b'~') => -1,
        Some(c) if c.is_ascii_alphabetic() => i32::from(*c),
        Some(c) => i32::from(*c) + 256,
    };
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    while !a.is_empty() || !b.is_empty() {
        let other = |bytes: &[u8]| bytes.first().is_some_and(|c| !c.is_ascii_digit());
        while other(a) || other(b) {
            match order(a.first()).cmp(&order(b.first())) {
                Ordering::Equal => {}
                different => return different,
            }
            a = a.get(1..).unwrap_or(&[]);
            b = b.get(1..).unwrap_or(&[]);
        }
        let digits = |bytes: &[u8]| bytes.iter().take_while(|c| c.is_ascii_digit()).count();
        let (x, y) = (a.split_at(digits(a)), b.split_at(digits(b)));
        let number = |digits: &[u8]| {
            let zeros = digits.iter().take_while(|c| **c == b'0').count();
            digits[zeros..].to_vec()
        };
        let (first, second) = (number(x.0), number(y.0));
        match first.len().cmp(&second.len()).then_with(|| first.cmp(&second)) {
            Ordering::Equal => {}
            different => return different,
        }
        (a, b) = (x.1, y.1);
    }
    Ordering::Equal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_in_dpkgs_order() {
        let ordered = [
            "0.9~rc1",
            "0.9",
            "0.9-1",
            "1.0~beta",
            "1.0",
            "1.0+b1",
            "1.0.1",
            "1.9",
            "1.10",
            "1.10a",
            "2.0-1",
            "2.0-1+deb12u1",
            "2.0-2",
            "2.0-10",
            "1:0.1",
        ];
        for pair in ordered.windows(2) {
            assert_eq!(compare(pair[0], pair[1]), Ordering::Less, "{pair:?}");
            assert_eq!(compare(pair[1], pair[0]), Ordering::Greater, "{pair:?}");
        }
        assert_eq!(compare("1.007", "1.7"), Ordering::Equal);
        assert_eq!(plain_version("1:2.3-4"), "2.3-4");
        assert_eq!(plain_version("1.26.4=py311_0"), "1.26.4");
    }

    #[test]
    fn indexes_tell_the_newest_versions() {
        let told = |url: &str, body: &[u8]| -> Vec<String> {
            newest(url, body)
                .into_iter()
                .map(|((ecosystem, name), version)| format!("{ecosystem} {name} {version}"))
                .collect()
        };
        let stanzas =
            "Package: a\nVersion: 1.9\n\nPackage: a\nVersion: 1.10\n\nPackage: b\nVersion: 1:2-1";
        let both = ["deb a 1.10", "deb b 1:2-1"];
        assert_eq!(told("http://m/d/Packages", stanzas.as_bytes()), both);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        io::Write::write_all(&mut gzip, stanzas.as_bytes()).unwrap();
        let gzip = gzip.finish().unwrap();
        assert_eq!(told("http://m/d/Packages.gz", &gzip), both);
        assert_eq!(told("http://m/d/Packages.xz", b"nonsense"), Vec::<String>::new());
        let zstd = zstd::encode_all(&br#"{"packages":{"x":{"name":"n","version":"1.2"}},"packages.conda":{"y":{"name":"n","version":"1.10"}}}"#[..], 1).unwrap();
        assert_eq!(told("http://c/linux-64/repodata.json.zst", &zstd), ["conda n 1.10"]);
        assert_eq!(
            told("http://c/src/contrib/PACKAGES", stanzas.as_bytes()),
            ["r a 1.10", "r b 1:2-1"]
        );
        let html = r#"<a href="../../packages/a/b/A_B-4.9.0-py3-none-any.whl#sha256=1">A_B-4.9.0-py3-none-any.whl</a>
            <a href="x/a_b-4.10.0.tar.gz">a_b-4.10.0.tar.gz</a><a href="x/a_b-5.0.0rc1.tar.gz">x</a>"#;
        assert_eq!(told("https://p/simple/a-b/", html.as_bytes()), ["pip a-b 4.10.0"]);
        let json = r#"{"files":[{"filename":"a_b-4.11.0-py3-none-any.whl","url":"https://f/a_b-4.11.0-py3-none-any.whl"}]}"#;
        assert_eq!(told("https://p/simple/a-b/", json.as_bytes()), ["pip a-b 4.11.0"]);
        let npm = r#"{"name":"@types/node","dist-tags":{"latest":"22.1.0","next":"23.0.0"}}"#;
        assert_eq!(told("https://n/@types%2fnode", npm.as_bytes()), ["npm @types/node 22.1.0"]);
        assert_eq!(told("https://x/install.sh", b"#!/bin/sh"), Vec::<String>::new());
    }
}
