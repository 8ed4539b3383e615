//! Questions about owners that a process finds the answer to by itself, since it was stopped for
//! them before: the answers are those that it would have been given.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::ownership::{debian, over, steps_alike};
use crate::support::cli::Who;
use crate::support::driver::{Step, lines};

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/drivers/owners.pl");

fn with_program(base: &Path) {
    let program = base.join("owners.pl");
    std::fs::copy(PROGRAM, &program).unwrap();
    let owner = std::fs::metadata(base).unwrap();
    std::os::unix::fs::chown(&program, Some(owner.uid()), Some(owner.gid())).unwrap();
}

#[test]
fn whatever_is_changed_the_same_is_told() {
    // `SEEDS` asks for more walks than a run of all tests has time for.
    let seeds: u32 = std::env::var("SEEDS").map_or(2, |seeds| seeds.parse().unwrap());
    let step = |seed: u32| Step::new(&format!("perl /owners.pl {seed}000 3000"));
    for seed in 1..=seeds {
        // Every other time over what another step has left.
        let steps = if seed % 2 == 0 { vec![step(seed + 1), step(seed)] } else { vec![step(seed)] };
        let said = steps_alike(&steps, &with_program);
        assert!(said.len() > 9_000, "{}", said.len());
        // Owners by path, owners by chown, links, what isn't there, what may not be seen.
        for part in [" 0:42 ", " 65533:", " 2\n", "none: 2", "none: 13", "inside", "here"] {
            let mut found = said.iter().filter(|line| format!("{line}\n").contains(part));
            assert!(found.next().is_some(), "{part}");
        }
    }
}

#[test]
fn a_process_that_asks_often_is_not_stopped_any_more() {
    let (driver, sidecar) = debian(Who::Range);
    let script = r#"perl -e '
        sub maps { open my $f, "<", "/proc/self/maps"; grep { /ocibuild-owners/ } <$f> }
        print scalar(maps()), "\n"; stat "/etc/passwd" for 1..100; print scalar(maps()), "\n"'"#;
    let results = over(&driver, &sidecar, "single", &[Step::new(script)]);
    assert_eq!(lines(&results[0]), ["0", "1"]);
}
