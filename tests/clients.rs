//! What others make of our images: skopeo, crane, umoci, podman, buildah, charliecloud.

use std::net::TcpStream;
use std::process::{Command, Stdio};

use crate::support::base;
use crate::support::cli::{Project, Who, wait_for};
use crate::support::image::{self, entries, entry};
use crate::support::podman::Podman;
use crate::support::registry::Registry;
use crate::support::{free_port, run, temp_dir};

/// A project whose `small` is pushed, with its name in the registry.
fn pushed(registry: &Registry, compression: &str) -> (Project, String) {
    let project = Project::with_tiny_base(Who::Root);
    project.fixture("odd").fixture("later").write(
        "manifests/small.toml",
        format!(
            "image = \"localhost/small\"\nbase = \"localhost/tiny:1\"\nplatforms = [\"linux/amd64\"]\n\
             layers = [\"odd\", \"later\"]\ncompression = \"{compression}\"\n"
        ),
    );
    project.build("small");
    let name = registry.image("small:1");
    project.run(&["push", "localhost/small", "--to", &name]).ok();
    (project, name)
}

#[test]
fn skopeo_inspects_and_copies_it_and_crane_finds_it_valid() {
    for compression in ["gzip", "zstd"] {
        let registry = Registry::plain();
        let (project, name) = pushed(&registry, compression);
        let output = run(Command::new("skopeo").args([
            "inspect",
            "--tls-verify=false",
            &format!("docker://{name}"),
        ]));
        let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(found["Layers"].as_array().unwrap().len(), 3);
        assert_eq!(found["Architecture"], "amd64");
        // Its copy keeps the digest, so it found nothing to change.
        let copy = registry.image("copied:1");
        run(Command::new("skopeo")
            .args(["copy", "--all", "--src-tls-verify=false", "--dest-tls-verify=false"])
            .args([format!("docker://{name}"), format!("docker://{copy}")]));
        let (expected, _) = image::check(&registry.host(), "small", "1");
        assert_eq!(image::check(&registry.host(), "copied", "1").0, expected);
        // It reads every blob, and compares digests, diff IDs and sizes; it takes all for gzip.
        if compression == "gzip" {
            run(Command::new(base::newest("crane")).args(["validate", "--remote", &name]));
        }
        drop(project);
    }
}

#[test]
fn umoci_unpacks_what_we_export() {
    crate::support::cli::require_root();
    let registry = Registry::plain();
    let (project, name) = pushed(&registry, "gzip");
    let layout = project.path("umoci");
    run(Command::new("skopeo")
        .args(["copy", "--src-tls-verify=false", &format!("docker://{name}")])
        .arg(format!("oci:{}:small", layout.display())));
    let bundle = project.path("bundle");
    run(Command::new("umoci")
        .args(["unpack", "--image"])
        .arg(format!("{}:small", layout.display()))
        .arg(&bundle));
    let root = bundle.join("rootfs");
    let stat = |path: &str| {
        let output = run(Command::new("stat").args(["-c", "%A %u:%g %h"]).arg(root.join(path)));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(stat("srv/odd/setuid"), "-rwsr-xr-x 0:0 1");
    assert_eq!(stat("srv/odd/foreign"), "-rw-r--r-- 1234:5678 1");
    assert_eq!(stat("srv/odd/shared"), "drwxrwsr-x 0:50 2");
    assert!(!root.join("srv/odd/zebra").exists() && !root.join("srv/removed").exists());
    assert!(!root.join("srv/remade/gone").exists() && root.join("srv/remade/new").exists());
    let output = run(Command::new("getfattr")
        .args(["-d", "-m", "security.capability", "-e", "hex"])
        .arg(root.join("srv/odd/capable")));
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("security.capability=0x"),
        "{output:?}"
    );
    // Our own flattening says the same as umoci's unpacking.
    project.run(&["export", "localhost/small", "root.tar", "--format", "rootfs"]).ok();
    let ours = entries(&std::fs::read(project.path("root.tar")).unwrap());
    let output = run(Command::new("find").arg(&root).args(["-mindepth", "1", "-printf", "%P\\0"]));
    let mut theirs: Vec<String> = output
        .stdout
        .split(|byte| *byte == 0)
        .filter(|path| !path.is_empty())
        .map(|path| String::from_utf8_lossy(path).into_owned())
        .collect();
    theirs.sort();
    let mut paths: Vec<String> = ours.iter().map(|entry| entry.path.clone()).collect();
    paths.sort();
    assert_eq!(paths, theirs);
    assert_eq!(entry(&ours, "srv/odd/ant").mode, 0o600);
}

#[test]
fn podman_runs_it() {
    for compression in ["gzip", "zstd"] {
        let registry = Registry::plain();
        let (_project, name) = pushed(&registry, compression);
        let podman = Podman::new();
        podman.pull(&name);
        let script = "id -u; cat /srv/odd/first; stat -c %a /srv/odd/setuid; getcap /srv/odd/capable; \
                      ls /srv/odd/zebra 2>/dev/null || echo gone; /srv/copied/sub/tool; echo $LATER";
        let said = podman.run(&name, &["/bin/sh", "-c", script]);
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines[..4], ["0", "linked", "changed", "4755"], "{said}");
        assert!(lines[4].contains("cap_net_bind_service"), "{said}");
        assert_eq!(lines[5..], ["gone", "runs", "later"], "{said}");
        let digest = podman
            .command(&["image", "inspect", "--format", "{{.Digest}}", &name])
            .output()
            .unwrap();
        assert!(String::from_utf8_lossy(&digest.stdout).starts_with("sha256:"), "{digest:?}");
    }
}

