//! Who vouches for what: a pass over a layer's record that looks for each body's digest in the
//! indexes which the layer fetched itself.
//!
//! ```text
//! apt:    InRelease, signed -> digest of Packages.xz -> digest of a .deb
//! pip:    page of a project, by TLS -> #sha256= of a wheel
//! npm:    description of a package, by TLS -> sha512 of its .tgz
//! conda:  repodata.json, by TLS -> sha256 of a package
//! ```
//!
//! A chain goes by digests, never by names. Whether the signature is good is apt's business, which
//! ends the step where it isn't, unless the recipe told it not to look.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::ops::ControlFlow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha512};

use super::{AuthorityClass, Bodies, Fetch, Method};
use crate::oci::Digest;

/// The largest `Release` that is read; Debian's has a quarter of a megabyte.
const MOST_RELEASE: u64 = 32 << 20;

/// What decompressing may take, in KiB: `xz -9` wants 64 MiB.
const MOST_MEMORY: u32 = 256 << 10;

/// Raises the class of each fetch for which something recorded beside it vouches. `declared` are the
/// digests that the recipe gives.
pub(super) fn classify(fetches: &mut [Fetch], bodies: &dyn Bodies, declared: &BTreeSet<Digest>) {
    let mut wanted = BTreeMap::new();
    for fetch in fetches.iter().filter(|fetch| fetch.status == 200 && fetch.size > 0) {
        wanted.insert(fetch.digest, AuthorityClass::None);
    }
    let mut found = Found { wanted, bodies };
    for digest in declared {
        found.vouch(digest, AuthorityClass::Declared);
    }
    found.apt(fetches);
    found.pages(fetches);
    found.npm(fetches);
    for fetch in fetches.iter_mut().filter(|fetch| fetch.status == 200) {
        let class = found.wanted.get(&fetch.digest).copied();
        fetch.authority = fetch.authority.min(class.unwrap_or(AuthorityClass::None));
    }
}

struct Found<'a> {
    /// The digests in question, with the best that was found for each.
    wanted: BTreeMap<Digest, AuthorityClass>,
    bodies: &'a dyn Bodies,
}

