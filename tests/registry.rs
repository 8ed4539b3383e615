//! Pull and push against real registries: plain, behind TLS with passwords, and with tokens.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use ocibuild::fault::{Fault, Kind};
use ocibuild::http::{Client, Config};
use ocibuild::oci::{Platform, Reference, media_type};
use ocibuild::registry::{Keychain, Registries};
use ocibuild::report::Silent;
use ocibuild::transfer::{Options, Placed, Sink, Source, Summary, copy, fetch};

use crate::support::memory::Memory;
use crate::support::registry::{Auth, Registry, Tls};
use crate::support::token::TokenServer;
use crate::support::{noise, run};

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

/// Registries without credentials, with the trust and the patience that a test needs.
fn registries(tls: Option<&Tls>, keychain: Keychain) -> Registries {
    let config = Config {
        certificates: tls.map(Tls::authority),
        backoff: Duration::from_millis(10),
        tries: 3,
        ..Config::default()
    };
    Registries::new(Client::new(config), keychain)
}

fn anonymous() -> Keychain {
    Keychain::new(&BTreeMap::new())
}

fn push(
    registries: &Registries,
    memory: &Memory,
    root: &ocibuild::oci::Document,
    name: &str,
) -> Result<Summary, ocibuild::transfer::Error> {
    let reference = reference(name);
    let tags: Vec<String> = reference.tag().map(str::to_owned).into_iter().collect();
    let repository = registries.open(&reference);
    copy(memory, &repository, root, &tags, &Options::default(), &Silent)
}

fn pull(
    registries: &Registries,
    name: &str,
    options: &Options<'_>,
) -> Result<Memory, ocibuild::transfer::Error> {
    let reference = reference(name);
    let repository = registries.open(&reference);
    let root = repository.document(&repository.resolve(&reference)?)?;
    let memory = Memory::default();
    let tags = [reference.tag().unwrap_or("latest").to_owned()];
    copy(&repository, &memory, &root, &tags, options, &Silent)?;
    Ok(memory)
}

#[test]
fn what_was_pushed_comes_back_and_is_pushed_only_once() {
    let registry = Registry::plain();
    let name = registry.image("some/image:v1");
    let memory = Memory::default();
    let index = memory.add_index(&[3_000_000, 10, 700_000, 0], 1);
    let registries = registries(None, anonymous());

    let first = push(&registries, &memory, &index, &name).unwrap();
    assert_eq!((first.written, first.existed, first.documents), (9, 0, 3));
    assert_eq!(push(&registries, &memory, &index, &name).unwrap(), Summary::default());
    // A new name for the same image moves nothing but the name.
    let again = push(&registries, &memory, &index, &registry.image("some/image:v2")).unwrap();
    assert_eq!(again, Summary::default());

    let pulled = pull(&registries, &name, &Options::default()).unwrap();
    assert_eq!(pulled.blobs(), memory.blobs());
    assert_eq!(pulled.resolve(&reference(&name)).unwrap().digest, index.digest());
    let at_digest = reference(&name).at(index.digest());
    let found = registries.open(&at_digest).resolve(&at_digest).unwrap();
    assert_eq!((found.digest, found.size), (index.digest(), index.bytes().len() as u64));
    assert_eq!(found.media_type, media_type::INDEX);

    let seen = run(Command::new("skopeo").args([
        "inspect",
        "--raw",
        "--tls-verify=false",
        &format!("docker://{}", registry.image("some/image:v2")),
    ]));
    assert_eq!(seen.stdout, index.bytes());
}

#[test]
fn one_platform_of_an_image_comes_alone() {
    let registry = Registry::plain();
    let name = registry.image("two/platforms");
    let memory = Memory::default();
    let index = memory.add_index(&[1000], 2);
    let registries = registries(None, anonymous());
    push(&registries, &memory, &index, &name).unwrap();

    let options = |platform: &str| Options {
        platforms: Some(vec![platform.parse().unwrap()]),
        ..Options::default()
    };
    let pulled = pull(&registries, &name, &options("linux/arm64/v8")).unwrap();
    let expected = index.index().unwrap().find(&Platform::linux("arm64")).unwrap().clone();
    let manifest = pulled.document(&expected).unwrap().manifest().unwrap();
    let blobs: Vec<_> = pulled.blobs().into_keys().collect();
    let mut wanted = vec![manifest.config.digest, manifest.layers[0].digest];
    wanted.sort();
    assert_eq!(blobs, wanted);
    let error = pull(&registries, &name, &options("linux/riscv64")).err().unwrap();
    assert!(error.to_string().contains("linux/riscv64"), "{error}");
    assert!(error.hint().unwrap().contains("linux/amd64"));
}

