//! The binary as its users run it: a folder with definitions, recipes and a store, an environment
//! of its own, and two users: root, and an ordinary one with a range of subuids.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::{TempDir, temp_dir};

/// Who runs the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// Root, whose build runs under true ids.
    Root,
    /// An ordinary user who was given a range of subuids.
    Range,
    /// An ordinary user without: she has one id.
    Single,
}

/// The ordinary user's uid and gid, which nobody has on a usual machine.
const UID: u32 = 54321;

/// The binary under test: what `scripts/test` built, else what cargo did.
pub(crate) fn binary() -> PathBuf {
    std::env::var_os("OCIBUILD_BIN")
        .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_ocibuild")), PathBuf::from)
}

/// A folder of the repository's tests.
pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// Fails a test that only root can run, with the way out.
pub(crate) fn require_root() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap();
    assert_eq!(uid.split_whitespace().nth(1), Some("0"), "this test needs root: sudo scripts/test");
}

/// A user's folder: `layers/`, `manifests/`, and a store beside them.
pub(crate) struct Project {
    dir: TempDir,
    who: Who,
    binary: PathBuf,
}

impl Project {
    /// Makes an empty one of root's, or of whoever runs the tests.
    pub(crate) fn new() -> Project {
        Project::of(Who::Root)
    }

    /// Makes an empty one that belongs to `who`.
    pub(crate) fn of(who: Who) -> Project {
        let project = Project { dir: temp_dir(), who, binary: binary() };
        for folder in ["layers", "manifests", "home", "tmp"] {
            std::fs::create_dir(project.path(folder)).unwrap();
        }
        if who != Who::Root {
            require_root();
            project.write_users();
        }
        project.settle();
        project
    }

    /// Has its commands be those of a binary into which a library can be preloaded, such as faketime's:
    /// a release's is static, and heeds none.
    pub(crate) fn preloading(self) -> Project {
        let binary = PathBuf::from(env!("CARGO_BIN_EXE_ocibuild"));
        let bytes = std::fs::read(&binary).unwrap();
        assert!(bytes.windows(8).any(|text| text == b"ld-linux"), "{}", binary.display());
        Project { binary, ..self }
    }

    /// Makes one with a tiny base in its store as `localhost/tiny:1`.
    pub(crate) fn with_tiny_base(who: Who) -> Project {
        let project = Project::of(who);
        std::fs::write(project.path("tiny.tar"), super::base::tiny()).unwrap();
        project.settle();
        project.run(&["import", "tiny.tar", "--name", "localhost/tiny:1"]).ok();
        project
    }

    /// Brings the Debian base into its store, under the name that the repository's definitions use.
    pub(crate) fn import_debian(&self) {
        // Whoever builds need not be able to read where it is kept.
        std::fs::copy(super::base::debian(), self.path("debian.tar")).unwrap();
        self.settle();
        self.run(&["import", "debian.tar", "--name", "localhost/debian-base:bookworm"]).ok();
    }

    /// Adds the same for arm64 to that name.
    pub(crate) fn add_debian_arm64(&self) {
        std::fs::copy(super::base::debian_arm64(), self.path("arm64.tar")).unwrap();
        self.settle();
        self.run(&["import", "arm64.tar", "--name", "localhost/debian-base:bookworm", "--add"])
            .ok();
    }

    /// Brings the repository's own recipes and definitions, over the Debian base.
    pub(crate) fn of_the_repository(who: Who) -> Project {
        let project = Project::of(who);
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        for folder in ["layers", "manifests"] {
            copy_tree(&package.join(folder), &project.path(folder));
        }
        project.import_debian();
        project
    }

