//! The finds of all layers, one upon the other, as packages.

use std::collections::{BTreeMap, BTreeSet};

use super::finds::{Find, Finds};
use crate::packages::{Held, Manager, Package, python};
use crate::plan::OsRelease;

/// The packages of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// In order of manager, name and version; each once.
    pub packages: Vec<Package>,
    /// The distribution, as far as it says.
    pub release: OsRelease,
}

/// Lays layers upon each other, the bottom one first.
pub fn merge(layers: &[Finds]) -> Inventory {
    let mut there: BTreeMap<String, Find> = BTreeMap::new();
    let mut packages: BTreeMap<Identity, Package> = BTreeMap::new();
    for (position, layer) in layers.iter().enumerate() {
        for folder in &layer.opaque {
            remove_below(&mut there, folder);
        }
        for path in &layer.gone {
            there.remove(path);
            remove_below(&mut there, path);
        }
        there.extend(layer.found.iter().map(|(path, find)| (path.clone(), find.clone())));
        let mut now = collect(&there);
        for (identity, package) in &mut now {
            package.layer = packages.get(identity).map_or(position, |before| before.layer);
        }
        packages = now;
    }
    for package in packages.values_mut().filter(|package| package.manager == Manager::Deb) {
        package.licence = licence(&package.name, &there);
    }
    let release = |path: &str| match there.get(path) {
        Some(Find::Release(text)) => Some(OsRelease::parse(text)),
        _ => None,
    };
    let release = release("etc/os-release").or_else(|| release("usr/lib/os-release"));
    Inventory { packages: packages.into_values().collect(), release: release.unwrap_or_default() }
}

/// Returns what the copyright file of a Debian package says, or that of the package which it shares its
/// documents with.
fn licence(name: &str, there: &BTreeMap<String, Find>) -> Option<String> {
    let folder = |name: &str| format!("usr/share/doc/{name}");
    let name = match there.get(&folder(name)) {
        Some(Find::Documents(other)) => other,
        _ => name,
    };
    match there.get(&format!("{}/copyright", folder(name))) {
        Some(Find::Licence(licence)) => licence.clone(),
        _ => None,
    }
}

/// What makes it the same package, wherever it lies.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Identity(Manager, String, String, String, BTreeMap<String, String>);

fn identity(package: &Package) -> Identity {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    Identity(
        package.manager,
        package.name.clone(),
        package.version.clone(),
        text(&package.architecture),
        package.qualifiers.clone(),
    )
}

fn remove_below(there: &mut BTreeMap<String, Find>, folder: &str) {
    // The root's own opaque mark hides everything.
    let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
    let below: Vec<String> = there
        .range(prefix.clone()..)
        .take_while(|(path, _)| path.starts_with(&prefix))
        .map(|(path, _)| path.clone())
        .collect();
    for path in below {
        there.remove(&path);
    }
}

/// Returns the packages, each once.
fn collect(there: &BTreeMap<String, Find>) -> BTreeMap<Identity, Package> {
    let mut packages: BTreeMap<Identity, Package> = BTreeMap::new();
    for package in there.values().flat_map(packages_of) {
        packages
            .entry(identity(package))
            .and_modify(|has| has.paths.extend(package.paths.iter().cloned()))
            .or_insert_with(|| package.clone());
    }
    fold(there, &mut packages);
    packages
}

fn packages_of(find: &Find) -> &[Package] {
    match find {
        Find::Debs(packages) => packages,
        Find::Conda { package, .. } | Find::Module(package) => std::slice::from_ref(package),
        Find::List { .. } | Find::Licence(_) | Find::Documents(_) | Find::Release(_) => &[],
    }
}

/// Moves what one package brings of another manager's to it.
fn fold(there: &BTreeMap<String, Find>, packages: &mut BTreeMap<Identity, Package>) {
    let mut owners: BTreeMap<&str, Identity> = BTreeMap::new();
    for find in there.values() {
        match find {
            Find::List { name, architecture, paths } if !paths.is_empty() => {
                let owner = packages.values().find(|package| {
                    package.manager == Manager::Deb
                        && package.name == *name
                        && (architecture.is_none() || package.architecture == *architecture)
                });
                let Some(owner) = owner.map(identity) else { continue };
                owners.extend(paths.iter().map(|path| (path.as_str(), owner.clone())));
            }
            Find::Conda { package, paths } => {
                let owner = identity(package);
                owners.extend(paths.iter().map(|path| (path.as_str(), owner.clone())));
            }
            _ => {}
        }
    }
    let mut alone: BTreeSet<Identity> = BTreeSet::new();
    let mut folded: BTreeSet<Identity> = BTreeSet::new();
    for (path, find) in there {
        let Find::Module(module) = find else { continue };
        let identity = identity(module);
        let owner = owners.get(path.as_str()).and_then(|owner| packages.get_mut(owner));
        match owner {
            Some(owner) if is_one_with(owner, module) => {
                owner.holds.push(held(module));
                if let Some(module) = packages.get_mut(&identity) {
                    module.paths.retain(|has| has != path);
                }
                folded.insert(identity);
            }
            _ => {
                alone.insert(identity);
            }
        }
    }
    // The same version may be installed a second time, by hand.
    packages.retain(|identity, _| !folded.contains(identity) || alone.contains(identity));
    for package in packages.values_mut() {
        package.paths.sort();
        package.paths.dedup();
        package.holds.sort();
        package.holds.dedup();
    }
}

