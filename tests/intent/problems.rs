//! All that is wrong is told at once, in order, where it stands and with what to write instead.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use ocibuild::fault::{Fault, Kind};
use ocibuild::plan::Sources;
use ocibuild::text::{Error, File, Problems};
use ocibuild::{definition, recipe};

fn write(root: &Path, path: &str, content: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// Returns the headlines, with the folder of the test left out.
fn told(root: &Path, error: &Error) -> Vec<String> {
    let root = format!("{}/", root.display());
    error.problems().iter().map(|problem| problem.headline().replace(&root, "")).collect()
}

const DEFINITION: &str = r#"image = "ghcr.io/Me/mine"
also = ["docker.io/me/mine", "docker.io/me/mine"]
from = "ubuntu"
platforms = ["linux/amd64", "linux/amd46"]
layers = [
  "tool",
  { recipe = "pythn" },
  { recipe = "tool2", args = { versoin = "2" }, without = ["inline", "inlin"] },
  "tool",
]
[config]
entrypoint = ["start.sh"]
lables = { a = "b" }
ports = [8888, "http"]
env = { PATH = "${PATH}:/x" }
"#;

const RECIPE: &str = r#"abuot = "A tool"
args = { version = 4.10, Path = "x" }

[[step]]
name = "install"
run = "instal.sh"
user = "jo van"
timeout = "30"

[[step]]
name = "dos"
run = "dos.sh"

[[step]]
name = "install"
script = "x"
mode = "0644"

[[step]]
rn = "x"

[[step]]
copy = "../secret"
to = "etc"
mode = "888"
owner = "a:b:c"
when = { arch = "x86_64", distro = "debian" }

[[step]]
fetch = "https://example.org/{verison}-{arch}.deb"
to = "/tmp/x.deb"
sha256 = "abc"

[[step]]
fetch = "ftp://example.org/x"
to = "/tmp/x"

[[step]]
script = "x"
copy = "install.sh"

[[step]]
env = { "A=B" = "{codename}" }
when = { codename = "noble" }
"#;

#[test]
fn everything_wrong_in_all_files_is_told_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    write(root, "manifests/mine.toml", DEFINITION);
    write(root, "manifests/mine.lock", "lock = 2\nrules = '1'\nbsae = {}\n");
    write(root, "layers/tool/layer.toml", RECIPE);
    write(root, "layers/tool/install.sh", "#!/bin/sh\n");
    write(root, "layers/tool/dos.sh", "#!/bin/sh\r\necho\r\n");
    write(root, "layers/python/layer.toml", "env = { A = 'b' }");
    symlink("/etc/passwd", root.join("layers/tool/link")).unwrap();
    write(
        root,
        "layers/tool2/layer.toml",
        "[args]\nversion = '1'\n[[step]]\nname = 'inline'\nscript = 'x'\n[[step]]\nname = 'get'\n\
         fetch = 'https://x/y'\nto = '/y'\nsha256 = { arm64 = 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855' }\n",
    );
    let error = Sources::load(&root.join("manifests/mine.toml")).unwrap_err();
    assert_eq!(error.kind(), Kind::Usage);
    let told = told(root, &error);
    let expected: Vec<&str> =
        EXPECTED.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    for (position, (told, expected)) in told.iter().zip(&expected).enumerate() {
        assert_eq!(told, expected, "problem {position}");
    }
    assert_eq!(told.len(), expected.len(), "{told:#?}");
}

