//! Locks: told apart, merged, made and played back.

use std::process::Command;

use ocibuild::oci::Digest;
use serde_json::json;

use crate::support::cli::{Project, Ran, Who, copy_tree};
use crate::support::registry::Registry;
use crate::support::run;
use crate::support::upstream::Upstream;

/// A lock of one platform with one layer, whose answers have these URLs and bodies.
fn lock_text(platform: &str, fetches: &[(&str, &str)]) -> String {
    let (index, manifest) = (Digest::of(b"index"), Digest::of(platform.as_bytes()));
    let mut text = format!(
        "lock = 2\nrules = '1'\nbase = {{ reference = 'a/b:c', digest = '{index}' }}\n\
         [platform.'{platform}']\nbase = '{manifest}'\n\
         [platform.'{platform}'.layer.r]\nsource-date = 1795475755\nfetches = [\n"
    );
    for (url, body) in fetches {
        let digest = Digest::of(body.as_bytes());
        text.push_str(&format!(
            "{{ url = '{url}', method = 'GET', status = 200, digest = '{digest}', size = {}, \
             authority = 'none' }},\n",
            body.len()
        ));
    }
    text.push_str("]\n");
    text
}

const OLD: [(&str, &str); 4] = [
    ("http://m.example/dists/x/InRelease", "1"),
    ("http://m.example/pool/main/r/r-base/r-base-core_4.4.2-1_amd64.deb", "r1"),
    ("http://m.example/pool/main/z/z_1_amd64.deb", "z"),
    ("http://x.example/install.sh", "1"),
];

const NEW: [(&str, &str); 5] = [
    ("http://m.example/dists/x/InRelease", "2"),
    ("http://m.example/pool/main/n/new_2_amd64.deb", "n"),
    ("http://m.example/pool/main/r/r-base/r-base-core_4.5.1-1_amd64.deb", "r2"),
    ("http://m.example/pool/main/z/z_1_amd64.deb", "another z"),
    ("http://x.example/install.sh", "2"),
];

#[test]
fn two_locks_are_told_apart_in_packages_and_versions() {
    let project = Project::new();
    project.write("old.lock", lock_text("linux/amd64", &OLD));
    project.write("new.lock", lock_text("linux/amd64", &NEW));
    let same = project.run(&["lock", "diff", "old.lock", "old.lock"]).ok();
    assert_eq!(same, "the locks say the same");
    let ran = project.run(&["lock", "diff", "old.lock", "new.lock"]);
    assert_eq!(
        ran.stdout(),
        "linux/amd64\n\
         \x20 r\n\
         \x20   deb  new          + 2\n\
         \x20   deb  r-base-core  4.4.2-1 -> 4.5.1-1\n\
         \x20   deb  z            1: other bytes\n\
         \x20   http://x.example/install.sh\n\
         \x20   1 page of an index\n"
    );
    assert_eq!(ran.code(), Some(1));
    let ran = project.run(&["lock", "diff", "old.lock", "new.lock", "--json"]);
    let told: serde_json::Value = serde_json::from_str(&ran.stdout()).unwrap();
    let package = &told["platforms"][0]["layers"][0]["packages"][1];
    assert_eq!(
        package,
        &json!({"ecosystem": "deb", "name": "r-base-core", "old": ["4.4.2-1"], "new": ["4.5.1-1"]})
    );
    let stderr = project.run(&["lock", "diff", "old.lock", "absent.lock"]).fails(2);
    assert!(stderr.contains("absent.lock: cannot be read"), "{stderr}");
}

