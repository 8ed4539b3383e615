//! What a tree says of itself in `/etc/os-release` (os-release(5)).

use serde::Serialize;

use crate::fault::Fault;
use crate::recipe::When;
use crate::text::Template;

/// What a tree says of itself; empty where it says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OsRelease {
    /// `ID`, as `debian` or `ubuntu`.
    pub distribution: String,
    /// `VERSION_CODENAME`, as `bookworm` or `noble`.
    pub codename: String,
    /// `VERSION_ID`, as `12` or `24.04`.
    pub release: String,
}

/// A variable that the tree leaves without a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{{{variable}}}` has no value: the base's /etc/os-release does not say `{key}`")]
pub struct Missing {
    /// The variable.
    pub variable: String,
    /// What `os-release` calls it.
    pub key: &'static str,
}

impl Fault for Missing {
    fn hint(&self) -> Option<String> {
        Some("switch the step off with `when` or `without`, or use another base".to_owned())
    }
}

impl OsRelease {
    /// Reads the file's text; lines that are no assignments are passed over.
    pub fn parse(text: &str) -> OsRelease {
        let mut release = OsRelease::default();
        for line in text.lines() {
            let Some((key, value)) = line.trim().split_once('=') else { continue };
            let field = match key {
                "ID" => &mut release.distribution,
                "VERSION_CODENAME" => &mut release.codename,
                "VERSION_ID" => &mut release.release,
                _ => continue,
            };
            *field = unquoted(value);
        }
        release
    }

    fn value(&self, variable: &str) -> Option<&str> {
        let value = match variable {
            "distribution" => &self.distribution,
            "codename" => &self.codename,
            "release" => &self.release,
            _ => return None,
        };
        Some(value.as_str()).filter(|value| !value.is_empty())
    }

    /// Fills in what a plan left open.
    pub fn fill(&self, template: &Template) -> Result<String, Missing> {
        let filled = template.fill(&|name| self.value(name).map(str::to_owned));
        filled.finished().map_err(|variable| Missing {
            variable: variable.to_owned(),
            key: match variable {
                "codename" => "VERSION_CODENAME",
                "release" => "VERSION_ID",
                _ => "ID",
            },
        })
    }

    /// Returns the variables that tell every step where it runs; those without a value left out.
    pub fn environment(&self) -> Vec<(String, String)> {
        ["DISTRIBUTION", "CODENAME", "RELEASE"]
            .into_iter()
            .filter_map(|name| {
                let value = self.value(&name.to_ascii_lowercase())?;
                Some((name.to_owned(), value.to_owned()))
            })
            .collect()
    }

    /// Tells whether a step is done in this tree; if not, why, as `only on ubuntu, this is debian`.
    pub fn matches(&self, when: &When) -> Result<(), String> {
        let tests = [(&when.distribution, &self.distribution), (&when.codename, &self.codename)];
        for (wanted, has) in tests {
            if !wanted.is_empty() && !wanted.contains(has) {
                let has = if has.is_empty() { "a base that does not say" } else { has };
                return Err(format!("only on {}, this is {has}", wanted.join(" or ")));
            }
        }
        Ok(())
    }
}

/// Takes a shell's quotes away.
fn unquoted(value: &str) -> String {
    let value = value.trim();
    for quote in ['"', '\''] {
        let inner = value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
        if let Some(inner) = inner {
            return if quote == '"' { unescaped(inner) } else { inner.to_owned() };
        }
    }
    unescaped(value)
}

fn unescaped(value: &str) -> String {
    let mut text = String::new();
    let mut characters = value.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => text.extend(characters.next()),
            other => text.push(other),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_distributions_write() {
        let noble = "PRETTY_NAME=\"Ubuntu 24.04.1 LTS\"\nVERSION_ID=\"24.04\"\n\
                     VERSION_CODENAME=noble\nID=ubuntu\nID_LIKE=debian\n";
        let noble = OsRelease::parse(noble);
        assert_eq!(
            (noble.distribution.as_str(), noble.codename.as_str(), noble.release.as_str()),
            ("ubuntu", "noble", "24.04")
        );
        let template = Template::literal("plain {x}");
        assert_eq!(noble.fill(&template), Ok("plain {x}".to_owned()));
        assert_eq!(noble.environment().len(), 3);

        let sid = OsRelease::parse("# a comment\nID='debian'\r\nnonsense\n");
        assert_eq!(sid.distribution, "debian");
        assert_eq!(sid.environment(), [("DISTRIBUTION".to_owned(), "debian".to_owned())]);

        let ubuntu = When { distribution: vec!["ubuntu".to_owned()], ..When::default() };
        assert_eq!(noble.matches(&ubuntu), Ok(()));
        assert_eq!(sid.matches(&ubuntu), Err("only on ubuntu, this is debian".to_owned()));
        let codename =
            When { codename: vec!["noble".to_owned(), "jammy".to_owned()], ..When::default() };
        assert_eq!(noble.matches(&codename), Ok(()));
        assert!(sid.matches(&codename).unwrap_err().contains("noble or jammy"));
    }
}
