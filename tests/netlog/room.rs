//! A network namespace with a loopback device alone and names that are asked of it: what a step of a
//! recorded build sees.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::os::fd::AsFd;

/// The namespace; it goes when dropped.
pub(super) struct Room {
    holder: Child,
}

impl Room {
    pub(super) fn new(dir: &Path) -> Room {
        let names = dir.join("resolv.conf");
        std::fs::write(&names, "nameserver 127.0.0.1\n").unwrap();
        let script = "set -e; ip link set lo up; ip addr add 192.0.2.1/32 dev lo; mount --bind \"$0\" /etc/resolv.conf; \
                      mount --bind \"$1\" /etc/ssl/certs/ca-certificates.crt; echo; cat";
        let mut holder = Command::new("unshare")
            .args(["--net", "--mount", "--kill-child", "sh", "-c", script])
            .arg(names)
            .arg(dir.join("ca.crt"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let said = BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(said > 0, "no namespace");
        Room { holder }
    }

    /// Does something in the namespace, on a thread of its own.
    pub(super) fn within<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        let net = File::open(format!("/proc/{}/ns/net", self.holder.id())).unwrap();
        std::thread::scope(|scope| {
            let inside = scope.spawn(move || {
                move_into_link_name_space(net.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                act()
            });
            inside.join().unwrap()
        })
    }

    pub(super) fn command(&self, program: &str, authority: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--target={}", self.holder.id()))
            .args(["--net", "--mount", "--", program])
            .env("CURL_CA_BUNDLE", authority)
            .env("SSL_CERT_FILE", authority)
            .env("GIT_SSL_CAINFO", authority)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("HOME", authority.parent().unwrap());
        for name in ["http", "https", "all", "no"] {
            command.env_remove(format!("{name}_proxy"));
            command.env_remove(format!("{}_PROXY", name.to_uppercase()));
        }
        command
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        self.holder.wait().ok();
    }
}
