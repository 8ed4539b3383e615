//! Definitions and recipes: the repository's own, good and bad examples, and the schemas.

use std::path::{Path, PathBuf};

use ocibuild::definition;
use ocibuild::plan::Sources;

fn package() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_repositorys_own_files_are_right() {
    let folder = package().join("manifests");
    for name in definition::names(&folder).unwrap() {
        let path = definition::find(&name, &folder).unwrap();
        if let Err(error) = Sources::load(Path::new(&path)) {
            panic!("{error}");
        }
    }
}
