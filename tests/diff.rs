//! Two images compared: a difference of each kind is planted, and its cause has to be told.

use std::process::Command;

use serde_json::Value;

use crate::support::browser::Page;
use crate::support::cli::{Project, Ran};
use crate::support::{run, schema, temp_dir};

/// A root file system as a tar, entry by entry.
struct Tree(tar::Builder<Vec<u8>>);

/// How an entry is written but for its content.
#[derive(Clone, Copy)]
struct Meta {
    mode: u32,
    owner: u64,
    mtime: u64,
}

const PLAIN: Meta = Meta { mode: 0o644, owner: 0, mtime: 1_700_000_000 };

impl Tree {
    fn new() -> Tree {
        Tree(tar::Builder::new(Vec::new())).folder("etc")
    }

    fn entry(&mut self, path: &str, kind: tar::EntryType, meta: Meta, content: &[u8]) {
        let mut header = tar::Header::new_ustar();
        header.set_mode(meta.mode);
        header.set_uid(meta.owner);
        header.set_gid(meta.owner);
        header.set_mtime(meta.mtime);
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        self.0.append_data(&mut header, path, content).unwrap();
    }

    fn folder(mut self, path: &str) -> Tree {
        self.entry(path, tar::EntryType::Directory, Meta { mode: 0o755, ..PLAIN }, b"");
        self
    }

    fn file(self, path: &str, content: impl AsRef<[u8]>) -> Tree {
        self.with(path, PLAIN, content)
    }

    fn with(mut self, path: &str, meta: Meta, content: impl AsRef<[u8]>) -> Tree {
        self.entry(path, tar::EntryType::Regular, meta, content.as_ref());
        self
    }

    fn link(mut self, path: &str, target: &str) -> Tree {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_mode(0o777);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(PLAIN.mtime);
        header.set_size(0);
        self.0.append_link(&mut header, path, target).unwrap();
        self
    }

    fn capable(mut self, path: &str, capability: u8) -> Tree {
        let mut attribute = [0; 20];
        attribute[..4].copy_from_slice(&0x0200_0001_u32.to_le_bytes());
        attribute[5] = capability;
        let record = ("SCHILY.xattr.security.capability", &attribute[..]);
        self.0.append_pax_extensions([record]).unwrap();
        self.file(path, "program")
    }

    fn import(self, project: &Project, name: &str) {
        let file = format!("{name}.tar");
        project.write(&file, self.0.into_inner().unwrap());
        project.run(&["import", &file, "--name", &format!("localhost/{name}:1")]).ok();
    }
}

/// Compares `localhost/a:1` and `localhost/b:1`, and returns the only layer's comparison.
fn compared(project: &Project) -> Value {
    let ran = project.run(&["diff", "localhost/a:1", "localhost/b:1", "--json"]);
    assert_eq!(ran.code(), Some(1), "{ran}");
    let report: Value =
        serde_json::from_str(&ran.stdout()).unwrap_or_else(|error| panic!("{error}: {ran}"));
    fits_schema(&report);
    report["platforms"][0]["layers"][0].clone()
}

fn fits_schema(report: &Value) {
    if let Err(error) = schema("diff.schema.json").validate(report) {
        panic!("{error}");
    }
}

fn difference<'v>(layer: &'v Value, path: &str) -> &'v Value {
    let all = layer["differences"].as_array().unwrap();
    all.iter().find(|difference| difference["path"] == path).unwrap_or_else(|| {
        let paths: Vec<&Value> = all.iter().map(|difference| &difference["path"]).collect();
        panic!("no {path} among {paths:?}")
    })
}

/// Runs a script in a new folder and returns one of the files that it made.
fn made(script: &str, file: &str) -> Vec<u8> {
    let dir = temp_dir();
    run(Command::new("sh").args(["-euc", script]).current_dir(dir.path()));
    std::fs::read(dir.path().join(file)).unwrap()
}

