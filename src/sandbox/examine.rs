//! What the machine allows, with what to do where it doesn't.

use std::fs;
use std::process::{Command, Stdio};

use std::os::unix::process::CommandExt;

use crate::sandbox::enter::entered;
use crate::sandbox::wire::Word;
use crate::sandbox::{helper, ids, limits, wire};

/// Something that the machine lacks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Lack {
    text: String,
    fix: String,
}

impl Lack {
    pub(super) fn new(text: impl Into<String>, fix: impl Into<String>) -> Lack {
        Lack { text: text.into(), fix: fix.into() }
    }

    /// Returns what to do about it.
    pub fn fix(&self) -> String {
        self.fix.clone()
    }
}

/// How well something works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// As it should.
    Works,
    /// Not, but a build gets along without.
    Missing,
    /// Not, and no build is possible without.
    Broken,
}

/// What was found out about one thing, for `doctor`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The thing, as `user namespaces`.
    pub subject: &'static str,
    /// How well it works.
    pub state: State,
    /// What was seen.
    pub detail: String,
    /// What to do about it.
    pub fix: Option<String>,
}

impl Finding {
    pub(super) fn works(subject: &'static str, detail: impl Into<String>) -> Finding {
        Finding { subject, state: State::Works, detail: detail.into(), fix: None }
    }

    pub(super) fn lack(subject: &'static str, state: State, lack: &Lack) -> Finding {
        Finding { subject, state, detail: lack.text.clone(), fix: Some(lack.fix.clone()) }
    }
}

/// Examines what a build needs of the machine, without changing anything.
pub fn examine() -> Vec<Finding> {
    let caller = Caller::find();
    let uid = caller.uid();
    let mut findings = vec![limits::kernel()];
    findings.push(match namespaces() {
        Ok(()) => Finding::works("user namespaces", "a process may make its own"),
        Err(lack) => Finding::lack("user namespaces", State::Broken, &lack),
    });
    findings.extend(limits::limits());
    let mut ids = Vec::new();
    let mut whole = false;
    if uid == 0 {
        ids.push(match caller.root() {
            Ok(()) => {
                whole = true;
                Finding::works("all ids", "root may map every id")
            }
            Err(lack) => Finding::lack("all ids", State::Missing, &lack),
        });
    }
    if !whole {
        ids.push(match ids::find_range(uid) {
            Ok(range) => {
                whole = true;
                let (first, count) = (range.uids.outside, range.uids.count);
                let text = format!("{count} users from {first}, {} groups", range.gids.count);
                Finding::works("subordinate ids", text)
            }
            // One id is enough, with a supervisor.
            Err(lack) => Finding::lack("subordinate ids", State::Missing, &lack),
        });
    }
    findings.push(limits::supervision(!whole));
    findings.extend(ids);
    findings
}

/// Tells whether root may use all ids of this namespace.
pub(super) fn root() -> Result<(), Lack> {
    Caller { process: "self".to_owned() }.root()
}

/// The process that was called: this one, or the outer one of [`enter()`](crate::sandbox::enter()),
/// since inside of the build's namespace everybody is root.
struct Caller {
    process: String,
}

impl Caller {
    fn find() -> Caller {
        let parent = rustix::process::getppid().filter(|_| entered().is_some());
        let process = parent.map(|pid| pid.as_raw_nonzero().to_string());
        Caller { process: process.unwrap_or_else(|| "self".to_owned()) }
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.process)).unwrap_or_default()
    }

    /// The user, with the number that she has outside.
    fn uid(&self) -> u32 {
        let own = rustix::process::geteuid().as_raw();
        if self.process == "self" {
            return own;
        }
        let map = ids::parse_map(&fs::read_to_string("/proc/self/uid_map").unwrap_or_default());
        map.iter().find(|extent| extent.inside == 0).map_or(own, |extent| extent.outside)
    }

    fn root(&self) -> Result<(), Lack> {
        let status = self.read("status");
        let effective = status
            .lines()
            .find_map(|line| line.strip_prefix("CapEff:"))
            .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
            .unwrap_or(0);
        for (bit, name) in [(6, "CAP_SETGID"), (7, "CAP_SETUID"), (31, "CAP_SETFCAP")] {
            if effective & (1 << bit) == 0 {
                let text = format!("root has no {name} here");
                return Err(Lack::new(
                    text,
                    format!("start the container with --cap-add {}", &name[4..]),
                ));
            }
        }
        for file in ["uid_map", "gid_map"] {
            if !ids::is_whole(&ids::parse_map(&self.read(file))) {
                let text = format!("this namespace maps fewer than {} ids", ids::NEEDED);
                let fix = "start it in a user namespace with a whole range of ids, as \
                           `podman run --uidmap` or `unshare --map-auto` do";
                return Err(Lack::new(text, fix));
            }
        }
        Ok(())
    }
}

