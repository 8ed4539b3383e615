//! Stacks of layers: whiteouts, implied folders, extras that leave no trace, what a step changes,
//! many layers, and folders where no overlay works.

use serde_json::{Value, json};

use crate::support::cli::Who;
use crate::support::driver::Driver;

/// An act that runs a script of the machine's shell.
fn shell(script: &str) -> Value {
    json!({ "shell": script })
}

/// What such a script printed, if it succeeded.
fn printed(result: &Value) -> Vec<String> {
    assert_eq!(result["code"], 0, "{result:#}");
    result["out"].as_str().unwrap().lines().map(str::to_owned).collect()
}

/// Makes trees by a script that runs in the test's folder and in the build's namespaces.
fn trees(driver: &Driver, script: &str) -> Value {
    shell(&format!("cd {}\n{script}", driver.path("home").display()))
}

fn layer(driver: &Driver, name: &str, sidecar: &Value) -> Value {
    json!([driver.path("home").join(name), sidecar])
}

const LIST: &str =
    "find . -mindepth 1 -printf '%P %y %m %U:%G %T@ %l\\n' | sed 's/\\.0* / /' | sort";

#[test]
fn a_stack_shows_what_its_layers_say() {
    for who in [Who::Root, Who::Range] {
        let driver = Driver::of(who);
        let make = "
            mkdir -p 1/etc/app 1/opt/old/deep 1/srv/all 1/usr
            echo 1 >1/etc/app/conf; echo 1 >1/etc/gone; echo 1 >1/opt/old/deep/file
            echo 1 >1/srv/all/a; echo 1 >1/srv/b; echo 1 >1/usr/file
            chmod 750 1/etc/app; chown 7:8 1/etc/app; chmod 2775 1/opt/old; touch -d @100 1/etc/app 1/opt/old
            # Its tar named only files: the folders are made up, with the wrong metadata.
            mkdir -p 2/etc/app 2/opt/old 2/srv/all 2/new/implied
            echo 2 >2/etc/app/added; echo 2 >2/opt/old/kept; echo 2 >2/srv/all/c; echo 2 >2/new/implied/x
            chown 0:0 2/etc/app
            # Removes a folder, puts a file in its place, and removes what the second added.
            mkdir -p 3/opt 3/usr; echo 3 >3/opt/old
            find . -exec touch -h -d @5 {} +
            touch -d @100 1/etc/app 1/opt/old";
        let two = json!({
            "whiteouts": ["etc/gone", "etc/app/never-was", "absent/folder/file"],
            "opaque": ["srv"],
            "implied": ["etc", "etc/app", "opt", "opt/old", "srv", "srv/all", "new", "new/implied"],
        });
        let three =
            json!({ "whiteouts": ["etc/app/added", "new", "usr/file"], "implied": ["opt"] });
        let lowers = [
            layer(&driver, "1", &json!({})),
            layer(&driver, "2", &two),
            layer(&driver, "3", &three),
        ];
        let results = driver.acts(&[
            trees(&driver, make),
            driver.mount(&lowers[..2], "space-2"),
            shell(&format!("cd $PARENT; {LIST}")),
            shell("cd $MERGED; cat etc/app/conf etc/app/added srv/all/c"),
            driver.mount(&lowers, "space-3"),
            shell(&format!("cd $PARENT; {LIST}")),
            shell("touch $PARENT/x 2>&1 || true"),
        ]);
        assert_eq!(results[1], "ok");
        let two = [
            "etc d 755 0:0 5 ",
            "etc/app d 750 7:8 100 ",
            "etc/app/added f 644 0:0 5 ",
            "etc/app/conf f 644 0:0 5 ",
            "new d 755 0:0 5 ",
            "new/implied d 755 0:0 5 ",
            "new/implied/x f 644 0:0 5 ",
            "opt d 755 0:0 5 ",
            "opt/old d 2775 0:0 100 ",
            "opt/old/deep d 755 0:0 5 ",
            "opt/old/deep/file f 644 0:0 5 ",
            "opt/old/kept f 644 0:0 5 ",
            "srv d 755 0:0 5 ",
            "srv/all d 755 0:0 5 ",
            "srv/all/c f 644 0:0 5 ",
            "usr d 755 0:0 5 ",
            "usr/file f 644 0:0 5 ",
        ];
        assert_eq!(printed(&results[2]), two, "{who:?}");
        assert_eq!(printed(&results[3]), ["1", "2", "2"]);
        let three = [
            "etc d 755 0:0 5 ",
            "etc/app d 750 7:8 100 ",
            "etc/app/conf f 644 0:0 5 ",
            "opt d 755 0:0 5 ",
            "opt/old f 644 0:0 5 ",
            "srv d 755 0:0 5 ",
            "srv/all d 755 0:0 5 ",
            "srv/all/c f 644 0:0 5 ",
            "usr d 755 0:0 5 ",
        ];
        assert_eq!(printed(&results[5]), three, "{who:?}");
        assert!(printed(&results[6])[0].ends_with("Read-only file system"));
    }
}

