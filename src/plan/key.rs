//! What a layer's name is made of: everything that can change its bytes, and nothing else.
//!
//! In it: the format, the rules of normalisation and those switched off, the platform, the layers
//! below, the recipe's files, each step with its variables filled in and the environment it sees,
//! the date, what a lock has the network answer, and how faithfully ownership is kept. Not in it: names, descriptions, timeouts,
//! compression, proxies, the CA bundle, the caller's settings, the image's name and labels.

use serde::Serialize;
use serde_json::{Value, json};

use super::{Error, Layer, Step};
use crate::oci::{Digest, json as canonical};
use crate::recipe::{Action, Files};

/// The version of the key's own make-up; another one makes every layer anew.
pub const FORMAT: u32 = 1;

/// How faithfully a build keeps who owns what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Ownership {
    /// Truthfully, in whichever way: root, a range of users, or a supervisor.
    #[default]
    Kept,
    /// Everything belongs to root, as asked for; never shared with the others.
    Discarded,
}

/// Returns the key of a layer that stands on layers with these digests before compression.
pub fn key(layer: &Layer, parents: &[Digest], ownership: Ownership) -> Result<Digest, Error> {
    let steps: Vec<Value> =
        layer.steps.iter().filter(|step| acts(step)).map(act).collect::<Result<_, _>>()?;
    let mut value = json!({
        "format": FORMAT,
        "rules": { "version": layer.rules, "without": layer.without_rules },
        "platform": layer.platform.to_string(),
        "parents": parents,
        "ownership": ownership,
        "source-date": layer.source_date,
        "files": files(&layer.files)?,
        "steps": steps,
    });
    // A layer whose network is open keeps the key that it has without a lock.
    if let (Some(pins), Value::Object(members)) = (&layer.pins, &mut value) {
        members.insert("lock".to_owned(), value_of(&pins.digest)?);
    }
    Ok(Digest::of(&canonical::encode(&value)?))
}

/// An `env` step shows in the environment of the steps after it.
fn acts(step: &Step) -> bool {
    !matches!(step.action, Action::Env(_))
}

fn act(step: &Step) -> Result<Value, Error> {
    let mut action = value_of(&step.action)?;
    if let Some(Value::Object(run)) = action.get_mut("run") {
        // A step that is ended makes no layer; one that isn't does not know of its limit.
        run.remove("timeout");
    }
    Ok(json!({ "when": value_of(&step.when)?, "do": action }))
}

fn files(files: &Files) -> Result<Value, Error> {
    value_of(files)
}

pub(super) fn value_of<T: Serialize>(value: &T) -> Result<Value, Error> {
    serde_json::to_value(value).map_err(|error| Error::Encode(error.into()))
}

#[cfg(test)]
mod tests {
    use super::super::example::Example;
    use super::*;
    use crate::oci::Platform;

    /// A change of this is a change of every user's cache and goes into the changelog.
    const GOLDEN: &str = "sha256:7d8001d1672d1be99a721d49f09c492a89bf966357deeb58d1d2c333ac337854";

    type Change = fn(&mut Example);

