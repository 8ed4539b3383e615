//! The SBOM of a real Debian image with packages of all kinds, layer upon layer.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, Weak};

use serde_json::Value;

use super::{keeps_to, schema};
use crate::support::cli::{Project, Ran};
use crate::support::registry::Registry;

const IMAGE: &str = "localhost/kit";

/// An image that tests which run at the same time share: they read it.
fn kit() -> Arc<Project> {
    static SHARED: Mutex<Weak<Project>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    shared.upgrade().unwrap_or_else(|| {
        let made = Arc::new(make_kit());
        *shared = Arc::downgrade(&made);
        made
    })
}

/// Distribution's packages below, others' above; one is removed again.
fn make_kit() -> Project {
    let project = Project::new();
    project.import_debian();
    project
        .write(
            "manifests/kit.toml",
            "image = \"localhost/kit\"\nbase = \"localhost/debian-base:bookworm\"\n\
             platforms = [\"linux/amd64\"]\nlayers = [\"system\", \"others\"]\n",
        )
        .script(
            "system",
            "apt-get update\napt-get install -y --no-install-recommends r-base-core \
             r-cran-jsonlite python3-pip python3-six python3-venv",
        )
        .script(
            "others",
            "python3 -m venv /opt/venv
            /opt/venv/bin/pip install --no-compile idna==3.10 packaging==24.2
            mkdir -p /tmp/tiny/R
            printf '%s\\n' 'Package: tiny' 'Version: 0.1.2' 'Title: T' 'Description: D.' \
                'License: GPL (>= 2)' 'Author: A' 'Maintainer: A <a@example.org>' \
                >/tmp/tiny/DESCRIPTION
            echo 'exportPattern(\"^[a-z]\")' >/tmp/tiny/NAMESPACE
            echo 'f <- function() 1' >/tmp/tiny/R/f.R
            R CMD INSTALL /tmp/tiny
            mkdir -p /usr/local/lib/node_modules/@a/b/test
            echo '{\"name\":\"@a/b\",\"version\":\"1.2.3\",\"license\":\"Own words\"}' \
                | tee /usr/local/lib/node_modules/@a/b/package.json \
                >/usr/local/lib/node_modules/@a/b/test/package.json
            apt-get remove -y python3-six",
        );
    project.build("kit");
    project
}

/// The lines that a command in the image prints.
fn lines(project: &Project, command: &[&str]) -> BTreeSet<String> {
    let line: Vec<&str> = ["shell", "-q", IMAGE, "--"].iter().chain(command).copied().collect();
    let text = project.run(&line).ok();
    text.lines().map(|line| line.trim_end().to_owned()).filter(|line| !line.is_empty()).collect()
}

/// `name version` of the document's packages of a kind.
fn told(document: &Value, kind: &str) -> BTreeSet<String> {
    let packages = document["packages"].as_array().unwrap();
    let of_kind = packages.iter().filter(|package| {
        package["SPDXID"].as_str().unwrap().starts_with(&format!("SPDXRef-{kind}-"))
    });
    of_kind
        .map(|package| {
            let text = |name: &str| package[name].as_str().unwrap();
            format!("{} {}", text("name"), text("versionInfo"))
        })
        .collect()
}

/// What the distribution's packages are said to bring.
fn brought(document: &Value, what: &str) -> BTreeSet<String> {
    let packages = document["packages"].as_array().unwrap();
    packages
        .iter()
        .filter_map(|package| package["comment"].as_str()?.strip_prefix("brings "))
        .flat_map(|list| list.split(", "))
        .filter_map(|held| held.strip_prefix(what)?.strip_prefix(' '))
        .map(str::to_owned)
        .collect()
}

fn package<'d>(document: &'d Value, name: &str) -> &'d Value {
    let mut packages = document["packages"].as_array().unwrap().iter();
    packages.find(|package| package["name"] == name).unwrap_or_else(|| panic!("no {name}"))
}

/// The layer that brought a package, by its number.
fn layer_of(document: &Value, name: &str) -> String {
    let id = &package(document, name)["SPDXID"];
    let mut all = document["relationships"].as_array().unwrap().iter();
    let found = all.find(|one| one["relatedSpdxElement"] == *id).unwrap();
    assert_eq!(found["relationshipType"], "CONTAINS");
    found["spdxElementId"].as_str().unwrap().strip_prefix("SPDXRef-layer-").unwrap().to_owned()
}

fn document(ran: Ran) -> Value {
    serde_json::from_str(&ran.ok()).unwrap()
}

