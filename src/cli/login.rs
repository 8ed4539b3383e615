//! `ocibuild login`: a credential for a registry, tried there and kept.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;

use ocibuild::ops;

use super::context::Context;
use super::{Outcome, push, render};

/// Log in to a registry; docker, podman and skopeo find the credential, too
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The credential is tried at the registry first. It goes to REGISTRY_AUTH_FILE, else to the file of
docker's or podman's that is in use, else to ~/.docker/config.json, which all of them read; or to
the helper that the file names.

Examples:
  ocibuild login ghcr.io                                    asks for user and password
  echo $TOKEN | ocibuild login ghcr.io --username me --password-stdin")]
pub(crate) struct Args {
    /// The registry, as ghcr.io, docker.io or localhost:5000
    #[arg(value_name = "REGISTRY")]
    registry: String,
    /// User name at the registry [default: it is asked for]
    #[arg(long, short, value_name = "NAME")]
    username: Option<String>,
    /// Read the password or token from stdin
    #[arg(long, requires = "username")]
    password_stdin: bool,
    /// Speak plain HTTP to it (loopback needs no such word)
    #[arg(long)]
    plain_http: bool,
}

pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let (user, password) = match &args.username {
        Some(user) if args.password_stdin => (user.clone(), push::read_password()?),
        user => ask(user.as_deref())?,
    };
    let registry = args.registry.clone();
    let options = ops::LoginOptions { registry, user, password, plain_http: args.plain_http };
    let login = ops::login(&options, &context.ops())?;
    if !login.verified {
        context.warning(&format!(
            "{} lets in anyone, so the password could not be tried",
            login.registry
        ));
    }
    render::result(&login, context.json, |login| {
        format!("logged in to {} as {}; kept in {}\n", login.registry, login.user, login.kept_in)
    })
}

/// Asks the person at the terminal.
fn ask(user: Option<&str>) -> Result<(String, String), ops::Error> {
    let Ok(mut terminal) = File::options().read(true).write(true).open("/dev/tty") else {
        let lacks = "there is no terminal to ask at: use --username NAME --password-stdin";
        return Err(ops::Error::Usage(lacks.to_owned()));
    };
    let mut talk = || -> std::io::Result<(String, String)> {
        let user = if let Some(user) = user {
            user.to_owned()
        } else {
            write!(terminal, "user: ")?;
            let mut line = String::new();
            BufReader::new(&terminal).read_line(&mut line)?;
            line.trim().to_owned()
        };
        let password = ocibuild::sandbox::read_hidden(terminal.as_fd(), "password: ")?;
        writeln!(terminal)?;
        Ok((user, password))
    };
    talk().map_err(ops::Error::Input)
}
