//! An image's configuration (image-spec, config), carried as JSON: a base's `Healthcheck`, `Shell`
//! or `OnBuild` survive although no type here knows them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Digest, Platform, json as canonical};

/// One act of an image's history; one that made no layer is `empty`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// When, in RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// What was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// A remark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Whether no layer belongs to it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub empty_layer: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_false(value: &bool) -> bool {
    !value
}

/// A configuration document that can be changed without losing what is not known here.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigDocument(Map<String, Value>);

impl ConfigDocument {
    /// Returns the configuration of an image without layers.
    pub fn empty(platform: &Platform) -> ConfigDocument {
        let mut document = Map::new();
        document.insert("architecture".into(), json!(platform.architecture));
        document.insert("os".into(), json!(platform.os));
        if let Some(variant) = &platform.variant {
            document.insert("variant".into(), json!(variant));
        }
        document.insert("config".into(), json!({}));
        document.insert("rootfs".into(), json!({"type": "layers", "diff_ids": []}));
        document.insert("history".into(), json!([]));
        ConfigDocument(document)
    }

    /// Reads a configuration's bytes.
    pub fn read(bytes: &[u8]) -> Result<ConfigDocument, serde_json::Error> {
        let document = ConfigDocument(serde_json::from_slice(bytes)?);
        // What everything else relies on is checked once, here.
        document.try_diff_ids()?;
        Ok(document)
    }

    /// Encodes it; the same document gives the same bytes.
    pub fn encode(&self) -> Result<Vec<u8>, canonical::EncodeError> {
        canonical::encode(&self.0)
    }

    /// Returns the platform that it names.
    pub fn platform(&self) -> Platform {
        let text =
            |key: &str| self.0.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        Platform {
            os: text("os").unwrap_or("linux").to_owned(),
            architecture: text("architecture").unwrap_or("unknown").to_owned(),
            variant: text("variant").map(str::to_owned),
        }
    }

    fn try_diff_ids(&self) -> Result<Vec<Digest>, serde_json::Error> {
        let list = self.0.get("rootfs").and_then(|rootfs| rootfs.get("diff_ids"));
        match list {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(list) => Vec::deserialize(list),
        }
    }

    /// Returns the layers' digests before compression, the base first.
    pub fn diff_ids(&self) -> Vec<Digest> {
        self.try_diff_ids().unwrap_or_default()
    }

    /// Returns the acts that made the image.
    pub fn history(&self) -> Vec<HistoryEntry> {
        self.0.get("history").and_then(|list| Vec::deserialize(list).ok()).unwrap_or_default()
    }

    /// Returns the act that made each layer, from the bottom up, where it says.
    pub fn made_by(&self) -> impl Iterator<Item = Option<String>> + use<> {
        let acts = self.history().into_iter().filter(|act| !act.empty_layer);
        acts.map(|act| act.created_by)
    }

    /// Returns when the image was made, in RFC 3339.
    pub fn created(&self) -> Option<&str> {
        self.0.get("created").and_then(Value::as_str)
    }

    /// Says when the image was made, in RFC 3339.
    pub fn set_created(&mut self, created: &str) {
        self.0.insert("created".into(), json!(created));
    }

    /// Adds a layer on top, with the act that made it. The base's entries stay as they were.
    pub fn push_layer(&mut self, diff_id: Digest, entry: &HistoryEntry) {
        let rootfs = self.0.entry("rootfs").or_insert_with(|| json!({"type": "layers"}));
        if let Value::Object(rootfs) = rootfs {
            push(rootfs, "diff_ids", json!(diff_id));
        }
        self.push_history(entry);
    }

    /// Adds an act that made no layer.
    pub fn push_history(&mut self, entry: &HistoryEntry) {
        push(&mut self.0, "history", json!(entry));
    }

    /// Returns one member of the execution parameters, as `Entrypoint` or `Env`.
    pub fn parameter(&self, name: &str) -> Option<&Value> {
        self.0.get("config").and_then(|config| config.get(name))
    }

