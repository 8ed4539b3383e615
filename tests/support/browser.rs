//! A headless Chromium, driven over its debugging pipe: a page is opened, waited for, read, and
//! pictured.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use serde_json::{Value, json};

use super::{TempDir, temp_dir};

/// A page, open in a browser of its own.
pub(crate) struct Page {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    last: u64,
    session: Option<String>,
    _profile: TempDir,
}

impl Page {
    /// Opens an address.
    pub(crate) fn open(url: &str) -> Page {
        let profile = temp_dir();
        // The browser reads commands from descriptor 3 and answers on 4. It is many processes; in a
        // namespace of its own none of them outlives the page.
        let script = "exec 3<&0 4>&1 </dev/null >/dev/null 2>&1; exec chromium \"$@\"";
        let mut child = Command::new("unshare")
            .args(["--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script, "sh"])
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
            .args(["--no-first-run", "--disable-extensions", "--hide-scrollbars"])
            .args(["--window-size=1280,900", "--remote-debugging-pipe"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .env("HOME", profile.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let to = child.stdin.take().unwrap();
        let from = BufReader::new(child.stdout.take().unwrap());
        let mut page = Page { child, to, from, last: 0, session: None, _profile: profile };
        let target = page.call("Target.createTarget", &json!({"url": url}));
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = page.call("Target.attachToTarget", &attach);
        page.session = Some(attached["sessionId"].as_str().unwrap().to_owned());
        page
    }

    fn call(&mut self, method: &str, parameters: &Value) -> Value {
        self.last += 1;
        let mut message = json!({"id": self.last, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.to.write_all(format!("{message}\0").as_bytes()).unwrap();
        loop {
            let mut bytes = Vec::new();
            self.from.read_until(0, &mut bytes).unwrap();
            assert_eq!(bytes.pop(), Some(0), "the browser is gone");
            let answer: Value = serde_json::from_slice(&bytes).unwrap();
            if answer["id"] == self.last {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].clone();
            }
        }
    }

    /// The value of an expression in the page.
    pub(crate) fn evaluate(&mut self, expression: &str) -> Value {
        let parameters = json!({"expression": expression, "returnByValue": true});
        self.call("Runtime.evaluate", &parameters)["result"]["value"].clone()
    }

    /// Waits until the page shows each of these texts.
    pub(crate) fn wait_for(&mut self, texts: &[&str]) {
        let start = Instant::now();
        loop {
            let shown = self.evaluate("document.body ? document.body.innerText : ''");
            let shown = shown.as_str().unwrap_or_default();
            if texts.iter().all(|text| shown.contains(text)) {
                return;
            }
            assert!(start.elapsed() < Duration::from_mins(2), "no {texts:?} in the page: {shown}");
            std::thread::sleep(Duration::from_millis(250));
        }
    }

    /// Keeps a picture as `target/screenshots/NAME.png`, and checks that it shows something.
    pub(crate) fn picture(&mut self, name: &str) {
        // What the text belongs to has to be drawn too.
        std::thread::sleep(Duration::from_secs(1));
        let answer = self.call("Page.captureScreenshot", &json!({"format": "png"}));
        let packed = answer["data"].as_str().unwrap();
        let png = base64::engine::general_purpose::STANDARD.decode(packed).unwrap();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/screenshots");
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join(format!("{name}.png"));
        std::fs::write(&path, &png).unwrap();
        let lines = lines_that_change(&png);
        assert!(lines > 100, "{} is all but blank: {lines} lines differ", path.display());
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Counts the lines of a PNG that are not of a single colour; a blank page has none.
fn lines_that_change(png: &[u8]) -> usize {
    let mut packed = Vec::new();
    let (mut width, mut channels) = (0, 0);
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
