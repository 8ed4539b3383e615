//! What stays, what goes, and what `verify` finds.

use super::*;
use crate::oci::{ConfigDocument, Index, Manifest, Platform, Reference};
use crate::report::Silent;
use crate::store::Unpacking;

struct Image {
    layer: Descriptor,
    index: Descriptor,
}

fn image(store: &Store, seed: &str, annotations: BTreeMap<String, String>) -> Image {
    let put = |media_type: &str, bytes: &[u8]| {
        let (digest, size) = store.put_bytes(bytes).unwrap();
        Descriptor::new(media_type, digest, size)
    };
    let platform = Platform::linux("amd64");
    let mut config = ConfigDocument::empty(&platform);
    config.set_label("seed", seed);
    let config = put(media_type::CONFIG, &config.encode().unwrap());
    let layer = put(media_type::LAYER, format!("layer of {seed}").as_bytes());
    let manifest =
        Document::of_manifest(&Manifest::new(config, vec![layer.clone()], annotations)).unwrap();
    store.put_document(&manifest).unwrap();
    let mut entry = manifest.descriptor();
    entry.platform = Some(platform);
    let index = Document::of_index(&Index::new(vec![entry], BTreeMap::new())).unwrap();
    store.put_document(&index).unwrap();
    Image { layer, index: index.descriptor() }
}

fn blobs(store: &Store) -> usize {
    disk::list(&store.path("blobs/sha256")).unwrap().len()
}

#[test]
fn what_names_reach_stays_with_its_base() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let base = image(&store, "base", BTreeMap::new());
    let annotations = BTreeMap::from([(BASE_DIGEST.to_owned(), base.index.digest.to_string())]);
    let named = image(&store, "named", annotations);
    let loose = image(&store, "loose", BTreeMap::new());
    let name: Reference = "a.example/b:c".parse().unwrap();
    store.tag(&name, &named.index).unwrap();
    store.add_origins(&[loose.layer.digest, base.layer.digest], &name).unwrap();
    let dry = store.gc(&GcOptions { dry_run: true, ..GcOptions::default() }, &Silent).unwrap();
    assert_eq!((dry.blobs, blobs(&store)), (4, 12));
    let freed = store.gc(&GcOptions::default(), &Silent).unwrap();
    assert_eq!(freed, dry);
    assert!(store.is_complete(&named.index).unwrap() && store.is_complete(&base.index).unwrap());
    assert!(!store.has(&loose.layer.digest));
    assert!(store.origins(&loose.layer.digest).unwrap().is_empty());
    store.untag(&name).unwrap();
    store.gc(&GcOptions::default(), &Silent).unwrap();
    assert_eq!(blobs(&store), 0);
}

#[test]
fn the_last_used_stays_within_the_budget() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let mut keys = Vec::new();
    for seed in ["one", "two", "three"] {
        let diff_id = Digest::of(seed.as_bytes());
        let (digest, size) = store.put_bytes(&seed.as_bytes().repeat(1000)).unwrap();
        let blob = Descriptor::new(media_type::LAYER, digest, size);
        store.remember_blob(&diff_id, "gzip-1", &blob).unwrap();
        let key = Digest::of(format!("key {seed}").as_bytes());
        let layer =
            CachedLayer { diff_id: Some(diff_id), recipe: seed.to_owned(), rest: BTreeMap::new() };
        store.remember(&key, &layer).unwrap();
        keys.push((key, diff_id));
    }
    let set_time = |path: &Path, seconds: i64| {
        let time = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: 0 };
        let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::empty()).unwrap();
    };
    for (position, (key, _)) in keys.iter().enumerate() {
        let seconds = i64::try_from(position).unwrap() + 1000;
        set_time(&store.path("cache").join(format!("{}.json", key.hex())), seconds);
    }
    // Meeting a layer again makes it the last used.
    store.cached(&keys[0].0).unwrap().unwrap();
    let options = GcOptions { keep_bytes: Some(8000), ..GcOptions::default() };
    let freed = store.gc(&options, &Silent).unwrap();
    assert_eq!((freed.keys, freed.blobs, freed.kept_bytes), (1, 1, 8000));
    let there: Vec<bool> =
        keys.iter().map(|(_, id)| store.blob_for(id, "gzip-1").unwrap().is_some()).collect();
    assert_eq!(there, [true, false, true]);
    let options = GcOptions { max_age: Some(Duration::from_hours(24)), ..GcOptions::default() };
    store.gc(&options, &Silent).unwrap();
    let there: Vec<bool> =
        keys.iter().map(|(key, _)| store.cached(key).unwrap().is_some()).collect();
    assert_eq!(there, [true, false, false]);
}