#[test]
fn extras_are_there_for_a_step_and_nowhere_else() {
    let driver = Driver::of(Who::Range);
    let make = "
        mkdir -p 1/usr/etc/sub 1/run 1/var
        ln -s usr/etc 1/etc; ln -s /run 1/var/run; ln -s ../run/resolve/stub 1/usr/etc/resolv.conf
        chmod 711 1/usr/etc; chown 3:4 1/usr/etc; chmod 1755 1/var
        find 1 -exec touch -h -d @77 {} +; chmod 751 1; touch -d @78 1";
    let metadata = "stat -c '%n %a %u:%g %Y' . usr/etc var run";
    let mut mount = driver.mount(&[layer(&driver, "1", &json!({}))], "space");
    mount["mount"]["folders"] = json!(["proc", "var/run/lock", "var/cache/apt", "etc/sub"]);
    let results = driver.acts(&[
        trees(&driver, make),
        mount,
        shell(&format!("cd $PARENT; {metadata}; ls -A . var run usr/etc; readlink usr/etc/resolv.conf")),
        shell(&format!("cd $MERGED; {metadata}; ls -Am . var run usr/etc var/cache; head -c 10 etc/resolv.conf; cat usr/etc/hosts")),
        shell("cd $UPPER; find . -mindepth 1; stat -c '%a %Y' ."),
        // A step that writes beside the extras copies up true folders, and may replace the files.
        shell("cd $MERGED; echo x >usr/etc/new; rm etc/resolv.conf; ln -s /elsewhere etc/resolv.conf; mkdir run/lock/x"),
        shell("cd $UPPER; find . -mindepth 1 | sort; stat -c '%n %a %u:%g' usr/etc run run/lock"),
        json!("unmount"),
        shell(&format!("cd {}/home/1; find . | sort; ls {}/merged | wc -l", driver.path("").display(), driver.path("space").display())),
    ]);
    let truth = [". 751 0:0 78", "usr/etc 711 3:4 77", "var 1755 0:0 77", "run 755 0:0 77"];
    let mut parent = truth.to_vec();
    parent.extend([
        ".:",
        "etc",
        "run",
        "usr",
        "var",
        "",
        "run:",
        "",
        "usr/etc:",
        "resolv.conf",
        "sub",
    ]);
    parent.extend(["", "var:", "run", "../run/resolve/stub"]);
    assert_eq!(printed(&results[2]), parent);
    let merged = printed(&results[3]);
    assert_eq!(merged[..4], truth);
    let listing = ".: etc, proc, run, usr, var  run: lock  usr/etc: hosts, resolv.conf, sub  var: \
                   cache, run  var/cache: apt";
    let (end, rest) = (merged.len() - 1, merged[4..merged.len() - 1].join(" "));
    assert_eq!(rest, listing);
    assert!(merged[end].ends_with("127.0.0.1 localhost ocibuild"), "{merged:?}");
    assert_eq!(printed(&results[4]), ["751 78"]);
    let changed = [
        "./run",
        "./run/lock",
        "./run/lock/x",
        "./usr",
        "./usr/etc",
        "./usr/etc/new",
        "./usr/etc/resolv.conf",
        "usr/etc 711 3:4",
        "run 755 0:0",
        "run/lock 755 0:0",
    ];
    assert_eq!(printed(&results[6]), changed);
    let untouched = printed(&results[8]);
    assert_eq!(untouched.last().unwrap(), "0", "nothing is mounted any more");
    assert_eq!(untouched.len(), 10, "{untouched:?}");
}

