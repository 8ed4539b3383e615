//! Progress and messages as events. A room tells what happens through [`Report`]; the terminal,
//! the log and the JSON stream that show it live in `cli`, and [`Silent`] shows nothing.

use std::sync::atomic::{AtomicU64, Ordering};

/// Which of a step's streams a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// The step's standard output.
    Out,
    /// The step's standard error.
    Err,
}

/// What a task's numbers count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes of a transfer or of a file.
    Bytes,
    /// Things: entries, layers, steps.
    Items,
}

/// How a task ended that was given up because another one failed.
pub const STOPPED: &str = "stopped";

/// Something that happened, in the words of the room where it happened.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// Worth a line at normal verbosity.
    Note(&'a str),
    /// Worth a line with `-v` only.
    Detail(&'a str),
    /// Something the user should look at, though the work goes on.
    Warning(&'a str),
    /// Work of some length begins; `total` is unknown where it is `None`.
    TaskStarted {
        /// Names the task in later events; unique in the process.
        id: u64,
        /// What is being done to what, as `pull sha256:1234…`.
        name: &'a str,
        /// How much there is to do.
        total: Option<u64>,
        /// What the numbers count.
        unit: Unit,
    },
    /// A task's work so far, from zero.
    TaskAdvanced {
        /// The task.
        id: u64,
        /// How much of it is done.
        done: u64,
    },
    /// A task has ended, as `done`, `exists`, `failed`.
    TaskFinished {
        /// The task.
        id: u64,
        /// The name that it started with.
        name: &'a str,
        /// How it ended, in a word or two.
        outcome: &'a str,
    },
    /// A line that a build step wrote.
    Output {
        /// The layer being made.
        layer: &'a str,
        /// The step's name.
        step: &'a str,
        /// Where it wrote.
        stream: Stream,
        /// The line, without its end; lossily decoded.
        line: &'a str,
    },
}

/// Receives what happens. Called from several threads at once.
pub trait Report: Sync + Send {
    /// Takes note of one event.
    fn event(&self, event: Event<'_>);

    /// Leaves the terminal to a person's shell while `held`, as far as it draws on one.
    fn hold(&self, held: bool) {
        let _ = held;
    }

    /// Says something at normal verbosity.
    fn note(&self, text: &str) {
        self.event(Event::Note(text));
    }

    /// Says something with `-v` only.
    fn detail(&self, text: &str) {
        self.event(Event::Detail(text));
    }

    /// Says something that the user should look at.
    fn warning(&self, text: &str) {
        self.event(Event::Warning(text));
    }
}

/// Shows nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Report for Silent {
    fn event(&self, _: Event<'_>) {}
}

static NEXT_TASK: AtomicU64 = AtomicU64::new(1);

/// A running task. It reports itself as failed when dropped before [`Task::finish`].
pub struct Task<'r> {
    report: &'r dyn Report,
    id: u64,
    name: String,
    done: AtomicU64,
    finished: bool,
}

impl std::fmt::Debug for Task<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Task")
            .field("id", &self.id)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl<'r> Task<'r> {
    /// Announces a task of `total` units.
    pub fn start(report: &'r dyn Report, name: String, total: Option<u64>, unit: Unit) -> Task<'r> {
        let id = NEXT_TASK.fetch_add(1, Ordering::Relaxed);
        report.event(Event::TaskStarted { id, name: &name, total, unit });
        Task { report, id, name, done: AtomicU64::new(0), finished: false }
    }

    /// Adds to what is done. May be called from several threads.
    pub fn advance(&self, by: u64) {
        let done = self.done.fetch_add(by, Ordering::Relaxed) + by;
        self.report.event(Event::TaskAdvanced { id: self.id, done });
    }

    /// Starts the count again, as when a transfer has to begin anew.
    pub fn restart(&self, done: u64) {
        self.done.store(done, Ordering::Relaxed);
        self.report.event(Event::TaskAdvanced { id: self.id, done });
    }

    /// Ends the task, saying how.
    pub fn finish(mut self, outcome: &str) {
        self.finished = true;
        self.report.event(Event::TaskFinished { id: self.id, name: &self.name, outcome });
    }
}

impl Drop for Task<'_> {
    fn drop(&mut self) {
        if !self.finished {
            self.report.event(Event::TaskFinished {
                id: self.id,
                name: &self.name,
                outcome: "failed",
            });
        }
    }
}
