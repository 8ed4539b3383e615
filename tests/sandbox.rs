//! What a step can see and do, how it ends, and that nothing outlives it: as root and as an
//! ordinary user with a range of ids.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::base;
use crate::support::cli::{Ran, Who, processes_with, wait_for};
use crate::support::driver::{Driver, Step, lines};

const BOTH: [Who; 2] = [Who::Root, Who::Range];

/// Returns what a script printed, or its complaint, as one text.
fn said(result: &Value) -> String {
    lines(result).join("\n")
}

#[test]
fn a_step_sees_a_machine_of_its_own() {
    for who in BOTH {
        let driver = Driver::with_tiny_base(who);
        let script = "
            id -u; id -g; hostname; umask; ulimit -c; ulimit -n
            set -- /proc/[0-9]*; echo $#
            tail -n +3 /proc/net/dev | cut -d: -f1
            ls /sys/class/net
            cat /etc/hosts
            wc -c </proc/self/fd/0
            ls /proc/self/fd | wc -l
            env | grep -v -e SHLVL -e PATH | sort";
        let expected = "0 0 ocibuild 0022 0 1024 2 lo lo 127.0.0.1 localhost ocibuild 0 4 \
                        HOME=/root LC_ALL=C.UTF-8 PWD=/";
        let told = said(&driver.step(&Step::new(script)));
        let words: Vec<&str> = told.split_whitespace().collect();
        assert_eq!(words.join(" "), expected, "{who:?}");
    }
}

#[test]
fn a_step_has_the_devices_that_every_program_expects() {
    let driver = Driver::with_tiny_base(Who::Range);
    let script = "
        echo x >/dev/null; head -c 3 /dev/zero | wc -c; head -c 5 /dev/urandom | wc -c
        echo via-stdout >/dev/stdout; echo via-fd >/dev/fd/1
        echo x >/dev/full 2>/dev/null || echo full
        readlink /dev/ptmx; test -c /dev/pts/ptmx && echo pts
        stat -c %a /dev/shm /dev/ptmx -L
        touch /dev/shm/x && echo shm";
    let told = said(&driver.step(&Step::new(script)));
    assert_eq!(told, "3\n5\nvia-stdout\nvia-fd\nfull\npts/ptmx\npts\n1777\n666\nshm");
}

#[test]
fn a_step_cannot_reach_the_machine() {
    for who in BOTH {
        let driver = Driver::with_tiny_base(who);
        // As root of a machine it has every capability, and mounts; each line must stay silent.
        let script = "
            exec 2>/dev/null
            may() { \"$@\" && echo \"could $*\"; }
            may sh -c 'echo x >/proc/sys/kernel/core_pattern'
            may mount -o remount,rw,bind /proc/sys
            may mount -o remount,rw,bind /sys
            may umount -l /proc/sys
            may umount -l /proc/keys
            may umount -l /sys
            may sh -c 'echo h >/proc/sysrq-trigger'
            may mount -t proc proc /tmp
            may mount -t sysfs sys /tmp
            may unshare -n mount -t sysfs sys /tmp
            may ls /proc/1/root/
            may readlink /proc/1/exe
            may cat /proc/1/environ
            may sh -c 'echo x >/proc/1/exe'
            may mknod /tmp/sda b 8 0
            may ip link set lo down
            may hostname other
            may dmesg
            may test -s /proc/keys
            may test -e /etc/shadow.of.the.machine
            for pid in /proc/[0-9]*; do case $(cat $pid/cmdline) in *job.jso[n]*) echo $pid;; esac; done
            mount -t tmpfs t /tmp && echo may-mount
            echo end";
        let result = driver.step(&Step::new(script));
        assert_eq!(said(&result), "may-mount\nend", "{who:?}");
    }
}

#[test]
fn a_step_that_syncs_does_not_wait_and_other_calls_are_refused() {
    let driver = Driver::with_tiny_base(Who::Root);
    let script = "sync && dd if=/dev/zero of=/x bs=1 count=1 conv=fsync 2>/dev/null && echo ok";
    assert_eq!(said(&driver.step(&Step::new(script))), "ok");
}

