//! Certificates of one registry: the authority that vouches for it, and who we are to it, in the
//! folders in which podman and docker keep them.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::cli::{Project, Ran, Who};
use crate::support::free_port;
use crate::support::nginx::Nginx;
use crate::support::registry::{Auth, Registry, Tls};

/// Makes the folder of a registry's certificates in a project's home.
fn folder(project: &Project, registry: &str) -> PathBuf {
    let folder = project.path("home/.config/containers/certs.d").join(registry);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// What skopeo, which reads the same folder, says of a tag.
fn skopeo(project: &Project, name: &str) -> Ran {
    let mut command = Command::new("skopeo");
    command.args(["inspect", "--raw", &format!("docker://{name}")]);
    Ran::of(command.env("HOME", project.path("home")).env_remove("XDG_CONFIG_HOME"))
}

#[test]
fn a_registry_that_knows_its_clients_by_certificate_is_pushed_to_and_pulled_from() {
    let tls = Tls::new().asking();
    let registry = Registry::start(Some(&tls), &Auth::None);
    let project = Project::with_tiny_base(Who::Root);
    let name = registry.image("a/b:1");
    let push = ["push", "localhost/tiny:1", "--to", &name];

    let stderr = project.run(&push).fails(3);
    assert!(stderr.contains("certs.d/HOST[:PORT]/ca.crt"), "{stderr}");
    let folder = folder(&project, &registry.host());
    std::fs::copy(tls.authority(), folder.join("ca.crt")).unwrap();
    let stderr = project.run(&push).fails(1);
    assert!(stderr.contains("client.cert and client.key"), "{stderr}");
    assert!(!stderr.contains("in 6 tries"), "it will never do: {stderr}");
    tls.client(&folder);
    project.run(&push).ok();
    assert!(skopeo(&project, &name).ok().contains("manifests"));
    project.run(&["remove", "localhost/tiny:1"]).ok();
    project.run(&["pull", &name]).ok();

    // The folder is the one of that name, port and all, and what is wrong with it is named.
    let other = format!("localhost:{}/a/b:1", registry.host().split(':').nth(1).unwrap());
    project.run(&["pull", &other]).fails(3);
    std::fs::remove_file(folder.join("client.key")).unwrap();
    let stderr = project.run(&["pull", &name]).fails(3);
    assert!(stderr.contains("client.key"), "{stderr}");
    skopeo(&project, &name).code().filter(|code| *code != 0).unwrap();
    std::fs::write(folder.join("client.key"), "no key").unwrap();
    let stderr = project.run(&["pull", &name]).fails(3);
    assert!(stderr.contains("client.key") && stderr.contains("no private key"), "{stderr}");
}

#[test]
fn one_registrys_authority_vouches_for_no_other() {
    let (ours, theirs) = (Tls::new(), Tls::new());
    let one = Registry::start(Some(&ours), &Auth::None);
    let two = Registry::start(Some(&theirs), &Auth::None);
    let project = Project::with_tiny_base(Who::Root);
    std::fs::copy(ours.authority(), folder(&project, &one.host()).join("ca.crt")).unwrap();
    std::fs::copy(ours.authority(), folder(&project, &two.host()).join("ca.crt")).unwrap();
    project.run(&["push", "localhost/tiny:1", "--to", &one.image("a:1")]).ok();
    project.run(&["push", "localhost/tiny:1", "--to", &two.image("a:1")]).fails(3);
    std::fs::copy(theirs.authority(), folder(&project, &two.host()).join("second.crt")).unwrap();
    project.run(&["copy", &one.image("a:1"), &two.image("a:1")]).ok();
}

/// nginx before a registry: at one port it lets in who has a certificate and sends blobs' readers to
/// the other one, which asks for a certificate, too, but lets in anyone.
fn front(registry: &Registry, tls: &Tls) -> Nginx {
    let (port, blobs) = (free_port(), free_port());
    let common = format!(
        "ssl_certificate {}; ssl_certificate_key {}; ssl_client_certificate {};",
        tls.certificate().display(),
        tls.key().display(),
        tls.authority().display()
    );
    let pass = format!(
        "client_max_body_size 0; proxy_set_header Host $http_host; proxy_pass http://{};",
        registry.host()
    );
    let servers = format!(
        "log_format who '$ssl_client_verify $request'; access_log LOGS/log who;\n\
         server {{ listen 127.0.0.1:{port} ssl; {common} ssl_verify_client on;\n\
         location ~ /blobs/sha256: {{ if ($request_method = GET) {{ return 307 \
         https://localhost:{blobs}$request_uri; }} {pass} }}\n\
         location / {{ {pass} }} }}\n\
         server {{ listen 127.0.0.1:{blobs} ssl; {common} ssl_verify_client optional;\n\
         access_log LOGS/blobs who; location / {{ {pass} }} }}"
    );
    Nginx::start(port, &servers)
}

#[test]
fn our_certificate_is_shown_to_no_host_that_a_registry_leads_to() {
    let tls = Tls::new();
    let registry = Registry::plain();
    let front = front(&registry, &tls);
    let host = front.host();
    let name = format!("{host}/a/b:1");
    let project = Project::with_tiny_base(Who::Root);
    let folder = folder(&project, &host);
    std::fs::copy(tls.authority(), folder.join("ca.crt")).unwrap();
    let push = ["push", "localhost/tiny:1", "--to", &name];
    // nginx lets one in so far as to say in a page why not.
    let stderr = project.run(&push).fails(1);
    assert!(stderr.contains("No required SSL certificate was sent"), "{stderr}");
    assert!(stderr.contains("client.cert and client.key"), "{stderr}");
    tls.client(&folder);
    project.run(&push).ok();
    assert!(front.read("log").contains("SUCCESS PUT /v2/a/b/manifests/1"), "{}", front.read("log"));
    let empty = project.path("other");
    let store = ["pull", &name, "--store", empty.to_str().unwrap()];
    project.run(&store).ok();
    assert!(is_verified(&empty));
    let blobs = front.read("blobs");
    assert!(blobs.contains("NONE GET /v2/a/b/blobs/"), "{blobs}");
    assert!(!blobs.contains("SUCCESS"), "{blobs}");
}

fn is_verified(store: &Path) -> bool {
    let mut command = Command::new(crate::support::cli::binary());
    Ran::of(command.args(["verify", "--store"]).arg(store)).code() == Some(0)
}
