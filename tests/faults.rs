//! What registries do only on bad days, done by a double on purpose.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use ocibuild::fault::Fault;
use ocibuild::http::{Client, Config};
use ocibuild::oci::{Descriptor, Document, Platform, Reference, media_type};
use ocibuild::registry::{Keychain, Registries};
use ocibuild::report::{Silent, Task, Unit};
use ocibuild::transfer::{Body, Error, Options, Placed, Sink, Source, copy, fetch};

use crate::double::{Double, Reply};
use crate::support::memory::Memory;
use crate::support::noise;

pub(crate) fn open(double: &Double) -> ocibuild::registry::Repository {
    open_as(double, Keychain::new(&BTreeMap::new()))
}

pub(crate) fn open_as(double: &Double, keychain: Keychain) -> ocibuild::registry::Repository {
    let config = Config {
        backoff: Duration::from_millis(5),
        tries: 3,
        idle_timeout: Duration::from_millis(500),
        answer_timeout: Duration::from_millis(1500),
        ..Config::default()
    };
    let registries = Registries::new(Client::new(config), keychain);
    registries.open(&format!("{}/a/b:tag", double.host()).parse().unwrap())
}

pub(crate) fn login(double: &Double) -> Keychain {
    Keychain::new(&BTreeMap::new()).with_login(&double.host(), "me", "secret")
}

fn layer(bytes: &[u8]) -> Descriptor {
    Descriptor::of(media_type::LAYER_GZIP, bytes)
}

/// A double that gives one blob by `reply` and nothing else.
fn blob_server(
    reply: impl Fn(&crate::double::Request, usize) -> Reply + Send + Sync + 'static,
) -> Double {
    let gets = Mutex::new(0);
    Double::start(move |request, _| {
        if !request.target.contains("/blobs/") {
            return Reply::new(200);
        }
        let mut gets = gets.lock().unwrap();
        *gets += 1;
        reply(request, *gets)
    })
}

#[test]
fn a_blob_that_is_cut_goes_on_where_it_broke() {
    let bytes = noise(3_000_000, 1);
    let content = bytes.clone();
    let double = blob_server(move |request, number| {
        if number == 1 {
            Reply::new(200).body(content.clone()).cut(1_000_000)
        } else {
            let range = request.header("range").unwrap();
            let from = range.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap();
            let rest = &content[from.parse::<usize>().unwrap()..];
            let range = format!("bytes {from}-{}/{}", content.len() - 1, content.len());
            let reply = Reply::new(206).with("Content-Range", &range).body(rest);
            if number == 2 { reply.cut(1_500_000) } else { reply }
        }
    });
    assert!(fetch(&open(&double), &layer(&bytes), 4 << 20).unwrap() == bytes);
    assert_eq!(double.count("GET /v2/a/b/blobs/"), 3);
}

#[test]
fn a_blob_that_stands_still_goes_on_in_another_connection() {
    let bytes = noise(1_000_000, 13);
    let content = bytes.clone();
    let double = blob_server(move |_, number| {
        let reply = Reply::new(200).body(content.clone());
        if number == 1 { reply.stall(400_000) } else { reply }
    });
    assert!(fetch(&open(&double), &layer(&bytes), 4 << 20).unwrap() == bytes);
    assert_eq!(double.count("GET /v2/a/b/blobs/"), 2);
}

#[test]
fn a_registry_that_does_not_answer_is_given_up() {
    let double = blob_server(|_, _| Reply::new(200).silent());
    let error = fetch(&open(&double), &layer(b"x"), 1 << 20).unwrap_err();
    assert!(error.to_string().contains("did not answer"), "{error}");
    assert_eq!(double.count("GET /v2/a/b/blobs/"), 3, "as often as it is tried");
}

#[test]
fn a_registry_that_ignores_ranges_sends_all_again() {
    let bytes = noise(2_000_000, 2);
    let content = bytes.clone();
    let double = blob_server(move |request, number| {
        let reply = Reply::new(200).body(content.clone());
        match (number, request.header("range")) {
            (1, _) => reply.cut(700_000),
            // The answer to a range beyond what it has, with a length that is not true.
            (2, Some(_)) => Reply::new(416).with("Content-Length", "2000000").body("no"),
            _ => reply,
        }
    });
    assert!(fetch(&open(&double), &layer(&bytes), 4 << 20).unwrap() == bytes);
}

