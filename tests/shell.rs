//! Looking around by hand: in the build's namespace, in an image, and where a step failed.

use crate::support::cli::{Project, Who, names};

#[test]
fn unshare_shows_and_removes_what_belongs_to_subordinate_ids() {
    for who in [Who::Root, Who::Range] {
        let project = Project::of(who);
        let make = "umask 077; mkdir -p home/left/locked; touch home/left/locked/file; \
                    chown -R 7:7 home/left; chmod 0 home/left/locked; stat -c %u:%g home/left";
        assert_eq!(project.run(&["unshare", "--", "sh", "-c", make]).ok(), "7:7", "{who:?}");
        assert_eq!(project.run(&["unshare", "id", "-u"]).ok(), "0", "{who:?}");
        project.run(&["unshare", "--", "rm", "-r", "home/left"]).ok();
        assert_eq!(names(&project.path("home")), Vec::<String>::new());
    }
}

#[test]
fn unshare_passes_the_exit_code_on() {
    let project = Project::new();
    let ran = project.run(&["unshare", "--", "sh", "-c", "exit 42"]);
    assert_eq!(ran.code(), Some(42), "{ran}");
    let ran = project.run(&["unshare", "--", "sh", "-c", "kill -9 $$"]);
    assert_eq!(ran.code(), Some(137), "{ran}");
    let stderr = project.run(&["unshare", "--", "/no/such/program"]).fails(1);
    assert!(stderr.contains("/no/such/program"), "{stderr}");
}