#[test]
fn locks_of_native_runners_become_one() {
    let project = Project::new();
    project.write("amd64.lock", lock_text("linux/amd64", &OLD));
    project.write("arm64.lock", lock_text("linux/arm64", &NEW));
    let merge = |paths: &[&str]| {
        let line = ["lock", "merge"].into_iter().chain(paths.iter().copied());
        project.run(&line.chain(["-o", "all.lock"]).collect::<Vec<_>>())
    };
    assert_eq!(merge(&["amd64.lock", "arm64.lock"]).ok(), "all.lock: linux/amd64, linux/arm64");
    let all = std::fs::read_to_string(project.path("all.lock")).unwrap();
    merge(&["all.lock", "arm64.lock"]).ok();
    assert_eq!(
        std::fs::read_to_string(project.path("all.lock")).unwrap(),
        all,
        "what is there already changes nothing"
    );
    assert_eq!(all.lines().filter(|line| line.starts_with("  { url")).count(), 9);

    project.write("other.lock", lock_text("linux/arm64", &OLD));
    let stderr = merge(&["amd64.lock", "arm64.lock", "other.lock"]).fails(2);
    assert!(stderr.contains("differ for linux/arm64"), "{stderr}");
    let moved = lock_text("linux/arm64", &NEW)
        .replace(&Digest::of(b"index").to_string(), &Digest::of(b"moved").to_string());
    project.write("moved.lock", moved);
    let stderr = merge(&["amd64.lock", "moved.lock"]).fails(2);
    assert!(
        stderr.contains("amd64.lock` stands on docker.io/a/b:c at")
            && stderr.contains("hint: name the base"),
        "{stderr}"
    );
    assert_eq!(
        std::fs::read_to_string(project.path("all.lock")).unwrap(),
        all,
        "a refused merge leaves the file as it was"
    );
}

const ONE: &str = "http://pages.example/one";
const TWO: &str = "http://pages.example/two";
const EARLY: &str = "Mon, 02 Jun 2025 12:00:00 GMT";
const LATE: &str = "Tue, 03 Jun 2025 12:00:00 GMT";

/// Two layers that each write down a page.
fn two_layers(who: Who) -> (Project, Upstream) {
    let web = Upstream::new();
    web.page(ONE, "first one", EARLY).page(TWO, "first two", LATE);
    let project = Project::with_tiny_base(who);
    project
        .script("one", &format!("wget -q -O /one {ONE}; date > /tmp/x"))
        .script("two", &format!("wget -q -O /two {TWO}"))
        .definition("locked", &["one", "two"]);
    (project, web)
}

/// Runs the binary with the web behind a proxy.
fn online(project: &Project, web: &Upstream, arguments: &[&str]) -> Ran {
    Ran::of(project.command(arguments).env("http_proxy", web.address()))
}

fn locked(project: &Project) -> String {
    std::fs::read_to_string(project.path("manifests/locked.lock")).unwrap()
}

fn layers(project: &Project, web: &Upstream, arguments: &[&str]) -> Vec<String> {
    let line = ["build", "locked", "--json"].into_iter().chain(arguments.iter().copied());
    let built = online(project, web, &line.collect::<Vec<_>>()).json();
    let layers = built[0]["platforms"][0]["layers"].as_array().unwrap().clone();
    layers.iter().map(|layer| layer["diff_id"].as_str().unwrap().to_owned()).collect()
}

fn a_lock_is_played_back(who: Who) {
    let (project, web) = two_layers(who);
    online(&project, &web, &["build", "locked", "--locked"]).fails(2);
    let told = online(&project, &web, &["lock", "locked"]).ok();
    assert!(told.contains("linux/amd64: 2 answers, 2 bodies of 18"), "{told}");
    let text = locked(&project);
    assert!(
        text.contains("[platform.\"linux/amd64\".layer.one]\nsource-date = 1748865600\n"),
        "{text}"
    );
    assert!(
        text.contains("[platform.\"linux/amd64\".layer.two]\nsource-date = 1748952000\n"),
        "{text}"
    );

    // The pages move on, and then the network goes.
    web.page(ONE, "second one", LATE).page(TWO, "second two", LATE);
    let digest = online(&project, &web, &["build", "locked", "--locked"]).ok();
    let asked = web.asked_in_all();
    assert_eq!(asked, 2, "a replay asks nobody");
    web.cut();
    let again = online(&project, &web, &["build", "locked", "--locked", "--no-cache", "--offline"]);
    assert_eq!(again.ok(), digest);
    let show = project.run(&["show", "localhost/locked", "--json"]).ok();
    let section = show.split("dev.ocibuild.lock").nth(1).unwrap();
    assert!(section.trim_start_matches(['"', ':', ' ']).starts_with("sha256:"), "{show}");
}