/// One a line, as an editor would jump to them.
const EXPECTED: &str = r#"
layers/tool/layer.toml:1:1: unknown key `abuot`; did you mean `about`?
layers/tool/layer.toml:2:20: `version` must be text, not a number with a fraction; write it in quotes
layers/tool/layer.toml:2:26: `Path` cannot name an argument; use small letters, digits and `-`
layers/tool/layer.toml:6:7: there is no `instal.sh` in `layers/tool`; did you mean `install.sh`?
layers/tool/layer.toml:7:8: `jo van` is no user such as `root`, `1000`, `1000:100` or `jovyan:users`
layers/tool/layer.toml:8:11: `30` is no length of time such as `90s`, `30m` or `1h30m`
layers/tool/layer.toml:12:7: `dos.sh` ends its lines in CR LF, and Linux would look for an interpreter of that name; save it with LF
layers/tool/layer.toml:15:8: a step in line 5 is called `install` already; steps that belong together follow one another
layers/tool/layer.toml:17:1: unknown key `mode` in `step`; there are `env`, `name`, `network`, `script`, `shell`, `timeout`, `user`, `when` and `workdir`
layers/tool/layer.toml:19:1: this step does nothing; give it one of `run`, `script`, `copy`, `fetch` and `env`
layers/tool/layer.toml:20:1: unknown key `rn` in `step`; did you mean `run`?
layers/tool/layer.toml:23:8: `../secret` is no path inside the recipe's folder
layers/tool/layer.toml:24:6: `etc` is no absolute path
layers/tool/layer.toml:25:8: `888` is no mode such as `0644` or `4755`, octal
layers/tool/layer.toml:26:9: `a:b:c` is no user such as `root`, `1000`, `1000:100` or `jovyan:users`
layers/tool/layer.toml:27:17: write `amd64` for `x86_64`
layers/tool/layer.toml:27:27: unknown key `distro` in `step.when`; did you mean `distribution`?
layers/tool/layer.toml:30:30: unknown variable `{verison}`; did you mean `{version}`?
layers/tool/layer.toml:32:10: a SHA-256 digest has 64 hexadecimal digits, this has 3 characters
layers/tool/layer.toml:34:1: `sha256` is missing: say what is to come, or `unpinned = true` if whatever comes is right
layers/tool/layer.toml:35:9: `fetch` is an address that begins with `https://`
layers/tool/layer.toml:40:1: a step does one thing, but this one has `script` and `copy`
layers/tool/layer.toml:43:1: the image's environment is decided before the tree is at hand: such a step can only depend on `arch`
layers/tool/layer.toml:43:9: `A=B` cannot name a variable of an environment
layers/tool/layer.toml:43:18: `{codename}` is read from the tree while a step runs, too late for the image's environment; a script can write the value to a file
layers/tool/link: is a link to `/etc/passwd`, outside the recipe's folder
layers/tool2/layer.toml:10:10: there is no digest for `amd64`, which the definition builds for; give one, or keep the step from it by `when`
manifests/mine.lock:1:1: `base` is missing, for instance `base = { reference = "…", digest = "sha256:…" }`
manifests/mine.lock:3:1: unknown key `bsae`; did you mean `base`?
manifests/mine.toml:1:1: `base` is missing, for instance `base = "quay.io/jupyter/minimal-notebook:ubuntu-24.04"`
manifests/mine.toml:1:9: image names have no capitals: `ghcr.io/me/mine`
manifests/mine.toml:2:30: `docker.io/me/mine` is there already
manifests/mine.toml:3:1: unknown key `from`; did you mean `base`?
manifests/mine.toml:4:29: unknown architecture `amd46`; did you mean `linux/amd64`?
manifests/mine.toml:7:14: there is no recipe `pythn`; did you mean `python`?
manifests/mine.toml:8:32: recipe `tool2` has no argument `versoin`; did you mean `version`?
manifests/mine.toml:8:70: recipe `tool2` has no step `inlin`; did you mean `inline`?
manifests/mine.toml:9:3: layer `tool` is there already, in line 6
manifests/mine.toml:12:1: `entrypoint` is said without `command`: the base's command would become arguments of another program; say `command = []` for none
manifests/mine.toml:13:1: unknown key `lables` in `config`; did you mean `labels`?
manifests/mine.toml:14:16: `http` is no port such as `8888` or `"53/udp"`
manifests/mine.toml:15:17: variables are written `{PATH}`, without `$`
"#;

#[test]
fn a_problem_is_shown_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    write(
        root,
        "manifests/mine.toml",
        "image = \"a/b\"\nbase = \"c\"\nplatforms = [\"linux/amd64\"]\nlayers = [\"rr\"]\n",
    );
    write(root, "layers/r/layer.toml", "env = { A = 'b' }");
    let error = Sources::load(&root.join("manifests/mine.toml")).unwrap_err();
    let text = error.to_string().replace(&format!("{}/", root.display()), "");
    assert_eq!(
        text,
        "there is a problem in `manifests/mine.toml`\n\
         manifests/mine.toml:4:11: there is no recipe `rr`; did you mean `r`?\n\
         \x20 4 | layers = [\"rr\"]\n\
         \x20   |           ^^^^"
    );
}