#[test]
fn the_packages_are_those_that_their_managers_name() {
    let project = kit();
    let document = document(project.run(&["sbom", "-q", IMAGE]));
    keeps_to(&schema("spdx-2.3.json"), &document);

    let status = "${db:Status-Status} ${Package} ${Version}\n";
    let debs: BTreeSet<String> = lines(&project, &["dpkg-query", "-W", "-f", status])
        .iter()
        .filter_map(|line| line.strip_prefix("installed ").map(str::to_owned))
        .collect();
    assert!(debs.len() > 100, "{debs:?}");
    assert_eq!(told(&document, "deb"), debs);

    let print = "x <- installed.packages(); cat(paste(x[, 1], x[, 3]), sep = '\\n')";
    let in_r = lines(&project, &["Rscript", "-e", print]);
    assert_eq!(told(&document, "r"), BTreeSet::from(["tiny 0.1.2".to_owned()]));
    let of_debian = brought(&document, "R package");
    assert!(of_debian.contains("jsonlite 1.8.4"), "{of_debian:?}");
    assert_eq!(&told(&document, "r") | &of_debian, in_r);

    let pip = |program: &str| -> BTreeSet<String> {
        let listed = lines(&project, &[program, "list", "--format=freeze"]);
        listed.iter().map(|line| line.replacen("==", " ", 1)).collect()
    };
    assert_eq!(told(&document, "python"), pip("/opt/venv/bin/pip"));
    assert_eq!(brought(&document, "Python distribution"), pip("/usr/bin/pip"));

    assert_eq!(told(&document, "npm"), BTreeSet::from(["@a/b 1.2.3".to_owned()]));
}

#[test]
fn a_package_is_told_with_its_layer_its_address_and_its_licence() {
    let project = kit();
    let document = document(project.run(&["sbom", "-q", IMAGE]));
    for (name, layer) in
        [("bash", "0"), ("r-cran-jsonlite", "1"), ("idna", "2"), ("pip", "2"), ("tiny", "2")]
    {
        assert_eq!(layer_of(&document, name), layer, "{name}");
    }
    let address = |name: &str| {
        let reference = &package(&document, name)["externalRefs"][0];
        assert_eq!(reference["referenceType"], "purl");
        reference["referenceLocator"].as_str().unwrap().to_owned()
    };
    assert!(address("bash").starts_with("pkg:deb/debian/bash@5."), "{}", address("bash"));
    assert!(address("bash").contains("arch=amd64&distro=debian-12"), "{}", address("bash"));
    assert_eq!(address("idna"), "pkg:pypi/idna@3.10");
    assert_eq!(address("@a/b"), "pkg:npm/%40a/b@1.2.3");
    assert_eq!(address("tiny"), "pkg:cran/tiny@0.1.2");
    assert_eq!(package(&document, "tiny")["licenseDeclared"], "GPL-2.0-or-later");
    // Of Debian's own where each word of the copyright file is one that SPDX has.
    for (name, licence) in
        [("adduser", "GPL-2.0-or-later"), ("zlib1g", "Zlib"), ("bash", "NOASSERTION")]
    {
        assert_eq!(package(&document, name)["licenseDeclared"], licence, "{name}");
    }
    let own = package(&document, "@a/b")["licenseDeclared"].as_str().unwrap();
    let words = document["hasExtractedLicensingInfos"].as_array().unwrap();
    let found = words.iter().find(|one| one["licenseId"] == own).unwrap();
    assert_eq!(found["extractedText"], "Own words");

    // The same from a registry, where nothing of it is in the store; the same twice, and in a file.
    let registry = Registry::plain();
    let name = registry.image("kit");
    project.run(&["push", "-q", IMAGE, "--to", &name]).ok();
    let here = project.run(&["sbom", "-q", IMAGE]).ok();
    let other = Project::new();
    other.run(&["sbom", "-q", &name, "-o", "kit.spdx.json"]).ok();
    assert_eq!(std::fs::read_to_string(other.path("kit.spdx.json")).unwrap(), here);
    let table = other.run(&["sbom", "-q", "--table", &name]).ok();
    let mut rows = table.lines().map(|line| line.split_whitespace().take(4).collect::<Vec<_>>());
    assert!(rows.any(|row| row == ["python", "idna", "3.10", "2"]), "{table}");
}

#[test]
fn no_such_platform_is_an_error() {
    let project = Project::with_tiny_base(crate::support::cli::Who::Root);
    let error = project.run(&["sbom", "localhost/tiny:1", "--platform", "linux/s390x"]).fails(2);
    assert!(error.contains("is not there for linux/s390x, only for `linux/amd64`"), "{error}");
    let empty = document(project.run(&["sbom", "-q", "localhost/tiny:1"]));
    keeps_to(&schema("spdx-2.3.json"), &empty);
}
