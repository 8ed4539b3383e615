//! A [`Lock`] as text: tables and answers sorted, each answer on a line of its own, so that a diff
//! of two locks shows what changed and two branches merge line by line.

use serde_json::Value;

use super::{Lock, VERSION};
use crate::oci::json::EncodeError;

/// What a lock's file opens with; no part of what it says.
pub const HEAD: &str = "\
# What the steps were given by the network, and the dates of the layers. Written by `ocibuild lock`;
# `ocibuild lock diff` tells two of them apart in packages and versions.
";

/// Returns a lock's text, which [`super::parse`] reads back.
pub fn write(lock: &Lock) -> Result<String, EncodeError> {
    let mut text = format!(
        "{HEAD}lock = {VERSION}\nrules = {}\n\n[base]\nreference = {}\ndigest = {}\n",
        quoted(&lock.rules),
        quoted(&lock.base.reference.to_string()),
        quoted(&lock.base.digest.to_string()),
    );
    for (platform, section) in &lock.platforms {
        let platform = key(platform);
        text.push_str(&format!(
            "\n[platform.{platform}]\nbase = {}\n",
            quoted(&section.base.to_string())
        ));
        for (name, layer) in &section.layers {
            text.push_str(&format!(
                "\n[platform.{platform}.layer.{}]\nsource-date = {}\nfetches = [",
                key(name),
                layer.source_date
            ));
            for fetch in &layer.fetches {
                text.push_str("\n  ");
                inline(&serde_json::to_value(fetch)?, &mut text)?;
                text.push(',');
            }
            text.push_str(if layer.fetches.is_empty() { "]\n" } else { "\n]\n" });
        }
    }
    Ok(text)
}

/// Writes a value within one line. What is `None` is left out; TOML has no word for it.
fn inline(value: &Value, text: &mut String) -> Result<(), EncodeError> {
    match value {
        Value::Object(members) => {
            let members: Vec<_> = members.iter().filter(|(_, value)| !value.is_null()).collect();
            text.push('{');
            for (position, (name, value)) in members.iter().enumerate() {
                text.push_str(if position > 0 { ", " } else { " " });
                text.push_str(&format!("{} = ", key(name)));
                inline(value, text)?;
            }
            text.push_str(if members.is_empty() { "}" } else { " }" });
        }
        Value::Array(items) => {
            text.push('[');
            for (position, item) in items.iter().enumerate() {
                if position > 0 {
                    text.push_str(", ");
                }
                inline(item, text)?;
            }
            text.push(']');
        }
        Value::String(string) => text.push_str(&quoted(string)),
        Value::Number(number) if number.is_f64() => {
            return Err(EncodeError::Float(number.to_string()));
        }
        scalar => text.push_str(&scalar.to_string()),
    }
    Ok(())
}

fn key(name: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !name.is_empty() && name.chars().all(bare) { name.to_owned() } else { quoted(name) }
}

/// Writes a basic string of TOML.
fn quoted(string: &str) -> String {
    let mut text = String::with_capacity(string.len() + 2);
    text.push('"');
    for c in string.chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            c if c.is_control() => text.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => text.push(c),
        }
    }
    text.push('"');
    text
}
