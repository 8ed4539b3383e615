//! The schemas and the parser say the same of the same files.

use std::path::Path;

use jsonschema::Validator;
use ocibuild::text::{Class, File, Problems};
use ocibuild::{definition, lock, recipe};
use serde_json::Value;

use super::package;
use crate::support::schema;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Good,
    /// Wrong in a way that a schema sees: keys and types.
    Shape,
    /// Wrong in a way that a schema need not see.
    Meaning,
}

fn verdict_on(problems: Problems) -> Verdict {
    let Err(error) = problems.finish(Some(())) else { return Verdict::Good };
    match error.problems().iter().map(|problem| problem.class).min() {
        Some(Class::Meaning) => Verdict::Meaning,
        _ => Verdict::Shape,
    }
}

fn recipe_verdict(text: &str) -> Verdict {
    let problems = Problems::new();
    let file = File::of_text("layers/x/layer.toml", text);
    let files = recipe::Files::default();
    recipe::parse(&file, "x", Path::new("layers/x"), files, &problems);
    verdict_on(problems)
}

fn definition_verdict(text: &str) -> Verdict {
    let problems = Problems::new();
    definition::parse(&File::of_text("manifests/x.toml", text), &problems);
    verdict_on(problems)
}

fn lock_verdict(text: &str) -> Verdict {
    let problems = Problems::new();
    lock::parse(&File::of_text("manifests/x.lock", text), &problems);
    verdict_on(problems)
}

/// The parser may know more than a schema, and a schema may be blunter; neither may be silent where
/// the other speaks of keys and types.
fn agree(text: &str, schema: &Validator, verdict: Verdict) {
    let value: Value = toml::from_str(text).unwrap();
    match (verdict, schema.validate(&value)) {
        (Verdict::Good, Err(error)) => panic!("the schema refuses, {error}:\n{text}"),
        (Verdict::Shape, Ok(())) => panic!("the schema takes what the parser refuses:\n{text}"),
        _ => {}
    }
}

const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

