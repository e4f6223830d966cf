//! A server of each test's own, spoken to over HTTP as anybody would.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// How long anything may take on a machine that is busy with other tests.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Whether sandboxes can be made here; says so loudly where they cannot.
#[expect(clippy::print_stderr, reason = "a test that did not run must be seen")]
pub fn possible() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        assert!(std::env::var_os("CI").is_none(), "these tests need root, and in CI nothing may be left untried");
        eprintln!("NOT TRIED: the server is tried as root only");
    }
    root
}

/// Waits until something is so.
#[track_caller]
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A running `pyrunner serve`, and the machine that it runs on.
pub struct Host {
    process: Child,
    pub address: SocketAddr,
    pub state: Arc<tempfile::TempDir>,
    log: Arc<Mutex<String>>,
}

impl Host {
    /// Starts one with a few sandboxes, no rate, and whatever else is given.
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_in(Arc::new(tempfile::tempdir().unwrap()), arguments)
    }

    /// The same in the state of another one.
    pub fn start_in(state: Arc<tempfile::TempDir>, arguments: &[&str]) -> Self {
        Self::launch(state, arguments, &[])
    }

    /// The same with these variables.
    pub fn start_with(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        Self::launch(Arc::new(tempfile::tempdir().unwrap()), arguments, variables)
    }

    fn launch(state: Arc<tempfile::TempDir>, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pyrunner"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--slots", "2", "--state"]).arg(state.path().join("state"));
        if !arguments.contains(&"--rate") {
            command.args(["--rate", "0"]);
        }
        command.args(arguments).env_remove("DATABASE_URL").env_remove("PORT").stdin(Stdio::null());
        command.envs(variables.iter().copied());
        let mut process = command.stderr(Stdio::piped()).process_group(0).spawn().unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let log = Arc::new(Mutex::new(String::new()));
        let address = loop {
            let Some(Ok(line)) = lines.next() else { panic!("the server has not started: {}", log.lock().unwrap()) };
            if let Some(address) = line.strip_prefix("pyrunner listens on http://") {
                break address.parse().unwrap();
            }
            log.lock().unwrap().push_str(&line);
        };
        let kept = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut log = kept.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        Self { process, address, state, log }
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The process of one of its parts, `api` or `sandbox`; there may be none for a moment.
    pub fn part(&self, part: &str) -> Option<u32> {
        let mark = format!("--part={part}");
        children(self.pid()).into_iter().find(|child| {
            let line = std::fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).any(|word| word == mark.as_bytes())
        })
    }

    pub fn signal(&self, signal: Signal) {
        send(self.pid(), signal);
    }

    /// Asks it to end, and waits for it.
    pub fn stop(mut self) -> i32 {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> i32 {
        let status = until("the server ends", || self.process.try_wait().unwrap());
        status.code().unwrap_or(-1)
    }

    pub fn directory(&self) -> PathBuf {
        PathBuf::from(format!("/run/pyrunner/port-{}", self.address.port()))
    }

    pub fn get(&self, path: &str) -> Answer {
        self.call("GET", path, &[], b"")
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_with(path, &[], body)
    }

    pub fn post_with(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
        self.call("POST", path, headers, body.to_string().as_bytes())
    }

    /// Executes a program with the server's limits.
    pub fn run(&self, code: &str) -> Value {
        self.execute(&json!({ "code": code }))
    }

    /// Executes a program, which must be answered with 200.
    #[track_caller]
    pub fn execute(&self, program: &Value) -> Value {
        let answer = self.post("/execute", program);
        assert_eq!(answer.status, 200, "{}\n{}", answer.text(), self.log());
        answer.json()
    }

    pub fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut stream = self.send(method, path, headers, body);
        Answer::read(&mut stream)
    }

    /// Sends a request and does not wait for the answer.
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.address);
        // JSON, unless another type is told; an empty one is none.
        if method == "POST" && !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
            head.push_str("Content-Type: application/json\r\n");
        }
        let told = |(name, value): &&(&str, &str)| !value.is_empty() || !name.eq_ignore_ascii_case("content-type");
        for (name, value) in headers.iter().filter(told) {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
        // The server may answer and close before it has read everything.
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).ok();
        stream
    }

    /// Waits until so many executions run.
    #[track_caller]
    pub fn until_running(&self, count: u64) {
        until("executions run", || (self.get("/ready").json()["running"] == count).then_some(()));
    }

    /// `pyrunner` with the server's database.
    pub fn cli(&self, arguments: &[&str]) -> Output {
        pyrunner(arguments, &self.state.path().join("state"))
    }

    /// Makes a key and answers its token.
    pub fn key(&self, arguments: &[&str]) -> String {
        let made = self.cli(&[&["keys", "add"], arguments].concat());
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        String::from_utf8(made.stdout).unwrap().trim().to_owned()
    }
}

pub fn pyrunner(arguments: &[&str], state: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pyrunner"));
    command.args(arguments).env("PYRUNNER_STATE", state).env_remove("DATABASE_URL").stdin(Stdio::null());
    command.output().unwrap()
}

impl Drop for Host {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            self.signal(Signal::TERM);
            let start = Instant::now();
            while matches!(self.process.try_wait(), Ok(None)) && start.elapsed() < PATIENCE {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

pub fn send(process: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(process).unwrap()).unwrap();
    kill_process(pid, signal).ok();
}

pub fn children(process: u32) -> Vec<u32> {
    let text = std::fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap_or_default();
    text.split_whitespace().map(|child| child.parse().unwrap()).collect()
}

/// An answer over HTTP.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// Reads the whole answer of a connection that ends with it.
    pub fn read(stream: &mut TcpStream) -> Self {
        let mut bytes = Vec::new();
        if let Err(error) = stream.read_to_end(&mut bytes) {
            // Whoever sends more than is read is cut off, but not before the answer.
            assert!(!bytes.is_empty(), "no answer: {error}");
        }
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("a head");
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: Vec<(String, String)> =
            lines.filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
        let chunked = headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked");
        let body = &bytes[end + 4..];
        Self { status, headers, body: if chunked { unchunk(body) } else { body.to_vec() } }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {} {}", self.status, self.text()))
    }

    /// A problem of this status, whose detail and hint say this.
    #[track_caller]
    pub fn is_problem(&self, status: u16, told: &str) {
        let text = self.text();
        assert!(self.status == status && text.contains(told), "expected {status} and {told:?}: {} {text}", self.status);
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{text}");
        let problem = self.json();
        assert_eq!(problem["status"], status, "{text}");
        assert!(problem["type"].as_str().unwrap().starts_with("urn:pyrunner:problem:") && problem["title"].is_string(), "{text}");
    }
}

fn unchunk(mut body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(end) = body.windows(2).position(|window| window == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&body[..end]).unwrap(), 16).unwrap();
        if size == 0 {
            break;
        }
        whole.extend_from_slice(&body[end + 2..end + 2 + size]);
        body = &body[end + 4 + size..];
    }
    whole
}
