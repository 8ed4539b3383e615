//! Podman with a storage of its own, in process and mount namespaces of its own: whatever it starts
//! ends with the command, and what it mounts is gone.

use std::path::Path;
use std::process::{Command, Stdio};

use super::cli::require_root;
use super::{TempDir, run, temp_dir};

/// A storage and the settings that go with it.
pub(crate) struct Podman {
    dir: TempDir,
}

impl Podman {
    /// Makes an empty storage.
    pub(crate) fn new() -> Podman {
        require_root();
        let dir = temp_dir();
        let path = dir.path().display();
        let storage = format!(
            "[storage]\ndriver = \"overlay\"\nrunroot = \"{path}/run\"\ngraphroot = \"{path}/graph\"\n"
        );
        std::fs::write(dir.path().join("storage.conf"), storage).unwrap();
        // A container may raise no limit that its starter may not, and manages no cgroups.
        let containers = format!(
            "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=4096:4096\"]\ncgroups = \"disabled\"\n\
             netns = \"host\"\n[engine]\nruntime = \"crun\"\nevents_logger = \"none\"\n\
             cgroup_manager = \"cgroupfs\"\ntmp_dir = \"{path}/libpod\"\n"
        );
        std::fs::write(dir.path().join("containers.conf"), containers).unwrap();
        Podman { dir }
    }

    /// A script that calls buildah, which shares the storage; `$1` in it is `argument`.
    pub(crate) fn buildah(&self, script: &str, argument: &str, folder: &Path) -> Command {
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "private", "sh", "-c", script, "sh", argument])
            .current_dir(folder)
            .env("STORAGE_DRIVER", "overlay")
            .env("BUILDAH_ISOLATION", "chroot")
            .env("CONTAINERS_STORAGE_CONF", self.dir.path().join("storage.conf"));
        command
    }

    /// A podman command.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("unshare");
        // crun refuses to start below the older hierarchies of cgroups, even with no cgroup to make.
        let script = "mount -t cgroup2 none /sys/fs/cgroup 2>/dev/null || true; exec \"$@\"";
        command
            .args(["--mount", "--cgroup", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .args(["--propagation", "private", "--", "sh", "-c", script, "sh", "podman"])
            .args(arguments)
            .env("CONTAINERS_STORAGE_CONF", self.dir.path().join("storage.conf"))
            .env("CONTAINERS_CONF", self.dir.path().join("containers.conf"))
            .env("TMPDIR", self.dir.path())
            .stdin(Stdio::null());
        command
    }

    /// A podman command in a namespace in which programs of another platform run, too, and below it
    /// in one that is not the whole machine's: crun binds device nodes only where it sees that it
    /// can make none. Networks are its own, or it could mount no `/sys`.
    pub(crate) fn command_emulating(&self, platform: &str, arguments: &[&str]) -> Command {
        let ids = self.dir.path().join("ids");
        std::fs::write(&ids, "root:0:65536\n").unwrap();
        let script = "mount --bind \"$1\" /etc/subuid; mount --bind \"$1\" /etc/subgid; shift
            exec unshare --user --map-users=0,0,65536 --map-groups=0,0,65536 --setuid 0 --setgid 0 \
                --net \"$@\"";
        let inner = self.command(arguments);
        let mut command = Command::new(super::cli::binary());
        command.args(["unshare", "--platform", platform, "--", "unshare", "--mount"]);
        command.args(["sh", "-euc", script, "sh"]).arg(&ids).args(inner.get_args());
        for (name, value) in inner.get_envs() {
            if let Some(value) = value {
                command.env(name, value);
            }
        }
        command.stdin(Stdio::null());
        command
    }

    /// Pulls an image of a registry on loopback.
    pub(crate) fn pull(&self, image: &str) {
        run(&mut self.command(&["pull", "--quiet", "--tls-verify=false", image]));
    }

    /// Runs an image to its end and returns what it printed.
    pub(crate) fn run(&self, image: &str, arguments: &[&str]) -> String {
        let mut line = vec!["run", "--rm", "--network=host", image];
        line.extend_from_slice(arguments);
        String::from_utf8(run(&mut self.command(&line)).stdout).unwrap()
    }

    /// Where this storage may keep what a test writes, as a log.
    pub(crate) fn folder(&self) -> &Path {
        self.dir.path()
    }
}
