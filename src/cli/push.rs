//! `ocibuild push`: an image of the store to its registry.

use std::io::Read;

use ocibuild::oci::Reference;
use ocibuild::ops;

use super::context::Context;
use super::{Outcome, render};

/// Push images of the store to registries
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ocibuild push ghcr.io/rocker-org/cuda          the image, and to its further destinations
  ocibuild push localhost:5000/ml --only         to this registry only
  ocibuild push ghcr.io/rocker-org/ml --by-digest   no tag: the platforms built here, for `index`
  ocibuild push --require-branch main            tags move from main alone
  echo $TOKEN | ocibuild push ghcr.io/me/ml --username me --password-stdin")]
pub(crate) struct Args {
    /// Names of images in the store [default: all that were built here]
    #[arg(value_name = "REF")]
    references: Vec<Reference>,
    /// Push under this name instead; may be repeated
    #[arg(long, value_name = "REF")]
    to: Vec<Reference>,
    /// Leave out the further destinations of the definition
    #[arg(long)]
    only: bool,
    /// Push the platforms' manifests by digest, and move no tag
    #[arg(long)]
    by_digest: bool,
    /// A further tag to move; may be repeated
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// Move tags only from this branch (of CI's run, else of the checkout); elsewhere all is pushed
    /// but the tags, and the exit code is 1
    #[arg(long, value_name = "BRANCH")]
    require_branch: Option<String>,
    /// How many blobs travel at once, to all destinations together
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: u16,
    /// Write the digests, one a line, to a file
    #[arg(long, value_name = "FILE")]
    digest_file: Option<std::path::PathBuf>,
    #[command(flatten)]
    credentials: Credentials,
}

/// How to reach registries.
#[derive(Debug, clap::Args)]
pub(crate) struct Credentials {
    /// User name at the registry
    #[arg(long, value_name = "NAME", requires = "password_stdin")]
    username: Option<String>,
    /// Read the password or token from stdin
    #[arg(long, requires = "username")]
    password_stdin: bool,
    /// Speak plain HTTP to this registry (loopback needs no such word); may be repeated
    #[arg(long, value_name = "HOST[:PORT]")]
    plain_http: Vec<String>,
}

impl Credentials {
    /// Reads the password, if it is to come from stdin.
    pub(crate) fn access(&self, _: &Context) -> Result<ops::Access, ops::Error> {
        let mut login = None;
        if let Some(user) = &self.username {
            let password = read_password()?;
            login = Some((user.clone(), password));
        }
        Ok(ops::Access { login, plain_http: self.plain_http.clone() })
    }
}

/// Reads a password that is piped in.
pub(crate) fn read_password() -> Result<String, ops::Error> {
    let mut password = String::new();
    let stdin = std::io::stdin().lock();
    stdin.take(64 << 10).read_to_string(&mut password).map_err(ops::Error::Input)?;
    Ok(password.trim_end_matches(['\r', '\n']).to_owned())
}

pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let held = args.require_branch.as_ref().and_then(|branch| why_held(branch, context));
    let options = ops::PushOptions {
        references: args.references.clone(),
        to: args.to.clone(),
        only: args.only,
        by_digest: args.by_digest,
        tags: args.tag.clone(),
        hold_tags: held.is_some(),
        jobs: usize::from(args.jobs),
        access: args.credentials.access(context)?,
    };
    let pushed = ops::push(&options, &context.ops())?;
    let digests = pushed.iter().map(|image| image.digest);
    context.write_digests(args.digest_file.as_deref(), digests)?;
    render::result(&pushed, context.json, |pushed| {
        let line = |image: &ops::PushReport| {
            if image.tags.is_empty() {
                // No tag was moved, so none is named.
                format!("{}\n", image.destination.at(image.digest))
            } else {
                format!("{}@{}\n", image.destination, image.digest)
            }
        };
        pushed.iter().map(line).collect()
    })
    .and_then(|code| held.map_or(Ok(code), |why| Err(ops::Error::TagsHeld(why))))
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
