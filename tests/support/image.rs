//! An image as a registry serves it, read and checked by means that share no code with the product:
//! curl for the transfer, and the specification's rules written down once more.

use std::io::Read;
use std::process::Command;

use serde_json::Value;
use sha2::Digest as _;

use super::cli::Project;
use super::run;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// `sha256:…` of bytes.
pub(crate) fn digest(bytes: &[u8]) -> String {
    let hash = sha2::Sha256::digest(bytes);
    let hex: Vec<String> = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{}", hex.concat())
}

/// Fetches a path of a registry.
fn get(host: &str, path: &str) -> Vec<u8> {
    let accept = format!("Accept: {INDEX}, {MANIFEST}");
    run(Command::new("curl").args(["-sSfL", "-H", &accept]).arg(format!("http://{host}/v2/{path}")))
        .stdout
}

/// One platform of a checked image.
pub(crate) struct Checked {
    /// Its config.
    pub(crate) config: Value,
    /// Its layers, uncompressed, bottom up.
    pub(crate) layers: Vec<Vec<u8>>,
    /// Its manifest.
    pub(crate) manifest: Value,
}

/// Fetches an image and checks that everything in it agrees: digests, sizes, media types, diff ids,
/// history. Returns the index's digest and the platforms.
pub(crate) fn check(host: &str, name: &str, reference: &str) -> (String, Vec<Checked>) {
    let bytes = get(host, &format!("{name}/manifests/{reference}"));
    let index: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(index["schemaVersion"], 2);
    assert_eq!(index["mediaType"], INDEX, "an index, always");
    let mut platforms = Vec::new();
    for entry in index["manifests"].as_array().unwrap() {
        assert_eq!(entry["mediaType"], MANIFEST);
        let bytes = described(host, name, "manifests", entry);
        let manifest: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(manifest["mediaType"], MANIFEST);
        let config: Value =
            serde_json::from_slice(&described(host, name, "blobs", &manifest["config"])).unwrap();
        for field in ["architecture", "os"] {
            assert_eq!(entry["platform"][field], config[field], "{field}");
        }
        let diff_ids = config["rootfs"]["diff_ids"].as_array().unwrap();
        let layers: Vec<Vec<u8>> = manifest["layers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|layer| inflate(layer, &described(host, name, "blobs", layer)))
            .collect();
        assert_eq!(layers.len(), diff_ids.len(), "one diff id a layer");
        for (layer, diff_id) in layers.iter().zip(diff_ids) {
            assert_eq!(digest(layer), diff_id.as_str().unwrap());
        }
        if let Some(history) = config["history"].as_array() {
            let filled = history.iter().filter(|entry| entry["empty_layer"] != true).count();
            assert_eq!(filled, layers.len(), "one line of history a layer");
        }
        platforms.push(Checked { config, layers, manifest });
    }
    (digest(&bytes), platforms)
}

fn described(host: &str, name: &str, kind: &str, descriptor: &Value) -> Vec<u8> {
    let expected = descriptor["digest"].as_str().unwrap();
    let bytes = get(host, &format!("{name}/{kind}/{expected}"));
    assert_eq!(digest(&bytes), expected);
    assert_eq!(descriptor["size"].as_u64(), Some(bytes.len() as u64), "size of {expected}");
    bytes
}

fn inflate(descriptor: &Value, bytes: &[u8]) -> Vec<u8> {
    let mut tar = Vec::new();
    match descriptor["mediaType"].as_str().unwrap() {
        "application/vnd.oci.image.layer.v1.tar+gzip" => {
            flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut tar).map(|_| ())
        }
        "application/vnd.oci.image.layer.v1.tar+zstd" => zstd::stream::copy_decode(bytes, &mut tar),
        other => panic!("a layer of type {other}"),
    }
    .unwrap();
    tar
}

