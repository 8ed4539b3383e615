//! `[config]`: what a definition changes in the image's configuration.

use std::collections::BTreeMap;

use super::parse::texts_of;
use crate::text::{Item, Scope, Table, Template, User, absolute_path};

/// Changes to the image's configuration; what is not said stays as the base has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Variables of the environment. `{NAME}` stands for the value before.
    pub env: BTreeMap<String, Template>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Whom the image runs as.
    pub user: Option<String>,
    /// The folder it starts in.
    pub workdir: Option<String>,
    /// The program that it starts. Never said without `command`.
    pub entrypoint: Option<Vec<String>>,
    /// Its arguments, or the program where there is no entrypoint.
    pub command: Option<Vec<String>>,
    /// Ports that it listens on, as `8888/tcp`, added to the base's.
    pub ports: Vec<String>,
    /// The signal that ends it.
    pub stop_signal: Option<String>,
}

/// Words of Dockerfiles and of the image spec, with ours.
const FOREIGN: [(&str, &str); 8] = [
    ("args", "command"),
    ("cmd", "command"),
    ("environment", "env"),
    ("expose", "ports"),
    ("exposed-ports", "ports"),
    ("stopsignal", "stop-signal"),
    ("working-dir", "workdir"),
    ("working-directory", "workdir"),
];

pub(super) fn read(mut table: Table<'_>) -> Config {
    let env_scope = Scope { environment: true, ..Scope::default() };
    let mut env = BTreeMap::new();
    for (name, (span, text)) in table.map("env").unwrap_or_default() {
        if name.is_empty() || name.contains(['=', '\0']) {
            let message = format!("`{name}` cannot name a variable of an environment");
            table.wrong(span, message);
        }
        env.insert(name, Template::parse(&text, &env_scope, table.file(), table.problems()));
    }
    let labels = texts_of(table.map("labels").unwrap_or_default());
    let user = table.text("user").map(|text| {
        if let Err(message) = User::parse(&text.value) {
            table.wrong(text.span, message);
        }
        text.value
    });
    let workdir = table.text("workdir").map(|text| {
        if let Err(message) = absolute_path(&text.value) {
            table.wrong(text.span, message);
        }
        text.value
    });
    let entrypoint_span = table.key_span("entrypoint");
    let entrypoint = words(&mut table, "entrypoint");
    let said_command = table.has("command");
    let command = words(&mut table, "command");
    if let Some(span) = entrypoint_span.filter(|_| !said_command) {
        let message = "`entrypoint` is said without `command`: the base's command would become \
                       arguments of another program; say `command = []` for none";
        table.wrong(span, message);
    }
    let ports = ports(&mut table);
    let stop_signal = table.text("stop-signal").map(|text| {
        let good = text.value.strip_prefix("SIG").map_or_else(
            || text.value.parse::<u8>().is_ok_and(|number| (1..=64).contains(&number)),
            |name| {
                !name.is_empty()
                    && name
                        .bytes()
                        .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'+')
            },
        );
        if !good {
            table.wrong(text.span, format!("`{}` is no signal such as `SIGTERM`", text.value));
        }
        text.value
    });
    table.finish(&FOREIGN);
    Config { env, labels, user, workdir, entrypoint, command, ports, stop_signal }
}

/// Takes a command line; one text would need a shell, whose rules nobody wants to guess.
fn words(table: &mut Table<'_>, key: &'static str) -> Option<Vec<String>> {
    match table.item(key)? {
        Item::List(items, _) => {
            Some(table.texts_of(key, items).into_iter().map(|text| text.value).collect())
        }
        other => {
            let wanted = "a list of texts, as `[\"start.sh\", \"--now\"]`";
            table.mistyped(key, wanted, &other);
            None
        }
    }
}

fn ports(table: &mut Table<'_>) -> Vec<String> {
    let mut ports = Vec::new();
    for item in table.list("ports").map(|(items, _)| items).unwrap_or_default() {
        let span = item.span();
        let text = match item {
            Item::Integer(number, _) => number.to_string(),
            Item::Text(text) => text.value,
            other => {
                table.mistyped("an item of ports", "a number or text such as `8888/tcp`", &other);
                continue;
            }
        };
        let (number, protocol) = text.split_once('/').unwrap_or((&text, "tcp"));
        let good = number.parse::<u16>().is_ok_and(|number| number > 0)
            && number.bytes().all(|byte| byte.is_ascii_digit())
            && ["tcp", "udp", "sctp"].contains(&protocol);
        if good {
            ports.push(format!("{number}/{protocol}"));
        } else {
            table.wrong(span, format!("`{text}` is no port such as `8888` or `\"53/udp\"`"));
        }
    }
    ports.sort();
    ports.dedup();
    ports
}
