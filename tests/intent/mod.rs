//! Definitions and recipes: the repository's own, and what users are told of everything else.

mod problems;
mod schemas;

use std::path::PathBuf;

use ocibuild::plan::Sources;
use ocibuild::text::Problems;
use ocibuild::{definition, recipe};

fn package() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_repositorys_own_files_are_right() {
    let folder = package().join("manifests");
    for name in definition::names(&folder).unwrap() {
        let path = definition::find(&name, &folder).unwrap();
        let sources = Sources::load(&path).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(sources.recipes.len(), sources.definition.layers.len());
    }
    for folder in ["layers", "tests/fixtures/layers"] {
        for entry in std::fs::read_dir(package().join(folder)).unwrap() {
            let problems = Problems::new();
            let recipe = recipe::load(&entry.unwrap().path(), &problems);
            problems.finish(recipe).unwrap_or_else(|error| panic!("{error}"));
        }
    }
}
