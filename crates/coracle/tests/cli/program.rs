//! The program, started as a person would start it, in a home of its own.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use tempfile::TempDir;

/// Nothing here takes longer; what does, hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A home and a working directory.
pub(crate) struct Desk {
    pub(crate) home: TempDir,
}

/// How it ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Desk {
    pub(crate) fn new() -> Self {
        Self { home: TempDir::new().unwrap() }
    }

    /// A directory called `shop` with these files.
    pub(crate) fn with_shop(files: &[(&str, &str)]) -> Self {
        let desk = Self::new();
        std::fs::create_dir(desk.shop()).unwrap();
        for (name, text) in files {
            std::fs::write(desk.shop().join(name), text).unwrap();
        }
        desk
    }

    pub(crate) fn shop(&self) -> std::path::PathBuf {
        self.home.path().join("shop")
    }

    /// The program, not started yet.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_coracle"));
        let directory = if self.shop().is_dir() { self.shop() } else { self.home.path().to_owned() };
        command.args(words).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.home.path()).env("CORACLE_STATE", self.home.path().join("state")).current_dir(directory);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Types it and waits for its end.
    pub(crate) fn coracle(&self, words: &[&str]) -> Ended {
        Running::start(self.command(words)).end()
    }

    /// Types it and pipes something in.
    pub(crate) fn coracle_reads(&self, words: &[&str], input: &str) -> Ended {
        let mut command = self.command(words);
        command.stdin(Stdio::piped());
        let mut running = Running::start(command);
        running.child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        running.end()
    }
}

/// The program while it runs.
pub(crate) struct Running {
    child: Child,
    out: Receiver<String>,
    err: Receiver<String>,
    seen: String,
    complained: String,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let out = lines(child.stdout.take().unwrap());
        let err = lines(child.stderr.take().unwrap());
        Self { child, out, err, seen: String::new(), complained: String::new() }
    }

    /// Waits until standard output shows this.
    pub(crate) fn shows(&mut self, text: &str) {
        self.shows_times(text, 1);
    }

    /// Waits until standard output has shown this so often.
    pub(crate) fn shows_times(&mut self, text: &str, times: usize) {
        while self.seen.matches(text).count() < times {
            let line =
                self.out.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{text:?} was never shown, only:\n{}", self.seen));
            self.seen.push_str(&line);
        }
    }

    /// Waits until standard error shows this.
    pub(crate) fn complains(&mut self, text: &str) {
        while !self.complained.contains(text) {
            let line = self.err.recv_timeout(PATIENCE);
            self.complained.push_str(&line.unwrap_or_else(|_| panic!("{text:?} was never told, only:\n{}", self.complained)));
        }
    }

    /// What standard output has shown.
    pub(crate) fn seen(&self) -> &str {
        &self.seen
    }

    /// The process.
    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    /// Ctrl-C.
    pub(crate) fn interrupt(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    }

    /// Waits for its end; panics if it does not come.
    pub(crate) fn end(mut self) -> Ended {
        // Both streams end with the process, so waiting for them has the deadline that waiting for a process lacks.
        let rest = |lines: &Receiver<String>| {
            let mut text = String::new();
            loop {
                match lines.recv_timeout(PATIENCE) {
                    Ok(line) => text.push_str(&line),
                    Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return text,
                    Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("it does not end; so far:\n{text}"),
                }
            }
        };
        let out = std::mem::take(&mut self.seen) + &rest(&self.out);
        let err = std::mem::take(&mut self.complained) + &rest(&self.err);
        let code = self.child.wait().unwrap().code();
        Ended { code, out, err }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn lines(from: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while from.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
            line.clear();
        }
    });
    receiver
}

impl Ended {
    #[track_caller]
    pub(crate) fn code(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    #[track_caller]
    pub(crate) fn out_has(&self, text: &str) -> &Self {
        assert!(self.out.contains(text), "expected {text:?} in {self:#?}");
        self
    }

    #[track_caller]
    pub(crate) fn err_has(&self, text: &str) -> &Self {
        assert!(self.err.contains(text), "expected {text:?} in {self:#?}");
        self
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error} in {self:#?}"))
    }
}

/// Every file below a directory, by relative path.
pub(crate) fn files_below(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path)
            } else {
                found.push(path.strip_prefix(root).unwrap().display().to_string())
            }
        }
    }
    found.sort();
    found
}
