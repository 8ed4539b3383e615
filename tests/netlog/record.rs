//! Recording: whole bodies whatever a client asks for, once, and nothing secret.

use std::io::Read;
use std::process::Stdio;

use ocibuild::netlog::{AuthorityClass, Earlier, Method, Mode, Netlog};
use ocibuild::oci::Digest;

use super::{Bench, has_body, ok, only, run, urls};
use crate::double::{Double, Reply};
use crate::support::noise;
use crate::support::web::Web;

const DATE: &str = "Sun, 29 Nov 2026 10:00:00 GMT";

fn web_of(
    reply: impl Fn(&crate::double::Request, usize) -> Reply + Send + Sync + 'static,
) -> (Web, Double) {
    let double = Double::start(reply);
    let web = Web::start(&[("a.test", double.host()), ("b.test", double.host())]);
    (web, double)
}

#[test]
fn a_body_is_kept_whole_over_http_and_tls_1_and_2() {
    let body = noise(300_000, 1);
    let digest = Digest::of(&body);
    let served = body.clone();
    let (web, double) = web_of(move |_, _| {
        Reply::new(200)
            .with("Content-Type", "application/x-thing")
            .with("Last-Modified", DATE)
            .with("Set-Cookie", "id=secret")
            .body(served.clone())
    });
    let bench = Bench::new();
    let step = bench.record(&web);
    let plain = ok(step.curl().args(["--include", "http://a.test/plain"]));
    assert!(plain.ends_with(&body));
    let head = String::from_utf8_lossy(&plain[..plain.len() - body.len()]).to_lowercase();
    assert!(head.contains("set-cookie: id=secret") && !head.contains("date: mon"), "{head}");
    assert_eq!(ok(step.curl().args(["--http1.1", "https://a.test/one"])), body);
    let two = ok(step.curl().args(["--http2", "-w", "%{http_version}", "https://b.test/two"]));
    assert!(two.ends_with(b"2") && two[..body.len()] == body);
    let record = step.end();
    assert_eq!(urls(&record), ["http://a.test/plain", "https://a.test/one", "https://b.test/two"]);
    for fetch in &record.fetches {
        assert_eq!((fetch.digest, fetch.size, fetch.status), (digest, 300_000, 200));
        let names: Vec<&String> = fetch.headers.keys().collect();
        assert_eq!(names, ["content-type", "last-modified"]);
    }
    assert_eq!(record.fetches[0].authority, AuthorityClass::None);
    assert_eq!(record.fetches[1].authority, AuthorityClass::TlsOnly);
    assert!(has_body(&bench.bodies(), &digest));
    assert!(record.troubles.is_empty() && record.refused.is_empty(), "{record:?}");
    assert_eq!(double.seen().len(), 3);
}

#[test]
fn parts_heads_and_conditions_are_answered_from_the_whole() {
    let body = noise(100_000, 2);
    let served = body.clone();
    let (web, double) = web_of(move |request, _| {
        for name in ["range", "if-none-match", "if-modified-since", "cache-control"] {
            assert_eq!(request.header(name), None, "{}", request.line());
        }
        assert_eq!(request.header("accept-encoding"), Some("identity"));
        Reply::new(200).with("Last-Modified", DATE).body(served.clone())
    });
    let bench = Bench::new();
    let step = bench.record(&web);
    let part = ok(step.curl().args([
        "--range",
        "1000-1999",
        "--compressed",
        "-H",
        "Cache-Control: no-cache",
        "-H",
        "If-None-Match: \"x\"",
        "http://a.test/x",
    ]));
    assert_eq!(part, body[1000..2000]);
    let head = String::from_utf8(ok(step.curl().args(["--head", "http://a.test/x"]))).unwrap();
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("content-length: 100000"), "{head}");
    let rest = ok(step.curl().args(["--range", "-5", "-D", "-", "http://a.test/x"]));
    let text = String::from_utf8_lossy(&rest);
    assert!(text.starts_with("HTTP/1.1 206") && text.contains("bytes 99995-99999/100000"));
    assert!(rest.ends_with(&body[99_995..]));
    let beyond = ok(step.curl().args(["--range", "100000-", "-D", "-", "http://a.test/x"]));
    assert!(beyond.starts_with(b"HTTP/1.1 416"));
    assert_eq!(double.seen().len(), 1, "one transfer does for all of them");
    let record = step.end();
    assert_eq!(only(&record).digest, Digest::of(&body));
    // In a replay a client is told that it has it already.
    let step = bench.replay(&web, &record);
    let unchanged = ok(step.curl().args([
        "-H",
        &format!("If-Modified-Since: {DATE}"),
        "-D",
        "-",
        "http://a.test/x",
    ]));
    assert!(unchanged.starts_with(b"HTTP/1.1 304"));
    assert_eq!(step.get("http://a.test/x"), body);
    assert_eq!(double.seen().len(), 1);
}

