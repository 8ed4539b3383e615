//! Blobs on their way up: while they are made, over a wire that breaks or hangs, gone on with where
//! the registry kept a part, and in pieces.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ocibuild::http::{Client, Config};
use ocibuild::oci::{Descriptor, Digest, media_type};
use ocibuild::registry::{Keychain, Registries, Repository};
use ocibuild::report::{Silent, Task, Unit};
use ocibuild::store::Store;
use ocibuild::transfer::{Body, Error, Options, Placed, Sink, Stream, copy_blobs};

use crate::double::{Double, Reply, Request};
use crate::support::cli::{Project, Who, names, wait_for};
use crate::support::cutter::{Cutter, Then};
use crate::support::nginx::Nginx;
use crate::support::registry::Registry;
use crate::support::{free_port, image, noise, run, temp_dir};

fn open(name: &str) -> Repository {
    let config = Config { backoff: Duration::from_millis(5), ..Config::default() };
    let registries = Registries::new(Client::new(config), Keychain::new(&BTreeMap::new()));
    registries.open(&name.parse().unwrap())
}

/// The bytes that lie in the registry's uploads that have not ended.
fn under_way(registry: &Registry) -> u64 {
    fn all(folder: &Path, found: &mut Vec<PathBuf>) {
        for name in names(folder) {
            let path = folder.join(name);
            if path.is_dir() {
                all(&path, found);
            } else {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    all(&registry.storage(), &mut found);
    let of_uploads = |path: &&PathBuf| path.to_string_lossy().contains("/_uploads/");
    let data = found.iter().filter(of_uploads).filter(|path| path.ends_with("data"));
    data.filter_map(|path| path.metadata().ok()).map(|metadata| metadata.len()).sum()
}

#[test]
fn a_blob_goes_up_before_its_end_is_known() {
    let registry = Registry::plain();
    let repository = open(&registry.image("growing:1"));
    let dir = temp_dir();
    let store = Store::open(dir.path()).unwrap();
    let bytes = noise(24 << 20, 3);
    let mut writer = store.raw_writer().unwrap();
    let growing = writer.share().unwrap();
    let (digest, size) = (Digest::of(&bytes), bytes.len() as u64);
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let task = Task::start(&Silent, String::new(), None, Unit::Bytes);
            repository.put_growing(growing.open(), || growing.digest(), &task)
        });
        let (half, rest) = bytes.split_at(16 << 20);
        writer.write_all(half).unwrap();
        wait_for("the registry to have most of the first part", || under_way(&registry) > 8 << 20);
        writer.write_all(rest).unwrap();
        writer.commit_hashed(digest, size).unwrap();
        assert_eq!(sending.join().unwrap().unwrap(), Some(digest));
    });
    let blob = Descriptor::new(media_type::LAYER_GZIP, digest, size);
    assert!(repository.has_blob(&blob).unwrap());
    assert_eq!(under_way(&registry), 0);
}

#[test]
fn a_blob_that_is_given_up_leaves_nothing_in_the_registry() {
    let registry = Registry::plain();
    let repository = open(&registry.image("growing:1"));
    let dir = temp_dir();
    let store = Store::open(dir.path()).unwrap();
    let mut writer = store.raw_writer().unwrap();
    let growing = writer.share().unwrap();
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let task = Task::start(&Silent, String::new(), None, Unit::Bytes);
            repository.put_growing(growing.open(), || growing.digest(), &task)
        });
        writer.write_all(&noise(16 << 20, 4)).unwrap();
        wait_for("the upload to begin", || under_way(&registry) > 1 << 20);
        drop(writer);
        assert!(!matches!(sending.join().unwrap(), Ok(Some(_))));
    });
    let blobs = registry.storage().join("docker/registry/v2/blobs/sha256");
    assert_eq!(names(&blobs), Vec::<String>::new());
}

