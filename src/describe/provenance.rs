//! How an image was built, as SLSA provenance (version 1).
//!
//! There is no time in it and no name of a machine: whoever builds the same with the same program in
//! the same mode says the same.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::statement::PROVENANCE;
use super::{Error, Statement};
use crate::netlog::Fetch;
use crate::oci::{Digest, Platform, Reference};

/// Says how the other members are to be understood.
const BUILD_TYPE: &str = "https://github.com/rocker-org/ocibuild/build/v1";

/// Says it of an index, which is joined from what was built.
const INDEX_TYPE: &str = "https://github.com/rocker-org/ocibuild/index/v1";

/// The program, whoever runs it.
const BUILDER: &str = "https://github.com/rocker-org/ocibuild";

/// A file that a build was told by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its path in the project.
    pub name: String,
    /// Of its bytes.
    pub digest: Digest,
}

/// How the steps of a layer reached the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Network {
    /// Not at all.
    Off,
    /// They were given what the lock lists.
    Locked(Vec<Fetch>),
    /// They were given what upstream had, and that was recorded.
    Recorded(Vec<Fetch>),
    /// They were let out, and nobody knows what they fetched.
    Open,
}

impl Network {
    fn name(&self) -> &'static str {
        match self {
            Network::Off => "off",
            Network::Locked(_) => "locked",
            Network::Recorded(_) => "recorded",
            Network::Open => "open",
        }
    }

    fn fetches(&self) -> &[Fetch] {
        match self {
            Network::Locked(fetches) | Network::Recorded(fetches) => fetches,
            Network::Off | Network::Open => &[],
        }
    }
}

/// How a layer was made.
#[derive(Clone, Debug)]
pub struct LayerFacts {
    /// The recipe.
    pub name: String,
    /// Identifies the recipe with its arguments.
    pub recipe: Digest,
    /// What it was looked for under.
    pub key: Digest,
    /// Of its tar; `None` where the recipe changed nothing.
    pub diff_id: Option<Digest>,
    /// The date of its files, in seconds since 1970.
    pub source_date: i64,
    /// Rules of normalisation that it was spared.
    pub without_rules: Vec<String>,
    /// How its steps reached the network.
    pub network: Network,
    /// What its recipe fetches by itself, with the digest that it demands.
    pub demanded: Vec<(String, Digest)>,
}

/// The program that built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Builder {
    /// Its release.
    pub version: String,
    /// Of its executable.
    pub executable: Digest,
}

/// How one platform of an image was built.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The image's name.
    pub image: Reference,
    /// The definition's name.
    pub definition: String,
    /// The platform.
    pub platform: Platform,
    /// The base's name and manifest.
    pub base: (Reference, Option<Digest>),
    /// The definition and the recipes' files.
    pub sources: Vec<Source>,
    /// The lock's section for the platform.
    pub lock: Option<Digest>,
    /// The version of the rules of normalisation.
    pub rules: String,
    /// The name of the compression profile.
    pub compression: String,
    /// How the builder was root.
    pub mode: String,
    /// Whether the owners that steps gave were lost.
    pub owners_discarded: bool,
    /// The layers, from the bottom up.
    pub layers: Vec<LayerFacts>,
    /// The program.
    pub builder: Builder,
}

impl Facts {
    /// Returns the statement's bytes for the manifest that was built.
    pub fn statement(&self, manifest: Digest) -> Result<Vec<u8>, Error> {
        let name = self.image.name();
        Statement::encode(&[(Some(&name), manifest)], PROVENANCE, &self.predicate())
    }

