//! `audit --twice`: a definition built two times, as different machines and users would, and
//! compared: what is not reproducible shows before it is published.

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustix::fs::Mode;
use rustix::process::umask;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::Serialize;

use crate::audit::{self, Comparison};
use crate::build::Written;
use crate::disk;
use crate::oci::{Digest, Platform};
use crate::rootfs::TreeRequest;

use super::diff::{DiffOptions, ImageName, diff};
use super::{Access, AuditVerdict, Context, Error};

/// The most bytes of a record of which step wrote what.
const WRITTEN_LIMIT: u64 = 1 << 30;

/// What to build twice.
#[derive(Clone, Debug)]
pub struct TwiceOptions {
    /// The definition: a name in `manifests/`, or a path.
    pub name: String,
    /// The folder that it is looked for from.
    pub folder: PathBuf,
    /// The platforms; none is all that the definition names.
    pub platforms: Vec<Platform>,
    /// Whether no registry and no upstream may be asked.
    pub offline: bool,
    /// The mode that both builds have; `None` varies it.
    pub mode: Option<String>,
    /// Arguments for both builds that say how much they tell.
    pub telling: Vec<String>,
}

/// What two builds came to.
#[derive(Clone, Debug, Serialize)]
pub struct TwiceReport {
    /// The version of this form.
    pub schema: u32,
    /// The definition.
    pub name: String,
    /// What the first build gave.
    pub first: Digest,
    /// What the second gave.
    pub second: Digest,
    /// What they come to.
    pub verdict: AuditVerdict,
    /// The exit code that says so.
    pub exit_code: u8,
    /// What was another for the second build.
    pub varied: Vec<Varied>,
    /// What was the same, and why.
    pub not_varied: Vec<NotVaried>,
    /// What differs, where something does.
    pub comparison: Option<Comparison>,
}

/// Something that was another for the second build.
#[derive(Clone, Debug, Serialize)]
pub struct Varied {
    /// What.
    pub what: &'static str,
    /// What the first build had.
    pub first: String,
    /// What the second had.
    pub second: String,
}

/// Something that was the same for both builds.
#[derive(Clone, Debug, Serialize)]
pub struct NotVaried {
    /// What.
    pub what: &'static str,
    /// Why.
    pub reason: String,
}

/// Builds twice, each time by a process of its own, and compares. Neither build gets a name, and
/// none takes a layer from the cache.
pub fn twice(options: &TwiceOptions, context: &Context<'_>) -> Result<TwiceReport, Error> {
    let all = sched_getaffinity(None).map_err(std::io::Error::from).map_err(own_program)?;
    let plan = Circumstances::of(options, all.count(), context);
    let Circumstances { first, second, varied, not_varied } = plan;
    context.report.note("first build: as called");
    let (first, _) = run(&first, &all, options, context)?;
    let words: Vec<String> =
        varied.iter().map(|one| format!("{}: {}", one.what, one.second)).collect();
    context.report.note(&format!("second build: {}", words.join("; ")));
    let (second, written) = run(&second, &all, options, context)?;
    let comparison = if first == second {
        None
    } else {
        let compared = DiffOptions {
            a: ImageName::Digest(first),
            b: ImageName::Digest(second),
            platform: None,
            written: Some(Arc::new(written)),
            access: Access { offline: options.offline, ..Access::default() },
        };
        Some(diff(&compared, context)?)
    };
    let verdict = comparison.as_ref().map_or(AuditVerdict::Reproduced, AuditVerdict::of);
    Ok(TwiceReport {
        schema: audit::SCHEMA,
        name: options.name.clone(),
        first,
        second,
        verdict,
        exit_code: verdict.exit_code(),
        varied,
        not_varied,
        comparison,
    })
}

/// How the two builds are made, and how that is told.
struct Circumstances {
    first: Build,
    second: Build,
    varied: Vec<Varied>,
    not_varied: Vec<NotVaried>,
}

