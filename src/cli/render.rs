//! Errors and results on their way to the user: `error:` what could not be done, `cause:` why,
//! `hint:` what to try. The only place that turns an error into text and an exit code.

use std::error::Error as _;
use std::io::Write;
use std::process::ExitCode;

use ocibuild::fault::Fault;
use ocibuild::ops;
use serde::Serialize;
use serde_json::json;

/// Renders an error on stderr and returns its exit code.
pub(crate) fn error(error: &ops::Error, as_json: bool) -> ExitCode {
    let mut causes = Vec::new();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        // A wrapper that repeats its source would say everything twice.
        if causes.last() != Some(&text) {
            causes.push(text);
        }
        source = cause.source();
    }
    let (kind, hint) = (error.kind(), error.hint());
    let mut err = std::io::stderr().lock();
    let written = if as_json {
        let object = json!({
            "event": "error", "error": error.to_string(), "causes": causes, "hint": hint,
            "exit_code": kind.exit_code(),
        });
        writeln!(err, "{object}")
    } else {
        let mut text = format!("error: {error}\n");
        for cause in causes {
            text.push_str(&format!("cause: {cause}\n"));
        }
        if let Some(hint) = hint {
            text.push_str(&format!("hint: {hint}\n"));
        }
        write!(err, "{text}")
    };
    // Nowhere is left to say that stderr is closed.
    written.ok();
    ExitCode::from(kind.exit_code())
}

/// Prints a result: as JSON where it was asked for, else as `text`.
pub(crate) fn result<T: Serialize>(
    value: &T,
    as_json: bool,
    text: impl FnOnce(&T) -> String,
) -> super::Outcome {
    let text = if as_json {
        let mut text = serde_json::to_string_pretty(value).map_err(ops::Error::Encode)?;
        text.push('\n');
        text
    } else {
        text(value)
    };
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // `ocibuild show | head` is no failure.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Err(error) => Err(ops::Error::Output(error)),
        Ok(()) => Ok(ExitCode::SUCCESS),
    }
}

/// Lays rows out in columns; the last column is not padded.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            rows.iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            if column + 1 == row.len() {
                text.push_str(cell);
            } else {
                text.push_str(&format!("{cell:width$}  ", width = widths[column]));
            }
        }
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }
    text
}