#[test]
fn a_lock_is_played_back_as_root() {
    a_lock_is_played_back(Who::Root);
}

#[test]
fn a_lock_is_played_back_with_a_range() {
    a_lock_is_played_back(Who::Range);
}

#[test]
fn a_lock_is_played_back_with_one_id() {
    a_lock_is_played_back(Who::Single);
}

#[test]
fn the_date_of_a_layer_is_that_of_its_newest_body() {
    let web = Upstream::new();
    let release = "http://m.example/dists/x/InRelease";
    web.page(ONE, "one", "Thu, 02 Jan 2020 00:00:00 GMT")
        .page(TWO, "two", "Fri, 01 Jan 2100 00:00:00 GMT")
        .page(release, "Origin: x\nDate: Tue, 03 Jun 2025 12:00:00 UTC\n", EARLY);
    let project = Project::with_tiny_base(Who::Root);
    project
        .script("old", &format!("wget -q -O /old {ONE}; wget -q -O /ahead {TWO}"))
        .script("apt", &format!("wget -q -O /apt {release}"))
        .definition("locked", &["old", "apt"]);
    online(&project, &web, &["lock", "locked"]).ok();
    let date = |layer: &str| {
        let text = locked(&project);
        let section = text.split(&format!(".layer.{layer}]\nsource-date = ")).nth(1).unwrap();
        section.lines().next().unwrap().parse::<i64>().unwrap()
    };
    assert_eq!(date("apt"), 1_748_952_000);
    let show = project.run(&["show", "localhost/tiny:1", "--json"]).json();
    assert!(date("old") < 1_748_952_000, "neither before the base nor ahead of the clock: {show}");
    let mut command = project.command(&["lock", "locked", "--update", "apt"]);
    command.env("http_proxy", web.address()).env("SOURCE_DATE_EPOCH", "1700000000");
    Ran::of(&mut command).ok();
    assert_eq!(date("apt"), 1_700_000_000);
}

#[test]
fn a_check_tells_what_is_new_upstream_without_building() {
    let web = Upstream::new();
    let at = |path: &str| format!("http://m.example/{path}");
    let release =
        |hash: &str| format!("Date: {EARLY}\nSHA256:\n {hash} 9 main/binary-amd64/Packages\n");
    web.page(&at("dists/x/InRelease"), release("01"), EARLY)
        .page(
            &at("dists/x/main/binary-amd64/by-hash/SHA256/01"),
            "Package: r\nVersion: 1:4.4-1\n",
            EARLY,
        )
        .page(&at("pool/r_4.4-1_amd64.deb"), "r", EARLY)
        .page(&at("src/contrib/PACKAGES"), "Package: jsonlite\nVersion: 1.8.8\n", EARLY)
        .page(&at("src/contrib/jsonlite_1.8.8.tar.gz"), "j", EARLY)
        .page(ONE, "one", EARLY)
        .page_as("http://pages.example/data", "application/json", "{}")
        .redirect("http://pages.example/latest", "http://pages.example/tool-1.0-amd64.deb")
        .page("http://pages.example/tool-1.0-amd64.deb", "t", EARLY);
    let get = |paths: &[&str]| -> String {
        paths.iter().map(|path| format!("wget -q -O /tmp/x {}\n", at(path))).collect()
    };
    let project = Project::with_tiny_base(Who::Root);
    let apt = [
        "dists/x/InRelease",
        "dists/x/main/binary-amd64/by-hash/SHA256/01",
        "pool/r_4.4-1_amd64.deb",
    ];
    let cran = ["src/contrib/PACKAGES", "src/contrib/jsonlite_1.8.8.tar.gz"];
    project
        .script("apt", &get(&apt))
        .script("cran", &get(&cran))
        .script(
            "web",
            &format!(
                "wget -q -O /tmp/x {ONE}\nwget -q -O /tmp/x http://pages.example/latest\n\
                 wget -q -O /tmp/x --header 'Accept: application/json' http://pages.example/data\n\
                 test $(cat /tmp/x) = {{}}\n"
            ),
        )
        .definition("locked", &["apt", "cran", "web"]);
    online(&project, &web, &["lock", "locked"]).ok();
    let text = locked(&project);
    let told = online(&project, &web, &["lock", "locked", "--check"]).ok();
    assert_eq!(told, "5 pages say what the lock says");
    let asked = web.asked(&at("pool/r_4.4-1_amd64.deb"));

    web.page(&at("dists/x/InRelease"), release("02"), LATE)
        .page(&at("dists/x/main/binary-amd64/Packages"), "Package: r\nVersion: 1:4.5-1\n", LATE)
        .page(&at("src/contrib/PACKAGES"), "Package: jsonlite\nVersion: 1.8.9\n", LATE)
        .page(ONE, "another", LATE)
        .redirect("http://pages.example/latest", "http://pages.example/tool-1.1-amd64.deb");
    let ran = online(&project, &web, &["lock", "locked", "--check"]);
    assert_eq!(
        ran.stdout(),
        "linux/amd64\n\
         \x20 apt\n\
         \x20   deb  r  4.4-1 -> 1:4.5-1\n\
         \x20   1 page of an index\n\
         \x20 cran\n\
         \x20   r  jsonlite  1.8.8 -> 1.8.9\n\
         \x20   1 page of an index\n\
         \x20 web\n\
         \x20   deb  tool  1.0 -> 1.1\n\
         \x20   http://pages.example/one\n"
    );
    assert_eq!(ran.code(), Some(1));
    assert_eq!(
        web.asked(&at("pool/r_4.4-1_amd64.deb")),
        asked,
        "a file named by version is not asked for"
    );
    assert_eq!(locked(&project), text);
}

