//! Pushes that are killed, that race, and that outlive their tokens: the tag stands for one whole
//! image at any time, and what comes after sends only what is missing.

use std::collections::BTreeMap;
use std::io::Read;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use ocibuild::http::{Client, Config};
use ocibuild::oci::{Descriptor, Digest, Reference, media_type};
use ocibuild::registry::{Keychain, Registries, Repository};
use ocibuild::report::{Silent, Task, Unit};
use ocibuild::transfer::{Body, Placed, Sink, Source, Stream, fetch};

use crate::support::cli::{Project, Who, wait_for};
use crate::support::counter::Counter;
use crate::support::registry::Registry;
use crate::support::token::TokenServer;
use crate::support::{image, noise};

fn open(name: &str) -> Repository {
    let registries =
        Registries::new(Client::new(Config::default()), Keychain::new(&BTreeMap::new()));
    registries.open(&name.parse::<Reference>().unwrap())
}

/// A project with an image `localhost/NAME` of layers that do not shrink, for each name.
fn images(names: &[&str]) -> Project {
    let project = Project::with_tiny_base(Who::Root);
    for name in names {
        let layers: Vec<String> = (0..4).map(|number| format!("{name}{number}")).collect();
        for layer in &layers {
            project.script(layer, &format!("head -c 600000 /dev/urandom > /{layer}"));
        }
        project.definition(name, &layers.iter().map(String::as_str).collect::<Vec<_>>());
        project.build(name);
    }
    project
}

/// All blobs of an image of one platform in the store.
fn blobs(project: &Project, name: &str) -> Vec<Descriptor> {
    let store = ocibuild::store::Store::open(&project.store()).unwrap();
    let reference: Reference = name.parse().unwrap();
    let root = Source::document(&store, &Source::resolve(&store, &reference).unwrap()).unwrap();
    let entry = root.index().unwrap().manifests[0].clone();
    let manifest = Source::document(&store, &entry).unwrap().manifest().unwrap();
    manifest.layers.into_iter().chain([manifest.config]).collect()
}

fn start(project: &Project, arguments: &[&str]) -> Child {
    project.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn a_push_that_is_killed_anywhere_leaves_the_tag_and_is_finished_by_another() {
    let project = images(&["big"]);
    let new = blobs(&project, "localhost/big");
    let whole: u64 = new.iter().map(|blob| blob.size).sum();
    let digest = project.run(&["show", "localhost/big", "--json"]).json()["digest"].to_string();
    let digest = digest.trim_matches('"').to_owned();
    for round in 0..20 {
        let registry = Registry::plain();
        let name = registry.image("app:1");
        project.run(&["push", "localhost/tiny:1", "--to", &name]).ok();
        let old = open(&name).tagged("1").unwrap().unwrap();
        // Drawn, but the same in each run; the last ones are near or at the end.
        let point = (round * 7919 + 13) % 20 * whole / 19;
        let wire = Counter::to(&registry.host(), Duration::from_millis(5));
        let slowly = format!("{}/app:1", wire.host());
        let mut child = start(&project, &["push", "localhost/big", "--to", &slowly]);
        wait_for("the push to come so far", || {
            wire.sent() > point || child.try_wait().unwrap().is_some()
        });
        child.kill().unwrap();
        child.wait().unwrap();
        // What it sent last is still on its way, and then the registry's to finish.
        wire.drain();
        std::thread::sleep(Duration::from_millis(500));

        let repository = open(&name);
        let now = repository.tagged("1").unwrap().unwrap();
        let done = now.to_string() == digest;
        assert!(now == old || done, "round {round}: {now}");
        let (stored, _) = image::check(&registry.host(), "app", "1");
        assert_eq!(stored, now.to_string(), "round {round}: it is whole");
        let missing: u64 = new
            .iter()
            .filter(|blob| !repository.has_blob(blob).unwrap())
            .map(|blob| blob.size)
            .sum();
        let wire = Counter::to(&registry.host(), Duration::ZERO);
        let again = format!("{}/app:1", wire.host());
        let pushed = project.run(&["push", "localhost/big", "--to", &again, "--json"]).json();
        assert_eq!(pushed[0]["bytes"], missing, "round {round}: {pushed}");
        // Manifests, and the headers of some dozens of requests.
        assert!((missing..missing + 60_000).contains(&wire.sent()), "{missing} {}", wire.sent());
        assert_eq!(image::check(&registry.host(), "app", "1").0, digest, "round {round}");
    }
}

#[test]
fn of_two_pushes_of_one_tag_one_wins_whole() {
    let project = images(&["one", "two"]);
    let digest = |name: &str| {
        let shown = project.run(&["show", &format!("localhost/{name}"), "--json"]).json();
        shown["digest"].as_str().unwrap().to_owned()
    };
    let (one, two) = (digest("one"), digest("two"));
    for round in 0..6 {
        let registry = Registry::plain();
        let name = registry.image("app:1");
        let pushes = ["one", "two"]
            .map(|image| start(&project, &["push", &format!("localhost/{image}"), "--to", &name]));
        let ended = pushes.map(|child| child.wait_with_output().unwrap());
        let (stored, _) = image::check(&registry.host(), "app", "1");
        assert!(stored == one || stored == two, "round {round}: {stored}");
        assert!(ended.iter().any(|output| output.status.success()), "round {round}");
        for (output, digest) in ended.iter().zip([&one, &two]) {
            let said = String::from_utf8_lossy(&output.stderr);
            let lost = said.contains("does not stand for") && stored != *digest;
            assert!(output.status.success() || lost, "round {round}: {said}");
            // The other one is there as well, by its digest.
            open(&name)
                .document(&Descriptor::new(media_type::INDEX, digest.parse().unwrap(), 0))
                .unwrap();
        }
    }
}

/// Gives bytes so slowly that the last one comes after `long`.
struct Slow<'a> {
    bytes: &'a [u8],
    began: Instant,
    long: Duration,
    size: usize,
}