impl Found<'_> {
    fn vouch(&mut self, digest: &Digest, class: AuthorityClass) {
        if let Some(best) = self.wanted.get_mut(digest) {
            *best = class.min(*best);
        }
    }

    /// Opens a body. An index that can't be read vouches for nothing, which is what is then said.
    fn open(&self, fetch: &Fetch) -> Option<File> {
        self.bodies.open(&fetch.digest).ok().flatten()
    }

    fn apt(&mut self, fetches: &[Fetch]) {
        let whole: Vec<&Fetch> = fetches.iter().filter(|fetch| is_body(fetch)).collect();
        let signatures: BTreeSet<&str> =
            whole.iter().filter_map(|fetch| fetch.url.strip_suffix("/Release.gpg")).collect();
        let mut indexes = BTreeSet::new();
        let mut seen = BTreeSet::new();
        for fetch in &whole {
            if seen.contains(&fetch.digest) {
                continue;
            }
            let Some(text) = self.signed(fetch, &signatures) else { continue };
            seen.insert(fetch.digest);
            self.vouch(&fetch.digest, AuthorityClass::Gpg);
            for (digest, path) in listed(&text) {
                self.vouch(&digest, AuthorityClass::AptChain);
                let name = path.rsplit('/').next().unwrap_or(path);
                let stem = name.split('.').next().unwrap_or(name);
                if matches!(stem, "Packages" | "Sources") {
                    indexes.insert(digest);
                }
            }
        }
        for fetch in &whole {
            if fetch.url.ends_with("/Release.gpg") {
                self.vouch(&fetch.digest, AuthorityClass::Gpg);
            }
            if !indexes.remove(&fetch.digest) {
                continue;
            }
            // An index has tens of megabytes, so none is read for nothing.
            let packages: BTreeSet<Digest> = whole
                .iter()
                .filter(|fetch| is_package(&fetch.url))
                .map(|fetch| fetch.digest)
                .filter(|digest| self.wanted.get(digest) == Some(&AuthorityClass::None))
                .collect();
            if !packages.is_empty() {
                self.scan(fetch, AuthorityClass::AptChain, Some(packages));
            }
        }
    }

    /// Reads a signed `Release`.
    fn signed(&self, fetch: &Fetch, signatures: &BTreeSet<&str>) -> Option<String> {
        let inline = fetch.url.ends_with("/InRelease");
        let beside = fetch.url.strip_suffix("/Release").is_some_and(|at| signatures.contains(at));
        if !inline && !beside {
            return None;
        }
        let mut text = String::new();
        self.open(fetch)?.take(MOST_RELEASE).read_to_string(&mut text).ok()?;
        (beside || text.starts_with("-----BEGIN PGP SIGNED MESSAGE-----")).then_some(text)
    }

    /// Looks into pages of Python's projects and conda's channels.
    fn pages(&mut self, fetches: &[Fetch]) {
        let mut seen = BTreeSet::new();
        for fetch in fetches.iter().filter(|fetch| is_trusted_page(fetch)) {
            let path = fetch.url.split('?').next().unwrap_or(&fetch.url);
            let name = path.rsplit('/').next().unwrap_or(path);
            let class = if path.contains("/simple/") || path.contains("/pypi/") && is_json(fetch) {
                AuthorityClass::PypiHash
            } else if name.starts_with("repodata") || name.starts_with("current_repodata") {
                AuthorityClass::CondaSha256
            } else {
                continue;
            };
            // Several URLs may have given the same page.
            if seen.insert((fetch.digest, class)) {
                self.scan(fetch, class, None);
            }
        }
    }

    fn npm(&mut self, fetches: &[Fetch]) {
        let host = |url: &str| url.split('/').nth(2).unwrap_or_default().to_owned();
        let archives: Vec<&Fetch> = fetches
            .iter()
            .filter(|fetch| is_body(fetch) && fetch.url.contains("/-/"))
            .filter(|fetch| fetch.url.strip_suffix(".tgz").is_some())
            .collect();
        let hosts: BTreeSet<String> = archives.iter().map(|fetch| host(&fetch.url)).collect();
        let mut integrity = BTreeSet::new();
        let mut seen = BTreeSet::new();
        for page in fetches.iter().filter(|fetch| is_trusted_page(fetch) && is_json(fetch)) {
            if hosts.contains(&host(&page.url))
                && seen.insert(page.digest)
                && let Some(file) = self.open(page)
            {
                integrities(file, &mut integrity).ok();
            }
        }
        if integrity.is_empty() {
            return;
        }
        for archive in archives {
            let Some(hash) = self.open(archive).and_then(|file| sha512(file).ok()) else {
                continue;
            };
            if integrity.contains(hash.as_bytes()) {
                self.vouch(&archive.digest, AuthorityClass::NpmIntegrity);
            }
        }
    }

    /// Vouches for each digest that an index names; reads on until all of `sought` are found.
    fn scan(&mut self, index: &Fetch, class: AuthorityClass, mut sought: Option<BTreeSet<Digest>>) {
        let Some(file) = self.open(index) else { return };
        let itself = index.digest;
        let mut named = Vec::new();
        let wanted = &self.wanted;
        let read = plain(file).and_then(|reader| {
            digests(reader, |digest| {
                if digest != itself && wanted.contains_key(&digest) {
                    named.push(digest);
                }
                let is_last = sought.as_mut().is_some_and(|sought| {
                    sought.remove(&digest);
                    sought.is_empty()
                });
                if is_last { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
        });
        // A part that can't be decompressed vouches for nothing; what was read before does.
        read.ok();
        for digest in named {
            self.vouch(&digest, class);
        }
    }
}

/// Tells what apt's indexes may list from what they never do.
fn is_package(url: &str) -> bool {
    url.contains("/pool/")
        || [".deb", ".udeb", ".dsc"].iter().any(|ending| url.strip_suffix(ending).is_some())
}

fn is_body(fetch: &Fetch) -> bool {
    fetch.method == Method::Get && fetch.status == 200 && fetch.size > 0
}

fn is_trusted_page(fetch: &Fetch) -> bool {
    is_body(fetch) && fetch.url.starts_with("https:")
}

fn is_json(fetch: &Fetch) -> bool {
    fetch.headers.get("content-type").is_some_and(|kind| kind.contains("json"))
}

/// Reads what a `Release` lists under `SHA256`: digests and paths.
fn listed(release: &str) -> Vec<(Digest, &str)> {
    let section = release.lines().skip_while(|line| !line.starts_with("SHA256:")).skip(1);
    section
        .take_while(|line| line.starts_with(' '))
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let digest = format!("sha256:{}", words.next()?).parse().ok()?;
            Some((digest, words.nth(1)?))
        })
        .collect()
}

