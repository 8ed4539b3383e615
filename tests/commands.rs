//! The command line itself: help, errors, and the commands that look at the store or move images
//! between files and the store.

use std::fs;
use std::process::{Command, Stdio};

use crate::support::cli::{Project, Ran, Who, names};
use crate::support::image::{entries, entry};
use crate::support::registry::Registry;
use crate::support::run;

fn commands(project: &Project) -> Vec<String> {
    let help = project.run(&["--help"]).ok();
    help.lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_commands_help_has_an_example() {
    let project = Project::new();
    let commands = commands(&project);
    assert!(commands.len() >= 11, "{commands:?}");
    for command in &commands {
        let help = project.run(&[command, "--help"]).ok();
        assert!(help.contains(&format!("ocibuild {command}")), "{command}: {help}");
        assert!(help.contains("Examples:"), "{command}: {help}");
    }
    let version = project.run(&["--version"]).ok();
    assert_eq!(version, format!("ocibuild {}", env!("CARGO_PKG_VERSION")));
}

#[test]
fn completions_know_every_command() {
    let project = Project::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = project.run(&["completions", shell]).ok();
        for command in commands(&project) {
            assert!(script.contains(&command), "{shell} does not complete `{command}`");
        }
    }
    // What a shell makes of it is what counts.
    project.write("completions", project.run(&["completions", "bash"]).ok());
    let script = "source ./completions; COMP_WORDS=(ocibuild pu); COMP_CWORD=1; _ocibuild ocibuild pu ocibuild; echo ${COMPREPLY[@]}";
    let mut bash = Command::new("bash");
    bash.args(["-c", script]).current_dir(project.path("."));
    let reply = Ran::of(&mut bash).ok();
    assert!(reply.contains("pull") && reply.contains("push"), "{reply}");
}

#[test]
fn wrong_usage_is_exit_code_two() {
    let project = Project::new();
    project.run(&["biuld"]).fails(2);
    let stderr = project.run(&["build"]).fails(2);
    assert!(stderr.contains("NAME"), "{stderr}");
    let stderr = project.run(&["pull", "Not A Reference"]).fails(2);
    assert!(stderr.contains("Not A Reference"), "{stderr}");
    project.run(&["build", "x", "--platform", "nonsense"]).fails(2);
}

#[test]
fn an_image_that_is_not_here_is_an_error_with_a_way_out() {
    let project = Project::with_tiny_base(Who::Root);
    for line in [
        &["push", "ghcr.io/rocker-org/cuda"][..],
        &["show", "ghcr.io/rocker-org/cuda"],
        &["remove", "ghcr.io/rocker-org/cuda"],
        &["export", "ghcr.io/rocker-org/cuda", "out"],
    ] {
        if line[0] == "show" {
            continue; // It may ask the registry.
        }
        let ran = project.run(line);
        let stderr = ran.stderr();
        assert!(stderr.contains("ghcr.io/rocker-org/cuda"), "{ran}");
        assert!(stderr.contains("hint: "), "{ran}");
        assert!(!stderr.contains("panicked"), "{ran}");
        assert_ne!(ran.fails(1), "");
    }
    let stderr = project.run(&["push", "ghcr.io/rocker-org/cuda"]).fails(1);
    assert!(stderr.contains("build") || stderr.contains("pull"), "it says what to do: {stderr}");
    assert!(!project.path("out").exists());
}

