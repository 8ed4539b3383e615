//! Drives the sandbox for the tests, which can't: a test runs in a thread, and what enters a user
//! namespace must have one thread only. Takes a list of acts as JSON, carries them out inside, and
//! prints a result for each.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::exit, reason = "a test's other half")]

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use ocibuild::changes::{self, Kind};
use ocibuild::layer;
use ocibuild::report::Stream;
use ocibuild::rootfs::{
    self, EntryPath, Extras, Ledger, Lower, Plain, Sidecar, Space, Tree, TreeKind, Truth,
};
use ocibuild::sandbox::{
    self, Attendants, Cancel, Doors, Entry, Mode, Owners, Ownership, Request, Scope, Spec,
};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Job {
    request: String,
    /// Who keeps the owners: `tree`, `discard`, or a scope of a supervisor.
    #[serde(default)]
    owners: Option<String>,
    acts: Vec<Act>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Act {
    /// A tmpfs.
    Memory {
        dir: PathBuf,
        bytes: u64,
    },
    /// A stack of layers.
    Mount {
        lowers: Vec<(PathBuf, Option<Sidecar>)>,
        space: PathBuf,
        #[serde(default)]
        files: Vec<(String, String)>,
        #[serde(default)]
        folders: Vec<String>,
        /// As a plain tree.
        #[serde(default)]
        plain: bool,
    },
    Unmount,
    /// Takes what has changed as a layer, and goes on with a tree over it in `space`, a new folder.
    Commit {
        space: PathBuf,
        #[serde(default)]
        excluded: Vec<PathBuf>,
    },
    /// What every entry of the tree is in truth.
    Truth,
    /// A step; its root is the mounted tree unless it names one.
    Run {
        spec: Box<Spec>,
        timeout: Option<f64>,
        cancel_after: Option<f64>,
    },
    /// A command of the machine's, in the build's namespaces.
    Shell(String),
    /// What the last tmpfs holds.
    Usage,
    ProbeOverlay(PathBuf),
    ProbeOwners(PathBuf),
    Remove(PathBuf),
}

fn main() {
    sandbox::run_if_helper();
    let path = std::env::args().nth(1).unwrap();
    if path == "examine" {
        println!("{:#?}", sandbox::examine());
        return;
    }
    let job: Job = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let request = match job.request.as_str() {
        "root" => Request::Root,
        "range" => Request::Range,
        "single" => Request::Single,
        _ => Request::Auto,
    };
    match sandbox::enter(request) {
        Ok(Entry::Ended(code)) => std::process::exit(i32::from(code)),
        Ok(Entry::Inside(entered)) => {
            let owners = job.owners.unwrap_or_else(|| match entered.mode {
                Mode::Single => "full".to_owned(),
                _ => "tree".to_owned(),
            });
            let results = carry_out(&owners, job.acts);
            println!("{}", json!({ "flavour": entered.mode.flavour(), "results": results }));
        }
        Err(error) => {
            let hint = ocibuild::fault::Fault::hint(&error);
            println!("{}", json!({ "error": describe(&error), "hint": hint }));
            std::process::exit(3);
        }
    }
}

fn describe(error: &dyn std::error::Error) -> String {
    let mut texts = vec![error.to_string()];
    let mut source = error.source();
    while let Some(cause) = source {
        texts.push(cause.to_string());
        source = cause.source();
    }
    texts.join(": ")
}

fn carry_out(owners: &str, acts: Vec<Act>) -> Vec<Value> {
    let mut tree: Option<Tree> = None;
    let mut below: Vec<Lower> = Vec::new();
    let mut with = Extras::default();
    let mut ownership: Option<Ownership> = None;
    let mut spaces = Vec::new();
    let mut results = Vec::new();
    for act in acts {
        let result = match act {
            Act::Memory { dir, bytes } => {
                let space = Space::memory(&dir, bytes);
                let value = told(&space);
                spaces.extend(space);
                value
            }
            Act::Mount { lowers, space, files, folders, plain } => {
                let lower = |(tree, sidecar)| Lower { tree, sidecar, ledger: Arc::default() };
                let lowers: Vec<Lower> = lowers.into_iter().map(lower).collect();
                let extras = Extras {
                    files: files
                        .into_iter()
                        .map(|(path, text)| (path.as_str().into(), text.into()))
                        .collect(),
                    folders: folders.iter().map(|path| path.as_str().into()).collect(),
                };
                drop(tree.take());
                let kind = if plain { TreeKind::Plain } else { TreeKind::Overlay };
                let result = Tree::new(kind, &lowers, &space, &extras);
                let value = told(&result);
                tree = result.ok();
                let scope = match owners {
                    "full" => Some(Scope::Full),
                    "nodes" => Some(Scope::Nodes),
                    "light" => Some(Scope::Light),
                    _ => None,
                };
                if let (Some(tree), Some(scope)) = (&tree, scope) {
                    ownership = Some(Ownership::of_tree(scope, tree, &lowers).unwrap());
                }
                (below, with) = (lowers, extras);
                value
            }
            Act::Commit { space, excluded } => {
                let before = tree.take().unwrap();
                let (value, after) = commit(before, &mut below, &with, &space, &excluded);
                tree = Some(after);
                value
            }
            Act::Unmount => match tree.take() {
                Some(Tree::Overlay(mounted)) => told(&mounted.unmount()),
                _ => json!("ok"),
            },
            Act::Run { mut spec, timeout, cancel_after } => {
                if let Some(tree) = &tree
                    && spec.root == Path::new("")
                {
                    tree.merged().clone_into(&mut spec.root);
                }
                spec.timeout = timeout.map(Duration::from_secs_f64);
                let owners = match (&ownership, owners) {
                    (Some(ownership), _) => Owners::Kept(ownership),
                    (None, "discard") => Owners::Nobody,
                    _ => Owners::Tree,
                };
                run(&spec, owners, cancel_after)
            }
            Act::Shell(script) => {
                let mut command = Command::new("/bin/sh");
                command.args(["-ec", &script]);
                if let Some(tree) = &tree {
                    command.env("MERGED", tree.merged());
                }
                if let Some(Tree::Overlay(mounted)) = &tree {
                    command.env("PARENT", mounted.parent());
                    command.env("UPPER", mounted.upper());
                }
                let output = command.output().unwrap();
                json!({
                    "code": output.status.code(),
                    "out": String::from_utf8_lossy(&output.stdout),
                    "err": String::from_utf8_lossy(&output.stderr),
                })
            }
            Act::Truth => {
                let truth: &dyn Truth = match &ownership {
                    Some(ownership) => ownership,
                    None => &Plain,
                };
                let mut lines = Vec::new();
                list(tree.as_ref().unwrap().merged(), &EntryPath::default(), truth, &mut lines);
                json!(lines)
            }
            Act::Usage => {
                let space: &Space = spaces.last().unwrap();
                json!({
                    "used": space.used().unwrap(),
                    "bound": space.bound(),
                    "nearly_full": space.is_nearly_full().unwrap(),
                })
            }
            Act::ProbeOverlay(dir) => told(&rootfs::probe_overlay(&dir, &dir)),
            Act::ProbeOwners(dir) => told(&rootfs::probe_owners(&dir)),
            Act::Remove(dir) => told(&rootfs::remove_tree(&dir)),
        };
        results.push(result);
    }
    results
}

/// Lists the entries of a tree: path, uid, gid, mode, device, capability.
fn list(root: &Path, path: &EntryPath, truth: &dyn Truth, lines: &mut Vec<String>) {
    let file = root.join(path.as_path());
    let stat = std::fs::symlink_metadata(&file).unwrap();
    let known = truth.now(path).unwrap().unwrap_or_default();
    let capability = known.capability.unwrap_or_else(|| {
        let mut value = [0; 64];
        let read = rustix::fs::lgetxattr(&file, "security.capability", &mut value).unwrap_or(0);
        value[..read].to_vec()
    });
    let hex: String = capability.iter().map(|byte| format!("{byte:02x}")).collect();
    let device = known.device.map(|device| format!("{device:?}")).unwrap_or_default();
    let (uid, gid) = (known.uid.unwrap_or(stat.uid()), known.gid.unwrap_or(stat.gid()));
    lines.push(format!("{path} {uid} {gid} {:o} {device} {hex}", stat.mode()));
    if stat.is_dir() {
        for name in ocibuild::disk::list(&file).unwrap() {
            use std::os::unix::ffi::OsStrExt;
            list(root, &path.join(name.as_bytes()), truth, lines);
        }
    }
}

/// The next layer's tree, and what the finished layer is.
fn commit(
    mut tree: Tree,
    below: &mut Vec<Lower>,
    extras: &Extras,
    space: &Path,
    excluded: &[PathBuf],
) -> (Value, Tree) {
    let changes = changes::of(&tree, excluded, &Plain).unwrap();
    let ledger = Ledger::default();
    let write = |root: &Path| {
        layer::measure(|out| layer::write_tar(root, &changes, &ledger, out)).unwrap().0.to_string()
    };
    let digest = write(tree.changed());
    let list: Vec<_> =
        changes.iter().map(|change| (change.path.into(), change.kind == Kind::Present)).collect();
    let shown: Vec<String> = changes
        .iter()
        .map(|change| {
            let sign = if change.kind == Kind::Removed { "-" } else { "" };
            format!("{sign}{}", EntryPath::from(change.path.as_slice()))
        })
        .collect();
    let aside = match tree {
        Tree::Overlay(mounted) => {
            let upper = mounted.unmount().unwrap();
            let aside = write(&upper);
            below.push(Lower { tree: upper, sidecar: None, ledger: Arc::default() });
            tree = Tree::new(TreeKind::Overlay, below, space, extras).unwrap();
            aside
        }
        Tree::Plain(mut plain) => {
            let layer = plain.set_aside(space, &list, &ledger).unwrap();
            below.push(layer.clone());
            plain.go_on(Some(layer), extras).unwrap();
            tree = Tree::Plain(plain);
            write(space)
        }
    };
    (json!({ "changes": shown, "digest": digest, "aside": aside }), tree)
}

fn told<T, E: std::error::Error + 'static>(result: &Result<T, E>) -> Value {
    match result {
        Ok(_) => json!("ok"),
        Err(error) => json!({ "error": describe(error) }),
    }
}