/// Undoes a compression, told by its first bytes.
fn plain(file: File) -> io::Result<Box<dyn Read>> {
    let mut reader = BufReader::with_capacity(256 << 10, file);
    let start = reader.fill_buf()?;
    Ok(if start.starts_with(&[0x1f, 0x8b]) {
        Box::new(flate2::bufread::MultiGzDecoder::new(reader))
    } else if start.starts_with(b"\xfd7zXZ\0") {
        Box::new(lzma_rust2::XzReader::new_mem_limit(reader, true, MOST_MEMORY))
    } else if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        Box::new(zstd::Decoder::with_buffer(reader)?)
    } else {
        Box::new(reader)
    })
}

/// Finds every SHA-256 in a text: a run of exactly 64 hexadecimal digits.
fn digests(
    mut reader: impl Read,
    mut each: impl FnMut(Digest) -> ControlFlow<()>,
) -> io::Result<()> {
    let mut piece = vec![0; 256 << 10];
    let mut run = Vec::with_capacity(65);
    loop {
        let count = reader.read(&mut piece)?;
        for byte in &piece[..count] {
            if byte.is_ascii_hexdigit() {
                if run.len() <= 64 {
                    run.push(*byte);
                }
                continue;
            }
            if run.len() == 64
                && let Some(digest) = digest_of(&run)
                && each(digest).is_break()
            {
                return Ok(());
            }
            run.clear();
        }
        if count == 0 {
            if let Some(digest) = digest_of(&run) {
                let _ = each(digest);
            }
            return Ok(());
        }
    }
}

fn digest_of(run: &[u8]) -> Option<Digest> {
    format!("sha256:{}", str::from_utf8(run).ok()?).parse().ok()
}

/// Finds every `sha512-…` in a text.
fn integrities(mut reader: impl Read, found: &mut BTreeSet<Vec<u8>>) -> io::Result<()> {
    const START: &[u8] = b"sha512-";
    const LENGTH: usize = 88;
    let finder = memchr::memmem::Finder::new(START);
    let mut text = Vec::new();
    let mut piece = vec![0; 256 << 10];
    loop {
        let count = reader.read(&mut piece)?;
        text.extend_from_slice(&piece[..count]);
        for at in finder.find_iter(&text) {
            if let Some(hash) = text.get(at + START.len()..at + START.len() + LENGTH) {
                found.insert(hash.to_vec());
            }
        }
        if count == 0 {
            return Ok(());
        }
        // What may have been cut.
        text.drain(..text.len().saturating_sub(START.len() + LENGTH - 1));
    }
}

