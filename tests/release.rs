//! The executable of a release, as `scripts/release` makes it: in a root that holds nothing else,
//! and in an old Debian, as root and as a user with one id.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::base::old_debian;
use crate::support::cli::{Project, Ran, copy_tree, require_root};
use crate::support::registry::Registry;
use crate::support::run;

/// The user with one id.
const UID: u32 = 54321;

/// Moves into a root, with nothing of the machine but `/proc` and `/dev`, and becomes a user there.
/// A `chroot` would not do: the kernel gives no user namespace to a process in one.
const MOVE: &str = r#"
import ctypes, os, platform, sys
root, uid, *line = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)
def done(result):
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
def mount(source, target, kind, flags):
    done(libc.mount(source.encode(), target.encode(), kind, flags, None))
mount(root, root, None, 0x1000)
mount("/dev", root + "/dev", None, 0x5000)
mount("proc", root + "/proc", b"proc", 0)
os.chdir(root)
done(libc.syscall({"x86_64": 155, "aarch64": 41}[platform.machine()], b".", b"."))
done(libc.umount2(b".", 2))
os.chdir("/work")
os.setgroups([])
os.setresgid(int(uid), int(uid), int(uid))
os.setresuid(int(uid), int(uid), int(uid))
os.execve(line[0], line, {"PATH": "/usr/bin:/bin", "HOME": "/work"})
"#;

fn executable() -> PathBuf {
    let name = format!("target/dist/ocibuild-{}", std::env::consts::ARCH);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    assert!(path.exists(), "run scripts/release before this test");
    path
}

/// A project over Debian's base, and the digest that the binary under test gives it.
fn project() -> (Project, String) {
    require_root();
    let project = Project::new();
    project.import_debian();
    project
        .write("layers/small/said", "copied\n")
        .write(
            "layers/small/layer.toml",
            "about = \"of a test\"\n[[step]]\ncopy = \"said\"\nto = \"/srv/said\"\n\
             owner = \"games\"\n[[step]]\nname = \"run\"\nnetwork = false\nscript = '''\n\
             groupadd -g 4000 some; useradd -u 4000 -g some some\n\
             install -d -o some -g games -m 2750 /srv/of-some; touch /srv/of-some/file\n'''\n",
        )
        .write(
            "manifests/small.toml",
            "image = \"localhost/small\"\nbase = \"localhost/debian-base:bookworm\"\n\
             platforms = [\"linux/amd64\"]\nlayers = [\"small\"]\n",
        );
    let digest = project.build("small");
    (project, digest)
}

/// Puts the executable and the project into a root, and imports, builds and pushes there.
fn builds_in(root: &Path, project: &Project, expected: &str) {
    let registry = Registry::plain();
    let port = registry.host().rsplit(':').next().unwrap().to_owned();
    for folder in ["dev", "etc", "proc", "work"] {
        std::fs::create_dir_all(root.join(folder)).unwrap();
    }
    std::fs::copy(executable(), root.join("ocibuild")).unwrap();
    std::fs::write(root.join("etc/hosts"), "127.0.0.1 localhost by-file.test\n").unwrap();
    for folder in ["layers", "manifests"] {
        copy_tree(&project.path(folder), &root.join("work").join(folder));
    }
    std::fs::copy(project.path("debian.tar"), root.join("work/debian.tar")).unwrap();
    for uid in [0, UID] {
        let store = format!("/work/store-{uid}");
        std::fs::create_dir(root.join(&store[1..])).unwrap();
        std::os::unix::fs::chown(root.join(&store[1..]), Some(uid), Some(uid)).unwrap();
        let here = |arguments: &[&str]| {
            let mut command = Command::new("unshare");
            command.args(["--mount", "--propagation", "private", "python3", "-c", MOVE]);
            command.arg(root).arg(uid.to_string()).arg("/ocibuild").args(arguments);
            Ran::of(command.args(["--store", &store]))
        };
        let mode = if uid == 0 { "`root`" } else { "`single`" };
        let examined = here(&["doctor"]).ok();
        assert!(examined.contains(mode), "{examined}");
        here(&["import", "debian.tar", "--name", "localhost/debian-base:bookworm"]).ok();
        assert_eq!(here(&["build", "small"]).ok(), expected, "{mode}");
        let (host, tag) = (format!("by-file.test:{port}"), format!("small:of-{uid}"));
        let to = format!("{host}/{tag}");
        let pushed = ["push", "localhost/small", "--to", &to, "--only", "--plain-http", &host];
        here(&pushed).ok();
        assert_eq!(project.run(&["pull", &registry.image(&tag)]).ok(), expected, "{mode}");
        let stranger = format!("stranger.test:{port}/small:1");
        let refused = here(&["pull", &stranger]).fails(3);
        assert!(refused.contains("stranger.test"), "{refused}");
    }
}

#[test]
fn it_asks_for_no_interpreter_and_no_library() {
    let headers = run(Command::new("readelf").args(["-ldW"]).arg(executable())).stdout;
    let headers = String::from_utf8(headers).unwrap();
    assert!(headers.contains("LOAD"), "{headers}");
    assert!(!headers.contains("INTERP") && !headers.contains("(NEEDED)"), "{headers}");
}

#[test]
fn alone_in_a_root_it_builds_and_pushes() {
    let (project, expected) = project();
    let root = project.path("root");
    std::fs::create_dir(&root).unwrap();
    builds_in(&root, &project, &expected);
}

#[test]
fn in_an_old_debian_it_does_too() {
    let (project, expected) = project();
    let root = project.path("root");
    std::fs::create_dir(&root).unwrap();
    run(Command::new("tar")
        .args(["--numeric-owner", "-xpf"])
        .arg(old_debian())
        .arg("-C")
        .arg(&root));
    builds_in(&root, &project, &expected);
}
