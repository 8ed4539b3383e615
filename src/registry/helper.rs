//! Credential helpers: `docker-credential-NAME get` reads a server's name and prints JSON, `store`
//! reads such JSON, `erase` a name (docker-credential-helpers, README).

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::json;

use super::{Error, Secret};

/// A helper may unlock a keychain, but not wait for a human who is not there.
const PATIENCE: Duration = Duration::from_secs(30);
/// No credential is larger.
const LIMIT: u64 = 1 << 20;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

/// Asks a helper for the credential of a server; `None` when it has none.
pub(super) fn get(
    name: &str,
    server: &str,
    env: &BTreeMap<String, String>,
) -> Result<Option<Secret>, Error> {
    let Some(text) = run(name, "get", server.as_bytes(), env)? else { return Ok(None) };
    // What it printed may be a secret, so the error does not show it.
    let answer: Answer = serde_json::from_slice(&text).map_err(|_| Error::Helper {
        program: program_of(name),
        reason: "it printed something else than a credential".to_owned(),
    })?;
    Ok(match (answer.username.as_str(), answer.secret) {
        (_, secret) if secret.is_empty() => None,
        ("<token>", secret) => Some(Secret::Identity(secret)),
        (user, password) => Some(Secret::Password { user: user.to_owned(), password }),
    })
}

/// Has a helper keep the credential of a server.
pub(super) fn store(
    name: &str,
    server: &str,
    (user, password): (&str, &str),
    env: &BTreeMap<String, String>,
) -> Result<(), Error> {
    let text = json!({ "ServerURL": server, "Username": user, "Secret": password }).to_string();
    run(name, "store", text.as_bytes(), env).map(drop)
}

/// Has a helper forget the credential of a server; tells whether it had one.
pub(super) fn erase(
    name: &str,
    server: &str,
    env: &BTreeMap<String, String>,
) -> Result<bool, Error> {
    // Some helpers say nothing of what they never had, and some fail.
    let had = get(name, server, env)?.is_some();
    if had {
        run(name, "erase", server.as_bytes(), env)?;
    }
    Ok(had)
}

fn program_of(name: &str) -> String {
    format!("docker-credential-{name}")
}

/// Runs a helper and returns what it printed; `None` when it says that it has no such credential.
fn run(
    name: &str,
    action: &str,
    input: &[u8],
    env: &BTreeMap<String, String>,
) -> Result<Option<Vec<u8>>, Error> {
    let program = program_of(name);
    let failed = |reason: String| Error::Helper { program: program.clone(), reason };
    let Some(path) = find(&program, env) else {
        return Err(failed("it is in no folder of PATH".to_owned()));
    };
    let mut child = Command::new(&path)
        .arg(action)
        .env_clear()
        .envs(env)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that does not read will say in its status what it thinks.
        stdin.write_all(input).ok();
    }
    let stdout = child.stdout.take();
    let reader = thread::spawn(move || {
        let mut text = Vec::new();
        if let Some(stdout) = stdout {
            stdout.take(LIMIT).read_to_end(&mut text).ok();
        }
        text
    });
    let start = Instant::now();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if start.elapsed() < PATIENCE => thread::sleep(Duration::from_millis(5)),
            Ok(None) => {
                child.kill().ok();
                child.wait().ok();
                return Err(failed(format!("it did not answer within {} s", PATIENCE.as_secs())));
            }
            Err(error) => return Err(failed(error.to_string())),
        }
    };
    let text = reader.join().unwrap_or_default();
    if !status.success() {
        let said = String::from_utf8_lossy(&text);
        // The protocol tells "none" from "broken" by this sentence alone.
        if said.contains("credentials not found") {
            return Ok(None);
        }
        return Err(failed(format!(
            "{status}: {}",
            said.trim().chars().take(200).collect::<String>()
        )));
    }
    Ok(Some(text))
}

fn find(program: &str, env: &BTreeMap<String, String>) -> Option<PathBuf> {
    // A name with a slash would run something that is not a helper.
    if program.contains('/') {
        return None;
    }
    let path = env.get("PATH").map_or("/usr/local/bin:/usr/bin:/bin", String::as_str);
    path.split(':')
        .filter(|dir| dir.starts_with('/'))
        .map(|dir| PathBuf::from(dir).join(program))
        .find(|path| {
            path.metadata()
                .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
        })
}