fn run(spec: &Spec, owners: Owners<'_>, cancel_after: Option<f64>) -> Value {
    let cancel = Arc::new(Cancel::default());
    if let Some(seconds) = cancel_after {
        let cancel = Arc::clone(&cancel);
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_secs_f64(seconds));
            cancel.trigger();
        });
    }
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut output = |stream, line: &[u8]| {
        let line = String::from_utf8_lossy(line).into_owned();
        match stream {
            Stream::Out => out.push(line),
            Stream::Err => err.push(line),
        }
    };
    let recorder = |doors: Doors| {
        greet(doors);
        Ok(())
    };
    let by = Attendants { owners, recorder: Some(&recorder), cancel: &cancel };
    match sandbox::run(spec, by, &mut output) {
        Ok(outcome) => json!({ "outcome": outcome, "out": out, "err": err }),
        Err(error) => json!({ "error": describe(&error), "out": out, "err": err }),
    }
}

/// Serves a step's network for as long as this process lives: every door tells which it is, and
/// where the step believed to go; and every name has one address.
fn greet(doors: Doors) {
    let Doors { http, https, dns_udp, dns_tcp, .. } = doors;
    let named = [("http", http), ("https", https), ("dns", dns_tcp)];
    for (name, listeners) in named {
        for listener in listeners {
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    let mut stream = stream.unwrap();
                    let to = stream.local_addr().unwrap();
                    writeln!(stream, "{name} {to}").unwrap();
                }
            });
        }
    }
    for socket in dns_udp {
        std::thread::spawn(move || {
            let mut message = [0; 512];
            loop {
                let (length, from) = socket.recv_from(&mut message).unwrap();
                let mut answer = message[..length].to_vec();
                answer[2..4].copy_from_slice(&[0x81, 0x80]);
                // Of the question's type; IPv6 has none.
                if answer[length - 4..] == [0, 1, 0, 1] {
                    answer[7] = 1;
                    answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 192, 0, 2, 80]);
                }
                socket.send_to(&answer, from).unwrap();
            }
        });
    }
}
