//! The half of the sandbox's tests that enters namespaces: an example binary, told what to do in
//! JSON. A test itself runs in a thread, and a process with threads can't enter a user namespace.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::{Value, json};

use super::cli::{Project, Ran, Who, require_root};

/// The binary, which `cargo test` builds; `cargo test --test main` alone does not.
fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let own = std::env::current_exe().unwrap();
        let path = own.parent().and_then(Path::parent).unwrap().join("examples/sandbox-driver");
        assert!(path.exists(), "run `cargo build --examples` before these tests");
        path
    })
}

/// A folder for a test's trees, and who works in it.
pub(crate) struct Driver {
    project: Project,
    who: Who,
}

impl Driver {
    /// Makes an empty folder of `who`'s.
    pub(crate) fn of(who: Who) -> Driver {
        require_root();
        let driver = Driver { project: Project::of(who), who };
        std::fs::write(driver.path("driver"), "").unwrap();
        driver
    }

    /// Makes a folder with the tree of `tar` in `base`, owned as the tar says.
    pub(crate) fn with_base(who: Who, tar: &Path) -> Driver {
        let driver = Driver::of(who);
        let base = driver.path("base");
        let script = format!(
            "mkdir {0} && tar -xf {1} -C {0} --numeric-owner --exclude='./dev/*'",
            base.display(),
            tar.display()
        );
        let results = driver.acts(&[json!({ "shell": script })]);
        assert_eq!(results[0]["code"], 0, "{results:?}");
        driver
    }

    /// Makes a folder with the tiny base image in `base`.
    pub(crate) fn with_tiny_base(who: Who) -> Driver {
        let tar = super::temp_dir();
        let path = tar.path().join("tiny.tar");
        std::fs::write(&path, super::base::tiny()).unwrap();
        // The ordinary user reads it, too.
        super::run(Command::new("chmod").arg("755").arg(tar.path()));
        Driver::with_base(who, &path)
    }

    /// A path in the folder.
    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.project.path(relative)
    }

    /// A command that carries out acts as the folder's owner, in what is asked for by `request`: a
    /// mode, and after a `+` who keeps the owners.
    pub(crate) fn command(&self, request: &str, acts: &[Value]) -> Command {
        let job = self.path("tmp/job.json");
        let (request, owners) = match request.split_once('+') {
            Some((request, owners)) => (request, Some(owners)),
            None => (request, None),
        };
        let text = json!({ "request": request, "owners": owners, "acts": acts }).to_string();
        std::fs::write(&job, text).unwrap();
        let mut command;
        if self.who == Who::Range {
            // In a mount namespace of its own, so that no trace of the user is left on the machine.
            let script =
                "for f in passwd group subuid subgid; do mount --bind \"$1/$f\" /etc/$f; done
                mount --bind \"$2\" \"$3\"; shift 2
                exec setpriv --reuid=54321 --regid=54321 --clear-groups -- \"$@\"";
            command = Command::new("unshare");
            command.args(["--mount", "--propagation", "private", "--", "sh", "-euc", script, "sh"]);
            command.arg(self.path("users")).arg(binary()).arg(self.path("driver"));
        } else {
            command = Command::new(binary());
        }
        command.arg(job);
        self.project.surroundings(&mut command);
        command.stdin(Stdio::null());
        command
    }

    /// Carries out acts and returns a result for each.
    pub(crate) fn acts(&self, acts: &[Value]) -> Vec<Value> {
        let told = Ran::of(&mut self.command("auto", acts)).json();
        told["results"].as_array().unwrap().clone()
    }

    /// The acts that stack `base` alone, in memory.
    pub(crate) fn stack(&self) -> Vec<Value> {
        vec![
            json!({ "memory": { "dir": self.path("memory"), "bytes": 1 << 30 } }),
            self.mount(&[json!([self.path("base"), {}])], "memory"),
        ]
    }

    /// The act that stacks layers in the folder `space`, with the usual extras.
    pub(crate) fn mount(&self, lowers: &[Value], space: &str) -> Value {
        json!({ "mount": {
            "lowers": lowers,
            "space": self.path(space),
            "files": [["etc/resolv.conf", RESOLV_CONF.get_or_init(resolv_conf)], ["etc/hosts", HOSTS]],
            "folders": ["proc", "sys", "dev", "tmp", "run", "var/tmp", "var/cache/apt"],
        } })
    }

    /// Stacks the base, runs one step in it, and returns how that went.
    pub(crate) fn step(&self, step: &Step) -> Value {
        let mut acts = self.stack();
        acts.push(step.act());
        self.acts(&acts).pop().unwrap()
    }
}

pub(crate) const HOSTS: &str = "127.0.0.1 localhost ocibuild\n";
static RESOLV_CONF: OnceLock<String> = OnceLock::new();

fn resolv_conf() -> String {
    std::fs::read_to_string("/etc/resolv.conf").unwrap()
}

/// A step over the stacked tree.
pub(crate) struct Step {
    spec: Value,
    more: Value,
}

impl Step {
    /// A script of sh, as root, without a network.
    pub(crate) fn new(script: &str) -> Step {
        let spec = json!({
            "root": "",
            "mounts": [
                { "target": "/tmp", "what": { "memory": { "mode": 0o1777, "bytes": null } } },
                { "target": "/run", "what": { "memory": { "mode": 0o755, "bytes": null } } },
            ],
            "env": { "LC_ALL": "C.UTF-8" },
            "user": "",
            "workdir": "/",
            "argv": ["sh", "-c", script],
            "network": "off",
            "hostname": "ocibuild",
        });
        Step { spec, more: json!({}) }
    }

    /// Changes a field of the spec.
    pub(crate) fn with(mut self, field: &str, value: Value) -> Step {
        self.spec[field] = value;
        self
    }

    /// Adds a mount.
    pub(crate) fn mounting(mut self, target: &str, what: &Value) -> Step {
        let mounts = self.spec["mounts"].as_array_mut().unwrap();
        mounts.push(json!({ "target": target, "what": what }));
        self
    }

    /// Ends it after some seconds: by `timeout`, or by `cancel_after`.
    pub(crate) fn ending(mut self, how: &str, seconds: f64) -> Step {
        self.more[how] = json!(seconds);
        self
    }

    /// The act that runs it.
    pub(crate) fn act(&self) -> Value {
        let mut run = self.more.clone();
        run["spec"] = self.spec.clone();
        json!({ "run": run })
    }
}

/// The lines that a step wrote to stdout, if it returned 0.
pub(crate) fn lines(result: &Value) -> Vec<String> {
    assert_eq!(result["outcome"], json!({ "exited": 0 }), "{result:#}");
    result["out"].as_array().unwrap().iter().map(|line| line.as_str().unwrap().to_owned()).collect()
}