#[test]
fn a_folder_that_is_needed_and_is_something_else_is_named() {
    let driver = Driver::of(Who::Root);
    let mut mount = driver.mount(&[layer(&driver, "1", &json!({}))], "space");
    mount["mount"]["folders"] = json!(["var/cache/apt"]);
    let results = driver.acts(&[trees(&driver, "mkdir -p 1/var; echo >1/var/cache"), mount]);
    let error =
        "`/var/cache/apt` is not a folder in the layers below, but a folder is needed there";
    assert_eq!(results[1]["error"], error);
}

#[test]
fn what_one_layer_changed_is_what_the_next_stands_on() {
    for who in [Who::Root, Who::Range] {
        let driver = Driver::of(who);
        let base = layer(&driver, "1", &json!({}));
        let first = json!([driver.path("memory/first/upper"), null]);
        let second = json!([driver.path("memory/second/upper"), null]);
        let space = |name: &str| driver.path("memory").join(name);
        let results = driver.acts(&[
            trees(&driver, "mkdir -p 1/a/b 1/c; echo 1 >1/a/b/f; echo 1 >1/a/g; echo 1 >1/c/h; chmod 700 1/c; chown 9:9 1/c/h"),
            json!({ "memory": { "dir": driver.path("memory"), "bytes": 64 << 20 } }),
            shell(&format!("mkdir {} {} {}", space("first").display(), space("second").display(), space("third").display())),
            driver.mount(std::slice::from_ref(&base), "memory/first"),
            shell("cd $MERGED; rm -r a; mkdir a; echo 2 >a/new; echo more >>c/h; ln c/h c/link"),
            json!("unmount"),
            driver.mount(&[base.clone(), first.clone()], "memory/second"),
            shell("cd $PARENT; find a c | sort; cd $MERGED; rm c/h a/new; mkdir -p a/b; echo 3 >a/b/again"),
            json!("unmount"),
            driver.mount(&[base, first, second], "memory/third"),
            shell("cd $PARENT; find a c | sort; stat -c '%a %u:%g %n' c c/link; cat c/link"),
            shell("cd $UPPER; find . -mindepth 1"),
        ]);
        assert_eq!(printed(&results[7]), ["a", "a/new", "c", "c/h", "c/link"], "{who:?}");
        let third =
            ["a", "a/b", "a/b/again", "c", "c/link", "700 0:0 c", "644 9:9 c/link", "1", "more"];
        assert_eq!(printed(&results[10]), third, "{who:?}");
        assert!(printed(&results[11]).is_empty());
    }
}

#[test]
fn many_layers_with_awkward_paths_stack() {
    let driver = Driver::of(Who::Range);
    let long = "l".repeat(120);
    let make = format!(
        "for i in $(seq 200); do d=\"a:b,c\\\\d {long}/$i\"; mkdir -p \"$d/d\"; echo $i >\"$d/d/$i\"; echo $i >\"$d/last\"; done"
    );
    // Each with a mask of its own.
    let lowers: Vec<Value> = (1..=200)
        .map(|at: u32| {
            let name = format!("a:b,c\\d {long}/{at}");
            layer(&driver, &name, &json!({ "whiteouts": [format!("d/{}", at - 1)] }))
        })
        .collect();
    let results = driver.acts(&[
        trees(&driver, &make),
        driver.mount(&lowers, "space"),
        shell("cd $MERGED; cat last; ls d; rm last; touch d/x"),
        json!("unmount"),
        json!({ "remove": driver.path("space") }),
    ]);
    assert_eq!(results[1], "ok");
    assert_eq!(printed(&results[2]), ["200", "200"]);
    assert_eq!(results[4], "ok");
    assert!(!driver.path("space").exists());
}