#[test]
fn a_head_alone_is_a_fetch_of_its_own() {
    let (web, _double) = web_of(|request, _| {
        assert_eq!(request.method, "HEAD");
        Reply::new(200).with("ETag", "\"v1\"").with("Content-Length", "77").body("")
    });
    let bench = Bench::new();
    let step = bench.record(&web);
    let seen = ok(step.curl().args(["--head", "https://a.test/x"]));
    let record = step.end();
    let fetch = only(&record);
    assert_eq!((fetch.method, fetch.size), (Method::Head, 0));
    assert_eq!(fetch.headers["content-length"], "77");
    assert_eq!(fetch.headers["etag"], "\"v1\"");
    let step = bench.replay(&web, &record);
    assert_eq!(ok(step.curl().args(["--head", "https://a.test/x"])), seen);
    assert_eq!(step.try_get("https://a.test/x").0, "504", "only the head was recorded");
}

#[test]
fn a_hundred_at_once_are_one_transfer_and_a_hundred_urls_are_all_there() {
    let body = noise(200_000, 3);
    let served = body.clone();
    let (web, double) = web_of(move |request, _| {
        if request.header("if-none-match").is_some() {
            return Reply::new(304);
        }
        let mut body = served.clone();
        body.extend(request.target.as_bytes());
        Reply::new(200).with("ETag", "\"1\"").body(body)
    });
    let bench = Bench::new();
    let step = bench.record(&web);
    let out = bench.dir.path().join("out");
    let same = ok(step
        .curl()
        .args(["--parallel", "--parallel-immediate", "--parallel-max", "100"])
        .args(
            (0..100)
                .flat_map(|_| ["https://a.test/same".to_owned(), "-o".to_owned(), "-".to_owned()]),
        ));
    assert_eq!(same.len(), 100 * (200_000 + "/same".len()));
    // Who comes when it is there already has upstream asked whether it still holds.
    let is_full = |request: &crate::double::Request| request.header("if-none-match").is_none();
    assert_eq!(double.seen().iter().filter(|it| is_full(it)).count(), 1);
    ok(step
        .curl()
        .args(["--parallel", "--parallel-immediate", "--parallel-max", "100"])
        .arg("--create-dirs")
        .args((0..100).flat_map(|n| {
            [
                format!("http://b.test/{n}"),
                "-o".to_owned(),
                out.join(n.to_string()).display().to_string(),
            ]
        })));
    for n in 0..100 {
        let got = std::fs::read(out.join(n.to_string())).unwrap();
        assert!(got[..200_000] == body && got.ends_with(format!("/{n}").as_bytes()), "{n}");
    }
    assert_eq!(step.end().fetches.len(), 101);
}

#[test]
fn a_client_that_goes_away_spoils_nothing() {
    let body = noise(8 << 20, 4);
    let served = body.clone();
    let (web, _double) = web_of(move |_, _| Reply::new(200).body(served.clone()));
    let bench = Bench::new();
    let step = bench.record(&web);
    let mut curl = step.curl().arg("http://a.test/large").stdout(Stdio::piped()).spawn().unwrap();
    curl.stdout.take().unwrap().read_exact(&mut [0; 1000]).unwrap();
    curl.kill().unwrap();
    curl.wait().unwrap();
    let record = step.end();
    assert_eq!(only(&record).digest, Digest::of(&body));
    assert!(has_body(&bench.bodies(), &only(&record).digest));
}