#[test]
fn metadata_of_every_kind_is_told() {
    let project = Project::new();
    let both = |mode, owner, mtime, target, capability, only: &str| {
        Tree::new()
            .with("etc/mode", Meta { mode, ..PLAIN }, "same")
            .with("etc/owner", Meta { owner, ..PLAIN }, "same")
            .with("etc/time", Meta { mtime, ..PLAIN }, "same")
            .link("etc/link", target)
            .capable("etc/capable", capability)
            .file(only, "new")
    };
    both(0o644, 0, 1_700_000_000, "there", 4, "etc/gone").import(&project, "a");
    both(0o755, 1000, 1_700_000_009, "elsewhere", 0x20, "etc/new").import(&project, "b");
    let layer = compared(&project);
    for (path, change, fields, cause) in [
        ("/etc/mode", "changed", "mode", "metadata"),
        ("/etc/owner", "changed", "owner", "metadata"),
        ("/etc/time", "changed", "mtime", "time"),
        ("/etc/link", "changed", "link", "metadata"),
        ("/etc/capable", "changed", "capability", "metadata"),
        ("/etc/gone", "removed", "", "unexplained"),
        ("/etc/new", "added", "", "unexplained"),
    ] {
        let found = difference(&layer, path);
        assert_eq!(found["change"], change, "{path}");
        let told: Vec<&str> =
            found["fields"].as_array().unwrap().iter().map(|f| f.as_str().unwrap()).collect();
        assert_eq!(told.join(","), fields, "{path}");
        assert_eq!(found["cause"], cause, "{path}");
    }
    assert_eq!(difference(&layer, "/etc/mode")["text"], "mode 0644 -> 0755");
    assert_eq!(difference(&layer, "/etc/time")["rule"], "times");
    assert_eq!(layer["paths"], 7);
    assert_eq!(layer["unexplained"], 6);
}

