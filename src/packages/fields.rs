//! Paragraphs of `Field: value` lines with folded continuations, as Debian's control files, R's
//! `DESCRIPTION` and Python's metadata have them.

/// A paragraph; names as they were written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Paragraph(Vec<(String, String)>);

impl Paragraph {
    /// Reads the first paragraph; what comes after an empty line is not looked at.
    pub(super) fn first(text: &str) -> Paragraph {
        all(text).next().unwrap_or_default()
    }

    /// Returns a field's value, if it says something.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(has, value)| has.eq_ignore_ascii_case(name) && !value.is_empty())
            .map(|(_, value)| value.as_str())
    }

    /// Returns the values of a field that may come several times.
    pub(super) fn every<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(has, value)| has.eq_ignore_ascii_case(name) && !value.is_empty())
            .map(|(_, value)| value.as_str())
    }

    /// Returns a field's value to keep.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.get(name).map(str::to_owned)
    }
}

/// Reads all paragraphs. The lines of a folded value are joined by a space.
pub(super) fn all(text: &str) -> impl Iterator<Item = Paragraph> + '_ {
    let mut lines = text.lines();
    std::iter::from_fn(move || {
        let mut fields: Vec<(String, String)> = Vec::new();
        for line in lines.by_ref() {
            let line = line.trim_end();
            if line.is_empty() {
                if fields.is_empty() {
                    continue;
                }
                break;
            }
            if line.starts_with([' ', '\t']) {
                if let Some((_, value)) = fields.last_mut() {
                    let more = line.trim_start();
                    if !value.is_empty() && more != "." {
                        value.push(' ');
                    }
                    value.push_str(if more == "." { "" } else { more });
                }
            } else if let Some((name, value)) = line.split_once(':') {
                fields.push((name.trim_end().to_owned(), value.trim().to_owned()));
            }
        }
        (!fields.is_empty()).then_some(Paragraph(fields))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folded_values_are_joined_and_paragraphs_kept_apart() {
        let text = "\n\nPackage: a\nDescription: short\n long\n .\n more\nEmpty:\n\n\npackage: b\n";
        let found: Vec<Paragraph> = all(text).collect();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].get("description"), Some("short long more"));
        assert_eq!(found[0].get("Empty"), None);
        assert_eq!(found[1].get("Package"), Some("b"));
        assert_eq!(Paragraph::first("").get("x"), None);
    }
}
