//! Text with variables in braces: `https://host/tool-{version}-{arch}.deb`. A brace itself is
//! written twice. Values come in two rounds: what a plan knows, then what the tree says of itself.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Serialize, Serializer};

use super::{File, Problems, Span, Text, nearest};

/// Which variables a text may name.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// Names that have a value here.
    pub names: BTreeSet<String>,
    /// Names that have a value elsewhere only, and why not here.
    pub elsewhere: BTreeSet<String>,
    /// The reason for `elsewhere`, as `is known only once …`.
    pub reason: &'static str,
    /// Whether names in capitals stand for the image's own environment.
    pub environment: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Variable(String),
}

/// A text whose variables may be without a value yet.
#[derive(Clone, Debug)]
pub struct Template {
    parts: Vec<Part>,
    span: Span,
}

// Where a text stands is no part of what it says.
impl PartialEq for Template {
    fn eq(&self, other: &Template) -> bool {
        self.parts == other.parts
    }
}

impl Eq for Template {}

impl Template {
    /// Takes a text that has no variables.
    pub fn literal(text: impl Into<String>) -> Template {
        let mut template = Template { parts: Vec::new(), span: 0..0 };
        template.push(&text.into());
        template
    }

    /// Reads a text; unknown variables and single braces are problems.
    pub fn parse(text: &Text, scope: &Scope, file: &File, problems: &Problems) -> Template {
        let mut template = Template { parts: Vec::new(), span: text.span.clone() };
        let mut rest = text.value.as_str();
        let mut seen = text.span.start;
        let mut wrong = |needle: &str, message: String| {
            let at = file.find_in(&text.span, seen, needle);
            if at != text.span {
                seen = at.end;
            }
            problems.meaning(file, at, message);
        };
        if text.value.contains('\0') {
            wrong("\\u0000", "a zero byte can't be in here".to_owned());
        }
        while let Some(at) = rest.find(['{', '}']) {
            let (ahead, brace) = rest.split_at(at);
            template.push(ahead);
            if let Some(after) = brace.strip_prefix("{{") {
                template.push("{");
                rest = after;
            } else if let Some(after) = brace.strip_prefix("}}") {
                template.push("}");
                rest = after;
            } else if let Some((name, after)) = variable(brace) {
                if ahead.ends_with('$') {
                    let message = format!("variables are written `{{{name}}}`, without `$`");
                    wrong(&format!("${{{name}}}"), message);
                } else if let Some(message) = scope.refuses(name) {
                    wrong(&format!("{{{name}}}"), message);
                }
                template.parts.push(Part::Variable(name.to_owned()));
                rest = after;
            } else {
                let single = &brace[..1];
                wrong(single, format!("a `{single}` that begins no variable is written twice"));
                rest = &brace[1..];
            }
        }
        template.push(rest);
        template
    }

    /// Returns where the text stands in its file.
    pub fn span(&self) -> Span {
        self.span.clone()
    }

    /// Returns the names of the variables that have no value yet.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Variable(name) => Some(name.as_str()),
            Part::Text(_) => None,
        })
    }

    /// Fills in the variables that `value` knows and leaves the others for later.
    #[must_use]
    pub fn fill(&self, value: &dyn Fn(&str) -> Option<String>) -> Template {
        let mut filled = Template { parts: Vec::new(), span: self.span.clone() };
        for part in &self.parts {
            match part {
                Part::Text(text) => filled.push(text),
                Part::Variable(name) => match value(name) {
                    Some(text) => filled.push(&text),
                    None => filled.parts.push(part.clone()),
                },
            }
        }
        filled
    }

    /// Returns the text when every variable has its value, else the first name that has none.
    pub fn finished(&self) -> Result<String, &str> {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(part) => text.push_str(part),
                Part::Variable(name) => return Err(name),
            }
        }
        Ok(text)
    }

    fn push(&mut self, text: &str) {
        match self.parts.last_mut() {
            Some(Part::Text(last)) => last.push_str(text),
            _ if text.is_empty() => {}
            _ => self.parts.push(Part::Text(text.to_owned())),
        }
    }
}

/// Splits `{name}…` into its name and what follows.
fn variable(text: &str) -> Option<(&str, &str)> {
    let (name, after) = text.strip_prefix('{')?.split_once('}')?;
    let good = !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    good.then_some((name, after))
}

impl Scope {
    /// Returns what is wrong with naming a variable here.
    fn refuses(&self, name: &str) -> Option<String> {
        let capital =
            name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
        if self.names.contains(name) || (capital && self.environment) {
            return None;
        }
        if self.elsewhere.contains(name) {
            return Some(format!("`{{{name}}}` {}", self.reason));
        }
        let known = || self.names.iter().map(String::as_str);
        if let Some(meant) = nearest(name, known()) {
            return Some(format!("unknown variable `{{{name}}}`; did you mean `{{{meant}}}`?"));
        }
        let known: Vec<String> = known().map(|name| format!("{{{name}}}")).collect();
        let known = if known.is_empty() {
            "none is known here".to_owned()
        } else {
            format!("there are {}", crate::fault::list_of(&known))
        };
        Some(format!("unknown variable `{{{name}}}`; {known} (a brace itself is written twice)"))
    }
}

// Written as it is read: braces twice, what has no value yet in braces.
impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.parts {
            match part {
                Part::Text(text) => f.write_str(&text.replace('{', "{{").replace('}', "}}"))?,
                Part::Variable(name) => write!(f, "{{{name}}}")?,
            }
        }
        Ok(())
    }
}

impl Serialize for Template {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Template, Vec<String>) {
        let source = format!("url = '{text}'");
        let file = File::of_text("f", source.clone());
        let problems = Problems::new();
        let scope = Scope {
            names: ["version", "arch", "codename"].map(str::to_owned).into(),
            elsewhere: ["release".to_owned()].into(),
            reason: "is known later",
            environment: true,
        };
        let text = Text { value: text.to_owned(), span: 6..source.len() };
        let template = Template::parse(&text, &scope, &file, &problems);
        let told = match problems.finish(Some(())) {
            Ok(()) => Vec::new(),
            Err(error) => error.problems().iter().map(super::super::Problem::headline).collect(),
        };
        (template, told)
    }

    #[test]
    fn values_come_in_two_rounds() {
        let (template, told) = read("a-{version}-{arch}/{codename}:{PATH}{{x}}");
        assert_eq!(told, [""; 0]);
        let planned = template.fill(&|name| match name {
            "version" => Some("1{2".to_owned()),
            "arch" => Some("arm64".to_owned()),
            "PATH" => Some("/bin".to_owned()),
            _ => None,
        });
        assert_eq!(planned.to_string(), "a-1{{2-arm64/{codename}:/bin{{x}}");
        assert_eq!(planned.finished(), Err("codename"));
        let done = planned.fill(&|_| Some("noble".to_owned()));
        assert_eq!(done.finished(), Ok("a-1{2-arm64/noble:/bin{x}".to_owned()));
    }

    #[test]
    fn what_is_not_known_is_told_where_it_stands() {
        let (_, told) = read("{versoin}-${arch}-{release}-{nonsense}-{ }");
        assert_eq!(
            told,
            [
                "f:1:8: unknown variable `{versoin}`; did you mean `{version}`?",
                "f:1:18: variables are written `{arch}`, without `$`",
                "f:1:26: `{release}` is known later",
                "f:1:36: unknown variable `{nonsense}`; there are `{arch}`, `{codename}` and \
                 `{version}` (a brace itself is written twice)",
                "f:1:47: a `{` that begins no variable is written twice",
                "f:1:49: a `}` that begins no variable is written twice",
            ]
        );
    }
}
