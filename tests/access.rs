//! What a process may that isn't root, where one id is all there is: the same as as root of a
//! machine. The kernel, for which all of a step is one user, would let it do anything.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::ownership::{debian, steps_alike};
use crate::support::cli::{Ran, Who};
use crate::support::driver::{Step, lines};
use crate::support::run;

/// What there is for a user to try.
const SET_UP: &str = "cd /root; umask 022
    useradd -m -u 1000 -G games u; echo open >open; echo o >/home/u/roots; cp /bin/true /usr/bin/private
    chmod 700 /usr/bin/private; mkdir -m 1777 /sticky; touch /sticky/roots; mkdir /shared
    chgrp games /shared; chmod 2770 /shared; cp -p /etc/passwd /etc/others; chmod 606 /etc/others
    chown 0:1000 /etc/others; mkdir -m 711 /passage; echo p >/passage/in; ln -s /root/open /passage/link
    mkfifo -m 600 /pipe; mkdir -m 700 /mine; chown u /mine; touch /mine/roots";

/// What it tries; each line says what came of it.
const TRIES: &str = r#"exec 2>&1; LC_ALL=C; export LC_ALL
    t() { said=$("$@" 2>&1 >/dev/null); echo "$? $(echo "$said" | sed 's/.*: //') - $*"; }
    id; cd /
    t cat /etc/shadow; t cat /etc/passwd; t ls /root; t cat /root/open; t stat /root/open; t stat /root
    t cat /passage/in; t ls /passage; t cat /passage/link; t readlink /passage/link; t cat /etc/others
    t sh -c 'echo >>/etc/passwd'; t sh -c 'echo >/etc/new'; t dd if=/dev/null of=/etc/hosts conv=notrunc
    t truncate -s 0 /etc/passwd; t mkdir /opt/d; t rm -f /etc/hostname; t rmdir /srv; t mv /etc/passwd /tmp
    t mv /mine/roots /mine/moved; t mv /mine/moved /etc/; t ln /etc/passwd /opt/p; t ln -s a /opt/l
    t mkfifo /opt/p; t chmod 777 /etc; t chmod 600 /etc/passwd; t chown 1000 /etc/passwd; t touch /etc/passwd
    t touch -d 2001-01-01 /etc/passwd; t test -r /etc/shadow; t test -w /etc; t test -w /usr/lib
    t test -x /usr/bin/private; t private; t /usr/bin/private; t sh -c 'cd /root'; t sh -c 'cd /passage; cat in'
    t rm -f /sticky/roots; t mv /sticky/roots /sticky/moved; t touch /sticky/mine; t rm /sticky/mine
    t touch /shared/s; t mkdir /shared/d; stat -c '%U:%G %a %n' /shared/s /shared/d
    t dd if=/pipe count=0 iflag=nonblock; t sh -c 'echo >/pipe'
    cd ~; mkdir a; touch a/f; chmod 000 a; t ls a; t cat a/f; chmod 300 a; t ls a; t cat a/f; chmod 700 a
    echo x >w; chmod 000 w; t cat w; t sh -c 'echo >>w'; t test -r w; t rm -f w; t rm -f roots
    touch own; t ln own /opt/own; t ln own linked; t touch -d 2001-01-01 own; cp /bin/true s; chmod 4755 s; echo >>s; stat -c %a s
    chmod 2755 s; stat -c %a s; touch /shared/g; chmod 2755 /shared/g; stat -c %a /shared/g
    for name in by-openat2 /etc/by-openat2 a/../by; do perl -e '$how = pack("QQQ", 0101, 0640, 8);
        printf "%d %d\n", syscall(437, -100, $ARGV[0], $how, 24), $!' $name; done
    perl -MIO::Socket::UNIX -e 'print IO::Socket::UNIX->new(Local => $_, Listen => 1) ? "bound\n" : "$!\n"
        for "socket", "/etc/socket", "/shared/socket"'
    perl -MIO::Socket::UNIX -e '$s = IO::Socket::UNIX->new(Local => "named"); print $s->hostpath, "\n"'
    stat -c '%U:%G %a %n' by-openat2 socket named /shared/socket
    cat /proc/self/comm; echo /proc/self/fd/0 | cat /dev/stdin; readlink /proc/self/cwd
    (echo sub) | cat; sh -c 'exec 3<>/dev/null; echo fd >&3; ls /dev/fd/ | head -2; cat </dev/null'; : "#;

