//! Images as files: what skopeo, umoci and tar make of ours, and the store of theirs.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ocibuild::fault::{Fault, Kind};
use ocibuild::oci::{ConfigDocument, Descriptor, Digest, Hasher, Platform, Reference, media_type};
use ocibuild::report::Silent;
use ocibuild::store::{
    Error, ExportOptions, Form, GcOptions, ImportOptions, Imported, Input, Output, Packed, Produce,
    Store,
};

use crate::store::{SmallDisk, image};
use crate::support::{noise, run, temp_dir};

/// Hashes what passes.
struct Hashed<W>(W, Hasher, u64);

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.0.write(bytes)?;
        self.1.update(&bytes[..written]);
        self.2 += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

/// Stands in for a compression profile.
fn gzip(produce: Produce<'_>, out: &mut dyn Write) -> std::io::Result<Packed> {
    let out = Hashed(out, Hasher::new(), 0);
    let encoder = flate2::write::GzEncoder::new(out, flate2::Compression::fast());
    let mut tar = Hashed(encoder, Hasher::new(), 0);
    produce(&mut tar)?;
    let Hashed(encoder, diff_id, _) = tar;
    let Hashed(_, digest, size) = encoder.finish()?;
    let blob = Descriptor::new(media_type::LAYER_GZIP, digest.finish(), size);
    Ok(Packed { diff_id: diff_id.finish(), blob, profile: "test".to_owned() })
}

fn import_as(
    store: &Store,
    input: Input<'_>,
    form: Option<Form>,
    name: Option<&str>,
) -> Result<Imported, Error> {
    let options = ImportOptions {
        form,
        name: name.map(|name| name.parse().unwrap()),
        select: None,
        platform: None,
        created: None,
        threads: 2,
        pack: &gzip,
    };
    store.import(input, &options, &Silent)
}

fn import(store: &Store, path: &Path, name: &str) -> Result<Imported, Error> {
    import_as(store, Input::Path(path), None, Some(name))
}

fn export(store: &Store, name: &str, form: Form, to: &Path) {
    let options = ExportOptions { form, platform: None };
    store.export(&name.parse().unwrap(), Output::Path(to), &options, &Silent).unwrap();
}

/// The causes of an error in one line.
fn told(error: &Error) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(error) = next {
        text += ": ";
        text += &error.to_string();
        next = error.source();
    }
    text
}

/// A tar of entries, each with a name, a type, a link target or content, and what to change.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn add(
        &mut self,
        name: &str,
        kind: tar::EntryType,
        text: &[u8],
        change: impl Fn(&mut tar::Header),
    ) -> &mut Tar {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_mtime(1_700_000_000);
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        let content = if kind == tar::EntryType::Regular || kind == tar::EntryType::XHeader {
            text
        } else {
            header.as_mut_bytes()[157..157 + text.len()].copy_from_slice(text);
            b""
        };
        header.set_size(content.len() as u64);
        change(&mut header);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(&mut self, name: &str, content: &[u8]) -> &mut Tar {
        self.add(name, tar::EntryType::Regular, content, |_| {})
    }

    fn folder(&mut self, name: &str) -> &mut Tar {
        self.add(name, tar::EntryType::Directory, b"", |_| {})
    }

    fn link(&mut self, name: &str, target: &str) -> &mut Tar {
        self.add(name, tar::EntryType::Link, target.as_bytes(), |_| {})
    }

    fn symlink(&mut self, name: &str, target: &str) -> &mut Tar {
        self.add(name, tar::EntryType::Symlink, target.as_bytes(), |_| {})
    }

    /// The next entry has this xattr.
    fn xattr(&mut self, name: &str, value: &[u8]) -> &mut Tar {
        let key = format!("SCHILY.xattr.{name}=");
        let rest = 2 + key.len() + value.len();
        let length = (rest..rest + 9).find(|length| *length == rest + length.to_string().len());
        let record = [format!("{} {key}", length.unwrap()).as_bytes(), value, b"\n"].concat();
        self.add("pax", tar::EntryType::XHeader, &record, |_| {})
    }

    fn done(&self) -> Vec<u8> {
        [&self.0[..], &[0; 1024]].concat()
    }
}

