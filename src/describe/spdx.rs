//! An image's packages as an SPDX 2.3 document in JSON.
//!
//! ```text
//! document -DESCRIBES-> image -CONTAINS-> layer -CONTAINS-> package
//! ```
//!
//! The document is a function of the image and of this program's version: its date is the image's, its
//! namespace and all identifiers are made of digests.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::licence::{self, Licence};
use super::packages::Inventory;
use super::{Error, purl};
use crate::oci::{ConfigDocument, Digest, Manifest, json as canonical};
use crate::packages::{Manager, Package};
use crate::plan::OsRelease;

/// Where documents of this program get their namespaces; nothing need be there.
const NAMESPACE: &str = "https://github.com/rocker-org/ocibuild/spdx";

/// The date of an image that does not say its own.
const NO_DATE: &str = "1970-01-01T00:00:00Z";

/// An image that is described.
#[derive(Clone, Copy, Debug)]
pub struct Described<'a> {
    /// The digest of its manifest.
    pub digest: Digest,
    /// Its manifest.
    pub manifest: &'a Manifest,
    /// Its configuration.
    pub config: &'a ConfigDocument,
}

/// Returns the document's bytes.
pub fn document(image: &Described<'_>, inventory: &Inventory) -> Result<Vec<u8>, Error> {
    let mut writer = Writer {
        release: &inventory.release,
        packages: Vec::new(),
        relationships: Vec::new(),
        words: BTreeMap::new(),
    };
    writer.relate("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-image");
    writer.image(image);
    let layers = writer.layers(image);
    for package in &inventory.packages {
        writer.package(package, layers.get(package.layer).map_or("SPDXRef-image", String::as_str));
    }
    let extracted: Vec<Value> = writer
        .words
        .iter()
        .map(
            |(id, words)| json!({ "licenseId": id, "extractedText": words, "name": "NOASSERTION" }),
        )
        .collect();
    let mut value = json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": image.digest.to_string(),
        "documentNamespace": format!("{NAMESPACE}/{}", image.digest.hex()),
        "creationInfo": {
            "created": created(image.config),
            "creators": [concat!("Tool: ocibuild-", env!("CARGO_PKG_VERSION"))],
        },
        "packages": writer.packages,
        "relationships": writer.relationships,
    });
    if !extracted.is_empty() {
        value["hasExtractedLicensingInfos"] = Value::Array(extracted);
    }
    Ok(canonical::encode(&value)?)
}

/// Returns the image's date to the second, which is all that SPDX takes.
fn created(config: &ConfigDocument) -> String {
    config
        .created()
        .and_then(|created| created.parse::<jiff::Timestamp>().ok())
        .and_then(|created| jiff::Timestamp::from_second(created.as_second()).ok())
        .map_or_else(|| NO_DATE.to_owned(), |created| created.to_string())
}

struct Writer<'a> {
    release: &'a OsRelease,
    packages: Vec<Value>,
    relationships: Vec<Value>,
    /// Licences in own words, by the names that they got here.
    words: BTreeMap<String, String>,
}

impl Writer<'_> {
    fn relate(&mut self, from: &str, how: &str, to: &str) {
        self.relationships.push(json!({
            "spdxElementId": from, "relationshipType": how, "relatedSpdxElement": to,
        }));
    }

    fn image(&mut self, image: &Described<'_>) {
        let title = image.config.labels().remove("org.opencontainers.image.title");
        let name = title.unwrap_or_else(|| "image".to_owned());
        let mut value = by_digest("SPDXRef-image", &name, image.digest, "CONTAINER");
        value["comment"] = json!(format!("image for {}", image.config.platform()));
        self.packages.push(value);
    }

    fn layers(&mut self, image: &Described<'_>) -> Vec<String> {
        let diff_ids = image.config.diff_ids();
        let mut made_by = image.config.made_by();
        let mut ids = Vec::new();
        for (position, layer) in image.manifest.layers.iter().enumerate() {
            let id = format!("SPDXRef-layer-{position}");
            let mut value = by_digest(&id, &format!("layer {position}"), layer.digest, "ARCHIVE");
            if let Some(made_by) = made_by.next().flatten() {
                value["sourceInfo"] = json!(made_by);
            }
            if let Some(diff_id) = diff_ids.get(position) {
                value["comment"] = json!(format!("uncompressed: {diff_id}"));
            }
            self.packages.push(value);
            self.relate("SPDXRef-image", "CONTAINS", &id);
            ids.push(id);
        }
        ids
    }

    fn package(&mut self, package: &Package, layer: &str) {
        let address = purl::of(package, self.release);
        let id = id(package, address.as_deref());
        let mut value = json!({
            "SPDXID": id,
            "name": package.name,
            "versionInfo": package.version,
            "downloadLocation": package.download.as_deref().unwrap_or("NOASSERTION"),
            "filesAnalyzed": false,
            "supplier": supplier(package.maintainer.as_deref()),
            "licenseConcluded": "NOASSERTION",
            "licenseDeclared": self.licence(package),
            "copyrightText": "NOASSERTION",
            "primaryPackagePurpose": "LIBRARY",
        });
        if matches!(package.manager, Manager::Deb | Manager::Conda) {
            value.as_object_mut().map(|value| value.remove("primaryPackagePurpose"));
        }
        if let Some(homepage) = package.homepage.as_deref().filter(|url| is_url(url)) {
            value["homepage"] = json!(homepage);
        }
        if let Some(info) = source_info(package) {
            value["sourceInfo"] = json!(info);
        }
        if !package.holds.is_empty() {
            value["comment"] = json!(holds(package));
        }
        if !package.checksums.is_empty() {
            let list = package.checksums.iter().map(|(name, hex)| checksum(name, hex));
            value["checksums"] = list.collect();
        }
        let held = package.holds.iter().filter_map(|held| purl::of_held(package, held));
        let references: Vec<Value> = address
            .into_iter()
            .chain(held)
            .map(|address| {
                json!({
                    "referenceCategory": "PACKAGE-MANAGER",
                    "referenceType": "purl",
                    "referenceLocator": address,
                })
            })
            .collect();
        if !references.is_empty() {
            value["externalRefs"] = Value::Array(references);
        }
        self.packages.push(value);
        self.relate(layer, "CONTAINS", &id);
    }

    fn licence(&mut self, package: &Package) -> String {
        let words = package.licence.as_deref();
        match words.and_then(|words| licence::read(package.manager, words)) {
            None => "NOASSERTION".to_owned(),
            Some(Licence::Expression(expression)) => expression,
            Some(Licence::Words(words)) => {
                let hash = Digest::of(words.as_bytes()).hex();
                let short: String = plain(&words).chars().take(40).collect();
                let id = format!("LicenseRef-{}-{}", short.trim_matches('-'), &hash[..8]);
                self.words.insert(id.clone(), words);
                id
            }
        }
    }
}

