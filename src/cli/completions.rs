//! `ocibuild completions`: the shell's completions for this command line.

use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;

use super::Outcome;
use super::context::Context;

/// Print completions for a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ocibuild completions bash > ~/.local/share/bash-completion/completions/ocibuild
  ocibuild completions zsh > ~/.zfunc/_ocibuild")]
pub(crate) struct Args {
    /// The shell
    shell: Shell,
}

#[expect(clippy::unnecessary_wraps, reason = "the shape of every command's run")]
pub(crate) fn run(args: &Args, _: &Context) -> Outcome {
    clap_complete::generate(
        args.shell,
        &mut super::Arguments::command(),
        "ocibuild",
        &mut std::io::stdout(),
    );
    Ok(ExitCode::SUCCESS)
}
