//! The steps of one layer, in one tree.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::disk::{self, At};
use crate::http;
use crate::netlog::{self, Netlog, Session};
use crate::oci::{Digest, Hasher};
use crate::plan::{Act, CACHES, Layer, OsRelease, Ownership, RunAct};
use crate::report::{Event, Stream, Task, Unit};
use crate::rootfs::{EntryPath, Extras, Tree, Truth};
use crate::sandbox::{
    self, Access, Attendants, Cancel, Mount, Network, Outcome, Owners, Spec, What,
};
use crate::text::User;

use super::apt::{self, Apt};
use super::environment::{self, SUPPORT};
use super::error::{LastLines, PlaceOrFetch};
use super::place::{Attributes, Placer};
use super::{Error, Host, owner, shell, stop, trust};

/// How many lines of a step's output an error repeats.
const LAST_LINES: usize = 20;
/// How often the memory's fill is looked at while a step runs.
const WATCH: Duration = Duration::from_millis(200);
/// The most bytes of `/etc/os-release`.
const SMALL: u64 = 1 << 20;
/// The folder of the steps' caches, below which each tool has its own.
const CACHE_FOLDER: &str = "var/cache/ocibuild";

/// Mounts in the layer's own scratch: where, the folder there, its mode.
const SCRATCH: [(&str, &str, u32); 5] = [
    ("tmp", "tmp", 0o1777),
    ("var/tmp", "var-tmp", 0o1777),
    ("var/cache/apt", "apt-cache", 0o755),
    ("var/lib/apt/lists", "apt-lists", 0o755),
    (CACHE_FOLDER, "caches", 0o1777),
];

/// Files that every step finds as the builder wants them, whatever the image has there.
const FILES: [&str; 2] = ["etc/hosts", "etc/resolv.conf"];

/// The sandbox's own mount points.
const MOUNTS: [&str; 4] = ["dev", "proc", "run", "sys"];

/// Returns the paths that never reach a layer, with what is below them.
pub(super) fn excluded() -> Vec<PathBuf> {
    SCRATCH.iter().map(|scratch| scratch.0).chain(FILES).chain(MOUNTS).map(PathBuf::from).collect()
}

/// Returns what a tree has besides its layers: the files and mount points of the steps.
pub(super) fn extras(host: &Host<'_>) -> Extras {
    let mut extras = Extras::default();
    for (path, content) in FILES.into_iter().zip([&host.hosts, &host.resolv_conf]) {
        extras.files.insert(EntryPath::from(path), content.clone().into_bytes());
    }
    let folders = SCRATCH.iter().map(|scratch| scratch.0).chain(MOUNTS);
    extras.folders.extend(folders.map(EntryPath::from));
    extras
}

/// How the steps of a layer went.
pub(super) enum Run {
    /// All of them are done.
    Done,
    /// They were stopped because the memory was nearly full.
    OutOfMemory,
    /// One was stopped because it makes a device node, which needs more of a supervisor.
    NeedsNodes,
}

/// What the steps of one layer need.
pub(super) struct Stage<'a> {
    /// The definition's name.
    pub definition: &'a str,
    pub layer: &'a Layer,
    /// The recorder of the layer's network, where there is one.
    pub netlog: Option<&'a Netlog>,
    pub host: &'a Host<'a>,
    pub tree: &'a Tree,
    /// What remembers the owners in it, where the tree can't.
    pub truth: Option<&'a dyn Truth>,
    /// Who keeps the owners that the steps give.
    pub owners: Owners<'a>,
    /// The layer's folder, beside the tree.
    pub folder: &'a Path,
    /// Where all output goes too.
    pub log: PathBuf,
    /// Told of each step that has ended.
    pub ended: &'a dyn Fn(&str) -> Result<(), Error>,
    /// Asked while a step runs; `true` stops it.
    pub is_full: &'a (dyn Fn() -> bool + Sync),
}