fn sha512(mut file: File) -> io::Result<String> {
    let mut hasher = Sha512::new();
    let mut piece = vec![0; 256 << 10];
    loop {
        let count = file.read(&mut piece)?;
        if count == 0 {
            return Ok(STANDARD.encode(hasher.finalize()));
        }
        hasher.update(&piece[..count]);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};
    use std::sync::Mutex;

    use super::super::{BodyWriter, Variant};
    use super::*;

    #[test]
    fn digests_are_runs_of_exactly_64_digits_wherever_a_piece_ends() {
        struct Bytewise<'a>(&'a [u8]);
        impl Read for Bytewise<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.0.read(&mut buffer[..1])
            }
        }
        let one = Digest::of(b"1");
        let text =
            format!("SHA256: {0}\nSHA512: {0}{0}\nMD5: {1}\n{0}", one.hex(), &one.hex()[32..]);
        let mut found = Vec::new();
        digests(Bytewise(text.as_bytes()), |digest| {
            found.push(digest);
            ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!(found, [one, one]);
        let hash = "a".repeat(88);
        let mut found = BTreeSet::new();
        let text = format!("{{\"integrity\":\"sha512-{hash}\"}} sha512-short");
        integrities(Bytewise(text.as_bytes()), &mut found).unwrap();
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [hash.as_bytes()]);
    }

    #[test]
    fn no_index_is_read_twice() {
        /// Bodies that count how often each is opened.
        struct Counted {
            bodies: BTreeMap<Digest, &'static [u8]>,
            opened: Mutex<BTreeMap<Digest, usize>>,
        }
        impl Bodies for Counted {
            fn open(&self, digest: &Digest) -> io::Result<Option<File>> {
                let Some(body) = self.bodies.get(digest) else { return Ok(None) };
                *self.opened.lock().unwrap().entry(*digest).or_default() += 1;
                let mut file = tempfile::tempfile()?;
                file.write_all(body)?;
                file.rewind()?;
                Ok(Some(file))
            }
            fn discard(&self, _: &Digest) -> io::Result<()> {
                unreachable!("nothing here is damaged")
            }
            fn begin(&self) -> io::Result<Box<dyn BodyWriter>> {
                unreachable!("nothing is kept")
            }
        }
        let one = Digest::of(b"1").hex();
        let leak = |text: String| -> &'static [u8] { Box::leak(text.into_boxed_str()).as_bytes() };
        let packages = leak(format!("SHA256: {one}\n"));
        let release = leak(format!(
            "-----BEGIN PGP SIGNED MESSAGE-----\nSHA256:\n {} 1 main/Packages\n",
            Digest::of(packages).hex()
        ));
        let page = leak(format!("x.whl#sha256={one}"));
        let repodata = leak(format!("{{\"sha256\":\"{one}\"}}"));
        let about = b"{\"integrity\":\"sha512-\"}";
        let indexes = [
            ("http://a/dists/x/InRelease", release),
            ("http://a/dists/x/main/Packages", packages),
            ("https://a/simple/x/", page),
            ("https://a/noarch/repodata.json", repodata),
            ("https://a/x", about),
        ];
        let fetch = |url: String, body: &[u8]| Fetch {
            headers: [("content-type".to_owned(), "application/json".to_owned())]
                .into_iter()
                .filter(|_| url.ends_with("/x"))
                .collect(),
            url,
            method: Method::Get,
            variant: Variant::default(),
            credentials: false,
            turn: 0,
            status: 200,
            digest: Digest::of(body),
            size: body.len() as u64,
            authority: AuthorityClass::None,
        };
        let mut fetches = vec![
            fetch("http://a/pool/one.deb".to_owned(), b"1"),
            fetch("https://a/x/-/x-1.tgz".to_owned(), b"an archive"),
        ];
        // The same again from another place.
        for (url, body) in indexes {
            fetches.push(fetch(url.to_owned(), body));
            fetches.push(fetch(url.replace("//a/", "//a/mirror/"), body));
        }
        let bodies = Counted {
            bodies: indexes.iter().map(|(_, body)| (Digest::of(body), *body)).collect(),
            opened: Mutex::default(),
        };
        classify(&mut fetches, &bodies, &BTreeSet::new());
        assert_eq!(fetches[0].authority, AuthorityClass::AptChain);
        let opened = bodies.opened.into_inner().unwrap();
        for (url, body) in indexes {
            assert_eq!(opened.get(&Digest::of(body)), Some(&1), "{url}: {opened:?}");
        }
    }

    #[test]
    fn a_release_lists_digests_with_paths() {
        let one = Digest::of(b"1");
        let text = format!(
            "Date: x\nMD5Sum:\n 00 1 a/b\nSHA256:\n {0}  12 main/Packages.xz\n {0} 1 x\nSHA512:\n {0} 1 y\n",
            one.hex()
        );
        assert_eq!(listed(&text), [(one, "main/Packages.xz"), (one, "x")]);
    }
}
