//! Between tree and blob with real tools: what a kernel's overlay leaves is read right, and what is
//! written others read as we do.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use ocibuild::changes::{Change, Changes, Kind, from_upper};
use ocibuild::layer::{
    Blob, Error, Limits, Owners, Packed, Profile, measure, pack, unpack, write_tar,
};
use ocibuild::oci::Digest;
use ocibuild::oci::media_type::Compression;
use ocibuild::rootfs::{Ledger, Plain};

use crate::support::cli::require_root;

fn shell(dir: &Path, script: &str) -> String {
    let done = Command::new("bash").args(["-euc", script]).current_dir(dir).output().unwrap();
    let error = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{script}\n{error}");
    String::from_utf8_lossy(&done.stdout).into_owned()
}

/// Runs `change` in an overlay over what `make` made, and lists what changed: `+` for what is
/// present, `-` for what is removed. The overlay is gone afterwards, with its namespace.
fn changed(make: &str, change: &str, excluded: &[&str]) -> Vec<String> {
    require_root();
    let dir = tempfile::tempdir().unwrap();
    shell(
        dir.path(),
        &format!(
            "mkdir lower upper work merged; cd lower\n{make}\ncd ..; find lower -exec touch -hd @1000 {{}} +"
        ),
    );
    fs::write(dir.path().join("change"), change).unwrap();
    let mount =
        "mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work,userxattr merged";
    shell(dir.path(), &format!("unshare -m bash -euc '{mount}; cd merged; . ../change'"));
    let excluded: Vec<PathBuf> = excluded.iter().map(PathBuf::from).collect();
    let (upper, lower) = (dir.path().join("upper"), dir.path().join("lower"));
    from_upper(&upper, &lower, &excluded, &Plain)
        .unwrap()
        .iter()
        .map(|change| shown(&change))
        .collect()
}

fn shown(change: &Change) -> String {
    let sign = if change.kind == Kind::Present { '+' } else { '-' };
    format!("{sign}{}", String::from_utf8_lossy(&change.path))
}

#[test]
fn what_is_touched_but_the_same_is_no_change() {
    let make = "mkdir -p a/b tmp; echo x >a/b/file; echo y >a/other; ln -s file a/link; echo s >a/suid; chmod 4755 a/suid";
    let touched = "chown -hR 0:0 .; chmod 755 a; : >>a/other; touch -d @1000.5 a/b/file; mv a/link a/l; mv a/l a/link; touch -hd @1000 a
        chmod 4755 a/suid";
    assert_eq!(changed(make, touched, &[]), [""; 0]);
    // A file made and removed leaves its folder's time.
    assert_eq!(changed(make, "touch a/b/new; rm a/b/new", &[]), ["+a", "+a/b"]);
    let rewritten = "cp -p a/b/file c; rm a/b/file; cp -p c a/b/file; rm c; touch -d @1000 a/b";
    assert_eq!(changed(make, rewritten, &[]), [""; 0]);
    assert_eq!(changed(make, "touch -d @1001 a/b/file", &[]), ["+a", "+a/b", "+a/b/file"]);
    assert_eq!(changed(make, "echo z >a/other; touch -d @1000 a/other", &[]), ["+a", "+a/other"]);
    assert_eq!(
        changed(make, "chgrp 5 a/b; echo >tmp/x; mkdir run", &["tmp", "run"]),
        ["+a", "+a/b"]
    );
}