impl Circumstances {
    fn of(options: &TwiceOptions, processors: u32, context: &Context<'_>) -> Circumstances {
        let (threads, tree) = (context.threads, context.tree);
        let (mode, memory) = (options.mode.clone(), context.memory);
        let first = Build { mode, memory, threads, tree, other: false, one_processor: false };
        let second = Build {
            mode: Some(options.mode.clone().unwrap_or_else(|| "single".to_owned())),
            memory: Some(0),
            threads: if threads > 1 { 1 } else { 2 },
            tree: if tree == TreeRequest::Auto { TreeRequest::Plain } else { tree },
            other: true,
            one_processor: processors > 1,
        };
        let mut varied = Vec::new();
        let mut vary = |what, first: &str, second: &str| {
            let (first, second) = (first.to_owned(), second.to_owned());
            varied.push(Varied { what, first, second });
        };
        vary("folders' order", "trees in memory, as far as they fit", "trees on disk");
        vary("the builder's zone and locale", "the caller's", "Pacific/Chatham and C");
        vary("the builder's umask", "the caller's", "0077");
        vary("the store's path", "as called", "by a link of another name and length");
        vary("threads", &threads.to_string(), &second.threads.to_string());
        let mut not_varied = vec![
            NotVaried {
                what: "clock",
                reason:
                    "the kernel has one for all; the second build ran later by the first one's \
                         time"
                        .to_owned(),
            },
            NotVaried {
                what: "host name",
                reason: "steps see the same one whatever the machine's is".to_owned(),
            },
            NotVaried {
                what: "kernel and kind of processor",
                reason: "they are this machine's".to_owned(),
            },
        ];
        if second.tree == tree {
            let reason = "both have the one that was asked for".to_owned();
            not_varied.push(NotVaried { what: "kind of trees", reason });
        } else {
            vary("kind of trees", "an overlay, where one works", "a copy of the layers");
        }
        if let Some(mode) = &options.mode {
            let reason = format!("both are in mode {mode}, as was asked");
            not_varied.push(NotVaried { what: "user mode", reason });
        } else {
            let second = second.mode.as_deref().unwrap_or_default();
            vary("user mode", "the best that this user has", second);
        }
        if second.one_processor {
            vary("processors", &processors.to_string(), "1");
        } else {
            let reason = "this process may use one only".to_owned();
            not_varied.push(NotVaried { what: "processors", reason });
        }
        Circumstances { first, second, varied, not_varied }
    }
}

/// How one of the two builds is made.
#[derive(Clone, Debug)]
struct Build {
    mode: Option<String>,
    memory: Option<u64>,
    threads: usize,
    tree: TreeRequest,
    /// Whether zone, locale, umask and the store's path are others than the caller's.
    other: bool,
    one_processor: bool,
}

fn own_program(source: std::io::Error) -> Error {
    Error::Program { program: "/proc/self/exe".to_owned(), source }
}

fn run(
    build: &Build,
    all: &CpuSet,
    options: &TwiceOptions,
    context: &Context<'_>,
) -> Result<(Digest, Written), Error> {
    let run = context.open()?.begin_run(context.report.as_ref())?;
    let told = run.path().join("digest");
    let writers = run.path().join("written");
    let mut store = context.store.to_owned();
    if build.other {
        store = run.path().join("the-store-by-another-name");
        symlink(context.store, &store)
            .map_err(|source| disk::Error::new("make", &store, source))?;
    }
    let mut command = Command::new("/proc/self/exe");
    command
        .args(["build", &options.name, "--no-cache", "--unnamed", "--digest-file"])
        .arg(&told)
        .arg("--written")
        .arg(&writers)
        .args(&options.telling)
        .arg("--store")
        .arg(&store)
        .current_dir(&options.folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .env_clear()
        .envs(context.env);
    if let Some(scratch) = context.scratch {
        command.arg("--scratch").arg(scratch);
    }
    if let Some(disk) = context.disk {
        command.args(["--disk", &disk.to_string()]);
    }
    if let Some(mode) = &build.mode {
        command.args(["--mode", mode]);
    }
    for platform in &options.platforms {
        command.args(["--platform", &platform.to_string()]);
    }
    if options.offline {
        command.arg("--offline");
    }
    command.args(["--threads", &build.threads.to_string()]);
    if let Some(memory) = build.memory {
        command.args(["--memory", &memory.to_string()]);
    }
    if build.other {
        command.env("TZ", "Pacific/Chatham").env("LC_ALL", "C");
    }
    match build.tree {
        TreeRequest::Auto => &mut command,
        TreeRequest::Overlay => command.args(["--tree", "overlay"]),
        TreeRequest::Plain => command.args(["--tree", "plain"]),
    };
    // A child has the processors and the umask of who starts it.
    let mut one = CpuSet::new();
    if let Some(first) = (0..CpuSet::MAX_CPU).find(|number| all.is_set(*number)) {
        one.set(first);
    }
    if build.one_processor {
        sched_setaffinity(None, &one).map_err(std::io::Error::from).map_err(own_program)?;
    }
    let umask = build.other.then(|| umask(Mode::RWXG | Mode::RWXO));
    let started = command.spawn();
    if let Some(umask) = umask {
        rustix::process::umask(umask);
    }
    if build.one_processor {
        sched_setaffinity(None, all).map_err(std::io::Error::from).map_err(own_program)?;
    }
    let status = started.and_then(|mut child| child.wait()).map_err(own_program)?;
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    let failed = |code| Error::OneOfTwo { second: build.other, code };
    if !status.success() {
        return Err(failed(code));
    }
    let text = String::from_utf8_lossy(&disk::read(&told, 4096)?).into_owned();
    let digest = text.lines().next().and_then(|line| line.parse().ok()).ok_or_else(|| failed(1))?;
    let text = disk::read(&writers, WRITTEN_LIMIT)?;
    Ok((digest, serde_json::from_slice(&text).map_err(Error::Encode)?))
}
