//! What a step leaves and sees under a supervisor: in a namespace of one id the same as as root,
//! and device nodes in every mode.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::base;
use crate::support::cli::{Ran, Who};
use crate::support::driver::{Driver, Step, lines};
use crate::support::run;

/// A folder with the Debian base, as `who` has it under one id or, as root, under all.
pub(crate) fn debian(who: Who) -> (Driver, Value) {
    if who == Who::Root {
        return (Driver::with_base(who, base::debian()), json!({}));
    }
    let driver = Driver::of(who);
    let base = driver.path("base");
    let script = format!(
        "mkdir {0} && tar -xpf {1} -C {0} --no-same-owner --exclude='./dev/*'",
        base.display(),
        base::debian().display()
    );
    let told = Ran::of(&mut driver.command("single", &[json!({ "shell": script })])).json();
    assert_eq!(told["results"][0]["code"], 0, "{told}");
    (driver, json!({ "owners": owners(base::debian()) }))
}

/// The owners of a tar's entries that aren't root's.
fn owners(tar: &Path) -> BTreeMap<String, (u64, u64)> {
    let mut archive = tar::Archive::new(std::fs::File::open(tar).unwrap());
    let mut owners = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let entry = entry.unwrap();
        let owner = (entry.header().uid().unwrap(), entry.header().gid().unwrap());
        let path = entry.path().unwrap().to_str().unwrap().trim_matches(['.', '/']).to_owned();
        if owner != (0, 0) && !path.starts_with("dev/") {
            owners.insert(path, owner);
        }
    }
    owners
}

/// Runs steps over the Debian base, and returns what they said and, last, the tree's truth.
fn over_debian(who: Who, request: &str, steps: &[Step]) -> Vec<Value> {
    let (driver, sidecar) = debian(who);
    over(&driver, &sidecar, request, steps)
}

pub(crate) fn over(driver: &Driver, sidecar: &Value, request: &str, steps: &[Step]) -> Vec<Value> {
    results(&mut driver.command(request, &acts(driver, sidecar, steps)))
}

/// What runs steps over the base of a folder, and tells the tree's truth.
fn acts(driver: &Driver, sidecar: &Value, steps: &[Step]) -> Vec<Value> {
    let mut acts = vec![
        json!({ "memory": { "dir": driver.path("memory"), "bytes": 2_u64 << 30 } }),
        driver.mount(&[json!([driver.path("base"), sidecar])], "memory"),
    ];
    acts.extend(steps.iter().map(Step::act));
    acts.push(json!("truth"));
    acts
}

/// What came of the steps and the truth.
fn results(command: &mut Command) -> Vec<Value> {
    Ran::of(command).json()["results"].as_array().unwrap()[2..].to_vec()
}

/// The same as root and with one id, which must be the same.
fn alike(script: &str) -> Vec<String> {
    steps_alike(&[Step::new(script)], &|_| ())
}

/// The same for the last of some steps, over a base with something more in it.
pub(crate) fn steps_alike(steps: &[Step], prepare: &dyn Fn(&Path)) -> Vec<String> {
    let mut both = [(Who::Root, "root"), (Who::Range, "single")].map(|(who, request)| {
        let (driver, sidecar) = debian(who);
        prepare(&driver.path("base"));
        let mut results = over(&driver, &sidecar, request, steps);
        let truth = results.pop().unwrap();
        let said = results.pop().unwrap();
        let truth: Vec<String> = serde_json::from_value(truth).unwrap();
        (lines(&said), truth, said["err"].clone())
    });
    let [root, single] = &mut both;
    let differ: Vec<_> = root.0.iter().zip(&single.0).filter(|(a, b)| a != b).collect();
    assert!(
        differ.is_empty() && root.0.len() == single.0.len(),
        "{differ:#?} {} {}",
        root.2,
        single.2
    );
    // What root may do natively the other has remembered; both are told in one way.
    let differ: Vec<_> = root.1.iter().zip(&single.1).filter(|(a, b)| a != b).take(20).collect();
    assert!(differ.is_empty() && root.1.len() == single.1.len(), "{differ:#?}");
    std::mem::take(&mut single.0)
}

