//! Good tars, hostile tars and damaged blobs.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use super::*;
use crate::layer::header::{self, BLOCK, Entry, EntryKind};
use crate::layer::{Profile, pack};
use crate::rootfs::{DeviceKind, EntryPath};

const NOTHING: Entry<'_> = Entry {
    path: b"",
    kind: EntryKind::File,
    mode: 0o644,
    uid: 0,
    gid: 0,
    size: 0,
    mtime: 1_600_000_000,
    link: b"",
    device: (0, 0),
    capability: None,
};

/// A tar made entry by entry.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn entry(mut self, entry: &Entry<'_>) -> Tar {
        header::encode(entry, &mut self.0);
        self
    }

    fn file(mut self, path: &str, data: &[u8]) -> Tar {
        self = self.entry(&Entry { path: path.as_bytes(), size: data.len() as u64, ..NOTHING });
        self.data(data)
    }

    fn data(mut self, data: &[u8]) -> Tar {
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(BLOCK), 0);
        self
    }

    fn folder(self, path: &str) -> Tar {
        self.entry(&Entry {
            path: path.as_bytes(),
            kind: EntryKind::Folder,
            mode: 0o755,
            ..NOTHING
        })
    }

    fn link(self, path: &str, kind: EntryKind, target: &str) -> Tar {
        let (path, link) = (path.as_bytes(), target.as_bytes());
        self.entry(&Entry { path, kind, link, mode: 0o777, ..NOTHING })
    }

    /// An extended or long-name entry as given.
    fn record(mut self, kind: u8, data: &[u8]) -> Tar {
        let start = self.0.len();
        self = self.entry(&Entry { path: b"record", size: data.len() as u64, ..NOTHING });
        self.0[start + 156] = kind;
        self.sum(start).data(data)
    }

    /// Corrects a header's sum after it was changed by hand.
    fn sum(mut self, start: usize) -> Tar {
        self.0[start + 148..start + 156].fill(b' ');
        let sum: u32 = self.0[start..start + BLOCK].iter().map(|byte| u32::from(*byte)).sum();
        self.0[start + 148..start + 155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        self
    }

    fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 2 * BLOCK]);
        self.0
    }
}

fn plain(bytes: &[u8]) -> Blob {
    let digest = Digest::of(bytes);
    Blob { digest, size: bytes.len() as u64, compression: Compression::None, diff_id: Some(digest) }
}

fn unpacked_into(tar: &[u8], dest: &Path) -> Result<Unpacked, Error> {
    let blob = plain(tar);
    unpack(&blob, &mut &tar[..], dest, Owners::InTree, &Limits::of_blob(blob.size))
}

/// Unpacks what must be refused, and returns why. Nothing may appear beside the tree.
fn refused(tar: Tar) -> EntryProblem {
    let dir = tempfile::tempdir().unwrap();
    let dest = dir.path().join("tree");
    fs::create_dir(&dest).unwrap();
    fs::write(dir.path().join("outside"), b"untouched").unwrap();
    let error = unpacked_into(&tar.end(), &dest).unwrap_err();
    assert_eq!(fs::read(dir.path().join("outside")).unwrap(), b"untouched");
    assert_eq!(crate::disk::list(dir.path()).unwrap(), ["outside", "tree"]);
    match error {
        Error::Entry { problem, .. } | Error::Refused { problem, .. } => problem,
        other => panic!("{other}"),
    }
}

