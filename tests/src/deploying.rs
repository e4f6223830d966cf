//! A deployment in progress, followed the way a person follows it: by what `coracle deploy` prints into a pipe. The process
//! itself can be interrupted or killed.

use std::process::Stdio;
use std::time::Duration;

use coracle_api::Phase;
use rustix::process::{Pid, Signal};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{Instant, timeout};

use crate::belongings;

const PATIENCE: Duration = Duration::from_secs(240);

/// What is printed when a phase begins.
const PHASES: [(Phase, &str); 13] = [
    (Phase::Validate, "▸ checking"),
    (Phase::Build, "▸ building"),
    (Phase::Pipeline, "▸ running the pipeline"),
    (Phase::Push, "▸ pushing to the registry"),
    (Phase::Services, "▸ bringing up the services that keep data"),
    (Phase::Release, "▸ running the release command"),
    (Phase::Hold, "▸ holding requests"),
    (Phase::Start, "▸ starting the new instances"),
    (Phase::Probe, "▸ waiting until they are healthy"),
    (Phase::Switch, "▸ moving the requests over"),
    (Phase::Drain, "▸ letting requests on the old instances end"),
    (Phase::Stop, "▸ stopping the old instances"),
    (Phase::Record, "▸ tidying up"),
];

/// A `coracle deploy` (or rollback, or restart) that is running.
#[derive(Debug)]
pub struct Deploying {
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
    lines: Vec<String>,
    typed: Instant,
}

/// A `coracle deploy` that has ended.
#[derive(Debug)]
pub struct Deployed {
    /// The exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// What it printed, line by line.
    pub lines: Vec<String>,
    /// What it complained about.
    pub stderr: String,
    /// From typing to the end.
    pub took: Duration,
}

impl Deploying {
    /// Begins.
    pub fn begin(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let typed = Instant::now();
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, stdout, lines: Vec::new(), typed }
    }

    /// Waits for the next line; `None` at the end.
    async fn next(&mut self) -> Option<&str> {
        let line = timeout(PATIENCE, self.stdout.next_line()).await;
        let line = line.unwrap_or_else(|_| panic!("nothing happens any more after\n{}", self.lines.join("\n")));
        self.lines.push(line.unwrap()?);
        self.lines.last().map(String::as_str)
    }

    /// Waits until the phase, or a later one, has begun; `false` if the deployment ended before.
    pub async fn reaches(&mut self, wanted: Phase) -> bool {
        while let Some(line) = self.next().await {
            // The first phase begins with the deployment itself: `d12: deploying v4 of shop`.
            let begins =
                line.strip_prefix('d').and_then(|rest| rest.split_once(": ")).is_some_and(|(id, _)| id.parse::<u32>().is_ok());
            if wanted == Phase::Validate && begins {
                return true;
            }
            if PHASES.iter().any(|(phase, begins)| *phase >= wanted && line.starts_with(begins)) {
                return true;
            }
        }
        false
    }

    /// Ctrl-C.
    pub fn interrupt(&self) {
        self.signal(Signal::INT);
    }

    /// Ctrl-C, as a terminal sends it: to the whole group, of which the command has to be the head.
    pub fn interrupt_group(&self) {
        let pid = Pid::from_raw(self.child.id().expect("it is running").cast_signed()).expect("a process id is not zero");
        rustix::process::kill_process_group(pid, Signal::INT).expect("it is the head of a group");
    }

    /// The client vanishes.
    pub fn kill_client(&self) {
        self.signal(Signal::KILL);
    }

    fn signal(&self, signal: Signal) {
        let Some(pid) = self.child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())) else { return };
        belongings::signal(pid, signal);
    }

    /// Follows it to its end.
    pub async fn end(mut self) -> Deployed {
        // Both pipes are read at once, so that neither can fill up and hold the program.
        let mut errors = self.child.stderr.take().unwrap();
        let reading = tokio::spawn(async move {
            let mut text = Vec::new();
            errors.read_to_end(&mut text).await.unwrap();
            String::from_utf8_lossy(&text).into_owned()
        });
        while self.next().await.is_some() {}
        let status = timeout(PATIENCE, self.child.wait()).await.expect("the program closed its output and goes on").unwrap();
        let stderr = reading.await.unwrap();
        Deployed { code: status.code(), lines: self.lines, stderr, took: self.typed.elapsed() }
    }
}

impl Deployed {
    /// Panics unless the new release is active.
    #[track_caller]
    pub fn succeeds(&self) -> &Self {
        assert_eq!(self.code, Some(0), "{self}");
        self
    }

    /// Panics unless it tried and failed.
    #[track_caller]
    pub fn fails(&self) -> &Self {
        assert_eq!(self.code, Some(1), "{self}");
        self
    }

    /// Panics unless the error shows this: in its cause, its evidence or its hint.
    #[track_caller]
    pub fn shows(&self, text: &str) -> &Self {
        assert!(self.stderr.contains(text), "expected {text:?} in\n{self}");
        self
    }

    /// What the error says to type next.
    pub fn hint(&self) -> Option<&str> {
        self.stderr.lines().find_map(|line| line.strip_prefix("next: "))
    }

    /// How long each phase took, as the last line but the hints says it: `build 600 ms · start 90 ms`.
    pub fn phases(&self) -> Option<&str> {
        self.lines.iter().rev().map(|line| line.trim()).find(|line| line.starts_with("validate "))
    }
}

impl std::fmt::Display for Deployed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}\n{}(code {:?} after {:.1?})", self.lines.join("\n"), self.stderr, self.code, self.took)
    }
}
