//! Differences folded by cause: a version that changed seventy paths is one line.

use std::collections::BTreeMap;

use super::cause::Cause;
use super::report::{Difference, Group};

/// Groups differences by cause, words and rule; inputs first, and within a cause the most paths.
pub(super) fn fold(differences: &[Difference]) -> Vec<Group> {
    let mut groups: BTreeMap<(Cause, String), (Group, Vec<&str>)> = BTreeMap::new();
    for difference in differences {
        // What nobody can explain is a line of its own.
        let text = match difference.cause {
            Cause::Unexplained => match &difference.content {
                Some(content) => format!("{}: {}", content.kind, content.summary),
                None => difference.text.clone(),
            },
            _ => difference.text.clone(),
        };
        let own = match difference.cause {
            Cause::Unexplained => difference.path.clone(),
            _ => text.clone(),
        };
        let (group, paths) = groups.entry((difference.cause, own)).or_insert_with(|| {
            let group = Group {
                cause: difference.cause,
                text,
                rule: difference.rule,
                cure: difference.cure.clone(),
                steps: Vec::new(),
                paths: 0,
                place: String::new(),
            };
            (group, Vec::new())
        });
        group.paths += 1;
        if let Some(step) = &difference.step
            && !group.steps.contains(step)
        {
            group.steps.push(step.clone());
        }
        paths.push(&difference.path);
    }
    let mut folded: Vec<Group> = groups
        .into_values()
        .map(|(group, paths)| Group { place: place(&paths), ..group })
        .collect();
    folded.sort_by(|a, b| {
        (a.cause, std::cmp::Reverse(a.paths), &a.text, &a.place).cmp(&(
            b.cause,
            std::cmp::Reverse(b.paths),
            &b.text,
            &b.place,
        ))
    });
    folded
}

/// Returns what the paths have in common: one path as it is, two of one folder as
/// `/folder/{a,b}`, more as `/folder/*`.
fn place(paths: &[&str]) -> String {
    let Some(first) = paths.first() else { return String::new() };
    if paths.len() == 1 {
        return (*first).to_owned();
    }
    let folder = |path: &str| path.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
    let mut common = folder(first);
    for path in paths {
        while !path.starts_with(&format!("{common}/")) {
            common = folder(&common);
        }
    }
    if paths.len() == 2 {
        let rest: Vec<&str> = paths.iter().map(|path| &path[common.len() + 1..]).collect();
        return format!("{common}/{{{}}}", rest.join(","));
    }
    format!("{common}/*")
}

#[cfg(test)]
mod tests {
    use super::place;

    #[test]
    fn paths_are_told_by_what_they_share() {
        assert_eq!(place(&["/a/b"]), "/a/b");
        assert_eq!(
            place(&["/r/x/DESCRIPTION", "/r/x/Meta/p.rds"]),
            "/r/x/{DESCRIPTION,Meta/p.rds}"
        );
        assert_eq!(place(&["/a/b", "/a/c/d", "/a/bc"]), "/a/*");
        assert_eq!(place(&["/a", "/b", "/c"]), "/*");
    }
}
