//! A TOML table that knows which keys it was asked for, so that the rest are unknown ones.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use toml::de::{DeTable, DeValue};

use super::{Class, File, Problems, Span, nearest};

/// A text and where it stands, its quotes included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// What it says.
    pub value: String,
    /// Where it says so.
    pub span: Span,
}

/// A value of a type that the reader chooses.
#[derive(Debug)]
pub enum Item<'a> {
    /// Text.
    Text(Text),
    /// A whole number, as written without its sign's blanks.
    Integer(i64, Span),
    /// `true` or `false`.
    Bool(bool, Span),
    /// A list.
    List(Vec<Item<'a>>, Span),
    /// A table.
    Table(Table<'a>),
    /// Anything else: a number with a fraction, a date; its name in words.
    Other(&'static str, Span),
}

impl Item<'_> {
    /// Returns where it stands.
    pub fn span(&self) -> Span {
        match self {
            Item::Text(text) => text.span.clone(),
            Item::Table(table) => table.span.clone(),
            Item::Integer(_, span)
            | Item::Bool(_, span)
            | Item::List(_, span)
            | Item::Other(_, span) => span.clone(),
        }
    }

    /// Names its type in words.
    pub fn kind(&self) -> &'static str {
        match self {
            Item::Text(_) => "text",
            Item::Integer(..) => "a number",
            Item::Bool(..) => "true or false",
            Item::List(..) => "a list",
            Item::Table(_) => "a table",
            Item::Other(kind, _) => kind,
        }
    }

    /// Returns it as JSON, for what is read by its type's own description; a date and the like, of
    /// which JSON has none, are `null`.
    pub fn into_json(self) -> Value {
        match self {
            Item::Text(text) => Value::String(text.value),
            Item::Integer(number, _) => Value::from(number),
            Item::Bool(value, _) => Value::Bool(value),
            Item::List(items, _) => items.into_iter().map(Item::into_json).collect(),
            Item::Table(table) => Value::Object(
                table.rest.into_iter().map(|(key, (_, item))| (key, item.into_json())).collect(),
            ),
            Item::Other(..) => Value::Null,
        }
    }
}

/// A table of a file being read.
#[derive(Debug)]
pub struct Table<'a> {
    file: &'a File,
    problems: &'a Problems,
    name: String,
    span: Span,
    rest: BTreeMap<String, (Span, Item<'a>)>,
    asked: BTreeSet<&'static str>,
}