#[test]
fn a_step_of_another_user_may_no_more_with_one_id() {
    let user = Step::new(TRIES).with("user", json!("u")).with("workdir", json!("/root"));
    let said = steps_alike(&[Step::new(SET_UP), user], &|_| ());
    for line in [
        "uid=1000(u) gid=1000(u) groups=1000(u),60(games)",
        "1 Permission denied - cat /etc/shadow",
        "1 Permission denied - cat /root/open",
        "0  - cat /etc/passwd",
        "1  - test -w /usr/lib",
        "1 Operation not permitted - rm -f /sticky/roots",
        "u:games 644 /shared/s",
        "u:u 640 by-openat2",
        "u:games 755 /shared/socket",
    ] {
        assert!(said.iter().any(|found| found == line), "{line}: {said:#?}");
    }
}

/// The same for who becomes another user in a step that begins as root.
#[test]
fn who_becomes_another_user_may_no_more_with_one_id() {
    let script = format!(
        "{SET_UP}
        exec setpriv --reuid 1000 --regid 1000 --init-groups env HOME=/home/u sh -c \"$TRIES\""
    );
    let step = Step::new(&script).with("env", json!({ "LC_ALL": "C.UTF-8", "TRIES": TRIES }));
    let said = steps_alike(&[step.with("workdir", json!("/root"))], &|_| ());
    assert_eq!(said[1], "1 Permission denied - cat /etc/shadow");
    assert!(said.iter().any(|found| found == "1  - test -w /usr/lib"), "{said:#?}");
}

/// Whoever is watched for that ends, stops, forks and gets signals as if nobody watched.
#[test]
fn who_becomes_another_user_goes_on_like_anybody() {
    let script = r#"exec 2>&1; cd /tmp
        useradd -m -u 1000 u; chown u /usr/bin/small; chmod 4755 /usr/bin/small
        su nobody -s /bin/sh -c 'cat /etc/shadow; cat /etc/hostname >/dev/null && echo read'
        /usr/bin/small id -u; /usr/bin/small cat /etc/shadow
        cat >watched <<'END'
        sleep 100 & kill -STOP $!; kill -CONT $!; kill $!; wait $!; echo $?
        sh -c 'kill -STOP $$; echo woken' & while ! grep -qi 'State:.t' /proc/$!/status; do :; done
        kill -CONT $!; wait $!; echo $?
        timeout -s INT 0.2 sleep 100; echo $?
        sh -c 'trap "echo trapped; exit 3" TERM; kill $$; exit 4'; echo $?
        sh -c 'kill -SEGV $$'; echo $?
        seq 200 | xargs -P8 -n1 sh -c 'cat /etc/passwd | wc -l; test -r /etc/shadow && echo yes' | sort | uniq -c
        perl -e 'use POSIX; use Time::HiRes "setitimer", "ITIMER_REAL";
            sigaction(SIGALRM, POSIX::SigAction->new(sub { $n++ }, POSIX::SigSet->new, SA_RESTART));
            setitimer(ITIMER_REAL, 0.01, 0.01); while ($i++ < 1000 || !$n) { open(F, "<", "/etc/passwd") or $bad++; close F;
            -e "/etc/none" and $bad++; } setitimer(ITIMER_REAL, 0); print "bad ", $bad + 0, " ", $n > 0, "\n"'
        perl -e 'for (1..300) { if (!fork) { exec "/bin/true" } wait; $s += $? } print "$s
"'
        nohup sh -c 'sleep 0.1; echo late >/tmp/late' >/dev/null & exit 7
END
        setpriv --reuid 1000 --regid 1000 --clear-groups sh watched; echo $?
        while ! test -s /tmp/late; do sleep 0.1; done; stat -c %U /tmp/late
        perl -e '$) = "33 33"; $> = 33; open(F, "/etc/shadow") and print "read
"; $> = 0; open(F, "/etc/shadow") and print "again
"'
        perl -e 'for $i (1..200) { next if fork; $) = $i; $> = $i; $is = $> == $i; $> = 0; open(F, ">", "p$i");
            chown($i, 7, "p$i"); exit($is && (stat "p$i")[4] == $i ? 0 : 1) } while (wait > 0) { $s += $? } print "all $s\n"'
        setpriv --reuid 1000 --regid 1000 --clear-groups /usr/bin/small32; echo $?
        /usr/bin/threads again; echo $?"#;
    let said = steps_alike(&[Step::new(script)], &|base| {
        let compile = |name: &str, source: &str, options: &[&str]| {
            let program = base.join("usr/bin").join(name);
            let file = program.with_extension("c");
            std::fs::write(&file, source).unwrap();
            run(Command::new("gcc")
                .args(["-static", "-w", "-o"])
                .arg(&program)
                .arg(&file)
                .args(options));
            std::fs::remove_file(&file).unwrap();
            run(Command::new("chown").arg("--reference").arg(base.join("usr/bin")).arg(&program));
        };
        compile("small", "int main(int c, char **v) { execvp(v[1], v + 1); return 1; }", &[]);
        compile("threads", THREADS, &["-pthread"]);
        compile("small32", OPENS, &["-m32", "-nostdlib", "-ffreestanding", "-fno-stack-protector"]);
    });
    for line in [
        "bad 0 1",
        "cat: /etc/shadow: Permission denied",
        "again",
        "all 0",
        "13",
        "refused in a thread's company",
    ] {
        assert!(said.iter().any(|found| found == line), "{line}: {said:#?}");
    }
}