const RECIPES: &[(Verdict, &str)] = &[
    (Verdict::Good, "env = { A = 'b' }"),
    (Verdict::Good, "about = 'x'\n[args]\nv = '1'\n[[step]]\nname = 'a'\nscript = 'echo {v}'"),
    (
        Verdict::Good,
        "[[step]]\nscript = 'x'\nuser = '1000:100'\nworkdir = '/opt'\ntimeout = '1h30m'\nnetwork = false\nenv = { A = '{codename}' }\nshell = ['/bin/sh', '-c']",
    ),
    (
        Verdict::Good,
        "[[step]]\nfetch = 'https://x/{arch}'\nto = '/tmp/'\nsha256 = { amd64 = 'HEX', arm64 = 'sha256:HEX' }\nwhen = { arch = ['amd64', 'arm64'], distribution = 'debian' }",
    ),
    (
        Verdict::Good,
        "[[step]]\nfetch = 'http://x/y'\nto = '/y'\nunpinned = true\nmode = '0755'\nowner = 'root:root'",
    ),
    (Verdict::Good, "[[step]]\ncopy = '.'\nto = '/srv'\nmode = '644'"),
    (Verdict::Good, "[[step]]\nenv = { PATH = '{PATH}:/x' }\nwhen = { arch = 'amd64' }"),
    (Verdict::Good, "without-rules = ['x']\nstep = [{ script = 'x' }, { script = 'x' }]"),
    (Verdict::Shape, ""),
    (Verdict::Shape, "about = 'x'"),
    (Verdict::Shape, "step = []"),
    (Verdict::Shape, "[env]"),
    (Verdict::Shape, "abuot = 'x'\nenv = { A = 'b' }"),
    (Verdict::Shape, "about = 1\nenv = { A = 'b' }"),
    (Verdict::Shape, "env = { A = 1 }"),
    (Verdict::Shape, "args = { v = 4.10 }\nenv = { A = 'b' }"),
    (Verdict::Shape, "env = ['A=b']"),
    (Verdict::Shape, "[step]\nscript = 'x'"),
    (Verdict::Shape, "step = ['x']"),
    (Verdict::Shape, "[[step]]\nname = 'x'"),
    (Verdict::Shape, "[[step]]\nscript = 'x'\ncopy = '.'\nto = '/x'"),
    (Verdict::Shape, "[[step]]\nscript = ['x']"),
    (Verdict::Shape, "[[step]]\nscript = 'x'\nargs = ['y']"),
    (Verdict::Shape, "[[step]]\nscript = 'x'\nmode = '0644'"),
    (Verdict::Shape, "[[step]]\nscript = 'x'\nshell = '/bin/sh'"),
    (Verdict::Shape, "[[step]]\nscript = 'x'\nuser = 0"),
    (Verdict::Shape, "[[step]]\nscript = 'x'\nnetwork = 'off'"),
    (Verdict::Shape, "[[step]]\nscript = 'x'\ntimeout = 30"),
    (Verdict::Shape, "[[step]]\nscript = 'x'\nwhen = 'amd64'"),
    (Verdict::Shape, "[[step]]\nscript = 'x'\nwhen = { architecture = 'amd64' }"),
    (Verdict::Shape, "[[step]]\nscript = 'x'\nwhen = { arch = 1 }"),
    (Verdict::Shape, "[[step]]\nscript = 'x'\nenv = { A = 2024-01-01 }"),
    (Verdict::Shape, "[[step]]\ncopy = '.'"),
    (Verdict::Shape, "[[step]]\ncopy = '.'\nto = '/x'\nmode = 644"),
    (Verdict::Shape, "[[step]]\nfetch = 'https://x/y'\nto = '/y'"),
    (Verdict::Shape, "[[step]]\nfetch = 'https://x/y'\nto = '/y'\nunpinned = false"),
    (Verdict::Shape, "[[step]]\nfetch = 'https://x/y'\nto = '/y'\nsha256 = true"),
    (Verdict::Shape, "[[step]]\nfetch = 'https://x/y'\nto = '/y'\nsha256 = { amd64 = 1 }"),
    (Verdict::Shape, "[[step]]\nfetch = 'https://x/y'\nsha256 = 'HEX'"),
    (Verdict::Shape, "[[step]]\nenv = { A = 'b' }\nuser = '0'"),
    (Verdict::Meaning, "[[step]]\nrun = 'absent.sh'"),
    (Verdict::Meaning, "[[step]]\ncopy = '../x'\nto = '/x'"),
    (Verdict::Meaning, "[[step]]\ncopy = '.'\nto = 'x'"),
    (Verdict::Meaning, "[[step]]\nscript = ' '"),
    (Verdict::Meaning, "[[step]]\nscript = 'x'\ntimeout = '30'"),
    (Verdict::Meaning, "[[step]]\nscript = 'x'\nuser = 'a b'"),
    (Verdict::Meaning, "[[step]]\nscript = 'x'\nwhen = { arch = 'x86_64' }"),
    (Verdict::Meaning, "[[step]]\nscript = 'x'\nwhen = { arch = [] }"),
    (
        Verdict::Meaning,
        "[[step]]\nname = 'a'\nscript = 'x'\n[[step]]\nscript = 'x'\n[[step]]\nname = 'a'\nscript = 'x'",
    ),
    (Verdict::Meaning, "[[step]]\nfetch = 'https://x/{version}'\nto = '/y'\nunpinned = true"),
    (Verdict::Meaning, "[[step]]\nfetch = 'ftp://x/y'\nto = '/y'\nunpinned = true"),
    (
        Verdict::Meaning,
        "[[step]]\nfetch = 'https://x/y'\nto = '/y'\nsha256 = 'HEX'\nunpinned = true",
    ),
    (Verdict::Meaning, "[[step]]\nfetch = 'https://x/y'\nto = '/y'\nsha256 = 'abc'"),
    (Verdict::Meaning, "env = { 'A=' = 'b' }"),
    (Verdict::Meaning, "env = { A = '{codename}' }"),
    (Verdict::Meaning, "env = { A = '{' }"),
    (Verdict::Meaning, "args = { path = 'x' }\nenv = { A = 'b' }"),
    (Verdict::Meaning, "args = { V = 'x' }\nenv = { A = 'b' }"),
];

/// What each example of a definition goes on with, where it says none of these itself.
const REST: [&str; 4] =
    ["image = 'ghcr.io/me/mine'", "base = 'ubuntu'", "platforms = ['linux/amd64']", "layers = []"];