#[test]
fn a_step_runs_as_whom_the_image_knows() {
    for who in BOTH {
        let driver = Driver::with_tiny_base(who);
        let script = "echo $(id -u) $(id -g) $(id -G) $HOME; touch /tmp/x; stat -c %u:%g /tmp/x
            chown 0 /tmp/x 2>/dev/null || echo no-root; ls /root 2>/dev/null || echo closed";
        let told = |user: &str| said(&driver.step(&Step::new(script).with("user", json!(user))));
        let jovyan = "1000 100 100 /home/jovyan\n1000:100\nno-root\nclosed";
        assert_eq!(told("jovyan"), jovyan, "{who:?}");
        assert_eq!(told("1000"), jovyan);
        assert_eq!(told("1000:staff"), "1000 50 50 /home/jovyan\n1000:50\nno-root\nclosed");
        assert_eq!(told("65534:65534"), "65534 65534 65534 /\n65534:65534\nno-root\nclosed");
        let result = driver.step(&Step::new(script).with("user", json!("nobody")));
        assert_eq!(result["error"], "the image has no user `nobody`");
        let result = driver.step(&Step::new(script).with("user", json!("0:wheel")));
        assert_eq!(result["error"], "the image has no group `wheel`");
    }
}

#[test]
fn how_a_step_ends_is_told() {
    let driver = Driver::with_tiny_base(Who::Range);
    let mut acts = driver.stack();
    acts.extend([
        Step::new("exit 7").act(),
        Step::new("kill -SEGV $$").act(),
        Step::new("sleep 1000 & echo begun").act(),
        Step::new("sleep 1000; true").ending("timeout", 0.3).act(),
        Step::new("trap '' TERM INT; sleep 1000; true").ending("cancel_after", 0.3).act(),
        Step::new("").with("argv", json!(["no-such-program"])).act(),
        Step::new("").with("argv", json!(["/etc/passwd"])).act(),
        Step::new("").with("workdir", json!("/no/folder")).act(),
        json!({ "shell": "printf 'echo x\\n' >$MERGED/bin/bare; chmod 755 $MERGED/bin/bare" }),
        Step::new("").with("argv", json!(["bare"])).act(),
    ]);
    let results = driver.acts(&acts);
    let outcome = |at: usize| results[at + 2]["outcome"].clone();
    let error = |at: usize| results[at + 2]["error"].as_str().unwrap().to_owned();
    assert_eq!(outcome(0), json!({ "exited": 7 }));
    assert_eq!(outcome(1), json!({ "signalled": 11 }));
    assert_eq!(outcome(2), json!({ "exited": 0 }), "what it leaves running is killed");
    assert_eq!(outcome(3), json!("timed-out"));
    assert_eq!(outcome(4), json!("cancelled"));
    assert!(error(5).starts_with("cannot run `no-such-program` in the image: No such file"));
    assert!(error(6).starts_with("cannot run `/etc/passwd` in the image: Permission denied"));
    assert!(error(7).starts_with("cannot enter the folder `/no/folder` in the image: No such"));
    assert!(error(9).starts_with("cannot run `bare` in the image: Exec format error"));
}

#[test]
fn output_comes_by_lines_however_it_is_written() {
    let driver = Driver::with_tiny_base(Who::Root);
    let script =
        "echo out; echo err >&2; printf '\\nno end'; head -c 70000 /dev/zero | tr '\\0' x >&2";
    let result = driver.step(&Step::new(script));
    assert_eq!(lines(&result), ["out", "", "no end"]);
    let err = result["err"].as_array().unwrap();
    let lengths: Vec<usize> = err.iter().map(|line| line.as_str().unwrap().len()).collect();
    assert_eq!(lengths, [3, 65536, 70000 - 65536]);
}