#[test]
fn removals_are_named_one_by_one() {
    let make = "mkdir -p a/b/c d e; touch a/b/one a/b/two a/b/c/three d/x e/y";
    assert_eq!(changed(make, "rm -r a/b; touch -d @1000 a", &[]), ["+a", "-a/b"]);
    // A folder made anew is opaque to overlay; what it does not hide is the same again.
    let anew = "cp -a a/b k; rm -r a/b; mkdir -p a/b/c/new; cp -p k/one a/b; rm -r k
        cp -p ../lower/a/b/c/three a/b/c; touch -d @1000 a";
    assert_eq!(changed(make, anew, &[]), ["+a", "+a/b", "-a/b/two", "+a/b/c", "+a/b/c/new"]);
    let file_for_folder = "rm -r a/b; echo now >a/b; touch -d @1000 a";
    assert_eq!(changed(make, file_for_folder, &[]), ["+a", "+a/b"]);
    let folder_for_file = "rm a/b/one; mkdir a/b/one; touch a/b/one/z; touch -d @1000 a/b";
    assert_eq!(changed(make, folder_for_file, &[]), ["+a", "+a/b", "+a/b/one", "+a/b/one/z"]);
    // Made and removed within the run: overlay keeps a whiteout only for what was there before.
    assert_eq!(changed(make, "rm d/x; touch d/x; rm d/x; touch -d @1000 d", &[]), ["+d", "-d/x"]);
    // Renaming a folder of the parent copies it.
    assert_eq!(changed(make, "mv e f", &[]), ["-e", "+f", "+f/y"]);
    let socket = "rm d/x; python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"d/x\")'
        touch -d @1000 d";
    assert_eq!(changed(make, socket, &[]), ["+d", "-d/x"]);
    // Names around the slash sort by their bytes, folders first.
    assert_eq!(
        changed("mkdir a", "touch a/x a-b a.c a0", &[]),
        ["+a", "+a-b", "+a.c", "+a/x", "+a0"]
    );
}

/// A tree with everything that a layer can hold, and the changes that are all of it.
fn full_tree(dir: &Path) -> Changes {
    require_root();
    shell(
        dir,
        r#"
        mkdir -p usr/bin "with space" ümlaut var/spool/mail empty
        echo su >usr/bin/su; chmod 4755 usr/bin/su
        ln usr/bin/su usr/bin/again
        cp /bin/true usr/bin/ping; setcap cap_net_raw,cap_fowner,cap_dac_override+ep usr/bin/ping
        ln usr/bin/ping usr/bin/ping4
        ln -s ../lib "with space/link"; ln -s "$(printf 'long/%.0s' {1..60})end" usr/long-target
        mkdir -p "$(printf 'deep-folder/%.0s' {1..30})"; echo x >"$(printf 'deep-folder/%.0s' {1..30})file"
        echo n >"$(printf 'n%.0s' {1..200})"
        echo bytes >"$(printf 'not\xff\xfeutf8\nname')"
        mkfifo pipe; chmod 2775 var/spool/mail; chown 1000:100 var/spool/mail; chmod 1777 empty
        truncate -s 3M sparse; echo end >>sparse
        chown 3000000:3000000 ümlaut
        touch -d @-5 old; touch -d @1234567890.9 new
        find . -mindepth 1 ! -name old ! -name new -exec touch -hd @1600000000 {} +
        "#,
    );
    let changes = from_upper(dir, Path::new("/nowhere"), &[], &Plain).unwrap();
    let removed = ["usr/share/doc", "boot"];
    let removed = removed.map(|path| Change { path: path.into(), kind: Kind::Removed });
    changes.iter().chain(removed).collect()
}

fn packed(tree: &Path, changes: &Changes, profile: Profile, threads: usize) -> (Packed, Vec<u8>) {
    let mut blob = Vec::new();
    let write = |out: &mut dyn Write| write_tar(tree, changes, &Ledger::default(), out);
    let packed = pack(profile, threads, write, &mut blob).unwrap();
    (packed, blob)
}

/// What `find` sees of a tree, hard links and capabilities included.
fn seen(tree: &Path) -> String {
    let list = shell(
        tree,
        r"
        find . -mindepth 1 ! -type l -printf '%p %y %m %U:%G %s %Ts %n\n' | LC_ALL=C sort
        find . -type l -printf '%p %l %Ts\n' | LC_ALL=C sort
        find . -type f -exec sha256sum {} + | LC_ALL=C sort
        getcap -r . | LC_ALL=C sort
        test usr/bin/su -ef usr/bin/again; test usr/bin/ping -ef usr/bin/ping4
        ",
    );
    // The size of a folder is the file system's matter.
    list.lines()
        .map(|line| {
            let mut words: Vec<&str> = line.split(' ').collect();
            if let Some(at) = words.iter().position(|word| *word == "d") {
                words.truncate(at + 3);
            }
            words.join(" ") + "\n"
        })
        .collect()
}