/// All that a build with one id may not do on disk is in the sidecar, and nothing else.
#[test]
fn with_one_id_owners_lie_beside_the_tree() {
    let dir = tempfile::tempdir().unwrap();
    let dest = dir.path();
    let capability = [1, 0, 0, 2, 0, b'\n', 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let tar = Tar::default()
        .entry(&Entry { path: b"su", mode: 0o6755, uid: 5, gid: 6, ..NOTHING })
        .link("same", EntryKind::HardLink, "su")
        .entry(&Entry { path: b"root", mode: 0o4755, ..NOTHING })
        .entry(&Entry { path: b"ping", capability: Some(&capability), ..NOTHING })
        .entry(&Entry { path: b"twice", uid: 9, ..NOTHING })
        .entry(&Entry { path: b"twice", ..NOTHING })
        .entry(&Entry { path: b"closed", kind: EntryKind::Folder, mode: 0, gid: 8, ..NOTHING })
        .link("lib", EntryKind::Symlink, "usr/lib")
        .entry(&Entry {
            path: b"node",
            kind: EntryKind::Block,
            uid: 0,
            gid: 6,
            device: (7, 1),
            ..NOTHING
        })
        .end();
    let blob = plain(&tar);
    let limits = Limits::of_blob(blob.size);
    let result = unpack(&blob, &mut &tar[..], dest, Owners::Beside, &limits).unwrap();
    let own = rustix::process::geteuid().as_raw();
    for (path, mode) in [("su", 0o6755), ("same", 0o6755), ("root", 0o4755), ("closed", 0)] {
        let seen = fs::symlink_metadata(dest.join(path)).unwrap();
        assert_eq!((seen.mode() & 0o7777, seen.uid()), (mode, own), "{path}");
    }
    let owners: Vec<_> = result.sidecar.owners.iter().map(|(p, o)| (p.to_string(), *o)).collect();
    let expected = [("closed", (0, 8)), ("node", (0, 6)), ("same", (5, 6)), ("su", (5, 6))];
    assert_eq!(owners, expected.map(|(path, owner)| (path.to_owned(), owner)));
    assert_eq!(result.sidecar.capabilities.len(), 1);
    assert_eq!(result.sidecar.devices[b"node".as_slice()].gid, 6);
    let mut value = [0; 64];
    let on_disk = rustix::fs::getxattr(dest.join("ping"), "security.capability", &mut value);
    assert!(on_disk.is_err());
}

#[test]
fn entries_keep_what_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let dest = dir.path();
    let capability = [1, 0, 0, 2, 0, b'\n', 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let long = format!("{}/{}/file", "d".repeat(150), "e".repeat(150));
    let tar = Tar::default()
        .entry(&Entry { path: b".", kind: EntryKind::Folder, mode: 0o751, mtime: 77, ..NOTHING })
        .folder("usr")
        .entry(&Entry { path: b"usr/su", mode: 0o4755, size: 2, ..NOTHING })
        .data(b"su")
        .entry(&Entry { path: b"usr/drop", mode: 0o1777, uid: 1000, gid: 100, ..NOTHING })
        .link("usr/same", EntryKind::HardLink, "usr/su")
        .link("lib", EntryKind::Symlink, "usr/../../escape")
        .entry(&Entry { path: b"usr/ping", capability: Some(&capability), ..NOTHING })
        .link("usr/ping4", EntryKind::HardLink, "usr/ping")
        .entry(&Entry {
            path: b"dev/null",
            kind: EntryKind::Character,
            mode: 0o666,
            device: (1, 3),
            ..NOTHING
        })
        .entry(&Entry { path: b"pipe", kind: EntryKind::Fifo, mode: 0o620, uid: 5, ..NOTHING })
        .entry(&Entry {
            path: b"closed",
            kind: EntryKind::Folder,
            mode: 0o2500,
            uid: 7,
            gid: 8,
            mtime: 99,
            ..NOTHING
        })
        .file("closed/in", b"data")
        .file("etc/.wh.gone", b"")
        .file("var/.wh..wh..opq", b"")
        .file(&long, b"far")
        .end();
    let result = unpacked_into(&tar, dest).unwrap();
    assert_eq!(result.uncompressed, tar.len() as u64);

    let stat = |path: &str| fs::symlink_metadata(dest.join(path)).unwrap();
    assert_eq!(stat("usr/su").mode() & 0o7777, 0o4755);
    assert_eq!(stat("usr/su").ino(), stat("usr/same").ino());
    assert_eq!(fs::read(dest.join("usr/same")).unwrap(), b"su");
    let drop = stat("usr/drop");
    assert_eq!((drop.mode() & 0o7777, drop.uid(), drop.gid()), (0o1777, 1000, 100));
    assert_eq!((drop.mtime(), drop.mtime_nsec()), (1_600_000_000, 0));
    assert_eq!(fs::read_link(dest.join("lib")).unwrap(), Path::new("usr/../../escape"));
    assert_eq!(stat("lib").mtime(), 1_600_000_000);
    assert!(stat("pipe").file_type().is_fifo());
    assert_eq!((stat("pipe").mode() & 0o7777, stat("pipe").uid()), (0o620, 5));
    let closed = stat("closed");
    assert_eq!((closed.mode() & 0o7777, closed.uid(), closed.mtime()), (0o2500, 7, 99));
    assert_eq!(fs::read(dest.join(&long)).unwrap(), b"far");
    let root = fs::symlink_metadata(dest).unwrap();
    assert_eq!((root.mode() & 0o7777, root.mtime()), (0o751, 77));
    let mut value = [0; 32];
    let length =
        rustix::fs::lgetxattr(dest.join("usr/ping"), "security.capability", &mut value).unwrap();
    assert_eq!(value[..length], capability);

    let sidecar = result.sidecar;
    let names = |set: &std::collections::BTreeSet<EntryPath>| -> Vec<String> {
        set.iter().map(ToString::to_string).collect()
    };
    assert_eq!(names(&sidecar.whiteouts), ["etc/gone"]);
    assert_eq!(names(&sidecar.opaque), ["var"]);
    assert_eq!(names(&sidecar.implied), [&long[..150], &long[..301], "dev"]);
    let device = sidecar.devices[b"dev/null".as_slice()];
    assert_eq!((device.kind, device.major, device.minor), (DeviceKind::Character, 1, 3));
    // A place for it, since no tree can hold the node itself.
    let null = stat("dev/null");
    assert!(null.file_type().is_file() && null.len() == 0);
    assert_eq!((null.mode() & 0o7777, null.mtime()), (0o666, 1_600_000_000));
    assert!(!dest.join("etc").exists());
    let hex = "01000002000a00000a0000000000000000000000";
    assert_eq!(sidecar.capabilities[b"usr/ping".as_slice()], hex);
    assert_eq!(sidecar.capabilities[b"usr/ping4".as_slice()], hex);
}

#[test]
fn a_later_entry_takes_the_place_of_an_earlier_one() {
    let dir = tempfile::tempdir().unwrap();
    let tar = Tar::default()
        .file("a", b"first")
        .file("a", b"second")
        .folder("b")
        .link("b", EntryKind::Symlink, "a")
        .link("c", EntryKind::Symlink, "/etc")
        .folder("c")
        .file("c/d", b"inside")
        .folder("e")
        .entry(&Entry { path: b"e", kind: EntryKind::Folder, mode: 0o700, ..NOTHING })
        .end();
    unpacked_into(&tar, dir.path()).unwrap();
    assert_eq!(fs::read(dir.path().join("a")).unwrap(), b"second");
    assert!(fs::symlink_metadata(dir.path().join("b")).unwrap().is_symlink());
    assert_eq!(fs::read(dir.path().join("c/d")).unwrap(), b"inside");
    assert_eq!(fs::metadata(dir.path().join("e")).unwrap().mode() & 0o777, 0o700);
}

#[test]
fn nothing_leads_out_of_the_tree() {
    use EntryProblem as P;
    let symlink = EntryKind::Symlink;
    let hard = EntryKind::HardLink;
    let through = |link: &str| P::ThroughLink(link.to_owned());
    assert_eq!(refused(Tar::default().file("/etc/passwd", b"x")), P::Absolute);
    assert_eq!(refused(Tar::default().file("../outside", b"x")), P::Escape);
    assert_eq!(refused(Tar::default().file("a/../../outside", b"x")), P::Escape);
    assert_eq!(refused(Tar::default().folder("..")), P::Escape);
    assert_eq!(refused(Tar::default().file(".", b"x")), P::NoName);
    let linked = || Tar::default().link("up", symlink, "..");
    assert_eq!(refused(linked().file("up/outside", b"x")), through("up"));
    assert_eq!(refused(linked().folder("up/made")), through("up"));
    assert_eq!(refused(linked().link("up/made", symlink, "x")), through("up"));
    assert_eq!(refused(linked().file("up/.wh.outside", b"")), through("up"));
    assert_eq!(refused(linked().link("got", hard, "up/outside")), through("up"));
    let deep = Tar::default().folder("a").link("a/up", symlink, "../..").file("a/up/outside", b"x");
    assert_eq!(refused(deep), through("a/up"));
    // The folder that was open is replaced by a link.
    let swapped = Tar::default().folder("a").link("a", symlink, "..").file("a/outside", b"x");
    assert_eq!(refused(swapped), through("a"));
    for target in ["../outside", "/etc/passwd", "", "missing", "no/where", "."] {
        let problem = refused(Tar::default().link("got", hard, target));
        assert!(matches!(problem, P::LinkTarget(_)), "{target}: {problem}");
    }
    assert_eq!(
        refused(Tar::default().file("a", b"").link("a", hard, "a")),
        P::LinkTarget("a".into())
    );
    assert_eq!(refused(Tar::default().file("a", b"").file("a/b", b"")), P::InTheWay("a".into()));
    assert_eq!(refused(Tar::default().file("a/b", b"").file("a", b"")), P::InTheWay("a".into()));
    for name in [".wh.", "d/.wh..", "d/.wh...", "d/.wh.x/y"] {
        assert_eq!(refused(Tar::default().file(name, b"")), P::Whiteout, "{name}");
    }
}

#[test]
fn a_hard_link_to_a_symbolic_link_does_not_follow_it() {
    let dir = tempfile::tempdir().unwrap();
    let tar = Tar::default()
        .link("up", EntryKind::Symlink, "../outside")
        .link("again", EntryKind::HardLink, "up")
        .end();
    unpacked_into(&tar, dir.path()).unwrap();
    assert!(fs::symlink_metadata(dir.path().join("again")).unwrap().is_symlink());
}

#[test]
fn headers_that_lie_are_refused() {
    use EntryProblem as P;
    let conflict = Tar::default().record(b'x', b"12 size=512\n").file("a", &[0; 1024]);
    assert_eq!(refused(conflict), P::SizeConflict { header: 1024, record: 512 });
    // The form that smuggles entries past readers which look at one size only.
    let smuggled = Tar::default()
        .record(b'x', b"12 size=512\n")
        .entry(&Entry { path: b"a", ..NOTHING })
        .file("hidden", b"");
    assert_eq!(refused(smuggled), P::SizeConflict { header: 0, record: 512 });
    let agreeing = Tar::default().record(b'x', b"10 size=3\n").file("a", b"abc").end();
    unpacked_into(&agreeing, tempfile::tempdir().unwrap().path()).unwrap();

    let twice = Tar::default().record(b'x', b"9 path=a\n").record(b'x', b"9 path=b\n");
    assert_eq!(refused(twice.file("c", b"")), P::Header("two extended headers"));
    let disagreeing = Tar::default().record(b'L', b"long\0").record(b'x', b"9 path=b\n");
    assert_eq!(refused(disagreeing.file("c", b"")), P::Header("two records that disagree"));
    let global = Tar::default().record(b'g', b"9 path=a\n").file("c", b"");
    assert!(matches!(refused(global), P::Header(_)));
    let broken = Tar::default().record(b'x', b"99 path=a\n").file("c", b"");
    assert_eq!(refused(broken), P::Header("extended header"));
    let mut sum = Tar::default().file("a", b"");
    sum.0[0] = b'b';
    assert_eq!(refused(sum), P::Header("checksum"));
    let mut kind = Tar::default().file("a", b"");
    kind.0[156] = b'S';
    assert_eq!(refused(kind.sum(0)), P::Header("sparse map"));
    let owner = Tar::default().record(b'x', b"18 uid=4294967295\n").file("c", b"");
    assert_eq!(refused(owner), P::Owner { uid: 4_294_967_295, gid: 0 });
}

/// An extended header about a sparse file.
fn sparse_records(records: &[(&str, &str)]) -> Vec<u8> {
    let mut all = Vec::new();
    for (key, value) in records {
        let rest = format!(" GNU.sparse.{key}={value}\n");
        // All of these have lengths of two digits.
        all.extend_from_slice(format!("{}{rest}", rest.len() + 2).as_bytes());
    }
    all
}

#[test]
fn sparse_files_that_lie_are_refused() {
    use EntryProblem as P;
    let attempt = |records: &[(&str, &str)], data: &[u8]| {
        refused(Tar::default().record(b'x', &sparse_records(records)).file("a", data))
    };
    for (why, map, size, data) in [
        ("an overlap", "0,5,4,5", "100", &[1; 10][..]),
        ("not in order", "50,5,0,5", "100", &[1; 10]),
        ("beyond the end", "0,5,96,5", "100", &[1; 10]),
        ("more data than places", "0,5", "100", &[1; 10]),
        ("an odd number of numbers", "0,5,50", "100", &[1; 5]),
    ] {
        let found = attempt(&[("size", size), ("map", map)], data);
        assert_eq!(found, P::Header("sparse map"), "{why}");
    }
    let bomb = attempt(&[("size", "99999999999999"), ("map", "0,1")], b"x");
    assert!(matches!(bomb, P::Bound { what: "the layer's size", .. }), "{bomb}");
    let new = [("major", "1"), ("minor", "0"), ("name", "a"), ("realsize", "100")];
    for map in ["1\n0\n", "x\n", "999999\n", "1\n95\n6\n", "000000000000000000000000000"] {
        let mut data = map.as_bytes().to_vec();
        data.resize(BLOCK, b'\n');
        data.extend_from_slice(b"123456");
        assert!(matches!(attempt(&new, &data), P::Header(_)), "{map}");
    }
    let header = [("major", "2"), ("minor", "0"), ("realsize", "1")];
    assert_eq!(attempt(&header, b"x"), P::Header("sparse map"));
    let link = Tar::default().record(b'x', &sparse_records(&[("size", "1"), ("map", "0,0")])).link(
        "a",
        EntryKind::Symlink,
        "b",
    );
    assert!(matches!(refused(link), P::Header(_)));
}

#[test]
fn names_come_from_every_kind_of_long_header() {
    let dir = tempfile::tempdir().unwrap();
    let tar = Tar::default()
        .record(b'g', b"19 comment=git sha\n")
        .record(b'L', b"by/gnu\0")
        .file("short", b"1")
        .record(b'x', b"30 mtime=1234567890.987654321\n15 path=by/pax\n")
        .file("short", b"2")
        .record(b'K', b"some/target\0")
        .link("link", EntryKind::Symlink, "short")
        .end();
    unpacked_into(&tar, dir.path()).unwrap();
    assert_eq!(fs::read(dir.path().join("by/gnu")).unwrap(), b"1");
    assert_eq!(fs::read(dir.path().join("by/pax")).unwrap(), b"2");
    assert_eq!(fs::metadata(dir.path().join("by/pax")).unwrap().mtime(), 1_234_567_890);
    assert_eq!(
        fs::read_link(dir.path().join("link")).unwrap().as_os_str().as_bytes(),
        b"some/target"
    );
}

#[test]
fn bombs_are_refused_by_the_stated_bounds() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { entries: 3, bytes: 1 << 20, path: 40, depth: 4, charge: None };
    let try_it = |tar: Tar, profile: Option<Profile>| {
        let tar = tar.end();
        let mut bytes = Vec::new();
        let mut blob = plain(&tar);
        match profile {
            None => bytes = tar,
            Some(profile) => {
                let packed = pack(
                    profile,
                    1,
                    |out| {
                        out.write_all(&tar)
                            .map_err(|source| Error::Blob { action: "write", source })
                    },
                    &mut bytes,
                )
                .unwrap();
                let compression = match profile {
                    Profile::Gzip1 => Compression::Gzip,
                    Profile::Zstd1 => Compression::Zstd,
                };
                blob = Blob { digest: packed.digest, size: packed.size, compression, ..blob };
            }
        }
        unpack(&blob, &mut bytes.as_slice(), dir.path(), Owners::InTree, &limits)
            .unwrap_err()
            .to_string()
    };
    let many = Tar::default().folder("a").folder("b").folder("c").folder("d");
    assert!(try_it(many, None).contains("number of entries goes beyond the bound of 3"));
    assert!(try_it(Tar::default().folder("a/b/c/d/e"), None).contains("folders"));
    assert!(try_it(Tar::default().folder(&"n".repeat(41)), None).contains("length"));
    for profile in [Profile::Gzip1, Profile::Zstd1] {
        let zeros = Tar::default().file("zeros", &vec![0; 4 << 20]);
        assert!(try_it(zeros, Some(profile)).contains("bound of 1048576"));
    }
    let claims = Tar::default().entry(&Entry { path: b"big", size: 1 << 60, ..NOTHING });
    assert!(try_it(claims, None).contains("bound of 1048576"));
    let record = Tar::default().record(b'x', b"");
    assert!(
        unpacked_into(&record.end(), dir.path()).unwrap_err().to_string().contains("too early")
    );
}

