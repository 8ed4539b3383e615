//! A headless Chromium: what a page says, and a picture of it that is not blank.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{run, temp_dir};

fn chromium(profile: &Path, arguments: &[&str], url: &str) -> Vec<u8> {
    let mut command = Command::new("unshare");
    // The browser is many processes; none of them may outlive the test.
    command
        .args(["--pid", "--fork", "--kill-child", "--mount-proc", "timeout", "120", "chromium"])
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
        ])
        .args(["--no-first-run", "--disable-extensions", "--window-size=1280,900"])
        .args(["--virtual-time-budget=30000", "--run-all-compositor-stages-before-draw"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .args(arguments)
        .arg(url)
        .env("HOME", profile)
        .env_remove("DBUS_SESSION_BUS_ADDRESS")
        .stdin(Stdio::null());
    run(&mut command).stdout
}

/// Opens a page, keeps a picture of it as `target/screenshots/NAME.png`, checks that the picture
/// shows something, and returns the text of the document once its scripts have run.
pub(crate) fn open(url: &str, name: &str) -> String {
    let profile = temp_dir();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/screenshots");
    std::fs::create_dir_all(&folder).unwrap();
    let picture: PathBuf = folder.join(format!("{name}.png"));
    std::fs::remove_file(&picture).ok();
    chromium(profile.path(), &[&format!("--screenshot={}", picture.display())], url);
    let shown = colours(&std::fs::read(&picture).unwrap());
    assert!(shown > 100, "{} shows next to nothing: {shown} kinds of lines", picture.display());
    String::from_utf8_lossy(&chromium(profile.path(), &["--dump-dom"], url)).into_owned()
}

/// Counts the lines of a PNG that differ from the line above; a blank page has hardly any.
fn colours(png: &[u8]) -> usize {
    let mut packed = Vec::new();
    let mut width = 0;
    let mut channels = 4;
    let mut rest = &png[8..];
    while rest.len() >= 12 {
        let length = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
        let data = &rest[8..8 + length];
        match &rest[4..8] {
            b"IHDR" => {
                width = u32::from_be_bytes(data[..4].try_into().unwrap()) as usize;
                channels = if data[9] == 6 { 4 } else { 3 };
            }
            b"IDAT" => packed.extend_from_slice(data),
            _ => {}
        }
        rest = &rest[12 + length..];
    }
    let mut lines = Vec::new();
    flate2::read::ZlibDecoder::new(packed.as_slice()).read_to_end(&mut lines).unwrap();
    // Whatever filter packed a line, one of a single colour is nearly all zeros.
    lines
        .chunks(1 + width * channels)
        .filter(|line| line[1..].iter().filter(|byte| **byte != 0).count() > 3 * channels)
        .count()
}
