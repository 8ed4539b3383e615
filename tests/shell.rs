//! Looking around by hand: in the build's namespace, in an image, and where a step failed.

use serde_json::{Value, json};

use crate::support::cli::{Project, Ran, Who, names};

#[test]
fn unshare_shows_and_removes_what_belongs_to_subordinate_ids() {
    for who in [Who::Root, Who::Range] {
        let project = Project::of(who);
        let make = "umask 077; mkdir -p home/left/locked; touch home/left/locked/file; \
                    chown -R 7:7 home/left; chmod 0 home/left/locked; stat -c %u:%g home/left";
        assert_eq!(project.run(&["unshare", "--", "sh", "-c", make]).ok(), "7:7", "{who:?}");
        assert_eq!(project.run(&["unshare", "id", "-u"]).ok(), "0", "{who:?}");
        project.run(&["unshare", "--", "rm", "-r", "home/left"]).ok();
        assert_eq!(names(&project.path("home")), Vec::<String>::new());
    }
}

#[test]
fn unshare_passes_the_exit_code_on() {
    let project = Project::new();
    let ran = project.run(&["unshare", "--", "sh", "-c", "exit 42"]);
    assert_eq!(ran.code(), Some(42), "{ran}");
    let ran = project.run(&["unshare", "--", "sh", "-c", "kill -9 $$"]);
    assert_eq!(ran.code(), Some(137), "{ran}");
    let stderr = project.run(&["unshare", "--", "/no/such/program"]).fails(1);
    assert!(stderr.contains("/no/such/program"), "{stderr}");
}

/// Runs a command of the project's at a terminal, doing something each time that a text is seen.
fn at_terminal(project: &Project, acts: &Value, arguments: &[&str]) -> Value {
    let driver = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/drivers/terminal.py");
    let acts = acts.to_string();
    let mut command = project.command_under(&["python3", driver, &acts], arguments);
    let told = Ran::of(command.env("TERM", "xterm")).json();
    assert_eq!(told["late"], false, "{told:#}");
    assert_eq!(told["left"], json!([]), "{told:#}");
    told
}

fn typed(text: &str) -> Value {
    json!({ "type": text })
}

#[test]
fn a_shell_in_an_image_has_a_terminal_of_its_own_and_leaves_no_trace() {
    for who in [Who::Root, Who::Range] {
        let project = Project::with_tiny_base(who);
        let acts = json!([
            ["# ", typed("tty; stty size; echo term-$TERM $(id -u)\n")],
            ["term-xterm 0", json!({ "size": [17, 93] })],
            ["# ", typed("sleep 0.3; stty size; echo now\n")],
            // Ctrl-C ends the command and neither the shell nor the builder.
            ["17 93", typed("sleep 500\n")],
            ["sleep 500", typed("\u{3}")],
            ["# ", typed("cat /etc/hostname; echo $((40 + 2))-still\n")],
            // Ctrl-Z stops a job, which the shell can take up again.
            ["42-still", typed("sleep 501\n")],
            ["sleep 501", typed("\u{1a}")],
            ["topped", typed("jobs; kill -9 %1; sleep 1; echo x > /srv/new; exit 7\n")],
        ]);
        let told = at_terminal(&project, &acts, &["shell", "localhost/tiny:1"]);
        let seen = told["seen"].as_str().unwrap();
        assert!(seen.contains("/dev/pts/0"), "{seen}");
        assert!(seen.contains("30 100"), "{seen}");
        assert_eq!(told["code"], 7, "{seen}");
        // Nothing of it is left: not in the image, not beside it.
        let listed = project.run(&["shell", "localhost/tiny:1", "--", "ls", "/srv"]).ok();
        assert!(!listed.contains("new"), "{listed}");
        assert_eq!(project.running(), Vec::<String>::new());
        assert_eq!(names(&project.path("tmp")), Vec::<String>::new());
    }
}

#[test]
fn a_command_in_an_image_needs_no_terminal() {
    let project = Project::with_tiny_base(Who::Range);
    let shell = |rest: &[&str]| project.run(&[&["shell", "localhost/tiny:1"], rest].concat());
    assert_eq!(shell(&["--", "id", "-u"]).ok(), "0");
    assert_eq!(
        shell(&["--user", "jovyan", "--", "sh", "-c", "id -un; tty || true"]).ok(),
        "jovyan\nnot a tty"
    );
    assert_eq!(shell(&["--", "sh", "-c", "exit 9"]).code(), Some(9));
    let told = shell(&["--no-network", "--", "ls", "/sys/class/net"]).ok();
    assert_eq!(told, "lo");
    let stderr = shell(&[]).fails(2);
    assert!(stderr.contains("terminal"), "{stderr}");
    let stderr = project.run(&["shell", "localhost/none", "--", "true"]).fails(1);
    assert!(stderr.contains("localhost/none") && stderr.contains("ocibuild list"), "{stderr}");
}

#[test]
fn a_terminal_is_as_before_when_the_shell_is_killed() {
    let project = Project::with_tiny_base(Who::Root);
    // The shell around it says afterwards whether the terminal echoes.
    let binary = crate::support::cli::binary();
    let line = format!(
        "{} shell localhost/tiny:1; stty -a | grep -ow -e '-echo' -e echo; echo over",
        binary.display()
    );
    let acts = json!([["# ", typed("kill -9 $$; sleep 1\n")], ["over", typed("")]]);
    let driver = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/drivers/terminal.py");
    let mut command = std::process::Command::new("python3");
    command.args([driver, &acts.to_string(), "sh", "-c", &line]);
    project.surroundings(&mut command);
    let told = Ran::of(&mut command).json();
    let seen = told["seen"].as_str().unwrap();
    assert!(seen.contains("\necho\r\nover"), "{seen}");
}

#[test]
fn a_shell_opens_where_a_step_failed() {
    for who in [Who::Root, Who::Range] {
        let project = Project::with_tiny_base(who);
        project
            .script("below", "echo below > /srv/below")
            .script("broken", "export X=1; echo half > /srv/half; echo key > /tmp/key; false")
            .definition("broken", &["below", "broken"]);
        let look = json!([
            [
                "# ",
                typed(
                    "cat /srv/below /srv/half /tmp/key; ls /run/ocibuild; echo $((1 + 1))-seen\n"
                )
            ],
            ["2-seen", typed("exit\n")],
        ]);
        let told = at_terminal(&project, &look, &["build", "broken", "--shell"]);
        let seen = told["seen"].as_str().unwrap();
        assert!(seen.contains("below\r\nhalf\r\nkey"), "{seen}");
        assert_eq!(told["code"], 1, "the build has failed all the same: {seen}");
        assert!(seen.contains("error: the step `only` of the layer `broken`"), "{seen}");

        // Without a terminal the build fails as ever; later the shell is opened over it.
        project.run(&["build", "broken"]).fails(1);
        let told = at_terminal(&project, &look, &["shell", "--failed"]);
        let seen = told["seen"].as_str().unwrap();
        assert!(seen.contains("below\r\nhalf\r\nkey"), "{seen}");
        assert!(seen.contains("below: cached"), "layers that are there are not made again: {seen}");

        project.script("broken", "true");
        let told = at_terminal(&project, &json!([]), &["shell", "--failed"]);
        assert_eq!(told["code"], 0, "{told:#}");
        assert_eq!(project.running(), Vec::<String>::new());
    }
}