#[test]
fn contents_are_explained_by_their_kind() {
    let project = Project::new();
    let python = |line: &str, file: &str| made(&format!("python3 -c '{line}'"), file);
    let elf = |text: &str| {
        made(
            &format!(
                "printf 'char s[]=\"{text}\";int main(){{return s[0];}}' >a.c; cc -Wl,--build-id -o a a.c"
            ),
            "a",
        )
    };
    let zip = |text: &str, year: u32| {
        python(
            &format!(
                "import zipfile as z\nw=z.ZipFile(\"a.zip\",\"w\",z.ZIP_DEFLATED)\n\
                 w.writestr(z.ZipInfo(\"in/one\",({year},1,1,0,0,0)),\"{text}\")\n\
                 w.writestr(z.ZipInfo(\"in/two\",(2020,1,1,0,0,0)),\"same\")\nw.close()"
            ),
            "a.zip",
        )
    };
    let compiled = |time: u32, code: &str| {
        made(
            &format!(
                "printf 'x={code}\\n' >m.py; touch -d @{time} m.py; \
                 python3 -c 'import py_compile as p;p.compile(\"m.py\",\"m.pyc\",invalidation_mode=p.PycInvalidationMode.TIMESTAMP)'"
            ),
            "m.pyc",
        )
    };
    let gzip = |time: u32| {
        python(
            &format!(
                "import gzip\ng=gzip.GzipFile(\"\",\"wb\",9,open(\"a.gz\",\"wb\"),{time})\ng.write(b\"same\")\ng.close()"
            ),
            "a.gz",
        )
    };
    let sqlite = |row: &str| {
        python(
            &format!(
                "import sqlite3\nc=sqlite3.connect(\"a.db\")\nc.execute(\"create table t(x)\")\nc.execute(\"insert into t values(\\\"{row}\\\")\")\nc.commit()"
            ),
            "a.db",
        )
    };
    let ar = |text: &str| {
        made(&format!("printf {text} >one.o; printf same >two.o; ar rcD a.a one.o two.o"), "a.a")
    };
    let both = |side: u32| {
        let pick = |a: &'static str, b: &'static str| if side == 0 { a } else { b };
        Tree::new()
            .file("etc/text", pick("one\ntwo\nthree\n", "one\n2\nthree\n"))
            .file("etc/dated", format!("made 2026-11-{:02} 10:00:00\n", 20 + side))
            .file("etc/ordered", pick("a\nb\nc\n", "c\na\nb\n"))
            .file("etc/drawn", format!("id = {side}f1c2f6e-9a6f-4a4b-8c7d-0a1b2c3d4e5f\n"))
            .file("etc/host", pick("root@build-x\n", "root@other\n"))
            .file("etc/machine-id", pick("0123\n", "4567\n"))
            .file("etc/program", elf(pick("one", "two")))
            .file("etc/archive.zip", zip(pick("one", "two"), 2020 + side))
            .file("etc/m.pyc", compiled(1_600_000_000 + side, "1"))
            .file("etc/n.pyc", compiled(1_600_000_000, pick("1", "22")))
            .file("etc/a.gz", gzip(1_600_000_000 + side))
            .file("etc/a.db", sqlite(pick("one", "two")))
            .file("etc/a.a", ar(pick("one", "two")))
            .file("etc/blob", pick("\0\u{1}\0one", "\0\u{1}\0two"))
    };
    both(0).import(&project, "a");
    both(1).import(&project, "b");
    let layer = compared(&project);
    for (path, kind, cause, rule, summary) in [
        ("/etc/text", "text", "unexplained", Value::Null, "1 lines removed, 1 added"),
        ("/etc/dated", "text", "time", Value::Null, ""),
        ("/etc/ordered", "text", "order", Value::Null, ""),
        ("/etc/drawn", "text", "random", Value::Null, ""),
        ("/etc/host", "text", "host-name", Value::Null, ""),
        ("/etc/machine-id", "text", "random", Value::from("machine-id"), ""),
        ("/etc/program", "elf", "unexplained", Value::Null, ".data"),
        ("/etc/archive.zip", "zip", "unexplained", Value::Null, "in/one"),
        ("/etc/m.pyc", "pyc", "time", Value::from("pyc-times"), "time of the source"),
        ("/etc/n.pyc", "pyc", "unexplained", Value::Null, "code"),
        ("/etc/a.gz", "gzip", "time", Value::Null, "header: time"),
        ("/etc/a.db", "sqlite", "unexplained", Value::Null, "pages"),
        ("/etc/a.a", "ar", "unexplained", Value::Null, "one.o"),
        ("/etc/blob", "binary", "unexplained", Value::Null, "3 of 6 bytes differ, the first at 3"),
    ] {
        let found = difference(&layer, path);
        assert_eq!(found["content"]["kind"], kind, "{found:#}");
        assert_eq!(found["cause"], cause, "{found:#}");
        assert_eq!(found["rule"], rule, "{found:#}");
        let told = found["content"]["summary"].as_str().unwrap();
        assert!(told.contains(summary), "{found:#}");
    }
    let text = &difference(&layer, "/etc/text")["content"]["diff"];
    assert!(text.as_str().unwrap().contains("-two\n+2\n"), "{text}");
    let program = difference(&layer, "/etc/program")["content"]["parts"].to_string();
    assert!(program.contains("build id"), "{program}");
    let zip = &difference(&layer, "/etc/archive.zip")["content"]["parts"];
    assert!(zip[0]["content"]["diff"].as_str().unwrap().contains("-one"), "{zip:#}");
    assert_eq!(zip[1]["what"], "time 2020-01-01T00:00:00 -> 2021-01-01T00:00:00");

    // The same on a page, in a real browser; a name that is HTML stays a name.
    let evil = "etc/<img src=x onerror=document.title='x'>";
    both(1).file(evil, "<script>document.title='y'</script>").import(&project, "b");
    let ran = project.run(&["diff", "localhost/a:1", "localhost/b:1", "--html", "page.html"]);
    assert_eq!(ran.code(), Some(1), "{ran}");
    let page = std::fs::read_to_string(project.path("page.html")).unwrap();
    for outside in ["http:", "https:", "<script", "src=\"", "@import", "url("] {
        assert!(!page.contains(outside), "{outside} in the page");
    }
    let mut page = Page::open(&format!("file://{}", project.path("page.html").display()));
    page.wait_for(&["differs", "UNEXPLAINED", "linux/amd64"]);
    assert_eq!(page.evaluate("document.querySelectorAll('svg rect.differs').length"), 1);
    assert_eq!(page.evaluate("document.querySelectorAll('img, script').length"), 0);
    assert_eq!(page.evaluate("document.title"), "localhost/a:1 and localhost/b:1");
    let shown = page.evaluate("document.body.innerText");
    assert!(!shown.as_str().unwrap().contains("+2"), "differences are folded");
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)");
    page.wait_for(&["-two", "+2", "onerror=document.title=", "build id", "machine's identity"]);
    let map = "(r => r.width > 300 && r.height > 60)(document.querySelector('svg').getBoundingClientRect())";
    assert_eq!(page.evaluate(map), true);
    page.picture("diff");
}

