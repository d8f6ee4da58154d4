//! Browser: a headless Chromium, driven through its driver (W3C WebDriver: JSON over HTTP).
//!
//! Owns:   the driver's process, the session, the browser's profile. All end when this is dropped.
//! Never:  waits for a page: whoever drives asks again until what they want is there.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::http;

/// How long the driver may take to start.
const START: Duration = Duration::from_secs(60);
/// Under this name WebDriver hands out elements.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
/// The Escape key, as WebDriver writes it.
pub const ESCAPE: &str = "\u{e00c}";
/// The Enter key.
pub const ENTER: &str = "\u{e007}";

/// A window with one page.
#[derive(Debug)]
pub struct Browser {
    driver: Child,
    address: String,
    session: String,
    _profile: TempDir,
}

/// How a page is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Device {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Whether the reader prefers a dark page.
    pub is_dark: bool,
}

impl Browser {
    /// Starts one; `Err` says what this machine lacks.
    ///
    /// # Errors
    /// If there is no Chromium, or no driver for it.
    ///
    /// # Panics
    /// If both are there and do not start.
    pub fn start() -> Result<Self, String> {
        let program = |name: &str| {
            find(name)
                .ok_or_else(|| format!("there is no {name} (Debian's packages: chromium, chromium-driver)"))
        };
        let (chromium, driver) = (program("chromium")?, program("chromedriver")?);
        let mut driver = Command::new(driver)
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the driver starts");
        let address = format!("127.0.0.1:{}", port(&mut driver));
        let profile = tempfile::tempdir().expect("a folder");
        let mut browser = Self { driver, address, session: String::new(), _profile: profile };
        let mut arguments: Vec<String> = [
            "headless",
            "no-sandbox",
            "disable-gpu",
            "disable-dev-shm-usage",
            "disable-quic",
            "no-first-run",
            "disable-background-networking",
            "disable-component-update",
            "disable-sync",
        ]
        .map(|name| format!("--{name}"))
        .to_vec();
        arguments.push(format!("--user-data-dir={}", browser._profile.path().display()));
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": { "binary": chromium, "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let session = browser.command("POST", "/session", &wanted);
        browser.session = session["sessionId"].as_str().expect("a session has an id").to_owned();
        Ok(browser)
    }

    /// Looks as on this device from now on.
    pub fn look(&self, device: Device) {
        let size = json!({ "width": device.width, "height": device.height, "deviceScaleFactor": 1, "mobile": false });
        self.devtools("Emulation.setDeviceMetricsOverride", &size);
        let scheme = if device.is_dark { "dark" } else { "light" };
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.devtools("Emulation.setEmulatedMedia", &media);
    }

    /// Opens a page.
    pub fn open(&self, url: &str) {
        self.ask("POST", "/url", &json!({ "url": url }));
    }

    /// What a script returns.
    #[must_use]
    pub fn run(&self, script: &str) -> Value {
        self.ask("POST", "/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// The text of the first element that a selector finds; `None` if there is none.
    #[must_use]
    pub fn text(&self, selector: &str) -> Option<String> {
        let script = format!("return document.querySelector({})?.textContent ?? null", json!(selector));
        self.run(&script).as_str().map(str::to_owned)
    }

    /// Types into whatever has the focus.
    ///
    /// # Panics
    /// If nothing has.
    pub fn type_keys(&self, keys: &str) {
        let focused = self.ask("GET", "/element/active", &Value::Null);
        let element = focused[ELEMENT].as_str().expect("something has the focus").to_owned();
        self.ask("POST", &format!("/element/{element}/value"), &json!({ "text": keys }));
    }

    /// What is seen, as a PNG.
    ///
    /// # Panics
    /// If it cannot be had.
    #[must_use]
    pub fn screenshot(&self) -> Vec<u8> {
        let shot = self.ask("GET", "/screenshot", &Value::Null);
        base64(shot.as_str().expect("a screenshot is text"))
    }

    /// What the page complained of since the last time: refused scripts and styles among them.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let log = self.ask("POST", "/se/log", &json!({ "type": "browser" }));
        let records = log.as_array().into_iter().flatten();
        records.filter_map(|it| it["message"].as_str().map(str::to_owned)).collect()
    }

    fn devtools(&self, command: &str, parameters: &Value) {
        self.ask("POST", "/goog/cdp/execute", &json!({ "cmd": command, "params": parameters }));
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        self.command(method, &format!("/session/{}{path}", self.session), body)
    }

    fn command(&self, method: &str, path: &str, body: &Value) -> Value {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let reply = http::send(&self.address, method, path, &text);
        let answer = reply.json();
        assert_eq!(reply.status, 200, "{method} {path}: {}", answer["value"]["message"]);
        answer["value"].clone()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Only so does the browser end, too. While a test fails, its own panic is the one to be told.
        if !self.session.is_empty() && !std::thread::panicking() {
            self.ask("DELETE", "", &Value::Null);
        } else if !self.session.is_empty() {
            let quit = || self.ask("DELETE", "", &Value::Null);
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(quit));
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// The driver chooses a port and names it in its first lines. The rest is read, too, so that it is never kept waiting.
fn port(driver: &mut Child) -> u16 {
    let output = driver.stdout.take().expect("its output is ours");
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if let Some((_, port)) = line.split_once("started successfully on port ") {
                let _ = tell.send(port.trim_end_matches('.').parse().expect("a port"));
            }
        }
    });
    told.recv_timeout(START).expect("the driver names its port")
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Bytes from base64, as WebDriver writes it: no line breaks.
fn base64(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0u32, 0);
    for letter in text.bytes().filter(|letter| *letter != b'=') {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => panic!("no base64: {letter}"),
        };
        bits = (bits << 6) | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from((bits >> count) & 0xff).expect("eight bits"));
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read() {
        for (text, bytes) in
            [("", &b""[..]), ("bG9nbG9n", b"loglog"), ("AP/+", &[0, 255, 254]), ("YQ==", b"a")]
        {
            assert_eq!(base64(text), bytes);
        }
    }
}