#[test]
fn a_blob_of_a_repository_beside_is_mounted() {
    let registry = Registry::plain();
    let registries = registries(None, anonymous());
    let base = registry.image("the/base:1");
    let mut memory = Memory::default();
    let image = memory.add_manifest(&Platform::host(), &[2_000_000, 5000], 3);
    push(&registries, &memory, &image, &base).unwrap();

    memory.origin = Some(reference(&base));
    let derived = registry.image("the/derived:1");
    let summary = push(&registries, &memory, &image, &derived).unwrap();
    assert_eq!((summary.mounted, summary.written), (3, 0));
    let pulled = pull(&registries, &derived, &Options::default()).unwrap();
    assert_eq!(pulled.blobs(), memory.blobs());

    // A repository that does not have them: the bytes go after all, in the session it offered.
    memory.origin = Some(reference(&registry.image("no/such")));
    let other = memory.add_manifest(&Platform::host(), &[300_000], 4);
    let summary = push(&registries, &memory, &other, &registry.image("the/other:1")).unwrap();
    assert_eq!((summary.mounted, summary.written), (0, 2));
    let uploads = registry.storage().join("docker/registry/v2/repositories/the/other/_uploads");
    let left = std::fs::read_dir(uploads).map_or(0, Iterator::count);
    assert_eq!(left, 0, "uploads that were opened and never ended");
}

#[test]
fn a_missing_image_is_missing_and_a_missing_server_the_network() {
    let registry = Registry::plain();
    let registries = registries(None, anonymous());
    let name = registry.image("no/such:tag");
    let error = pull(&registries, &name, &Options::default()).err().unwrap();
    assert!(error.to_string().contains("tagged `tag`"), "{error}");
    assert!(error.to_string().contains("no/such"), "{error}");

    let nobody = format!("127.0.0.1:{}/a:b", crate::support::free_port());
    let error = pull(&registries, &nobody, &Options::default()).err().unwrap();
    assert_eq!(error.kind(), Kind::Environment, "{error}");
}

#[test]
fn a_registry_on_this_machine_may_speak_tls_and_want_a_password() {
    let tls = Tls::new();
    let registry = Registry::start(Some(&tls), &Auth::Basic("someone", "pass:word"));
    let name = registry.image("behind/tls:1");
    let memory = Memory::default();
    let image = memory.add_manifest(&Platform::host(), &[1_500_000, 20], 5);
    let try_as = |tls: Option<&Tls>, keychain: Keychain| {
        push(&registries(tls, keychain), &memory, &image, &name)
    };

    let error = try_as(None, anonymous()).unwrap_err();
    assert!(error.hint().unwrap().contains("SSL_CERT_FILE"), "{error} {:?}", error.hint());
    let error = try_as(Some(&tls), anonymous()).unwrap_err();
    assert!(error.to_string().contains("user and a password"), "{error}");
    let error = try_as(Some(&tls), anonymous().with_login(&registry.host(), "someone", "wrong"))
        .unwrap_err();
    assert!(error.to_string().contains("401"), "{error}");
    assert!(error.hint().unwrap().contains("`someone` from the command line"));

    let home = crate::support::temp_dir();
    let file = home.path().join("auth.json");
    let auth =
        base64::Engine::encode(&base64::engine::general_purpose::STANDARD, "someone:pass:word");
    let text = format!(r#"{{"auths":{{"{}":{{"auth":"{auth}"}}}}}}"#, registry.host());
    std::fs::write(&file, text).unwrap();
    let env = [("REGISTRY_AUTH_FILE".to_owned(), file.to_str().unwrap().to_owned())];
    let keychain = Keychain::new(&env.into_iter().collect());
    assert_eq!(try_as(Some(&tls), keychain.clone()).unwrap().written, 3);
    let pulled = pull(&registries(Some(&tls), keychain), &name, &Options::default()).unwrap();
    assert_eq!(pulled.blobs(), memory.blobs());
}

/// A proxy that connects whatever is asked for to one server, and notes what was asked for.
fn tunnel(to: String) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    // It ends with the tests.
    thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let (log, to) = (Arc::clone(&log), to.clone());
            thread::spawn(move || {
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") {
                    client.read_exact(&mut byte).unwrap();
                    head.push(byte[0]);
                }
                let head = String::from_utf8(head).unwrap();
                log.lock().unwrap().push(head.lines().next().unwrap().to_owned());
                client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
                let mut server = TcpStream::connect(to).unwrap();
                let (mut up, mut down) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                thread::spawn(move || std::io::copy(&mut up, &mut down).ok());
                std::io::copy(&mut server, &mut client).ok();
            });
        }
    });
    (address, asked)
}

