//! A PyRunner that is measured: the real server with its history, asked over HTTP on connections that stay.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::callers::Call;
use crate::exchange::{Answer, Exchange};
use crate::interpreters::{PROGRAM, PYTHON, check};
use crate::lineage::{Lineage, Member, private};
use crate::processes::Running;

/// How long the server may take to start, or to have its pool full again.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the program's answer must contain.
const RIGHT: &[u8] = br#""stdout":"42\n""#;

/// A running server.
#[derive(Debug)]
pub struct PyRunner {
    server: Running,
    address: SocketAddr,
    log: PathBuf,
    _directory: TempDir,
}

/// Who of its processes has used something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Holds the port, and does nothing.
    Supervisor,
    /// HTTP, limits, queue, history.
    Api,
    /// The daemon of the sandboxes.
    Daemon,
    /// Makes namespaces and mounts.
    Maker,
    /// The interpreter that is copied.
    Zygote,
    /// Those that wait, and those that have ended.
    Sandboxes,
}

impl Part {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 6] = [Self::Supervisor, Self::Api, Self::Daemon, Self::Maker, Self::Zygote, Self::Sandboxes];

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Supervisor => "supervisor",
            Self::Api => "API",
            Self::Daemon => "daemon",
            Self::Maker => "maker",
            Self::Zygote => "zygote",
            Self::Sandboxes => "sandboxes",
        }
    }
}

/// A connection to it.
pub type Caller = Exchange<TcpStream>;