/// Tries to make a user namespace and to mount in it, in a process of its own.
fn namespaces() -> Result<(), Lack> {
    let failed = |error: std::io::Error| {
        Lack::new(format!("this program can't execute itself: {error}"), "mount /proc")
    };
    let output = Command::new("/proc/self/exe")
        .arg0(helper::PROBE)
        .stdin(Stdio::null())
        .output()
        .map_err(failed)?;
    match wire::hear::<Word>(&mut output.stdout.as_slice()).map_err(failed)? {
        Some(Word::Refused { what, errno }) => Err(explain(&what, errno)),
        _ if output.status.success() => Ok(()),
        _ => Err(explain("create a user namespace", 0)),
    }
}

/// What to do about a container's filter of system calls.
pub(super) const UNFILTERED: &str = "start the container with `--security-opt seccomp=unconfined` (Docker, Podman), or with \
     `seccompProfile: Unconfined` (Kubernetes)";

/// Tells whether a filter keeps this process from some system calls.
pub(super) fn is_filtered() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().any(|line| line.split_whitespace().eq(["Seccomp:", "2"]))
}

/// How `AppArmor` is made to let this program use user namespaces.
fn permit() -> String {
    let program = fs::read_link("/proc/self/exe").unwrap_or_default();
    format!(
        "have the administrator run `sysctl -w \
         kernel.apparmor_restrict_unprivileged_userns=0`, or write /etc/apparmor.d/ocibuild:\n\
         \n\
         abi <abi/4.0>,\n\
         profile ocibuild {} flags=(unconfined) {{\n  userns,\n}}\n\
         \n\
         and load it by `apparmor_parser -r /etc/apparmor.d/ocibuild`",
        program.display()
    )
}

/// Says why the kernel may have refused a namespace, from what else can be seen of the machine.
pub(super) fn explain(what: &str, errno: i32) -> Lack {
    let number =
        |path: &str| fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u64>().ok());
    let sysctl = |name: &str| number(&format!("/proc/sys/{}", name.replace('.', "/")));
    let error = match errno {
        0 => String::new(),
        errno => format!(": {}", std::io::Error::from_raw_os_error(errno)),
    };
    let refused = format!("the kernel refused to {what}{error}");
    if sysctl("user.max_user_namespaces") == Some(0) {
        let text =
            format!("{refused}; user namespaces are switched off (user.max_user_namespaces is 0)");
        return Lack::new(
            text,
            "have the administrator run `sysctl -w user.max_user_namespaces=15000`",
        );
    }
    if sysctl("kernel.unprivileged_userns_clone") == Some(0) {
        let text = format!(
            "{refused}; only root may make user namespaces (kernel.unprivileged_userns_clone is 0)"
        );
        return Lack::new(
            text,
            "have the administrator run `sysctl -w kernel.unprivileged_userns_clone=1`",
        );
    }
    if sysctl("kernel.apparmor_restrict_unprivileged_userns") == Some(1)
        && rustix::process::geteuid().as_raw() != 0
    {
        let text = format!(
            "{refused}; AppArmor keeps programs without a profile of their own from using user namespaces"
        );
        let fix = permit();
        return Lack::new(text, fix);
    }
    if is_filtered() {
        let text = format!("{refused}; a seccomp filter is in force, as in a container");
        return Lack::new(text, UNFILTERED);
    }
    match errno {
        libc::ENOSPC => {
            let fix = "raise user.max_user_namespaces and user.max_mnt_namespaces, or end the \
                       programs that use them up";
            Lack::new(format!("{refused}; the limit of namespaces is reached"), fix)
        }
        libc::EINVAL | libc::ENOSYS => Lack::new(
            format!("{refused}; it is built without them"),
            "use a kernel with CONFIG_USER_NS",
        ),
        libc::EUSERS => Lack::new(
            format!("{refused}; too many user namespaces lie within each other"),
            "start the build further outside",
        ),
        _ => {
            let fix =
                "start the build outside of a chroot and of confinement by SELinux or AppArmor";
            Lack::new(refused, fix)
        }
    }
}
