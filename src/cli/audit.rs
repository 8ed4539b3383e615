//! `ocibuild audit`: an image built again from what its own build recorded, and compared.

use std::path::PathBuf;
use std::process::ExitCode;

use ocibuild::audit::Comparison;
use ocibuild::oci::Platform;
use ocibuild::ops::{self, AuditVerdict};

use super::context::Context;
use super::sign::PASSWORD;
use super::{Outcome, diff, render};

/// Build an image again from its recorded inputs, and tell what differs
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ocibuild audit ghcr.io/rocker-org/ml@sha256:…      from what is attached to it, or a checkout
  ocibuild audit --key ocibuild.pub ghcr.io/me/ml    if that key signed it
  ocibuild audit --attest me.key ghcr.io/me/ml       and say so beside it, signed
  ocibuild audit ml                                  the last build of manifests/ml.toml
  ocibuild audit ./layout --definition ml --html why.html
  ocibuild audit --twice debian-ml                   two builds as different machines would make them

The image's label names its lock, which is looked for beside the definitions here, then among what is
attached to the image. What it lists is taken from the store, and fetched only where it is missing. Every step runs, and nothing gets a name.

Exit codes: 0 the same digest, 11 it differs, 13 the same content in another form, 14 no lock or not
the image's, 15 inputs missing or changed, 16 a step failed, 17 no signature by the keys; 1, 2 and 3
as everywhere.")]
pub(crate) struct Args {
    /// An image (a name, a layout, a digest in the store), or a definition, whose last build is meant
    #[arg(value_name = "IMAGE")]
    image: String,
    /// The definition that it was built from [default: the one whose lock it names]
    #[arg(long, value_name = "NAME", conflicts_with = "twice")]
    definition: Option<String>,
    /// Build the definition two times under different circumstances, and compare these
    #[arg(long)]
    pub(crate) twice: bool,
    /// A public key in PEM; one of those given must have signed the image. May be repeated
    #[arg(long, value_name = "FILE", conflicts_with = "twice")]
    key: Vec<PathBuf>,
    /// Sign what the audit comes to with this private key, and attach it to the image in its registry
    ///
    /// PKCS #8 or EC in PEM, or cosign's with its password in `COSIGN_PASSWORD`. Only what was compared
    /// is told: the same digest, the same content in another form, or other content.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["twice", "offline"])]
    attest: Option<PathBuf>,
    /// Audit this platform only; may be repeated
    #[arg(long, value_name = "OS/ARCH")]
    platform: Vec<Platform>,
    /// Ask no registry and no upstream for anything
    #[arg(long)]
    offline: bool,
    #[command(flatten)]
    shown: diff::Shown,
    #[command(flatten)]
    credentials: super::push::Credentials,
}

pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    if args.twice {
        return twice(args, context);
    }
    let options = ops::AuditOptions {
        image: args.image.clone(),
        definition: args.definition.clone(),
        folder: context.folder.clone(),
        platforms: args.platform.clone(),
        keys: args.key.iter().map(|key| context.absolute(key)).collect(),
        attest: args.attest.as_ref().map(|key| ops::AttestOptions {
            key: context.absolute(key),
            password: context.variable(PASSWORD).map(str::to_owned),
        }),
        access: ops::Access { offline: args.offline, ..args.credentials.access(context)? },
    };
    let report = ops::audit(&options, &context.ops())?;
    args.shown.write_page(report.comparison.as_ref(), context)?;
    render::result(&report, context.json, |report| {
        let word = report.verdict.word();
        let mut text = format!("{word}  {}", report.image);
        let digest = report.digest.to_string();
        if !text.ends_with(&digest) {
            text.push_str(&format!(" {digest}"));
        }
        if let Some(rebuilt) = report.rebuilt.filter(|_| report.verdict != AuditVerdict::Reproduced)
        {
            text.push_str(&format!("   rebuilt {rebuilt}"));
        }
        text.push('\n');
        for (depth, line) in report.reason.iter().enumerate() {
            text.push_str(&format!("{}{line}\n", if depth == 0 { "  " } else { "    " }));
        }
        if let Some(hint) = &report.hint {
            text.push_str(&format!("hint: {hint}\n"));
        }
        text.push_str(&differences(report.comparison.as_ref(), args.shown.all));
        for one in &report.attested {
            let there = if one.existed { "  (was there)" } else { "" };
            text.push_str(&format!("  attested  {}{there}\n", one.subject));
        }
        text
    })?;
    if args.attest.is_some() && report.attested.is_empty() {
        context.note("nothing was compared: nothing is attested");
    }
    Ok(ExitCode::from(report.exit_code))
}

fn twice(args: &Args, context: &Context) -> Outcome {
    let options = ops::TwiceOptions {
        name: args.image.clone(),
        folder: context.folder.clone(),
        platforms: args.platform.clone(),
        offline: args.offline,
        mode: context.requested_mode(),
        telling: context.telling(),
    };
    let report = ops::twice(&options, &context.ops())?;
    args.shown.write_page(report.comparison.as_ref(), context)?;
    render::result(&report, context.json, |report| {
        let word = report.verdict.word();
        let mut text = format!("{word}  {} {}", report.name, report.first);
        if report.first != report.second {
            text.push_str(&format!("   then {}", report.second));
        }
        text.push('\n');
        for varied in &report.varied {
            text.push_str(&format!(
                "  varied      {}: {}, then {}\n",
                varied.what, varied.first, varied.second
            ));
        }
        for same in &report.not_varied {
            text.push_str(&format!("  not varied  {}: {}\n", same.what, same.reason));
        }
        text.push_str(&differences(report.comparison.as_ref(), args.shown.all));
        text
    })?;
    Ok(ExitCode::from(report.exit_code))
}

/// Returns the lines of a comparison without its head, which names the images.
fn differences(comparison: Option<&Comparison>, all: bool) -> String {
    let Some(comparison) = comparison else { return String::new() };
    diff::text(comparison, all).lines().skip(2).map(|line| format!("{line}\n")).collect()
}
