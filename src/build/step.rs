//! The steps of one layer, in one tree.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::disk::{self, At};
use crate::http;
use crate::oci::Hasher;
use crate::plan::{Action, Layer, TreeFacts};
use crate::report::{Event, Report, Stream};
use crate::rootfs::{Extras, Mounted, TreePath};
use crate::sandbox::{self, Access, Cancel, Mount, Network, Outcome, Spec, What};

use super::environment::{self, CACHES, SUPPORT};
use super::error::{LastLines, PlaceOrFetch};
use super::place::{Attributes, Placer};
use super::{Error, Host};

/// How many lines of a step's output an error repeats.
const LAST_LINES: usize = 20;
/// How often the memory's fill is looked at while a step runs.
const WATCH: Duration = Duration::from_millis(200);
/// The most bytes of `/etc/os-release`, `/etc/passwd` and the like.
const SMALL: u64 = 1 << 20;

/// Paths that never reach a layer, with what is below them: mount points and the builder's files.
pub(super) const EXCLUDED: [&str; 11] = [
    "dev", "etc/hosts", "etc/resolv.conf", "proc", "run", "sys", "tmp", "var/cache/apt",
    "var/cache/ocibuild", "var/lib/apt/lists", "var/tmp",
];

/// Mounts in the layer's own scratch: where, the folder there, its mode.
const SCRATCH: [(&str, &str, u32); 5] = [
    ("tmp", "tmp", 0o1777),
    ("var/tmp", "var-tmp", 0o1777),
    ("var/cache/apt", "apt-cache", 0o755),
    ("var/lib/apt/lists", "apt-lists", 0o755),
    ("var/cache/ocibuild", "caches", 0o755),
];

/// How the steps of a layer went.
pub(super) enum Run {
    /// All of them are done.
    Done,
    /// They were stopped because the memory was nearly full.
    OutOfMemory,
}

/// What the steps of one layer need.
pub(super) struct Stage<'a> {
    pub layer: &'a Layer,
    pub host: &'a Host<'a>,
    pub tree: &'a Mounted,
    /// The layer's folder, beside the tree.
    pub folder: &'a Path,
    /// The image's variables so far.
    pub image_env: Vec<(String, String)>,
    /// Where all output goes too.
    pub log: PathBuf,
    /// Asked while a step runs; `true` stops it.
    pub is_full: &'a (dyn Fn() -> bool + Sync),
}

/// What a layer's tree has besides its parents: the files and mount points of the steps.
pub(super) fn extras(host: &Host<'_>) -> Extras {
    let mut extras = Extras::default();
    for (path, content) in [("etc/resolv.conf", &host.resolv_conf), ("etc/hosts", &host.hosts)] {
        extras.files.insert(tree_path(path), content.clone().into_bytes());
    }
    for path in ["dev", "proc", "run", "sys"].into_iter().chain(SCRATCH.map(|scratch| scratch.0)) {
        extras.folders.insert(tree_path(path));
    }
    extras
}

fn tree_path(path: &str) -> TreePath {
    TreePath::from(path)
}

impl Stage<'_> {
    /// Runs every step of the layer.
    pub(super) fn run(mut self) -> Result<Run, Error> {
        let mounts = self.prepare()?;
        let placer = Placer::open(self.tree.merged()).map_err(|error| self.place_error("", error.into()))?;
        let facts = self.facts(&placer)?;
        let mut log = BufWriter::new(File::create(&self.log).at("create", &self.log)?);
        let layer = self.layer;
        for step in &layer.steps {
            if !step.when.matches(&facts) {
                self.host.report.note(&format!(
                    "{}/{}: not for {} {}", layer.name, step.name, facts.distribution, facts.codename
                ));
                continue;
            }
            let action = step
                .action
                .resolve(&facts)
                .map_err(|error| self.place_error(&step.name, error.into()))?;
            writeln!(log, "# {}", step.name).at("write", &self.log)?;
            match action {
                Action::Env(pairs) => {
                    for (name, value) in pairs {
                        set(&mut self.image_env, &name, &value);
                    }
                }
                Action::Run(run) => {
                    let mut env = self.environment(&facts);
                    env.extend(run.env);
                    let spec = Spec {
                        root: self.tree.merged().to_owned(),
                        mounts: mounts.clone(),
                        env,
                        user: run.user,
                        workdir: PathBuf::from(run.workdir),
                        argv: run.argv,
                        network: if run.network { Network::Host } else { Network::Off },
                        hostname: Spec::HOSTNAME.to_owned(),
                        timeout: run.timeout,
                    };
                    if let Some(early) = self.execute(&step.name, &run.title, &spec, &mut log)? {
                        return Ok(early);
                    }
                }
                Action::Copy(copy) => {
                    let place = || -> Result<(), PlaceOrFetch> {
                        let owner = self.owner(&copy.owner)?;
                        let attributes = Attributes { mode: copy.mode, owner, time: layer.source_date };
                        Ok(placer.copy(&layer.folder.join(&copy.from), &copy.to, attributes)?)
                    };
                    place().map_err(|error| self.place_error(&step.name, error))?;
                }
                Action::Fetch(fetch) => {
                    self.fetch(&placer, &fetch).map_err(|error| self.place_error(&step.name, error))?;
                }
            }
        }
        log.flush().at("write", &self.log)?;
        Ok(Run::Done)
    }
}

