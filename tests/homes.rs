//! What lies in a user's home counts whoever she is: as root, with a range of ids, with one.

use crate::support::cli::{Project, Ran, Who};
use crate::support::image;
use crate::support::registry::{Auth, Registry, Tls};

/// A file of containers' with one credential.
fn auths(host: &str) -> String {
    use base64::Engine as _;
    let auth = base64::engine::general_purpose::STANDARD.encode("me:pass:word");
    format!("{{\"auths\":{{\"{host}\":{{\"auth\":\"{auth}\"}}}}}}")
}

#[test]
fn certificates_credentials_and_places_of_a_home_serve_push_pull_copy_and_build() {
    let tls = Tls::new();
    let closed = Registry::start(Some(&tls), &Auth::Basic("me", "pass:word"));
    let open = Registry::plain();
    let authority = std::fs::read(tls.authority()).unwrap();
    let mut digests = Vec::new();
    for who in [Who::Root, Who::Range, Who::Single] {
        let project = Project::with_tiny_base(who);
        let of = format!("{who:?}").to_lowercase();
        let (name, host) = (closed.image(&format!("{of}/app:1")), closed.host());
        project.script("own", "echo own > /srv/own; chown 5:7 /srv/own").write(
            "manifests/app.toml",
            format!(
                "image = \"{name}\"\nbase = \"localhost/tiny:1\"\n\
                 platforms = [\"linux/amd64\"]\nlayers = [\"own\"]\n"
            ),
        );
        let build = ["build", "app", "--push"];
        project.run(&build).fails(3);
        project.write(&format!("home/.config/containers/certs.d/{host}/ca.crt"), &authority);
        let stderr = project.run(&build).fails(1);
        assert!(stderr.contains("401") || stderr.contains("password"), "{who:?}: {stderr}");
        assert!(!stderr.contains("pass:word"), "{who:?}: {stderr}");

        // Each of the files in which a credential may be, alone.
        let with = |variable: Option<(&str, &str)>, arguments: &[&str]| {
            let mut command = project.command(arguments);
            command.envs(variable.map(|(name, path)| (name, project.path(path))));
            Ran::of(&mut command)
        };
        let push = ["push", &name, "--only", "-vv"];
        for (file, variable) in [
            ("home/named.json", Some(("REGISTRY_AUTH_FILE", "home/named.json"))),
            ("home/docker/config.json", Some(("DOCKER_CONFIG", "home/docker"))),
            ("home/run/containers/auth.json", Some(("XDG_RUNTIME_DIR", "home/run"))),
            ("home/.docker/config.json", None),
            ("home/.config/containers/auth.json", None),
        ] {
            project.write(file, auths(&host));
            let ran = with(variable, &push);
            for secret in ["pass:word", "bWU6cGFzczp3b3Jk"] {
                assert!(!ran.stderr().contains(secret), "{who:?}: {ran}");
            }
            ran.ok();
            std::fs::remove_file(project.path(file)).unwrap();
            with(variable, &push).fails(1);
        }
        project.write("home/.config/containers/auth.json", auths(&host));
        let digest = project.run(&build).ok();
        digests.push(digest.rsplit('@').next().unwrap_or_default().to_owned());

        // A mirror, a place of another name, and a short name.
        project.write(
            "home/.config/containers/registries.conf",
            format!(
                "[[registry]]\nprefix = \"images.test\"\nlocation = \"{host}/{of}\"\n\
                 [[registry.mirror]]\nlocation = \"{}/{of}\"\n[aliases]\napp = \"images.test/app\"\n",
                open.host()
            ),
        );
        let mirrored = open.image(&format!("{of}/app:1"));
        let copied = project.run(&["copy", &name, &mirrored]).ok();
        let digest = copied.rsplit('@').next().unwrap();
        let before = open.log().len();
        let fresh = project.path("home/fresh");
        let store = ["--store", fresh.to_str().unwrap()];
        let pull = ["pull", "app:1", "--unpack", "--disk", "40M"];
        let ran = project.run(&[&pull[..], &store].concat());
        assert!(ran.stderr().contains("disk: "), "{who:?}: {ran}");
        assert_eq!(ran.ok(), digest, "{who:?}");
        assert!(open.log()[before..].contains("/blobs/sha256:"), "{who:?}: by the mirror");
        let refused = project.run(&["pull", "app:1", "--disk", "1k"]);
        assert_eq!(refused.code(), Some(3), "{who:?}: {refused}");
        let listed = project.run(&[&["list"][..], &store].concat()).ok();
        assert!(listed.contains("images.test/app:1"), "{who:?}: {listed}");
        assert_eq!(image::check(&open.host(), &format!("{of}/app"), "1").0, digest, "{who:?}");
    }
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
}