impl PyRunner {
    /// Starts one with no rate limit and its history in a directory of its own, and whatever else is given. Waits until its
    /// pool is full.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start(arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        // The API is another user, who has to pass through.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o711)).unwrap();
        let log = directory.path().join("log");
        let mut command = Command::new(coracle_tests::program::pyrunner());
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PYRUNNER_")) {
            command.env_remove(name);
        }
        command.env_remove("DATABASE_URL").env_remove("PORT").env("PATH", coracle_tests::program::PATH).env("RUST_LOG", "warn");
        command.args(["serve", "--listen", "127.0.0.1:0", "--rate", "0", "--python", PYTHON]);
        command.arg("--state").arg(directory.path().join("state")).arg("--images").arg(directory.path().join("images"));
        command.args(arguments).stdin(Stdio::null()).stderr(File::create(&log).unwrap());
        // Ctrl-C is for this process, which ends the server as it should be ended.
        let server = Running::start(command.process_group(0));
        let mut found = Self { server, address: SocketAddr::from(([127, 0, 0, 1], 0)), log, _directory: directory };
        found.address = found.until("listens", || {
            let log = fs::read_to_string(&found.log).unwrap_or_default();
            log.lines().find_map(|line| line.strip_prefix("pyrunner listens on http://")?.parse().ok())
        });
        found.until_full();
        found
    }

    #[track_caller]
    fn until<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let give_up = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look() {
                return found;
            }
            let log = || fs::read_to_string(&self.log).unwrap_or_default();
            assert!(Instant::now() < give_up, "the server never {what}: {}", log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until as many sandboxes wait ready as should.
    ///
    /// # Panics
    /// If that takes too long.
    pub fn until_full(&self) {
        let mut caller = self.connect().unwrap();
        self.until("has its pool full", || {
            let runtime = &caller.call("GET", "/runtimes", b"").ok()?.json().ok()?["runtimes"][0];
            (runtime["ready"].as_u64()? == runtime["slots"].as_u64()?).then_some(())
        });
    }

    /// What it says of its own state.
    ///
    /// # Panics
    /// If it says nothing.
    pub fn readiness(&self) -> Value {
        self.connect().and_then(|mut caller| told(caller.call("GET", "/ready", b""))).and_then(|answer| answer.json()).unwrap()
    }

    /// A connection to it.
    ///
    /// # Errors
    /// If it takes none.
    pub fn connect(&self) -> Result<Caller, String> {
        let stream = told(TcpStream::connect(self.address))?;
        told(stream.set_nodelay(true).and_then(|()| stream.set_read_timeout(Some(PATIENCE))))?;
        Ok(Exchange::over(stream, self.address.to_string()))
    }

    /// A way to ask for the program on one connection.
    ///
    /// # Errors
    /// If it takes no connection.
    pub fn asking<'a>(&self) -> Result<Call<'a>, String> {
        let mut caller = self.connect()?;
        let request = execution(&caller, &json!({ "code": PROGRAM }));
        Ok(Box::new(move || {
            told(caller.send(&request))?;
            let answer = told(caller.answer())?;
            // JSON is not read here, so that what is measured is not the client's reading.
            match answer.status == 200 && answer.body.windows(RIGHT.len()).any(|window| window == RIGHT) {
                true => Ok(()),
                false => Err(answer.told()),
            }
        }))
    }

    /// Executes a program and answers what came of it.
    ///
    /// # Errors
    /// If it was not executed.
    pub fn execute(&self, program: &Value) -> Result<Value, String> {
        let mut caller = self.connect()?;
        let request = execution(&caller, program);
        told(caller.send(&request))?;
        executed(told(caller.answer())?)
    }

    /// How long the program takes that comes right after another one has taken the last sandbox, in milliseconds. The next
    /// sandbox is being made from that moment on, so the time is counted from the other one's request: rather too long than too
    /// short. Only for a server with one sandbox. `None` if the program found one all the same.
    ///
    /// # Errors
    /// If one of them was not executed.
    pub fn missed(&self) -> Result<Option<f64>, String> {
        self.until_full();
        let (mut first, mut second) = (self.connect()?, self.connect()?);
        // A connection that has answered once is a connection that is taken.
        for caller in [&mut first, &mut second] {
            told(caller.call("GET", "/health", b""))?;
        }
        // The first outlives the making of the next sandbox, which is so not made because of the first one's end.
        let taking = execution(&first, &json!({ "code": "import time; time.sleep(0.05)" }));
        let asking = execution(&second, &json!({ "code": PROGRAM }));
        let begun = Instant::now();
        told(first.send(&taking))?;
        told(second.send(&asking))?;
        let answer = told(second.answer())?;
        let took = begun.elapsed().as_secs_f64() * 1000.0;
        let answer = executed(answer)?;
        check(answer["stdout"].as_str().unwrap_or_default().as_bytes())?;
        executed(told(first.answer())?)?;
        // Whoever finds a sandbox waits for some microseconds.
        Ok((answer["usage"]["queue_ms"].as_f64().unwrap_or_default() > 0.2).then_some(took))
    }

    /// How long after its time limit the answer for a program comes that does not end by itself.
    ///
    /// # Errors
    /// If it was ended by something else.
    pub fn killed(&self, code: &str, limit: Duration) -> Result<Duration, String> {
        let mut caller = self.connect()?;
        told(caller.call("GET", "/health", b""))?;
        let request = execution(&caller, &json!({ "code": code, "limits": { "wall_ms": limit.as_millis() as u64 } }));
        let begun = Instant::now();
        told(caller.send(&request))?;
        let answer = told(caller.answer())?;
        let took = begun.elapsed();
        let answer = executed(answer)?;
        if answer["reason"] != "timeout" {
            return Err(format!("{code:?} was not ended by its time limit: {answer}"));
        }
        Ok(took.saturating_sub(limit))
    }

    /// What the server has used, by parts: together it is all that it, its daemon, its zygotes and all sandboxes there were
    /// have used.
    pub fn processor(&self) -> [(Part, Duration); Part::ALL.len()] {
        let mut used = Part::ALL.map(|part| (part, Duration::ZERO));
        for member in Lineage::of(self.server.pid()).members() {
            let part = self.part(&member);
            used[part as usize].1 += member.own;
            // Only sandboxes end.
            used[Part::Sandboxes as usize].1 += member.buried;
        }
        used
    }

    fn part(&self, member: &Member) -> Part {
        let read = |name: &str| fs::read_to_string(format!("/proc/{}/{name}", member.pid.as_raw_nonzero())).unwrap_or_default();
        let server = self.server.pid();
        if member.pid == server {
            Part::Supervisor
        } else if namespace(member.pid) != namespace(server) {
            Part::Sandboxes
        } else if member.parent == server.as_raw_nonzero().get() {
            if read("cmdline").contains("--part=api") { Part::Api } else { Part::Daemon }
        } else if read("comm").starts_with("python") {
            Part::Zygote
        } else {
            Part::Maker
        }
    }

    /// Private memory of one waiting sandbox at the average, in bytes, PID 1 and the interpreter together.
    ///
    /// # Panics
    /// If there is none.
    pub fn slot(&self) -> f64 {
        self.until_full();
        let members = Lineage::of(self.server.pid()).members();
        let inside: Vec<Pid> =
            members.iter().filter(|member| self.part(member) == Part::Sandboxes).map(|member| member.pid).collect();
        let sandboxes: BTreeSet<_> = inside.iter().filter_map(|pid| namespace(*pid)).collect();
        assert!(!sandboxes.is_empty(), "no sandbox waits");
        inside.iter().map(|pid| private(*pid)).sum::<u64>() as f64 / sandboxes.len() as f64
    }
}

/// Processes of sandboxes are those with process ids of their own; each sandbox has others.
fn namespace(pid: Pid) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{}/ns/pid", pid.as_raw_nonzero())).ok()
}

fn execution(caller: &Caller, program: &Value) -> Vec<u8> {
    caller.request("POST", "/execute", program.to_string().as_bytes())
}

fn executed(answer: Answer) -> Result<Value, String> {
    if answer.status == 200 { answer.json() } else { Err(answer.told()) }
}

fn told<T>(outcome: std::io::Result<T>) -> Result<T, String> {
    outcome.map_err(|error| format!("pyrunner: {error}"))
}