#[test]
fn a_stack_of_nothing_is_an_empty_tree() {
    let driver = Driver::of(Who::Root);
    let results = driver.acts(&[
        driver.mount(&[], "space"),
        shell("cd $PARENT; find . -mindepth 1; cd $MERGED; ls; stat -c %a ."),
    ]);
    assert_eq!(results[0], "ok");
    let expected = ["dev", "etc", "proc", "run", "sys", "tmp", "var", "755"];
    assert_eq!(printed(&results[1]), expected);
}

#[test]
fn where_an_overlay_does_not_work_the_probe_says_why() {
    for who in [Who::Root, Who::Range] {
        let driver = Driver::of(who);
        let ram = driver.path("home/ram");
        let over = driver.path("home/over");
        let make = format!(
            "mkdir ram over 1; mount -t ramfs ram {0}; chmod 777 {0}
            mkdir lower u w; mount -t overlay overlay -o lowerdir=lower,upperdir=u,workdir=w,userxattr {1}",
            ram.display(),
            over.display()
        );
        let results = driver.acts(&[
            trees(&driver, &make),
            json!({ "probe-overlay": driver.path("home") }),
            json!({ "probe-owners": driver.path("home") }),
            json!({ "probe-overlay": ram }),
            json!({ "probe-overlay": over }),
            json!({ "probe-overlay": driver.path("home/absent") }),
            shell(&format!("ls -A {} {}", ram.display(), over.display())),
            json!({ "memory": { "dir": driver.path("memory"), "bytes": 1 << 20 } }),
            json!({ "probe-overlay": driver.path("memory") }),
        ]);
        assert_eq!(printed(&results[0]), [""; 0]);
        assert_eq!((&results[1], &results[2]), (&json!("ok"), &json!("ok")), "{who:?}");
        let error = |at: usize| results[at]["error"].as_str().unwrap().to_owned();
        assert!(
            error(3).starts_with("it keeps no user extended attributes (ramfs)"),
            "{}",
            error(3)
        );
        assert!(error(4).contains("(overlay)"), "{}", error(4));
        assert!(error(5).starts_with("folders can't be created there"), "{}", error(5));
        assert_eq!(
            results[6]["out"]
                .as_str()
                .unwrap()
                .lines()
                .filter(|line| line.contains("probe"))
                .count(),
            0
        );
        assert_eq!(results[8], "ok");
    }
}

#[test]
fn memory_that_fills_up_is_noticed_before_it_is_full() {
    let driver = Driver::of(Who::Range);
    let memory = driver.path("memory");
    let fill = |megabytes: u32| {
        shell(&format!("head -c {megabytes}M /dev/zero >{}/file", memory.display()))
    };
    let results = driver.acts(&[
        json!({ "memory": { "dir": memory, "bytes": 10 << 20 } }),
        json!("usage"),
        fill(7),
        json!("usage"),
        fill(9),
        json!("usage"),
        fill(11),
    ]);
    assert_eq!(results[1], json!({ "used": 0, "bound": 10 << 20, "nearly_full": false }));
    assert_eq!(results[3]["nearly_full"], false);
    assert_eq!((&results[5]["nearly_full"], &results[5]["used"]), (&json!(true), &json!(9 << 20)));
    assert_ne!(results[6]["code"], 0);
}

#[test]
fn a_tree_of_another_users_is_removed_and_a_mount_in_it_stops_that() {
    let driver = Driver::of(Who::Range);
    let tree = driver.path("home/tree");
    let results = driver.acts(&[
        trees(&driver, "mkdir -p tree/a/b tree/m; echo >tree/a/b/f; chown -R 33:44 tree; chmod 0 tree/a/b tree/a; mount -t tmpfs t tree/m; touch tree/m/kept"),
        json!({ "remove": tree }),
        trees(&driver, "ls tree/m; umount tree/m"),
        json!({ "remove": tree }),
    ]);
    let error =
        format!("{}/m lies on another file system, so that it isn't removed", tree.display());
    assert_eq!(results[1]["error"], error);
    assert_eq!(printed(&results[2]), ["kept"]);
    assert_eq!(results[3], "ok");
    assert!(!tree.exists());
}