#[test]
fn a_package_of_another_version_is_one_line() {
    let project = Project::new();
    let both = |pip: &str, deb: &str, r: &str, npm: &str, conda: &str| {
        let mut tree = Tree::new();
        let site = "opt/venv/lib/python3.11/site-packages";
        let mut record = format!("platformdirs-{pip}.dist-info/METADATA,,\n");
        for number in 0..40 {
            tree =
                tree.file(&format!("{site}/platformdirs/m{number}.py"), format!("v = '{pip}'\n"));
            record.push_str(&format!("platformdirs/m{number}.py,sha256=x,1\n"));
        }
        tree.file(
            &format!("{site}/platformdirs-{pip}.dist-info/METADATA"),
            format!("Metadata-Version: 2.1\nName: platformdirs\nVersion: {pip}\n"),
        )
        .file(&format!("{site}/platformdirs-{pip}.dist-info/RECORD"), record)
        .file(
            "var/lib/dpkg/status",
            format!("Package: hello\nStatus: install ok installed\nArchitecture: amd64\nVersion: {deb}\n\nPackage: same\nStatus: install ok installed\nVersion: 1\n"),
        )
        .file("var/lib/dpkg/info/hello.list", "/.\n/bin\n/bin/hello\n")
        .file("var/lib/dpkg/info/hello.md5sums", deb)
        .file("usr/bin/hello", deb)
        .file("usr/lib/R/library/x/DESCRIPTION", format!("Package: x\nVersion: {r}\nBuilt: R 4.5; ; 2026-01-01 00:00:00 UTC; unix\n"))
        .file("usr/lib/R/library/x/R/x.rdb", r)
        .file("usr/lib/node_modules/@s/p/package.json", format!("{{\"name\":\"@s/p\",\"version\":\"{npm}\"}}"))
        .file("usr/lib/node_modules/@s/p/lib/index.js", npm)
        .file("opt/conda/conda-meta/numpy.json", format!("{{\"name\":\"numpy\",\"version\":\"{conda}\",\"build\":\"h\",\"files\":[\"lib/numpy.so\"]}}"))
        .file("opt/conda/lib/numpy.so", conda)
    };
    both("4.14.7", "2.10-2", "1.0", "3.0.0", "1.26").import(&project, "a");
    both("4.14.8", "2.10-3", "1.1", "3.0.1", "2.0").import(&project, "b");
    let layer = compared(&project);
    assert_eq!(layer["unexplained"], 0, "{:#}", layer["groups"]);
    let groups: Vec<(String, u64)> = layer["groups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|group| {
            assert_eq!(group["cause"], "input");
            (group["text"].as_str().unwrap().to_owned(), group["paths"].as_u64().unwrap())
        })
        .collect();
    let expected = [
        ("pip platformdirs 4.14.7 -> 4.14.8", 44),
        ("conda numpy 1.26-h -> 2.0-h", 2),
        ("deb hello 2.10-2 -> 2.10-3", 2),
        ("npm @s/p 3.0.0 -> 3.0.1", 2),
        ("r x 1.0 -> 1.1", 2),
        ("what is kept of all packages together", 1),
    ];
    let groups: Vec<(&str, u64)> =
        groups.iter().map(|(text, paths)| (text.as_str(), *paths)).collect();
    assert_eq!(groups, expected);
    let ran = project.run(&["diff", "localhost/a:1", "localhost/b:1"]);
    let text = ran.stdout();
    assert!(text.starts_with("DIFFERS  localhost/a:1 sha256:"), "{text}");
    assert!(text.contains("package pip platformdirs 4.14.7 -> 4.14.8\n"), "{text}");
    assert!(text.contains("53 paths differ, 0 unexplained"), "{text}");
}

