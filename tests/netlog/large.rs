//! A body that is larger than memory should be: streamed to disk and to the client, and back.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::process::Command;

use ocibuild::oci::Hasher;

use super::{Bench, ok, only};
use crate::support::noise;
use crate::support::web::Web;

/// Tells the child that it is the one.
const ALONE: &str = "OCIBUILD_TEST_LARGE_BODY";

const SIZE: u64 = 2 << 30;

/// Recorder, web and server of the test together.
const BOUND_KIB: u64 = 64 << 10;

/// Serves one body of `SIZE` bytes, once for each request.
fn serve(listener: TcpListener, piece: Vec<u8>) {
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut line = String::new();
            while reader.read_line(&mut line).unwrap() > 2 {
                line.clear();
            }
            let head =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\nConnection: close\r\n\r\n");
            stream.write_all(head.as_bytes()).unwrap();
            for _ in 0..SIZE / piece.len() as u64 {
                stream.write_all(&piece).unwrap();
            }
        }
    });
}

fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn record_and_replay() {
    let piece = noise(1 << 20, 1);
    let mut hasher = Hasher::new();
    (0..SIZE / piece.len() as u64).for_each(|_| hasher.update(&piece));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    serve(listener, piece);
    let web = Web::start(&[("large.test", host)]);
    let bench = Bench::new();
    let step = bench.record(&web);
    let fetch = |step: &super::Step<'_>| {
        let out = ok(step.curl().args([
            "--fail",
            "-o",
            "/dev/null",
            "-w",
            "%{size_download} %{time_total}",
            "https://large.test/x",
        ]));
        let out = String::from_utf8(out).unwrap();
        let (size, time) = out.split_once(' ').unwrap();
        assert_eq!(size, SIZE.to_string());
        time.to_owned()
    };
    let recorded = fetch(&step);
    let record = step.end();
    assert_eq!((only(&record).size, only(&record).digest), (SIZE, hasher.finish()));
    let replayed = fetch(&bench.replay(&web, &record));
    eprintln!("{recorded} s, {replayed} s, peak {}", peak_kib());
}

/// The part that runs alone in a process, so that the peak is its own.
#[test]
fn two_gigabytes_pass_through_little_memory() {
    if std::env::var_os(ALONE).is_some() {
        return record_and_replay();
    }
    let done = Command::new("/proc/self/exe")
        .arg0("tests")
        .args(["netlog::large::two_gigabytes_pass_through_little_memory", "--exact"])
        .args(["--nocapture", "--test-threads=1"])
        .env(ALONE, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{text}");
    let line = text.lines().find(|line| line.contains("peak ")).unwrap();
    eprintln!("{line} KiB");
    let peak: u64 = line.rsplit_once("peak ").unwrap().1.trim().parse().unwrap();
    assert!(peak <= BOUND_KIB, "{peak} KiB, which is more than {BOUND_KIB}");
}