    const MATTERS: &[(&str, Change)] = &[
        ("a script's bytes", |e| e.files[0].1.push_str("true\n")),
        ("a script's interpreter", |e| e.files[0].1 = "#!/bin/sh\necho\n".to_owned()),
        ("an exec bit", |e| e.files[1].2 = 0o755),
        ("another file", |e| e.files.push(("more", String::new(), 0o644))),
        ("a file's name", |e| e.files[1].0 = "conf/b"),
        ("an argument's default", |e| e.recipe("\"1.2\"", "\"1.3\"")),
        ("an argument that only scripts see", |e| e.recipe("\"x\"", "\"y\"")),
        ("an argument of the definition", |e| {
            e.definition("\"tool\"", "{ recipe = \"tool\", args = { other-arg = \"z\" } }");
        }),
        ("the recipe's env", |e| e.recipe("/opt/tool-", "/srv/tool-")),
        ("a step's env", |e| e.recipe("\"full\"", "\"part\"")),
        ("an env step before a program", |e| e.recipe("{TOOL_HOME}/bin", "{TOOL_HOME}/sbin")),
        ("a program's arguments", |e| e.recipe("\"--for\"", "\"--at\"")),
        ("an inline script", |e| e.recipe("{not-a-variable}", "x")),
        ("a shell", |e| {
            e.recipe("network = false", "network = false\nshell = [\"/bin/sh\", \"-ec\"]");
        }),
        ("a user", |e| e.recipe("1000:100", "1000")),
        ("a working folder", |e| e.recipe("\"/opt\"", "\"/srv\"")),
        ("the network", |e| e.recipe("network = false", "network = true")),
        ("where a step is done", |e| e.recipe("[\"debian\", \"ubuntu\"]", "\"ubuntu\"")),
        ("a copy's place", |e| e.recipe("/etc/tool", "/etc/tool2")),
        ("a copy's mode", |e| e.recipe("0640", "0600")),
        ("a copy's owner", |e| e.recipe("\"0:0\"", "\"0:50\"")),
        ("a copy's source", |e| e.recipe("copy = \"conf\"", "copy = \"conf/a\"")),
        ("an address", |e| e.recipe("example.org", "example.com")),
        ("a digest", |e| e.recipe("e3b0", "e3b1")),
        ("a download's place", |e| e.recipe("/tmp/tool.tar", "/opt/tool.tar")),
        ("the order of steps", |e| {
            let at = e.recipe.find("[[step]]\nname = \"conf\"").unwrap();
            let end = e.recipe.find("[[step]]\nname = \"download\"").unwrap();
            let step = e.recipe[at..end].to_owned();
            e.recipe.replace_range(at..end, "");
            e.recipe.push_str(&step);
        }),
        ("a step that is switched off", |e| {
            e.definition("\"tool\"", "{ recipe = \"tool\", without = [\"conf\"] }");
        }),
        ("a rule that is switched off", |e| {
            e.recipe.insert_str(0, "without-rules = [\"apt-logs\"]\n");
        }),
        ("the rules' version", |e| e.rules = "n2"),
        ("the platform", |e| e.platform = Platform::linux("arm64")),
        ("the layers below", |e| e.parents.push(Digest::of(b"more"))),
        ("ownership", |e| e.ownership = Ownership::Discarded),
        ("the caller's date", |e| e.epoch = Some(1_700_000_000)),
        ("the base's date", |e| e.base["created"] = json!("2025-02-11T12:00:00Z")),
        ("a lock", |e| e.lock("tool", 1_739_188_800, "")),
        ("a lock's date", |e| e.lock("tool", 1, "")),
        ("a lock's answers", |e| {
            let body = Digest::of(b"");
            e.lock(
                "tool",
                1_739_188_800,
                &format!(
                    "{{ url = 'https://x/', method = 'GET', status = 200, digest = '{body}', \
                     size = 0, authority = 'none' }}"
                ),
            );
        }),
        ("the base's environment", |e| e.base["config"]["Env"][1] = json!("NB_USER=me")),
    ];

    const DOES_NOT_MATTER: &[(&str, Change)] = &[
        ("another folder", |_| {}),
        ("a description", |e| e.recipe("An example", "Another")),
        ("a comment and the order of keys", |e| {
            e.recipe("about = \"An example\"\n", "# new\n");
            e.recipe("workdir = \"/opt\"\nenv", "\n# here\nenv");
            e.recipe("timeout = \"30m\"", "workdir = \"/opt\"");
        }),
        ("how root is written", |e| e.recipe("\"0:0\"", "\"root\"")),
        ("a step's name", |e| e.recipe("name = \"inline\"", "name = \"other\"")),
        ("a timeout", |e| e.recipe("30m", "1h")),
        ("a step for another architecture", |e| e.recipe("echo arm", "echo ARM")),
        ("another architecture's digest", |e| e.recipe("ba78", "ba79")),
        ("bits of a mode that the umask decides", |e| e.files[0].2 = 0o700),
        ("what an editor leaves", |e| e.files.push(("install.sh~", "x".to_owned(), 0o644))),
        ("how a digest is written", |e| e.recipe("\"e3b0", "\"sha256:e3b0")),
        ("compression", |e| e.definition.push_str("compression = \"zstd\"\n")),
        ("names and tags", |e| {
            e.definition("ghcr.io/me/mine", "ghcr.io/me/yours");
            e.definition.push_str("also = [\"docker.io/me/x\"]\ntags = [\"a\", \"b\"]\n");
        }),
        ("the base's name", |e| e.definition("quay.io/a/base:1", "quay.io/b/base:2")),
        ("other platforms", |e| e.definition(", \"linux/arm64\"", "")),
        ("the image's configuration", |e| {
            e.definition.push_str(
                "[config]\nenv = { A = \"b\" }\nlabels = { a = \"b\" }\nuser = \"0\"\nports = [1]\n\
                 entrypoint = [\"x\"]\ncommand = []\nworkdir = \"/\"\nstop-signal = \"SIGINT\"\n",
            );
        }),
        ("the base's other settings", |e| e.base["config"]["Labels"] = json!({})),
        ("a lock without it", |e| e.lock("other", 7, "")),
    ];

    #[test]
    fn what_can_change_a_layer_changes_its_key_and_nothing_else_does() {
        let plain = Example::default().key();
        let mut seen = vec![plain];
        for (what, change) in MATTERS {
            let mut example = Example::default();
            change(&mut example);
            let key = example.key();
            assert!(!seen.contains(&key), "{what} does not show in the key");
            seen.push(key);
        }
        for (what, change) in DOES_NOT_MATTER {
            let mut example = Example::default();
            change(&mut example);
            assert_eq!(example.key(), plain, "{what} shows in the key");
        }
    }

    #[test]
    fn the_key_is_what_it_always_was() {
        assert_eq!(Example::default().key().to_string(), GOLDEN);
    }
}
