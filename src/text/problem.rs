//! What is wrong with what a user wrote, gathered over all files and told in one error.

use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{File, Span};
use crate::fault::{Fault, Kind};

/// How deep a problem lies; a JSON schema sees the first two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Not TOML.
    Syntax,
    /// TOML, but with unknown or missing keys or values of another type.
    Shape,
    /// Well formed, but it can't be done: a name that nothing has, a file that isn't there.
    Meaning,
}

/// A place in a file, counted from one, in characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Position {
    /// The line.
    pub line: u32,
    /// The column of its first character.
    pub column: u32,
    /// How many characters of the line it covers; at least one.
    pub length: u32,
    /// The whole line as it stands in the file.
    pub source: String,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// Where in it; `None` when the file as a whole is meant.
    pub position: Option<Position>,
    /// What is wrong, in a line.
    pub message: String,
    /// How deep it lies.
    pub class: Class,
}

/// The widest piece of a source line that is shown.
const WIDTH: usize = 100;

impl Problem {
    /// Returns `file:line:column: message`, as editors and CI logs understand it.
    pub fn headline(&self) -> String {
        match &self.position {
            Some(at) => {
                format!("{}:{}:{}: {}", self.file.display(), at.line, at.column, self.message)
            }
            None => format!("{}: {}", self.file.display(), self.message),
        }
    }

    /// Returns the source line and the carets below it; nothing without a position.
    pub fn excerpt(&self) -> Option<String> {
        let at = self.position.as_ref()?;
        // What stands in a file may be meant for the terminal: controls never reach it.
        let source: Vec<char> = at
            .source
            .chars()
            .map(|c| if c == '\t' { ' ' } else { c })
            .map(|c| if c.is_control() { '\u{fffd}' } else { c })
            .collect();
        let column = at.column as usize - 1;
        let from = if column + at.length.min(20) as usize > WIDTH { column - 20 } else { 0 };
        let shown: String = source.iter().skip(from).take(WIDTH).collect();
        let ahead = if from > 0 { "…" } else { "" };
        let behind = if source.len() > from + WIDTH { "…" } else { "" };
        let number = at.line.to_string();
        let pad = " ".repeat(number.len());
        let indent = " ".repeat(column - from + ahead.chars().count());
        let carets = "^".repeat((at.length as usize).min(WIDTH - (column - from).min(WIDTH - 1)));
        Some(format!(
            "  {number} | {ahead}{}{behind}\n  {pad} | {indent}{carets}",
            shown.trim_end()
        ))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.headline())?;
        match self.excerpt() {
            Some(excerpt) => write!(f, "\n{excerpt}"),
            None => Ok(()),
        }
    }
}

/// Gathers problems; shared by all who read the same set of files.
#[derive(Debug, Default)]
pub struct Problems {
    list: RefCell<Vec<Problem>>,
}

impl Problems {
    /// Starts with none.
    pub fn new() -> Problems {
        Problems::default()
    }

    /// Notes a wrong shape: an unknown or missing key, another type.
    pub fn shape(&self, file: &File, span: Span, message: impl Into<String>) {
        self.add(file, &span, Class::Shape, message.into());
    }

    /// Notes something that is well formed but can't be.
    pub fn meaning(&self, file: &File, span: Span, message: impl Into<String>) {
        self.add(file, &span, Class::Meaning, message.into());
    }

    /// Notes something about a file or folder as a whole.
    pub fn about(&self, path: &Path, message: impl Into<String>) {
        let (file, message) = (path.to_owned(), message.into());
        self.list.borrow_mut().push(Problem {
            file,
            position: None,
            message,
            class: Class::Meaning,
        });
    }

