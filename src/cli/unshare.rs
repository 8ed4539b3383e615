//! `ocibuild unshare`: a command where a build is root, to look around and to remove what belongs
//! to its ids.

use std::os::unix::process::CommandExt;
use std::process::Command;

use ocibuild::oci::Platform;
use ocibuild::ops;

use super::Outcome;
use super::context::Context;

/// Run a command as root of a build's user namespace
///
/// The command sees the machine's files, and may read, change and remove what a build has left
/// under subordinate ids; on the machine it is still you. Its exit code is passed on.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ocibuild unshare                               a shell, as root of the namespace
  ocibuild unshare -- ls -ln tree                owners as a build sees them
  ocibuild unshare -- rm -rf ocibuild-12345      remove what belongs to subordinate ids
  ocibuild --mode range unshare -- cat /proc/self/uid_map
  ocibuild unshare --platform linux/arm64 -- chroot tree uname -m")]
pub(crate) struct Args {
    /// Have programs for this platform run, too, as the steps of a build; may be repeated
    #[arg(long, value_name = "OS/ARCH")]
    platform: Vec<Platform>,
    /// The command and its arguments [default: `$SHELL`, or /bin/sh]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    command: Vec<String>,
}

/// Becomes the command; returns only when that is not possible.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    ops::emulate(&args.platform, &context.ops())?;
    let shell = context.variable("SHELL").filter(|shell| !shell.is_empty()).unwrap_or("/bin/sh");
    let (program, arguments) = match args.command.split_first() {
        Some((program, arguments)) => (program.as_str(), arguments),
        None => (shell, [].as_slice()),
    };
    let error = Command::new(program).args(arguments).exec();
    Err(ops::Error::Program { program: program.to_owned(), source: error })
}