    /// Sets one member of the execution parameters; `Null` takes it away.
    pub fn set_parameter(&mut self, name: &str, value: Value) {
        let config = self.0.entry("config").or_insert_with(|| json!({}));
        if !config.is_object() {
            *config = json!({});
        }
        if let Value::Object(config) = config {
            if value.is_null() {
                config.remove(name);
            } else {
                config.insert(name.to_owned(), value);
            }
        }
    }

    /// Returns the environment in the image's own order.
    pub fn env(&self) -> Vec<(String, String)> {
        let list: Vec<String> =
            self.parameter("Env").and_then(|list| Vec::deserialize(list).ok()).unwrap_or_default();
        list.into_iter()
            .map(|pair| match pair.split_once('=') {
                Some((name, value)) => (name.to_owned(), value.to_owned()),
                None => (pair, String::new()),
            })
            .collect()
    }

    /// Sets a variable: in its place where the image has it, else at the end.
    pub fn set_env(&mut self, name: &str, value: &str) {
        let mut env = self.env();
        match env.iter_mut().find(|(has, _)| has == name) {
            Some(pair) => value.clone_into(&mut pair.1),
            None => env.push((name.to_owned(), value.to_owned())),
        }
        let list: Vec<String> =
            env.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        self.set_parameter("Env", json!(list));
    }

    /// Returns the labels.
    pub fn labels(&self) -> BTreeMap<String, String> {
        self.parameter("Labels").and_then(|map| BTreeMap::deserialize(map).ok()).unwrap_or_default()
    }

    /// Sets a label.
    pub fn set_label(&mut self, name: &str, value: &str) {
        let mut labels = self.labels();
        labels.insert(name.to_owned(), value.to_owned());
        self.set_parameter("Labels", json!(labels));
    }

    /// Returns the user that the image runs as; empty is root.
    pub fn user(&self) -> &str {
        self.parameter("User").and_then(Value::as_str).unwrap_or("")
    }

    /// Returns the folder that the image starts in.
    pub fn working_dir(&self) -> &str {
        match self.parameter("WorkingDir").and_then(Value::as_str) {
            None | Some("") => "/",
            Some(dir) => dir,
        }
    }

    /// Returns the whole document, to show it.
    pub fn as_json(&self) -> Value {
        Value::Object(self.0.clone())
    }
}

fn push(object: &mut Map<String, Value>, key: &str, item: Value) {
    let list = object.entry(key).or_insert_with(|| json!([]));
    if !list.is_array() {
        *list = json!([]);
    }
    if let Value::Array(list) = list {
        list.push(item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_here_survives() {
        let base = br#"{"architecture":"amd64","os":"linux","config":{"Healthcheck":{"Interval":5000000000},
            "Shell":["/bin/bash","-c"],"Env":["PATH=/bin","A=1"],"OnBuild":["RUN x"]},
            "rootfs":{"type":"layers","diff_ids":[]},"history":[{"created_by":"x","author":"y"}],"moby.extra":1}"#;
        let mut config = ConfigDocument::read(base).unwrap();
        config.set_env("A", "2");
        config.set_env("B", "x=y");
        config.push_layer(
            Digest::of(b""),
            &HistoryEntry {
                created: None,
                created_by: Some("r".into()),
                comment: None,
                empty_layer: false,
            },
        );
        let text = String::from_utf8(config.encode().unwrap()).unwrap();
        for kept in [
            "\"Healthcheck\":{\"Interval\":5000000000}",
            "\"Shell\"",
            "\"OnBuild\"",
            "\"author\":\"y\"",
            "moby.extra",
        ] {
            assert!(text.contains(kept), "{kept} in {text}");
        }
        assert!(text.contains(r#""Env":["PATH=/bin","A=2","B=x=y"]"#));
        assert_eq!(config.diff_ids(), [Digest::of(b"")]);
        assert!(oci_spec::image::ImageConfiguration::from_reader(text.as_bytes()).is_ok());
    }
}