#[test]
fn mounts_are_where_and_what_the_spec_says() {
    for who in BOTH {
        let driver = Driver::with_tiny_base(who);
        let recipe = driver.path("home/recipe");
        std::fs::create_dir(&recipe).unwrap();
        std::fs::write(recipe.join("file"), "recipe\n").unwrap();
        let cache = driver.path("home/cache");
        let bind = |source: &std::path::Path, access: &str| json!({ "bind": { "source": source, "access": access } });
        let mut acts = driver.stack();
        acts.push(json!({ "shell": format!("mkdir {}; ln -s /run/elsewhere $MERGED/srv/link", cache.display()) }));
        let step = |script: &str| {
            Step::new(script)
                .mounting("/run/ocibuild/recipe", &bind(&recipe, "read-only"))
                .mounting("/run/ocibuild/ca.crt", &bind(&recipe.join("file"), "read-only"))
                .mounting("/run/lock", &json!({ "folder": { "mode": 0o1777 } }))
                .mounting("/var/cache/apt", &bind(&cache, "read-write"))
                .mounting("/run/elsewhere", &json!({ "folder": { "mode": 0o700 } }))
                .mounting("/srv/link/below", &json!({ "memory": { "mode": 0o711, "bytes": 4096 } }))
        };
        let script = "cat /run/ocibuild/recipe/file /run/ocibuild/ca.crt
            (echo x >/run/ocibuild/recipe/file; rm /run/ocibuild/recipe/file; echo x >/run/ocibuild/ca.crt) 2>/dev/null
            stat -c %a /run/lock /run/elsewhere/below /run/elsewhere
            echo kept >/var/cache/apt/file; echo x >/tmp/x";
        acts.push(step(script).act());
        acts.push(json!({ "shell": format!("cat {}/file; cd $UPPER; find . -mindepth 1 | sort", cache.display()) }));
        acts.push(Step::new("true").mounting("/srv/absent", &bind(&recipe, "read-only")).act());
        let results = driver.acts(&acts);
        assert_eq!(lines(&results[3]), ["recipe", "recipe", "1777", "711", "700"], "{who:?}");
        // Nothing of it is left in the tree.
        assert_eq!(results[4]["out"], "kept\n./srv\n./srv/link\n", "{who:?}");
        let error =
            "`/srv/absent` does not exist in the image, so that nothing can be mounted there";
        assert_eq!(results[5]["error"], error);
        assert_eq!(std::fs::read_to_string(recipe.join("file")).unwrap(), "recipe\n");
    }
}

#[test]
fn the_network_of_the_machine_only_when_asked_for() {
    let driver = Driver::with_tiny_base(Who::Range);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let script = format!("nc -w 2 127.0.0.1 {port} </dev/null && echo reached");
    let host = Step::new(&script).with("network", json!("host"));
    let serve = std::thread::spawn(move || listener.accept().map(drop));
    assert_eq!(said(&driver.step(&host)), "reached");
    serve.join().unwrap().unwrap();
    let off = format!(
        "{script}; nc -l -p 80 -w 1 </dev/null & sleep 0.2; nc 127.0.0.1 80 </dev/null && echo own"
    );
    assert_eq!(said(&driver.step(&Step::new(&off))), "own");
}