#[test]
fn layers_are_matched_and_only_differing_ones_are_told() {
    let project = Project::with_tiny_base(crate::support::cli::Who::Root);
    project.script("one", "echo one >/srv/one").script("two", "echo two >/srv/two");
    project.definition("ab", &["one", "two"]).definition("copy", &["one", "two"]);
    project.definition("b", &["two"]);
    for name in ["ab", "copy", "b"] {
        project.build(name);
    }
    // One digest, by any name.
    let same = project.run(&["diff", "localhost/ab", "localhost/copy"]);
    let digest = same.stdout();
    assert_eq!(same.code(), Some(0), "{same}");
    assert!(digest.starts_with("IDENTICAL  sha256:"), "{digest}");
    let digest = digest.trim_start_matches("IDENTICAL").trim().to_owned();
    assert_eq!(project.run(&["diff", &digest, "localhost/ab"]).code(), Some(0));
    project.run(&["export", "localhost/ab", "out", "--format", "layout"]).ok();
    project.run(&["export", "localhost/ab", "out.tar", "--format", "oci-archive"]).ok();
    assert_eq!(project.run(&["diff", "./out", "oci-archive:out.tar"]).code(), Some(0));
    // A layer more.
    let ran = project.run(&["diff", "./out", "localhost/b", "--json"]);
    assert_eq!(ran.code(), Some(1), "{ran}");
    let report: Value = serde_json::from_str(&ran.stdout()).unwrap();
    fits_schema(&report);
    let layers = report["platforms"][0]["layers"].as_array().unwrap();
    let verdicts: Vec<&str> = layers.iter().map(|l| l["verdict"].as_str().unwrap()).collect();
    assert_eq!(verdicts, ["identical", "differs", "identical"], "{report:#}");
    assert!(layers[1]["layers"]["b"].is_null());
    assert_eq!(difference(&layers[1], "/srv/one")["change"], "removed");
    let text = project.run(&["diff", "./out", "localhost/b"]).stdout();
    assert!(text.contains("only in the first"), "{text}");
    assert!(text.contains("2 of 3 layers identical"), "{text}");
    // Another compression is no other content.
    project
        .run(&["import", "tiny.tar", "--name", "localhost/tiny:zstd", "--compression", "zstd"])
        .ok();
    let ran = project.run(&["diff", "localhost/tiny:1", "localhost/tiny:zstd"]);
    assert_eq!(ran.code(), Some(1), "{ran}");
    assert!(ran.stdout().starts_with("EQUIVALENT"), "{ran}");
    // And what is not there is told.
    let missing = format!("sha256:{}", "0".repeat(64));
    assert!(project.run(&["diff", &missing, "localhost/b"]).fails(1).contains("hint: "));
    project.run(&["diff", "./absent", "localhost/b"]).fails(2);
    project.run(&["diff", "localhost/ab", "localhost/b", "--platform", "linux/s390x"]).fails(2);
    let left: Ran = project.run(&["diff", "./layers", "localhost/b"]);
    assert!(left.fails(2).contains("layout"));
    assert!(project.running().is_empty(), "{:?}", project.running());
}
