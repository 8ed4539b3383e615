//! Replaying: what is listed, verified, and nothing else.

use ocibuild::netlog::{Error, Mode};
use ocibuild::oci::Digest;

use super::{Bench, only};
use crate::double::{Double, Reply};
use crate::support::web::Web;

#[test]
fn only_what_is_listed_is_answered_and_the_rest_named() {
    let double = Double::start(|request, _| Reply::new(404).body(request.target.clone()));
    let web = Web::start(&[("a.test", double.host())]);
    let bench = Bench::new();
    let step = bench.record(&web);
    assert_eq!(step.try_get("http://a.test/probe"), ("404".into(), "/probe".into()));
    let record = step.end();
    drop(double);
    let step = bench.replay(&web, &record);
    assert_eq!(step.try_get("http://a.test/probe"), ("404".into(), "/probe".into()));
    let (status, body) = step.try_get("https://a.test/other?token=s3cr3t");
    assert_eq!(status, "504");
    assert!(body.contains("https://a.test/other?token=REDACTED is not in the lock"), "{body}");
    let replayed = step.end();
    assert_eq!(replayed.fetches, record.fetches);
    let [missing] = &replayed.unlisted[..] else { panic!("{replayed:?}") };
    assert_eq!(missing.url, "https://a.test/other?token=REDACTED");
    assert_eq!((missing.method.as_str(), missing.step.as_str()), ("GET", "layer: run"));
}

#[test]
fn a_body_that_is_gone_or_damaged_is_fetched_again_and_must_be_the_same() {
    let double = Double::start(|request, _| {
        if request.target == "/to" {
            return Reply::new(302).with("Location", "http://a.test/signed?sig=s3cr3t&v=1");
        }
        if request.target.starts_with("/signed") && !request.target.contains("sig=s3cr3t") {
            return Reply::new(403).body("no");
        }
        Reply::new(200).body("what it was")
    });
    let web = Web::start(&[("a.test", double.host())]);
    let bench = Bench::new();
    let step = bench.record(&web);
    step.get("http://a.test/x");
    super::ok(step.curl().args(["-L", "http://a.test/to"]));
    let record = step.end();
    let digest = record.fetches.iter().find(|it| it.size > 0).unwrap().digest;
    let file = bench.bodies().join(digest.hex());
    let replay =
        |upstream| bench.step(&web, Mode::Replay { fetches: record.fetches.clone(), upstream });
    std::fs::write(&file, "what it isn't").unwrap();
    let step = replay(false);
    let (status, body) = step.try_get("http://a.test/x");
    assert!(status == "504" && body.contains("damaged"), "{body}");
    let [trouble] = &step.end().troubles[..] else { panic!() };
    assert!(trouble.what.contains(&digest.to_string()));
    let step = replay(true);
    assert_eq!(step.get("http://a.test/x"), b"what it was");
    std::fs::remove_file(&file).unwrap();
    assert!(replay(false).try_get("http://a.test/x").1.contains("not in the store"));
    // Behind a link whose signature is nowhere any more.
    assert_eq!(
        super::ok(replay(true).curl().args(["-L", "--fail", "http://a.test/to"])),
        b"what it was"
    );
    std::fs::remove_file(&file).unwrap();
    let changed = Double::start(|_, _| Reply::new(200).body("what it is now"));
    web.moves("a.test", Some(changed.host()));
    let step = replay(true);
    let (status, body) = step.try_get("http://a.test/x");
    let now = Digest::of(b"what it is now");
    assert_eq!(status, "504");
    assert!(body.contains(&now.to_string()) && body.contains(&digest.to_string()), "{body}");
}

#[test]
fn the_builders_own_fetches_are_recorded_and_replayed() {
    let double = Double::start(|request, _| match request.target.as_str() {
        "/latest" => Reply::new(302).with("Location", "/v1.deb"),
        _ => Reply::new(200).body("a package"),
    });
    let web = Web::start(&[("a.test", double.host())]);
    let bench = Bench::new();
    let netlog = bench.netlog(&web, Mode::Record);
    let digest = Digest::of(b"a package");
    let fetched = netlog.fetch("https://a.test/latest", "layer: fetch", Some(&digest)).unwrap();
    assert_eq!((fetched.digest, fetched.size), (digest, 9));
    let record = netlog.record();
    assert_eq!(record.fetches.len(), 2);
    drop(double);
    let fetches = record.fetches.clone();
    let netlog = bench.netlog(&web, Mode::Replay { fetches, upstream: false });
    let fetched = netlog.fetch("https://a.test/latest", "layer: fetch", None).unwrap();
    assert_eq!(std::io::read_to_string(fetched.file.unwrap()).unwrap(), "a package");
    assert!(matches!(
        netlog.fetch("https://a.test/v2.deb", "layer: fetch", None),
        Err(Error::Unlisted { .. })
    ));
}

#[test]
fn a_host_that_is_not_there_is_told_and_recorded_as_nothing() {
    let web = Web::start(&[]);
    let bench = Bench::new();
    let mut config = web.config();
    config.tries = 1;
    let step = bench.record(&web);
    web.moves("a.test", Some("127.0.0.1:1".to_owned()));
    let (status, _) = step.try_get("https://a.test/x");
    assert_eq!(status, "502");
    let record = step.end();
    assert!(record.fetches.is_empty(), "{record:?}");
    assert_eq!(record.troubles[0].url, "https://a.test/x");
    let _ = only;
}
