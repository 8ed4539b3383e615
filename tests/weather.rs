//! Two hundred pushes and two hundred pulls in bad weather: each ends with the right digest or an
//! error, and what it leaves behind is whole. The real registry stands behind a proxy that makes the
//! weather; a seed that fails here fails again when it is the only one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use ocibuild::http::{Client, Config};
use ocibuild::oci::Document;
use ocibuild::registry::{Keychain, Registries, Repository};
use ocibuild::report::Silent;
use ocibuild::store::Store;
use ocibuild::transfer::{Options, Source, copy};

use crate::support::memory::Memory;
use crate::support::registry::Registry;
use crate::support::temp_dir;
use crate::support::weather::{Event, Weather};

const RUNS: u64 = 200;

fn open(host: &str, name: &str) -> Repository {
    let config = Config {
        backoff: Duration::from_millis(1),
        tries: 4,
        idle_timeout: Duration::from_secs(5),
        answer_timeout: Duration::from_secs(10),
        ..Config::default()
    };
    let registries = Registries::new(Client::new(config), Keychain::new(&BTreeMap::new()));
    registries.open(&format!("{host}/{name}:latest").parse().unwrap())
}

fn image(memory: &Memory, seed: u64) -> Document {
    memory.add_index(&[300_000, 70_000, 1_000], seed)
}

/// Asserts that a registry's tag is this image, and that all of it is there.
fn assert_whole(repository: &Repository, name: &str, image: &Document) {
    let there = Memory::default();
    let tag = name.parse().unwrap();
    let found = repository.document(&repository.resolve(&tag).unwrap()).unwrap();
    assert_eq!(found.digest(), image.digest());
    copy(repository, &there, &found, &[], &Options::default(), &Silent).unwrap();
    // Two platforms, each with three layers and a config.
    assert_eq!(there.blobs().len(), 8);
}

/// Runs every seed, some at a time, and has the weather tell that all of it came.
fn each_seed(run: impl Fn(u64) -> (bool, Vec<Event>) + Sync) {
    let (next, done) = (AtomicU64::new(1), AtomicU64::new(0));
    let all = Mutex::new(BTreeSet::new());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed > RUNS {
                        return;
                    }
                    let (right, happened) = run(seed);
                    done.fetch_add(u64::from(right), Ordering::SeqCst);
                    all.lock().unwrap().extend(happened);
                }
            });
        }
    });
    let (done, all) = (done.into_inner(), all.into_inner().unwrap());
    eprintln!("{done} of {RUNS} came through; the weather had {all:?}");
    // Neither weather that nothing comes through nor none at all.
    assert!(done >= RUNS / 2, "{done} of {RUNS}");
    assert!(all.len() >= 9, "{all:?}");
}

#[test]
fn pushes_in_bad_weather_move_a_tag_to_the_whole_image_or_not_at_all() {
    let registry = Registry::plain();
    let memory = Memory::default();
    let before = image(&memory, 10_000);
    let tags = ["latest".to_owned()];
    each_seed(|seed| {
        // Behind some of them is a proxy besides that takes no more than a small piece of a blob.
        let limit = if seed % 4 == 0 { 280_000 } else { u64::MAX };
        let weather = Weather::over_with_limit(&registry.host(), seed, limit);
        let name = format!("push/{seed}");
        let direct = open(&registry.host(), &name);
        let tag = format!("{}:latest", registry.image(&name));
        copy(&memory, &direct, &before, &tags, &Options::default(), &Silent).unwrap();

        let after = image(&memory, seed);
        let stormy = open(&weather.host(), &name);
        let result = copy(&memory, &stormy, &after, &tags, &Options::default(), &Silent);
        let happened = weather.happened();
        assert!(limit == u64::MAX || result.is_err() || happened.contains(&Event::TooLarge));
        if let Err(error) = &result {
            assert!(!error.to_string().is_empty());
            // The answer to the last request may be what was lost.
            let now = direct.resolve(&tag.parse().unwrap()).unwrap();
            let whole = if now.digest == before.digest() { &before } else { &after };
            assert_whole(&direct, &tag, whole);
        } else {
            assert_whole(&direct, &tag, &after);
        }
        weather.clear_up();
        let again = copy(&memory, &stormy, &after, &tags, &Options::default(), &Silent).unwrap();
        assert!(result.is_err() || again.written == 0, "seed {seed}: {again:?}");
        assert_whole(&direct, &tag, &after);
        (result.is_ok(), happened)
    });
}

#[test]
fn pulls_in_bad_weather_give_the_image_or_an_error_and_never_a_bad_store() {
    let registry = Registry::plain();
    let memory = Memory::default();
    let image = image(&memory, 20_000);
    let tags = ["latest".to_owned()];
    copy(&memory, &open(&registry.host(), "pull"), &image, &tags, &Options::default(), &Silent)
        .unwrap();
    each_seed(|seed| {
        let weather = Weather::over(&registry.host(), seed);
        let stormy = open(&weather.host(), "pull");
        let name = format!("{}/pull:latest", weather.host());
        let dir = temp_dir();
        let store = Store::open(dir.path()).unwrap();
        let pull = || {
            let document = stormy.document(&stormy.resolve(&name.parse().unwrap())?)?;
            let names = [name.clone()];
            copy(&stormy, &store, &document, &names, &Options::default(), &Silent)?;
            Ok::<_, ocibuild::transfer::Error>(document)
        };
        let result = pull();
        let happened = weather.happened();
        assert_eq!(store.verify(1, &Silent).unwrap(), [], "seed {seed}");
        let named = store.resolve(&name.parse().unwrap()).unwrap();
        assert_eq!(named.is_some(), result.is_ok(), "seed {seed}: a name is for what is whole");
        if let Ok(document) = &result {
            assert_eq!(document.digest(), image.digest());
        }
        weather.clear_up();
        assert_eq!(pull().unwrap().digest(), image.digest(), "seed {seed}");
        assert_eq!(store.verify(1, &Silent).unwrap(), []);
        (result.is_ok(), happened)
    });
}