fn gzip_of(tar: &[u8]) -> (Blob, Vec<u8>) {
    let mut bytes = Vec::new();
    let packed = pack(
        Profile::Gzip1,
        2,
        |out| out.write_all(tar).map_err(|source| Error::Blob { action: "write", source }),
        &mut bytes,
    )
    .unwrap();
    let compression = Compression::Gzip;
    let diff_id = Some(packed.diff_id);
    (Blob { digest: packed.digest, size: packed.size, compression, diff_id }, bytes)
}

#[test]
fn damaged_blobs_are_told_apart() {
    let noise: Vec<u8> =
        (0..20_000_u32).flat_map(|n| Digest::of(&n.to_le_bytes()).hex().into_bytes()).collect();
    let tar = Tar::default().file("noise", &noise).end();
    let (blob, bytes) = gzip_of(&tar);
    let dir = tempfile::tempdir().unwrap();
    let attempt = |blob: &Blob, mut bytes: &[u8]| {
        unpack(blob, &mut bytes, dir.path(), Owners::InTree, &Limits::of_blob(blob.size))
            .map(|_| ())
    };
    attempt(&blob, &bytes).unwrap();

    let mut flipped = bytes.clone();
    flipped[1000] ^= 4;
    assert!(matches!(attempt(&blob, &flipped), Err(Error::WrongDigest { .. })));
    assert!(matches!(attempt(&blob, &bytes[..9000]), Err(Error::WrongSize { found: 9000, .. })));
    let longer = [&bytes[..], b"tail"].concat();
    assert!(matches!(attempt(&blob, &longer), Err(Error::WrongSize { .. })));

    // With a digest to match: what the publisher himself got wrong.
    let of = |bytes: &[u8]| Blob { digest: Digest::of(bytes), size: bytes.len() as u64, ..blob };
    assert!(matches!(attempt(&of(&longer), &longer), Err(Error::Trailing { .. })));
    let short = &bytes[..bytes.len() - 20_000];
    assert!(matches!(attempt(&of(short), short), Err(Error::Truncated { .. })));
    assert!(matches!(attempt(&of(&flipped), &flipped), Err(Error::Damaged { .. })));
    let other = Blob { diff_id: Some(Digest::of(b"other")), ..blob };
    assert!(matches!(attempt(&other, &bytes), Err(Error::WrongDiffId { .. })));
    let cut = &tar[..tar.len() - 20_000];
    assert!(matches!(attempt(&plain(cut), cut), Err(Error::Truncated { .. })));
    // Without what carries nothing, but not without a byte of a file.
    let bare = Tar::default().file("first", &noise).file("last", b"60\n").0;
    let bare = &bare[..bare.len() - BLOCK + 3];
    attempt(&plain(bare), bare).unwrap();
    assert_eq!(std::fs::read(dir.path().join("last")).unwrap(), b"60\n");
    let cut = &bare[..bare.len() - 1];
    assert!(matches!(attempt(&plain(cut), cut), Err(Error::Truncated { .. })));
    let after = [&tar[..], &[0; 5000], b"junk"].concat();
    assert!(matches!(attempt(&plain(&after), &after), Err(Error::Trailing { .. })));
}

#[test]
fn many_members_and_missing_ends_are_accepted() {
    let tar = Tar::default().file("a", b"first").file("b", b"second").end();
    let dir = tempfile::tempdir().unwrap();
    let parts = [gzip_of(&tar[..100]).1, gzip_of(&tar[100..]).1].concat();
    let digest = Digest::of(&parts);
    let blob = Blob {
        digest,
        size: parts.len() as u64,
        compression: Compression::Gzip,
        diff_id: Some(Digest::of(&tar)),
    };
    let limits = Limits::of_blob(blob.size);
    unpack(&blob, &mut parts.as_slice(), dir.path(), Owners::InTree, &limits).unwrap();
    assert_eq!(fs::read(dir.path().join("b")).unwrap(), b"second");
    let (diff_id, size) = check(&blob, &mut parts.as_slice(), &limits).unwrap();
    assert_eq!((diff_id, size), (Digest::of(&tar), tar.len() as u64));
    let endless = &tar[..tar.len() - 2 * BLOCK];
    let other = tempfile::tempdir().unwrap();
    unpacked_into(endless, other.path()).unwrap();
}
