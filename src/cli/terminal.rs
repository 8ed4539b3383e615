//! What happens, shown: bars on a terminal, plain lines in a log, one JSON object a line for
//! scripts. All of it goes to stderr; stdout belongs to the result.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use ocibuild::report::{self, Event, Report, Stream, Unit};
use serde_json::json;

/// How much is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verbosity {
    /// Warnings and errors only.
    Quiet,
    /// What is being done.
    Normal,
    /// Details and the steps' whole output too.
    Verbose,
}

/// Chooses how to show events on this stderr.
pub(crate) fn choose(json: bool, verbosity: Verbosity) -> Arc<dyn Report> {
    if json {
        Arc::new(Json::default())
    } else if verbosity > Verbosity::Quiet && std::io::stderr().is_terminal() {
        Arc::new(Bars::new(verbosity))
    } else {
        Arc::new(Lines { verbosity, tasks: Mutex::default() })
    }
}

fn say(text: std::fmt::Arguments<'_>) {
    // A closed stderr is no reason to stop working.
    writeln!(std::io::stderr().lock(), "{text}").ok();
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes for people: `3.1 GB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    #[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 || value >= 99.5 {
        format!("{value:.0} {}", UNITS[unit])
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

fn amount(count: u64, unit: Unit) -> String {
    match unit {
        Unit::Bytes => bytes(count),
        Unit::Items => count.to_string(),
    }
}

struct Bars {
    verbosity: Verbosity,
    all: MultiProgress,
    tasks: Mutex<BTreeMap<u64, ProgressBar>>,
    step: Mutex<Option<ProgressBar>>,
}

impl Bars {
    fn new(verbosity: Verbosity) -> Bars {
        Bars {
            verbosity,
            all: MultiProgress::new(),
            tasks: Mutex::default(),
            step: Mutex::default(),
        }
    }

    fn line(&self, text: &str) {
        self.all.println(text).ok();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl Report for Bars {
    fn hold(&self, held: bool) {
        if held {
            self.all.clear().ok();
        }
        let target = if held { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        self.all.set_draw_target(target);
    }

    fn event(&self, event: Event<'_>) {
        match event {
            Event::Note(text) => self.line(text),
            Event::Detail(text) => {
                if self.verbosity >= Verbosity::Verbose {
                    self.line(text);
                }
            }
            Event::Warning(text) => self.line(&format!("warning: {text}")),
            Event::TaskStarted { id, name, total, unit } => {
                let bar = match (total, unit) {
                    (Some(total), Unit::Bytes) => ProgressBar::new(total).with_style(style(
                        "  {msg:36!} {bar:24} {decimal_bytes:>10}/{decimal_total_bytes:<10} {decimal_bytes_per_sec:>12} {eta:>4}",
                    )),
                    (Some(total), Unit::Items) => ProgressBar::new(total)
                        .with_style(style("  {msg:36!} {bar:24} {pos:>10}/{len:<10} {elapsed:>17}")),
                    (None, Unit::Bytes) => ProgressBar::new_spinner()
                        .with_style(style("  {msg:36!} {spinner} {decimal_bytes:>10} {decimal_bytes_per_sec:>12}")),
                    (None, Unit::Items) => ProgressBar::new_spinner()
                        .with_style(style("  {msg:36!} {spinner} {pos:>10} {elapsed:>6}")),
                };
                // A bar that draws before it belongs to the others leaves its line behind.
                let bar = self.all.add(bar);
                bar.set_message(name.to_owned());
                bar.enable_steady_tick(Duration::from_millis(200));
                lock(&self.tasks).insert(id, bar);
            }
            Event::TaskAdvanced { id, done } => {
                if let Some(bar) = lock(&self.tasks).get(&id) {
                    bar.set_position(done);
                }
            }
            Event::TaskFinished { id, name, outcome } => {
                if let Some(bar) = lock(&self.tasks).remove(&id) {
                    let (position, elapsed) = (bar.position(), bar.elapsed());
                    bar.finish_and_clear();
                    self.all.remove(&bar);
                    let long = elapsed > Duration::from_secs(1) && outcome != report::STOPPED;
                    if long || outcome == "failed" {
                        self.line(&format!(
                            "  {name}: {outcome} ({position}, {:.1} s)",
                            elapsed.as_secs_f64()
                        ));
                    }
                }
            }
            Event::Output { layer, step, line, .. } => {
                if self.verbosity >= Verbosity::Verbose {
                    self.line(&format!("  {layer}/{step} | {line}"));
                    return;
                }
                let mut slot = lock(&self.step);
                let bar = slot.get_or_insert_with(|| {
                    self.all
                        .add(ProgressBar::new_spinner().with_style(style("  {spinner} {wide_msg}")))
                });
                bar.set_message(format!("{layer}/{step} | {line}"));
                bar.tick();
            }
        }
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        if let Some(bar) = lock(&self.step).take() {
            bar.finish_and_clear();
        }
        self.all.clear().ok();
    }
}

struct LineTask {
    total: Option<u64>,
    unit: Unit,
    name: String,
    started: Instant,
    said: Instant,
    done: u64,
}

struct Lines {
    verbosity: Verbosity,
    tasks: Mutex<BTreeMap<u64, LineTask>>,
}

/// How often a long task says in a log how far it is.
const INTERVAL: Duration = Duration::from_secs(10);

impl Report for Lines {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::Warning(text) => say(format_args!("warning: {text}")),
            _ if self.verbosity == Verbosity::Quiet => {}
            Event::Note(text) => say(format_args!("{text}")),
            Event::Detail(text) => {
                if self.verbosity >= Verbosity::Verbose {
                    say(format_args!("{text}"));
                }
            }
            Event::TaskStarted { id, name, total, unit } => {
                let now = Instant::now();
                let task = LineTask {
                    total,
                    unit,
                    name: name.to_owned(),
                    started: now,
                    said: now,
                    done: 0,
                };
                lock(&self.tasks).insert(id, task);
            }
            Event::TaskAdvanced { id, done } => {
                let mut tasks = lock(&self.tasks);
                let Some(task) = tasks.get_mut(&id) else { return };
                task.done = done;
                if task.said.elapsed() < INTERVAL {
                    return;
                }
                task.said = Instant::now();
                match task.total {
                    Some(total) => say(format_args!(
                        "  {}: {} of {}",
                        task.name,
                        amount(done, task.unit),
                        amount(total, task.unit)
                    )),
                    None => say(format_args!("  {}: {}", task.name, amount(done, task.unit))),
                }
            }
            Event::TaskFinished { id, name, outcome } => {
                let Some(task) = lock(&self.tasks).remove(&id) else { return };
                // Those that another's failure stopped have nothing to add.
                if outcome == report::STOPPED {
                    return;
                }
                say(format_args!(
                    "  {name}: {outcome} ({}, {:.1} s)",
                    amount(task.done, task.unit),
                    task.started.elapsed().as_secs_f64()
                ));
            }
            Event::Output { layer, step, line, .. } => {
                say(format_args!("  {layer}/{step} | {line}"));
            }
        }
    }
}

/// How often a task says in the stream of events how far it is.
const EVERY: Duration = Duration::from_millis(500);

#[derive(Default)]
struct Json {
    said: Mutex<BTreeMap<u64, Instant>>,
}

impl Json {
    /// Tells whether a task may speak again.
    fn is_due(&self, id: u64) -> bool {
        let mut said = lock(&self.said);
        match said.get(&id) {
            Some(last) if last.elapsed() < EVERY => false,
            _ => {
                said.insert(id, Instant::now());
                true
            }
        }
    }
}

impl Report for Json {
    fn event(&self, event: Event<'_>) {
        let unit = |unit: Unit| match unit {
            Unit::Bytes => "bytes",
            Unit::Items => "items",
        };
        let object = match event {
            Event::Note(text) => json!({"event": "note", "text": text}),
            Event::Detail(text) => json!({"event": "detail", "text": text}),
            Event::Warning(text) => json!({"event": "warning", "text": text}),
            Event::TaskStarted { id, name, total, unit: of } => {
                json!({"event": "started", "task": id, "name": name, "total": total, "unit": unit(of)})
            }
            Event::TaskAdvanced { id, .. } if !self.is_due(id) => return,
            Event::TaskAdvanced { id, done } => {
                json!({"event": "advanced", "task": id, "done": done})
            }
            Event::TaskFinished { id, name, outcome } => {
                lock(&self.said).remove(&id);
                json!({"event": "finished", "task": id, "name": name, "outcome": outcome})
            }
            Event::Output { layer, step, stream, line } => {
                let stream = match stream {
                    Stream::Out => "stdout",
                    Stream::Err => "stderr",
                };
                json!({"event": "output", "layer": layer, "step": step, "stream": stream, "line": line})
            }
        };
        say(format_args!("{object}"));
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn sizes_are_short() {
        assert_eq!(super::bytes(999), "999 B");
        assert_eq!(super::bytes(1_000), "1.0 kB");
        assert_eq!(super::bytes(3_140_000_000), "3.1 GB");
        assert_eq!(super::bytes(999_600_000), "1.0 GB");
    }
}
