//! Who vouches for a body: chains that the layer's own fetches make.

use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ocibuild::netlog::AuthorityClass;
use ocibuild::oci::Digest;
use sha2::Digest as _;

use super::{Bench, ok};
use crate::double::{Double, Reply};
use crate::support::web::Web;

fn compressed(program: &str, text: &str) -> Vec<u8> {
    let dir = crate::support::temp_dir();
    let file = dir.path().join("x");
    std::fs::write(&file, text).unwrap();
    ok(Command::new(program).args(["-c", "-q"]).arg(file))
}

#[test]
fn each_chain_ends_at_what_the_layer_fetched() {
    let hex = |text: &str| Digest::of(text.as_bytes()).hex();
    let sources: Vec<(&str, Vec<u8>)> = ["xz", "gzip", "zstd"]
        .iter()
        .map(|program| {
            let deb = format!("deb of {program}");
            let packages =
                format!("Package: x\nSHA256: {}\nSHA512: {}\n\n", hex(&deb), hex("").repeat(2));
            (*program, compressed(program, &packages))
        })
        .collect();
    let mut release = "-----BEGIN PGP SIGNED MESSAGE-----\nOrigin: x\nSHA256:\n".to_owned();
    for (program, index) in &sources {
        let digest = Digest::of(index).hex();
        release
            .push_str(&format!(" {digest} {} main/binary-amd64/Packages.{program}\n", index.len()));
    }
    release.push_str("-----BEGIN PGP SIGNATURE-----\n");
    let wheel = format!("<a href=\"x.whl#sha256={}\">x</a>", hex("a wheel"));
    let integrity = STANDARD.encode(sha2::Sha512::digest(b"an npm package"));
    let packument = format!("{{\"dist\":{{\"integrity\":\"sha512-{integrity}\"}}}}");
    let repodata = compressed("zstd", &format!("{{\"sha256\":\"{}\"}}", hex("a conda package")));
    let double = Double::start(move |request, _| {
        let path = request.target.as_str();
        let last = path.rsplit('/').next().unwrap();
        let index = sources.iter().find(|(program, _)| last.ends_with(&format!("-{program}")));
        match (path, index) {
            (_, Some((_, index))) => Reply::new(200).body(index.clone()),
            ("/dists/x/InRelease", _) => Reply::new(200).body(release.clone()),
            ("/unsigned/InRelease", _) => Reply::new(200).body(release.replace("PGP SIGNED", "")),
            ("/simple/x/", _) => {
                Reply::new(200).with("Content-Type", "text/html").body(wheel.clone())
            }
            ("/x", _) => Reply::new(200)
                .with("Content-Type", "application/vnd.npm.install-v1+json")
                .body(packument.clone()),
            ("/main/noarch/repodata.json.zst", _) => Reply::new(200).body(repodata.clone()),
            ("/packages/x.whl", _) => Reply::new(200).body("a wheel"),
            ("/x/-/x-1.0.0.tgz", _) => Reply::new(200).body("an npm package"),
            ("/main/noarch/x.conda", _) => Reply::new(200).body("a conda package"),
            _ => Reply::new(200).body(last.trim_end_matches(".deb").replace('_', " ")),
        }
    });
    let web = Web::start(&[("a.test", double.host())]);
    let bench = Bench::new();
    let step = bench.record(&web);
    let expected = [
        ("http://a.test/dists/x/InRelease", AuthorityClass::Gpg),
        ("http://a.test/dists/x/by-hash/index-gzip", AuthorityClass::AptChain),
        ("http://a.test/dists/x/by-hash/index-xz", AuthorityClass::AptChain),
        ("http://a.test/dists/x/by-hash/index-zstd", AuthorityClass::AptChain),
        ("http://a.test/flat/deb_of_gzip.deb", AuthorityClass::AptChain),
        ("http://a.test/page", AuthorityClass::None),
        ("http://a.test/pool/deb_of_xz", AuthorityClass::AptChain),
        ("http://a.test/pool/deb_of_zstd", AuthorityClass::AptChain),
        ("http://a.test/unsigned/InRelease", AuthorityClass::None),
        ("https://a.test/main/noarch/repodata.json.zst", AuthorityClass::TlsOnly),
        ("https://a.test/main/noarch/x.conda", AuthorityClass::CondaSha256),
        ("https://a.test/packages/x.whl", AuthorityClass::PypiHash),
        ("https://a.test/said", AuthorityClass::Declared),
        ("https://a.test/simple/x/", AuthorityClass::TlsOnly),
        ("https://a.test/x", AuthorityClass::TlsOnly),
        ("https://a.test/x/-/x-1.0.0.tgz", AuthorityClass::NpmIntegrity),
    ];
    for (url, class) in expected {
        if class == AuthorityClass::Declared {
            let digest = Digest::of(b"said");
            step.netlog.fetch(url, "layer: run", Some(&digest)).unwrap();
        } else {
            step.get(url);
        }
    }
    let record = step.end();
    let told: Vec<(&str, AuthorityClass)> =
        record.fetches.iter().map(|fetch| (fetch.url.as_str(), fetch.authority)).collect();
    assert_eq!(told, expected);
}
