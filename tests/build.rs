//! Recipes in, an image out: what the steps did is in the layers, and nothing else is.

use std::os::unix::fs::MetadataExt;

use crate::support::cli::{Project, Who, names, processes_with};
use crate::support::files::Files;
use crate::support::image::{self, entries, entry};
use crate::support::registry::Registry;

/// A project whose `small` has the layers that try everything.
fn small() -> Project {
    let project = Project::with_tiny_base(Who::Root);
    project.fixture("odd").fixture("later").definition("small", &["odd", "later"]);
    project
}

#[test]
fn builds_pushes_and_pulls_into_another_store_with_one_digest() {
    let registry = Registry::plain();
    let project = small();
    let built = project.build("small");
    assert!(built.starts_with("sha256:") && built.len() == 71, "{built}");
    let remote = registry.image("small:1");
    let pushed = project.run(&["push", "localhost/small", "--to", &remote]).ok();
    assert_eq!(pushed, format!("{remote}@{built}"));

    let (digest, platforms) = image::check(&registry.host(), "small", "1");
    assert_eq!(digest, built);
    assert_eq!(platforms.len(), 1);

    let other = Project::new();
    assert_eq!(other.run(&["pull", &remote]).ok(), built);
    let listed = other.run(&["list", "--json"]).json();
    assert_eq!(listed[0]["digest"], built.as_str());
    let again = registry.image("copy:1");
    assert_eq!(other.run(&["push", &remote, "--to", &again]).ok(), format!("{again}@{built}"));
    assert_eq!(image::check(&registry.host(), "copy", "1").0, built);
}

#[test]
fn layers_go_up_while_they_are_made_and_the_tag_only_at_the_end() {
    let registry = Registry::plain();
    let project = Project::with_tiny_base(Who::Root);
    project
        .script("first", "head -c 9000000 /dev/urandom > /first")
        .script("second", "head -c 3000000 /dev/urandom > /second")
        .script("broken", "sleep 3; exit 3");
    let define = |name: &str, layers: &[&str]| {
        let image = registry.image(name);
        project.write(
            &format!("manifests/{name}.toml"),
            format!("image = \"{image}\"\nbase = \"localhost/tiny:1\"\nplatforms = [\"linux/amd64\"]\nlayers = {layers:?}\n"),
        );
    };
    define("whole", &["first", "second"]);
    let ran = project.run(&["build", "whole", "--push", "--json"]);
    let events = ran.stderr();
    for layer in ["first", "second"] {
        let sent = events
            .lines()
            .filter(|line| line.contains(&format!("send {layer}")) && line.contains("\"done\""));
        assert_eq!(sent.count(), 1, "{events}");
    }
    let built = ran.json()[0]["digest"].as_str().unwrap().to_owned();
    assert_eq!(image::check(&registry.host(), "whole", "latest").0, built);

    define("half", &["first", "broken"]);
    project.run(&["build", "half", "--push", "--no-cache"]).fails(1);
    project.run(&["show", "--remote", &registry.image("half")]).fails(1);
    // The layer that was made came, and the base meanwhile, but nothing that names them.
    let half = registry.storage().join("docker/registry/v2/repositories/half");
    assert_eq!(names(&half.join("_layers/sha256")).len(), 2);
    assert!(!half.join("_manifests").exists(), "no tag, and no manifest either");
}

