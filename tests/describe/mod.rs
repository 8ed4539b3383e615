//! What goes with an image: its packages against what their managers say, signatures against openssl
//! and the specifications.

mod inputs;
mod listing;
mod packages;
mod provenance;
mod signatures;

use std::process::Command;

use jsonschema::Validator;
use serde_json::Value;

use crate::support::cli::fixtures;
use crate::support::run;

/// A published schema that is kept with the tests.
fn schema(name: &str) -> Validator {
    let path = fixtures().join("schemas").join(name);
    let schema: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    jsonschema::validator_for(&schema).unwrap()
}

/// Asserts that a document keeps to a schema.
fn keeps_to(schema: &Validator, document: &Value) {
    let errors: Vec<String> = schema
        .iter_errors(document)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{}", errors.join("\n"));
}

/// What a registry answers to a plain client.
fn get(host: &str, path: &str) -> Vec<u8> {
    let accept = "Accept: application/vnd.oci.image.index.v1+json, \
                  application/vnd.oci.image.manifest.v1+json";
    let url = format!("http://{host}/v2/{path}");
    run(Command::new("curl").args(["-sSfL", "-H", accept, &url])).stdout
}

pub(crate) fn get_json(host: &str, path: &str) -> Value {
    serde_json::from_slice(&get(host, path)).unwrap()
}
