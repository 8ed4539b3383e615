//! What of the kernel and its limits decides how well a build runs, for `doctor`.

use std::fs;

use rustix::process::Resource;

use crate::sandbox::Lack;
use crate::sandbox::examine::{Finding, State};

/// A kernel's version.
type Version = (u32, u32);

/// The oldest kernel that a build runs on: `openat2` keeps links of an image inside of it.
const OLDEST: Version = (5, 6);

/// Where something begins that a build uses, and what it does without.
const FEATURES: [(Version, &str); 5] = [
    ((5, 9), "one id works as root does from 5.9 on; here owners can only be discarded"),
    ((5, 11), "overlays in user namespaces begin with 5.11; here trees are copied"),
    ((5, 12), "mounts below a read-only one are read-only from 5.12 on; here the topmost alone is"),
    ((6, 6), "memory holds overlays from 6.6 on; here trees go to disk"),
    ((6, 7), "other architectures need no set-up by root from 6.7 on; here root registers them"),
];

/// Files that a build may want open at once, with one for each record of an owner.
const FILES: u64 = 4096;

fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn version(release: &str) -> Version {
    let parts = release.split(|c: char| !c.is_ascii_digit());
    let mut numbers = parts.map_while(|part| part.parse::<u32>().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// The version of the kernel that runs; 0.0 where it says none.
pub(super) fn running() -> Version {
    version(&release())
}

/// Tells what this kernel lacks.
pub(super) fn kernel() -> Finding {
    kernel_of(&release())
}

fn kernel_of(release: &str) -> Finding {
    let found = version(release);
    let (major, minor) = OLDEST;
    let newer = "use a machine with a newer kernel";
    if found < OLDEST {
        let text = format!("{release} is older than {major}.{minor}");
        return Finding::lack("kernel", State::Broken, &Lack::new(text, newer));
    }
    let missing: Vec<&str> =
        FEATURES.iter().filter(|(from, _)| found < *from).map(|(_, text)| *text).collect();
    if missing.is_empty() {
        return Finding::works("kernel", release);
    }
    let text = format!("{release}: {}", missing.join("; "));
    Finding::lack("kernel", State::Missing, &Lack::new(text, newer))
}

/// Tells whether a supervisor can answer system calls of a step, without which a build with one id
/// is not possible, and others make no device nodes.
pub(super) fn supervision(needed: bool) -> Finding {
    let without = if needed { State::Broken } else { State::Missing };
    let subject = "supervised steps";
    let actions = fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail").unwrap_or_default();
    if !actions.split_whitespace().any(|action| action == "user_notif") {
        let fix = "use a kernel from 5.0 on with CONFIG_SECCOMP_FILTER";
        let lack = Lack::new("the kernel hands no system calls to a supervisor", fix);
        return Finding::lack(subject, without, &lack);
    }
    if let Some(lack) = yama() {
        // The light form for root and ranges looks into processes, too.
        return Finding::lack(subject, State::Broken, &lack);
    }
    Finding::works(subject, "the kernel hands their system calls to a supervisor")
}

/// Where Yama lets nobody look into other processes.
pub(super) fn yama() -> Option<Lack> {
    (number("/proc/sys/kernel/yama/ptrace_scope") == Some(3)).then(|| {
        let text = "Yama forbids looking into other processes (kernel.yama.ptrace_scope is 3)";
        let fix = "have the administrator set kernel.yama.ptrace_scope to 2 or less and restart \
                   the machine; 3 can't be taken back";
        Lack::new(text, fix)
    })
}

/// Tells of limits that a build could meet.
pub(super) fn limits() -> Vec<Finding> {
    let mut findings = Vec::new();
    let files = rustix::process::getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let subject = "open files";
    findings.push(if files < FILES {
        let text = format!("at most {files} at once; a build may want {FILES}");
        let fix =
            format!("raise the hard limit: `ulimit -Hn {FILES}`, or /etc/security/limits.conf");
        Finding::lack(subject, State::Missing, &Lack::new(text, fix))
    } else {
        Finding::works(subject, format!("up to {files} at once"))
    });
    if let Some(count) = number("/proc/sys/user/max_user_namespaces") {
        let subject = "count of namespaces";
        let few = "have the administrator run `sysctl -w user.max_user_namespaces=15000`";
        findings.push(if count < 16 {
            let text = format!("{count} user namespaces for each user; each step takes one more");
            Finding::lack(subject, State::Missing, &Lack::new(text, few))
        } else {
            Finding::works(subject, format!("{count} user namespaces for each user"))
        });
    }
    if number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == Some(1) {
        let text = "restricts user namespaces; where they work for this program all the same, it \
                    has a profile";
        findings.push(Finding::works("AppArmor", text));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_older_kernel_lacks_is_said() {
        assert_eq!(kernel_of("6.12.1-arch").state, State::Works);
        let old = kernel_of("5.14.0-427.el9.x86_64");
        assert_eq!(old.state, State::Missing);
        assert!(old.detail.contains("6.6") && !old.detail.contains("5.12"), "{}", old.detail);
        assert_eq!(kernel_of("5.4.0-150-generic").state, State::Broken);
        assert_eq!(version("5.10.0-28-amd64"), (5, 10));
        assert_eq!(version("6.11+"), (6, 11));
        assert_eq!(version("odd"), (0, 0));
    }
}