    pub(super) fn add(&self, file: &File, span: &Span, class: Class, message: String) {
        let position = file.position(span);
        let mut list = self.list.borrow_mut();
        // What follows from a line that could not be read is noise.
        let broken = class != Class::Syntax
            && list.iter().any(|has| {
                has.class == Class::Syntax
                    && has.file == file.path()
                    && has.position.as_ref().is_some_and(|at| at.line == position.line)
            });
        if !broken {
            let file = file.path().to_owned();
            list.push(Problem { file, position: Some(position), message, class });
        }
    }

    /// Tells whether a file could not be read as TOML.
    pub(super) fn broken(&self, file: &File) -> bool {
        let list = self.list.borrow();
        list.iter().any(|has| has.class == Class::Syntax && has.file == file.path())
    }

    /// Tells whether nothing is wrong so far.
    pub fn is_empty(&self) -> bool {
        self.list.borrow().is_empty()
    }

    /// Returns how many there are, to see later whether some were added.
    pub fn count(&self) -> usize {
        self.list.borrow().len()
    }

    /// Returns the value when nothing is wrong, else everything that is.
    pub fn finish<T>(self, value: Option<T>) -> Result<T, Error> {
        let mut list = self.list.into_inner();
        match value {
            Some(value) if list.is_empty() => Ok(value),
            _ => {
                // By file, line and column, whatever the order in which they were found.
                list.sort();
                list.dedup();
                Err(Error { problems: list })
            }
        }
    }
}

/// Everything that is wrong with a set of files, sorted by file, line and column.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[must_use]
pub struct Error {
    problems: Vec<Problem>,
}

impl Error {
    /// Returns the problems, one or more.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut files: Vec<String> =
            self.problems.iter().map(|problem| problem.file.display().to_string()).collect();
        files.dedup();
        match self.problems.len() {
            1 => write!(f, "there is a problem in ")?,
            count => write!(f, "there are {count} problems in ")?,
        }
        match files.len() {
            1..=3 => f.write_str(&crate::fault::list_of(&files))?,
            count => write!(f, "{count} files")?,
        }
        let mut text = String::new();
        for problem in &self.problems {
            write!(text, "\n{problem}")?;
        }
        f.write_str(&text)
    }
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        Kind::Usage
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_problems_are_told_sorted_with_their_lines() {
        let file = File::of_text("manifests/mine.toml", "image = 1\nbse = \"ml\"\n");
        let problems = Problems::new();
        problems.shape(&file, 10..13, "unknown key `bse`");
        problems.shape(&file, 8..9, "`image` must be text");
        problems.about(Path::new("layers/x"), "has no `layer.toml`");
        problems.shape(&file, 10..13, "unknown key `bse`");
        let error = problems.finish(Some(())).unwrap_err();
        assert_eq!(error.kind(), Kind::Usage);
        assert_eq!(
            error.to_string(),
            "there are 3 problems in `layers/x` and `manifests/mine.toml`\n\
             layers/x: has no `layer.toml`\n\
             manifests/mine.toml:1:9: `image` must be text\n\
             \x20 1 | image = 1\n\
             \x20   |         ^\n\
             manifests/mine.toml:2:1: unknown key `bse`\n\
             \x20 2 | bse = \"ml\"\n\
             \x20   | ^^^"
        );
    }

    #[test]
    fn an_excerpt_is_short_and_harmless() {
        let long = format!("a = \"{}\u{1b}[31m{}\"", "x".repeat(200), "y".repeat(200));
        let file = File::of_text("f", long);
        let problems = Problems::new();
        problems.meaning(&file, 210..220, "bad");
        let error = problems.finish(Some(())).unwrap_err();
        let excerpt = error.problems()[0].excerpt().unwrap();
        assert!(!excerpt.contains('\u{1b}'));
        for line in excerpt.lines() {
            assert!(line.chars().count() < 120, "{line}");
        }
        let (source, carets) = excerpt.split_once('\n').unwrap();
        let first = carets.chars().position(|c| c == '^').unwrap();
        assert_eq!(source.chars().nth(first), Some('y'));
    }
}