/// A project whose image `big` has one layer of 60 MB that does not shrink, at `host`.
fn big(host: &str, compression: &str) -> Project {
    let project = Project::with_tiny_base(Who::Root);
    project.script("big", "head -c 60000000 /dev/urandom > /big");
    project.write(
        "manifests/big.toml",
        format!(
            "image = \"{host}/big\"\nbase = \"localhost/tiny:1\"\nplatforms = [\"linux/amd64\"]\n\
             layers = [\"big\"]\ncompression = \"{compression}\"\n"
        ),
    );
    project
}

#[test]
fn an_upload_that_breaks_is_done_again_from_the_store() {
    for compression in ["gzip", "zstd"] {
        let registry = Registry::plain();
        let wire = Cutter::to(&registry.host(), "PATCH", 20_000_000, Then::Cut);
        let project = big(&wire.host(), compression);
        let ran = project.run(&["build", "big", "--push", "-v"]);
        let said = ran.stderr();
        let built = ran.ok();
        assert!(wire.happened());
        assert!(said.contains("big could not be sent to"), "{said}");
        assert_eq!(image::check(&registry.host(), "big", "latest").0, built);
    }
}

#[test]
fn an_interrupt_of_an_upload_ends_at_once_and_leaves_no_tag() {
    let registry = Registry::plain();
    let wire = Cutter::to(&registry.host(), "PATCH", 10_000_000, Then::Hang);
    let project = big(&wire.host(), "gzip");
    let blobs = names(&project.store().join("blobs/sha256"));
    let child = project
        .command(&["build", "big", "--push"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for("the upload to hang", || wire.happened());
    let start = Instant::now();
    run(Command::new("kill").args(["-INT", &child.id().to_string()]));
    let output = child.wait_with_output().unwrap();
    assert!(start.elapsed() < Duration::from_secs(5));
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(project.running(), Vec::<String>::new());
    project.run(&["show", "--remote", &registry.image("big")]).fails(1);
    // Whole blobs may have come; a part of one has not.
    for name in names(&project.store().join("blobs/sha256")) {
        let bytes = std::fs::read(project.store().join("blobs/sha256").join(&name)).unwrap();
        assert!(blobs.contains(&name) || image::digest(&bytes) == format!("sha256:{name}"));
    }
}

fn put(repository: &Repository, bytes: &[u8]) -> Result<Placed, Error> {
    let task = Task::start(&Silent, String::new(), None, Unit::Bytes);
    let open = |offset: u64| -> Result<Stream<'_>, Error> {
        Ok(Box::new(&bytes[usize::try_from(offset).unwrap()..]))
    };
    let blob = Descriptor::of(media_type::LAYER_GZIP, bytes);
    repository.put_blob(&blob, &Body::new(&open, &[]), &task)
}

/// A double that keeps what the uploads bring, and takes it as a blob when it is named. `before` may
/// answer in its place.
fn keeper(
    before: impl Fn(&Request, &mut Vec<u8>) -> Option<Reply> + Send + Sync + 'static,
) -> (Double, Arc<Mutex<Vec<u8>>>) {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let shared = Arc::clone(&kept);
    let double = Double::start(move |request, _| {
        let mut kept = shared.lock().unwrap();
        if let Some(reply) = before(request, &mut kept) {
            return reply;
        }
        match request.method.as_str() {
            "POST" => {
                kept.clear();
                Reply::new(202)
                    .with("Location", "/up/1?s=0")
                    .with("OCI-Chunk-Min-Length", "5242880")
            }
            "PATCH" | "PUT" => {
                if let Some(range) = request.header("content-range") {
                    let (from, to) = range.split_once('-').unwrap();
                    assert_eq!(from.parse::<usize>().unwrap(), kept.len());
                    assert_eq!(to.parse::<usize>().unwrap() + 1, kept.len() + request.body.len());
                }
                kept.extend_from_slice(&request.body);
                let location = format!("/up/1?s={}", kept.len());
                let digest = Digest::of(&kept).to_string().replace(':', "%3A");
                match request.method.as_str() {
                    "PATCH" => Reply::new(202).with("Location", &location),
                    _ if request.target.ends_with(&digest) => Reply::new(201),
                    _ => Reply::new(400),
                }
            }
            _ => Reply::new(200),
        }
    });
    (double, kept)
}

/// What a registry says of an upload that it has kept so much of.
fn so_far(kept: &[u8]) -> Reply {
    let reply = Reply::new(204).with("Range", &format!("0-{}", kept.len() - 1));
    reply.with("Location", &format!("/up/1?s={}", kept.len()))
}

#[test]
fn what_the_registry_kept_of_a_broken_upload_is_not_sent_again() {
    let bytes = noise(3_000_000, 5);
    let (double, kept) = keeper(|request, kept| match request.method.as_str() {
        "PUT" if kept.is_empty() => {
            kept.extend_from_slice(&request.body[..1_000_000]);
            Some(Reply::new(502))
        }
        // Once more, in the middle of what is left.
        "PATCH" if kept.len() == 1_000_000 => {
            kept.extend_from_slice(&request.body[..500_000]);
            Some(Reply::new(503))
        }
        "GET" if request.target.starts_with("/up/1") => Some(so_far(kept)),
        _ => None,
    });
    assert_eq!(put(&open(&format!("{}/a/b:1", double.host())), &bytes).unwrap(), Placed::Written);
    assert!(*kept.lock().unwrap() == bytes);
    assert_eq!(double.count("POST /v2/a/b/blobs/uploads/"), 1);
    let seen = double.seen();
    let patches: Vec<&Request> = seen.iter().filter(|one| one.method == "PATCH").collect();
    let ranges: Vec<_> = patches.iter().map(|one| one.header("content-range").unwrap()).collect();
    assert_eq!(ranges, ["1000000-2999999", "1500000-2999999"]);
    assert!(patches[1].target.contains("s=1500000"), "{}", patches[1].target);
}

#[test]
fn a_copy_reads_again_only_what_the_destination_has_not() {
    let bytes = noise(30_000_000, 13);
    let from = Registry::plain();
    put(&open(&from.image("from:1")), &bytes).unwrap();
    let port = free_port();
    let front = Nginx::start(
        port,
        &format!(
            "log_format ranges '$status $request_method $http_range $body_bytes_sent';\n\
             access_log LOGS/log ranges;\nserver {{ listen 127.0.0.1:{port};\n\
             location / {{ proxy_set_header Host $http_host; proxy_pass http://{}; }} }}",
            from.host()
        ),
    );
    let (double, kept) = keeper(|request, kept| match request.method.as_str() {
        "PUT" if kept.is_empty() => {
            kept.extend_from_slice(&request.body[..20_000_000]);
            Some(Reply::new(502))
        }
        "HEAD" => Some(Reply::new(404)),
        "GET" if request.target.starts_with("/up/1") => Some(so_far(kept)),
        _ => None,
    });
    let blob = Descriptor::of(media_type::LAYER_GZIP, &bytes);
    let (source, sink) =
        (open(&format!("{}/from:1", front.host())), open(&format!("{}/to:1", double.host())));
    let (options, stop) = (Options::default(), AtomicBool::new(false));
    let summary = copy_blobs(&source, &sink, vec![blob], &options, &stop, &Silent).unwrap();
    assert_eq!((summary.written, summary.bytes), (1, 30_000_000));
    assert!(*kept.lock().unwrap() == bytes);
    let log = front.read("log");
    let starts: Vec<u64> = log
        .lines()
        .filter_map(|line| line.strip_prefix("206 GET bytes="))
        .map(|line| line.split_once('-').unwrap().0.parse().unwrap())
        .collect();
    // Not quite where it broke: where the digest of what came before was known.
    assert!(matches!(starts[..], [15_000_000..=20_000_000]), "{log}");
}

#[test]
fn a_registry_that_forgot_what_it_kept_gets_it_all_again() {
    let bytes = noise(1_000_000, 6);
    let asked = Mutex::new(0);
    let (double, kept) = keeper(move |request, _| {
        let mut asked = asked.lock().unwrap();
        match request.method.as_str() {
            "PUT" if *asked == 0 => Some(Reply::new(503)),
            "GET" if request.target.starts_with("/up/1") => {
                *asked += 1;
                let claim = Reply::new(204).with("Range", "0-499999");
                Some(if *asked == 1 { claim } else { Reply::new(404) })
            }
            "PATCH" => Some(Reply::new(416)),
            _ => None,
        }
    });
    assert_eq!(put(&open(&format!("{}/a/b:1", double.host())), &bytes).unwrap(), Placed::Written);
    assert!(*kept.lock().unwrap() == bytes);
    assert_eq!(double.count("POST /v2/a/b/blobs/uploads/"), 2);
}

#[test]
fn what_is_too_large_for_one_request_goes_in_pieces() {
    const LIMIT: usize = 6 << 20;
    let (double, kept) = keeper(|request, _| {
        (request.body.len() > LIMIT).then(|| Reply::new(413).body("<html>too large</html>"))
    });
    let repository = open(&format!("{}/a/b:1", double.host()));
    for (seed, wholes) in [(7, 1), (8, 0)] {
        let bytes = noise(12_000_000, seed);
        let before = double.seen().len();
        assert_eq!(put(&repository, &bytes).unwrap(), Placed::Written);
        assert!(*kept.lock().unwrap() == bytes);
        let seen = double.seen().split_off(before);
        let sizes = |method: &str, large: bool| -> Vec<usize> {
            let sizes = seen.iter().filter(|one| one.method == method).map(|one| one.body.len());
            sizes.filter(|size| *size > 0 && (*size > LIMIT) == large).collect()
        };
        assert_eq!(sizes("PUT", true).len(), wholes, "it is known from the first");
        assert_eq!(sizes("PATCH", true).len(), wholes, "a larger piece was tried once");
        let rest = 12_000_000 - (10 << 20);
        assert_eq!(sizes("PATCH", false), [5 << 20, 5 << 20, rest], "the least that it asked for");
    }
}

#[test]
fn a_registry_that_takes_small_pieces_only_gets_them_where_an_upload_broke() {
    // As GitHub's: a whole blob of any size, but no piece above 4 MiB.
    let bytes = noise(13_000_000, 9);
    let (double, kept) = keeper(|request, kept| match request.method.as_str() {
        "PUT" if kept.is_empty() => {
            kept.extend_from_slice(&request.body[..1_000_000]);
            Some(Reply::new(502))
        }
        "PATCH" if request.body.len() > 4 << 20 => Some(Reply::new(416)),
        "POST" => Some(Reply::new(202).with("Location", "/up/1?s=0")),
        "GET" if request.target.starts_with("/up/1") => Some(so_far(kept)),
        _ => None,
    });
    assert_eq!(put(&open(&format!("{}/a/b:1", double.host())), &bytes).unwrap(), Placed::Written);
    assert!(*kept.lock().unwrap() == bytes);
    assert_eq!(double.count("POST /v2/a/b/blobs/uploads/"), 1);
}

#[test]
fn a_piece_whose_answer_was_lost_is_not_sent_again() {
    let bytes = noise(14_000_000, 13);
    let lost = Mutex::new(0);
    let (double, kept) = keeper(move |request, kept| match request.method.as_str() {
        "PUT" if request.body.len() > 6 << 20 => Some(Reply::new(413)),
        "PATCH" => {
            let mut lost = lost.lock().unwrap();
            *lost += 1;
            (*lost == 2).then(|| {
                kept.extend_from_slice(&request.body);
                Reply::new(502)
            })
        }
        "GET" if request.target.starts_with("/up/1") && !kept.is_empty() => Some(so_far(kept)),
        _ => None,
    });
    assert_eq!(put(&open(&format!("{}/a/b:1", double.host())), &bytes).unwrap(), Placed::Written);
    assert!(*kept.lock().unwrap() == bytes);
    let seen = double.seen();
    let sent: usize =
        seen.iter().filter(|one| one.method == "PATCH").map(|one| one.body.len()).sum();
    assert_eq!(sent, bytes.len());
}

#[test]
fn an_upload_that_gets_further_each_time_may_break_often() {
    let bytes = noise(15_000_000, 10);
    let further = |most: usize| {
        let breaks = Mutex::new(0);
        keeper(move |request, kept| match request.method.as_str() {
            "PUT" | "PATCH" if request.body.len() > most => {
                *breaks.lock().unwrap() += 1;
                kept.extend_from_slice(&request.body[..most]);
                Some(Reply::new(502))
            }
            "GET" if request.target.starts_with("/up/1") => Some(so_far(kept)),
            _ => None,
        })
    };
    let (double, kept) = further(1_500_000);
    assert_eq!(put(&open(&format!("{}/a/b:1", double.host())), &bytes).unwrap(), Placed::Written);
    assert!(*kept.lock().unwrap() == bytes);
    assert_eq!(double.count("POST /v2/a/b/blobs/uploads/"), 1);
    // Getting nowhere has an end.
    let (double, _) = further(1000);
    assert!(put(&open(&format!("{}/a/b:1", double.host())), &bytes).is_err());
}

#[test]
fn a_proxy_that_takes_small_requests_only_gets_pieces_that_fit() {
    let registry = Registry::plain();
    for (limit, expected, length) in
        [("", 1 << 20, 5_000_000), ("client_max_body_size 10m;", 8 << 20, 30_000_000)]
    {
        let port = free_port();
        let front = Nginx::start(
            port,
            &format!(
                "log_format sizes '$status $request_method $content_length $request_uri';\n\
                 access_log LOGS/log sizes;\nserver {{ listen 127.0.0.1:{port}; {limit}\n\
                 location / {{ proxy_set_header Host $http_host; proxy_pass http://{}; }} }}",
                registry.host()
            ),
        );
        let name = format!("pieces{expected}:1");
        let repository = open(&format!("{}/{name}", front.host()));
        for seed in [11, 12] {
            let before = front.read("log").len();
            let bytes = noise(length, seed);
            assert_eq!(put(&repository, &bytes).unwrap(), Placed::Written);
            let blob = Descriptor::of(media_type::LAYER_GZIP, &bytes);
            let direct = open(&registry.image(&name));
            assert!(ocibuild::transfer::fetch(&direct, &blob, 64 << 20).unwrap() == bytes);
            let log = front.read("log")[before..].to_owned();
            if seed == 12 {
                assert!(!log.contains("413 "), "it is known by now: {log}");
                let largest = log.lines().filter(|line| line.starts_with("202 PATCH"));
                let largest = largest.filter_map(|line| line.split(' ').nth(2)?.parse().ok()).max();
                assert_eq!(largest, Some(expected), "{log}");
            }
        }
    }
}

#[test]
fn a_wire_that_breaks_under_a_whole_blob_does_no_harm() {
    let registry = Registry::plain();
    let wire = Cutter::to(&registry.host(), "PUT", 5_000_000, Then::Cut);
    let bytes = noise(12_000_000, 8);
    let repository = open(&format!("{}/whole:1", wire.host()));
    assert_eq!(put(&repository, &bytes).unwrap(), Placed::Written);
    assert!(wire.happened());
    let blob = Descriptor::of(media_type::LAYER_GZIP, &bytes);
    assert!(open(&registry.image("whole:1")).has_blob(&blob).unwrap());
    assert!(ocibuild::transfer::fetch(&repository, &blob, 16 << 20).unwrap() == bytes);
}