const DEFINITIONS: &[(Verdict, &str)] = &[
    (Verdict::Good, ""),
    (Verdict::Good, "image = 'ghcr.io/me/mine:v1'"),
    (Verdict::Good, "also = ['docker.io/me/mine']\ntags = ['a', 'v1.0']\ncompression = 'zstd'"),
    (Verdict::Good, "platforms = ['linux/amd64', 'linux/arm64/v8']\nbase = 'a/b@sha256:HEX'"),
    (Verdict::Good, "layers = ['a', { recipe = 'b', args = { x = 'y' }, without = ['z'] }]"),
    (
        Verdict::Good,
        "config = { env = { A = '{PATH}' }, labels = { 'a.b' = 'c' }, user = '1000', workdir = '/x', entrypoint = [], command = ['x'], ports = [1, '53/udp'], stop-signal = 'SIGTERM' }",
    ),
    (Verdict::Good, "[annotations]\n'a.b' = 'c'"),
    (Verdict::Shape, "imge = 'x'"),
    (Verdict::Shape, "image = ['x']"),
    (Verdict::Shape, "also = 'x'"),
    (Verdict::Shape, "tags = [1]"),
    (Verdict::Shape, "base = true"),
    (Verdict::Shape, "platforms = 'linux/amd64'"),
    (Verdict::Shape, "layers = 'r'"),
    (Verdict::Shape, "layers = [1]"),
    (Verdict::Shape, "layers = [{ name = 'r' }]"),
    (Verdict::Shape, "layers = [{ recipe = 'r', arg = {} }]"),
    (Verdict::Shape, "layers = [{ recipe = 'r', args = { n = 1 } }]"),
    (Verdict::Shape, "layers = [{ recipe = 'r', without = 'x' }]"),
    (Verdict::Shape, "compression = 1"),
    (Verdict::Shape, "config = { user = 1000 }"),
    (Verdict::Shape, "config = { cmd = [] }"),
    (Verdict::Shape, "config = { command = 'start.sh' }"),
    (Verdict::Shape, "config = { ports = 8888 }"),
    (Verdict::Shape, "config = { ports = [true] }"),
    (Verdict::Shape, "config = { stop-signal = 15 }"),
    (Verdict::Shape, "config = { labels = ['a=b'] }"),
    (Verdict::Shape, "annotations = { a = 1 }"),
    (Verdict::Meaning, "image = 'ghcr.io/Me/mine'"),
    (Verdict::Meaning, "image = 'ghcr.io/me/mine@sha256:HEX'"),
    (Verdict::Meaning, "image = 'ghcr.io/me/mine:v1'\ntags = ['v2']"),
    (Verdict::Meaning, "also = ['ghcr.io/me/mine']"),
    (Verdict::Meaning, "tags = []"),
    (Verdict::Meaning, "tags = ['a b']"),
    (Verdict::Meaning, "platforms = []"),
    (Verdict::Meaning, "platforms = ['amd64']"),
    (Verdict::Meaning, "platforms = ['linux/amd46']"),
    (Verdict::Meaning, "platforms = ['linux/amd64', 'linux/x86_64']"),
    (Verdict::Meaning, "compression = 'xz'"),
    (Verdict::Meaning, "layers = ['r', 'r']"),
    (Verdict::Meaning, "layers = ['../r']"),
    (Verdict::Meaning, "recipes = ['nowhere']"),
    (Verdict::Meaning, "config = { entrypoint = ['x'] }"),
    (Verdict::Meaning, "config = { workdir = 'x' }"),
    (Verdict::Meaning, "config = { ports = ['x'] }"),
    (Verdict::Meaning, "config = { ports = [0] }"),
    (Verdict::Meaning, "config = { stop-signal = 'term' }"),
    (Verdict::Meaning, "config = { user = '' }"),
];

#[test]
fn recipes_are_read_as_their_schema_says() {
    let schema = schema("recipe.schema.json");
    for (verdict, text) in RECIPES {
        let text = text.replace("HEX", HEX);
        assert_eq!(recipe_verdict(&text), *verdict, "{text}");
        agree(&text, &schema, *verdict);
    }
}

#[test]
fn definitions_are_read_as_their_schema_says() {
    let schema = schema("definition.schema.json");
    for (verdict, text) in DEFINITIONS {
        let mut whole = String::new();
        for line in REST {
            let key = line.split_once(" =").unwrap().0;
            if !text.lines().any(|has| has.starts_with(&format!("{key} ="))) {
                whole.push_str(line);
                whole.push('\n');
            }
        }
        whole.push_str(&text.replace("HEX", HEX));
        assert_eq!(definition_verdict(&whole), *verdict, "{whole}");
        agree(&whole, &schema, *verdict);
    }
    for line in REST {
        let whole = REST.iter().filter(|other| **other != line).copied().collect::<Vec<_>>();
        let whole = whole.join("\n");
        assert_eq!(definition_verdict(&whole), Verdict::Shape, "{whole}");
        agree(&whole, &schema, Verdict::Shape);
    }
}