#[test]
fn a_tree_survives_the_way_to_a_blob_and_back() {
    let (tree, back) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let changes = full_tree(tree.path());
    for (profile, compression) in
        [(Profile::Gzip1, Compression::Gzip), (Profile::Zstd1, Compression::Zstd)]
    {
        let (first, bytes) = packed(tree.path(), &changes, profile, 3);
        let blob = Blob {
            digest: first.digest,
            size: first.size,
            compression,
            diff_id: Some(first.diff_id),
        };
        let dest = back.path().join(profile.name());
        fs::create_dir(&dest).unwrap();
        let result = unpack(
            &blob,
            &mut bytes.as_slice(),
            &dest,
            Owners::InTree,
            &Limits::of_blob(blob.size),
        )
        .unwrap();
        assert_eq!(seen(&dest), seen(tree.path()));
        let hidden: Vec<String> =
            result.sidecar.whiteouts.iter().map(ToString::to_string).collect();
        assert_eq!(hidden, ["boot", "usr/share/doc"]);
        assert_eq!(result.sidecar.capabilities.len(), 2);

        let removed = changes.iter().filter(|change| change.kind == Kind::Removed);
        let again = from_upper(&dest, Path::new("/nowhere"), &[], &Plain).unwrap();
        let again = again.iter().chain(removed).collect();
        let write = |out: &mut dyn Write| write_tar(&dest, &again, &Ledger::default(), out);
        assert_eq!(measure(write).unwrap(), (first.diff_id, first.uncompressed));
    }
}

#[test]
fn other_tools_read_the_same_tree() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    let changes: Changes =
        full_tree(&tree).iter().filter(|change| change.kind == Kind::Present).collect();
    let (_, gzip) = packed(&tree, &changes, Profile::Gzip1, 2);
    let (_, zstd) = packed(&tree, &changes, Profile::Zstd1, 2);
    fs::write(dir.path().join("layer.tar.gz"), gzip).unwrap();
    fs::write(dir.path().join("layer.tar.zst"), zstd).unwrap();
    for (name, command) in [
        (
            "gnu",
            "tar --numeric-owner --xattrs --xattrs-include='security.*' -xpzf layer.tar.gz -C gnu",
        ),
        (
            "zstd",
            "zstd -dc layer.tar.zst | tar --numeric-owner --xattrs --xattrs-include='security.*' -xpf - -C zstd",
        ),
    ] {
        shell(dir.path(), &format!("mkdir -p {name}; {command}"));
        assert_eq!(seen(&dir.path().join(name)), seen(&tree), "{name}");
    }
    // Python's reader, which knows neither capabilities nor how to be lenient.
    let script = r"
import tarfile, sys
with tarfile.open('layer.tar.gz', errorlevel=2) as tar:
    for m in tar:
        kind = {b'0': 'file', b'1': 'hard', b'2': 'sym', b'5': 'folder', b'6': 'fifo'}[m.type]
        assert m.uname == m.gname == '', m
        print(kind, oct(m.mode), m.uid, m.gid, m.size, int(m.mtime), ascii(m.name), ascii(m.linkname))
";
    let listed = shell(dir.path(), &format!("python3 - <<'END'{script}END"));
    let lines: Vec<&str> = listed.lines().collect();
    assert_eq!(lines.len(), changes.len());
    for expected in [
        "file 0o4755 0 0 3 1600000000 'usr/bin/again' ''",
        "hard 0o4755 0 0 0 1600000000 'usr/bin/su' 'usr/bin/again'",
        "sym 0o777 0 0 0 1600000000 'with space/link' '../lib'",
        "folder 0o2775 1000 100 0 1600000000 'var/spool/mail' ''",
        "folder 0o755 3000000 3000000 0 1600000000 '\\xfcmlaut' ''",
        "fifo 0o644 0 0 0 1600000000 'pipe' ''",
        "file 0o644 0 0 0 -5 'old' ''",
        "file 0o644 0 0 0 1234567890 'new' ''",
        "file 0o644 0 0 3145732 1600000000 'sparse' ''",
    ] {
        assert!(lines.contains(&expected), "{expected}\n{listed}");
    }
}