#[test]
fn a_recorded_network_leads_to_the_recorder_alone() {
    // The driver's recorder tells which door was come to, and for which address.
    let script = "
        nc 127.0.0.1 80 </dev/null; nc 127.0.0.1 443 </dev/null
        nc 192.0.2.7 80 </dev/null; nc 2001:db8::7 443 </dev/null
        nslookup a.example 192.0.2.53 | grep -A 1 a.example
        nc 192.0.2.7 22 </dev/null || echo refused
        nc 127.0.0.1 22 </dev/null || echo refused
        nc -l -p 8080 -e echo own & sleep 0.3; nc 127.0.0.1 8080 </dev/null
        ip link set lo down 2>/dev/null || echo up
        echo user; su -s /bin/sh jovyan -c 'nc 192.0.2.7 80 </dev/null'";
    let expected = [
        "http 127.0.0.1:80",
        "https 127.0.0.1:443",
        "http 192.0.2.7:80",
        "https [2001:db8::7]:443",
        "Name:\ta.example",
        "Address: 192.0.2.80",
        "refused",
        "refused",
        "own",
        "up",
        "user",
        "http 192.0.2.7:80",
    ];
    for (who, request) in [(Who::Root, "root"), (Who::Range, "range"), (Who::Range, "single")] {
        let driver = Driver::with_tiny_base(who);
        let mut acts = driver.stack();
        acts.push(Step::new(script).with("network", json!("recorded")).act());
        let told = Ran::of(&mut driver.command(request, &acts)).json();
        assert_eq!(said(&told["results"][2]), expected.join("\n"), "{request}");
    }
}

/// Starts a step that sleeps; returns the outer process and the mark that its processes carry.
fn sleeping(driver: &Driver, mark: &str) -> std::process::Child {
    let script = format!("setsid sleep {mark} & sleep {mark}; true");
    let mut acts = driver.stack();
    acts.push(Step::new(&script).act());
    let mut command = driver.command("auto", &acts);
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for("the step", || processes_with(mark).len() >= 3);
    child
}

/// Returns the child processes of a process.
fn children(pid: u32) -> Vec<u32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let text = std::fs::read_to_string(path).unwrap();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

#[test]
fn nothing_outlives_a_builder_that_is_killed() {
    for (who, depth, mark) in [
        (Who::Root, 0, "98701.1"),
        (Who::Range, 0, "98702.1"),
        (Who::Root, 1, "98703.1"),
        (Who::Range, 2, "98704.1"),
    ] {
        let driver = Driver::with_tiny_base(who);
        let mut outer = sleeping(&driver, mark);
        // The outer process, the inner one, or the step's helper.
        let mut pid = outer.id();
        for _ in 0..depth {
            pid = children(pid)[0];
        }
        Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap();
        outer.wait().unwrap();
        wait_for("all processes to be gone", || processes_with(mark).is_empty());
        let place = driver.path("");
        wait_for("the inner process to be gone", || {
            processes_with(&place.display().to_string()).is_empty()
        });
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(!mounts.contains(&place.display().to_string()), "{mounts}");
        assert!(!driver.path("memory/merged").exists());
    }
}

#[test]
fn signals_reach_the_inner_process_and_its_end_is_passed_on() {
    let driver = Driver::with_tiny_base(Who::Range);
    let mut outer = sleeping(&driver, "98705.1");
    Command::new("kill").args(["-TERM", &outer.id().to_string()]).status().unwrap();
    assert_eq!(outer.wait().unwrap().code(), Some(128 + 15));
    wait_for("all processes to be gone", || processes_with("98705.1").is_empty());
}