/// Three layers that use each way to hide and to share.
fn layers() -> [Vec<u8>; 3] {
    let mut bottom = Tar::default();
    bottom
        .folder("./")
        .folder("etc/")
        .file("etc/passwd", b"root")
        .file("etc/gone", b"x")
        .folder("opt/");
    bottom.folder("opt/old/").file("opt/old/a", b"a").file("opt/old/b", b"b");
    bottom.file("bin-a", b"program").link("bin-b", "bin-a").link("bin-c", "bin-a");
    bottom.symlink("lib", "usr/lib").folder("usr/").folder("usr/lib/").file("usr/lib/x", b"x");
    bottom.folder("becomes-file/").file("becomes-file/inner", b"x").file("becomes-folder", b"x");
    // A capability whose bytes hold a newline.
    bottom.xattr("security.capability", b"\x01\0\0\x02\x0a\0\0\0\0\0\0\0\x0a\0\0\0\0\0\0\0");
    bottom.file("capable", b"ping");
    let mut middle = Tar::default();
    middle
        .file("etc/.wh.gone", b"")
        .folder("opt/")
        .folder("opt/old/")
        .file("opt/old/.wh..wh..opq", b"");
    middle.file("opt/old/new", b"new").file(".wh.bin-a", b"").link("usr/bin-d", "bin-b");
    middle.file("becomes-file", b"file").folder("becomes-folder/").file("becomes-folder/f", b"f");
    middle.add("etc/passwd", tar::EntryType::Regular, b"root user", |header| {
        header.set_mode(0o4640);
        header.set_uid(1000);
        header.set_gid(100);
    });
    let mut top = Tar::default();
    top.add("etc/", tar::EntryType::Directory, b"", |header| header.set_mode(0o700));
    top.file(".wh.becomes-folder", b"").file("é and a long name", b"").file("bin-b", b"replaced");
    top.add("pipe", tar::EntryType::Fifo, b"", |_| {});
    // Builders that do not see the base write through its symlinks.
    top.symlink("round/about", "../abs").symlink("abs", "/usr").folder("round/");
    top.file("lib/through", b"t").file("round/about/lib/twice", b"t").file("lib/.wh.x", b"");
    top.link("lib/hard", "lib/through");
    [bottom.done(), middle.done(), top.done()]
}

/// Makes a docker-archive of layers by hand.
fn docker_archive(layers: &[Vec<u8>], name: &str) -> Vec<u8> {
    let mut config = ConfigDocument::empty(&Platform::linux("amd64"));
    for layer in layers {
        let history = serde_json::from_value(serde_json::json!({"created_by": "test"})).unwrap();
        config.push_layer(Digest::of(layer), &history);
    }
    config.set_env("A", "1");
    let config = config.encode().unwrap();
    let mut tar = Tar::default();
    let mut names = Vec::new();
    for (number, layer) in layers.iter().enumerate() {
        // As old versions did: a folder each, and symlinks to layers that are there already.
        let real = format!("{number:064}/layer.tar");
        tar.file(&real, layer);
        let alias = format!("{:064}/layer.tar", number + 100);
        tar.symlink(&alias, &format!("../{real}"));
        names.push(alias);
    }
    let config_name = format!("{}.json", Digest::of(&config).hex());
    tar.file(&config_name, &config);
    let manifest =
        serde_json::json!([{"Config": config_name, "RepoTags": [name], "Layers": names}]);
    tar.file("manifest.json", manifest.to_string().as_bytes());
    tar.done()
}

/// Lists a tree: names, types, modes, owners, times of files, links, capabilities, contents.
fn listing(root: &Path) -> String {
    let script = "find . -mindepth 1 -printf '%P %y %m %U:%G %l %n\\n' | sort; \
                  find . -type f -printf '%P %T@\\n' | sort; \
                  find . -type f -print0 | sort -z | xargs -0 sha256sum; getcap -r .";
    let output = run(Command::new("sh").args(["-c", script]).current_dir(root).env("LC_ALL", "C"));
    String::from_utf8(output.stdout).unwrap()
}