#[test]
fn what_a_step_that_failed_did_not_get_is_named() {
    let web = Upstream::new();
    web.cut();
    let project = Project::with_tiny_base(Who::Root);
    project
        .script("silent", &format!("wget -q -O /x {ONE} 2>/dev/null || exit 3"))
        .definition("silent", &["silent"]);
    let told = online(&project, &web, &["build", "silent"]).fails(1);
    assert!(told.contains(&format!("silent/only: {ONE} did not come")), "{told}");
}

/// The same definitions and lock, with a store that has nothing but the base.
fn elsewhere(project: &Project) -> Project {
    let other = Project::with_tiny_base(Who::Root);
    for folder in ["layers", "manifests"] {
        copy_tree(&project.path(folder), &other.path(folder));
    }
    other
}

#[test]
fn what_the_store_lacks_comes_from_its_url_if_that_still_has_it() {
    let (project, web) = two_layers(Who::Root);
    online(&project, &web, &["lock", "locked"]).ok();
    let digest = online(&project, &web, &["build", "locked"]).ok();
    assert_eq!(online(&elsewhere(&project), &web, &["build", "locked"]).ok(), digest);
    assert_eq!(web.asked(ONE), 2);

    // One that has changed is told from what was recorded, and one that can't be asked for, too.
    web.page(TWO, "second two", LATE);
    let other = elsewhere(&project);
    let stderr = online(&other, &web, &["build", "locked"]).fails(1);
    let body = Digest::of(b"first two").to_string();
    assert!(stderr.contains(TWO) && stderr.contains(&body), "{stderr}");
    let stderr = online(&elsewhere(&project), &web, &["build", "locked", "--offline"]).fails(1);
    assert!(stderr.contains(ONE), "{stderr}");
}

#[test]
fn what_no_url_gives_any_more_comes_from_where_the_image_was_pushed() {
    let (project, web) = two_layers(Who::Root);
    let registry = Registry::plain();
    let definition = std::fs::read_to_string(project.path("manifests/locked.toml")).unwrap();
    let image = registry.image("locked");
    project.write("manifests/locked.toml", definition.replace("localhost/locked", &image));
    online(&project, &web, &["lock", "locked"]).ok();
    let digest = online(&project, &web, &["build", "locked"]).ok();
    // As blobs, as a push of the inputs leaves them.
    for body in ["first one", "first two"] {
        let script = "place=$(curl -sfi -X POST \"http://$1/v2/locked/blobs/uploads/\" \
            | tr -d '\\r' | sed -n 's/^Location: //p')
            curl -sf -X PUT --data-binary \"$2\" -H 'Content-Type: application/octet-stream' \
            \"$place&digest=$3\"";
        let digest = Digest::of(body.as_bytes()).to_string();
        run(Command::new("sh").args(["-euc", script, "sh", &registry.host(), body, &digest]));
    }
    web.cut();
    assert_eq!(online(&elsewhere(&project), &web, &["build", "locked"]).ok(), digest);
    // Where neither has them the build ends, with the page that it can't go on without.
    drop(registry);
    let stderr = online(&elsewhere(&project), &web, &["build", "locked"]).fails(1);
    assert!(stderr.contains(ONE), "{stderr}");
}