impl<'a> Slow<'a> {
    fn of(bytes: &'a [u8], long: Duration) -> Slow<'a> {
        Slow { bytes, began: Instant::now(), long, size: bytes.len() }
    }
}

impl Read for Slow<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = buffer.len().min(64 << 10);
        let count = self.bytes.read(&mut buffer[..most])?;
        let given = u32::try_from(self.size - self.bytes.len()).unwrap();
        let due = self.long * given / u32::try_from(self.size).unwrap();
        std::thread::sleep(due.saturating_sub(self.began.elapsed()));
        Ok(count)
    }
}

#[test]
fn a_token_that_ends_within_an_upload_is_replaced_where_that_goes_on() {
    // One that says how long its tokens live, and one that lies.
    for says in [Some(2), Some(3600)] {
        let server = TokenServer::start(2, says, "me", "secret");
        let registry = server.registry(None);
        let keychain = Keychain::new(&BTreeMap::new()).with_login(&registry.host(), "me", "secret");
        let registries = Registries::new(Client::new(Config::default()), keychain);
        let repository = registries.open(&registry.image("a/b:1").parse().unwrap());
        let task = || Task::start(&Silent, String::new(), None, Unit::Bytes);
        let long = Duration::from_secs(5);

        // All at once: the registry looked at the token when it began.
        let bytes = noise(3_000_000, 80);
        let blob = Descriptor::of(media_type::LAYER_GZIP, &bytes);
        let open = |_| -> Result<Stream<'_>, ocibuild::transfer::Error> {
            Ok(Box::new(Slow::of(&bytes, long)))
        };
        let placed = repository.put_blob(&blob, &Body::new(&open, &[]), &task()).unwrap();
        assert_eq!(placed, Placed::Written);
        assert!(fetch(&repository, &blob, 4 << 20).unwrap() == bytes);

        // While it is made: the request that names it comes after the token's end.
        let bytes = noise(3_000_000, 81);
        let digest = Digest::of(&bytes);
        let slow = Slow::of(&bytes, long);
        assert_eq!(repository.put_growing(slow, || Some(digest), &task()).unwrap(), Some(digest));
        let blob = Descriptor::new(media_type::LAYER_GZIP, digest, bytes.len() as u64);
        assert!(fetch(&repository, &blob, 4 << 20).unwrap() == bytes);
        let posts = registry.log().lines().filter(|line| line.contains("\"POST ")).count();
        assert!(posts <= 4, "no upload was begun again but after a 401: {}", registry.log());
    }
}