#[test]
fn layers_hold_what_the_steps_made_and_nothing_else() {
    let registry = Registry::plain();
    let project = small();
    project.build("small");
    project.run(&["push", "localhost/small", "--to", &registry.image("small:1")]).ok();
    let (_, platforms) = image::check(&registry.host(), "small", "1");
    let layers = &platforms[0].layers;
    assert_eq!(layers.len(), 3, "the base's and one a recipe");

    let odd = entries(&layers[1]);
    let paths: Vec<&str> = odd.iter().map(|entry| entry.path.as_str()).collect();
    let kind = |path: &str| (entry(&odd, path).kind, entry(&odd, path).mode);
    assert_eq!(kind("srv/odd/setuid"), ('-', 0o4755));
    assert_eq!(kind("srv/odd/setgid"), ('-', 0o2755));
    assert_eq!(kind("srv/odd/sticky"), ('d', 0o1777));
    assert_eq!(kind("srv/odd/shared"), ('d', 0o2775));
    assert_eq!(kind("srv/odd/pipe").0, 'p');
    assert_eq!(entry(&odd, "srv/odd/foreign").owner, (1234, 5678));
    assert_eq!(entry(&odd, "srv/odd/of-users/mine").owner, (1000, 100));
    assert_eq!(kind("srv/odd/of-users/deeper"), ('d', 0o700));
    assert_eq!(entry(&odd, "srv/odd/dangling").owner, (1000, 100));
    assert_eq!(entry(&odd, "srv/odd/dangling").target, "/nowhere/at/all");
    assert_eq!(entry(&odd, "srv/odd/capable").attributes, ["security.capability"]);
    assert!(entry(&odd, "srv/odd/noted").attributes.is_empty(), "`user.` attributes are left out");
    assert_eq!(entry(&odd, "srv/odd/holes").content.len(), 1_048_577);
    assert_eq!(entry(&odd, "srv/odd/first").content, b"linked\n");
    // The first path of a group is the file, by the order of bytes.
    for other in ["srv/odd/links/third", "srv/odd/second"] {
        assert_eq!(kind(other).0, 'h', "{other}");
        assert_eq!(entry(&odd, other).target, "srv/odd/first");
    }
    assert_eq!(entry(&odd, "srv/odd/names/new\nline").content, b"2\n");
    let long = format!("srv/odd/names/{0}/{0}", "0".repeat(119) + "7");
    assert_eq!(entry(&odd, &long).content, b"5\n");

    // 2001-02-03 04:05:06; what was made in the build has the source date, later times too.
    assert_eq!(entry(&odd, "srv/odd/old").mtime, 981_173_106);
    let source_date = entry(&odd, "srv/odd/ant").mtime;
    assert_eq!(entry(&odd, "srv/odd/future").mtime, source_date);
    let late: Vec<&str> = odd
        .iter()
        .filter(|entry| entry.mtime > source_date)
        .map(|entry| entry.path.as_str())
        .collect();
    assert!(late.is_empty(), "later than the source date: {late:?}");

    // What went away, one by one: never an opaque marker.
    for gone in ["srv/.wh.removed", "srv/.wh.old", "srv/remade/.wh.gone"] {
        assert!(paths.contains(&gone), "no whiteout `{gone}` in {paths:?}");
    }
    assert!(!paths.iter().any(|path| path.ends_with(".wh..wh..opq")), "an opaque marker");
    assert_eq!(entry(&odd, "srv/remade/new").content, b"new\n");
    assert_eq!(entry(&odd, "srv/changed").content, b"srv/changedmore\n");
    for absent in ["tmp/scratch", "run/scratch", "var/tmp/scratch", "etc/resolv.conf", "etc/hosts"]
    {
        assert!(!paths.contains(&absent), "`{absent}` is in the layer");
    }
    assert!(
        paths.iter().all(|path| !path.starts_with("run/ocibuild")),
        "the recipe is in the layer"
    );
    let sorted = {
        let mut sorted = paths.clone();
        sorted.sort_unstable();
        sorted
    };
    assert_eq!(paths, sorted, "entries in the order of their paths");

    let later = entries(&layers[2]);
    let paths: Vec<&str> = later.iter().map(|entry| entry.path.as_str()).collect();
    assert!(
        paths.contains(&"srv/odd/.wh.zebra") && paths.contains(&"srv/odd/.wh.links"),
        "{paths:?}"
    );
    assert_eq!(entry(&later, "srv/odd/ant").mode, 0o600);
    assert_eq!(entry(&later, "srv/odd/said").content, b"later amd64\n");
    assert_eq!(entry(&later, "srv/copied/plain").owner, (1000, 100));
    assert_eq!(entry(&later, "srv/copied/sub/tool").mode, 0o755);
    assert!(!paths.contains(&"srv/odd/setuid"), "what did not change is in the layer below");

    let environment = platforms[0].config["config"]["Env"].as_array().unwrap();
    assert!(environment.iter().any(|line| line == "LATER=later"), "{environment:?}");
}

