//! What PyRunner is measured beside: a bare interpreter, one in bubblewrap, a container per call, a fork of a warm one.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::callers::Call;
use crate::exchange::{Answer, Exchange};
use crate::lineage::Lineage;
use crate::processes::Running;

/// The system's interpreter: the one of a version manager starts through a script, which would flatter whoever is compared.
pub const PYTHON: &str = "/usr/bin/python3";

/// What is executed, and what it writes.
pub const PROGRAM: &str = "print(42)";
const WRITTEN: &str = "42\n";

/// Whether this is what the program writes.
///
/// # Errors
/// If not, with what it is.
pub fn check(output: &[u8]) -> Result<(), String> {
    if output == WRITTEN.as_bytes() { Ok(()) } else { Err(format!("wrote {:?}", String::from_utf8_lossy(output))) }
}

/// `python3 -c CODE`, with nothing of the caller's environment.
pub fn bare(code: &str) -> Command {
    let mut command = Command::new(PYTHON);
    command.args(["-c", code]).env_clear().env("PATH", coracle_tests::program::PATH);
    command
}

/// The same in namespaces of its own, with the system read-only and empty temporary directories. There is no limit of memory or
/// processor time and no filter of system calls: bubblewrap has none of its own.
pub fn bubblewrapped(code: &str) -> Command {
    let mut command = Command::new("bwrap");
    command.args(["--unshare-all", "--die-with-parent", "--new-session", "--clearenv", "--cap-drop", "ALL"]);
    command.args(["--ro-bind", "/usr", "/usr", "--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib"]);
    command.args(["--symlink", "usr/lib64", "/lib64", "--proc", "/proc", "--dev", "/dev"]);
    command.args(["--tmpfs", "/tmp", "--tmpfs", "/work", "--chdir", "/work", "--", PYTHON, "-c", code]);
    command
}

/// A way to ask that starts a process each time and waits for its output and its end.
pub fn starting<'a>(command: fn(&str) -> Command) -> Call<'a> {
    Box::new(move || {
        let mut command = command(PROGRAM);
        let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
        check(&output.map_err(|error| format!("{command:?}: {error}"))?.stdout)
    })
}

/// Runs a program that prints a number with this command.
///
/// # Panics
/// If it prints something else.
pub fn number(command: &mut Command) -> f64 {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().unwrap_or_else(|_| panic!("{command:?}: {text}{}", String::from_utf8_lossy(&output.stderr)))
}

/// Processor time of all children of this process that have ended and were waited for, and of all of theirs.
pub fn buried() -> Duration {
    // cutime and cstime of proc(5), which are what getrusage(2) answers for children.
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = text.rsplit_once(')').map(|(_, fields)| fields).unwrap_or_default();
    let ticks = fields.split_whitespace().skip(13).take(2).filter_map(|field| field.parse::<u64>().ok());
    Duration::from_millis(ticks.sum::<u64>() * 10)
}

/// Starts a bare interpreter that has nothing to do, lets `look` look at it, and ends it.
///
/// # Panics
/// If it cannot be started.
pub fn with_idle<T>(look: impl FnOnce(&Running) -> T) -> T {
    let mut command = bare("import sys; print(42, flush=True); sys.stdin.read()");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (stdin, mut written) = (child.stdin.take(), [0; WRITTEN.len()]);
    child.stdout.take().unwrap().read_exact(&mut written).unwrap();
    let idle = Running::from(child);
    let seen = look(&idle);
    drop((idle, stdin));
    seen
}

/// How long after `limit` an interpreter is dead that is killed then, as somebody with a timer would do it.
///
/// # Panics
/// If it cannot be started.
pub fn killed(code: &str, limit: Duration) -> Duration {
    let begun = Instant::now();
    let mut child: Child = bare(code).stdin(Stdio::null()).spawn().unwrap();
    std::thread::sleep(limit.saturating_sub(begun.elapsed()));
    child.kill().and_then(|()| child.wait()).unwrap();
    begun.elapsed().saturating_sub(limit)
}

/// A server that forks a warm interpreter for each program.
#[derive(Debug)]
pub struct WarmFork {
    socket: PathBuf,
    server: Running,
}

impl WarmFork {
    /// Starts it, with its files in `directory`.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(directory: &Path) -> Self {
        let socket = directory.join("warm-fork.sock");
        let mut command = Command::new(PYTHON);
        command.args(["-c", include_str!("warm_fork.py")]).arg(&socket).env_clear().stdin(Stdio::null());
        let server = Running::start(&mut command);
        let give_up = Instant::now() + Duration::from_secs(10);
        while UnixStream::connect(&socket).is_err() {
            assert!(Instant::now() < give_up, "the server that forks does not answer");
            std::thread::sleep(Duration::from_millis(5));
        }
        Self { socket, server }
    }

    /// What it and its forks have used.
    pub fn processor(&self) -> Duration {
        Lineage::of(self.server.pid()).processor()
    }

    /// A way to ask it on a connection that stays. It answers one connection at a time.
    ///
    /// # Errors
    /// If it is not there.
    pub fn asking<'a>(&self) -> Result<Call<'a>, String> {
        let told = |error: std::io::Error| format!("the server that forks: {error}");
        let mut stream = UnixStream::connect(&self.socket).map_err(told)?;
        Ok(Box::new(move || {
            let length = (PROGRAM.len() as u32).to_le_bytes();
            stream.write_all(&[&length, PROGRAM.as_bytes()].concat()).map_err(told)?;
            let mut length = [0; 4];
            stream.read_exact(&mut length).map_err(told)?;
            let mut output = vec![0; u32::from_le_bytes(length) as usize];
            stream.read_exact(&mut output).map_err(told)?;
            check(&output)
        }))
    }
}