/// A program of 32 bits that ends with the error that it gets.
const OPENS: &str = r#"
static int call(int n, int a, int b, int c) {
    int r; __asm__ volatile("int $0x80" : "=a"(r) : "a"(n), "b"(a), "c"(b), "d"(c) : "memory");
    return r;
}
void _start(void) { call(1, -call(5, (int)"/etc/shadow", 0, 0), 0, 0); }
"#;

/// A program that becomes another user, keeps its capabilities until it runs itself anew, and has
/// threads before and after that.
const THREADS: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
static void *rest(void *none) { for (;;) pause(); }
static int tries(void) { return open("/etc/shadow", O_RDONLY) < 0; }
int main(int c, char **v) {
    pthread_t thread;
    int refused = tries();
    if (pthread_create(&thread, 0, rest, 0)) return 2;
    if (c > 1) {
        prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0);
        syscall(SYS_setresuid, 1000, 1000, 1000);
        execl(v[0], v[0], (char *) 0);
        return 3;
    }
    puts(refused && tries() ? "refused in a thread's company" : "read");
    return 0;
}
"#;

/// The system calls, as perl makes them, that set a file's capabilities and ask for them.
const CAPABILITIES: &str = r#"exec 2>&1
    set_cap() { perl -e '$v = pack("H*", "0100000200200000000000000000000000000000");
        $n = "security.capability"; syscall(188, $ARGV[0], $n, $v, 20, 0) and die $!' $1; }
    has_cap() { perl -e '$v = "0" x 64; $n = "security.capability"; $is = syscall(191, $ARGV[0], $n, $v, 64);
        print "$ARGV[0] $is\n"' $1; }
    cd /root
    for name in written read opened truncated emptied failed moved; do cp /bin/true $name; set_cap $name; done
"#;

#[test]
fn what_is_written_to_loses_capabilities_with_one_id_too() {
    let script = format!(
        "{CAPABILITIES} echo >>written; cat read >/dev/null; : <>opened; truncate -s 5 truncated; : >emptied
        mv moved other; chmod 700 other
        perl -e '$f = \"failed\"; syscall(76, $f, 10)'; touch -d 2001-01-01 read
        for name in written read opened truncated emptied failed other; do has_cap $name; done"
    );
    let said = steps_alike(&[Step::new(&script)], &|_| ());
    let expected = [
        "written -1",
        "read 20",
        "opened 20",
        "truncated -1",
        "emptied -1",
        "failed -1",
        "other 20",
    ];
    assert_eq!(said, expected);
}

/// A folder with a shell in it for a root, and names in it that the real root has owners for.
#[test]
fn owners_under_another_root_are_those_of_its_files() {
    let busybox = |base: &Path| {
        let program = base.join("usr/bin/small");
        std::fs::copy("/bin/busybox", &program).unwrap();
        run(Command::new("chown").arg("--reference").arg(base.join("usr/bin")).arg(&program));
    };
    let script = "mkdir -p /root/sub/etc /root/sub/bin /root/sub/var/mail; cd /root/sub; exec 2>&1
        cp /usr/bin/small bin/sh; touch etc/shadow etc/gshadow; exec 3</etc/shadow
        show() { chroot . /bin/sh -c 'for f in \"$@\"; do busybox stat -c \"%u:%g %n\" $f; done' sh \"$@\"; }
        ln bin/sh bin/busybox
        show /etc/shadow /etc/gshadow /var/mail; chown 5:6 etc/shadow; show /etc/shadow
        chroot . /bin/sh -c 'busybox chown 7:8 /etc/gshadow; cd etc; busybox chown 9 shadow; echo >new
            busybox mkdir /var/d; busybox mv /etc/gshadow /etc/moved; >/etc/gshadow'
        show /etc/moved /etc/gshadow etc/new
        stat -c '%u:%g %n' etc/* /etc/shadow /etc/gshadow var/mail /var/mail
        chroot . /bin/sh -c 'cd /etc; busybox chroot . /sh -c : ; busybox ls / | busybox head -2'
        unshare -m sh -c 'stat -c %u:%g /etc/shadow; chown 4 /etc/gshadow'; stat -c %u:%g /etc/gshadow";
    let said = steps_alike(&[Step::new(script)], &busybox);
    assert_eq!(
        said[..4],
        ["0:0 /etc/shadow", "0:0 /etc/gshadow", "0:0 /var/mail", "5:6 /etc/shadow"]
    );
}

/// What an old program of 32 bits asks for in memory: no sockets but of the usual families.
#[test]
fn sockets_asked_for_in_memory_are_of_the_usual_families() {
    let source = r#"
static int call(int n, int a, int b, int c) {
    int r; __asm__ volatile("int $0x80" : "=a"(r) : "a"(n), "b"(a), "c"(b), "d"(c) : "memory");
    return r;
}
static void put(int v) {
    char t[12]; int i = 11, m = v < 0; t[i] = '\n'; if (m) v = -v;
    do { t[--i] = '0' + v % 10; v /= 10; } while (v);
    if (m) t[--i] = '-';
    call(4, 1, (int)(t + i), 12 - i);
}
static int make(int f, int k) { int a[3] = {f, k, 0}; return call(102, 1, (int)a, 0); }
void _start(void) {
    put(make(40, 1)); put(make(17, 3)); put(make(2, 3)); put(make(2, 1));
    int s = make(1, 1); put(s);
    struct { unsigned short f; char p[20]; } n = {1, "/root/s"};
    int a[3] = {s, (int)&n, sizeof n}; put(call(102, 2, (int)a, 0));
    int l[2] = {s, 1}; put(call(102, 4, (int)l, 0));
    call(1, 0, 0, 0);
}
"#;
    for (who, request) in
        [(Who::Root, "root+light"), (Who::Range, "range+light"), (Who::Range, "single")]
    {
        let driver = debian(who).0;
        let program = driver.path("base/usr/bin/small");
        let file = program.with_extension("c");
        std::fs::write(&file, source).unwrap();
        let options =
            ["-m32", "-nostdlib", "-static", "-ffreestanding", "-fno-stack-protector", "-o"];
        run(Command::new("gcc").args(options).arg(&program).arg(&file));
        let mut acts = driver.stack();
        acts.push(Step::new("small; stat -c %F /root/s; ls -l /proc/self/ns/net | wc -l").act());
        let told = Ran::of(&mut driver.command(request, &acts)).json();
        let said = lines(&told["results"][2]);
        assert_eq!(said, ["-97", "-1", "-1", "3", "4", "0", "0", "socket", "1"], "{request}");
    }
}