#[test]
fn a_recipe_of_ones_own_needs_no_more_than_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    write(
        root,
        "mine.toml",
        "image = \"localhost/mine\"\nplatforms = [\"linux/amd64\"]\nlayers = [\"mine\", \"r2\"]\n\
         recipes = [\"elsewhere\"]\nbase = \"ghcr.io/rocker-org/ml@sha256:\
         e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"\n",
    );
    write(root, "layers/mine/install.r", "install.packages('sf')\n");
    write(root, "layers/mine/requirements.txt", "polars\n");
    write(root, "layers/mine/apt.txt", "libgdal-dev # for sf\n");
    write(root, "elsewhere/r2/environment.yml", "dependencies: [polars]\n");
    let sources = Sources::load(&root.join("mine.toml")).unwrap();
    let names: Vec<Vec<&str>> =
        sources.recipes.iter().map(ocibuild::recipe::Recipe::step_names).collect();
    assert_eq!(names, [vec!["apt.txt", "requirements.txt", "install.r"], vec!["environment.yml"]]);

    write(root, "elsewhere/r2/readme.md", "x");
    fs::remove_file(root.join("elsewhere/r2/environment.yml")).unwrap();
    write(root, "elsewhere/mine/install.r", "1");
    let error = Sources::load(&root.join("mine.toml")).unwrap_err();
    assert_eq!(
        told(root, &error),
        [
            "elsewhere/r2: holds neither `layer.toml` nor any of `apt.txt`, `environment.yml`, \
             `requirements.txt` and `install.r`",
            "mine.toml:3:11: recipe `mine` is both in `layers` and in `elsewhere`",
        ]
    );
}

#[test]
fn a_lock_pins_the_base_that_it_was_made_for() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    write(
        root,
        "m/x.toml",
        "image = 'a/b'\nbase = 'quay.io/c/d:1'\nplatforms = ['linux/amd64']\nlayers = []\n",
    );
    let lock = |base: &str| {
        format!("lock = 2\nrules = '1'\nbase = {{ reference = '{base}', digest = '{digest}' }}")
    };
    write(root, "m/x.lock", &lock("quay.io/c/d:1"));
    let sources = Sources::load(&root.join("m/x.toml")).unwrap();
    assert_eq!(sources.base().to_string(), format!("quay.io/c/d@{digest}"));
    write(root, "m/x.lock", &lock("quay.io/c/d:2"));
    let error = Sources::load(&root.join("m/x.toml")).unwrap_err();
    assert_eq!(
        told(root, &error),
        ["m/x.lock: the lock is for the base `quay.io/c/d:2`, the definition names \
          `quay.io/c/d:1`: lock again"]
    );
}

#[test]
fn no_text_makes_the_reader_stumble() {
    let examples = [(RECIPE, true), (DEFINITION, false)];
    for (text, is_recipe) in examples {
        let read = |text: String| {
            let problems = Problems::new();
            if is_recipe {
                let file = File::of_text("layers/x/layer.toml", text);
                recipe::parse(
                    &file,
                    "x",
                    Path::new("layers/x"),
                    recipe::Files::default(),
                    &problems,
                );
            } else {
                definition::parse(&File::of_text("manifests/x.toml", text), &problems);
            }
            // What is told has a place inside the file, and can be shown.
            if let Err(error) = problems.finish(Some(())) {
                assert!(error.to_string().len() > 20);
            }
        };
        for (at, character) in text.char_indices().step_by(3) {
            read(text[..at].to_owned());
            read(format!("{}{}", &text[..at], &text[at + character.len_utf8()..]));
            for new in ["\"", "{", "]", "\n", "é\u{0}", "[["] {
                read(format!("{}{new}{}", &text[..at], &text[at..]));
            }
        }
    }
}

#[test]
fn what_is_no_toml_is_told_with_all_its_mistakes() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    write(
        root,
        "m/x.toml",
        "image = ghcr.io/me/mine\nbase = \"ubuntu\nplatforms = [\"linux/amd64\"]\nlayers = [\"a\" \"b\"]\ntgas = [\"x\"]\n",
    );
    let error = Sources::load(&root.join("m/x.toml")).unwrap_err();
    let told = told(root, &error);
    let lines: Vec<&str> = told.iter().map(|line| line.split(':').nth(1).unwrap()).collect();
    assert!(told.len() <= 6, "{told:#?}");
    for line in ["1", "2", "4", "5"] {
        assert!(lines.contains(&line), "{told:#?}");
    }
    write(root, "m/y.toml", "image = \"a\"");
    fs::write(root.join("m/y.toml"), b"image = \"\xff\"").unwrap();
    let error = Sources::load(&root.join("m/y.toml")).unwrap_err();
    assert!(error.to_string().contains("y.toml:1:10: is not UTF-8"), "{error}");
    let error = Sources::load(&root.join("m/none.toml")).unwrap_err();
    assert!(error.to_string().contains("none.toml: cannot be read"), "{error}");
}
