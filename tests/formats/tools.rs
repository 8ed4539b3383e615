//! Our files in other tools' hands, and theirs in ours.

use super::*;

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
        add: false,
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
fn what_docker_save_would_load_podman_loads() {
    let dir = temp_dir();
    let store = Store::open(&dir.path().join("store")).unwrap();
    let archive = dir.path().join("docker.tar");
    std::fs::write(&archive, docker_archive(&layers()[..1], "a.example/b:1")).unwrap();
    import_as(&store, Input::Path(&archive), None, None).unwrap();
    for (form, file) in [(Form::DockerArchive, "d.tar"), (Form::OciArchive, "o.tar")] {
        let file = dir.path().join(file);
        export(&store, "a.example/b:1", form, &file);
        // podman takes no long paths here.
        let root = file.with_extension("");
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