/// What each example of a lock begins with.
const LOCK: &str = "lock = 2\nrules = '1'\nbase = { reference = 'a/b:c', digest = 'sha256:HEX' }\n";

const LOCKS: &[(Verdict, &str)] = &[
    (Verdict::Good, ""),
    (Verdict::Good, "[platform.'linux/amd64']\nbase = 'sha256:HEX'"),
    (
        Verdict::Good,
        "platform.'linux/amd64' = { base = 'sha256:HEX', layer = { r = { source-date = 0 } } }",
    ),
    (
        Verdict::Good,
        "FETCH = 'https://x/', method = 'GET', status = 200, digest = 'sha256:HEX', size = 0, authority = 'gpg' }] } } }",
    ),
    (
        Verdict::Good,
        "FETCH = 'https://x/', method = 'POST', variant = { sent = 'sha256:HEX', accept = 'a', agent = 'b' }, credentials = true, turn = 1, status = 404, digest = 'sha256:HEX', size = 1, headers = { a = 'b' }, authority = 'none' }] } } }",
    ),
    (Verdict::Shape, "more = 1"),
    (Verdict::Shape, "[platform.'linux/amd64']"),
    (Verdict::Shape, "platform.'linux/amd64' = { base = 'sha256:HEX', layer = { r = {} } }"),
    (
        Verdict::Shape,
        "platform.'linux/amd64' = { base = 'sha256:HEX', layer = { r = { source-date = '0' } } }",
    ),
    (Verdict::Shape, "FETCH = 'https://x/' }] } } }"),
    (
        Verdict::Shape,
        "FETCH = 'https://x/', method = 'PUT', status = 200, digest = 'sha256:HEX', size = 0, authority = 'gpg' }] } } }",
    ),
    (
        Verdict::Shape,
        "FETCH = 'https://x/', method = 'GET', status = 200, digest = 'sha256:HEX', size = -1, authority = 'gpg' }] } } }",
    ),
    (
        Verdict::Shape,
        "FETCH = 'https://x/', method = 'GET', status = 200, digest = 'sha256:HEX', size = 0, authority = 'me' }] } } }",
    ),
    (
        Verdict::Shape,
        "FETCH = 'https://x/', method = 'GET', status = 200, digest = 'sha256:HEX', size = 0, authority = 'gpg', etag = 'x' }] } } }",
    ),
    (Verdict::Meaning, "[platform.amd64]\nbase = 'sha256:HEX'"),
    (Verdict::Meaning, "[platform.'linux/amd64']\nbase = 'HEX'"),
    (
        Verdict::Meaning,
        "platform.'linux/amd64' = { base = 'sha256:HEX', layer = { r = { source-date = -1 } } }",
    ),
];

#[test]
fn locks_are_read_as_their_schema_says() {
    let schema = schema("lock.schema.json");
    let fetch = "platform.'linux/amd64' = { base = 'sha256:HEX', layer = { r = { source-date = 0, fetches = [{ url";
    for (verdict, text) in LOCKS {
        let whole = format!("{LOCK}{}", text.replace("FETCH", fetch)).replace("HEX", HEX);
        assert_eq!(lock_verdict(&whole), *verdict, "{whole}");
        agree(&whole, &schema, *verdict);
    }
    for line in LOCK.lines().skip(1) {
        let whole = LOCK.replace(&format!("{line}\n"), "").replace("HEX", HEX);
        assert_eq!(lock_verdict(&whole), Verdict::Shape, "{whole}");
        agree(&whole, &schema, Verdict::Shape);
    }
}

#[test]
fn the_repositorys_own_files_are_what_the_schemas_say() {
    let recipes = schema("recipe.schema.json");
    let definitions = schema("definition.schema.json");
    let list = |folder: &str| {
        let entries = std::fs::read_dir(package().join(folder)).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect::<Vec<_>>()
    };
    let mut seen = 0;
    let mut check = |path: &Path, schema: &Validator| {
        if let Ok(text) = std::fs::read_to_string(path) {
            agree(&text, schema, Verdict::Good);
            seen += 1;
        }
    };
    for folder in list("layers").iter().chain(&list("tests/fixtures/layers")) {
        check(&folder.join("layer.toml"), &recipes);
    }
    for path in list("manifests") {
        if path.extension().is_some_and(|extension| extension == "toml") {
            check(&path, &definitions);
        }
    }
    assert!(seen > 12, "{seen} files");
}