#[test]
fn a_blob_that_never_comes_whole_is_an_error_in_the_end() {
    let bytes = noise(100_000, 3);
    let content = bytes.clone();
    let double = blob_server(move |_, _| Reply::new(200).body(content.clone()).cut(5000));
    let error = fetch(&open(&double), &layer(&bytes), 4 << 20).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error:?}");
    assert!(double.count("GET /v2/a/b/blobs/") < 10);
}

#[test]
fn wrong_and_oversize_blobs_are_refused() {
    let bytes = noise(50_000, 4);
    let serve = |reply: Reply| {
        let double = blob_server(move |_, _| reply.clone());
        fetch(&open(&double), &layer(&bytes), 4 << 20).unwrap_err()
    };
    let mut wrong = bytes.clone();
    wrong[49_999] ^= 1;
    assert!(matches!(serve(Reply::new(200).body(wrong.clone())), Error::WrongDigest { .. }));
    wrong.extend_from_slice(b"more");
    assert!(matches!(serve(Reply::new(200).body(wrong.clone()).chunked()), Error::TooLong { .. }));
    // One that says its size is not even begun.
    let error = serve(Reply::new(200).body(wrong)).to_string();
    assert!(error.contains("50004") && error.contains("50000"), "{error}");
    // Compressed on the way, although nobody asked for it.
    let error = serve(Reply::new(200).with("Content-Encoding", "gzip").body(noise(50_000, 5)));
    assert!(matches!(error, Error::WrongDigest { .. }));
}

#[test]
fn credentials_stay_at_home() {
    let bytes = noise(10_000, 6);
    let content = bytes.clone();
    let cdn = Double::start(move |_, _| Reply::new(200).body(content.clone()));
    let location = format!("http://{}/bucket/object?X-Amz-Signature=s", cdn.host());
    let double = Double::start(move |request, _| {
        match (request.header("authorization"), request.target.contains("/blobs/")) {
            (_, false) => Reply::new(200),
            (None, true) => Reply::new(401).with("WWW-Authenticate", "Basic realm=\"x\""),
            (Some(_), true) => Reply::new(307).with("Location", &location),
        }
    });
    let keychain = login(&double);
    assert!(fetch(&open_as(&double, keychain), &layer(&bytes), 1 << 20).unwrap() == bytes);
    let seen = cdn.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].header("authorization"), None);
    assert!(seen[0].target.contains("X-Amz-Signature=s"));
}

#[test]
fn a_presigned_url_that_expired_is_asked_for_again() {
    let bytes = noise(10_000, 7);
    let content = bytes.clone();
    let cdn = Double::start(move |_, number| match number {
        0 => Reply::new(403).body("<Error>Request has expired</Error>"),
        _ => Reply::new(200).body(content.clone()),
    });
    let location = format!("http://{}/object", cdn.host());
    let double = blob_server(move |_, _| Reply::new(307).with("Location", &location));
    assert!(fetch(&open(&double), &layer(&bytes), 1 << 20).unwrap() == bytes);
    assert_eq!(double.count("GET /v2/a/b/blobs/"), 2);
}

#[test]
fn a_busy_registry_is_given_the_time_it_asks_for() {
    let bytes = noise(10_000, 8);
    let content = bytes.clone();
    let double = blob_server(move |_, number| match number {
        1 => Reply::new(429).with("Retry-After", "1"),
        2 => Reply::new(503),
        _ => Reply::new(200).body(content.clone()),
    });
    let start = Instant::now();
    assert!(fetch(&open(&double), &layer(&bytes), 1 << 20).unwrap() == bytes);
    assert!(start.elapsed() >= Duration::from_secs(1));

    // An hour is too long to wait for: we say so at once.
    let double = blob_server(|_, _| {
        let reply = Reply::new(429).with("Retry-After", "3600");
        reply.body(r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"pull rate limit"}]}"#)
    });
    let error = fetch(&open(&double), &layer(&bytes), 1 << 20).unwrap_err();
    assert!(error.to_string().contains("pull rate limit"), "{error}");
    assert!(error.hint().unwrap().contains("3600"), "{:?}", error.hint());
    assert_eq!(double.count("GET /v2/a/b/blobs/"), 1);
}