fn blobs(store: &Store) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(store.root().join("blobs/sha256")).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn a_flattened_image_is_the_tree_that_umoci_unpacks() {
    crate::support::cli::require_root();
    let dir = temp_dir();
    let store = Store::open(&dir.path().join("store")).unwrap();
    let archive = dir.path().join("docker.tar");
    std::fs::write(&archive, docker_archive(&layers(), "a.example/b:1")).unwrap();
    import_as(&store, Input::Path(&archive), None, None).unwrap();
    let flat = dir.path().join("flat.tar");
    export(&store, "a.example/b:1", Form::Tar, &flat);
    let (ours, theirs) = (dir.path().join("ours"), dir.path().join("bundle"));
    std::fs::create_dir(&ours).unwrap();
    run(Command::new("tar")
        .args(["--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf"])
        .arg(&flat)
        .arg("-C")
        .arg(&ours));
    let image = format!("{}:a.example/b:1", store.root().display());
    run(Command::new("umoci").args(["unpack", "--image", &image]).arg(&theirs));
    let (ours, theirs) = (listing(&ours), listing(&theirs.join("rootfs")));
    assert_eq!(ours, theirs);
    assert!(ours.contains("etc/passwd f 4640 1000:100") && ours.contains("capable cap_"), "{ours}");
    assert!(!ours.contains("bin-a") && !ours.contains("inner") && !ours.contains("becomes-folder"));
    // Again from a copy of the image, by another way: the same bytes.
    let other = Store::open(&dir.path().join("other")).unwrap();
    export(&store, "a.example/b:1", Form::OciArchive, &dir.path().join("oci.tar"));
    import(&other, &dir.path().join("oci.tar"), "a.example/b:1").unwrap();
    export(&other, "a.example/b:1", Form::Tar, &dir.path().join("flat2.tar"));
    assert_eq!(std::fs::read(&flat).unwrap(), std::fs::read(dir.path().join("flat2.tar")).unwrap());
    // And as the root file system of a new image.
    let imported = import(&other, &flat, "a.example/flat:1").unwrap();
    assert!(other.is_complete(&imported.descriptor).unwrap());
}

#[test]
fn skopeo_takes_each_form_and_gives_each_form() {
    let dir = temp_dir();
    let store = Store::open(&dir.path().join("store")).unwrap();
    let name = "ghcr.io/rocker-org/ml:1";
    let (_, manifest) = image(&store, name, 7);
    let document = store.document(&manifest).unwrap().manifest().unwrap();
    let at = |file: &str| dir.path().join(file);
    export(&store, name, Form::Layout, &at("layout"));
    export(&store, name, Form::OciArchive, &at("oci.tar"));
    export(&store, name, Form::DockerArchive, &at("docker.tar"));
    let show = |path: PathBuf| path.display().to_string();
    for (kind, from) in
        [("oci", "layout"), ("oci-archive", "oci.tar"), ("docker-archive", "docker.tar")]
    {
        let to = at(&format!("dir-{kind}"));
        run(Command::new("skopeo").args([
            "copy",
            &format!("{kind}:{}:{name}", show(at(from))),
            &format!("dir:{}", show(to.clone())),
        ]));
        let theirs: serde_json::Value =
            serde_json::from_slice(&std::fs::read(to.join("manifest.json")).unwrap()).unwrap();
        assert_eq!(theirs["config"]["digest"], document.config.digest.to_string(), "{kind}");
    }
    // And back, written by skopeo.
    for kind in ["oci", "oci-archive", "docker-archive"] {
        let written = at(&format!("skopeo-{kind}"));
        let to = format!("{kind}:{}:{name}", show(written.clone()));
        run(Command::new("skopeo").args([
            "copy",
            &format!("oci:{}:{name}", show(at("layout"))),
            &to,
        ]));
        let store = Store::open(&at(&format!("store-{kind}"))).unwrap();
        let imported = import_as(&store, Input::Path(&written), None, None).unwrap();
        assert_eq!(imported.name, name.parse::<Reference>().unwrap(), "{kind}");
        assert_eq!(store.verify(1, &Silent).unwrap(), []);
        if kind != "docker-archive" {
            assert_eq!(imported.descriptor, manifest, "{kind}");
        }
        // From a pipe too, and compressed.
        if kind != "oci" {
            let piped = run(Command::new("gzip").arg("-c").arg(&written)).stdout;
            let form = kind.parse().unwrap();
            let store = Store::open(&at(&format!("piped-{kind}"))).unwrap();
            let again =
                import_as(&store, Input::Stream("stdin", &mut &piped[..]), Some(form), Some("a/b"))
                    .unwrap();
            assert_eq!(again.descriptor, imported.descriptor);
        }
    }
    let tags = run(Command::new("umoci").args(["ls", "--layout"]).arg(at("layout"))).stdout;
    assert_eq!(String::from_utf8(tags).unwrap().trim(), name);
}