#[test]
fn what_programs_do_with_owners_is_the_same_with_one_id() {
    let said = alike(
        "cd /root; exec 2>&1
        id; stat -c '%u:%g %a %n' /etc/shadow /var/mail /usr/bin/chage /dev/null
        touch x; chown 33:44 x; chmod 4711 x; stat -c '%u:%g %a' x; chown :45 x; stat -c '%u:%g %a' x
        install -o games -g 60 -m 640 /etc/hosts y; stat -c '%u:%g %a' y
        useradd -m -u 1000 u; stat -c %u:%g /home/u /home/u/.bashrc
        mkdir d; chown 5:6 d; chmod 2775 d; touch d/f; mkdir d/e; mkfifo d/p; ln -s a d/l; cp x d/x
        stat -c '%u:%g %a %n' d/*
        mv d/f f; ln d/x hard; rm d/x; stat -c '%u:%g %h' f hard
        tar -cf /tmp/t.tar d f hard y; mkdir t; tar -C t -xpf /tmp/t.tar; cp -a d copied
        find t copied -printf '%U:%G %m %P\\n' | sort
        mv /etc/shadow /etc/shadow.old; cp -p /etc/shadow.old /etc/shadow; echo >/etc/gshadow
        rm /var/mail -r; mkdir /var/mail; ln /usr/bin/expiry expiry; mv /usr/bin/chage chage
        stat -c '%u:%g %a %n' /etc/*shadow* /var/mail expiry chage
        touch \"$(printf 'odd\\377')\"; chown 9:9 odd*; stat -c %u:%g odd*
        chroot / sh -c 'chown 7 /root/y; stat -c %u:%g /root/y'
        chown -R root:root d; stat -c '%u:%g %n' d d/*
        chown 1:2 /proc/self/cwd/y /dev/stdin 3<y <x; stat -c %u:%g x y",
    );
    assert!(said.contains(&"0:42 640 /etc/shadow".to_owned()), "{said:?}");
    assert!(said.contains(&"33:44 4711".to_owned()), "{said:?}");
    assert!(said.contains(&"33:45 711".to_owned()), "{said:?}");
}

/// A file in a set-gid folder is made by the supervisor, which then holds it.
#[test]
fn a_program_that_was_just_written_can_be_executed() {
    let said = alike(
        "mkdir /srv/d; chown 0:60 /srv/d; chmod 2775 /srv/d; cd /srv/d
        for n in $(seq 200); do cp /bin/true p$n; ./p$n || echo $n; done
        stat -c %u:%g p200",
    );
    assert_eq!(said, ["0:60"]);
}

#[test]
fn who_a_process_is_is_the_same_with_one_id() {
    let said = alike(
        "cd /tmp; exec 2>&1
        useradd -m -u 1000 -G games u
        su u -c 'id; umask; touch ~/mine; chown 0 ~/mine; cp -p /etc/passwd ~/copy; stat -c %u:%g:%n ~/*'
        setpriv --reuid 1000 --regid 60 --clear-groups sh -c '
            id; umask 027; mkdir q; touch q/z; exec 3>q/w; ln -s x q/l; mkfifo q/p
            stat -c \"%u:%g %a %n\" q/*; setpriv --reuid 0 id; mknod q/n c 1 3; echo $?'
        su nobody -s /bin/sh -c 'id; passwd -S | cut -d\" \" -f1; (chage -l nobody) | head -1'
        chown 1000 /usr/bin/id; chmod 4755 /usr/bin/id; su nobody -s /bin/sh -c id
        setpriv --reuid 5 --regid 5 --clear-groups --inh-caps=-all sh -c 'ulimit -m; ulimit -m 9; id -u'
        perl -e '$> = 33; print \"$< $>\\n\"; open F, \">/tmp/by33\"; $> = 0; print \"$< $>\\n\"'
        stat -c %u:%g /tmp/by33",
    );
    assert!(said.contains(&"uid=1000(u) gid=1000(u) groups=1000(u),60(games)".to_owned()));
}

/// Real packages: users that they make, set-gid programs, capabilities, programs that give up root
/// and look whether they have.
#[test]
fn debian_packages_install_alike_for_root_and_with_one_id() {
    let script = "set -e
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -q
        apt-get install -qy --no-install-recommends openssh-server man-db dbus cron iputils-ping sudo
        rm -rf /var/log /var/cache /var/lib/apt /etc/ssh/ssh_host* /etc/machine-id /var/lib/dbus
        useradd -m -u 1000 u; echo 'u ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/u
        su u -c 'sudo touch /root/by-sudo'";
    let listings = [(Who::Root, "root"), (Who::Range, "single")].map(|(who, request)| {
        let step = Step::new(script).with("network", json!("host"));
        let mut results = over_debian(who, request, &[step]);
        assert_eq!(results[0]["outcome"], json!({ "exited": 0 }), "{}", results[0]);
        let truth: Vec<String> = serde_json::from_value(results.pop().unwrap()).unwrap();
        truth
    });
    let [root, single] = &listings;
    let differ: Vec<_> = root.iter().zip(single).filter(|(a, b)| a != b).take(20).collect();
    assert!(differ.is_empty() && root.len() == single.len(), "{differ:#?}");
    for line in [
        "usr/bin/crontab 0 101 102755  ",
        "usr/bin/ping 0 0 100755  0100000200200000000000000000000000000000",
        "var/spool/cron/crontabs 0 101 41730  ",
        "root/by-sudo 0 0 100644  ",
    ] {
        assert!(single.iter().any(|found| found == line), "{line}");
    }
}

#[test]
fn owners_outlive_what_the_kernel_forgets() {
    // Overlay gives what it copied up another inode number when it looks again.
    let script = "cd /root
        mkdir d; chown 5:6 d /etc; chown 8 /etc/passwd; chmod 600 /etc/gshadow
        chown -h 3 /etc/os-release; mv /usr/bin/chage .; mkdir many; cd many
        seq 700 | xargs touch; chown -R 77 .; cd ..
        list() { stat -c '%u:%g %n' d /etc /etc/passwd /etc/gshadow /etc/os-release chage many/9; }
        list; sleep 2.5; list";
    let forget = std::thread::spawn(|| {
        for _ in 0..60 {
            std::thread::sleep(std::time::Duration::from_millis(300));
            std::fs::write("/proc/sys/vm/drop_caches", "3").ok();
        }
    });
    let results = over_debian(Who::Range, "single", &[Step::new(script)]);
    drop(forget);
    let said = lines(&results[0]);
    let expected = [
        "5:6 d",
        "5:6 /etc",
        "8:0 /etc/passwd",
        "0:42 /etc/gshadow",
        "3:0 /etc/os-release",
        "0:42 chage",
        "77:0 many/9",
    ];
    assert_eq!(said, [expected, expected].concat());
}

#[test]
fn more_owners_than_files_can_be_open() {
    let (driver, sidecar) = debian(Who::Range);
    let script = "mkdir /root/m; cd /root/m; seq 30000 | xargs touch
        list() { find . -type f -printf '%U:%G\\n' | sort | uniq -c; }
        chown -R 1000:100 .; list; chown 7 5; list; ulimit -Hn";
    let inner = driver.command("single", &acts(&driver, &sidecar, &[Step::new(script)]));
    let mut limited = Command::new("prlimit");
    limited.args(["--nofile=5000:5000", "--"]).arg(inner.get_program()).args(inner.get_args());
    let environment = inner.get_envs().filter_map(|(name, value)| Some((name, value?)));
    limited.env_clear().envs(environment);
    let said = lines(&results(&mut limited)[0]).join("\n");
    assert_eq!(said, "  30000 1000:100\n  29999 1000:100\n      1 7:100\n5000");
}

/// A program of 32 bits without a library: it makes a file, gives it away and looks at it, through
/// the calls of i386.
#[test]
fn a_program_of_32_bits_is_answered_too() {
    let source = r#"
static int call(int n, int a, int b, int c) {
    int r; __asm__ volatile("int $0x80" : "=a"(r) : "a"(n), "b"(a), "c"(b), "d"(c) : "memory");
    return r;
}
static void put(unsigned v) {
    char t[12]; int i = 11; t[i] = '\n'; do { t[--i] = '0' + v % 10; v /= 10; } while (v);
    call(4, 1, (int)(t + i), 12 - i);
}
void _start(void) {
    unsigned char s[128];
    call(6, call(8, (int)"/root/f", 0644, 0), 0, 0);
    call(212, (int)"/root/f", 70000, 7);
    call(195, (int)"/root/f", (int)s, 0);
    put(*(unsigned *)(s + 24)); put(*(unsigned *)(s + 28));
    call(107, (int)"/root/f", (int)s, 0);
    put(*(unsigned short *)(s + 12)); put(*(unsigned short *)(s + 14));
    call(182, (int)"/root/f", 8, 0xffff);
    call(195, (int)"/root/f", (int)s, 0);
    put(*(unsigned *)(s + 24)); put(*(unsigned *)(s + 28));
    call(208, 9, 9, 9);
    put(call(199, 0, 0, 0)); put(call(24, 0, 0, 0));
    put(-call(213, 0, 0, 0));
    call(1, 0, 0, 0);
}
"#;
    let (driver, sidecar) = debian(Who::Range);
    let program = driver.path("base/usr/bin/small");
    let file = program.with_extension("c");
    std::fs::write(&file, source).unwrap();
    let options = ["-m32", "-nostdlib", "-static", "-ffreestanding", "-fno-stack-protector", "-o"];
    run(Command::new("gcc").args(options).arg(&program).arg(&file));
    let results = over(&driver, &sidecar, "single", &[Step::new("small; stat -c %u:%g /root/f")]);
    let said = lines(&results[0]);
    assert_eq!(said, ["70000", "7", "65534", "7", "8", "7", "9", "9", "1", "8:7"]);
}

#[test]
fn device_nodes_in_every_mode() {
    let script = "cd /root; umask 0; mknod null c 1 3; mknod -m 640 disk b 8 17; chown 7:8 disk
        stat -c '%F %t:%T %a %u:%g' null disk; mv disk moved; cp -a moved copy
        stat -c '%F %t:%T %a %u:%g' moved copy; rm copy";
    let expected = [
        "character special file 1:3 666 0:0",
        "block special file 8:11 640 7:8",
        "block special file 8:11 640 7:8",
        "block special file 8:11 640 7:8",
    ];
    for (who, request) in
        [(Who::Root, "root+nodes"), (Who::Range, "range+nodes"), (Who::Range, "single")]
    {
        let driver = if request == "single" { debian(who).0 } else { debian_as_is(who) };
        let acts = [
            json!({ "memory": { "dir": driver.path("memory"), "bytes": 1 << 30 } }),
            driver.mount(&[json!([driver.path("base"), {}])], "memory"),
            Step::new(script).act(),
            json!("truth"),
        ];
        let told = Ran::of(&mut driver.command(request, &acts)).json();
        let results = told["results"].as_array().unwrap();
        assert_eq!(lines(&results[2]), expected, "{request} {}", results[2]);
        let truth: Vec<String> = serde_json::from_value(results[3].clone()).unwrap();
        for line in
            ["root/null 0 0 100666 (Character, 1, 3) ", "root/moved 7 8 100640 (Block, 8, 17) "]
        {
            assert!(truth.iter().any(|found| found == line), "{request}: {line}");
        }
    }
}

/// What not every tree can hold is refused everywhere, or the images would differ.
#[test]
fn access_lists_are_refused_in_every_mode() {
    let script = "cd /tmp; touch x; try() { setfattr -n $1 -v $2 x 2>/dev/null && echo $1; }
        try system.posix_acl_access 0x0200000001000600ffffffff04000400ffffffff20000400ffffffff
        try trusted.x 1; try security.x 1; try user.x 1";
    for (who, request) in [
        (Who::Root, "root+light"),
        (Who::Range, "range+light"),
        (Who::Root, "root+nodes"),
        (Who::Range, "single"),
    ] {
        let driver = Driver::with_tiny_base(who);
        let mut acts = driver.stack();
        acts.push(Step::new(script).act());
        let told = Ran::of(&mut driver.command(request, &acts)).json();
        let said = lines(&told["results"][2]);
        assert_eq!(said, ["user.x"], "{request}");
    }
}

fn debian_as_is(who: Who) -> Driver {
    Driver::with_base(who, base::debian())
}

#[test]
fn a_step_that_wants_device_nodes_is_stopped_where_nobody_looks_after_them() {
    for (who, request) in [(Who::Root, "root+light"), (Who::Range, "range+light")] {
        let driver = debian_as_is(who);
        let mut acts = driver.stack();
        acts.push(Step::new("mkfifo /root/p && mknod /root/w p && echo fine").act());
        acts.push(Step::new("mknod /root/null c 1 3; sleep 1000; true").act());
        let told = Ran::of(&mut driver.command(request, &acts)).json();
        let results = told["results"].as_array().unwrap();
        assert_eq!(lines(&results[2]), ["fine"]);
        assert_eq!(results[3]["outcome"], "needs-supervision", "{request}");
    }
}

#[test]
fn owners_may_be_discarded() {
    let script = "touch /root/x; chown 33:44 /root/x && stat -c %u:%g /root/x
        setpriv --reuid 5 --regid 5 --clear-groups id -u; mknod /root/n c 1 3 && echo made";
    let results = over_debian(Who::Range, "single+discard", &[Step::new(script)]);
    assert_eq!(lines(&results[0]), ["0:0", "0", "made"]);
}

#[test]
fn many_at_once_and_signals_change_no_answer() {
    let (driver, sidecar) = debian(Who::Range);
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/drivers/stress.c");
    let program = driver.path("base/usr/bin/stress");
    run(Command::new("cc").args(["-O1", "-w", "-static", "-pthread", source, "-o"]).arg(&program));
    let step = Step::new("cd /root && timeout 120 stress; stat -c %u:%g process9 thread63");
    let results = over(&driver, &sidecar, "single", &[step]);
    let said = lines(&results[0]);
    assert_eq!(said[0], "wrong 0, failed 0, under signals", "{}", results[0]);
    assert_eq!(said[1..], ["9:7", "63:299"]);
}