#[test]
fn a_manifest_is_the_one_that_was_asked_for() {
    let memory = Memory::default();
    let good = memory.add_manifest(&Platform::host(), &[10], 1);
    let other = memory.add_manifest(&Platform::host(), &[10], 2);
    let serve = |document: &Document, says: String, sent_as: &'static str| {
        let bytes = document.bytes().to_vec();
        Double::start(move |_, _| {
            Reply::new(200)
                .with("Content-Type", sent_as)
                .with("Docker-Content-Digest", &says)
                .body(bytes.clone())
        })
    };
    let resolve = |double: &Double, name: &str| {
        let reference: Reference = format!("{}/a/b{name}", double.host()).parse().unwrap();
        let repository = open(double);
        repository.document(&repository.resolve(&reference)?)
    };
    let double = serve(&good, good.digest().to_string(), media_type::MANIFEST);
    assert_eq!(resolve(&double, ":tag").unwrap().digest(), good.digest());
    let accept = double.seen().last().unwrap().header("accept").unwrap().to_owned();
    for kind in [
        media_type::INDEX,
        media_type::MANIFEST,
        media_type::DOCKER_LIST,
        media_type::DOCKER_MANIFEST,
    ] {
        assert!(accept.contains(kind), "{accept}");
    }
    // Another document under the right name.
    let double = serve(&other, good.digest().to_string(), media_type::MANIFEST);
    assert!(resolve(&double, ":tag").unwrap_err().to_string().contains("when asked for"));
    assert!(resolve(&double, &format!("@{}", good.digest())).is_err());
    // A document that is not what it was sent as.
    let double = serve(&good, good.digest().to_string(), media_type::INDEX);
    assert!(resolve(&double, ":tag").is_err());
    // Without a digest in the headers it is computed.
    let double = serve(&good, String::new(), media_type::MANIFEST);
    assert_eq!(resolve(&double, ":tag").unwrap().digest(), good.digest());
}

#[test]
fn dockers_schema_2_is_read() {
    let config = Descriptor::of(media_type::DOCKER_CONFIG, b"{}");
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","config":{},"layers":[]}}"#,
        media_type::DOCKER_MANIFEST,
        serde_json::to_string(&config).unwrap(),
    );
    let double = Double::start(move |_, _| {
        let reply = Reply::new(200).with("Content-Type", media_type::DOCKER_MANIFEST);
        reply.body(manifest.clone())
    });
    let reference = format!("{}/a/b:tag", double.host()).parse().unwrap();
    let repository = open(&double);
    let document = repository.document(&repository.resolve(&reference).unwrap()).unwrap();
    assert_eq!(document.manifest().unwrap().config, config);
}

pub(crate) fn put(
    repository: &ocibuild::registry::Repository,
    bytes: &[u8],
) -> Result<Placed, Error> {
    let task = Task::start(&Silent, String::new(), None, Unit::Bytes);
    let open = |offset: u64| -> Result<ocibuild::transfer::Stream<'_>, Error> {
        Ok(Box::new(&bytes[usize::try_from(offset).unwrap()..]))
    };
    repository.put_blob(&layer(bytes), &Body::new(&open, &[]), &task)
}

#[test]
fn an_upload_that_fails_begins_again_in_a_new_session() {
    let bytes = noise(900_000, 9);
    let content = bytes.clone();
    let double = Double::start(move |request, number| match request.method.as_str() {
        "POST" => Reply::new(202).with("Location", &format!("/up/{number}?state=a%2Fb")),
        "PUT" if number < 4 => Reply::new(503),
        "PUT" => {
            assert_eq!(request.body, content);
            assert!(request.target.contains("?state=a%2Fb&digest=sha256%3A"), "{}", request.target);
            Reply::new(201)
        }
        _ => Reply::new(200),
    });
    assert_eq!(put(&open(&double), &bytes).unwrap(), Placed::Written);
    assert_eq!(double.count("PUT /up/"), 2);
    assert_eq!(double.count("POST /v2/a/b/blobs/uploads/"), 2);
}