#[test]
fn a_layout_takes_several_images_and_gives_the_one_that_is_named() {
    let dir = temp_dir();
    let store = Store::open(&dir.path().join("store")).unwrap();
    let layout = dir.path().join("layout");
    let images = [("a.example/b:1", 1), ("a.example/b:2", 2)].map(|(name, seed)| {
        let (_, manifest) = image(&store, name, seed);
        export(&store, name, Form::Layout, &layout);
        export(&store, name, Form::Layout, &layout);
        manifest
    });
    let other = Store::open(&dir.path().join("other")).unwrap();
    let error = import(&other, &layout, "x.example/y:1").unwrap_err();
    assert!(
        error.to_string().ends_with("holds several images: `a.example/b:1` and `a.example/b:2`"),
        "{error}"
    );
    assert_eq!(error.kind(), Kind::Usage);
    let mut options = ImportOptions {
        form: None,
        name: None,
        select: Some("a.example/b:2".to_owned()),
        platform: None,
        created: None,
        threads: 1,
        pack: &gzip,
    };
    let imported = other.import(Input::Path(&layout), &options, &Silent).unwrap();
    assert_eq!(
        (imported.name.to_string(), imported.descriptor),
        ("a.example/b:2".to_owned(), images[1].clone())
    );
    options.select = Some("a.example/b:3".to_owned());
    let error = other.import(Input::Path(&layout), &options, &Silent).unwrap_err();
    assert!(error.to_string().contains("no image `a.example/b:3` but"), "{error}");
    // A folder of other things is not written into.
    std::fs::create_dir(dir.path().join("other-things")).unwrap();
    std::fs::write(dir.path().join("other-things/file"), b"x").unwrap();
    let options = ExportOptions { form: Form::Layout, platform: None };
    let output = Output::Path(&dir.path().join("other-things"));
    let error =
        store.export(&"a.example/b:1".parse().unwrap(), output, &options, &Silent).unwrap_err();
    assert!(matches!(error, Error::NotALayout { .. }), "{error}");
}

