//! What differs between two documents, member by member. Lists whose items have names, as `Env`, are
//! compared by these.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::report::FieldChange;

/// Members that say the same as the comparison of platforms and layers does.
const LEFT_OUT: [(&str, &str); 5] = [
    ("index", "manifests"),
    ("manifest", "layers"),
    ("manifest", "config.digest"),
    ("manifest", "config.size"),
    ("config", "rootfs.diff_ids"),
];

/// Compares two documents.
pub(super) fn compare(document: &'static str, a: &Value, b: &Value) -> Vec<FieldChange> {
    let mut changes = Vec::new();
    walk(document, String::new(), Some(a), Some(b), &mut changes);
    changes
}

fn walk(
    document: &'static str,
    field: String,
    a: Option<&Value>,
    b: Option<&Value>,
    changes: &mut Vec<FieldChange>,
) {
    if a == b || LEFT_OUT.contains(&(document, field.as_str())) {
        return;
    }
    if let (Some(a), Some(b)) = (a, b)
        && let (Some(a), Some(b)) = (members(a), members(b))
    {
        let mut names: Vec<&String> = a.keys().chain(b.keys()).collect();
        names.sort();
        names.dedup();
        for name in names {
            let below = if field.is_empty() { name.clone() } else { format!("{field}.{name}") };
            walk(document, below, a.get(name), b.get(name), changes);
        }
        return;
    }
    changes.push(FieldChange { document, field, a: a.cloned(), b: b.cloned() });
}

/// Returns the members of an object, or of a list by their names or places.
fn members(value: &Value) -> Option<BTreeMap<String, Value>> {
    match value {
        Value::Object(members) => Some(of_object(members)),
        Value::Array(items) => {
            // `NAME=value`, each name once: the environment.
            let named: BTreeMap<String, Value> = items
                .iter()
                .filter_map(|item| item.as_str()?.split_once('='))
                .map(|(name, value)| (name.to_owned(), Value::from(value)))
                .collect();
            if !items.is_empty() && named.len() == items.len() {
                return Some(named);
            }
            // Places of two digits keep the order of the list.
            items.iter().any(Value::is_object).then(|| {
                let placed = items.iter().enumerate();
                placed.map(|(at, item)| (format!("{at:02}"), item.clone())).collect()
            })
        }
        _ => None,
    }
}

fn of_object(members: &Map<String, Value>) -> BTreeMap<String, Value> {
    members.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn members_are_told_by_name_and_lists_of_layers_left_out() {
        let a = json!({"created": "x", "config": {"Env": ["A=1", "B=2"], "Cmd": ["sh"]},
            "rootfs": {"diff_ids": [1]}, "history": [{"created_by": "a"}]});
        let b = json!({"created": "x", "config": {"Env": ["B=3", "A=1"], "Cmd": ["sh", "-l"], "User": "1"},
            "rootfs": {"diff_ids": [2]}, "history": [{"created_by": "b"}]});
        let found: Vec<(String, Option<Value>, Option<Value>)> =
            compare("config", &a, &b).into_iter().map(|c| (c.field, c.a, c.b)).collect();
        assert_eq!(
            found,
            [
                ("config.Cmd".to_owned(), Some(json!(["sh"])), Some(json!(["sh", "-l"]))),
                ("config.Env.B".to_owned(), Some(json!("2")), Some(json!("3"))),
                ("config.User".to_owned(), None, Some(json!("1"))),
                ("history.00.created_by".to_owned(), Some(json!("a")), Some(json!("b"))),
            ]
        );
    }
}
