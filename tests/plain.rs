//! Plain trees: whatever a step does, the layers are those of an overlay, on every file system.

use serde_json::{Value, json};

use crate::support::cli::Who;
use crate::support::driver::Driver;

/// A stack of two layers with all that a layer can hold.
const LAYERS: &str = r#"
    mkdir -p 1/etc/app 1/opt/old/deep 1/srv/all/x 1/usr/bin 1/usr/share/doc/p 1/data 1/closed
    echo 1 >1/etc/app/conf; echo 1 >1/etc/gone; echo 1 >1/opt/old/deep/file
    echo 1 >1/srv/all/a; echo 1 >1/srv/b; echo 1 >1/usr/share/doc/p/copyright
    for i in 1 2 3 4 5; do echo same$i >1/data/f$i; done; : >1/data/empty
    echo linked >1/data/l1; ln 1/data/l1 1/data/l2; ln 1/data/l1 1/data/l3
    cp /bin/true 1/usr/bin/ping; setcap cap_net_raw+ep 1/usr/bin/ping
    echo su >1/usr/bin/su; chmod 4755 1/usr/bin/su; ln -s su 1/usr/bin/sulink; mkfifo 1/data/pipe
    truncate -s 3M 1/data/sparse; echo end >>1/data/sparse
    echo n >"1/data/$(printf 'n%.0s' $(seq 200))"; echo b >"$(printf '1/data/b\xff\xfe\n')"
    mkdir -p "1/$(printf 'deep-folder/%.0s' $(seq 30))"
    echo secret >1/closed/file; chmod 0 1/closed/file 1/closed
    chmod 750 1/etc/app; chown 7:8 1/etc/app 1/data/f5; chmod 2775 1/opt/old; chown 3:4 1/opt/old
    mkdir -p 2/etc/app 2/opt/old 2/srv/all 2/new/implied
    echo 2 >2/etc/app/added; echo 2 >2/opt/old/kept; echo 2 >2/srv/all/c; echo 2 >2/new/implied/x
    find . -exec touch -h -d @1500000000 {} +
"#;

fn sidecar() -> Value {
    json!({
        "whiteouts": ["etc/gone", "usr/share/doc"],
        "opaque": ["srv/all"],
        "implied": ["etc", "etc/app", "opt", "opt/old", "srv", "srv/all", "new", "new/implied"],
    })
}

/// What the first step does, in the tree.
const FIRST: &str = r#"
    cd "$MERGED"
    # Nothing, in many ways.
    chmod 644 data/f1; chown 0:0 data/f2; touch -d @1500000000 data/f1 data; cat data/f3 >>/dev/null
    cp -p data/f3 t; cat t >data/f3; touch -d @1500000000 data/f3; rm t
    mv data/f4 data/moved; mv data/moved data/f4; touch -d @1500000000 data .
    mkdir data/tmp; rmdir data/tmp; touch -d @1500000000 data
    # Changes that only metadata show, or only bytes.
    chmod 600 data/f1; chown 9:9 data/f5; echo samE2 >data/f2; touch -d @1500000000 data/f2
    chmod g-s opt/old; chmod u-s usr/bin/su; setcap -r usr/bin/ping; cp /bin/true usr/bin/capable
    setcap cap_chown+ep usr/bin/capable; ln -sfn elsewhere usr/bin/sulink; touch -h -d @5 usr/bin/sulink
    # Types change places.
    rm data/empty; mkdir data/empty; echo in >data/empty/in; rm -r opt/old; echo file >opt/old
    rm -r srv/all; mkdir srv/all; echo d >srv/all/d
    mv etc/app etc/renamed; mkdir etc/app; cp -p etc/renamed/conf etc/app/conf
    # Links to parents and within.
    ln data/l1 data/newlink; ln data/f3 data/linked-to-equal; echo more >>data/l2
    echo w >data/w1; ln data/w1 data/w2; ln data/w1 etc/w3; rm data/w1; ln etc/w3 data/w1
    # Odd entries.
    mkfifo data/fifo; truncate -s 2M data/hole; echo x >"$(printf 'data/new\xff')"
    python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("data/socket")' || true
    rm "$(printf 'data/b\xff\xfe\n')"; mkdir -p a/b/c; rm -r deep-folder
    mkdir usr/share/doc; echo again >usr/share/doc/new
    chmod 700 closed; echo more >>closed/file; chmod 0 closed
    touch -d @1500000000.5 data/fifo; mkdir var/cache/made
    echo mine >etc/hosts; rm etc/resolv.conf; ln -s /nowhere etc/resolv.conf
"#;

