//! Drives the sandbox for the tests, which can't: a test runs in a thread, and what enters a user
//! namespace must have one thread only. Takes a list of acts as JSON, carries them out inside, and
//! prints a result for each.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::exit, reason = "a test's other half")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use ocibuild::report::Stream;
use ocibuild::rootfs::{self, Extras, Lower, Mounted, Sidecar, Space};
use ocibuild::sandbox::{self, Cancel, Entry, Request, Spec};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Job {
    request: String,
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
    },
    Unmount,
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
            let results = carry_out(job.acts);
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

fn carry_out(acts: Vec<Act>) -> Vec<Value> {
    let mut mounted: Option<Mounted> = None;
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
            Act::Mount { lowers, space, files, folders } => {
                let lower = |(tree, sidecar)| Lower { tree, sidecar, ledger: Arc::default() };
                let lowers: Vec<Lower> = lowers.into_iter().map(lower).collect();
                let extras = Extras {
                    files: files
                        .into_iter()
                        .map(|(path, text)| (path.as_str().into(), text.into()))
                        .collect(),
                    folders: folders.iter().map(|path| path.as_str().into()).collect(),
                };
                drop(mounted.take());
                let result = rootfs::mount(&lowers, &space, &extras);
                let value = told(&result);
                mounted = result.ok();
                value
            }
            Act::Unmount => told(&mounted.take().map(Mounted::unmount).transpose()),
            Act::Run { mut spec, timeout, cancel_after } => {
                if let Some(mounted) = &mounted
                    && spec.root == Path::new("")
                {
                    mounted.merged().clone_into(&mut spec.root);
                }
                spec.timeout = timeout.map(Duration::from_secs_f64);
                run(&spec, cancel_after)
            }
            Act::Shell(script) => {
                let mut command = Command::new("/bin/sh");
                command.args(["-ec", &script]);
                if let Some(mounted) = &mounted {
                    command.env("MERGED", mounted.merged());
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
            Act::Usage => {
                let space: &Space = spaces.last().unwrap();
                json!({
                    "used": space.used().unwrap(),
                    "bound": space.bound(),
                    "nearly_full": space.is_nearly_full().unwrap(),
                })
            }
            Act::ProbeOverlay(dir) => told(&rootfs::probe_overlay(&dir)),
            Act::ProbeOwners(dir) => told(&rootfs::probe_owners(&dir)),
            Act::Remove(dir) => told(&rootfs::remove_tree(&dir)),
        };
        results.push(result);
    }
    results
}

fn told<T, E: std::error::Error + 'static>(result: &Result<T, E>) -> Value {
    match result {
        Ok(_) => json!("ok"),
        Err(error) => json!({ "error": describe(error) }),
    }
}

fn run(spec: &Spec, cancel_after: Option<f64>) -> Value {
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
    match sandbox::run(spec, &mut output, &cancel) {
        Ok(outcome) => json!({ "outcome": outcome, "out": out, "err": err }),
        Err(error) => json!({ "error": describe(&error), "out": out, "err": err }),
    }
}
