//! The machine as the command finds it: environment, folders, threads, clock and terminal, read
//! once. Past this file nothing asks for them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use ocibuild::disk;
use ocibuild::oci::Digest;
use ocibuild::ops;
use ocibuild::report::Report;
use ocibuild::rootfs::{self, TreeRequest};
use ocibuild::sandbox;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::Global;
use super::terminal::{self, Verbosity};

/// Whether a signal is ending the process.
static ENDING: AtomicBool = AtomicBool::new(false);

/// The exit code by which the inner process asks to be started again with one id. No command has it.
const UNFIT: u8 = 97;

/// What every command needs to know.
pub(crate) struct Context {
    pub(crate) json: bool,
    /// The folder that relative names start from.
    pub(crate) folder: PathBuf,
    store: PathBuf,
    scratch: Option<PathBuf>,
    tree: TreeRequest,
    memory: Option<u64>,
    disk: Option<u64>,
    threads: usize,
    env: BTreeMap<String, String>,
    request: sandbox::Request,
    verbosity: Verbosity,
    /// Set once inside the namespace.
    mode: Option<sandbox::Mode>,
    now: u64,
    report: Arc<dyn Report>,
}

impl Context {
    pub(crate) fn new(global: &Global) -> Result<Context, ops::Error> {
        let env: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        #[expect(clippy::disallowed_methods, reason = "the working folder is read here")]
        let folder = std::env::current_dir().map_err(ops::Error::NoFolder)?;
        #[expect(clippy::disallowed_methods, reason = "the clock is read here")]
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let store = match &global.store {
            Some(path) => folder.join(path),
            None => default_store(&env)?,
        };
        let scratch = match &global.scratch {
            Some(path) => Some(folder.join(path)),
            None => ["SLURM_TMPDIR", "TMPDIR"]
                .iter()
                .filter_map(|name| env.get(*name))
                .map(PathBuf::from)
                .find(|path| {
                    // One on a network must be named.
                    path.is_absolute() && path.is_dir() && !rootfs::is_network(path)
                }),
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let verbosity = match (global.quiet, global.verbose) {
            (true, _) => Verbosity::Quiet,
            (false, 0) => Verbosity::Normal,
            (false, _) => Verbosity::Verbose,
        };
        Ok(Context {
            json: global.json,
            folder,
            store,
            scratch,
            tree: global.tree.into(),
            memory: global.memory,
            disk: global.disk,
            threads: global.threads.map_or(cores, usize::from),
            env,
            request: global.mode.map_or(sandbox::Request::Auto, Into::into),
            verbosity,
            mode: None,
            now,
            report: terminal::choose(global.json, verbosity),
        })
    }

    /// Enters the namespace in which the caller is root. Returns an exit code in the outer process,
    /// when the inner one has ended.
    pub(crate) fn enter(&mut self) -> Result<Option<ExitCode>, ops::Error> {
        self.enter_as(self.request)
    }

    /// Does the same for what makes trees: where the folders for them don't take the owners of the
    /// best mode, it is done with one id.
    pub(crate) fn enter_for_trees(&mut self) -> Result<Option<ExitCode>, ops::Error> {
        let entered = self.enter()?;
        if entered == Some(ExitCode::from(UNFIT)) {
            return self.enter_as(sandbox::Request::Single);
        }
        let chosen = matches!(self.request, sandbox::Request::Auto);
        if entered.is_none() && chosen && self.mode != Some(sandbox::Mode::Single) {
            for dir in std::iter::once(&self.store).chain(&self.scratch) {
                // A folder that can't be made is another matter, which shows later.
                if ocibuild::disk::make_dirs(dir).is_err() {
                    continue;
                }
                if let Err(why) = ocibuild::rootfs::probe_owners(dir) {
                    self.report.note(&format!("{}: {why}; so with one id", dir.display()));
                    return Ok(Some(ExitCode::from(UNFIT)));
                }
            }
        }
        Ok(entered)
    }

    fn enter_as(&mut self, request: sandbox::Request) -> Result<Option<ExitCode>, ops::Error> {
        match sandbox::enter(request)? {
            sandbox::Entry::Inside(entered) => {
                self.mode = Some(entered.mode);
                Ok(None)
            }
            sandbox::Entry::Ended(code) => Ok(Some(ExitCode::from(code))),
        }
    }

    /// Ends the process on Ctrl-C and its kin: steps are killed, temporary files removed.
    pub(crate) fn watch_signals() -> Result<(), ops::Error> {
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(ops::Error::Signals)?;
        std::thread::spawn(move || {
            if let Some(signal) = signals.forever().next() {
                ENDING.store(true, Ordering::SeqCst);
                ops::abandon();
                std::process::exit(128 + signal);
            }
        });
        Ok(())
    }

    /// Leaves the last word to the signal that ends the process, if there is one: the step that it
    /// has killed is no failure to tell of.
    pub(crate) fn yield_to_signal() {
        while ENDING.load(Ordering::SeqCst) {
            std::thread::park();
        }
    }

    /// What the operations get of all this.
    pub(crate) fn ops(&self) -> ops::Context<'_> {
        ops::Context {
            store: &self.store,
            scratch: self.scratch.as_deref(),
            tree: self.tree,
            memory: self.memory,
            disk: self.disk,
            threads: self.threads,
            env: &self.env,
            mode: self.mode,
            now: self.now,
            report: &self.report,
        }
    }

    /// Returns the mode that was asked for, as `--mode` takes it.
    pub(crate) fn requested_mode(&self) -> Option<String> {
        let mode = match self.request {
            sandbox::Request::Auto => return None,
            sandbox::Request::Root => "root",
            sandbox::Request::Range => "range",
            sandbox::Request::Single => "single",
        };
        Some(mode.to_owned())
    }

    /// Returns the arguments by which another process tells as much as this one does.
    pub(crate) fn telling(&self) -> Vec<String> {
        let mut arguments = Vec::new();
        if self.json {
            arguments.push("--json".to_owned());
        }
        match self.verbosity {
            Verbosity::Quiet => arguments.push("--quiet".to_owned()),
            Verbosity::Normal => {}
            Verbosity::Verbose => arguments.push("--verbose".to_owned()),
        }
        arguments
    }

    /// Says something.
    pub(crate) fn note(&self, text: &str) {
        self.report.note(text);
    }

    /// Says something that should not be missed.
    pub(crate) fn warning(&self, text: &str) {
        self.report.warning(text);
    }

    /// Returns a variable of the caller's environment.
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        self.env.get(name).map(String::as_str)
    }

    /// Writes digests to the file that `--digest-file` names, one a line.
    pub(crate) fn write_digests(
        &self,
        path: Option<&Path>,
        digests: impl Iterator<Item = Digest>,
    ) -> Result<(), ops::Error> {
        let Some(path) = path else { return Ok(()) };
        let lines: String = digests.map(|digest| format!("{digest}\n")).collect();
        Ok(disk::write_whole(&self.absolute(path), lines.as_bytes())?)
    }

    /// Makes a path on the command line absolute.
    pub(crate) fn absolute(&self, path: &Path) -> PathBuf {
        self.folder.join(path)
    }
}

fn default_store(env: &BTreeMap<String, String>) -> Result<PathBuf, ops::Error> {
    let absolute = |name: &str| env.get(name).map(PathBuf::from).filter(|path| path.is_absolute());
    if let Some(data) = absolute("XDG_DATA_HOME") {
        return Ok(data.join("ocibuild"));
    }
    match absolute("HOME") {
        Some(home) => Ok(home.join(".local/share/ocibuild")),
        None => Err(ops::Error::NoStore),
    }
}
