//! A small definition with one recipe, for the tests of this room to vary.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use super::{Error, Inputs, Ownership, Plan, Rules, Sources, key, plan};
use crate::oci::{ConfigDocument, Digest, Platform};
use crate::text;

/// What a plan is made of, before it is written to a folder of its own.
pub(super) struct Example {
    pub(super) definition: String,
    pub(super) recipe: String,
    /// Path, content, exec bit.
    pub(super) files: Vec<(&'static str, String, u32)>,
    pub(super) lock: Option<String>,
    pub(super) platform: Platform,
    pub(super) base: Value,
    pub(super) epoch: Option<i64>,
    pub(super) rules: &'static str,
    pub(super) parents: Vec<Digest>,
    pub(super) ownership: Ownership,
}

pub(super) const RECIPE: &str = r#"about = "An example"
args = { version = "1.2", other-arg = "x" }
env = { TOOL_HOME = "/opt/tool-{version}" }

[[step]]
name = "install"
run = "install.sh"
args = ["--for", "{codename}", "{version}"]
user = "1000:100"
workdir = "/opt"
env = { MODE = "full" }
timeout = "30m"

[[step]]
name = "path"
env = { PATH = "{PATH}:{TOOL_HOME}/bin" }

[[step]]
name = "inline"
script = "echo {not-a-variable}"
network = false
when = { distribution = ["debian", "ubuntu"] }

[[step]]
name = "conf"
copy = "conf"
to = "/etc/tool"
mode = "0640"
owner = "0:0"

[[step]]
name = "download"
fetch = "https://example.org/{version}/tool-{machine}-{release}.tar"
to = "/tmp/tool.tar"
sha256.amd64 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
sha256.arm64 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

[[step]]
name = "arm"
script = "echo arm"
when = { arch = "arm64" }
"#;

pub(super) const DEFINITION: &str = r#"image = "ghcr.io/me/mine"
base = "quay.io/a/base:1"
platforms = ["linux/amd64", "linux/arm64"]
layers = ["tool"]
"#;

impl Default for Example {
    fn default() -> Example {
        Example {
            definition: DEFINITION.to_owned(),
            recipe: RECIPE.to_owned(),
            files: vec![
                ("install.sh", "#!/bin/bash\necho\n".to_owned(), 0o755),
                ("conf/a", "a".to_owned(), 0o644),
            ],
            lock: None,
            platform: Platform::linux("amd64"),
            base: json!({
                "architecture": "amd64", "os": "linux", "created": "2025-02-10T12:00:00Z",
                "config": {
                    "Env": ["PATH=/usr/bin:/bin", "NB_USER=jovyan"], "User": "1000",
                    "Entrypoint": ["tini", "--"], "Cmd": ["start.sh"], "WorkingDir": "/home/jovyan",
                    "ExposedPorts": {"8888/tcp": {}}, "Labels": {"a": "base", "b": "base"},
                    "Healthcheck": {"Test": ["NONE"]},
                },
                "rootfs": {"type": "layers", "diff_ids": []}, "history": [],
            }),
            epoch: None,
            rules: "n1",
            parents: vec![Digest::of(b"base")],
            ownership: Ownership::Kept,
        }
    }
}

impl Example {
    pub(super) fn sources(&self) -> Result<Sources, text::Error> {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, content: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, content).unwrap();
            path
        };
        let definition = write("manifests/mine.toml", &self.definition);
        write("layers/tool/layer.toml", &self.recipe);
        for (path, content, mode) in &self.files {
            let path = write(&format!("layers/tool/{path}"), content);
            fs::set_permissions(path, fs::Permissions::from_mode(*mode)).unwrap();
        }
        if let Some(lock) = &self.lock {
            write("manifests/mine.lock", lock);
        }
        Sources::load(&definition)
    }

    pub(super) fn try_plan(&self) -> Result<Plan, Error> {
        let mut base = self.base.clone();
        base["architecture"] = json!(self.platform.architecture);
        let base = ConfigDocument::read(&serde_json::to_vec(&base).unwrap()).unwrap();
        let inputs = Inputs {
            platform: &self.platform,
            base: &base,
            base_digest: Some(Digest::of(b"index")),
            base_manifest: Some(Digest::of(b"manifest")),
            source_date_epoch: self.epoch,
            rules: Rules { version: self.rules, names: &["apt-logs", "ldconfig"] },
        };
        plan(&self.sources()?, &inputs)
    }

    pub(super) fn plan(&self) -> Plan {
        self.try_plan().unwrap_or_else(|error| panic!("{error}"))
    }

    pub(super) fn key(&self) -> Digest {
        key(&self.plan().layers[0], &self.parents, self.ownership).unwrap()
    }

    /// Gives it a lock for amd64 in which one layer has a date and answers.
    pub(super) fn lock(&mut self, layer: &str, date: i64, fetches: &str) {
        let (index, manifest) = (Digest::of(b"index"), Digest::of(b"manifest"));
        self.lock = Some(format!(
            "lock = 2\nrules = 'n1'\n[base]\nreference = 'quay.io/a/base:1'\ndigest = '{index}'\n\
             [platform.'linux/amd64']\nbase = '{manifest}'\n\
             [platform.'linux/amd64'.layer.{layer}]\nsource-date = {date}\nfetches = [{fetches}]\n"
        ));
    }

    /// Replaces a text of the recipe, which has to be there.
    pub(super) fn recipe(&mut self, from: &str, to: &str) {
        assert!(self.recipe.contains(from), "{from}");
        self.recipe = self.recipe.replacen(from, to, 1);
    }

    /// Replaces a text of the definition, which has to be there.
    pub(super) fn definition(&mut self, from: &str, to: &str) {
        assert!(self.definition.contains(from), "{from}");
        self.definition = self.definition.replacen(from, to, 1);
    }
}