impl Stage<'_> {
    /// Runs every step of the layer.
    pub(super) fn run(self) -> Result<Run, Error> {
        let open = Placer::open(self.tree.merged(), self.truth);
        let placer = open.map_err(|error| self.place_error("(tree)", error.into()))?;
        let mounts = self.prepare(&placer)?;
        let release = self.release(&placer)?;
        let mut log = BufWriter::new(File::create(&self.log).at("create", &self.log)?);
        let layer = self.layer;
        for step in &layer.steps {
            if let Err(reason) = release.matches(&step.when) {
                self.host.report.note(&format!("{}/{}: skipped, {reason}", layer.name, step.name));
                continue;
            }
            writeln!(log, "# {}", step.name).at("write", &self.log)?;
            let act = step
                .resolve(&release)
                .map_err(|error| self.place_error(&step.name, error.into()))?;
            let placed = match act {
                Act::Nothing => Ok(()),
                Act::Run(run) => {
                    if let Some(early) = self.execute(&step.name, run, &mounts, &mut log)? {
                        return Ok(early);
                    }
                    Ok(())
                }
                Act::Copy { from, to, mode, owner } => {
                    // The staged files, since their exec bits are those that the key was made of.
                    let from = self.folder.join("support/recipe").join(from);
                    self.attributes(&placer, mode, &owner)
                        .and_then(|attributes| Ok(placer.copy(&from, &to, attributes)?))
                }
                Act::Fetch { url, to, sha256, mode, owner } => {
                    self.attributes(&placer, Some(mode), &owner).and_then(|attributes| {
                        let download = Download { url, to, expected: sha256, attributes };
                        self.fetch(&placer, &step.name, download)
                    })
                }
            };
            placed.map_err(|error| self.place_error(&step.name, error))?;
            (self.ended)(&step.name)?;
        }
        log.flush().at("write", &self.log)?;
        Ok(Run::Done)
    }

    /// Makes the layer's scratch and the folder that steps see as [`SUPPORT`].
    fn prepare(&self, placer: &Placer<'_>) -> Result<Vec<Mount>, Error> {
        let mut mounts = Vec::new();
        for (target, name, mode) in SCRATCH {
            let source = self.folder.join(name);
            make_folder(&source, mode)?;
            let what = What::Bind { source, access: Access::ReadWrite };
            mounts.push(Mount { target: Path::new("/").join(target), what });
        }
        // apt wants these to be there.
        make_folder(&self.folder.join("apt-cache/archives/partial"), 0o755)?;
        make_folder(&self.folder.join("apt-lists/partial"), 0o755)?;
        for (_, path) in CACHES {
            if let Some(name) = Path::new(path).file_name() {
                make_folder(&self.folder.join("caches").join(name), 0o1777)?;
            }
        }
        let support = self.folder.join("support");
        make_folder(&support, 0o755)?;
        make_folder(&support.join("recipe"), 0o755)?;
        self.layer.files.stage(
            &self.layer.folder,
            &support.join("recipe"),
            self.layer.source_date,
        )?;
        let certificates = self.host.certificates.as_deref();
        let replayed = self.apt().replayed;
        let sqv = if replayed { placer.read(Path::new(apt::SQV), 1) } else { Ok(None) };
        let sqv = sqv.map_err(|error| self.place_error("(tree)", error.into()))?;
        let apt = self.apt().configuration(sqv.is_some());
        let keystore = certificates.map(trust::keystore);
        let files = [
            ("ca.crt", certificates),
            ("cacerts", keystore.as_deref()),
            ("apt.conf", apt.as_deref().map(str::as_bytes)),
        ];
        let files = files.into_iter().map(|(name, bytes)| (name, bytes, 0o644));
        let programs = apt::PROGRAMS.into_iter().filter(|_| replayed);
        let programs = programs.map(|(name, text)| (name, Some(text.as_bytes()), 0o755));
        for (name, bytes, mode) in files.chain(programs) {
            if let Some(bytes) = bytes {
                let path = support.join(name);
                std::fs::write(&path, bytes).at("write", &path)?;
                std::fs::set_permissions(&path, PermissionsExt::from_mode(mode))
                    .at("set the mode of", &path)?;
            }
        }
        let run = What::Memory { mode: 0o755, bytes: None };
        mounts.push(Mount { target: PathBuf::from("/run"), what: run });
        mounts.push(Mount {
            target: PathBuf::from("/run/lock"),
            what: What::Folder { mode: 0o1777 },
        });
        let bind = What::Bind { source: support, access: Access::ReadOnly };
        mounts.push(Mount { target: PathBuf::from(SUPPORT), what: bind });
        Ok(mounts)
    }

    fn apt(&self) -> Apt {
        Apt {
            trust: self.host.certificates.is_some(),
            ownership: match self.owners {
                Owners::Nobody => Ownership::Discarded,
                Owners::Tree | Owners::Kept(_) => Ownership::Kept,
            },
            replayed: self.netlog.is_some_and(Netlog::is_replay),
        }
    }

    /// Reads what the tree says of itself.
    fn release(&self, placer: &Placer<'_>) -> Result<OsRelease, Error> {
        for path in ["/etc/os-release", "/usr/lib/os-release"] {
            let found = placer.read(Path::new(path), SMALL);
            if let Some(bytes) = found.map_err(|error| self.place_error("(tree)", error.into()))? {
                return Ok(OsRelease::parse(&String::from_utf8_lossy(&bytes)));
            }
        }
        Ok(OsRelease::default())
    }

    /// Runs one program; `Some` when it had to be stopped.
    fn execute(
        &self,
        step: &str,
        run: RunAct,
        mounts: &[Mount],
        log: &mut impl Write,
    ) -> Result<Option<Run>, Error> {
        let (layer, report) = (self.layer.name.as_str(), self.host.report);
        let trust = self.host.certificates.is_some();
        let spec = Spec {
            root: self.tree.merged().to_owned(),
            mounts: mounts.to_vec(),
            env: environment::complete(run.env, self.host.step_env(), trust, self.apt().is_told()),
            user: run.user.to_string(),
            workdir: PathBuf::from(run.workdir),
            argv: run.argv,
            network: match (run.network, self.netlog) {
                (false, _) => Network::Off,
                (true, None) => Network::Host,
                (true, Some(_)) => Network::Recorded,
            },
            hostname: Spec::HOSTNAME.to_owned(),
            timeout: run.timeout,
        };
        report.detail(&format!("{layer}/{step}: {}", run.title));
        let mut last: VecDeque<String> = VecDeque::with_capacity(LAST_LINES);
        let mut log_error = None;
        let cancel = stop::register();
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
            let outcome =
                self.attend(step, spec.network, &cancel, |by| sandbox::run(&spec, by, &mut take));
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
        if outcome == Outcome::NeedsSupervision {
            return Ok(Some(Run::NeedsNodes));
        }
        if outcome == Outcome::Exited(0) {
            return Ok(None);
        }
        log.flush().at("write", &self.log)?;
        if let (Some(terminal), Outcome::Exited(_) | Outcome::Signalled(_)) =
            (self.host.terminal, outcome)
        {
            report.note(&format!(
                "the step `{step}` of the layer `{layer}` {}; this is its tree, and `exit` ends the build",
                super::error::ending(outcome)
            ));
            let spec = Spec {
                argv: shell::ARGV.map(str::to_owned).to_vec(),
                env: shell::with_terminal(spec.env, self.host.env),
                timeout: None,
                ..spec
            };
            report.hold(true);
            let cancel = stop::register();
            let looked = self.attend(step, spec.network, &cancel, |by| {
                sandbox::attach(&spec, by, Some(terminal))
            });
            report.hold(false);
            // What was done by hand is thrown away with the tree.
            let _ = looked?;
        }
        Err(Error::Step {
            layer: layer.to_owned(),
            step: step.to_owned(),
            outcome,
            output: LastLines { command: run.title, lines: last.into() },
            log: self.log.clone(),
        })
    }

    /// Has a command run with the layer's network served, and tells of what could not be recorded.
    fn attend(
        &self,
        step: &str,
        network: Network,
        cancel: &Cancel,
        run: impl FnOnce(Attendants<'_>) -> Result<Outcome, sandbox::Error>,
    ) -> Result<Outcome, Error> {
        let owners = self.owners;
        let recorded = self.netlog.filter(|_| network == Network::Recorded);
        let (Some(netlog), Some(recorder)) = (recorded, self.host.recorder) else {
            return Ok(run(Attendants { owners, recorder: None, cancel })?);
        };
        let tree = self.tree.merged();
        let untrusted = |source| Error::Trust { layer: self.layer.name.clone(), source };
        let added = recorder.certificate().add(tree).map_err(untrusted)?;
        let session = Mutex::new(None);
        let serve = |doors: sandbox::Doors| -> io::Result<()> {
            let sandbox::Doors { http, https, dns_udp, dns_tcp, refusals: refused } = doors;
            let doors = netlog::Doors { http, https, dns_udp, dns_tcp };
            let served = netlog.serve(doors, &format!("{}/{step}", self.layer.name));
            let served = served.map_err(io::Error::other)?;
            *session.lock().unwrap_or_else(PoisonError::into_inner) = Some((served, refused));
            Ok(())
        };
        let outcome = run(Attendants { owners, recorder: Some(&serve), cancel });
        let session = session.into_inner().unwrap_or_else(PoisonError::into_inner);
        let (served, refusals) = session.unzip();
        let record = served.map(Session::end).unwrap_or_default();
        for address in refusals.iter().flat_map(sandbox::Refusals::take) {
            let layer = &self.layer.name;
            self.host.report.warning(&format!(
                "{layer}/{step}: port {} of {} can't be recorded, and was refused",
                address.port(),
                address.ip()
            ));
        }
        recorder.certificate().remove(tree, &added).map_err(untrusted)?;
        if !record.unlisted.is_empty() {
            let urls = record.unlisted.iter().map(|one| format!("{} {}", one.method, one.url));
            return Err(Error::Unlisted {
                definition: self.definition.to_owned(),
                layer: self.layer.name.clone(),
                step: step.to_owned(),
                urls: urls.collect(),
            });
        }
        if !outcome.as_ref().is_ok_and(|outcome| outcome.is_success()) {
            self.tell_of_network(step, &record);
        }
        Ok(outcome?)
    }

    /// Names what a step that failed did not get: many programs keep that to themselves.
    fn tell_of_network(&self, step: &str, record: &netlog::Record) {
        const MOST: usize = 8;
        let failed =
            record.troubles.iter().map(|it| format!("{} did not come: {}", it.url, it.what));
        let refused = record.fetches.iter().filter(|it| it.status == 429 || it.status >= 500);
        let refused = refused.map(|it| format!("{} was answered with {}", it.url, it.status));
        for line in failed.chain(refused).take(MOST) {
            self.host.report.warning(&format!("{}/{step}: {line}", self.layer.name));
        }
    }

    fn attributes(
        &self,
        placer: &Placer<'_>,
        mode: Option<u32>,
        user: &User,
    ) -> Result<Attributes, PlaceOrFetch> {
        let text = |path: &str| -> Result<String, PlaceOrFetch> {
            let bytes = placer.read(Path::new(path), SMALL)?.unwrap_or_default();
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let owner = owner::resolve(user, &text("/etc/passwd")?, &text("/etc/group")?)
            .ok_or_else(|| PlaceOrFetch::Owner { owner: user.to_string() })?;
        Ok(Attributes { mode, owner, time: self.layer.source_date })
    }

    fn fetch(
        &self,
        placer: &Placer<'_>,
        step: &str,
        download: Download,
    ) -> Result<(), PlaceOrFetch> {
        let Download { url, mut to, expected, attributes } = download;
        if to.ends_with('/') {
            let path = url.split(['?', '#']).next().unwrap_or(&url);
            to.push_str(path.rsplit('/').next().unwrap_or("download"));
        }
        if let Some(netlog) = self.netlog {
            let of_layer = format!("{}/{step}", self.layer.name);
            let fetched = netlog.fetch(&url, &of_layer, expected.as_ref())?;
            if let Some(expected) = expected
                && expected != fetched.digest
            {
                return Err(PlaceOrFetch::Pin { url, expected, actual: fetched.digest });
            }
            return Ok(placer.write(Path::new(&to), attributes, |out| match fetched.file {
                Some(mut file) => io::copy(&mut file, out).map(|_| ()),
                None => Ok(()),
            })?);
        }
        let mut response = self.host.client.send(&http::Request::get(&url)?)?;
        if !response.status().is_success() {
            return Err(PlaceOrFetch::Status { url, status: response.status().as_u16() });
        }
        let task = Task::start(
            self.host.report,
            format!("fetch {url}"),
            response.content_length(),
            Unit::Bytes,
        );
        let mut actual = None;
        placer
            .write(Path::new(&to), attributes, |out| {
                let mut hasher = Hasher::new();
                let mut buffer = vec![0; 256 << 10];
                loop {
                    let read = match response.read(&mut buffer) {
                        Ok(0) => break,
                        Ok(read) => read,
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                        Err(error) => return Err(error),
                    };
                    hasher.update(&buffer[..read]);
                    out.write_all(&buffer[..read])?;
                    task.advance(read as u64);
                }
                let found = hasher.finish();
                actual = Some(found);
                match expected {
                    // The file has not got its name yet, and goes.
                    Some(expected) if expected != found => {
                        Err(io::Error::other("not what was pinned"))
                    }
                    _ => Ok(()),
                }
            })
            .map_err(|error| match (expected, actual) {
                (Some(expected), Some(actual)) if expected != actual => {
                    PlaceOrFetch::Pin { url, expected, actual }
                }
                _ => error.into(),
            })?;
        task.finish("done");
        Ok(())
    }

    fn place_error(&self, step: &str, source: PlaceOrFetch) -> Error {
        Error::Place {
            layer: self.layer.name.clone(),
            step: step.to_owned(),
            source: Box::new(source),
        }
    }
}

/// A file to come.
struct Download {
    url: String,
    to: String,
    expected: Option<Digest>,
    attributes: Attributes,
}

fn make_folder(path: &Path, mode: u32) -> Result<(), Error> {
    disk::make_dirs(path)?;
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).at("set the mode of", path)?;
    Ok(())
}
