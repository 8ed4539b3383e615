//! A text file that a user wrote, with the positions in it.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Position, Problems};
use crate::disk;

/// Where something stands in a file, in bytes.
pub type Span = Range<usize>;

/// The most bytes that a file which people write may have.
const LIMIT: u64 = 4 << 20;

/// A file's text under the name that its problems are told with.
#[derive(Debug, PartialEq, Eq)]
pub struct File {
    path: PathBuf,
    text: String,
}

impl File {
    /// Takes a text that is at hand.
    pub fn of_text(path: impl Into<PathBuf>, text: impl Into<String>) -> Arc<File> {
        Arc::new(File { path: path.into(), text: text.into() })
    }

    /// Reads a file; one that can't be read, or is no UTF-8, is a problem.
    pub fn read(path: &Path, problems: &Problems) -> Option<Arc<File>> {
        File::read_up_to(path, LIMIT, problems)
    }

    /// Reads a file of at most `limit` bytes, which a program has written.
    pub fn read_up_to(path: &Path, limit: u64, problems: &Problems) -> Option<Arc<File>> {
        let bytes = match disk::read(path, limit) {
            Ok(bytes) => bytes,
            Err(error) => {
                problems.about(path, format!("cannot be read: {}", error.io()));
                return None;
            }
        };
        match String::from_utf8(bytes) {
            Ok(text) => Some(File::of_text(path, text)),
            Err(error) => {
                let good = error.utf8_error().valid_up_to();
                let lossy = String::from_utf8_lossy(error.as_bytes()).into_owned();
                let file = File::of_text(path, lossy);
                problems.shape(&file, good..good + 1, "is not UTF-8 from here on");
                None
            }
        }
    }

    /// Returns the path that the file was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the whole text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the number of the line where something begins.
    pub fn line(&self, span: &Span) -> u32 {
        self.position(span).line
    }

    /// Returns the line and the column of a place, and how many characters of that line it covers.
    pub(super) fn position(&self, span: &Span) -> Position {
        let start = floor(&self.text, span.start);
        let line_start = self.text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = self.text[start..].find('\n').map_or(self.text.len(), |end| start + end);
        let end = floor(&self.text, span.end).clamp(start, line_end);
        let count = |text: &str| u32::try_from(text.chars().count()).unwrap_or(u32::MAX);
        let lines = self.text[..start].bytes().filter(|byte| *byte == b'\n').count();
        Position {
            line: u32::try_from(lines + 1).unwrap_or(u32::MAX),
            column: count(&self.text[line_start..start]).saturating_add(1),
            length: count(&self.text[start..end]).max(1),
            source: self.text[line_start..line_end].trim_end_matches('\r').to_owned(),
        }
    }

    /// Returns the first place of `needle` at or after `from` inside `span`, else `span`.
    pub(super) fn find_in(&self, span: &Span, from: usize, needle: &str) -> Span {
        let start = floor(&self.text, span.start.max(from));
        let end = floor(&self.text, span.end).max(start);
        match self.text[start..end].find(needle) {
            Some(at) => start + at..start + at + needle.len(),
            None => span.clone(),
        }
    }
}

/// Returns the nearest boundary between characters at or before `at`.
fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_characters_from_one() {
        let file = File::of_text("x", "a = 1\r\nñandú = 2\n");
        let at = file.text().find("ú").unwrap();
        let position = file.position(&(at..at + 2));
        assert_eq!((position.line, position.column, position.length), (2, 5, 1));
        assert_eq!(position.source, "ñandú = 2");
        let past = file.position(&(9999..10_000));
        assert_eq!((past.line, past.column), (3, 1));
        let first = file.position(&(0..9999));
        assert_eq!((first.length, first.source.as_str()), (6, "a = 1"));
    }
}