    /// A path in it.
    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.dir.path().join(relative)
    }

    /// The store.
    pub(crate) fn store(&self) -> PathBuf {
        self.path("store")
    }

    /// Writes a file and the folders above it.
    pub(crate) fn write(&self, relative: &str, content: impl AsRef<[u8]>) -> &Project {
        let path = self.path(relative);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        self.settle();
        self
    }

    /// Writes a definition `manifests/NAME.toml` over the tiny base.
    pub(crate) fn definition(&self, name: &str, layers: &[&str]) -> &Project {
        self.write(
            &format!("manifests/{name}.toml"),
            format!(
                "image = \"localhost/{name}\"\nbase = \"localhost/tiny:1\"\n\
                 platforms = [\"linux/amd64\"]\nlayers = {layers:?}\n"
            ),
        )
    }

    /// Writes a recipe of one inline script.
    pub(crate) fn script(&self, layer: &str, script: &str) -> &Project {
        self.write(
            &format!("layers/{layer}/layer.toml"),
            format!(
                "about = \"of a test\"\n[[step]]\nname = \"only\"\nscript = '''\n{script}\n'''\n"
            ),
        )
    }

    /// Brings a recipe of `tests/fixtures/layers` here.
    pub(crate) fn fixture(&self, layer: &str) -> &Project {
        copy_tree(&fixtures().join("layers").join(layer), &self.path("layers").join(layer));
        self.settle();
        self
    }

    /// A command of the binary in this folder with this store, in a scrubbed environment.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        self.command_under(&[], arguments)
    }

    /// As [`Project::command`], run by a tool that takes a command line, as `unshare --uts`. The
    /// tool itself runs as whoever runs the tests.
    pub(crate) fn command_under<S: AsRef<OsStr>>(&self, tool: &[&str], arguments: &[S]) -> Command {
        let mut line: Vec<&OsStr> = tool.iter().map(OsStr::new).collect();
        let users = self.path("users");
        let (binary, own) = (&self.binary, self.path("ocibuild"));
        if self.who != Who::Root {
            // In a mount namespace of its own, so that no trace of the user is left on the machine.
            let script =
                "for f in passwd group subuid subgid; do mount --bind \"$1/$f\" /etc/$f; done
                mount --bind \"$2\" \"$3\"; shift 3
                exec setpriv --reuid=54321 --regid=54321 --clear-groups -- \"$@\"";
            line.extend(
                [
                    "unshare",
                    "--mount",
                    "--propagation",
                    "private",
                    "--",
                    "sh",
                    "-euc",
                    script,
                    "sh",
                ]
                .map(OsStr::new),
            );
            line.extend([users.as_os_str(), binary.as_os_str(), own.as_os_str()]);
        }
        line.push(if self.who == Who::Root { binary.as_os_str() } else { own.as_os_str() });
        let mut command = Command::new(line[0]);
        command.args(&line[1..]).args(arguments);
        self.surroundings(&mut command);
        command
    }

    /// Gives a command this folder, this store, and an environment that owes the machine nothing
    /// but how to reach the network.
    pub(crate) fn surroundings(&self, command: &mut Command) {
        command.env_clear().current_dir(self.dir.path()).stdin(Stdio::null());
        for name in KEPT {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", self.path("home"))
            .env("TMPDIR", self.path("tmp"))
            .env("OCIBUILD_STORE", self.store());
    }

    /// Runs the binary to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(&mut self.command(arguments))
    }

    /// Has this store know what another's layers are made of, but not the layers.
    pub(crate) fn learn(&self, other: &Project) {
        for folder in ["cache", "diffs"] {
            copy_tree(&other.store().join(folder), &self.store().join(folder));
            super::run(
                Command::new("chown")
                    .arg("-R")
                    .arg(format!("--reference={}", self.store().display()))
                    .arg(self.store().join(folder)),
            );
        }
    }

    /// Builds a definition and returns the digest that was printed.
    pub(crate) fn build(&self, name: &str) -> String {
        self.run(&["build", name]).ok()
    }

    /// Says what lies in the store's folder of running builds; nothing should, when none runs.
    pub(crate) fn running(&self) -> Vec<String> {
        names(&self.store().join("run"))
    }

    /// Lets the ordinary user own what root has just written.
    fn settle(&self) {
        if self.who != Who::Root {
            super::run(
                Command::new("chown")
                    .args(["-R", "--no-dereference", &format!("{UID}:{UID}")])
                    .args([
                        self.path("layers"),
                        self.path("manifests"),
                        self.path("home"),
                        self.path("tmp"),
                    ]),
            );
            super::run(Command::new("chown").arg(format!("{UID}:{UID}")).arg(self.dir.path()));
        }
    }

    fn write_users(&self) {
        let users = self.path("users");
        std::fs::create_dir(&users).unwrap();
        let append = |file: &str, line: String| {
            let mut text =
                std::fs::read_to_string(Path::new("/etc").join(file)).unwrap_or_default();
            text.push_str(&line);
            std::fs::write(users.join(file), text).unwrap();
        };
        let home = self.path("home");
        append("passwd", format!("tester:x:{UID}:{UID}::{}:/bin/sh\n", home.display()));
        append("group", format!("tester:x:{UID}:\n"));
        let range = if self.who == Who::Range { "tester:1000000:65536\n" } else { "" };
        append("subuid", range.to_owned());
        append("subgid", range.to_owned());
        std::fs::write(self.path("ocibuild"), "").unwrap();
    }
}

