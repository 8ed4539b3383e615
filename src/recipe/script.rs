//! What runs a step: the interpreter of a script's first line, or a shell for an inline text.
//!
//! The first line is read here and not by the kernel, so that a script works although a download
//! or a file system lost its exec bit, and a wrong line is told before a build starts.

use std::fs;
use std::io::Read;
use std::path::Path;

use serde::Serialize;

use super::MOUNTED_AT;

/// A program with what comes before its own arguments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Program {
    /// A file of the recipe: its interpreter, if any, and its path while steps run.
    File {
        /// The interpreter with its argument; empty for a binary.
        interpreter: Vec<String>,
        /// The path in the recipe's folder.
        path: String,
    },
    /// A text that a shell takes as its argument.
    Inline {
        /// The shell with its options.
        shell: Vec<String>,
        /// The text.
        script: String,
    },
}

impl Program {
    /// Returns the command line up to the program's own arguments.
    pub fn command(&self) -> Vec<String> {
        match self {
            Program::File { interpreter, path } => {
                let mut command = interpreter.clone();
                command.push(format!("{MOUNTED_AT}/{path}"));
                command
            }
            Program::Inline { shell, script } => {
                let mut command = shell.clone();
                command.push(script.clone());
                command
            }
        }
    }
}

/// Returns the interpreter that a file names, nothing for a binary, or what is wrong.
pub(super) fn interpreter(folder: &Path, path: &str, exec: bool) -> Result<Vec<String>, String> {
    let mut head = Vec::new();
    fs::File::open(folder.join(path))
        .and_then(|file| file.take(256).read_to_end(&mut head))
        .map_err(|error| format!("`{path}` cannot be read: {error}"))?;
    if head.starts_with(b"\x7fELF") {
        return if exec {
            Ok(Vec::new())
        } else {
            Err(format!("`{path}` is a program without its exec bit (`chmod +x`)"))
        };
    }
    if head.starts_with(b"\xef\xbb\xbf#!") {
        return Err(format!("`{path}` begins with a byte order mark; save it as plain UTF-8"));
    }
    shebang(&head).map_err(|reason| format!("`{path}` {reason}"))
}

fn shebang(head: &[u8]) -> Result<Vec<String>, String> {
    let example = "begin it with a line such as `#!/bin/bash`";
    let Some(rest) = head.strip_prefix(b"#!") else {
        return Err(format!("does not say what runs it; {example}"));
    };
    let line = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
    if line.len() == rest.len() && head.len() >= 256 {
        return Err("has a first line that is longer than Linux reads".to_owned());
    }
    let line = std::str::from_utf8(line).map_err(|_| "has a first line that is no UTF-8")?;
    if line.ends_with('\r') {
        return Err(
            "ends its lines in CR LF, and Linux would look for an interpreter of that name; \
                    save it with LF"
                .to_owned(),
        );
    }
    // As Linux does it: all after the interpreter is one argument.
    let line = line.trim_matches([' ', '\t']);
    let (program, argument) = match line.split_once([' ', '\t']) {
        Some((program, argument)) => (program, argument.trim_start_matches([' ', '\t'])),
        None => (line, ""),
    };
    if !program.starts_with('/') {
        return Err(format!("names no absolute path after `#!`; {example}"));
    }
    let mut command = vec![program.to_owned()];
    if !argument.is_empty() {
        command.push(argument.to_owned());
    }
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_lines() {
        for (head, command) in [
            ("#!/bin/bash\nset -e\n", vec!["/bin/bash"]),
            ("#! /usr/bin/env Rscript\n", vec!["/usr/bin/env", "Rscript"]),
            ("#!/usr/bin/env -S bash -e -u", vec!["/usr/bin/env", "-S bash -e -u"]),
        ] {
            assert_eq!(shebang(head.as_bytes()).unwrap(), command);
        }
        for (head, told) in [
            ("set -e", "does not say what runs it"),
            ("", "does not say what runs it"),
            ("#!/bin/bash\r\n", "CR LF"),
            ("#!bash\n", "no absolute path"),
            ("#!\n", "no absolute path"),
        ] {
            let error = shebang(head.as_bytes()).unwrap_err();
            assert!(error.contains(told), "{head:?}: {error}");
        }
    }
}
