//! npm's installed modules, by the `package.json` directly below `node_modules`.

use serde_json::Value;

use super::{Manager, Package};

/// Tells whether a path is an installed module's: others of the name are fixtures and sources.
pub fn is_module(path: &str) -> bool {
    let Some(folder) = path.strip_suffix("/package.json") else { return false };
    let Some((above, name)) = folder.rsplit_once('/') else { return false };
    let above = match above.rsplit_once('/') {
        Some((above, scope)) if scope.starts_with('@') => above,
        _ => above,
    };
    !name.starts_with('.') && (above == "node_modules" || above.ends_with("/node_modules"))
}

/// Reads a module's manifest.
pub fn package(text: &str) -> Option<Package> {
    let value: Value = serde_json::from_str(text).ok()?;
    let text = |name: &str| value.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let mut package = Package::new(Manager::Npm, text("name")?, text("version")?);
    let old = || {
        // Before expressions there were an object and a list of them.
        let kind = |value: &Value| value.get("type").and_then(Value::as_str).map(str::to_owned);
        let list = value.get("licenses").and_then(Value::as_array);
        let kinds: Vec<String> = list.into_iter().flatten().filter_map(kind).collect();
        value
            .get("license")
            .and_then(kind)
            .or_else(|| (!kinds.is_empty()).then(|| format!("({})", kinds.join(" OR "))))
    };
    package.licence = text("license").map(str::to_owned).or_else(old);
    package.homepage = text("homepage").map(str::to_owned);
    package.maintainer = match value.get("author") {
        Some(Value::String(author)) => Some(author.clone()).filter(|author| !author.is_empty()),
        Some(author) => {
            let part = |name: &str| author.get(name).and_then(Value::as_str);
            match (part("name"), part("email")) {
                (Some(name), Some(address)) => Some(format!("{name} <{address}>")),
                (name, address) => name.or(address).map(str::to_owned),
            }
        }
        None => None,
    };
    Some(package)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_lie_directly_below_node_modules() {
        for (path, is) in [
            ("usr/lib/node_modules/npm/package.json", true),
            ("usr/lib/node_modules/@a/b/package.json", true),
            ("usr/lib/node_modules/npm/node_modules/c/package.json", true),
            ("usr/lib/node_modules/npm/docs/package.json", false),
            ("usr/lib/node_modules/.cache/package.json", false),
            ("srv/app/package.json", false),
        ] {
            assert_eq!(is_module(path), is, "{path}");
        }
    }

    #[test]
    fn old_ways_to_say_a_licence_are_read() {
        let of = |member: &str| {
            package(&format!(r#"{{"name":"a","version":"1",{member}}}"#)).unwrap().licence
        };
        assert_eq!(of(r#""license":"MIT""#).as_deref(), Some("MIT"));
        assert_eq!(of(r#""license":{"type":"MIT"}"#).as_deref(), Some("MIT"));
        let two = r#""licenses":[{"type":"MIT"},{"type":"Apache-2.0"}]"#;
        assert_eq!(of(two).as_deref(), Some("(MIT OR Apache-2.0)"));
        assert_eq!(package(r#"{"name":"x"}"#), None);
    }
}
