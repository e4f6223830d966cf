//! A real chromium, driven over the WebDriver protocol (W3C WebDriver) by the few commands that the tests need.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::host::{PATIENCE, until};

/// Keys that are no characters (W3C WebDriver, section 17.4.2).
pub const ENTER: char = '\u{e007}';
pub const TAB: char = '\u{e004}';
pub const ESCAPE: char = '\u{e00c}';
pub const CONTROL: char = '\u{e009}';
/// Lets go of all of them.
pub const RELEASE: char = '\u{e000}';

/// What an element is called in answers.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A browser with one window.
pub struct Browser {
    driver: Child,
    address: SocketAddr,
    session: String,
    _home: tempfile::TempDir,
}

/// Runs a test with a browser, which is ended however the test ends. Where there is none, that is said loudly.
#[expect(clippy::print_stderr, reason = "a test that did not run must be seen")]
pub fn with_browser(scripts: bool, test: impl FnOnce(&Browser)) {
    let Some(browser) = Browser::start(scripts) else {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "chromium and chromedriver are there in CI");
        eprintln!("NOT TRIED: there is no chromedriver (apt-get install chromium chromium-driver)");
        return;
    };
    let outcome = catch_unwind(AssertUnwindSafe(|| test(&browser)));
    browser.end();
    if let Err(panic) = outcome {
        resume_unwind(panic);
    }
}

impl Browser {
    fn start(scripts: bool) -> Option<Self> {
        let home = tempfile::tempdir().unwrap();
        let mut command = Command::new("chromedriver");
        command.args(["--port=0", "--log-level=WARNING"]).env("HOME", home.path()).env("TMPDIR", home.path());
        let mut driver = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines().map_while(Result::ok);
        let port = lines.find_map(|line| line.split_once("successfully on port ")?.1.trim_end_matches('.').parse::<u16>().ok());
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.expect("chromedriver says where it listens")));
        std::thread::spawn(move || lines.for_each(drop));
        let profile = home.path().join("profile");
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:loggingPrefs": { "browser": "ALL" },
            "goog:chromeOptions": {
                // Chromium's own sandbox is not for root, and the pages are ours.
                "args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                    "--disable-background-networking", "--disable-component-update", "--window-size=1280,1000",
                    format!("--user-data-dir={}", profile.display())],
                "prefs": { "profile.managed_default_content_settings.javascript": if scripts { 1 } else { 2 } },
            },
        } } });
        let mut browser = Self { driver, address, session: String::new(), _home: home };
        let session = browser.command("POST", "/session", &wanted);
        browser.session = session["sessionId"].as_str().unwrap().to_owned();
        Some(browser)
    }

    fn end(mut self) {
        self.command("DELETE", &format!("/session/{}", self.session), &Value::Null);
        self.driver.kill().unwrap();
        self.driver.wait().unwrap();
    }

    fn command(&self, method: &str, path: &str, body: &Value) -> Value {
        self.try_command(method, path, body).unwrap_or_else(|why| panic!("{method} {path}: {why}"))
    }

    fn try_command(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {length}\r\n\r\n", self.address);
        stream.write_all(&[head.as_bytes(), body.as_bytes()].concat()).unwrap();
        // chromedriver keeps its connections, whatever it is asked.
        let mut stream = BufReader::new(stream);
        let mut length = 0;
        for line in stream.by_ref().lines() {
            let line = line.unwrap();
            match line.to_ascii_lowercase().strip_prefix("content-length:") {
                Some(value) => length = value.trim().parse().unwrap(),
                None if line.is_empty() => break,
                None => {}
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).unwrap();
        let answer: Value = serde_json::from_slice(&body).unwrap();
        let value = answer["value"].clone();
        if value["error"].is_null() { Ok(value) } else { Err(format!("{} {}", value["error"], value["message"])) }
    }

    fn here(&self, method: &str, path: &str, body: Value) -> Value {
        self.command(method, &format!("/session/{}{path}", self.session), &body)
    }

    /// Goes to an address and waits until the page is loaded.
    pub fn open(&self, url: &str) {
        self.here("POST", "/url", json!({ "url": url }));
    }

    fn element(&self, css: &str) -> String {
        let element = self.here("POST", "/element", json!({ "using": "css selector", "value": css }));
        element[ELEMENT].as_str().unwrap().to_owned()
    }

    /// Types at an element.
    pub fn keys(&self, css: &str, text: &str) {
        let element = self.element(css);
        self.here("POST", &format!("/element/{element}/value"), json!({ "text": text }));
    }

    pub fn click(&self, css: &str) {
        let element = self.element(css);
        self.here("POST", &format!("/element/{element}/click"), json!({}));
    }

    /// The text of an element as it is seen.
    pub fn text(&self, css: &str) -> String {
        let element = self.element(css);
        self.here("GET", &format!("/element/{element}/text"), Value::Null).as_str().unwrap().to_owned()
    }

    /// Waits until there is an element with a text, which is answered: a page may just be loaded.
    pub fn text_to_come(&self, css: &str) -> String {
        until(css, || {
            let here = |path: &str| format!("/session/{}/{path}", self.session);
            let wanted = json!({ "using": "css selector", "value": css });
            let element = self.try_command("POST", &here("element"), &wanted).ok()?;
            let element = element[ELEMENT].as_str()?;
            let text = self.try_command("GET", &here(&format!("element/{element}/text")), &Value::Null).ok()?;
            text.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
        })
    }

    /// Whether an element can be seen.
    pub fn shows(&self, css: &str) -> bool {
        let element = self.element(css);
        self.here("GET", &format!("/element/{element}/displayed"), Value::Null) == json!(true)
    }

    /// What a function body in the page answers.
    pub fn run(&self, script: &str) -> Value {
        self.here("POST", "/execute/sync", json!({ "script": script, "args": [] }))
    }

    /// Waits until an expression in the page is true.
    pub fn until(&self, expression: &str) {
        until(expression, || (self.run(&format!("return Boolean({expression})")) == json!(true)).then_some(()));
    }

    /// What the browser complained about since it was asked last.
    pub fn complaints(&self) -> Vec<Value> {
        let log = self.here("POST", "/se/log", json!({ "type": "browser" }));
        log.as_array().unwrap().iter().filter(|entry| entry["level"] != "INFO" && entry["level"] != "DEBUG").cloned().collect()
    }
}
