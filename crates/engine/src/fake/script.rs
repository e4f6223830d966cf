//! What instances and builds of the fake engine do.

use std::time::Duration;

use coracle_model::InstanceId;

use crate::runtime::{Exit, Health, Stream};

/// Which instances a script is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Which {
    release: Option<u32>,
    process: Option<String>,
    id: Option<String>,
}

impl Which {
    /// All of them.
    pub fn all() -> Self {
        Self { release: None, process: None, id: None }
    }

    /// All instances of a release, its release command included.
    pub fn release(release: u32) -> Self {
        Self { release: Some(release), ..Self::all() }
    }

    /// The instances of one process of a release.
    pub fn process(release: u32, process: &str) -> Self {
        Self { release: Some(release), process: Some(process.to_owned()), id: None }
    }

    /// The instance written `shop.v3.web.1`.
    pub fn instance(id: &str) -> Self {
        Self { id: Some(id.to_owned()), ..Self::all() }
    }

    pub(super) fn matches(&self, id: &InstanceId) -> bool {
        self.release.is_none_or(|release| release == id.release.get())
            && self.process.as_deref().is_none_or(|process| process == id.process.as_str())
            && self.id.as_deref().is_none_or(|wanted| wanted == id.to_string())
    }
}

/// What an instance does after it was started.
#[derive(Debug, Clone)]
pub struct Script {
    /// Why it cannot be started at all.
    pub(super) refuses: Option<String>,
    /// Whether the start itself hangs until its caller gives up.
    pub(super) start_hangs: bool,
    /// What it prints, at once.
    pub(super) lines: Vec<(Stream, String)>,
    /// How often it prints another line.
    pub(super) ticks: Option<Duration>,
    /// How it ends by itself, and how long after its start.
    pub(super) exit: Option<(Duration, Exit)>,
    /// Whether it listens on its port, if it has one.
    pub(super) listens: bool,
    /// What it answers; `None`: `v3 web.1`.
    pub(super) body: Option<String>,
    /// How long each answer takes.
    pub(super) delay: Duration,
    /// What it answers on one path.
    pub(super) failing: Option<Failing>,
    /// Whether it stays when it is sent SIGTERM.
    pub(super) ignores_term: bool,
    /// What its HEALTHCHECK says at first.
    pub(super) health: Health,
}

/// A path that stops answering 200.
#[derive(Debug, Clone)]
pub(super) struct Failing {
    pub(super) path: String,
    pub(super) after: u64,
    pub(super) status: u16,
}

impl Script {
    /// Listens and answers every path with 200.
    pub fn serves() -> Self {
        Self {
            refuses: None,
            start_hangs: false,
            lines: Vec::new(),
            ticks: None,
            exit: None,
            listens: true,
            body: None,
            delay: Duration::ZERO,
            failing: None,
            ignores_term: false,
            health: Health::Unchecked,
        }
    }

    /// Runs on and never listens; on its port, connections are refused.
    pub fn never_listens() -> Self {
        Self { listens: false, ..Self::serves() }
    }

    /// Prints these lines on standard error and exits with this code at once.
    pub fn exits(code: i32, lines: &[&str]) -> Self {
        Self::ends(Exit { code: Some(code), ..Exit::default() }).prints(Stream::Stderr, lines)
    }

    /// Ends in this way at once.
    pub fn ends(exit: Exit) -> Self {
        Self::never_listens().then_ends(Duration::ZERO, exit)
    }

    /// Cannot be started, for this reason.
    pub fn cannot_start(cause: &str) -> Self {
        Self { refuses: Some(cause.to_owned()), ..Self::never_listens() }
    }

    /// Its start does not return.
    pub fn start_hangs() -> Self {
        Self { start_hangs: true, ..Self::never_listens() }
    }

    /// Serves, but answers 500 on `path` after this many good answers on it (0: from the first on).
    pub fn unhealthy(path: &str, after: u64) -> Self {
        Self { failing: Some(Failing { path: path.to_owned(), after, status: 500 }), ..Self::serves() }
    }

    /// Also prints these lines when it starts.
    pub fn prints(mut self, stream: Stream, lines: &[impl AsRef<str>]) -> Self {
        self.lines.extend(lines.iter().map(|line| (stream, line.as_ref().to_owned())));
        self
    }

    /// Also prints `tick 0`, `tick 1` and so on at this interval.
    pub fn ticking(mut self, interval: Duration) -> Self {
        self.ticks = Some(interval);
        self
    }

    /// Also ends by itself in this way, so long after its start.
    pub fn then_ends(mut self, after: Duration, exit: Exit) -> Self {
        self.exit = Some((after, exit));
        self
    }

    /// Answers with this body.
    pub fn answers(mut self, body: impl Into<String>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// Takes so long for each answer.
    pub fn delayed(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Stays when it is sent SIGTERM.
    pub fn ignoring_term(mut self) -> Self {
        self.ignores_term = true;
        self
    }

    /// Has a HEALTHCHECK that says this at first.
    pub fn health(mut self, health: Health) -> Self {
        self.health = health;
        self
    }
}

/// What a build does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuildScript {
    /// Makes an artifact. So do builds without a script.
    Succeeds {
        /// Lines it prints.
        lines: Vec<String>,
        /// Whether the image has a HEALTHCHECK.
        has_healthcheck: bool,
    },
    /// A step fails.
    Fails {
        /// Lines it prints before.
        lines: Vec<String>,
        /// The step.
        step: String,
        /// Its exit code.
        code: i64,
    },
    /// Uses more memory than it may.
    OutOfMemory,
    /// Goes on until it is cancelled or its deadline passes.
    Hangs,
    /// The disk is full.
    DiskFull,
}
