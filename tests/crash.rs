//! Builds that end before their time: interrupted, killed, out of space. Nothing stays behind, and
//! the store goes on.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::cli::{Project, Ran, Who, names, processes_with, require_root, wait_for};
use crate::support::run;

/// Starts a build whose step sleeps for this many seconds, and waits until it sleeps.
fn sleeping(project: &Project, seconds: &str, options: &[&str]) -> Child {
    project
        .script("sleepy", &format!("echo 1 > /srv/one; sleep {seconds} & sleep {seconds}"))
        .definition("sleepy", &["sleepy"]);
    let child = project
        .command(&[&["build", "sleepy"], options].concat())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut child = child;
    wait_for("the step to run", || {
        assert!(child.try_wait().unwrap().is_none(), "the build ended early");
        sleepers(seconds).len() >= 2
    });
    child
}

/// The step's own processes, not the shell whose script names them.
fn sleepers(seconds: &str) -> Vec<u32> {
    processes_with(&format!("sleep\0{seconds}\0"))
}

fn signal(child: &Child, signal: &str) {
    run(Command::new("kill").args([signal, &child.id().to_string()]));
}

/// The whole of the base is then copied into a folder that others use too.
const ON_DISK: &[&str] = &["--memory", "0", "--tree", "plain"];

fn interrupted(who: Who, with: &str, seconds: &str, options: &[&str]) {
    let project = Project::with_tiny_base(who);
    let child = sleeping(&project, seconds, options);
    let start = Instant::now();
    signal(&child, with);
    let output = child.wait_with_output().unwrap();
    assert!(start.elapsed() < Duration::from_secs(5), "it ends at once");
    assert_eq!(sleepers(seconds), Vec::<u32>::new(), "no process is left");
    assert_eq!(project.running(), Vec::<String>::new(), "no folder of a running build is left");
    assert_eq!(names(&project.path("tmp")), Vec::<String>::new(), "no scratch is left");
    let expected = if with == "-INT" { 130 } else { 143 };
    assert_eq!(output.status.code(), Some(expected), "{}", String::from_utf8_lossy(&output.stderr));
    still_works(&project);
}

/// The store holds the base, whole, and builds.
fn still_works(project: &Project) {
    assert_eq!(project.run(&["list", "--json"]).json().as_array().unwrap().len(), 1);
    project.run(&["export", "localhost/tiny:1", "exported", "--format", "layout"]).ok();
    project.script("sleepy", "echo 1 > /srv/one");
    let built = project.build("sleepy");
    let fresh = Project::with_tiny_base(Who::Root);
    fresh.script("sleepy", "echo 1 > /srv/one").definition("sleepy", &["sleepy"]);
    assert_eq!(built, fresh.build("sleepy"));
    assert_eq!(project.running(), Vec::<String>::new());
}

#[test]
fn an_interrupt_ends_a_build_at_once_and_whole() {
    interrupted(Who::Root, "-INT", "86001", &[]);
}

#[test]
fn an_interrupt_of_an_ordinary_users_build_does_too() {
    interrupted(Who::Range, "-INT", "86002", ON_DISK);
}

#[test]
fn so_does_being_told_to_terminate() {
    interrupted(Who::Root, "-TERM", "86003", &[]);
}

fn killed(who: Who, seconds: &str, options: &[&str]) {
    let project = Project::with_tiny_base(who);
    let mut child = sleeping(&project, seconds, options);
    signal(&child, "-KILL");
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    wait_for("the step's processes to go", || sleepers(seconds).is_empty());
    // The next build sweeps what the dead one left.
    still_works(&project);
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let store = project.store();
    assert!(!mounts.contains(store.to_str().unwrap()), "{mounts}");
    assert_eq!(names(&project.path("tmp")), Vec::<String>::new(), "no scratch is left");
}

#[test]
fn a_killed_build_is_swept_by_the_next() {
    killed(Who::Root, "86004", ON_DISK);
}

#[test]
fn a_killed_build_of_an_ordinary_user_is_too() {
    killed(Who::Range, "86005", ON_DISK);
}