    fn predicate(&self) -> Value {
        let all = |test: fn(&Network) -> bool| self.layers.iter().all(|one| test(&one.network));
        // Nothing came in but what is listed, and all of it is listed.
        let hermetic = all(|network| matches!(network, Network::Off | Network::Locked(_)));
        let complete = all(|network| !matches!(network, Network::Open));
        let layers: Vec<Value> = self.layers.iter().map(layer).collect();
        let mut external = json!({
            "definition": self.definition,
            "platform": self.platform.to_string(),
        });
        if self.owners_discarded {
            external["ownership"] = json!("discard");
        }
        json!({
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": external,
                "internalParameters": {
                    "rules": self.rules,
                    "compression": self.compression,
                    "mode": self.mode,
                    "layers": layers,
                    "hermetic": hermetic,
                    "dependenciesComplete": complete,
                },
                "resolvedDependencies": self.dependencies(),
            },
            "runDetails": run_details(&self.builder),
        })
    }

    fn dependencies(&self) -> Vec<Value> {
        let mut list = Vec::new();
        let (base, manifest) = &self.base;
        let mut entry = json!({ "name": "base", "uri": format!("docker://{base}") });
        if let Some(manifest) = manifest {
            entry["digest"] = sha256(*manifest);
        }
        list.push(entry);
        for source in &self.sources {
            list.push(json!({ "name": source.name, "digest": sha256(source.digest) }));
        }
        if let Some(lock) = self.lock {
            list.push(json!({ "name": "lock", "digest": sha256(lock) }));
        }
        // One entry a body of a URL, whichever layers asked for it.
        let mut seen: BTreeMap<(&str, Digest), (Value, BTreeSet<&str>)> = BTreeMap::new();
        for layer in &self.layers {
            for fetch in layer.network.fetches() {
                let entry = seen.entry((&fetch.url, fetch.digest)).or_insert((
                    json!({ "method": fetch.method, "authority": fetch.authority }),
                    BTreeSet::new(),
                ));
                entry.1.insert(&layer.name);
            }
            for (url, digest) in &layer.demanded {
                let entry = seen
                    .entry((url, *digest))
                    .or_insert((json!({ "authority": "declared" }), BTreeSet::new()));
                entry.1.insert(&layer.name);
            }
        }
        for ((url, digest), (mut annotations, layers)) in seen {
            annotations["layers"] = json!(layers);
            list.push(json!({
                "uri": url, "digest": sha256(digest), "annotations": annotations,
            }));
        }
        list
    }
}

fn layer(facts: &LayerFacts) -> Value {
    let mut value = json!({
        "name": facts.name,
        "recipe": facts.recipe,
        "key": facts.key,
        "sourceDate": facts.source_date,
        "network": facts.network.name(),
    });
    if let Some(diff_id) = facts.diff_id {
        value["diffId"] = json!(diff_id);
    }
    if !facts.without_rules.is_empty() {
        value["withoutRules"] = json!(facts.without_rules);
    }
    value
}

fn run_details(builder: &Builder) -> Value {
    json!({
        "builder": {
            "id": BUILDER,
            "version": { "ocibuild": builder.version },
            "builderDependencies": [{ "name": "ocibuild", "digest": sha256(builder.executable) }],
        },
    })
}

fn sha256(digest: Digest) -> Value {
    json!({ "sha256": digest.hex() })
}

/// Returns the statement's bytes of an index that joins platforms.
pub fn of_index(
    image: &Reference,
    index: Digest,
    platforms: &[(Platform, Digest)],
    builder: &Builder,
) -> Result<Vec<u8>, Error> {
    let names: Vec<String> = platforms.iter().map(|(platform, _)| platform.to_string()).collect();
    let manifests: Vec<Value> = platforms
        .iter()
        .map(|(platform, digest)| {
            json!({ "name": format!("manifest for {platform}"), "digest": sha256(*digest) })
        })
        .collect();
    let predicate = json!({
        "buildDefinition": {
            "buildType": INDEX_TYPE,
            "externalParameters": { "image": image.name(), "platforms": names },
            "internalParameters": {},
            "resolvedDependencies": manifests,
        },
        "runDetails": run_details(builder),
    });
    let name = image.name();
    Statement::encode(&[(Some(&name), index)], PROVENANCE, &predicate)
}
