//! The door: arguments in, exit code out. It alone reads the environment and prints; each command
//! is a file with its arguments and a `run` that calls one function of `ops`.

mod audit;
mod branch;
mod build;
mod completions;
mod context;
mod copy;
mod diff;
mod doctor;
mod export;
mod gc;
mod import;
mod index;
mod keygen;
mod list;
mod lock;
mod login;
mod logout;
mod provenance;
mod pull;
mod push;
mod remove;
mod render;
mod rules;
mod sbom;
mod shell;
mod show;
mod sign;
mod size;
mod terminal;
mod typed;
mod unshare;
mod verify;

use std::process::ExitCode;

use clap::{ArgAction, Parser, Subcommand};
use ocibuild::ops;

/// Builds OCI images from recipes: no Docker, no daemon, no root.
#[derive(Debug, Parser)]
#[command(name = "ocibuild", bin_name = "ocibuild", version, max_term_width = 100, after_help = EXAMPLES)]
struct Arguments {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  ocibuild build ml                            build manifests/ml.toml
  ocibuild push ghcr.io/rocker-org/ml          push the image of that name
  ocibuild show ghcr.io/rocker-org/ml          its layers, sizes and configuration

Exit codes: 0 done, 1 failed, 2 wrong usage or a bad file, 3 the machine lacks something
(`ocibuild doctor` tells what), 10 and up verdicts of `audit`, 130 interrupted.";

/// Options of every command.
#[derive(Debug, clap::Args)]
struct Global {
    /// Folder of images, caches and unpacked layers [default: `$XDG_DATA_HOME/ocibuild`
    /// or `~/.local/share/ocibuild`]
    #[arg(long, global = true, value_name = "DIR", env = "OCIBUILD_STORE")]
    store: Option<std::path::PathBuf>,
    /// Folder on a fast local disk for a build's trees that do not fit into memory
    /// [default: `$SLURM_TMPDIR`, `$TMPDIR` or the store]
    #[arg(long, global = true, value_name = "DIR", env = "OCIBUILD_SCRATCH")]
    scratch: Option<std::path::PathBuf>,
    /// How much memory a build's trees may take, as 4G; 0 sends them to disk [default: half of what
    /// is free]
    #[arg(long, global = true, value_name = "SIZE", value_parser = size::parse)]
    memory: Option<u64>,
    /// How much disk the store and a build's trees may take, as 14G: what a command needs is told
    /// before it begins, made by freeing what no image needs, and refused where that cannot suffice
    /// [default: what is free]
    #[arg(long, global = true, value_name = "SIZE", env = "OCIBUILD_DISK", value_parser = size::parse)]
    disk: Option<u64>,
    /// Threads for hashing and compressing [default: one a core]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Print the result as JSON on stdout, and events as JSON lines on stderr
    #[arg(long, global = true)]
    json: bool,
    /// Say nothing but warnings and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Say more
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
    /// How to become root without being root [default: the first that works here]
    #[arg(long, global = true, value_name = "MODE")]
    mode: Option<Mode>,
    /// How the layers below become a tree to run in
    #[arg(long, global = true, value_name = "KIND", default_value = "auto")]
    tree: TreeKind,
}

/// Kinds of trees.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum TreeKind {
    /// An overlay where the kernel and the file system can, else a copy
    Auto,
    /// Stacked by the kernel
    Overlay,
    /// A copy of the layers, by reflink where that works
    Plain,
}

impl From<TreeKind> for ocibuild::rootfs::TreeRequest {
    fn from(kind: TreeKind) -> Self {
        match kind {
            TreeKind::Auto => Self::Auto,
            TreeKind::Overlay => Self::Overlay,
            TreeKind::Plain => Self::Plain,
        }
    }
}

/// Ways to become root in a namespace.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Mode {
    /// As root: every id is itself
    Root,
    /// As an ordinary user with a range in /etc/subuid and /etc/subgid
    Range,
    /// As an ordinary user with one id
    Single,
}

impl From<Mode> for ocibuild::sandbox::Request {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Root => Self::Root,
            Mode::Range => Self::Range,
            Mode::Single => Self::Single,
        }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    Build(build::Args),
    Audit(audit::Args),
    Push(push::Args),
    Pull(pull::Args),
    Copy(copy::Args),
    Import(import::Args),
    Export(export::Args),
    Index(index::Args),
    Lock(lock::Args),
    Login(login::Args),
    Logout(logout::Args),
    Show(show::Args),
    Diff(diff::Args),
    List(list::Args),
    Sbom(sbom::Args),
    Provenance(provenance::Args),
    Sign(sign::Args),
    Keygen(keygen::Args),
    Remove(remove::Args),
    Gc(gc::Args),
    Verify(verify::Args),
    Doctor(doctor::Args),
    Shell(shell::Args),
    Unshare(unshare::Args),
    Rules(rules::Args),
    Completions(completions::Args),
}