#[test]
fn a_root_file_system_becomes_an_image_whatever_its_wrapping() {
    let dir = temp_dir();
    let mut tar = Tar::default();
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\xb7\0".to_vec();
    elf.extend_from_slice(&noise(100_000, 1));
    tar.folder("./").folder("./bin/").file("./bin/sh", &elf).symlink("./lib", "/usr/lib");
    tar.add("./dev/null", tar::EntryType::Char, b"", |header| {
        header.set_device_major(1).unwrap();
        header.set_device_minor(3).unwrap();
    });
    let tar = tar.done();
    let plain = dir.path().join("root.tar");
    std::fs::write(&plain, &tar).unwrap();
    run(Command::new("sh")
        .args(["-c", "gzip -k root.tar && zstd -qk root.tar"])
        .current_dir(dir.path()));
    let mut found = Vec::new();
    for file in ["root.tar", "root.tar.gz", "root.tar.zst"] {
        let store = Store::open(&dir.path().join(format!("store-{file}"))).unwrap();
        let imported = import(&store, &dir.path().join(file), "localhost/root").unwrap();
        let index = store.document(&imported.descriptor).unwrap().index().unwrap();
        assert_eq!(
            index.manifests[0].platform,
            Some(Platform::linux("arm64")),
            "its programs say so"
        );
        let manifest = store.document(&index.manifests[0]).unwrap().manifest().unwrap();
        let config = ConfigDocument::read(&store.read_blob(&manifest.config).unwrap()).unwrap();
        assert_eq!(config.diff_ids(), [Digest::of(&tar)]);
        assert_eq!(config.created(), Some("2023-11-14T22:13:20Z"));
        assert_eq!(config.env()[0].0, "PATH");
        assert_eq!(
            store.blob_for(&Digest::of(&tar), "test").unwrap().as_ref(),
            manifest.layers.first()
        );
        found.push(imported.descriptor.digest);
        let mut bytes = Vec::new();
        std::fs::File::open(dir.path().join(file)).unwrap().read_to_end(&mut bytes).unwrap();
        let piped =
            import_as(&store, Input::Stream("stdin", &mut &bytes[..]), None, Some("localhost/p"))
                .unwrap();
        found.push(piped.descriptor.digest);
    }
    found.dedup();
    assert_eq!(found.len(), 1);
    let options = ImportOptions {
        form: None,
        name: Some("localhost/root".parse().unwrap()),
        select: None,
        platform: Some(Platform::linux("amd64")),
        created: None,
        threads: 1,
        pack: &gzip,
    };
    let store = Store::open(&dir.path().join("said")).unwrap();
    let report = Warnings::default();
    let imported = store.import(Input::Path(&plain), &options, &report).unwrap();
    let index = store.document(&imported.descriptor).unwrap().index().unwrap();
    assert_eq!(index.manifests[0].platform, options.platform, "who imports knows better");
    assert_eq!(*report.0.lock().unwrap(), ["the programs are for arm64, not for linux/amd64"]);
}

/// Keeps what was warned of.
#[derive(Default)]
struct Warnings(std::sync::Mutex<Vec<String>>);

impl ocibuild::report::Report for Warnings {
    fn event(&self, event: ocibuild::report::Event<'_>) {
        if let ocibuild::report::Event::Warning(text) = event {
            self.0.lock().unwrap().push(text.to_owned());
        }
    }
}