#[test]
fn what_breaks_off_upstream_breaks_off_here_and_is_not_recorded() {
    let body = noise(2 << 20, 5);
    let served = body.clone();
    let (web, _double) = web_of(move |request, number| match request.target.as_str() {
        "/again" if number > 0 => Reply::new(200).body(served.clone()),
        _ => Reply::new(200).body(served.clone()).cut(1 << 20),
    });
    let bench = Bench::new();
    let step = bench.record(&web);
    for url in ["http://a.test/again", "https://a.test/cut"] {
        let output = run(step.curl().arg(url));
        assert_ne!(output.status.code(), Some(0), "{url}");
        assert!(output.stdout.len() < body.len());
    }
    assert_eq!(step.get("http://a.test/again"), body);
    let record = step.end();
    assert_eq!(only(&record).url, "http://a.test/again");
    let [trouble] = &record.troubles[..] else { panic!("{record:?}") };
    assert_eq!(trouble.url, "https://a.test/cut");
    assert_eq!(trouble.step, "layer: run");
    let kept: Vec<_> = std::fs::read_dir(bench.bodies()).unwrap().collect();
    assert_eq!(kept.len(), 1, "half a body leaves nothing");
}

#[test]
fn redirects_pass_through_and_signatures_stay_out() {
    let (web, double) = web_of(|request, number| {
        if request.target.starts_with("/file?") {
            assert!(request.target.contains("s3cr3t"), "the true link is followed");
            return Reply::new(200).body("the file");
        }
        let signature = format!("X-Amz-Date=2026{number}&X-Amz-Signature=s3cr3t{number}");
        Reply::new(302)
            .with("Location", &format!("https://b.test/file?{signature}&as=x.deb"))
            .with("Content-Type", "text/html")
            .body(format!("<a href=\"…s3cr3t{number}\">here</a>"))
    });
    let bench = Bench::new();
    let step = bench.record(&web);
    let got = ok(step.curl().args(["--location", "https://a.test/release"]));
    assert_eq!(got, b"the file");
    let one = step.end();
    assert_eq!(
        urls(&one),
        [
            "https://a.test/release",
            "https://b.test/file?X-Amz-Date=REDACTED&X-Amz-Signature=REDACTED&as=x.deb"
        ]
    );
    assert!(!format!("{one:?}").contains("s3cr3t"));
    let step = bench.record(&web);
    ok(step.curl().args(["--location", "https://a.test/release"]));
    assert_eq!(step.end(), one, "another signature is the same record");
    let before = double.seen().len();
    let step = bench.replay(&web, &one);
    let got = ok(step.curl().args(["--location", "https://a.test/release"]));
    assert_eq!(got, b"the file");
    assert_eq!(step.end().fetches, one.fetches);
    assert_eq!(double.seen().len(), before);
}

#[test]
fn secrets_reach_neither_record_nor_folder() {
    let (web, double) = web_of(|request, _| {
        if request.header("authorization").is_none() && request.target.starts_with("/private") {
            return Reply::new(401).with("WWW-Authenticate", "Basic realm=\"x\"").body("no");
        }
        if request.target == "/asset" {
            return Reply::new(302).with("Location", "https://b.test/e?sig=s3cr3t");
        }
        Reply::new(200).body("yes")
    });
    let bench = Bench::new();
    let step = bench.record(&web);
    let url = "https://me:s3cr3t@a.test/private/x";
    let asset = "https://me:s3cr3t@a.test/asset";
    assert_eq!(ok(step.curl().args(["--anyauth", url])), b"yes");
    assert_eq!(ok(step.curl().args(["--location", asset])), b"yes");
    assert_eq!(ok(step.curl().args(["-H", "Cookie: a=s3cr3t", "https://b.test/c"])), b"yes");
    assert_eq!(ok(step.curl().args(["https://b.test/d?access_token=s3cr3t&x=1"])), b"yes");
    assert!(double.seen().iter().any(|request| request.target.contains("s3cr3t")));
    let record = step.end();
    assert!(!format!("{record:?}").contains("s3cr3t"));
    let told: Vec<(&str, bool, u16)> = record
        .fetches
        .iter()
        .map(|fetch| (fetch.url.as_str(), fetch.credentials, fetch.status))
        .collect();
    assert_eq!(
        told,
        [
            ("https://a.test/asset", true, 302),
            ("https://a.test/private/x", false, 401),
            ("https://a.test/private/x", true, 200),
            ("https://b.test/c", true, 200),
            ("https://b.test/d?access_token=REDACTED&x=1", true, 200),
            ("https://b.test/e?sig=REDACTED", true, 200),
        ]
    );
    let step = bench.replay(&web, &record);
    assert_eq!(ok(step.curl().args(["--anyauth", url])), b"yes");
    assert_eq!(ok(step.curl().args(["--location", asset])), b"yes");
    assert_eq!(step.get("https://b.test/c"), b"yes", "an auditor needs no credentials");
}

