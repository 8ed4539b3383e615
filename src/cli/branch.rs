//! `--require-branch`: which branch a command runs for, and whether tags may move from it.

use ocibuild::ops;

use super::context::Context;

/// Why tags stay where they are; nothing where they may move.
pub(crate) struct Held(Option<String>);

impl Held {
    /// Compares the branch with the one that is required, if one is.
    pub(crate) fn unless(required: Option<&str>, context: &Context) -> Held {
        Held(required.and_then(|branch| why_held(branch, context)))
    }

    /// Tells whether tags stay.
    pub(crate) fn holds(&self) -> bool {
        self.0.is_some()
    }

    /// Says at the end that tags stayed, which is a failure.
    pub(crate) fn tell(self) -> Result<(), ops::Error> {
        self.0.map_or(Ok(()), |why| Err(ops::Error::TagsHeld(why)))
    }
}

/// Says why tags stay, if they do.
fn why_held(required: &str, context: &Context) -> Option<String> {
    match branch(&|name| context.variable(name), &|| checked_out(context)) {
        Some(branch) if branch == required => None,
        Some(branch) => Some(format!("this is the branch `{branch}`, not `{required}`")),
        None => Some(format!("this is no branch, and tags move from `{required}` only")),
    }
}

/// Returns the branch that CI runs for, or outside of CI the one that is checked out. A tag may have
/// a branch's name, and so may a pull request's: neither is one.
fn branch<'e>(
    variable: &impl Fn(&str) -> Option<&'e str>,
    checked_out: &impl Fn() -> Option<String>,
) -> Option<String> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    if let Some(reference) = set("GITHUB_REF") {
        return reference.strip_prefix("refs/heads/").map(str::to_owned);
    }
    if let Some(name) = set("GITHUB_REF_NAME") {
        return set("GITHUB_REF_TYPE").is_none_or(|kind| kind == "branch").then(|| name.to_owned());
    }
    if set("GITLAB_CI").is_some() || set("CI_COMMIT_BRANCH").is_some() {
        return set("CI_COMMIT_BRANCH").map(str::to_owned);
    }
    checked_out()
}

fn checked_out(context: &Context) -> Option<String> {
    let output = std::process::Command::new("git")
        .args(["rev-parse", "--abbrev-ref", "HEAD"])
        .current_dir(&context.folder)
        .output()
        .ok()?;
    let name = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && name != "HEAD" && !name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_branch_is_what_ci_says_and_no_tag_or_pull_request() {
        let of = |env: &[(&str, &'static str)]| {
            let find =
                |name: &str| env.iter().find(|(has, _)| *has == name).map(|(_, value)| *value);
            branch(&find, &|| Some("local".to_owned()))
        };
        let main = Some("main".to_owned());
        assert_eq!(of(&[("GITHUB_REF", "refs/heads/main"), ("GITHUB_REF_NAME", "main")]), main);
        assert_eq!(of(&[("GITHUB_REF", "refs/tags/main"), ("GITHUB_REF_NAME", "main")]), None);
        assert_eq!(of(&[("GITHUB_REF", "refs/pull/1/merge")]), None);
        assert_eq!(of(&[("GITHUB_REF_NAME", "main"), ("GITHUB_REF_TYPE", "tag")]), None);
        assert_eq!(of(&[("GITHUB_REF_NAME", "main")]), main);
        assert_eq!(of(&[("CI_COMMIT_BRANCH", "main"), ("GITLAB_CI", "true")]), main);
        assert_eq!(of(&[("GITLAB_CI", "true")]), None);
        assert_eq!(of(&[("GITHUB_REF", "")]), Some("local".to_owned()));
    }
}