/// A Docker engine that makes a container for each call.
#[derive(Debug, Clone)]
pub struct Containers {
    socket: PathBuf,
    image: String,
}

/// Images that have the interpreter, the first that is there is taken; none is pulled.
const IMAGES: [&str; 3] = ["python:3.11-slim", "python:3-slim", "python:3"];

impl Containers {
    /// The engine that is usually there, or why it cannot be measured.
    ///
    /// # Errors
    /// If none answers, or if it has no image with Python.
    pub fn find() -> Result<Self, String> {
        let host = std::env::var("DOCKER_HOST").ok();
        let socket = host.as_deref().and_then(|host| host.strip_prefix("unix://")).unwrap_or("/var/run/docker.sock");
        let mut found = Self { socket: socket.into(), image: String::new() };
        for image in IMAGES {
            let answer = found.connect()?.call("GET", &format!("/images/{image}/json"), b"");
            if answer.map_err(|error| format!("{socket}: {error}"))?.status == 200 {
                found.image = image.to_owned();
                return Ok(found);
            }
        }
        Err(format!("the engine has none of {IMAGES:?} (scripts/base-images makes the first)"))
    }

    /// What is measured, for people.
    pub fn told(&self) -> String {
        format!("{} at {}", self.image, self.socket.display())
    }

    fn connect(&self) -> Result<Exchange<UnixStream>, String> {
        let told = |error| format!("{}: {error}", self.socket.display());
        let stream = UnixStream::connect(&self.socket).map_err(told)?;
        stream.set_read_timeout(Some(Duration::from_secs(60))).map_err(told)?;
        Ok(Exchange::over(stream, "docker"))
    }

    /// A way to ask, on one connection to the engine: create a container with PyRunner's limits, start it, wait for its end,
    /// read what it wrote, remove it.
    ///
    /// # Errors
    /// If the engine is not there.
    pub fn asking<'a>(&self) -> Result<Call<'a>, String> {
        let (mut engine, body) = (self.connect()?, self.container().to_string());
        Ok(Box::new(move || {
            let made = asked(&mut engine, "POST", "/containers/create", body.as_bytes())?.json()?;
            let id = made["Id"].as_str().ok_or("a container has no id")?.to_owned();
            let done = carry_out(&mut engine, &id);
            asked(&mut engine, "DELETE", &format!("/containers/{id}?force=1"), b"")?;
            check(&done?)
        }))
    }

    fn container(&self) -> Value {
        let label = std::env::var("BENCH_LABEL").unwrap_or_else(|_| std::process::id().to_string());
        json!({
            "Image": self.image,
            "Cmd": ["python3", "-c", PROGRAM],
            "User": "65534:65534",
            "NetworkDisabled": true,
            "Labels": { "dev.coracle.bench": label },
            "HostConfig": {
                "NetworkMode": "none", "Memory": 256 << 20, "MemorySwap": 256 << 20, "NanoCpus": 500_000_000, "PidsLimit": 64,
                "ReadonlyRootfs": true, "CapDrop": ["ALL"], "SecurityOpt": ["no-new-privileges"],
            },
        })
    }
}

fn carry_out(engine: &mut Exchange<UnixStream>, id: &str) -> Result<Vec<u8>, String> {
    asked(engine, "POST", &format!("/containers/{id}/start"), b"")?;
    asked(engine, "POST", &format!("/containers/{id}/wait"), b"")?;
    let log = asked(engine, "GET", &format!("/containers/{id}/logs?stdout=1&stderr=1"), b"")?.body;
    Ok(streams(&log))
}

fn asked(engine: &mut Exchange<UnixStream>, method: &str, path: &str, body: &[u8]) -> Result<Answer, String> {
    let answer = engine.call(method, path, body).map_err(|error| format!("the engine: {method} {path}: {error}"))?;
    if answer.status < 300 { Ok(answer) } else { Err(format!("the engine: {method} {path}: {}", answer.told())) }
}

/// What a container wrote, out of the engine's frames: the stream, three zeros, the length as a big-endian u32, so many bytes.
fn streams(mut log: &[u8]) -> Vec<u8> {
    let mut written = Vec::new();
    while let Some((head, rest)) = log.split_first_chunk::<8>() {
        let [_, _, _, _, length @ ..] = *head;
        let (piece, rest) = rest.split_at((u32::from_be_bytes(length) as usize).min(rest.len()));
        written.extend_from_slice(piece);
        log = rest;
    }
    written
}

#[test]
fn frames_of_both_streams_are_put_together() {
    let log = [&[1, 0, 0, 0, 0, 0, 0, 2][..], b"42", &[2, 0, 0, 0, 0, 0, 0, 1], b"\n"].concat();
    assert_eq!(check(&streams(&log)), Ok(()));
    assert!(check(b"41\n").is_err() && streams(&[1, 0, 0]).is_empty());
}

#[test]
fn a_warm_interpreter_is_forked_for_each_program() {
    let directory = tempfile::tempdir().unwrap();
    let server = WarmFork::start(directory.path());
    let mut ask = server.asking().unwrap();
    assert_eq!((ask(), ask()), (Ok(()), Ok(())));
    assert_eq!(starting(bare)(), Ok(()));
}