#[test]
fn queries_are_told_apart_by_what_they_send() {
    let (web, double) = web_of(|request, _| {
        assert_eq!(request.method, "POST");
        assert_eq!(request.header("expect"), None);
        Reply::new(200).chunked().body(format!("got {}", request.body.len()))
    });
    let bench = Bench::new();
    let step = bench.record(&web);
    let long = "x".repeat(2 << 20);
    let file = bench.dir.path().join("long");
    std::fs::write(&file, &long).unwrap();
    let query = |step: &super::Step<'_>, data: &str| {
        ok(step.curl().args(["-H", "Expect: 100-continue", "-d", data, "https://a.test/query"]))
    };
    assert_eq!(query(&step, "one"), b"got 3");
    assert_eq!(query(&step, "three"), b"got 5");
    let at = format!("@{}", file.display());
    assert_eq!(query(&step, &at), format!("got {}", long.len()).as_bytes());
    let record = step.end();
    assert_eq!(record.fetches.len(), 3);
    let mut sent: Vec<Digest> = ["one", "three", &long].map(|it| Digest::of(it.as_bytes())).into();
    sent.sort();
    let listed: Vec<Digest> =
        record.fetches.iter().map(|fetch| fetch.variant.sent.unwrap()).collect();
    assert_eq!(listed, sent);
    let before = double.seen().len();
    let step = bench.replay(&web, &record);
    assert_eq!(query(&step, "three"), b"got 5");
    assert_eq!(query(&step, &at), format!("got {}", long.len()).as_bytes());
    let other = ok(step.curl().args(["-d", "four", "https://a.test/query"]));
    assert!(String::from_utf8_lossy(&other).contains("not in the lock"));
    assert_eq!(step.end().unlisted.len(), 1);
    assert_eq!(double.seen().len(), before);
}

#[test]
fn the_same_page_asked_twice_is_listed_once_and_one_that_changes_in_turn() {
    let (web, _double) = web_of(|request, number| match request.target.as_str() {
        "/same" => Reply::new(200).with("Date", &format!("{number}")).body("same"),
        "/flaky" if number < 3 => Reply::new(503).body("later"),
        "/flaky" => Reply::new(200).body("now"),
        "/kind" => Reply::new(200).body(request.header("accept").unwrap().to_owned()),
        _ => Reply::new(200).body(format!("version {}", number.min(8))),
    });
    let bench = Bench::new();
    let step = bench.record(&web);
    step.get("http://a.test/same");
    step.get("http://a.test/same");
    step.try_get("http://a.test/flaky");
    step.get("http://a.test/flaky");
    for kind in ["text/html", "application/json"] {
        ok(step.curl().args(["-H", &format!("Accept: {kind}"), "http://a.test/kind"]));
    }
    let versions: Vec<Vec<u8>> = (0..4).map(|_| step.get("http://a.test/page")).collect();
    assert_eq!(versions, [&b"version 6"[..], b"version 7", b"version 8", b"version 8"]);
    let record = step.end();
    assert_eq!(
        urls(&record),
        [
            "http://a.test/flaky",
            "http://a.test/kind",
            "http://a.test/kind",
            "http://a.test/page",
            "http://a.test/page",
            "http://a.test/page",
            "http://a.test/same",
        ]
    );
    let kinds: Vec<Option<&str>> =
        record.fetches[1..3].iter().map(|fetch| fetch.variant.accept.as_deref()).collect();
    assert_eq!(kinds, [Some("application/json"), Some("text/html")]);
    let turns: Vec<u32> = record.fetches[3..6].iter().map(|fetch| fetch.turn).collect();
    assert_eq!(turns, [0, 1, 2]);
    let step = bench.replay(&web, &record);
    let again: Vec<Vec<u8>> = (0..4).map(|_| step.get("http://a.test/page")).collect();
    assert_eq!(again, versions);
    let html = ok(step.curl().args(["-H", "Accept: text/html", "http://a.test/kind"]));
    assert_eq!(html, b"text/html");
    assert_eq!(step.get("http://a.test/flaky"), b"now");
}