#[test]
fn a_download_of_the_builders_own_is_locked_too() {
    let web = Upstream::new();
    web.page(ONE, "one", EARLY);
    let project = Project::with_tiny_base(Who::Root);
    let recipe = |url: &str| format!("[[step]]\nfetch = '{url}'\nto = '/got'\nunpinned = true\n");
    project.write("layers/got/layer.toml", recipe(ONE)).definition("locked", &["got"]);
    online(&project, &web, &["lock", "locked"]).ok();
    let digest = online(&project, &web, &["build", "locked"]).ok();
    web.page(ONE, "another", LATE);
    let line = ["build", "locked", "--no-cache", "--offline"];
    assert_eq!(online(&project, &web, &line).ok(), digest);
    project.write("layers/got/layer.toml", recipe(TWO));
    let stderr = online(&project, &web, &["build", "locked"]).fails(1);
    assert!(stderr.contains(TWO) && stderr.contains("--update got"), "{stderr}");
}

/// The repository's definition, for this machine alone.
fn debian_r(who: Who) -> Project {
    let project = Project::of_the_repository(who);
    let path = "manifests/debian-r.toml";
    let text = std::fs::read_to_string(project.path(path)).unwrap();
    project.write(path, text.replace(", \"linux/arm64\"]", "]"));
    project
}

#[test]
fn r_on_debian_is_locked_by_root_and_built_by_a_user_with_one_id_both_without_a_network() {
    let root = debian_r(Who::Root);
    root.run(&["lock", "debian-r"]).ok();
    let lock = std::fs::read_to_string(root.path("manifests/debian-r.lock")).unwrap();
    let alone = |project: &Project| {
        let line = ["build", "debian-r", "--locked", "--offline"];
        Ran::of(&mut project.command_under(&["unshare", "--net"], &line)).ok()
    };
    let digest = alone(&root);

    // Of all that root has the user gets the lock and the bodies that it lists.
    let user = debian_r(Who::Single);
    user.write("manifests/debian-r.lock", &lock);
    let bodies = lock.split("digest = \"sha256:").skip(2);
    for hex in bodies.filter_map(|rest| rest.split('"').next()) {
        let blob = format!("store/blobs/sha256/{hex}");
        std::fs::copy(root.path(&blob), user.path(&blob)).unwrap();
    }
    assert_eq!(alone(&user), digest);
    let kept = root.run(&["gc", "--keep", "0"]).ok();
    assert!(kept.contains(" inputs take "), "{kept}");
    assert_eq!(alone(&root), digest);
}

