//! A package of Debian's kind, and the index that lists it.

use std::process::Command;

use super::{image, run, temp_dir};

/// The package, and the index of an archive that has it beside that as `of-the-test_1_all.deb`.
pub(crate) fn of_the_test() -> (Vec<u8>, String) {
    let dir = temp_dir();
    let tree = dir.path().join("tree");
    std::fs::create_dir_all(tree.join("DEBIAN")).unwrap();
    std::fs::create_dir_all(tree.join("usr/share")).unwrap();
    std::fs::write(tree.join("usr/share/of-the-test"), "plain\n").unwrap();
    let control = "Package: of-the-test\nVersion: 1\nArchitecture: all\nMaintainer: A <a@b.c>\n\
                   Description: of a test\n";
    std::fs::write(tree.join("DEBIAN/control"), control).unwrap();
    let package = dir.path().join("package.deb");
    run(Command::new("dpkg-deb").args(["--build", "--root-owner-group"]).args([&tree, &package]));
    let package = std::fs::read(package).unwrap();
    let index = format!(
        "{control}Filename: ./of-the-test_1_all.deb\nSize: {}\nSHA256: {}\n",
        package.len(),
        &image::digest(&package)[7..]
    );
    (package, index)
}
