//! What a plan changes in the base's configuration. Everything else stays as the base has it.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::rfc3339;
use crate::oci::ConfigDocument;

/// Changes to an image's configuration; `None` and empty leave things as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ConfigPatch {
    /// Variables of the environment, in order, each once.
    pub env: Vec<(String, String)>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Whom the image runs as.
    pub user: Option<String>,
    /// The folder it starts in.
    pub workdir: Option<String>,
    /// The program that it starts; an empty list takes the base's away.
    pub entrypoint: Option<Vec<String>>,
    /// Its arguments; an empty list takes the base's away.
    pub command: Option<Vec<String>>,
    /// Ports to add, as `8888/tcp`.
    pub ports: Vec<String>,
    /// The signal that ends it.
    pub stop_signal: Option<String>,
    /// The image's date in seconds since 1970.
    pub created: Option<i64>,
}

impl ConfigPatch {
    /// Applies the changes. Layers and history are not its matter.
    pub fn apply(&self, config: &mut ConfigDocument) {
        for (name, value) in &self.env {
            config.set_env(name, value);
        }
        for (name, value) in &self.labels {
            config.set_label(name, value);
        }
        if let Some(user) = &self.user {
            config.set_parameter("User", json!(user));
        }
        if let Some(workdir) = &self.workdir {
            config.set_parameter("WorkingDir", json!(workdir));
        }
        let words = |words: &Vec<String>| if words.is_empty() { Value::Null } else { json!(words) };
        if let Some(entrypoint) = &self.entrypoint {
            config.set_parameter("Entrypoint", words(entrypoint));
        }
        if let Some(command) = &self.command {
            config.set_parameter("Cmd", words(command));
        }
        if !self.ports.is_empty() {
            let mut ports = match config.parameter("ExposedPorts") {
                Some(Value::Object(ports)) => ports.clone(),
                _ => Map::new(),
            };
            for port in &self.ports {
                ports.insert(port.clone(), json!({}));
            }
            config.set_parameter("ExposedPorts", Value::Object(ports));
        }
        if let Some(signal) = &self.stop_signal {
            config.set_parameter("StopSignal", json!(signal));
        }
        if let Some(created) = self.created {
            config.set_created(&rfc3339(created));
        }
    }
}