#[test]
fn a_changed_body_in_the_store_is_not_given_to_a_step() {
    let (project, web) = two_layers(Who::Root);
    online(&project, &web, &["lock", "locked"]).ok();
    let digest = online(&project, &web, &["build", "locked"]).ok();
    let hex = Digest::of(b"first two").hex();
    let blob = project.store().join("blobs/sha256").join(&hex);
    std::fs::set_permissions(&blob, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    std::fs::write(&blob, "worst two").unwrap();
    let stdout = project.run(&["verify"]).stdout();
    assert!(stdout.contains(&hex), "{stdout}");
    let line = ["build", "locked", "--refresh", "two", "--offline"];
    let stderr = online(&project, &web, &line).fails(1);
    assert!(stderr.contains(TWO) && stderr.contains(&hex), "{stderr}");
    // With the network it comes anew.
    assert_eq!(online(&project, &web, &line[..4]).ok(), digest);
    assert_eq!(std::fs::read_to_string(&blob).unwrap(), "first two");
}

#[test]
fn a_step_that_asks_for_more_than_the_lock_lists_is_ended_and_told_how_to_go_on() {
    let (project, web) = two_layers(Who::Root);
    online(&project, &web, &["lock", "locked"]).ok();
    web.page("http://pages.example/three", "three", LATE);
    let script =
        format!("wget -q -O /two {TWO}; wget -q -O /three http://pages.example/three || true");
    project.script("two", &script);
    let asked = web.asked_in_all();
    let stderr = online(&project, &web, &["build", "locked"]).fails(1);
    for part in ["http://pages.example/three", "`two`", "ocibuild lock locked --update two"] {
        assert!(stderr.contains(part), "{part}: {stderr}");
    }
    assert_eq!(web.asked_in_all(), asked);
    let told = online(&project, &web, &["lock", "locked", "--update", "two"]).ok();
    assert!(told.contains("http://pages.example/three: added"), "{told}");
    online(&project, &web, &["build", "locked", "--locked"]).ok();
}

#[test]
fn an_update_renews_one_layer_and_changes_no_others_digest() {
    let (project, web) = two_layers(Who::Root);
    project
        .script("three", "wget -q -O /three http://pages.example/one")
        .definition("locked", &["one", "two", "three"]);
    online(&project, &web, &["lock", "locked"]).ok();
    let before = layers(&project, &web, &[]);
    let old = locked(&project);
    project.write("old.lock", &old);
    web.page(ONE, "second one", LATE).page(TWO, "second two", "Wed, 04 Jun 2025 12:00:00 GMT");
    online(&project, &web, &["lock", "locked", "--update", "two"]).ok();
    let new = locked(&project);
    let changed = new.lines().filter(|line| !old.lines().any(|was| was == *line)).count();
    assert_eq!(changed, 2, "a date and an answer:\n{new}");
    let after = layers(&project, &web, &[]);
    assert_eq!((&after[0], &after[2]), (&before[0], &before[2]));
    assert_ne!(after[1], before[1]);
    let ran = project.run(&["lock", "diff", "old.lock", "manifests/locked.lock"]);
    assert_eq!(
        ran.stdout(),
        "linux/amd64\n  two\n    source date  2025-06-03T12:00:00Z -> 2025-06-04T12:00:00Z\n    \
         http://pages.example/two\n"
    );
    // Locking again what has not changed since writes the same bytes.
    online(&project, &web, &["lock", "locked", "--update", "two"]).ok();
    assert_eq!(locked(&project), new);
}

#[test]
fn a_lock_that_does_not_fit_is_refused_where_it_has_to() {
    let (project, web) = two_layers(Who::Root);
    let stderr = online(&project, &web, &["lock", "locked", "--update", "one"]).fails(2);
    assert!(stderr.contains("to update"), "{stderr}");
    online(&project, &web, &["lock", "locked"]).ok();
    let text = locked(&project);
    project.script("more", "echo more > /more").definition("locked", &["one", "two", "more"]);
    let stderr = online(&project, &web, &["build", "locked", "--locked"]).fails(2);
    assert!(stderr.contains("the lock has no layer `more` for linux/amd64"), "{stderr}");
    assert!(stderr.contains("ocibuild lock locked --update more"), "{stderr}");
    // Without the word it is built, and said.
    let ran = online(&project, &web, &["build", "locked"]);
    assert!(ran.stderr().contains("warning: the lock has no layer `more`"), "{ran}");
    ran.ok();
    let show = project.run(&["show", "localhost/locked", "--json"]).ok();
    assert!(!show.contains("dev.ocibuild.lock"), "{show}");
    let stderr = online(&project, &web, &["lock", "locked", "--update", "mor"]).fails(2);
    assert!(stderr.contains("no layer `mor` to update"), "{stderr}");
    // A failing step leaves the lock as it was.
    project.script("more", "exit 1");
    online(&project, &web, &["lock", "locked"]).fails(1);
    assert_eq!(locked(&project), text);
    project.write("manifests/locked.lock", text.replace("localhost/tiny:1", "localhost/other:1"));
    let stderr = online(&project, &web, &["build", "locked"]).fails(2);
    assert!(stderr.contains("the lock is for the base `localhost/other:1`"), "{stderr}");
}