#[test]
fn a_second_look_costs_no_second_body() {
    let (web, double) = web_of(|request, _| match request.header("if-modified-since") {
        Some(DATE) => Reply::new(304).with("Content-Length", "0").body(""),
        _ => Reply::new(200).with("Last-Modified", DATE).body("index"),
    });
    let bench = Bench::new();
    let step = bench.record(&web);
    assert_eq!(step.get("http://a.test/index"), b"index");
    assert_eq!(step.get("http://a.test/index"), b"index");
    assert_eq!(double.seen().len(), 2);
    assert_eq!(only(&step.end()).status, 200);
}

#[test]
fn another_build_moves_no_body_that_still_holds() {
    let (web, double) = web_of(|request, _| {
        let tag = format!("\"{}\"", request.target);
        if request.header("if-none-match") == Some(&tag) {
            return Reply::new(304);
        }
        match request.target.as_str() {
            "/dated" if request.header("if-modified-since") == Some(DATE) => Reply::new(304),
            "/dated" => Reply::new(200).with("Last-Modified", DATE).body("dated"),
            path => Reply::new(200).with("ETag", &tag).body(path),
        }
    });
    let bench = Bench::new();
    let netlog = bench.netlog(&web, Mode::Record);
    let fetch = |netlog: &Netlog| {
        for path in ["dated", "tagged", "damaged", "gone"] {
            let url = format!("https://a.test/{path}");
            let fetched = netlog.fetch(&url, "layer: fetch", None).unwrap();
            let text = std::io::read_to_string(fetched.file.unwrap()).unwrap();
            assert_eq!(text.trim_start_matches('/'), path);
        }
        netlog.record()
    };
    let record = fetch(&netlog);
    let at = |text: &str| bench.bodies().join(Digest::of(text.as_bytes()).hex());
    std::fs::write(at("/damaged"), "/damagee").unwrap();
    std::fs::remove_file(at("/gone")).unwrap();
    let earlier = Earlier::new(record.fetches.clone());
    assert_eq!(fetch(&bench.netlog_after(&web, Mode::Record, earlier)), record);
    let asked: Vec<bool> = double.seen()[4..]
        .iter()
        .map(|it| it.header("if-none-match").or(it.header("if-modified-since")).is_some())
        .collect();
    assert_eq!(asked, [true, true, false, false]);
}

#[test]
fn what_cannot_be_recorded_is_refused_and_named() {
    let (web, double) =
        web_of(|_, _| Reply::new(307).with("Location", "https://b.test:8443/x?token=s3cr3t"));
    let bench = Bench::new();
    let step = bench.record(&web);
    let status = |arguments: &[&str]| {
        let text = ok(step.curl().args(["-o", "/dev/null", "-w", "%{http_code}"]).args(arguments));
        String::from_utf8(text).unwrap()
    };
    assert_eq!(status(&["-X", "DELETE", "https://a.test/x"]), "501");
    let socket = ["Connection: Upgrade", "Upgrade: websocket"].map(|it| ["-H", it]).concat();
    assert_eq!(status(&[&socket[..], &["--http1.1", "https://a.test/ws"]].concat()), "501");
    assert_eq!(status(&["http://localhost/mine"]), "502");
    // Neither TLS on the plain door nor anything else on the other.
    let doors = [
        format!("c.test:80:127.0.0.1:{}", step.https),
        format!("d.test:443:127.0.0.1:{}", step.http),
    ];
    let mut bare = std::process::Command::new("curl");
    assert!(!run(bare.args(["-s", "--connect-to", &doors[0], "http://c.test/"])).status.success());
    let mut bare = std::process::Command::new("curl");
    assert!(
        !run(bare.args(["-s", "-k", "--connect-to", &doors[1], "https://d.test/"]))
            .status
            .success()
    );
    // A program that trusts its own authorities alone.
    let mut pinned = std::process::Command::new("curl");
    let to = format!(":443:127.0.0.1:{}", step.https);
    assert!(
        !run(pinned.args(["-s", "--connect-to", &to, "https://pinned.test/"])).status.success()
    );
    assert_eq!(status(&["https://a.test/elsewhere"]), "307");
    let record = step.end();
    let what: Vec<&str> = record.refused.iter().map(|refused| refused.what.as_str()).collect();
    let expected = [
        "DELETE on a.test",
        "TLS with `pinned.test`: the program does not trust the build's authority (UnknownCA)",
        "a WebSocket to a.test",
        "a redirect to https://b.test:8443/x?token=REDACTED",
        "something that is not HTTP on the port of HTTP",
        "something that is not TLS on the port of HTTPS",
    ];
    assert_eq!(what, expected);
    assert_eq!((double.seen().len(), record.fetches.len()), (1, 1));
}