#[test]
fn an_upload_under_another_name_is_an_error_and_is_cancelled() {
    let bytes = noise(1000, 10);
    let wrong = layer(b"other").digest.to_string();
    let double = Double::start(move |request, _| match request.method.as_str() {
        "POST" => Reply::new(202).with("Location", "/up/1"),
        "PUT" => Reply::new(201).with("Docker-Content-Digest", &wrong),
        _ => Reply::new(200),
    });
    let error = put(&open(&double), &bytes).unwrap_err();
    assert!(error.to_string().contains("calls it"), "{error}");
    assert_eq!(double.count("DELETE /up/1"), 1);
}

#[test]
fn a_refusal_in_the_middle_of_an_upload_is_heard() {
    let double = Double::start(|request, _| match request.method.as_str() {
        "POST" => Reply::new(202).with("Location", "/up/1"),
        "PUT" => Reply::new(413).body("<html>Request Entity Too Large</html>"),
        _ => Reply::new(200),
    });
    let error = put(&open(&double), &noise(5_000_000, 11)).unwrap_err();
    assert!(error.to_string().contains("413"), "{error}");
    assert!(error.hint().unwrap().contains("proxy"), "{:?}", error.hint());
}

#[test]
fn a_refusal_does_not_wait_for_the_end_of_the_body() {
    let double = Double::start(|request, _| match request.method.as_str() {
        "POST" => Reply::new(202).with("Location", "/up/1"),
        "PUT" => Reply::new(403).body(r#"{"errors":[{"code":"DENIED","message":"quota"}]}"#),
        _ => Reply::new(200),
    });
    double.answer_before_the_body();
    // More than all buffers on the way hold, so that it could not be sent to the end.
    let error = put(&open(&double), &noise(40_000_000, 14)).unwrap_err();
    assert!(error.to_string().contains("DENIED, quota"), "{error}");
}

#[test]
fn a_token_that_ends_during_an_upload_means_another_session() {
    let tokens = Double::start(|_, number| {
        Reply::new(200).body(format!(r#"{{"token":"t{number}","expires_in":600}}"#))
    });
    let realm = format!(r#"Bearer realm="http://{}/token",service="s""#, tokens.host());
    let double = Double::start(move |request, _| {
        let refuse = Reply::new(401).with("WWW-Authenticate", &realm);
        match (request.method.as_str(), request.header("authorization")) {
            (_, None) | ("PUT", Some("Bearer t0")) => refuse,
            ("POST", _) => Reply::new(202).with("Location", "/up/1"),
            ("PUT", Some("Bearer t1")) => Reply::new(201),
            (_, _) => Reply::new(200),
        }
    });
    assert_eq!(put(&open(&double), &noise(600_000, 15)).unwrap(), Placed::Written);
    assert_eq!((double.count("PUT /up/1"), tokens.seen().len()), (2, 2));
}

#[test]
fn credentials_do_not_follow_an_upload_elsewhere() {
    let elsewhere = Double::start(|_, _| Reply::new(201));
    let location = format!("http://{}/up", elsewhere.host());
    let double = Double::start(move |request, _| match request.header("authorization") {
        None => Reply::new(401).with("WWW-Authenticate", "Basic realm=x"),
        Some(_) => Reply::new(202).with("Location", &location),
    });
    let keychain = login(&double);
    put(&open_as(&double, keychain), &noise(1000, 12)).unwrap();
    assert_eq!(elsewhere.count("PUT /up"), 1);
    assert_eq!(elsewhere.seen()[0].header("authorization"), None);
}

#[test]
fn a_tag_is_set_last_and_only_when_all_is_there() {
    let memory = Memory::default();
    let index = memory.add_index(&[100_000, 50], 20);
    let copy_to = |sink: &Memory, tags: &[String]| {
        copy(&memory, sink, &index, tags, &Options::default(), &Silent)
    };
    let sink = Memory::default();
    let tags = ["one".to_owned(), "two".to_owned()];
    copy_to(&sink, &tags).unwrap();
    let acts = sink.acts();
    assert_eq!(acts.len(), 6 + 3 + 2, "{acts:?}");
    assert!(acts[..4].iter().all(|act| act == "blob"), "{acts:?}");
    assert_eq!(acts[4..6], ["config", "config"]);
    assert_eq!(acts[6..], ["manifest", "manifest", "index", "tag one", "tag two"]);

    let manifest = memory.document(&index.index().unwrap().manifests[0]).unwrap();
    let victim = manifest.manifest().unwrap().layers[0].clone();
    memory.tamper(victim.digest);
    let sink = Memory::default();
    assert!(matches!(copy_to(&sink, &tags), Err(Error::WrongDigest { .. })));
    assert!(sink.acts().iter().all(|act| act == "blob"), "{:?}", sink.acts());
    assert!(!sink.has_blob(&victim).unwrap());

    // What the source has lost may be found elsewhere.
    let elsewhere = Memory::default();
    elsewhere.add_blob(&victim.media_type, &noise(100_000, 20_000));
    memory.lose(victim.digest);
    assert!(copy_to(&Memory::default(), &[]).is_err());
    let options = Options { fallbacks: vec![&elsewhere], ..Options::default() };
    let sink = Memory::default();
    copy(&memory, &sink, &index, &tags, &options, &Silent).unwrap();
    assert!(sink.has_blob(&victim).unwrap());
}

#[test]
fn a_manifest_that_is_taken_for_damaged_is_put_again() {
    let memory = Memory::default();
    let image = memory.add_manifest(&Platform::host(), &[1000], 31);
    for refusals in [2, 9] {
        let refused = Mutex::new(0);
        let double = Double::start(move |request, _| match request.method.as_str() {
            "POST" => Reply::new(202).with("Location", "/up/1"),
            "PUT" if request.target.contains("/manifests/") => {
                let mut refused = refused.lock().unwrap();
                *refused += 1;
                if *refused > refusals {
                    Reply::new(201)
                } else {
                    Reply::new(400).body(r#"{"errors":[{"code":"DIGEST_INVALID"}]}"#)
                }
            }
            "PUT" => Reply::new(201),
            "GET" if request.target == "/v2/" => Reply::new(200),
            _ => Reply::new(404),
        });
        let put = open(&double).put_document(&image, None);
        assert_eq!(put.is_ok(), refusals == 2);
        assert_eq!(double.count("PUT /v2/a/b/manifests/"), if refusals == 2 { 3 } else { 4 });
    }
}

#[test]
fn a_destination_that_forgets_gets_no_tag() {
    let memory = Memory::default();
    let image = memory.add_manifest(&Platform::host(), &[1000], 30);
    let double = Double::start(move |request, _| match request.method.as_str() {
        "POST" => Reply::new(202).with("Location", "/up/1"),
        "PUT" => Reply::new(201),
        "GET" if request.target == "/v2/" => Reply::new(200),
        _ => Reply::new(404),
    });
    let tags = ["latest".to_owned()];
    let error = copy(&memory, &open(&double), &image, &tags, &Options::default(), &Silent);
    assert!(error.unwrap_err().to_string().contains(&image.digest().to_string()));
    assert_eq!(double.count("PUT /v2/a/b/manifests/latest"), 0);
}

#[test]
fn a_token_is_fetched_once_however_many_ask() {
    let tokens = Double::start(|request, _| {
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(request.header("authorization"), None);
        Reply::new(200).body(r#"{"access_token":"t1"}"#)
    });
    let realm = format!(r#"Bearer realm="http://{}/token",service="s, t""#, tokens.host());
    let double = Double::start(move |request, _| match request.header("authorization") {
        Some("Bearer t1") => Reply::new(404),
        _ => Reply::new(401).with("WWW-Authenticate", &realm),
    });
    let repository = open(&double);
    std::thread::scope(|scope| {
        for seed in 0..8 {
            let repository = &repository;
            scope.spawn(move || assert!(!repository.has_blob(&layer(&noise(10, seed))).unwrap()));
        }
    });
    assert_eq!(tokens.seen().len(), 1);
    let target = &tokens.seen()[0].target;
    assert!(target.contains("service=s%2C+t") && target.contains("client_id=ocibuild"), "{target}");
}

#[test]
fn a_token_server_without_tls_gets_no_password_of_a_registry_with_it() {
    // The rule itself is tested beside its code; here: a realm that is no URL is named.
    let double = Double::start(|_, _| {
        Reply::new(401).with("WWW-Authenticate", "Bearer realm=\"ftp://x/token\"")
    });
    let error = open(&double).has_blob(&layer(b"x")).unwrap_err().to_string();
    assert!(error.contains("ftp://x/token"), "{error}");
}