#[test]
fn what_steps_fetched_stays_with_its_image_and_else_within_the_budget() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    fs::create_dir_all(store.path("fetches")).unwrap();
    let layer = |seed: &str, blob: &Descriptor| {
        let diff_id = Digest::of(seed.as_bytes());
        store.remember_blob(&diff_id, "gzip-1", blob).unwrap();
        let key = Digest::of(format!("key {seed}").as_bytes());
        let layer =
            CachedLayer { diff_id: Some(diff_id), recipe: seed.to_owned(), rest: BTreeMap::new() };
        store.remember(&key, &layer).unwrap();
        let (own, size) = store.put_bytes(format!("fetched for {seed}").as_bytes()).unwrap();
        let (shared, shared_size) = store.put_bytes(b"fetched by all").unwrap();
        let record = format!(
            r#"[{{"url":"u","digest":"{own}","size":{size}}},{{"digest":"{shared}","size":{shared_size}}}]"#
        );
        fs::write(store.path("fetches").join(format!("{}.json", key.hex())), record).unwrap();
        own
    };
    let named = image(&store, "named", BTreeMap::new());
    store.tag(&"a.example/b:c".parse().unwrap(), &named.index).unwrap();
    let of_named = layer("named", &named.layer);
    let loose = image(&store, "loose", BTreeMap::new());
    let of_loose = layer("loose", &loose.layer);
    let freed = store.gc(&GcOptions::default(), &Silent).unwrap();
    assert_eq!((freed.inputs, freed.inputs_bytes), (3, 17 + 17 + 14));
    let zero = GcOptions { keep_bytes: Some(0), ..GcOptions::default() };
    let freed = store.gc(&zero, &Silent).unwrap();
    assert_eq!((freed.inputs, freed.inputs_bytes), (2, 17 + 14));
    assert!(store.has(&of_named) && !store.has(&of_loose));
    assert_eq!(disk::list(&store.path("fetches")).unwrap().len(), 1);
    let none = GcOptions { no_inputs: true, ..zero };
    assert_eq!(store.gc(&none, &Silent).unwrap().inputs, 0);
    assert!(!store.has(&of_named) && store.is_complete(&named.index).unwrap());
}

#[test]
fn trees_go_by_the_same_budget_and_leftovers_always() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let diff_id = Digest::of(b"tree");
    let Unpacking::Slot(slot) = store.unpack_slot("root", &diff_id).unwrap() else { panic!() };
    fs::create_dir(slot.path().join("tree")).unwrap();
    fs::write(slot.path().join("tree/file"), [1; 5000]).unwrap();
    slot.commit().unwrap();
    let leftover = store.path("unpacked/root/.new-1");
    fs::create_dir_all(&leftover).unwrap();
    let freed = store.gc(&GcOptions::default(), &Silent).unwrap();
    assert_eq!((freed.trees, freed.leftovers), (0, 1));
    assert!(freed.kept_bytes >= 5000 && !leftover.exists());
    let freed =
        store.gc(&GcOptions { keep_bytes: Some(0), ..GcOptions::default() }, &Silent).unwrap();
    assert_eq!(freed.trees, 1);
    assert_eq!(store.unpacked("root", &diff_id).unwrap(), None);
}

#[test]
fn a_store_that_another_has_open_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let other = Store::open(dir.path()).unwrap();
    assert!(matches!(store.gc(&GcOptions::default(), &Silent), Err(Error::Busy { .. })));
    drop(other);
    store.gc(&GcOptions::default(), &Silent).unwrap();
    // And shares the store again afterwards.
    let other = Store::open(dir.path()).unwrap();
    assert!(matches!(other.gc(&GcOptions::default(), &Silent), Err(Error::Busy { .. })));
}

#[test]
fn verify_finds_each_kind_of_damage() {
    use crate::store::Problem;
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let good = image(&store, "good", BTreeMap::new());
    store.tag(&"a/good".parse().unwrap(), &good.index).unwrap();
    assert_eq!(store.verify(2, &Silent).unwrap(), []);
    let bad = image(&store, "bad", BTreeMap::new());
    store.tag(&"a/bad".parse().unwrap(), &bad.index).unwrap();
    fs::write(store.blob_path(&bad.layer.digest), b"LAYER of bad").unwrap();
    fs::write(store.path("blobs/sha256/notes"), b"").unwrap();
    let gone = image(&store, "gone", BTreeMap::new());
    store.tag(&"a/gone".parse().unwrap(), &gone.index).unwrap();
    store.discard(&gone.layer.digest).unwrap();
    let problems = store.verify(2, &Silent).unwrap();
    assert!(
        matches!(problems[..], [
        Problem::Corrupt { digest, .. }, Problem::Unfit { digest: missing, .. }, Problem::Foreign { .. }
    ] if digest == bad.layer.digest && missing == gone.layer.digest),
        "{problems:?}"
    );
    store.add_origins(&[gone.layer.digest], &"quay.io/a/b".parse().unwrap()).unwrap();
    assert_eq!(store.verify(1, &Silent).unwrap().len(), 2);
}
