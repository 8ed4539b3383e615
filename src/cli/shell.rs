//! `ocibuild shell`: into an image of the store, or to where a step failed.

use std::os::fd::AsFd;
use std::process::ExitCode;

use ocibuild::oci::Platform;
use ocibuild::ops;
use ocibuild::sandbox::{Outcome as Ended, Terminal};

use super::Outcome;
use super::context::Context;
use super::typed::Typed;

/// Open a shell in an image of the store, or where a step failed
///
/// What is changed in there is thrown away at the end. With --failed the build whose step failed
/// last is repeated: layers that are made already are not made again, and the shell is opened in
/// the tree of the step, with its environment and mounts, when it fails again. (Trees lie in memory
/// and go with a build; `build --shell` opens the shell at once.) The exit code is passed on.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ocibuild shell ghcr.io/rocker-org/ml                       as the image's user
  ocibuild shell localhost/mine --user root --no-network
  ocibuild shell localhost/mine -- R --version               one command
  ocibuild shell --failed                                    where the last build failed")]
pub(crate) struct Args {
    /// The image
    #[arg(value_name = "IMAGE", required_unless_present = "failed")]
    image: Option<Typed>,
    /// Repeat the build that failed last, up to the step that failed
    #[arg(long, conflicts_with_all = ["image", "user", "platform", "no_network", "command"])]
    failed: bool,
    /// Be this user, by name or number, instead of the image's
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Take this platform of the image
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Have the loopback device alone
    #[arg(long)]
    no_network: bool,
    /// The command and its arguments [default: bash, or sh]
    #[arg(last = true, value_name = "CMD")]
    command: Vec<String>,
}

/// Returns the terminal that this process was started at.
pub(super) fn terminal() -> Result<Terminal, ops::Error> {
    find()?.ok_or_else(|| {
        ops::Error::Usage("a shell needs a terminal as its stdin and stdout".to_owned())
    })
}

fn find() -> Result<Option<Terminal>, ops::Error> {
    Terminal::new(std::io::stdin().as_fd(), std::io::stdout().as_fd()).map_err(ops::Error::Input)
}

pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let Some(reference) = &args.image else { return repeat(context) };
    let terminal = if args.command.is_empty() { Some(terminal()?) } else { find()? };
    let options = ops::ShellOptions {
        reference: reference.in_store(context)?,
        platform: args.platform.clone(),
        user: args.user.clone(),
        command: args.command.clone(),
        network: !args.no_network,
        terminal: terminal.as_ref(),
    };
    Ok(match ops::shell(&options, &context.ops())? {
        Ended::Exited(code) => ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)),
        Ended::Signalled(signal) => ExitCode::from(u8::try_from(128 + signal).unwrap_or(u8::MAX)),
        Ended::TimedOut | Ended::Cancelled | Ended::NeedsSupervision => ExitCode::FAILURE,
    })
}

fn repeat(context: &Context) -> Outcome {
    let Some(failed) = ops::failed(&context.ops())? else {
        return Err(ops::Error::Usage("no step has failed in a build of this store".to_owned()));
    };
    let name = failed.name().to_owned();
    ops::build(&failed.again(terminal()?.into()), &context.ops())?;
    context.note(&format!("`{name}` is built: no step has failed this time"));
    Ok(ExitCode::SUCCESS)
}