/// A member of a tar, as much of it as a user would notice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its path, lossily.
    pub(crate) path: String,
    /// The letter of `ls`: `-`, `d`, `l`, `p`; `h` is a hard link.
    pub(crate) kind: char,
    /// Permissions with set-uid and its kin.
    pub(crate) mode: u32,
    /// Owner and group.
    pub(crate) owner: (u64, u64),
    /// Seconds.
    pub(crate) mtime: u64,
    /// Of a link.
    pub(crate) target: String,
    /// Of a file.
    pub(crate) content: Vec<u8>,
    /// Names of its extended attributes.
    pub(crate) attributes: Vec<String>,
}

/// Lists a tar.
pub(crate) fn entries(tar: &[u8]) -> Vec<Entry> {
    let mut archive = tar::Archive::new(tar);
    archive
        .entries()
        .unwrap()
        .map(|entry| {
            let mut entry = entry.unwrap();
            let attributes = match entry.pax_extensions().unwrap() {
                Some(records) => records
                    .filter_map(|record| {
                        let record = record.unwrap();
                        record.key().unwrap().strip_prefix("SCHILY.xattr.").map(str::to_owned)
                    })
                    .collect(),
                None => Vec::new(),
            };
            let header = entry.header();
            let kind = match header.entry_type() {
                tar::EntryType::Regular => '-',
                tar::EntryType::Directory => 'd',
                tar::EntryType::Symlink => 'l',
                tar::EntryType::Link => 'h',
                tar::EntryType::Fifo => 'p',
                tar::EntryType::Char => 'c',
                other => panic!("an entry of type {other:?}"),
            };
            let lossy =
                |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('/').to_owned();
            let mut found = Entry {
                path: lossy(&entry.path_bytes()),
                kind,
                mode: header.mode().unwrap() & 0o7777,
                owner: (header.uid().unwrap(), header.gid().unwrap()),
                mtime: header.mtime().unwrap(),
                target: entry.link_name_bytes().map(|name| lossy(&name)).unwrap_or_default(),
                content: Vec::new(),
                attributes,
            };
            entry.read_to_end(&mut found.content).unwrap();
            found
        })
        .collect()
}

/// Finds an entry by its path.
pub(crate) fn entry<'e>(entries: &'e [Entry], path: &str) -> &'e Entry {
    entries.iter().find(|entry| entry.path == path).unwrap_or_else(|| {
        let paths: Vec<&str> = entries.iter().map(|entry| entry.path.as_str()).collect();
        panic!("no `{path}` among {paths:?}")
    })
}

/// The first paths that two builds of an image disagree on, layer by layer.
pub(crate) fn difference(one: &Project, other: &Project, name: &str) -> String {
    let layers = |project: &Project| -> Vec<String> {
        let shown = project.run(&["show", name, "--json"]).json();
        let layers = shown["platforms"][0]["layers"].as_array().unwrap().clone();
        layers.iter().map(|layer| layer["digest"].as_str().unwrap()[7..].to_owned()).collect()
    };
    let mut text = String::new();
    for (one_layer, other_layer) in layers(one).iter().zip(&layers(other)) {
        if one_layer == other_layer {
            continue;
        }
        let read = |project: &Project, hex: &str| {
            let bytes = std::fs::read(project.store().join("blobs/sha256").join(hex)).unwrap();
            let mut tar = Vec::new();
            flate2::read::MultiGzDecoder::new(bytes.as_slice()).read_to_end(&mut tar).unwrap();
            entries(&tar)
        };
        let (mine, theirs) = (read(one, one_layer), read(other, other_layer));
        let missing = mine.iter().filter(|entry| !theirs.contains(entry));
        let added = theirs.iter().filter(|entry| !mine.contains(entry));
        for entry in missing.take(10).chain(added.take(10)) {
            let content = String::from_utf8_lossy(&entry.content[..entry.content.len().min(200)]);
            text.push_str(&format!(
                "{} {} {:o} {:?} {} {content:?}\n",
                entry.kind, entry.path, entry.mode, entry.owner, entry.mtime
            ));
        }
    }
    text
}