#[test]
fn what_others_pushed_is_a_base() {
    crate::support::cli::require_root();
    // Odd layers made by other tools: several empty ones, whiteouts, opaque folders, hard links.
    let registry = Registry::plain();
    let project = Project::of(Who::Root);
    std::fs::write(project.path("tiny.tar"), crate::support::base::tiny()).unwrap();
    let name = registry.image("theirs:1");
    let script = "set -eu
        c=$(buildah from scratch); buildah add -q $c tiny.tar / >/dev/null
        buildah commit -q $c one >/dev/null; buildah rm $c >/dev/null
        c=$(buildah from localhost/one)
        m=$(buildah mount $c)
        rm $m/srv/removed; rm -r $m/srv/remade; mkdir $m/srv/remade; echo new > $m/srv/remade/new
        ln $m/srv/kept $m/srv/kept-too; setcap cap_net_raw+ep $m/bin/busybox; chmod 4755 $m/bin/busybox
        buildah umount $c >/dev/null
        buildah commit -q $c two >/dev/null; buildah rm $c >/dev/null
        c=$(buildah from localhost/two); buildah config --env THEIRS=1 --user 1000:100 $c
        buildah commit -q $c three >/dev/null
        buildah push -q --tls-verify=false localhost/three docker://$1";
    let storage = Podman::new();
    run(&mut storage.buildah(script, &name, &project.path("")));
    project
        .script(
            "over",
            "test ! -e /srv/removed; test ! -e /srv/remade/gone; cat /srv/remade/new; test $THEIRS = 1
             test $(stat -c %h /srv/kept) = 2; getcap /bin/busybox | grep -q cap_net_raw; echo 1 > /srv/one",
        )
        .write(
            "manifests/over.toml",
            format!("image = \"localhost/over\"\nbase = \"{name}\"\nplatforms = [\"linux/amd64\"]\nlayers = [\"over\"]\n"),
        );
    // A base that is no index has its one platform.
    project.build("over");
    let remote = registry.image("over:1");
    project.run(&["push", "localhost/over", "--to", &remote]).ok();
    let (_, platforms) = image::check(&registry.host(), "over", "1");
    let theirs = run(Command::new("skopeo").args([
        "inspect",
        "--tls-verify=false",
        "--raw",
        &format!("docker://{name}"),
    ]));
    let theirs: serde_json::Value = serde_json::from_slice(&theirs.stdout).unwrap();
    let count = theirs["layers"].as_array().unwrap().len();
    let kept: Vec<&serde_json::Value> = platforms[0].manifest["layers"].as_array().unwrap()
        [..count]
        .iter()
        .map(|layer| &layer["digest"])
        .collect();
    let expected: Vec<&serde_json::Value> =
        theirs["layers"].as_array().unwrap().iter().map(|layer| &layer["digest"]).collect();
    assert_eq!(kept, expected, "the base's layers are carried over byte for byte");
    assert_eq!(platforms[0].config["config"]["User"], "1000:100");
}

/// Of go-containerregistry, on which cosign, ko and others stand.
#[test]
fn another_registry_takes_and_gives_the_same() {
    let port = free_port();
    let host = format!("127.0.0.1:{port}");
    let storage = temp_dir();
    let mut command = Command::new(base::newest("crane"));
    command.args(["registry", "serve", "--address", &host, "--disk"]).arg(storage.path());
    let mut server = command.stderr(Stdio::null()).spawn().unwrap();
    wait_for("crane's registry", || TcpStream::connect(&host).is_ok());
    let (first, second) = (format!("{host}/small:1"), format!("{host}/beside:1"));
    let (project, _) = pushed(&Registry::plain(), "zstd");
    let built = project.run(&["show", "localhost/small", "--json"]).json()["digest"].clone();
    for name in [&first, &second] {
        project.run(&["push", "localhost/small", "--only", "--to", name]).ok();
        assert_eq!(image::check(&host, name.split(['/', ':']).nth(2).unwrap(), "1").0, built);
    }
    let elsewhere = Project::of(Who::Root);
    elsewhere.run(&["pull", &first]).ok();
    assert_eq!(elsewhere.run(&["show", &first, "--json"]).json()["digest"], built);
    assert!(elsewhere.run(&["sbom", &second, "--remote"]).ok().contains("SPDX-2.3"));
    server.kill().unwrap();
    server.wait().unwrap();
}

/// What a scientist runs on a cluster, as who built it: with one id, and without a registry.
#[test]
fn charliecloud_runs_what_is_exported() {
    crate::support::cli::require_root();
    let project = Project::with_tiny_base(Who::Single);
    project.definition("mine", &["tool"]).script(
        "tool",
        "printf '#!/bin/sh\\necho runs\\n' > /usr/bin/tool; chmod 755 /usr/bin/tool",
    );
    project.build("mine");
    project.run(&["export", "localhost/mine", "root.tar", "--format", "rootfs"]).ok();
    let script =
        "mkdir root; tar -C root --exclude 'dev/*' -xf root.tar; exec ch-run root -- /usr/bin/tool";
    let mut command = Command::new("setpriv");
    command.args(["--reuid=54321", "--regid=54321", "--clear-groups", "sh", "-euc", script]);
    project.surroundings(&mut command);
    command.env("USER", "scientist");
    assert_eq!(String::from_utf8(run(&mut command).stdout).unwrap(), "runs\n");
}