/// Returns an identifier that is the package's own, whatever else is in the document.
fn id(package: &Package, address: Option<&str>) -> String {
    let kind = kind(package.manager);
    let own = match address {
        Some(address) => address.to_owned(),
        None => format!("{kind} {} {}", package.name, package.version),
    };
    // Whatever makes it another package, be it in the address or not.
    let hash = Digest::of(format!("{own}\n{:?}", package.qualifiers).as_bytes()).hex();
    format!("SPDXRef-{kind}-{}-{}", plain(&package.name), &hash[..12])
}

/// A package of which there is no more to say than its digest.
fn by_digest(id: &str, name: &str, digest: Digest, purpose: &str) -> Value {
    json!({
        "SPDXID": id,
        "name": name,
        "versionInfo": digest.to_string(),
        "primaryPackagePurpose": purpose,
        "checksums": [checksum("SHA256", &digest.hex())],
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "supplier": "NOASSERTION",
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "NOASSERTION",
        "copyrightText": "NOASSERTION",
    })
}

fn checksum(algorithm: &str, hex: &str) -> Value {
    json!({ "algorithm": algorithm, "checksumValue": hex })
}

fn kind(manager: Manager) -> &'static str {
    match manager {
        Manager::Deb => "deb",
        Manager::Conda => "conda",
        Manager::R => "r",
        Manager::Python => "python",
        Manager::Npm => "npm",
    }
}

fn is_url(text: &str) -> bool {
    (text.starts_with("http://") || text.starts_with("https://"))
        && !text.contains(char::is_whitespace)
}

/// Keeps what an identifier may hold: letters, digits, `.` and `-`.
fn plain(text: &str) -> String {
    let keep = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
    text.chars().map(keep).collect()
}

/// SPDX wants to know whether an address is a person's or a group's, which no package says; the name
/// tells it in most cases.
fn supplier(maintainer: Option<&str>) -> String {
    const GROUPS: [&str; 10] = [
        "team",
        "group",
        "maintainers",
        "developers",
        "project",
        "packag",
        "foundation",
        "inc.",
        "contributors",
        "list",
    ];
    // One is enough, and the list of authors of some is a page long.
    let first = maintainer.and_then(|text| text.split(',').next()).map(str::trim);
    let Some(first) = first.filter(|text| !text.is_empty()) else {
        return "NOASSERTION".to_owned();
    };
    let (name, address) = match first.split_once('<') {
        Some((name, address)) => {
            let address = address.split('>').next().unwrap_or_default();
            (name.trim().trim_matches('"'), Some(address.trim()))
        }
        None => (first, None),
    };
    let (name, address) =
        if name.is_empty() { (address.unwrap_or(first), None) } else { (name, address) };
    let lower = name.to_lowercase();
    let who =
        if GROUPS.iter().any(|word| lower.contains(word)) { "Organization" } else { "Person" };
    match address.filter(|address| !address.is_empty()) {
        Some(address) => format!("{who}: {name} ({address})"),
        None => format!("{who}: {name}"),
    }
}

/// Says what it was built from, in words that scanners for known faults look for, else where it is.
fn source_info(package: &Package) -> Option<String> {
    if let Some((source, version)) = &package.source {
        return Some(format!("built package from: {source} {version}"));
    }
    (!package.paths.is_empty()).then(|| format!("found in: {}", package.paths.join(", ")))
}

fn holds(package: &Package) -> String {
    let name = |manager: Manager| match manager {
        Manager::R => "R package",
        Manager::Python => "Python distribution",
        Manager::Npm => "npm module",
        Manager::Deb => "Debian package",
        Manager::Conda => "conda package",
    };
    let list: Vec<String> = package
        .holds
        .iter()
        .map(|held| format!("{} {} {}", name(held.manager), held.name, held.version))
        .collect();
    format!("brings {}", list.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_supplier_is_a_person_or_a_group() {
        for (maintainer, expected) in [
            (None, "NOASSERTION"),
            (Some("Jane Doe <j@d.org>"), "Person: Jane Doe (j@d.org)"),
            (Some("Debian R Team <x@y>"), "Organization: Debian R Team (x@y)"),
            (Some("a@b.org"), "Person: a@b.org"),
            (Some("A, B, C"), "Person: A"),
            (Some("<a@b>"), "Person: a@b"),
        ] {
            assert_eq!(supplier(maintainer), expected);
        }
    }
}
