//! A server that says what it was told to say, over a Unix socket.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use crate::program::PATIENCE;

/// A request as it came in.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// `POST /v1/apps/shop/restart`.
    pub(crate) line: String,
    pub(crate) body: Vec<u8>,
}

/// One answer being given.
pub(crate) struct Answer {
    stream: UnixStream,
    /// Fires when the test wants the answer to go on.
    pub(crate) go: Arc<Mutex<Receiver<()>>>,
}

/// The server. Its threads end with their connections.
pub(crate) struct Scripted {
    _directory: tempfile::TempDir,
    pub(crate) socket: PathBuf,
    requests: Receiver<Request>,
    go: Sender<()>,
}

impl Scripted {
    /// Answers each request as `script` says.
    pub(crate) fn start(script: impl Fn(&Request, &mut Answer) + Send + Sync + 'static) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("api.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let (heard, requests) = channel();
        let (go, gone) = channel();
        let (script, gone) = (Arc::new(script), Arc::new(Mutex::new(gone)));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (script, heard, go) = (Arc::clone(&script), heard.clone(), Arc::clone(&gone));
                std::thread::spawn(move || {
                    let stream = stream.unwrap();
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    let Some(request) = Request::read(&stream) else { return };
                    heard.send(request.clone()).ok();
                    script(&request, &mut Answer { stream, go });
                });
            }
        });
        Self { _directory: directory, socket, requests, go }
    }

    /// The option that leads here.
    pub(crate) fn option(&self) -> String {
        format!("--server={}", self.socket.display())
    }

    /// Lets an answer go on that waits in [`Answer::wait`].
    pub(crate) fn go(&self) {
        self.go.send(()).unwrap();
    }

    /// The next request.
    pub(crate) fn heard(&self) -> Request {
        self.requests.recv_timeout(PATIENCE).expect("a request comes")
    }

    /// Whether nothing was asked any more.
    pub(crate) fn heard_nothing_else(&self) -> bool {
        self.requests.try_recv().is_err()
    }
}

impl Request {
    fn read(stream: &UnixStream) -> Option<Self> {
        let mut reader = BufReader::new(stream);
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
            if line == "\r\n" {
                break;
            }
            head.push(line.trim_end().to_owned());
        }
        let header = |name: &str| {
            let found = head.iter().find_map(|line| line.to_ascii_lowercase().strip_prefix(name).map(str::to_owned));
            found.map(|value| value.trim().to_owned())
        };
        let mut body = Vec::new();
        if header("transfer-encoding:").is_some() {
            while let Some(mut piece) = read_chunk(&mut reader) {
                body.append(&mut piece);
            }
        } else if let Some(length) = header("content-length:").and_then(|length| length.parse().ok()) {
            body.resize(length, 0);
            reader.read_exact(&mut body).ok()?;
        }
        let line = head.first()?.trim_end_matches(" HTTP/1.1").to_owned();
        Some(Self { line, body })
    }
}

fn read_chunk(reader: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut size = String::new();
    reader.read_line(&mut size).ok()?;
    let size = usize::from_str_radix(size.trim(), 16).ok().filter(|size| *size > 0)?;
    let mut piece = vec![0; size + 2];
    reader.read_exact(&mut piece).ok()?;
    piece.truncate(size);
    Some(piece)
}

impl Answer {
    /// A whole answer.
    pub(crate) fn json(&mut self, status: u16, body: &serde_json::Value) {
        let body = body.to_string();
        let kind = if status < 400 { "application/json" } else { "application/problem+json" };
        self.say(&format!(
            "HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        ));
    }

    /// The head of a stream; it ends when the connection does.
    pub(crate) fn stream(&mut self, kind: &str) {
        self.say(&format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\nconnection: close\r\n\r\n"));
    }

    /// An event of a deployment.
    pub(crate) fn event(&mut self, event: &serde_json::Value) {
        let name = event["event"].as_str().unwrap();
        self.say(&format!("event: {name}\ndata: {event}\n\n"));
    }

    /// Waits until the test calls [`Scripted::go`].
    pub(crate) fn wait(&self) {
        self.go.lock().unwrap().recv_timeout(PATIENCE).ok();
    }

    /// Waits until the other side hangs up.
    pub(crate) fn wait_for_hang_up(&mut self) {
        self.stream.read_exact(&mut [0; 1]).ok();
    }

    pub(crate) fn say(&mut self, text: &str) -> bool {
        self.stream.write_all(text.as_bytes()).is_ok()
    }
}
