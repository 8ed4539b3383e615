//! Builds OCI images from recipes: base layers in, root steps in a sandbox, content-addressed
//! layers out, pushed to any registry, without a daemon, without Docker and without root.
//!
//! The rooms in reading order; ARCHITECTURE.md says how they hang together, and
//! `tests/layering.rs` holds which of them may use which.

// Ground: knows nothing of building.
pub mod disk;
pub mod fault;
pub mod oci;
pub mod report;
pub mod text;

// Means: each does one thing to bytes or processes.
pub mod changes;
pub mod http;
pub mod layer;
pub mod netlog;
pub mod packages;
pub mod registry;
pub mod rootfs;
pub mod sandbox;
pub mod store;
pub mod transfer;

// Intent: text in, decisions out; pure once read.
pub mod definition;
pub mod lock;
pub mod plan;
pub mod recipe;

// Work and verbs.
pub mod audit;
pub mod build;
pub mod describe;
pub mod ops;
