//! The `ocibuild` command: first the sandbox's helpers, which are this very binary executed again,
//! else the command line.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    // Must come before anything starts a thread: a process with two can't enter a user namespace.
    ocibuild::sandbox::run_if_helper();
    cli::main()
}