#[test]
fn requests_that_wait_for_no_answer_are_fetched_side_by_side_and_answered_in_order() {
    use std::io::{BufRead, BufReader, Write};
    use std::sync::atomic::{AtomicUsize, Ordering};
    let here = AtomicUsize::new(0);
    let (web, _double) = web_of(move |request, _| {
        here.fetch_add(1, Ordering::SeqCst);
        // Nobody is answered before all have asked.
        for _ in 0..2000 {
            if here.load(Ordering::SeqCst) >= 10 {
                return Reply::new(200).body(request.target.clone());
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        Reply::new(500)
    });
    let bench = Bench::new();
    let step = bench.record(&web);
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", step.http)).unwrap();
    let asks: String = (0..10)
        .map(|n| format!("GET /{n} HTTP/1.1\r\nHost: a.test\r\nUser-Agent: t\r\n\r\n"))
        .collect();
    stream.write_all(asks.as_bytes()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let lines: Vec<String> = BufReader::new(stream).lines().map(Result::unwrap).collect();
    let bodies: String = lines.iter().filter(|line| line.contains('/')).cloned().collect();
    let statuses = lines.iter().filter(|line| line.contains(" 200 OK")).count();
    assert_eq!(statuses, 10, "{bodies}");
    assert_eq!(step.end().fetches.len(), 10);
}

#[test]
fn names_are_answered_by_datagram_and_by_stream() {
    use std::io::Write;
    let (web, _double) = web_of(|_, _| Reply::new(200));
    let bench = Bench::new();
    let netlog = bench.netlog(&web, Mode::Record);
    let doors = super::bind([0, 0, 0]);
    let udp = doors.dns_udp[0].local_addr().unwrap();
    let tcp = doors.dns_tcp[0].local_addr().unwrap();
    let session = netlog.serve(doors, "layer: run").unwrap();
    let question = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x01a\x04test\0\0\x01\0\x01";
    let answers = |reply: &[u8]| {
        assert_eq!(&reply[..4], b"\x12\x34\x81\x80");
        assert_eq!(&reply[reply.len() - 4..], [127, 0, 0, 1]);
    };
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.send_to(question, udp).unwrap();
    let mut reply = [0; 512];
    let length = socket.recv(&mut reply).unwrap();
    answers(&reply[..length]);
    let mut stream = std::net::TcpStream::connect(tcp).unwrap();
    for _ in 0..2 {
        stream.write_all(&u16::try_from(question.len()).unwrap().to_be_bytes()).unwrap();
        stream.write_all(question).unwrap();
        let mut length = [0; 2];
        stream.read_exact(&mut length).unwrap();
        let mut reply = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut reply).unwrap();
        answers(&reply);
    }
    assert_eq!(session.end().refused.len(), 1, "nobody asked that name for anything");
}

#[test]
fn a_step_that_gave_up_waiting_ends_without_an_answer_that_never_comes() {
    let (web, double) = web_of(|request, _| match request.target.as_str() {
        "/silent" => Reply::new(200).silent(),
        _ => Reply::new(200).body("x"),
    });
    let bench = Bench::new();
    let step = bench.record(&web);
    assert!(!run(step.curl().args(["-m", "1", "http://a.test/silent"])).status.success());
    step.get("http://a.test/x");
    assert_eq!(double.seen().len(), 2);
    let record = step.end();
    assert_eq!(only(&record).url, "http://a.test/x");
    assert_eq!(record.troubles[0].url, "http://a.test/silent");
}
