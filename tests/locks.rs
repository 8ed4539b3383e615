//! Locks: told apart, merged, made and played back.

use ocibuild::oci::Digest;
use serde_json::json;

use crate::support::cli::Project;

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
