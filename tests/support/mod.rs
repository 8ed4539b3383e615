//! What several subjects' tests stand on: folders that vanish, free ports, real registries.

// Each helper is for the tests that need it; none is needed by all.
#![allow(dead_code, reason = "shared by modules that come and go")]

pub(crate) mod base;
pub(crate) mod browser;
pub(crate) mod cli;
pub(crate) mod counter;
pub(crate) mod cutter;
pub(crate) mod driver;
pub(crate) mod files;
pub(crate) mod freezer;
pub(crate) mod image;
pub(crate) mod memory;
pub(crate) mod nginx;
pub(crate) mod package;
pub(crate) mod podman;
pub(crate) mod registry;
pub(crate) mod token;
pub(crate) mod upstream;
pub(crate) mod weather;
pub(crate) mod web;

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

pub(crate) use tempfile::TempDir;

/// Makes a folder that vanishes with the returned value.
pub(crate) fn temp_dir() -> TempDir {
    tempfile::Builder::new().prefix("ocibuild-test-").tempdir().unwrap()
}

/// Returns a port of 127.0.0.1 on which nobody listened a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Reads one of the repository's own schemas, which has to be a good one.
pub(crate) fn schema(name: &str) -> jsonschema::Validator {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas").join(name);
    let schema = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    jsonschema::meta::validate(&schema).unwrap();
    jsonschema::validator_for(&schema).unwrap()
}

/// Runs a tool that the tests need and returns its output; one that fails or is missing fails the
/// test with what it said.
pub(crate) fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Returns bytes that compress badly and are the same in each run; `seed` tells them apart.
pub(crate) fn noise(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}