impl Stage<'_> {
    /// Makes the layer's scratch and the folder that steps see as [`SUPPORT`].
    fn prepare(&self) -> Result<Vec<Mount>, Error> {
        let mut mounts = Vec::new();
        for (target, name, mode) in SCRATCH {
            let source = self.folder.join(name);
            make_folder(&source, mode)?;
            let access = Access::ReadWrite;
            mounts.push(Mount { target: Path::new("/").join(target), what: What::Bind { source, access } });
        }
        // apt wants these to be there.
        make_folder(&self.folder.join("apt-cache/archives/partial"), 0o755)?;
        make_folder(&self.folder.join("apt-lists/partial"), 0o755)?;
        for name in environment::CACHE_FOLDERS {
            make_folder(&self.folder.join("caches").join(name), 0o1777)?;
        }
        let support = self.folder.join("support");
        make_folder(&support, 0o755)?;
        let staged = Placer::open(&support).and_then(|placer| {
            let attributes = Attributes { mode: None, owner: (0, 0), time: self.layer.source_date };
            for file in self.layer.files.paths() {
                let to = format!("/recipe/{file}");
                placer.copy_one(&self.layer.folder.join(file), Path::new(&to), attributes)?;
            }
            let mut write = |name: &str, bytes: &[u8]| {
                placer.write(Path::new(name), attributes, |out| out.write_all(bytes))
            };
            if let Some(certificates) = &self.host.certificates {
                write("/ca.crt", certificates)?;
                write("/apt.conf", environment::apt_conf().as_bytes())?;
            }
            Ok(())
        });
        staged.map_err(|error| self.place_error("", error.into()))?;
        make_folder(&support.join("recipe"), 0o755)?;
        let run = What::Memory { mode: 0o755, bytes: None };
        mounts.push(Mount { target: PathBuf::from("/run"), what: run });
        mounts.push(Mount { target: PathBuf::from("/run/lock"), what: What::Folder { mode: 0o1777 } });
        let bind = What::Bind { source: support, access: Access::ReadOnly };
        mounts.push(Mount { target: PathBuf::from(SUPPORT), what: bind });
        Ok(mounts)
    }

    /// Reads what the tree says of itself.
    fn facts(&self, placer: &Placer) -> Result<TreeFacts, Error> {
        for path in ["/etc/os-release", "/usr/lib/os-release"] {
            let found = placer.read(Path::new(path), SMALL);
            if let Some(bytes) = found.map_err(|error| self.place_error("", error.into()))? {
                return Ok(TreeFacts::of_os_release(&String::from_utf8_lossy(&bytes)));
            }
        }
        Ok(TreeFacts::default())
    }

    fn environment(&self, facts: &TreeFacts) -> BTreeMap<String, String> {
        let release = [
            ("DISTRIBUTION", &facts.distribution),
            ("CODENAME", &facts.codename),
            ("RELEASE", &facts.release),
        ]
        .map(|(name, value)| (name.to_owned(), value.clone()));
        environment::of_layer(&environment::Ingredients {
            image: &self.image_env,
            platform: &self.layer.platform,
            args: &self.layer.args,
            release: &release.into(),
            source_date: self.layer.source_date,
            host: self.host.env,
            trust: self.host.certificates.is_some(),
        })
    }

    /// Runs one program; `Some` when it had to be stopped for lack of memory.
    fn execute(&self, step: &str, title: &str, spec: &Spec, log: &mut impl Write) -> Result<Option<Run>, Error> {
        let (layer, report) = (self.layer.name.as_str(), self.host.report);
        report.detail(&format!("{layer}/{step}: {title}"));
        let mut last: VecDeque<String> = VecDeque::with_capacity(LAST_LINES);
        let mut log_error = None;
        let cancel = Cancel::default();
        let (ended, full) = (AtomicBool::new(false), AtomicBool::new(false));
        let outcome = std::thread::scope(|scope| {
            let watch = scope.spawn(|| {
                while !ended.load(Ordering::Acquire) {
                    if (self.is_full)() {
                        full.store(true, Ordering::Release);
                        cancel.trigger();
                        return;
                    }
                    std::thread::park_timeout(WATCH);
                }
            });
            let mut take = |stream: Stream, line: &[u8]| {
                let text = String::from_utf8_lossy(line);
                report.event(Event::Output { layer, step, stream, line: &text });
                if let Err(error) = log.write_all(line).and_then(|()| log.write_all(b"\n")) {
                    log_error.get_or_insert(error);
                }
                if last.len() == LAST_LINES {
                    last.pop_front();
                }
                last.push_back(text.into_owned());
            };
            let outcome = sandbox::run(spec, &mut take, &cancel);
            ended.store(true, Ordering::Release);
            watch.thread().unpark();
            outcome
        })?;
        if let Some(error) = log_error {
            return Err(disk::Error::new("write", &self.log, error).into());
        }
        // A step may have met the bound between two looks.
        if full.load(Ordering::Acquire) || (self.is_full)() {
            return Ok(Some(Run::OutOfMemory));
        }
        if outcome == Outcome::Exited(0) {
            return Ok(None);
        }
        log.flush().at("write", &self.log)?;
        Err(Error::Step {
            layer: layer.to_owned(),
            step: step.to_owned(),
            outcome,
            output: LastLines { command: title.to_owned(), lines: last.into() },
            log: self.log.clone(),
        })
    }

    fn place_error(&self, step: &str, source: PlaceOrFetch) -> Error {
        Error::Place { layer: self.layer.name.clone(), step: step.to_owned(), source: Box::new(source) }
    }
}

fn make_folder(path: &Path, mode: u32) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt;
    disk::make_dirs(path)?;
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).at("set the mode of", path)?;
    Ok(())
}

fn set(env: &mut Vec<(String, String)>, name: &str, value: &str) {
    match env.iter_mut().find(|(has, _)| has == name) {
        Some(pair) => value.clone_into(&mut pair.1),
        None => env.push((name.to_owned(), value.to_owned())),
    }
}