#[test]
fn a_machine_that_does_not_allow_it_is_told_what_to_change() {
    let driver = Driver::of(Who::Root);
    let told = |command: &mut Command| {
        let ran = Ran::of(command);
        let text = ran.stdout();
        let value: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{ran}"));
        (value["error"].as_str().unwrap().to_owned(), value["hint"].as_str().unwrap().to_owned())
    };
    // The limit belongs to a user namespace, so that it can be tried in one.
    let job = driver.command("root", &[]);
    let (program, arguments) = (job.get_program(), job.get_args().collect::<Vec<_>>());
    let within = format!("{} {}", program.display(), arguments[0].display());
    std::fs::copy(driver.path("tmp/job.json"), driver.path("home/job.json")).unwrap();
    let within = within.replace("tmp/job.json", "home/job.json");
    let results = driver.acts(&[
        json!({ "shell": within }),
        json!({ "shell": format!("echo 0 >/proc/sys/user/max_user_namespaces; {within}") }),
    ]);
    assert_eq!(results[0]["out"], "{\"flavour\":\"root\",\"results\":[]}\n", "{results:?}");
    let refused: Value = serde_json::from_str(results[1]["out"].as_str().unwrap()).unwrap();
    let (error, hint) = (refused["error"].as_str().unwrap(), refused["hint"].as_str().unwrap());
    assert!(error.contains("are switched off (user.max_user_namespaces is 0)"), "{error}");
    assert!(hint.contains("sysctl -w user.max_user_namespaces=15000"), "{hint}");

    let job = driver.command("root", &[]);
    let mut weak = Command::new("setpriv");
    weak.args(["--bounding-set=-setuid", "--inh-caps=-setuid", "--"]);
    weak.arg(job.get_program()).args(job.get_args());
    let (error, hint) = told(&mut weak);
    assert_eq!(error, "cannot build with all ids here: root has no CAP_SETUID here");
    assert_eq!(hint, "start the container with --cap-add SETUID");

    let ranged = Driver::of(Who::Range);
    std::fs::write(ranged.path("users/subgid"), "tester:1000000:1000\n").unwrap();
    let (error, hint) = told(&mut ranged.command("range", &[]));
    let expected = "cannot build with a range of subordinate ids here: /etc/subgid gives `tester` \
                    1000 ids, and images need 65536";
    assert_eq!(error, expected);
    assert!(hint.contains("usermod --add-subuids"), "{hint}");
    let mut shielded = Command::new("setpriv");
    let job = ranged.command("range", &[]);
    std::fs::write(ranged.path("users/subgid"), "tester:1000000:65536\n").unwrap();
    shielded.arg("--no-new-privs").arg(job.get_program()).args(job.get_args());
    let (error, _) = told(&mut shielded);
    assert!(error.contains("no_new_privs"), "{error}");
}

/// Real packages: owners, set-uid and set-gid programs, capabilities, users that packages make, and
/// programs that give up root. The changes are the same for both users, but for what differs from
/// run to run.
#[test]
fn debian_packages_install_alike_for_root_and_for_a_range() {
    let script = "set -e
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -q
        apt-get install -qy --no-install-recommends openssh-server sudo man-db iputils-ping
        sudo -u nobody id
        getcap /usr/bin/ping
        su -s /bin/sh -c 'id -un' sshd";
    let listing = "cd $UPPER && find . \\( -path ./var/log -o -path ./var/cache -o -path ./var/lib/apt \\) -prune \
        -o -printf '%P %y %m %U:%G %l\\n' | grep -v '\\.conf.*~$' | sort; getcap usr/bin/ping
        stat -c '%u:%g %a' etc/shadow usr/bin/sudo usr/bin/ssh-agent var/cache/man";
    let mut listings = BOTH.map(|who| {
        let driver = Driver::with_base(who, base::debian());
        let mut acts = driver.stack();
        let lists = json!({ "memory": { "mode": 0o755, "bytes": null } });
        acts.push(
            Step::new(script)
                .with("network", json!("host"))
                .mounting("/var/lib/apt/lists", &lists)
                .mounting("/var/cache/apt", &lists)
                .mounting(
                    "/var/cache/apt/archives/partial",
                    &json!({ "folder": { "mode": 0o755 } }),
                )
                .act(),
        );
        acts.push(json!({ "shell": listing }));
        let mut results = driver.acts(&acts);
        let listed = results.pop().unwrap();
        let told = said(&results.pop().unwrap());
        assert!(
            told.ends_with(
                "uid=65534(nobody) gid=65534(nogroup) groups=65534(nogroup)\n\
                 /usr/bin/ping cap_net_raw=ep\nsshd"
            ),
            "{told}"
        );
        listed["out"].as_str().unwrap().to_owned()
    });
    let [root, range] = &mut listings;
    assert!(root.ends_with("0:42 640\n0:0 4755\n0:101 2755\n6:12 755\n"), "{root}");
    assert_eq!(root, range);
}