#[test]
fn errors_are_objects_when_asked_for() {
    let project = Project::new();
    let ran = project.run(&["push", "localhost/absent", "--json"]);
    let last = ran.stderr().lines().last().unwrap().to_owned();
    let object: serde_json::Value = serde_json::from_str(&last).unwrap();
    assert_eq!(object["event"], "error");
    assert_eq!(object["exit_code"], 1);
    assert!(ran.stdout().is_empty());
    // Each line of a whole build is one.
    let project = Project::with_tiny_base(Who::Root);
    project.script("one", "echo said").definition("one", &["one"]);
    let ran = project.run(&["build", "one", "--json"]);
    let mut output = false;
    for line in ran.stderr().lines() {
        let event: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"));
        output |= event["event"] == "output" && event["line"] == "said";
    }
    assert!(output, "{ran}");
    assert!(ran.json()[0]["digest"].is_string());
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let project = Project::with_tiny_base(Who::Root);
    let mut child = project
        .command(&["show", "localhost/tiny:1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn images_are_listed_shown_and_removed() {
    let project = Project::with_tiny_base(Who::Root);
    project.script("one", "echo 1 > /srv/one").definition("one", &["one"]);
    let digest = project.build("one");
    let text = project.run(&["list"]).ok();
    assert!(text.contains("localhost/one") && text.contains("localhost/tiny:1"), "{text}");

    let shown = project.run(&["show", "localhost/one", "--json"]).json();
    assert_eq!(shown["digest"], digest.as_str());
    let layers = shown["platforms"][0]["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 2);
    assert!(layers[1]["size"].as_u64().unwrap() > 0);
    assert!(layers[1]["diff_id"].as_str().unwrap().starts_with("sha256:"));
    assert!(layers[1].to_string().contains("one"), "which recipe made it: {}", layers[1]);
    let text = project.run(&["show", "localhost/one"]).ok();
    assert!(text.contains(&digest) && text.contains("linux/amd64"), "{text}");

    let registry = Registry::plain();
    let remote = registry.image("one:1");
    project.run(&["push", "localhost/one", "--to", &remote]).ok();
    let elsewhere = Project::new().run(&["show", "--remote", &remote, "--json"]).json();
    assert_eq!(elsewhere["digest"], digest.as_str());
    assert_eq!(elsewhere["platforms"], shown["platforms"]);

    assert_eq!(project.run(&["remove", "localhost/one"]).ok(), "localhost/one:latest");
    assert!(!project.run(&["list"]).ok().contains("localhost/one"));
    project.run(&["remove", "localhost/one"]).fails(1);
}

#[test]
fn gc_frees_what_nothing_needs_and_no_more() {
    let project = Project::with_tiny_base(Who::Root);
    project
        .script("bulk", "head -c 3000000 /dev/urandom > /srv/bulk")
        .definition("bulk", &["bulk"]);
    project.build("bulk");
    let size = || {
        let output = run(Command::new("du").arg("-sb").arg(project.store()));
        let text = String::from_utf8(output.stdout).unwrap();
        text.split_whitespace().next().unwrap().parse::<u64>().unwrap()
    };
    let before = size();
    project.run(&["gc", "--keep", "0", "--dry-run"]).ok();
    assert_eq!(size(), before, "a dry run frees nothing");
    project.run(&["gc", "--keep", "0"]).ok();
    project.run(&["export", "localhost/bulk", "whole", "--format", "layout"]).ok();
    project.run(&["remove", "localhost/bulk"]).ok();
    let report = project.run(&["gc", "--keep", "0", "--json"]).json();
    assert!(report["freed_bytes"].as_u64().unwrap() >= 3_000_000, "{report}");
    assert!(size() < before - 3_000_000, "{} of {before}", size());
    // The base is still an image; all of it is here.
    project.script("small", "echo 1 > /srv/one").definition("small", &["small"]);
    project.build("small");
}

#[test]
fn verify_names_what_is_damaged() {
    let project = Project::with_tiny_base(Who::Root);
    assert_eq!(project.run(&["verify"]).ok(), "every blob is whole");
    let blobs = project.store().join("blobs/sha256");
    let largest = names(&blobs)
        .into_iter()
        .max_by_key(|name| fs::metadata(blobs.join(name)).unwrap().len())
        .unwrap();
    let mut bytes = fs::read(blobs.join(&largest)).unwrap();
    bytes[100] ^= 1;
    fs::remove_file(blobs.join(&largest)).unwrap();
    fs::write(blobs.join(&largest), bytes).unwrap();
    fs::write(blobs.join("notes"), "").unwrap();

    let told = project.run(&["verify"]);
    assert_eq!(told.code(), Some(1));
    assert!(told.stdout().contains("notes is no blob"), "{}", told.stdout());
    assert!(told.stdout().contains(&largest), "{}", told.stdout());
    let told = project.run(&["verify", "--json"]);
    assert_eq!(told.code(), Some(1));
    let report: serde_json::Value = serde_json::from_str(&told.stdout()).unwrap();
    assert_eq!(report["ok"], false);
    let problems = report["problems"].as_array().unwrap();
    assert_eq!(problems.len(), 2, "{report}");
    let corrupt = problems.iter().find(|found| found["kind"] == "corrupt").unwrap();
    assert_eq!(corrupt["digest"], format!("sha256:{largest}"));
}

#[test]
fn a_damaged_layer_is_built_again_once_its_file_is_removed() {
    let project = Project::with_tiny_base(Who::Root);
    project.script("made", "head -c 100000 /dev/urandom | sha256sum > /sum; echo 1 > /sum");
    project.definition("made", &["made"]);
    let built = project.build("made");
    let shown = project.run(&["show", "localhost/made", "--json"]).json();
    let layers = shown["platforms"][0]["layers"].as_array().unwrap();
    let digest = layers.last().unwrap()["digest"].as_str().unwrap();
    let blob = project.store().join("blobs/sha256").join(digest.strip_prefix("sha256:").unwrap());
    fs::remove_file(&blob).unwrap();
    fs::write(&blob, "damaged").unwrap();
    assert_eq!(project.run(&["verify"]).code(), Some(1));
    fs::remove_file(&blob).unwrap();
    assert_eq!(project.build("made"), built);
    assert_eq!(project.run(&["verify"]).ok(), "every blob is whole");
}

#[test]
fn gc_is_an_ordinary_users_too() {
    let project = Project::with_tiny_base(Who::Range);
    project.fixture("odd").definition("small", &["odd"]);
    project.build("small");
    project.run(&["remove", "localhost/small"]).ok();
    // Unpacked trees belong to the range of subuids: only inside it can they be removed.
    let report = project.run(&["gc", "--keep", "0", "--json"]).json();
    assert!(report["trees"].as_u64().unwrap() >= 1, "{report}");
}

#[test]
fn every_format_goes_out_and_comes_back_the_same() {
    let project = Project::with_tiny_base(Who::Root);
    project.fixture("odd").fixture("later").definition("small", &["odd", "later"]);
    let digest = project.build("small");
    for (format, path) in [("layout", "small-layout"), ("oci-archive", "small-oci.tar")] {
        project.run(&["export", "localhost/small", path, "--format", format]).ok();
        let other = Project::new();
        let from = project.path(path);
        let back =
            other.run(&["import", from.to_str().unwrap(), "--name", "localhost/back:1"]).ok();
        assert_eq!(back, digest, "{format}");
        // Again, to see that the same image gives the same file.
        let again = format!("{path}-again");
        project.run(&["export", "localhost/small", &again, "--format", format]).ok();
        run(Command::new("diff").arg("-r").arg(project.path(path)).arg(project.path(&again)));
    }
    // Docker's archive has no index: what comes back is the same layers and config.
    project
        .run(&["export", "localhost/small", "small-docker.tar", "--format", "docker-archive"])
        .ok();
    let from = project.path("small-docker.tar");
    let other = Project::new();
    other.run(&["import", from.to_str().unwrap(), "--name", "localhost/small"]).ok();
    let diff_ids = |project: &Project| -> Vec<String> {
        let shown = project.run(&["show", "localhost/small", "--json"]).json();
        let layers = shown["platforms"][0]["layers"].as_array().unwrap().clone();
        layers.iter().map(|layer| layer["diff_id"].to_string()).collect()
    };
    assert_eq!(diff_ids(&other), diff_ids(&project));
    // Others read them.
    let oci = format!("oci-archive:{}", project.path("small-oci.tar").display());
    let docker = format!("docker-archive:{}", from.display());
    let layout = format!("oci:{}", project.path("small-layout").display());
    for name in [oci, docker, layout] {
        run(Command::new("skopeo").args(["inspect", "--config", &name]));
    }
}

#[test]
fn a_flattened_tree_is_what_the_layers_amount_to() {
    let project = Project::with_tiny_base(Who::Root);
    project.fixture("odd").fixture("later").definition("small", &["odd", "later"]);
    project.build("small");
    project.run(&["export", "localhost/small", "root.tar", "--format", "rootfs"]).ok();
    let tree = entries(&std::fs::read(project.path("root.tar")).unwrap());
    let paths: Vec<&str> = tree.iter().map(|entry| entry.path.trim_start_matches("./")).collect();
    for gone in ["srv/removed", "srv/old", "srv/remade/gone", "srv/odd/zebra", "srv/odd/links"] {
        assert!(!paths.contains(&gone), "`{gone}` is still there");
    }
    assert!(!paths.iter().any(|path| path.contains(".wh.")), "a whiteout in a tree");
    assert_eq!(entry(&tree, "srv/odd/first").content, b"linked\nchanged\n");
    assert_eq!(entry(&tree, "srv/odd/capable").attributes, ["security.capability"]);
    assert_eq!(entry(&tree, "srv/of-jovyan").owner, (1000, 1000));
    // To stdout it is the same.
    let output = project
        .command(&["export", "localhost/small", "-", "--format", "rootfs"])
        .output()
        .unwrap();
    assert_eq!(output.stdout, std::fs::read(project.path("root.tar")).unwrap());
}

#[test]
fn a_broken_archive_is_refused_and_nothing_is_kept() {
    let project = Project::with_tiny_base(Who::Root);
    let tar = std::fs::read(project.path("tiny.tar")).unwrap();
    project.write("cut.tar", &tar[..tar.len() / 2]);
    project.run(&["import", "cut.tar", "--name", "localhost/cut:1"]).fails(1);
    project.write("nonsense.tar", "this is no archive".repeat(100));
    let stderr = project.run(&["import", "nonsense.tar", "--name", "localhost/cut:1"]).fails(2);
    assert!(stderr.contains("nonsense.tar"), "{stderr}");
    assert!(!project.run(&["list"]).ok().contains("cut"));
    project.run(&["import", "absent.tar", "--name", "localhost/cut:1"]).fails(2);
}

#[test]
fn a_tampered_blob_of_the_store_is_found_before_it_is_pushed() {
    let registry = Registry::plain();
    let project = Project::with_tiny_base(Who::Root);
    project.script("one", "echo 1 > /srv/one").definition("one", &["one"]);
    project.build("one");
    let shown = project.run(&["show", "localhost/one", "--json"]).json();
    let layer = shown["platforms"][0]["layers"][1]["digest"].as_str().unwrap().to_owned();
    let path = project.store().join("blobs/sha256").join(&layer[7..]);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    run(Command::new("chmod").arg("u+w").arg(&path));
    std::fs::write(&path, bytes).unwrap();
    let remote = registry.image("one:1");
    let stderr = project.run(&["push", "localhost/one", "--to", &remote]).fails(1);
    assert!(stderr.contains(&layer[7..19]), "{stderr}");
    let listing =
        run(Command::new("curl")
            .args(["-s", &format!("http://{}/v2/one/tags/list", registry.host())]));
    assert!(!String::from_utf8_lossy(&listing.stdout).contains("\"1\""), "no tag was moved");
}

/// A definition of two platforms, whose layers run nothing and so need no emulation.
fn two_platforms() -> Project {
    let project = Project::of(Who::Root);
    project.write(
        "layers/data/layer.toml",
        "about = \"a file\"\n[[step]]\ncopy = \"data\"\nto = \"/srv/data\"\n",
    );
    project.write("layers/data/data", "data\n");
    project.write(
        "manifests/both.toml",
        "image = \"localhost/both\"\nbase = \"localhost/two:1\"\nplatforms = [\"linux/amd64\", \"linux/arm64\"]\nlayers = [\"data\"]\n",
    );
    two_platform_base(&project);
    project
}

/// An index of two platforms, joined by this very tool from two imports.
fn two_platform_base(project: &Project) {
    std::fs::write(project.path("tiny.tar"), crate::support::base::tiny()).unwrap();
    let line = ["import", "tiny.tar", "--name", "localhost/two:1", "--add", "--platform"];
    let digests = ["linux/arm64", "linux/amd64", "linux/amd64", "linux/arm64"]
        .map(|platform| project.run(&[&line[..], &[platform]].concat()).ok());
    assert_eq!(digests[1..], [&digests[1][..]; 3], "what is there already takes its old place");
    let shown = project.run(&["show", "localhost/two:1", "--json"]).json();
    let platforms = shown["platforms"].as_array().unwrap();
    let names: Vec<_> = platforms.iter().map(|one| one["platform"].clone()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

#[test]
fn platforms_built_apart_and_joined_are_one_build_of_all() {
    let whole = two_platforms();
    let expected = whole.build("both");
    let shown = whole.run(&["show", "localhost/both", "--json"]).json();
    assert_eq!(shown["platforms"].as_array().unwrap().len(), 2);

    // In one store.
    let apart = two_platforms();
    apart.run(&["build", "both", "--platform", "linux/arm64"]).ok();
    let stderr = apart.run(&["index", "both"]).fails(1);
    assert!(stderr.contains("linux/amd64"), "it names what is missing: {stderr}");
    apart.run(&["build", "both", "--platform", "linux/amd64"]).ok();
    assert_eq!(apart.run(&["index", "both"]).ok(), expected);

    // On two machines, through a registry.
    let registry = Registry::plain();
    let name = registry.image("both");
    let mut pushed = Vec::new();
    for platform in ["linux/amd64", "linux/arm64"] {
        let machine = two_platforms();
        machine.run(&["build", "both", "--platform", platform]).ok();
        let line = machine.run(&["push", "localhost/both", "--by-digest", "--to", &name]).ok();
        assert!(line.starts_with(&format!("{name}@sha256:")), "{line}");
        pushed.push(line);
    }
    let joiner = two_platforms();
    let stderr = joiner.run(&["index", "both", &pushed[0]]).fails(1);
    assert!(stderr.contains("linux/arm64"), "{stderr}");
    assert_eq!(joiner.run(&["index", "both", &pushed[1], &pushed[0]]).ok(), expected);
    joiner.run(&["push", "localhost/both", "--to", &format!("{name}:1")]).ok();
    assert_eq!(crate::support::image::check(&registry.host(), "both", "1").0, expected);
    assert_eq!(whole.build("both"), expected);
}

#[test]
fn the_doctor_finds_this_machine_fit() {
    for who in [Who::Root, Who::Range] {
        let project = Project::of(who);
        let report = project.run(&["doctor", "--json"]).json();
        assert_eq!(report["can_build"], true, "{report}");
    }
}

#[test]
fn the_doctor_has_a_fix_for_what_is_missing() {
    let seen = |who: Who, tool: &[&str], what: &str| {
        let project = Project::of(who);
        let report = Ran::of(&mut project.command_under(tool, &["doctor", "--json"]));
        let report: serde_json::Value = serde_json::from_str(&report.stdout()).unwrap();
        let findings = report["findings"].as_array().unwrap().clone();
        for finding in &findings {
            assert!(finding["ok"] == true || finding["fix"].is_string(), "{finding}");
        }
        let found = findings.into_iter().find(|finding| finding["what"] == what).unwrap();
        (report["can_build"].clone(), found["ok"].clone(), found["fix"].to_string())
    };
    let (can_build, ok, fix) = seen(Who::Single, &[], "subordinate ids");
    assert_eq!((can_build, ok), (true.into(), false.into()));
    assert!(fix.contains("usermod --add-subuids"), "{fix}");
    let (can_build, ok, fix) = seen(Who::Single, &["prlimit", "--nofile=256:256"], "open files");
    assert_eq!((can_build, ok), (true.into(), false.into()));
    assert!(fix.contains("ulimit -Hn"), "{fix}");
    let none = "echo 0 > /proc/sys/user/max_user_namespaces; exec \"$@\"";
    let tool = ["unshare", "--user", "--map-root-user", "sh", "-c", none, "sh"];
    let (can_build, ok, fix) = seen(Who::Root, &tool, "user namespaces");
    assert_eq!((can_build, ok), (false.into(), false.into()));
    assert!(fix.contains("user.max_user_namespaces"), "{fix}");
}

#[test]
fn rules_are_printed_with_their_version() {
    let rules = Project::new().run(&["rules", "--json"]).json();
    assert!(!rules["version"].is_null(), "{rules}");
    assert!(rules["rules"].as_array().unwrap().len() > 5, "{rules}");
}
