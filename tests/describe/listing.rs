//! A registry of a few lines that lists referrers itself, as distribution-spec 1.1 wants it; Debian's
//! does not yet.

use std::collections::BTreeMap;
use std::sync::Mutex;

use serde_json::{Value, json};

use crate::double::{Double, Reply, Request};
use crate::support::image::digest;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

#[derive(Default)]
struct Kept {
    blobs: BTreeMap<String, Vec<u8>>,
    /// By digest and by tag, with the media type.
    manifests: BTreeMap<String, (String, Vec<u8>)>,
    uploads: BTreeMap<String, Vec<u8>>,
}

/// Starts one.
pub(super) fn start() -> Double {
    let kept = Mutex::new(Kept::default());
    Double::start(move |request, number| answer(&mut kept.lock().unwrap(), request, number))
}

fn answer(kept: &mut Kept, request: &Request, number: usize) -> Reply {
    let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
    let Some((_, below)) = path.strip_prefix("/v2/").and_then(|path| path.split_once('/')) else {
        return Reply::new(200);
    };
    let (kind, name) = below.split_once('/').unwrap_or((below, ""));
    let named = query.split('&').find_map(|part| part.strip_prefix("digest="));
    let named = named.map(|text| text.replace("%3A", ":"));
    match (request.method.as_str(), kind) {
        ("POST", "blobs") => {
            let place = format!("{path}upload-{number}");
            kept.uploads.insert(place.clone(), Vec::new());
            Reply::new(202).with("Location", &place)
        }
        ("PATCH", "blobs") => {
            kept.uploads.get_mut(path).unwrap().extend_from_slice(&request.body);
            Reply::new(202).with("Location", path)
        }
        ("PUT", "blobs") => {
            let mut bytes = kept.uploads.remove(path).unwrap();
            bytes.extend_from_slice(&request.body);
            assert_eq!(Some(digest(&bytes)), named, "a blob under another's name");
            kept.blobs.insert(digest(&bytes), bytes);
            Reply::new(201)
        }
        ("GET" | "HEAD", "blobs") => match kept.blobs.get(name) {
            Some(bytes) => Reply::new(200).body(bytes.clone()),
            None => Reply::new(404),
        },
        ("PUT", "manifests") => {
            let media_type = request.header("Content-Type").unwrap().to_owned();
            let entry = (media_type, request.body.clone());
            kept.manifests.insert(digest(&request.body), entry.clone());
            kept.manifests.insert(name.to_owned(), entry);
            let value: Value = serde_json::from_slice(&request.body).unwrap();
            let reply = Reply::new(201);
            match value["subject"]["digest"].as_str() {
                Some(subject) => reply.with("OCI-Subject", subject),
                None => reply,
            }
        }
        ("GET" | "HEAD", "manifests") => match kept.manifests.get(name) {
            Some((media_type, bytes)) => Reply::new(200)
                .with("Content-Type", media_type)
                .with("Docker-Content-Digest", &digest(bytes))
                .body(bytes.clone()),
            None => Reply::new(404),
        },
        ("GET", "referrers") => {
            let index = json!({
                "schemaVersion": 2, "mediaType": INDEX, "manifests": referrers(kept, name),
            });
            Reply::new(200).with("Content-Type", INDEX).body(index.to_string())
        }
        other => panic!("{other:?} {}", request.target),
    }
}

fn referrers(kept: &Kept, subject: &str) -> Vec<Value> {
    let by_digest = kept.manifests.iter().filter(|(name, _)| name.starts_with("sha256:"));
    by_digest
        .filter_map(|(name, (media_type, bytes))| {
            let value: Value = serde_json::from_slice(bytes).unwrap();
            (value["subject"]["digest"] == subject).then(|| {
                json!({
                    "mediaType": media_type, "digest": name, "size": bytes.len(),
                    "artifactType": value["artifactType"], "annotations": value["annotations"],
                })
            })
        })
        .collect()
}