/// What the network needs: proxies, and the authorities of a proxy that looks inside.
const KEPT: [&str; 8] = [
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "RUST_BACKTRACE",
];

/// A command that has ended.
#[derive(Debug)]
#[must_use = "assert how it ended"]
pub(crate) struct Ran {
    line: String,
    output: Output,
}

impl Ran {
    /// Runs a command to its end.
    pub(crate) fn of(command: &mut Command) -> Ran {
        let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Ran { line: format!("{command:?}"), output }
    }

    /// Its stdout without the last line end, if it succeeded.
    pub(crate) fn ok(self) -> String {
        assert!(self.output.status.success(), "{self}");
        self.stdout().trim_end().to_owned()
    }

    /// Its stdout as JSON, if it succeeded.
    pub(crate) fn json(self) -> serde_json::Value {
        assert!(self.output.status.success(), "{self}");
        serde_json::from_slice(&self.output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {self}"))
    }

    /// Its stderr, if it failed with this exit code and no panic.
    pub(crate) fn fails(self, code: i32) -> String {
        assert_eq!(self.output.status.code(), Some(code), "{self}");
        let stderr = self.stderr();
        assert!(!stderr.contains("panicked"), "{self}");
        assert!(stderr.contains("error: "), "{self}");
        stderr
    }

    /// Its exit code; none when a signal ended it.
    pub(crate) fn code(&self) -> Option<i32> {
        self.output.status.code()
    }

    /// Its stdout, however it ended.
    pub(crate) fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    /// Its stderr, however it ended.
    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (out, err) = (self.stdout(), self.stderr());
        write!(f, "{}\n{}\n-- stdout\n{out}-- stderr\n{err}", self.line, self.output.status)
    }
}

/// The names in a folder, sorted; none where it does not exist.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Copies a folder's files, with their modes.
pub(crate) fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for name in names(from) {
        let (from, to) = (from.join(&name), to.join(&name));
        if from.is_dir() {
            copy_tree(&from, &to);
        } else {
            std::fs::copy(&from, &to).unwrap();
        }
    }
}

/// Waits until `ready` says so.
pub(crate) fn wait_for(what: &str, mut ready: impl FnMut() -> bool) {
    for _ in 0..600 {
        if ready() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("waited 30 s for {what}");
}

/// The processes whose arguments contain `text`.
pub(crate) fn processes_with(text: &str) -> Vec<u32> {
    names(Path::new("/proc"))
        .iter()
        .filter_map(|name| name.parse().ok())
        .filter(|pid| {
            *pid != std::process::id()
                && std::fs::read(format!("/proc/{pid}/cmdline"))
                    .is_ok_and(|line| String::from_utf8_lossy(&line).contains(text))
        })
        .collect()
}