/// Parses, runs, renders: the whole program but for the sandbox's helpers.
pub(crate) fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut context = match context::Context::new(&arguments.global) {
        Ok(context) => context,
        Err(error) => return render::error(&error, arguments.global.json),
    };
    // Entering re-executes the command; only the inner one goes on from here.
    if needs_trees(&arguments.command) {
        let makes_trees = matches!(
            arguments.command,
            Command::Build(_)
                | Command::Audit(_)
                | Command::Pull(_)
                | Command::Shell(_)
                | Command::Lock(_)
        );
        match if makes_trees { context.enter_for_trees() } else { context.enter() } {
            Ok(None) => {}
            Ok(Some(code)) => return code,
            // These go on without: one tells why it cannot be entered, and the others leave what
            // belongs to ids of a namespace.
            Err(_)
                if matches!(
                    arguments.command,
                    Command::Doctor(_) | Command::Gc(_) | Command::Remove(_)
                ) => {}
            Err(error) => return render::error(&error, context.json),
        }
    }
    if !needs_trees(&arguments.command) {
        forbid_core_dumps();
    }
    // `unshare` becomes another program, which is to find the signals as they were.
    let stays = !matches!(arguments.command, Command::Unshare(_));
    if stays && let Err(error) = context::Context::watch_signals() {
        return render::error(&error, context.json);
    }
    let result = match &arguments.command {
        Command::Build(args) => build::run(args, &context),
        Command::Audit(args) => audit::run(args, &context),
        Command::Push(args) => push::run(args, &context),
        Command::Pull(args) => pull::run(args, &context),
        Command::Copy(args) => copy::run(args, &context),
        Command::Import(args) => import::run(args, &context),
        Command::Export(args) => export::run(args, &context),
        Command::Index(args) => index::run(args, &context),
        Command::Lock(args) => lock::run(args, &context),
        Command::Login(args) => login::run(args, &context),
        Command::Logout(args) => logout::run(args, &context),
        Command::Show(args) => show::run(args, &context),
        Command::Diff(args) => diff::run(args, &context),
        Command::List(args) => list::run(args, &context),
        Command::Sbom(args) => sbom::run(args, &context),
        Command::Provenance(args) => provenance::run(args, &context),
        Command::Sign(args) => sign::run(args, &context),
        Command::Keygen(args) => keygen::run(args, &context),
        Command::Remove(args) => remove::run(args, &context),
        Command::Gc(args) => gc::run(args, &context),
        Command::Verify(args) => verify::run(args, &context),
        Command::Doctor(args) => doctor::run(args, &context),
        Command::Shell(args) => shell::run(args, &context),
        Command::Unshare(args) => unshare::run(args, &context),
        Command::Rules(args) => rules::run(args, &context),
        Command::Completions(args) => completions::run(args, &context),
    };
    context::Context::yield_to_signal();
    match result {
        Ok(code) => code,
        Err(error) => render::error(&error, context.json),
    }
}

/// Keeps what a crash would write free of credentials. One byte rather than none: a limit of none
/// still lets the kernel hand the dump to a program. Steps would inherit it, so that only commands
/// without any do this.
fn forbid_core_dumps() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Core).maximum;
    let current = Some(maximum.map_or(1, |most| most.min(1)));
    // To lower one's own limit can't fail.
    setrlimit(Resource::Core, Rlimit { current, maximum }).ok();
}

/// Tells which commands unpack layers or run steps, and so must be root in a namespace.
fn needs_trees(command: &Command) -> bool {
    match command {
        Command::Build(args) => !args.dry_run,
        Command::Audit(args) => !args.twice,
        Command::Pull(args) => args.unpack,
        Command::Lock(args) => args.builds(),
        Command::Gc(_)
        | Command::Remove(_)
        | Command::Doctor(_)
        | Command::Shell(_)
        | Command::Unshare(_) => true,
        _ => false,
    }
}

/// What a command returns.
type Outcome = Result<ExitCode, ops::Error>;