#[test]
fn a_proxy_and_its_authority_are_used_for_what_is_not_here() {
    let tls = Tls::new();
    let registry = Registry::start(Some(&tls), &Auth::None);
    let (proxy, asked) = tunnel(registry.host());
    let authority = tls.authority();
    let env = [
        ("HTTPS_PROXY", proxy.as_str()),
        ("NO_PROXY", "other.test"),
        ("SSL_CERT_FILE", authority.to_str().unwrap()),
    ];
    let env: BTreeMap<String, String> =
        env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let registries = Registries::new(Client::new(Config::from_env(&env)), Keychain::new(&env));
    let memory = Memory::default();
    let image = memory.add_manifest(&Platform::host(), &[1000], 8);
    push(&registries, &memory, &image, "registry.test/a/b:1").unwrap();
    let asked = asked.lock().unwrap().clone();
    assert!(!asked.is_empty());
    assert!(asked.iter().all(|line| line == "CONNECT registry.test:443 HTTP/1.1"), "{asked:?}");
    // What is on this machine is not asked of a proxy.
    let pulled = pull(&registries, &registry.image("a/b:1"), &Options::default()).unwrap();
    assert_eq!(pulled.blobs(), memory.blobs());
}

#[test]
fn tokens_are_fetched_once_for_all_and_with_the_right_scopes() {
    let server = TokenServer::start(30, None, "me", "secret");
    let registry = server.registry(None);
    let me = registries(None, anonymous().with_login(&registry.host(), "me", "secret"));
    let base = registry.image("private/base:1");
    let mut memory = Memory::default();
    let image = memory.add_manifest(&Platform::host(), &[100_000; 8], 6);
    assert_eq!(push(&me, &memory, &image, &base).unwrap().written, 9);
    assert_eq!(server.asked(), ["repository:private/base:pull,push"]);

    // A mount needs one token for both repositories.
    memory.origin = Some(reference(&base));
    let mounted = push(&me, &memory, &image, &registry.image("private/derived:1")).unwrap();
    assert_eq!((mounted.mounted, mounted.written), (9, 0));
    let both = "repository:private/derived:pull,push repository:private/base:pull";
    assert_eq!(server.asked().iter().filter(|scopes| *scopes == both).count(), 1);

    // Anonymous clients fetch a token as well, but one with which they see nothing private.
    let nobody = registries(None, anonymous());
    push(&me, &memory, &image, &registry.image("public/image:1")).unwrap();
    assert!(pull(&nobody, &registry.image("public/image:1"), &Options::default()).is_ok());
    let error = pull(&nobody, &base, &Options::default()).err().unwrap();
    assert!(error.to_string().contains("401"), "{error}");
    assert!(error.hint().unwrap().contains("no credential was found"), "{:?}", error.hint());
    let error = push(&nobody, &memory, &image, &registry.image("public/other:1")).unwrap_err();
    assert!(error.to_string().contains("401 Unauthorized, UNAUTHORIZED"), "{error}");

    let wrong = registries(None, anonymous().with_login(&registry.host(), "me", "wrong"));
    let error = pull(&wrong, &base, &Options::default()).err().unwrap();
    assert!(error.to_string().contains("incorrect username or password"), "{error}");
}

#[test]
fn a_token_that_ends_sooner_than_it_said_is_replaced() {
    // Says an hour, lives a second or two.
    let server = TokenServer::start(1, Some(3600), "me", "secret");
    let registry = server.registry(None);
    let me = registries(None, anonymous().with_login(&registry.host(), "me", "secret"));
    let name = registry.image("a/b:1");
    let memory = Memory::default();
    let repository = me.open(&reference(&name));
    for seed in 0..2 {
        let layer = memory.add_blob(media_type::LAYER_GZIP, &noise(200_000, 70 + seed));
        let task = ocibuild::report::Task::start(
            &Silent,
            String::new(),
            None,
            ocibuild::report::Unit::Bytes,
        );
        let open = |offset| memory.blob(&layer, offset);
        let body = ocibuild::transfer::Body::new(&open, &[]);
        assert_eq!(repository.put_blob(&layer, &body, &task).unwrap(), Placed::Written);
        assert_eq!(fetch(&repository, &layer, 1 << 20).unwrap().len(), 200_000);
        thread::sleep(Duration::from_millis(2500));
    }
    // For each round one token to push and one to pull; more where the machine is so busy that one
    // ends within an upload.
    assert!(server.asked().len() >= 4, "{:?}", server.asked());
}

#[test]
fn tokens_that_live_for_seconds_carry_a_long_push() {
    let server = TokenServer::start(2, Some(2), "me", "secret");
    let registry = server.registry(None);
    let me = registries(None, anonymous().with_login(&registry.host(), "me", "secret"));
    let memory = Memory::default();
    let start = Instant::now();
    let mut round = 0;
    while start.elapsed() < Duration::from_secs(5) {
        round += 1;
        let image = memory.add_manifest(&Platform::host(), &[400_000; 4], 100 + round);
        push(&me, &memory, &image, &registry.image(&format!("a/b:{round}"))).unwrap();
        thread::sleep(Duration::from_millis(400));
    }
    assert!(round > 2);
}