/// A writer whose file grows while its bytes are taken.
struct Grow(PathBuf);
impl Write for Grow {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        fs::OpenOptions::new().append(true).open(&self.0)?.write_all(b"more")?;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn names_that_mean_deletion_and_files_in_motion_are_no_layer() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(".wh.name"), b"").unwrap();
    let present = |path: &str| -> Changes {
        [Change { path: path.into(), kind: Kind::Present }].into_iter().collect()
    };
    let attempt = |path: &str| {
        write_tar(dir.path(), &present(path), &Ledger::default(), &mut std::io::sink()).unwrap_err()
    };
    assert!(attempt(".wh.name").to_string().contains(".wh."));
    assert!(matches!(attempt("vanished"), Error::Unsteady { .. }));

    let path = dir.path().join("log");
    fs::write(&path, vec![b'x'; 1000]).unwrap();
    let error =
        write_tar(dir.path(), &present("log"), &Ledger::default(), &mut Grow(path)).unwrap_err();
    assert!(matches!(error, Error::Unsteady { .. }), "{error}");
}

#[test]
fn a_new_link_to_a_file_that_is_left_out_is_a_whole_file() {
    require_root();
    let dir = tempfile::tempdir().unwrap();
    shell(
        dir.path(),
        "mkdir lower upper; echo data >lower/a; touch -d @5 lower/a; cp -p lower/a upper/a; ln upper/a upper/b",
    );
    let changes =
        from_upper(&dir.path().join("upper"), &dir.path().join("lower"), &[], &Plain).unwrap();
    assert_eq!(changes.iter().map(|change| shown(&change)).collect::<Vec<_>>(), ["+b"]);
    let mut tar = Vec::new();
    write_tar(&dir.path().join("upper"), &changes, &Ledger::default(), &mut tar).unwrap();
    assert_eq!((tar[156], &tar[512..517]), (b'0', &b"data\n"[..]));
}

#[test]
fn sparse_files_of_every_form_are_read_as_the_files_they_are() {
    require_root();
    let dir = tempfile::tempdir().unwrap();
    // Data at the start, in the midst and at the end; only holes; more pieces than a header holds.
    shell(
        dir.path(),
        r#"
        mkdir tree; cd tree
        echo head >mixed; truncate -s 1M mixed; echo mid >>mixed; truncate -s 5M mixed; echo end >>mixed
        truncate -s 3M holes
        for at in $(seq 0 64 6400); do printf 'piece %s' $at | dd of=pieces bs=1k seek=$at conv=notrunc status=none; done
        mkdir "$(printf 'long-folder-name/%.0s' {1..7})" -p; cp --sparse=always mixed "$(printf 'long-folder-name/%.0s' {1..7})"
        echo plain >plain; ln mixed again
        "#,
    );
    let form = "--sparse --sort=name";
    for options in [
        "--format=gnu",
        "--format=posix --sparse-version=0.0",
        "--format=posix --sparse-version=0.1",
        "--format=posix --sparse-version=1.0",
    ] {
        let bytes = fs::read({
            shell(dir.path(), &format!("tar {form} {options} -C tree -cf sparse.tar ."));
            dir.path().join("sparse.tar")
        })
        .unwrap();
        assert!(bytes.len() < 2 << 20, "{options} was not sparse");
        let blob = Blob {
            digest: Digest::of(&bytes),
            size: bytes.len() as u64,
            compression: Compression::None,
            diff_id: None,
        };
        let back = tempfile::tempdir().unwrap();
        let limits = Limits::of_blob(blob.size);
        unpack(&blob, &mut bytes.as_slice(), back.path(), Owners::InTree, &limits).unwrap();
        let script = format!("diff -r tree {} && du -s {0} | cut -f1", back.path().display());
        let blocks: u64 = shell(dir.path(), &script).trim().parse().unwrap();
        assert!(blocks < 2048, "{options}: {blocks} KiB, so the holes were filled");
    }
}