impl<'a> Table<'a> {
    /// Reads a file's text. What is no TOML is told, and what could be read in spite of it returned.
    pub fn read(file: &'a File, problems: &'a Problems) -> Table<'a> {
        let (document, errors) = DeTable::parse_recoverable(file.text());
        for error in errors {
            let span = error.span().unwrap_or(0..0);
            problems.add(file, &span, Class::Syntax, error.message().replace('\n', ", "));
        }
        Table::of(file, problems, String::new(), 0..0, document.into_inner())
    }

    fn of(
        file: &'a File,
        problems: &'a Problems,
        name: String,
        span: Span,
        table: DeTable<'a>,
    ) -> Table<'a> {
        let rest = table
            .into_iter()
            .map(|(key, value)| {
                let at = key.span();
                let key = key.into_inner().into_owned();
                let below = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                let span = value.span();
                (key, (at, item(file, problems, &below, span, value.into_inner())))
            })
            .collect();
        Table { file, problems, name, span, rest, asked: BTreeSet::new() }
    }

    /// Returns the file it stands in.
    pub fn file(&self) -> &'a File {
        self.file
    }

    /// Returns where problems go.
    pub fn problems(&self) -> &'a Problems {
        self.problems
    }

    /// Returns where the table stands: its head, or all of it when it is written inline.
    pub fn span(&self) -> Span {
        self.span.clone()
    }

    /// Returns where a key stands that was not taken yet.
    pub fn key_span(&self, key: &str) -> Option<Span> {
        self.rest.get(key).map(|(span, _)| span.clone())
    }

    /// Notes a problem of meaning.
    pub fn wrong(&self, span: Span, message: impl Into<String>) {
        self.problems.meaning(self.file, span, message);
    }

    /// Takes whatever a key has.
    pub fn item(&mut self, key: &'static str) -> Option<Item<'a>> {
        self.asked.insert(key);
        self.rest.remove(key).map(|(_, item)| item)
    }

    /// Notes that a key's value has another type than it should.
    pub fn mistyped(&self, key: &str, wanted: &str, item: &Item<'_>) {
        let quotes = match (wanted, item) {
            ("text", Item::Integer(..) | Item::Bool(..) | Item::Other(..)) => {
                "; write it in quotes"
            }
            _ => "",
        };
        let message = format!("`{key}` must be {wanted}, not {}{quotes}", item.kind());
        self.problems.shape(self.file, item.span(), message);
    }

    /// Takes a text.
    pub fn text(&mut self, key: &'static str) -> Option<Text> {
        match self.item(key)? {
            Item::Text(text) => Some(text),
            other => {
                self.mistyped(key, "text", &other);
                None
            }
        }
    }

    /// Takes a text that has to be there.
    pub fn required_text(&mut self, key: &'static str, example: &str) -> Option<Text> {
        if !self.has(key) {
            self.asked.insert(key);
            self.missing(key, example);
            return None;
        }
        self.text(key)
    }

    /// Notes that a key has to be there; `example` shows how it is written.
    pub fn missing(&self, key: &str, example: &str) {
        // In a file that could not be read to its end it may well be there.
        if !self.problems.broken(self.file) {
            let place =
                if self.name.is_empty() { String::new() } else { format!(" in `{}`", self.name) };
            let message = format!("`{key}` is missing{place}, for instance `{key} = {example}`");
            self.problems.shape(self.file, self.span.clone(), message);
        }
    }

    /// Tells whether a key is there and was not taken yet.
    pub fn has(&self, key: &str) -> bool {
        self.rest.contains_key(key)
    }

    /// Returns the keys of a table that was not taken yet, whatever their values.
    pub fn keys_of(&self, key: &str) -> Vec<String> {
        match self.rest.get(key) {
            Some((_, Item::Table(table))) => table.rest.keys().cloned().collect(),
            _ => Vec::new(),
        }
    }

    /// Takes `true` or `false`.
    pub fn bool(&mut self, key: &'static str) -> Option<(bool, Span)> {
        match self.item(key)? {
            Item::Bool(value, span) => Some((value, span)),
            other => {
                self.mistyped(key, "true or false", &other);
                None
            }
        }
    }

    /// Takes a whole number.
    pub fn integer(&mut self, key: &'static str) -> Option<(i64, Span)> {
        match self.item(key)? {
            Item::Integer(value, span) => Some((value, span)),
            other => {
                self.mistyped(key, "a number", &other);
                None
            }
        }
    }

    /// Takes a list; its items may have any type.
    pub fn list(&mut self, key: &'static str) -> Option<(Vec<Item<'a>>, Span)> {
        match self.item(key)? {
            Item::List(items, span) => Some((items, span)),
            other => {
                self.mistyped(key, "a list", &other);
                None
            }
        }
    }

    /// Takes a list of texts; items of other types are told and left out.
    pub fn texts(&mut self, key: &'static str) -> Option<Vec<Text>> {
        let (items, _) = self.list(key)?;
        Some(self.texts_of(key, items))
    }

    /// Returns the texts among a list's items and tells of the others.
    pub fn texts_of(&self, key: &str, items: Vec<Item<'_>>) -> Vec<Text> {
        let mut texts = Vec::new();
        for item in items {
            match item {
                Item::Text(text) => texts.push(text),
                other => {
                    self.mistyped(&format!("an item of {key}").replace('`', ""), "text", &other);
                }
            }
        }
        texts
    }

    /// Takes a table.
    pub fn table(&mut self, key: &'static str) -> Option<Table<'a>> {
        match self.item(key)? {
            Item::Table(table) => Some(table),
            other => {
                self.mistyped(key, "a table", &other);
                None
            }
        }
    }

    /// Takes a table whose keys are the user's own and whose values are texts, sorted by key.
    pub fn map(&mut self, key: &'static str) -> Option<BTreeMap<String, (Span, Text)>> {
        Some(self.table(key)?.into_map())
    }

    /// Reads the whole table as texts under keys of the user's own.
    pub fn into_map(mut self) -> BTreeMap<String, (Span, Text)> {
        let mut map = BTreeMap::new();
        for (key, (at, item)) in std::mem::take(&mut self.rest) {
            match item {
                Item::Text(text) => {
                    map.insert(key, (at, text));
                }
                other => self.mistyped(&key, "text", &other),
            }
        }
        map
    }

    /// Reads the whole table as tables under keys of the user's own, sorted by key.
    pub fn into_tables(mut self) -> Vec<(String, Span, Table<'a>)> {
        let mut list = Vec::new();
        for (key, (at, item)) in std::mem::take(&mut self.rest) {
            match item {
                Item::Table(table) => list.push((key, at, table)),
                other => self.mistyped(&key, "a table", &other),
            }
        }
        list
    }

    /// Tells of the keys that nobody asked for. `foreign` translates words that other tools use.
    pub fn finish(self, foreign: &[(&str, &str)]) {
        for (key, (span, _)) in &self.rest {
            let place =
                if self.name.is_empty() { String::new() } else { format!(" in `{}`", self.name) };
            let known = || self.asked.iter().copied();
            let meant = foreign.iter().find(|(theirs, _)| theirs == key).map(|(_, ours)| *ours);
            let message = if let Some(meant) = meant.or_else(|| nearest(key, known())) {
                format!("unknown key `{key}`{place}; did you mean `{meant}`?")
            } else {
                let known: Vec<&str> = known().collect();
                let known = crate::fault::list_of(&known);
                format!("unknown key `{key}`{place}; there are {known}")
            };
            self.problems.shape(self.file, span.clone(), message);
        }
    }
}

fn item<'a>(
    file: &'a File,
    problems: &'a Problems,
    name: &str,
    span: Span,
    value: DeValue<'a>,
) -> Item<'a> {
    match value {
        DeValue::String(value) => Item::Text(Text { value: value.into_owned(), span }),
        DeValue::Boolean(value) => Item::Bool(value, span),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(value) => Item::Integer(value, span),
            Err(_) => Item::Other("a number beyond 64 bits", span),
        },
        DeValue::Float(_) => Item::Other("a number with a fraction", span),
        DeValue::Datetime(_) => Item::Other("a date", span),
        DeValue::Array(items) => {
            let items = items
                .into_iter()
                .map(|value| {
                    let span = value.span();
                    item(file, problems, name, span, value.into_inner())
                })
                .collect();
            Item::List(items, span)
        }
        DeValue::Table(table) => {
            Item::Table(Table::of(file, problems, name.to_owned(), span, table))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems_of(text: &str, read: impl Fn(&mut Table<'_>)) -> Vec<String> {
        let file = File::of_text("f", text);
        let problems = Problems::new();
        let mut table = Table::read(&file, &problems);
        read(&mut table);
        table.finish(&[("from", "base")]);
        match problems.finish(Some(())) {
            Ok(()) => Vec::new(),
            Err(error) => error.problems().iter().map(super::super::Problem::headline).collect(),
        }
    }

    #[test]
    fn shapes_are_told_with_what_was_meant() {
        let told = problems_of(
            "imge = 'x'\nfrom = 'y'\nbase = 4.10\n[inner]\nlist = ['a', 1]\nwhat = 1\n",
            |table| {
                table.required_text("image", "\"x\"");
                table.text("base");
                let mut inner = table.table("inner").unwrap();
                inner.texts("list");
                inner.finish(&[]);
            },
        );
        assert_eq!(
            told,
            [
                "f:1:1: `image` is missing, for instance `image = \"x\"`",
                "f:1:1: unknown key `imge`; did you mean `image`?",
                "f:2:1: unknown key `from`; did you mean `base`?",
                "f:3:8: `base` must be text, not a number with a fraction; write it in quotes",
                "f:5:14: `an item of list` must be text, not a number; write it in quotes",
                "f:6:1: unknown key `what` in `inner`; there are `list`",
            ]
        );
    }

    #[test]
    fn every_syntax_error_is_told_and_nothing_that_follows_from_it() {
        let told = problems_of("a = 'x\nb = 1\nb = 2\nc = [1,\n", |table| {
            table.required_text("image", "\"x\"");
            table.text("a");
            table.integer("b");
            table.list("c");
        });
        assert_eq!(told.len(), 3, "{told:#?}");
        for (line, problem) in [1, 3, 4].into_iter().zip(&told) {
            assert!(problem.starts_with(&format!("f:{line}:")), "{told:#?}");
        }
    }
}