#[test]
fn a_second_build_runs_no_step_and_makes_no_layer() {
    let project = small();
    // Which file it is, too: what is made again has the same name and bytes.
    let kept = || -> Vec<(String, u64)> {
        let folders = ["blobs/sha256", "cache", "diffs", "fetches"];
        let list = |folder: &str| {
            let folder = project.store().join(folder);
            let number = |name: &String| std::fs::metadata(folder.join(name)).unwrap().ino();
            names(&folder).into_iter().map(|name| (name.clone(), number(&name))).collect()
        };
        folders.iter().flat_map(|folder| -> Vec<(String, u64)> { list(folder) }).collect()
    };
    let first = project.build("small");
    let before = kept();
    for _ in 0..3 {
        let ran = project.run(&["build", "small", "-v"]);
        assert!(!ran.stderr().contains("odd/make |"), "{ran}");
        assert_eq!(ran.ok(), first);
        assert_eq!(kept(), before);
    }
}

#[test]
fn an_unchanged_output_stops_what_stands_above_it() {
    let project = Project::with_tiny_base(Who::Root);
    project
        .script("below", "echo same > /srv/same")
        .script("above", "echo ran-above; cat /srv/same > /srv/copy")
        .definition("cut", &["below", "above"]);
    project.build("cut");
    let layers = || {
        project.run(&["show", "localhost/cut", "--json"]).json()["platforms"][0]["layers"].clone()
    };
    let digests = || -> Vec<String> {
        layers().as_array().unwrap().iter().map(|layer| layer["digest"].to_string()).collect()
    };
    let first = digests();
    project.script("below", "# in other words\nprintf 'same\\n' > /srv/same; echo ran-below");
    let ran = project.run(&["build", "cut", "-v"]);
    assert!(ran.stderr().contains("| ran-below"), "the changed recipe runs: {ran}");
    assert!(!ran.stderr().contains("| ran-above"), "its output is the same: {ran}");
    ran.ok();
    // The image is another one, since its history names the recipe; its layers are the same.
    assert_eq!(digests(), first);
    project.script("below", "echo other > /srv/same");
    let ran = project.run(&["build", "cut", "-v"]);
    assert!(ran.stderr().contains("| ran-above"), "{ran}");
    ran.ok();
    assert_ne!(digests(), first);
}

#[test]
fn refresh_and_no_cache_run_the_steps_again() {
    let project = Project::with_tiny_base(Who::Root);
    project
        .script("one", "echo ran-one; echo 1 > /srv/one")
        .script("two", "echo ran-two; echo 2 > /srv/two")
        .definition("again", &["one", "two"]);
    let first = project.build("again");
    let ran = project.run(&["build", "again", "-v", "--refresh", "two"]);
    assert!(ran.stderr().contains("| ran-two") && !ran.stderr().contains("| ran-one"), "{ran}");
    assert_eq!(ran.ok(), first);
    let ran = project.run(&["build", "again", "-v", "--no-cache"]);
    assert!(ran.stderr().contains("| ran-two") && ran.stderr().contains("| ran-one"), "{ran}");
    assert_eq!(ran.ok(), first);
    let stderr = project.run(&["build", "again", "--refresh", "three"]).fails(2);
    assert!(stderr.contains("three"), "{stderr}");
}

#[test]
fn a_layer_that_changes_nothing_is_left_out() {
    let project = Project::with_tiny_base(Who::Root);
    project
        .script("nothing", "cat /srv/kept > /dev/null; echo scratch > /tmp/scratch")
        .script("something", "echo 1 > /srv/one")
        .definition("lean", &["nothing", "something"])
        .definition("leaner", &["something"]);
    project.build("lean");
    project.build("leaner");
    let diff_ids = |name: &str| -> Vec<String> {
        let shown = project.run(&["show", &format!("localhost/{name}"), "--json"]).json();
        let layers = shown["platforms"][0]["layers"].as_array().unwrap().clone();
        layers.iter().map(|layer| layer["diff_id"].to_string()).collect()
    };
    assert_eq!(diff_ids("lean"), diff_ids("leaner"));
    assert_eq!(diff_ids("lean").len(), 2);
}

