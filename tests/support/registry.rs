//! Debian's `docker-registry` (distribution 2.8) on loopback: plain, behind TLS, with passwords or
//! with tokens. It stops and its files vanish when the value is dropped.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::{TempDir, free_port, run, temp_dir};

/// A certificate for 127.0.0.1, localhost and registry.test, with the authority that signed it.
pub(crate) struct Tls {
    dir: TempDir,
    asks: bool,
}

impl Tls {
    /// Makes an authority and a certificate with `openssl`.
    pub(crate) fn new() -> Tls {
        let tls = Tls { dir: temp_dir(), asks: false };
        let authority = ["-x509", "-out", "ca.crt", "-days", "2"];
        let is_one = ["-addext", "basicConstraints=critical,CA:TRUE"];
        tls.request("/CN=test authority", "ca.key", &[&authority[..], &is_one].concat());
        tls.request("/CN=localhost", "server.key", &["-out", "server.csr"]);
        let extensions = "subjectAltName=DNS:localhost,DNS:registry.test,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n";
        std::fs::write(tls.dir.path().join("extensions"), extensions).unwrap();
        tls.sign("server.csr", "server.crt", &["-extfile", "extensions"]);
        tls
    }

    fn openssl(&self, first: &[&str], rest: &[&str]) {
        run(Command::new("openssl").args(first).args(rest).current_dir(self.dir.path()));
    }

    /// Makes a key, and what `rest` says with it.
    fn request(&self, subject: &str, key: &str, rest: &[&str]) {
        let kind = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
        let what = ["-subj", subject, "-keyout", key];
        self.openssl(&[&kind[..], &what].concat(), rest);
    }

    /// Has the authority sign a request.
    fn sign(&self, request: &str, certificate: &str, rest: &[&str]) {
        let by = ["x509", "-req", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial"];
        let what = ["-days", "2", "-in", request, "-out", certificate];
        self.openssl(&[&by[..], &what].concat(), rest);
    }

    /// Has a registry let in nobody without a certificate of this authority.
    pub(crate) fn asking(self) -> Tls {
        Tls { asks: true, ..self }
    }

    /// Makes a client's certificate and its key in a folder, as `client.cert` and `client.key`.
    pub(crate) fn client(&self, folder: &Path) {
        let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
        self.request("/CN=a client", &path("client.key"), &["-out", "client.csr"]);
        self.sign("client.csr", &path("client.cert"), &[]);
    }

    /// The authority's certificate, as `SSL_CERT_FILE` takes it.
    pub(crate) fn authority(&self) -> PathBuf {
        self.dir.path().join("ca.crt")
    }

    /// The server's certificate.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.dir.path().join("server.crt")
    }

    /// The server's key.
    pub(crate) fn key(&self) -> PathBuf {
        self.dir.path().join("server.key")
    }
}

/// How clients have to identify themselves.
pub(crate) enum Auth<'a> {
    /// Not at all.
    None,
    /// With this user and password.
    Basic(&'a str, &'a str),
    /// With a token of the server at `realm`, signed by a certificate in `bundle`.
    Token {
        /// Where tokens are had.
        realm: &'a str,
        /// The audience of the tokens.
        service: &'a str,
        /// Their issuer.
        issuer: &'a str,
        /// Certificates that may sign them.
        bundle: &'a Path,
    },
}

/// A running registry.
pub(crate) struct Registry {
    child: Child,
    dir: TempDir,
    port: u16,
}

impl Registry {
    /// Starts one that is open to anyone over plain HTTP.
    pub(crate) fn plain() -> Registry {
        Registry::start(None, &Auth::None)
    }

    /// Starts one that has nothing but what it fetches from another when it is asked.
    pub(crate) fn caching(other: &Registry) -> Registry {
        let proxy = format!("proxy:\n  remoteurl: http://{}\n", other.host());
        Registry::start_with(None, &Auth::None, &proxy)
    }

    /// Starts one. It is ready when this returns.
    pub(crate) fn start(tls: Option<&Tls>, auth: &Auth<'_>) -> Registry {
        Registry::start_with(tls, auth, "")
    }

    fn start_with(tls: Option<&Tls>, auth: &Auth<'_>, more: &str) -> Registry {
        let dir = temp_dir();
        // Between choosing a port and listening on it another test may take it.
        for _ in 0..5 {
            let port = free_port();
            let config = dir.path().join("config.yml");
            std::fs::write(&config, text(dir.path(), port, tls, auth) + more).unwrap();
            let log = std::fs::File::create(dir.path().join("log")).unwrap();
            let mut child = Command::new("docker-registry")
                .arg("serve")
                .arg(&config)
                .env_clear()
                // Memory is plenty, and collecting it would be a good part of the work.
                .env("GOGC", "800")
                .stdin(Stdio::null())
                .stdout(log.try_clone().unwrap())
                .stderr(log)
                .spawn()
                .expect("the tests need the package docker-registry");
            let start = Instant::now();
            while start.elapsed() < Duration::from_secs(20) {
                if child.try_wait().unwrap().is_some() {
                    break;
                }
                if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                    return Registry { child, dir, port };
                }
                sleep(Duration::from_millis(10));
            }
            child.kill().ok();
            child.wait().ok();
        }
        let log = std::fs::read_to_string(dir.path().join("log")).unwrap_or_default();
        panic!("docker-registry does not start: {log}");
    }

    /// Returns `127.0.0.1:PORT`.
    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Returns the name of an image here, as `127.0.0.1:PORT/NAME`.
    pub(crate) fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.host())
    }

    /// Returns the folder in which it keeps everything.
    pub(crate) fn storage(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Returns what it has logged so far: one line a request, among others.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn text(dir: &Path, port: u16, tls: Option<&Tls>, auth: &Auth<'_>) -> String {
    use std::fmt::Write;
    let data = dir.join("data");
    let mut text = format!(
        "version: 0.1\nlog:\n  level: warn\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\nhttp:\n  addr: 127.0.0.1:{port}\n  secret: of-the-tests\n",
        data.display()
    );
    if let Some(tls) = tls {
        let (certificate, key) = (tls.certificate(), tls.key());
        writeln!(
            text,
            "  tls:\n    certificate: {}\n    key: {}",
            certificate.display(),
            key.display()
        )
        .unwrap();
        if tls.asks {
            writeln!(text, "    clientcas:\n      - {}", tls.authority().display()).unwrap();
        }
    }
    match auth {
        Auth::None => {}
        Auth::Basic(user, password) => {
            let file = dir.join("htpasswd");
            let line =
                run(Command::new("htpasswd").args(["-nbB", "-C", "4", user, password])).stdout;
            std::fs::write(&file, line).unwrap();
            writeln!(text, "auth:\n  htpasswd:\n    realm: tests\n    path: {}", file.display())
                .unwrap();
        }
        Auth::Token { realm, service, issuer, bundle } => {
            writeln!(
                text,
                "auth:\n  token:\n    realm: {realm}\n    service: {service}\n    issuer: {issuer}\n    rootcertbundle: {}",
                bundle.display()
            )
            .unwrap();
        }
    }
    text
}