#[test]
fn killed_at_any_moment_the_store_is_sound() {
    let project = Project::with_tiny_base(Who::Root);
    project
        .script("bulk", "head -c 30000000 /dev/urandom > /srv/bulk")
        .definition("bulk", &["bulk"]);
    for milliseconds in [30, 80, 150, 250, 400, 600, 900] {
        let mut child = project
            .command(&["build", "bulk", "--no-cache"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(milliseconds));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    wait_for("the last one's processes to go", || {
        // By their arguments: where the store lies is in their environment.
        processes_with("bulk").is_empty()
    });
    project.build("bulk");
    assert!(project.running().is_empty());
    // Each blob is what its name says.
    for name in names(&project.store().join("blobs/sha256")) {
        let bytes = std::fs::read(project.store().join("blobs/sha256").join(&name)).unwrap();
        assert_eq!(crate::support::image::digest(&bytes), format!("sha256:{name}"));
    }
}

#[test]
fn a_full_disk_is_said_and_leaves_the_store_whole() {
    require_root();
    let project = Project::with_tiny_base(Who::Root);
    project
        .script("sleepy", "head -c 80000000 /dev/urandom > /srv/bulk")
        .definition("sleepy", &["sleepy"]);
    std::fs::rename(project.store(), project.path("moved")).unwrap();
    std::fs::create_dir(project.store()).unwrap();
    let tool = [
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-uc",
        "set -e; truncate -s 40M \"$TMPDIR/disk\"; mkfs.ext4 -q \"$TMPDIR/disk\"
         mount -o loop \"$TMPDIR/disk\" \"$OCIBUILD_STORE\"; set +e
         cp -a \"$TMPDIR/../moved/.\" \"$OCIBUILD_STORE/\"; \"$@\"; code=$?
         rm -rf \"$TMPDIR/../moved\"; cp -a \"$OCIBUILD_STORE\" \"$TMPDIR/../moved\"
         umount \"$OCIBUILD_STORE\"; exit $code",
        "sh",
    ];
    let ran = Ran::of(&mut project.command_under(&tool, &["build", "sleepy"]));
    let stderr = ran.fails(3);
    assert!(stderr.to_lowercase().contains("no space left"), "{stderr}");
    assert!(stderr.contains("hint: "), "{stderr}");
    std::fs::remove_dir(project.store()).unwrap();
    std::fs::rename(project.path("moved"), project.store()).unwrap();
    assert_eq!(project.running(), Vec::<String>::new());
    std::fs::remove_file(project.path("tmp/disk")).unwrap();
    still_works(&project);
}

#[test]
fn two_builds_share_a_store() {
    let project = Project::with_tiny_base(Who::Root);
    for name in ["one", "two"] {
        project
            .script("shared", "echo shared > /srv/shared; sleep 1")
            .script(name, &format!("echo {name} > /srv/{name}"))
            .definition(name, &["shared", name]);
    }
    let children: Vec<Child> = ["one", "two", "one", "two"]
        .iter()
        .map(|name| {
            let mut command = project.command(&["build", name]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    let printed: Vec<String> = children
        .into_iter()
        .map(|child| {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        })
        .collect();
    assert_eq!(printed[0], printed[2]);
    assert_eq!(printed[1], printed[3]);
    assert_eq!(project.run(&["list", "--json"]).json().as_array().unwrap().len(), 3);
    assert!(project.running().is_empty());
}

/// Kills builds at moments drawn by a seed; trees lie on disk, where they would outlive the build.
fn killed_often(who: Who, name: &str, seed: u64) {
    let script = "mkdir -p /srv/shut/in; touch /srv/shut/in/file; chown -R 33:44 /srv/shut
        chmod 0 /srv/shut/in /srv/shut; sleep 0.2; head -c 3000000 /dev/zero > /srv/zeros";
    let project = Project::with_tiny_base(who);
    project.script(name, script).definition(name, &[name]);
    let mut state = seed;
    let mut early = 0;
    for _ in 0..50 {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut child = project
            .command(&["build", name, "--no-cache", "--memory", "0"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis((state >> 33) % 900));
        early += u32::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
        wait_for("its processes to go", || processes_with(name).is_empty());
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(!mounts.contains(project.store().to_str().unwrap()), "{mounts}");
    }
    assert!(early > 10, "only {early} of 50 were killed before their end");
    let built = project.run(&["build", name, "--no-cache", "--memory", "0"]).ok();
    assert_eq!(project.running(), Vec::<String>::new());
    assert_eq!(names(&project.path("tmp")), Vec::<String>::new());
    let fresh = Project::with_tiny_base(Who::Root);
    fresh.script(name, script).definition(name, &[name]);
    assert_eq!(built, fresh.build(name));
}

#[test]
fn fifty_kills_of_roots_builds_leave_nothing() {
    killed_often(Who::Root, "often-root", 1);
}

#[test]
fn fifty_kills_of_builds_with_a_range_leave_nothing() {
    killed_often(Who::Range, "often-range", 2);
}

#[test]
fn fifty_kills_of_builds_with_one_id_leave_nothing() {
    killed_often(Who::Single, "often-single", 3);
}