fn held(module: &Package) -> Held {
    let name = match module.manager {
        Manager::Python => python::normalised(&module.name),
        _ => module.name.clone(),
    };
    Held { manager: module.manager, name, version: module.version.clone() }
}

/// A Debian package of a program may bring hundreds of npm's modules, of which nobody says that they
/// are kept up with; they stay packages of their own. For Python and R the distribution answers.
fn is_one_with(owner: &Package, module: &Package) -> bool {
    let of_node = |name: &str| name.starts_with("node-") || matches!(name, "npm" | "nodejs");
    module.manager != Manager::Npm || (owner.manager == Manager::Deb && of_node(&owner.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(manager: Manager, name: &str, version: &str) -> Find {
        Find::Module(Package::new(manager, name, version))
    }

    fn layer(found: Vec<(&str, Find)>, gone: &[&str]) -> Finds {
        Finds {
            found: found.into_iter().map(|(path, find)| (path.to_owned(), find)).collect(),
            gone: gone.iter().map(|path| (*path).to_owned()).collect(),
            opaque: Vec::new(),
        }
    }

    fn told(inventory: &Inventory) -> Vec<(&str, &str, usize)> {
        let packages = inventory.packages.iter();
        packages.map(|one| (one.name.as_str(), one.version.as_str(), one.layer)).collect()
    }

    #[test]
    fn a_package_is_of_the_layer_that_brought_this_version() {
        let deb = |version: &str| Package::new(Manager::Deb, "bash", version);
        let status = |debs: Vec<Package>| ("var/lib/dpkg/status", Find::Debs(debs));
        let a = ("lib/a-1.dist-info/METADATA", module(Manager::Python, "a", "1"));
        let layers = [
            layer(vec![status(vec![deb("1")]), a.clone()], &[]),
            layer(vec![status(vec![deb("2"), Package::new(Manager::Deb, "zsh", "1")])], &[]),
            layer(vec![status(vec![deb("2")])], &["lib/a-1.dist-info"]),
        ];
        assert_eq!(told(&merge(&layers[..2])), [("bash", "2", 1), ("zsh", "1", 1), ("a", "1", 0)]);
        assert_eq!(told(&merge(&layers)), [("bash", "2", 1)]);
        let again = [layers[0].clone(), layers[2].clone(), layer(vec![a], &[])];
        assert_eq!(told(&merge(&again)), [("bash", "2", 1), ("a", "1", 2)]);
    }

    #[test]
    fn what_the_distribution_brings_is_told_once() {
        let list = Find::List {
            name: "r-cran-mass".to_owned(),
            architecture: None,
            paths: vec!["usr/lib/R/library/MASS/DESCRIPTION".to_owned()],
        };
        let debs = Find::Debs(vec![Package::new(Manager::Deb, "r-cran-mass", "7.3-1")]);
        let mut found = vec![
            ("var/lib/dpkg/status", debs),
            ("var/lib/dpkg/info/r-cran-mass.list", list),
            ("usr/lib/R/library/MASS/DESCRIPTION", module(Manager::R, "MASS", "7.3")),
        ];
        let inventory = merge(&[layer(found.clone(), &[])]);
        assert_eq!(told(&inventory), [("r-cran-mass", "7.3-1", 0)]);
        let held = Held { manager: Manager::R, name: "MASS".into(), version: "7.3".into() };
        assert_eq!(inventory.packages[0].holds, [held]);
        // A second copy of the same version is somebody's own.
        let mut own = Package::new(Manager::R, "MASS", "7.3");
        own.paths.push("opt/MASS/DESCRIPTION".to_owned());
        found.push(("opt/MASS/DESCRIPTION", Find::Module(own)));
        let both = merge(&[layer(found, &[])]);
        assert_eq!(told(&both), [("r-cran-mass", "7.3-1", 0), ("MASS", "7.3", 0)]);
        assert_eq!(both.packages[1].paths, ["opt/MASS/DESCRIPTION"]);
    }

    #[test]
    fn a_hollow_root_hides_everything_and_a_like_name_nothing() {
        let one = layer(vec![("lib/a.dist-info/METADATA", module(Manager::Python, "a", "1"))], &[]);
        let near = layer(vec![], &["lib/a.dist", "lib/a"]);
        assert_eq!(merge(&[one.clone(), near]).packages.len(), 1);
        let hollow = Finds { opaque: vec![String::new()], ..Finds::default() };
        assert!(merge(&[one, hollow]).packages.is_empty());
    }
}
