//! The caching proxy that freezes what real recipes fetch: `freezer.py`, started and stopped.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::cli::{Project, Ran};

/// A running proxy; it stops when the value is dropped.
pub(crate) struct Freezer {
    child: Child,
    folder: PathBuf,
    port: u16,
}

impl Freezer {
    /// Starts one that keeps what it fetches in `folder`.
    pub(crate) fn start(folder: &Path) -> Freezer {
        std::fs::create_dir_all(folder).unwrap();
        std::fs::remove_file(folder.join("log")).ok();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/freezer.py");
        let mut child = Command::new("python3")
            .arg(script)
            .arg(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the tests need python3");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().parse().expect("freezer.py prints its port");
        Freezer { child, folder: folder.to_owned(), port }
    }

    /// Starts one over what earlier runs of the tests have frozen.
    pub(crate) fn of_the_repository() -> Freezer {
        Freezer::start(&Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-cache/frozen"))
    }

    /// The machine's authorities and the proxy's own, for a file that the command can read.
    pub(crate) fn bundle(&self) -> Vec<u8> {
        let system = std::env::var_os("SSL_CERT_FILE")
            .map_or_else(|| PathBuf::from("/etc/ssl/certs/ca-certificates.crt"), PathBuf::from);
        let mut bundle = std::fs::read(system).unwrap();
        bundle.extend(std::fs::read(self.folder.join("ca.crt")).unwrap());
        bundle
    }

    /// Lets a command reach the network through this proxy alone; it needs the bundle too.
    pub(crate) fn serve(&self, command: &mut Command) {
        let proxy = format!("http://127.0.0.1:{}", self.port);
        for name in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"] {
            command.env(name, &proxy);
        }
        for name in ["no_proxy", "NO_PROXY"] {
            command.env(name, "127.0.0.1,localhost");
        }
    }

    /// Builds in a project through this proxy alone, run by a tool that takes a command line, and
    /// returns the digest.
    pub(crate) fn build(
        &self,
        project: &Project,
        tool: &[&str],
        line: &[&str],
        environment: &[(&str, &str)],
    ) -> String {
        let mut command = project.command_under(tool, line);
        self.serve(&mut command);
        project.write("bundle.crt", self.bundle());
        command.env("SSL_CERT_FILE", project.path("bundle.crt"));
        command.envs(environment.iter().copied());
        Ran::of(&mut command).ok()
    }

    /// What was asked for and could not be had since the start.
    pub(crate) fn missed(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        log.lines().filter_map(|line| line.strip_prefix("miss ")).map(str::to_owned).collect()
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