#[test]
fn hostile_files_are_refused_by_name_and_leave_nothing() {
    let dir = temp_dir();
    let good = Store::open(&dir.path().join("good")).unwrap();
    let (layer, manifest) = image(&good, "a.example/b:1", 1);
    let layout = dir.path().join("layout");
    export(&good, "a.example/b:1", Form::Layout, &layout);
    let store = Store::open(&dir.path().join("store")).unwrap();
    let refuse = |path: &Path, part: &str| {
        let error = import(&store, path, "a.example/b:1").unwrap_err();
        assert!(told(&error).contains(part), "{} in {}", part, told(&error));
        assert_eq!(blobs(&store), Vec::<PathBuf>::new());
        assert_eq!(store.names().unwrap(), []);
    };
    let blob = |digest: Digest| layout.join("blobs/sha256").join(digest.hex());
    let with = |path: &Path, bytes: Option<&[u8]>, part: &str| {
        let before = std::fs::read(path).unwrap();
        match bytes {
            Some(bytes) => std::fs::write(path, bytes).unwrap(),
            None => std::fs::remove_file(path).unwrap(),
        }
        refuse(&layout, part);
        let packed = dir.path().join("packed.tar");
        run(Command::new("tar").arg("-cf").arg(&packed).arg("-C").arg(&layout).arg("."));
        refuse(&packed, part);
        std::fs::write(path, before).unwrap();
    };
    let content = std::fs::read(blob(layer.digest)).unwrap();
    let mut tampered = content.clone();
    tampered[99] ^= 1;
    with(
        &blob(layer.digest),
        Some(&tampered),
        &format!("the content of {} hashes to", layer.digest),
    );
    with(&blob(layer.digest), Some(&content[1..]), &format!("bytes, not {}", content.len()));
    with(&blob(layer.digest), None, "is missing");
    with(&blob(manifest.digest), None, "is missing");
    let document = std::fs::read(blob(manifest.digest)).unwrap();
    let text = String::from_utf8(document.clone()).unwrap().replace('2', "3");
    with(&blob(manifest.digest), Some(text.as_bytes()), "holds sha256:");
    with(&layout.join("index.json"), Some(b"{"), "index.json is damaged");
    with(&layout.join("oci-layout"), Some(br#"{"imageLayoutVersion":"2.0"}"#), "version `2.0`");
    // Archives with names that lead out, or links that do.
    let file = |bytes: Vec<u8>| {
        let path = dir.path().join("hostile.tar");
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let mut tar = Tar::default();
    tar.file("oci-layout", b"{}").file("../../etc/passwd", b"x");
    refuse(&file(tar.done()), "`../../etc/passwd` leaves the root");
    let mut tar = Tar::default();
    tar.file("manifest.json", br#"[{"Config":"c.json","Layers":[]}]"#)
        .symlink("c.json", "../../etc/shadow");
    refuse(&file(tar.done()), "a link that leaves the archive");
    // Docker's archive with another layer than its configuration says.
    let honest = docker_archive(&layers(), "a.example/b:1");
    let lie = {
        let at = honest.windows(7).position(|window| window == b"program").unwrap();
        let mut lie = honest.clone();
        lie[at] = b'P';
        lie
    };
    refuse(&file(lie), "holds sha256:");
    refuse(&file(honest[..honest.len() / 2].to_vec()), "cut short");
    let mut two = Tar::default();
    two.file("manifest.json", br#"[{"Config":"../c.json","Layers":[]}]"#);
    refuse(&file(two.done()), "leaves the root");
    let mut config = Tar::default();
    config.file("manifest.json", br#"[{"Config":"c.json","Layers":["l"]}]"#).file("c.json", b"{}");
    refuse(&file(config.done()), "1 layers, but 0 digests");
    // Root file systems.
    let mut tar = Tar::default();
    tar.file("etc/../../x", b"x");
    refuse(&file(tar.done()), "`etc/../../x` leaves the root");
    let mut tar = Tar::default();
    tar.file("etc/.wh.passwd", b"");
    refuse(&file(tar.done()), "is a whiteout");
    refuse(
        &file(b"not an archive, but long enough to be read as one".repeat(100)),
        "no tar header at byte 0",
    );
    refuse(&file(b"BZh91AY&SY".to_vec()), "bzip2");
    refuse(&file(Vec::new()), "holds no files");
    let mut cut = Tar::default();
    cut.file("file", &noise(5000, 1));
    refuse(&file(cut.done()[..4000].to_vec()), "cut short");
    // And the run folder has none of it.
    store.gc(&GcOptions::default(), &Silent).unwrap();
    import(&store, &layout, "a.example/b:1").unwrap();
    import(&store, &file(honest), "a.example/b:2").unwrap();
}

#[test]
fn archives_are_the_same_bytes_from_every_store() {
    let dir = temp_dir();
    let name = "a.example/b:1";
    let mut seen = Vec::new();
    for number in 0..2 {
        let store = Store::open(&dir.path().join(format!("store-{number}"))).unwrap();
        if number == 1 {
            // Other blobs, made earlier, do not matter.
            image(&store, "a.example/other:1", 5);
        }
        image(&store, name, 1);
        let mut digests = Vec::new();
        for form in [Form::OciArchive, Form::DockerArchive, Form::Tar] {
            let mut bytes = Vec::new();
            let options = ExportOptions { form, platform: None };
            let output = Output::Stream("stdout", &mut bytes);
            store.export(&name.parse().unwrap(), output, &options, &Silent).unwrap();
            let path = dir.path().join("file");
            store.export(&name.parse().unwrap(), Output::Path(&path), &options, &Silent).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), bytes);
            digests.push(Digest::of(&bytes));
        }
        seen.push(digests);
    }
    assert_eq!(seen[0], seen[1]);
}

#[test]
fn an_export_that_fails_leaves_the_old_file_or_none() {
    let dir = temp_dir();
    let store = Store::open(&dir.path().join("store")).unwrap();
    let (layer, _) = image(&store, "a.example/b:1", 1);
    let path = store.blob_path(&layer.digest);
    let good = std::fs::read(&path).unwrap();
    let mut bad = good.clone();
    bad[50_000] ^= 1;
    let target = dir.path().join("out");
    std::fs::create_dir(&target).unwrap();
    std::fs::write(target.join("file"), b"old").unwrap();
    let name: Reference = "a.example/b:1".parse().unwrap();
    let attempt = |form| {
        let options = ExportOptions { form, platform: None };
        let file = if form == Form::Layout { "layout" } else { "file" };
        let error =
            store.export(&name, Output::Path(&target.join(file)), &options, &Silent).unwrap_err();
        let left: Vec<_> =
            std::fs::read_dir(&target).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["file"], "{form:?}");
        assert_eq!(std::fs::read(target.join("file")).unwrap(), b"old");
        told(&error)
    };
    std::fs::write(&path, &bad).unwrap();
    for form in [Form::Layout, Form::OciArchive, Form::DockerArchive, Form::Tar] {
        let told = attempt(form);
        assert!(told.contains(&layer.digest.hex()), "{told}");
    }
    std::fs::remove_file(&path).unwrap();
    assert!(attempt(Form::OciArchive).contains(&format!("{} is not in", layer.digest)));
    std::fs::write(&path, &good).unwrap();
    // A disk that fills up, with the target's name and what to do.
    let disk = SmallDisk::new(4);
    std::fs::write(disk.path().join("filler"), noise(3 << 20, 1)).ok();
    for seed in 10..40 {
        image(&store, "a.example/large:1", seed);
    }
    for form in [Form::OciArchive, Form::DockerArchive, Form::Tar, Form::Layout] {
        let large = Store::open(&dir.path().join("large")).unwrap();
        let mut tar = Tar::default();
        tar.file("file", &noise(8 << 20, 2));
        let content = tar.done();
        import_as(&large, Input::Stream("stdin", &mut &content[..]), None, Some("a.example/l:1"))
            .unwrap();
        let target = disk.path().join("target");
        let options = ExportOptions { form, platform: None };
        let error = large.export(
            &"a.example/l:1".parse().unwrap(),
            Output::Path(&target),
            &options,
            &Silent,
        );
        let error = error.unwrap_err();
        assert_eq!(error.kind(), Kind::Environment, "{}", told(&error));
        assert!(
            told(&error).contains("target") && told(&error).contains("space"),
            "{}",
            told(&error)
        );
        assert!(!target.exists());
        let left = std::fs::read_dir(disk.path()).unwrap().count();
        assert_eq!(left, 2, "lost+found and the filler: {form:?}");
    }
}

#[test]
fn what_docker_save_would_load_podman_loads() {
    let dir = temp_dir();
    let store = Store::open(&dir.path().join("store")).unwrap();
    let archive = dir.path().join("docker.tar");
    std::fs::write(&archive, docker_archive(&layers()[..1], "a.example/b:1")).unwrap();
    import_as(&store, Input::Path(&archive), None, None).unwrap();
    for (form, file) in [(Form::DockerArchive, "d.tar"), (Form::OciArchive, "o.tar")] {
        let file = dir.path().join(file);
        export(&store, "a.example/b:1", form, &file);
        let root = dir.path().join(format!("{form:?}"));
        let podman = |arguments: &[&str], input: Stdio| {
            let mut command = Command::new("podman");
            command.arg("--root").arg(root.join("root")).arg("--runroot").arg(root.join("run"));
            command.args(["--storage-driver", "vfs"]).args(arguments).stdin(input);
            String::from_utf8(run(&mut command).stdout).unwrap()
        };
        let loaded = podman(&["load"], std::fs::File::open(&file).unwrap().into());
        assert!(loaded.contains("a.example/b:1"), "{loaded}");
    }
}