/// The second one, over what the first has left: links to its files, and files made equal again.
const SECOND: &str = r#"
    cd "$MERGED"
    test ! -L etc/resolv.conf; grep -q localhost etc/hosts
    echo second >>data/w2; cat data/w1 >data/was; chmod 644 data/f1; chmod 600 data/f1
    cp -p data/f2 t; echo x >data/f2; cat t >data/f2; touch -r t data/f2; rm t
    rm -r data/empty; ln data/newlink data/newer; rm etc/w3; rm -r a; mkdir -p a/b
    rm opt/old; mkdir opt/old; echo back >opt/old/kept
"#;

/// Runs the steps over the stack as an overlay or a plain tree below `place`, and gives the layers.
fn layers(driver: &Driver, place: &str, plain: bool) -> Vec<Value> {
    let home = driver.path("home");
    let lowers = [json!([home.join("1"), {}]), json!([home.join("2"), sidecar()])];
    let name = |step: &str| format!("{place}/{step}-{plain}");
    let mut mount = driver.mount(&lowers, &name("tree"));
    mount["mount"]["plain"] = json!(plain);
    let excluded = [
        "tmp",
        "proc",
        "sys",
        "dev",
        "run",
        "var/tmp",
        "var/cache/apt",
        "etc/hosts",
        "etc/resolv.conf",
    ];
    let commit = |step: &str| json!({ "commit": { "space": driver.path(&name(step)), "excluded": excluded } });
    let shell = |script: &str| json!({ "shell": script });
    // All times of the run, as the rules do.
    let settle = |now: &str| {
        shell(&format!(
            "cd \"$MERGED\"; find . -newermt @1600000000 -exec touch -h -d @{now} {{}} +"
        ))
    };
    let results = driver.acts(&[
        json!({ "shell": format!("cd {}; test -e 1 || {{ {LAYERS} }}", home.display()) }),
        mount,
        shell(FIRST),
        settle("1700000000"),
        commit("second"),
        shell(SECOND),
        settle("1700000000"),
        commit("third"),
        commit("fourth"),
    ]);
    for (at, result) in results.iter().enumerate() {
        let fine = result == "ok" || result["code"] == 0 || result["digest"].is_string();
        assert!(fine, "{place} {plain} act {at}: {result:#}");
    }
    [4, 7, 8].map(|at: usize| results[at].clone()).to_vec()
}

/// Compares the layers of two trees, and tells which paths differ.
fn assert_same(one: &[Value], other: &[Value], what: &str) {
    for (one, other) in one.iter().zip(other) {
        assert_eq!(one["changes"], other["changes"], "{what}");
        assert_eq!(one["digest"], other["digest"], "{what}");
        assert_eq!(other["digest"], other["aside"], "{what}: what is set aside is the layer");
    }
    assert_eq!(other[2]["changes"], json!([]), "{what}: nothing more has changed");
}

#[test]
fn a_plain_tree_gives_the_layers_of_an_overlay() {
    for who in [Who::Root, Who::Range] {
        let driver = Driver::of(who);
        let overlay = layers(&driver, "home", false);
        let changes = overlay[0]["changes"].as_array().unwrap();
        for expected in ["-etc/gone", "etc/hosts", "data/f3", "data/f4"] {
            assert!(!changes.contains(&json!(expected)), "{expected}: {changes:?}");
        }
        for expected in [
            "-srv/all/c",
            "data/f1",
            "data/f2",
            "data/linked-to-equal",
            "opt/old",
            "var/cache/made",
        ] {
            assert!(changes.contains(&json!(expected)), "{expected}: {changes:?}");
        }
        assert_same(&overlay, &layers(&driver, "home", true), &format!("{who:?}"));
    }
}

#[test]
fn a_plain_tree_gives_them_on_every_file_system() {
    let driver = Driver::of(Who::Root);
    let overlay = layers(&driver, "home", false);
    let home = driver.path("home");
    let mut made = vec![];
    for (name, command) in [
        ("tmpfs", "mount -t tmpfs tmpfs DIR"),
        ("ext4", "truncate -s 300M DIR.img; mkfs.ext4 -q DIR.img; mount -o loop DIR.img DIR"),
        ("xfs", "truncate -s 400M DIR.img; mkfs.xfs -q DIR.img; mount -o loop DIR.img DIR"),
        ("btrfs", "truncate -s 400M DIR.img; mkfs.btrfs -q DIR.img; mount -o loop DIR.img DIR"),
        // It knows files by their paths, and would show an old count of links for a second.
        ("bindfs", "mkdir DIR.below; bindfs -o attr_timeout=0 DIR.below DIR"),
    ] {
        let dir = home.join(name);
        std::fs::create_dir(&dir).unwrap();
        let script = command.replace("DIR", dir.to_str().unwrap());
        let output = std::process::Command::new("sh").args(["-euc", &script]).output().unwrap();
        assert!(output.status.success(), "{name}: {output:?}");
        made.push(Unmount(dir));
        let plain = layers(&driver, &format!("home/{name}"), true);
        assert_same(&overlay, &plain, name);
    }
}

/// A mount that goes with the test.
struct Unmount(std::path::PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        std::process::Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}
