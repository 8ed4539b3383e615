//! Files that lie, and exports that fail.

use super::*;

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
