//! Images as files: what skopeo, umoci and tar make of ours, and the store of theirs.

mod hostile;
mod tools;

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
        add: false,
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
        add: false,
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