#[test]
fn a_dry_run_tells_what_would_be_done_and_does_nothing() {
    let project = small();
    let plan = project.run(&["build", "small", "--dry-run", "--json"]).json();
    let platform = &plan[0]["platforms"][0];
    assert_eq!(platform["platform"]["architecture"], "amd64");
    assert!(platform["base"].as_str().unwrap().contains("sha256:"), "{plan}");
    let layers = platform["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 2);
    assert!(layers[0]["key"].as_str().unwrap().starts_with("sha256:"), "{plan}");
    assert!(platform["fetch_bytes"].is_u64() && platform["disk_bytes"].is_u64(), "{plan}");
    assert_eq!(project.run(&["list", "--json"]).json().as_array().unwrap().len(), 1, "the base");

    let before = layers[0]["state"].clone();
    project.build("small");
    let plan = project.run(&["build", "small", "--dry-run", "--json"]).json();
    let layers = plan[0]["platforms"][0]["layers"].as_array().unwrap();
    assert_ne!(layers[0]["state"], before, "it is cached now");
    assert!(layers[1]["key"].is_string(), "known, since the layer below is cached");
    let text = project.run(&["build", "small", "--dry-run"]).ok();
    assert!(text.contains("odd") && text.contains("later"), "{text}");
}

#[test]
fn a_fetched_file_is_held_to_its_digest() {
    let files = Files::serve(&[("/tool-amd64", b"the tool\n")]);
    let project = Project::with_tiny_base(Who::Root);
    let recipe = |digest: &str| {
        project.write(
            "layers/tool/layer.toml",
            format!(
                "about = \"a tool\"\n[[step]]\nfetch = \"{}\"\nto = \"/usr/bin/tool\"\nmode = \"0755\"\n\
                 sha256 = {{ amd64 = \"{digest}\" }}\n[[step]]\nscript = \"test -x /usr/bin/tool\"\n",
                files.url("/tool-{arch}")
            ),
        );
    };
    let right = image::digest(b"the tool\n");
    recipe(right.strip_prefix("sha256:").unwrap());
    project.definition("fetched", &["tool"]);
    let built = project.build("fetched");
    assert_eq!(files.asked("/tool-amd64"), 1);
    assert_eq!(project.build("fetched"), built);
    assert_eq!(files.asked("/tool-amd64"), 1, "a cached layer asks for nothing");

    recipe(&"0".repeat(64));
    let stderr = project.run(&["build", "fetched"]).fails(1);
    assert!(stderr.contains("/tool-amd64"), "{stderr}");
    assert!(stderr.contains(&right[7..]), "it says what came instead: {stderr}");
}

#[test]
fn a_step_reaches_the_network_unless_it_may_not() {
    let files = Files::serve(&[("/page", b"reached\n")]);
    let project = Project::with_tiny_base(Who::Root);
    let recipe = |network: bool| {
        project.write(
            "layers/net/layer.toml",
            format!(
                "about = \"asks\"\n[[step]]\nnetwork = {network}\nscript = \"wget -q -O /srv/page {} || echo no-network\"\n",
                files.url("/page")
            ),
        );
    };
    project.definition("net", &["net"]);
    recipe(true);
    let ran = project.run(&["build", "net", "-v", "--no-cache", "--network", "host"]);
    assert!(!ran.stderr().contains("| no-network"), "{ran}");
    ran.ok();
    assert_eq!(files.asked("/page"), 1);
    recipe(false);
    let ran = project.run(&["build", "net", "-v"]);
    assert!(ran.stderr().contains("| no-network"), "{ran}");
    ran.ok();
    assert_eq!(files.asked("/page"), 1);
}

#[test]
fn a_step_that_takes_too_long_is_ended() {
    let project = Project::with_tiny_base(Who::Root);
    project.write(
        "layers/slow/layer.toml",
        "about = \"slow\"\n[[step]]\nname = \"dawdle\"\ntimeout = \"1s\"\n\
         script = \"echo dawdling; sleep 86123 & sleep 86123\"\n",
    );
    project.definition("slow", &["slow"]);
    let stderr = project.run(&["build", "slow"]).fails(1);
    assert!(stderr.contains("slow") && stderr.contains("dawdle"), "{stderr}");
    assert!(stderr.contains("1 s") || stderr.contains("1s"), "it names the limit: {stderr}");
    assert_eq!(processes_with("86123"), Vec::<u32>::new(), "its processes are gone");
    assert!(project.running().is_empty());
}

#[test]
fn a_failed_step_is_named_with_its_last_lines() {
    let project = Project::with_tiny_base(Who::Root);
    project.script("good", "echo 1 > /srv/one").write(
        "layers/bad/layer.toml",
        "about = \"fails\"\n[[step]]\nname = \"give up\"\nrun = \"give-up.sh\"\n",
    );
    project.write(
        "layers/bad/give-up.sh",
        "#!/bin/sh\necho doing things\necho 'it broke: flux' >&2\nexit 42\n",
    );
    project.definition("fails", &["good", "bad"]);
    let stderr = project.run(&["build", "fails", "--quiet"]).fails(1);
    for expected in ["bad", "give up", "give-up.sh", "42", "it broke: flux"] {
        assert!(stderr.contains(expected), "no `{expected}` in: {stderr}");
    }
    project.write("layers/bad/give-up.sh", "#!/bin/sh\nkill -SEGV $$\n");
    let stderr = project.run(&["build", "fails"]).fails(1);
    assert!(stderr.contains("signal 11") || stderr.contains("SIGSEGV"), "{stderr}");
    // What was good is kept, and the store goes on.
    project.script("bad", "echo mended");
    let ran = project.run(&["build", "fails", "-v"]);
    assert!(!ran.stderr().contains("good/only: "), "{ran}");
    ran.ok();
    assert!(project.running().is_empty());
}

#[test]
fn all_that_is_wrong_with_a_file_is_said_at_once_with_its_place() {
    let project = Project::with_tiny_base(Who::Root);
    project.write(
        "layers/wrong/layer.toml",
        "about = \"wrong\"\n\n[[step]]\nrun = \"absent.sh\"\n\n[[step]]\nscript = \"true\"\ncolour = \"red\"\n\n\
         [[step]]\ncopy = \"nothing\"\nto = \"relative\"\n",
    );
    project.definition("wrong", &["wrong", "missing"]);
    let stderr = project.run(&["build", "wrong"]).fails(2);
    for expected in [
        "layers/wrong/layer.toml:4:",
        "absent.sh",
        "layers/wrong/layer.toml:8:",
        "colour",
        "layers/wrong/layer.toml:11:",
        "layers/wrong/layer.toml:12:",
    ] {
        assert!(stderr.contains(expected), "no `{expected}` in: {stderr}");
    }
    let stderr = project.run(&["build", "absent"]).fails(2);
    assert!(stderr.contains("absent") && stderr.contains("hint: "), "{stderr}");
    project.write("manifests/broken.toml", "image = \"localhost/broken\"\nbase = [\n");
    let stderr = project.run(&["build", "broken"]).fails(2);
    assert!(stderr.contains("manifests/broken.toml:"), "{stderr}");
}

#[test]
fn a_step_finds_its_recipe_and_a_quiet_world() {
    let project = Project::with_tiny_base(Who::Root);
    project.write(
        "layers/world/layer.toml",
        "about = \"looks round\"\n[args]\nthe-word = \"hello\"\n[[step]]\nenv = { EXTRA = \"x\" }\nscript = '''\nset -x\n\
         test \"$THE_WORD\" = hello\n\
         test \"$ARCH $MACHINE\" = \"amd64 x86_64\"\n\
         test \"$DISTRIBUTION $CODENAME $RELEASE\" = \"tiny small 1\"\n\
         test \"$EXTRA\" = x\n\
         test \"$TZ\" = UTC\n\
         test -n \"$SOURCE_DATE_EPOCH\"\n\
         test \"$(cat $OCIBUILD_RECIPE/data)\" = data\n\
         ! touch $OCIBUILD_RECIPE/new 2>/dev/null\n\
         test \"$(id -u)\" = 0\n\
         test \"$(umask)\" = 0022\n\
         test -c /dev/null && test -c /dev/urandom && test -d /dev/shm && test -e /proc/self/fd/1\n\
         test -z \"$(ls -A /tmp)$(ls -A /var/tmp)\"\n\
         test -z \"${LEAKED:-}\"\n\
         test \"$HOME\" = /root\n\
         env > /srv/environment\n'''\n",
    );
    project.write("layers/world/data", "data\n");
    project.definition("world", &["world"]);
    let mut command = project.command(&["build", "world"]);
    command.env("LEAKED", "secret");
    crate::support::cli::Ran::of(&mut command).ok();
}

#[test]
fn config_is_the_bases_unless_said() {
    let project = Project::with_tiny_base(Who::Root);
    project.script("one", "echo 1 > /srv/one");
    project.write(
        "manifests/first.toml",
        "image = \"localhost/first\"\nbase = \"localhost/tiny:1\"\nplatforms = [\"linux/amd64\"]\nlayers = [\"one\"]\n\
         [config]\nuser = \"1000\"\nworkdir = \"/srv\"\nentrypoint = [\"/bin/echo\", \"in\"]\ncommand = [\"out\"]\n\
         ports = [\"8888\"]\nstop-signal = \"SIGINT\"\nenv = { A = \"1\" }\nlabels = { \"a.b\" = \"c\" }\n",
    );
    project.write(
        "manifests/second.toml",
        "image = \"localhost/second\"\nbase = \"localhost/first\"\nplatforms = [\"linux/amd64\"]\nlayers = []\n\
         [config]\nenv = { B = \"2\" }\n",
    );
    project.build("first");
    project.build("second");
    let registry = Registry::plain();
    project.run(&["push", "localhost/second", "--to", &registry.image("second:1")]).ok();
    let (_, platforms) = image::check(&registry.host(), "second", "1");
    let config = &platforms[0].config["config"];
    assert_eq!(config["User"], "1000");
    assert_eq!(config["WorkingDir"], "/srv");
    assert_eq!(config["Entrypoint"], serde_json::json!(["/bin/echo", "in"]));
    assert_eq!(config["Cmd"], serde_json::json!(["out"]));
    assert_eq!(config["StopSignal"], "SIGINT");
    assert_eq!(config["Labels"]["a.b"], "c");
    assert!(config["ExposedPorts"]["8888/tcp"].is_object(), "{config}");
    let environment = config["Env"].to_string();
    assert!(environment.contains("A=1") && environment.contains("B=2"), "{environment}");
    let annotations = &platforms[0].manifest["annotations"];
    assert!(annotations["org.opencontainers.image.base.digest"].is_string(), "{annotations}");
}

#[test]
fn files_below_the_home_folder_are_warned_of() {
    let project = Project::with_tiny_base(Who::Root);
    project.script("home", "echo lost > /home/jovyan/lost");
    project.write(
        "manifests/home.toml",
        "image = \"localhost/home\"\nbase = \"localhost/tiny:1\"\nplatforms = [\"linux/amd64\"]\nlayers = [\"home\"]\n\
         [config]\nuser = \"1000\"\nworkdir = \"/home/jovyan\"\nenv = { HOME = \"/home/jovyan\" }\n",
    );
    let ran = project.run(&["build", "home"]);
    assert!(
        ran.stderr().contains("warning: ") && ran.stderr().contains("home/jovyan/lost"),
        "{ran}"
    );
    ran.ok();
}
