//! A step of a build: a program that runs confined, within the build's limits, until it ends, fails or is called off.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use coracle_engine::{BuildError, BuildRequest, EngineError, OutputSink, Stream};
use coracle_jail::{GroupLimits, Show, User};
use coracle_model::CommandLine;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::attached::{self, AttachedError};
use crate::files::{give_to, make_directory};
use crate::runtime::in_background;
use crate::site::Site;
use crate::surroundings::{join, passed_on, text};
use crate::task::{PortChoice, Task};

/// What the names of the cgroups of builds begin with: nothing an instance can be called.
pub(super) const GROUP: &str = "@build";

/// How long killing and clearing up may take beyond the deadline of a build.
pub(super) const SLACK: Duration = Duration::from_secs(30);

/// Processes that a build may have.
const PIDS: u32 = 2048;

/// Variables of the server's environment that tell package managers where to get packages and whom to trust.
const PASSED_ON: [&str; 4] = ["SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"];

/// The beginnings of the names of further such variables.
const PASSED_ON_PREFIXES: [&str; 4] = ["PIP_", "UV_", "NPM_CONFIG_", "npm_config_"];

/// Where a build works: what all its steps share.
pub(super) struct Bench<'a> {
    pub(super) site: &'a Arc<Site>,
    pub(super) request: &'a BuildRequest,
    pub(super) output: &'a OutputSink,
    pub(super) cancel: &'a CancellationToken,
    pub(super) user: Option<User>,
    cache: PathBuf,
    deadline: Instant,
}

/// A program to run.
pub(super) struct Step<'a> {
    pub(super) argv: Vec<String>,
    pub(super) cwd: &'a Path,
    pub(super) env: Vec<(String, String)>,
    /// What it sees of the engine's directory.
    pub(super) shows: Vec<Show>,
}

impl<'a> Bench<'a> {
    pub(super) fn set_up(
        site: &'a Arc<Site>,
        request: &'a BuildRequest,
        output: &'a OutputSink,
        cancel: &'a CancellationToken,
    ) -> Result<Self, BuildError> {
        let user = site.user_of(&request.app)?;
        let cache = site.home.cache(&request.app);
        make_directory(&cache, 0o700)
            .and_then(|()| give_to(&cache, user))
            .map_err(|error| EngineError::io("make the build cache", &error))?;
        let deadline = Instant::now() + request.limits.deadline.duration();
        Ok(Self { site, request, output, cancel, user, cache, deadline })
    }

    pub(super) fn say(&self, line: impl Into<String>) {
        self.output.line(Stream::Stdout, line);
    }

    /// Runs a step to its end.
    pub(super) async fn run(&self, step: Step<'_>) -> Result<(), BuildError> {
        let words = step.argv.join(" ");
        self.say(format!("$ {words}"));
        let command = CommandLine::literal(step.argv.clone()).map_err(|error| BuildError::CannotBuild(error.to_string()))?;
        let group = format!("{GROUP}.{}.{}", self.request.app, super::nonce()?);
        let task = self.task(command, &step, &group);
        let disk_full = Arc::new(AtomicBool::new(false));
        let sink = {
            let (output, disk_full) = (self.output.clone(), Arc::clone(&disk_full));
            OutputSink::new(move |line| {
                if line.text.contains("No space left on device") || line.text.contains("ENOSPC") {
                    disk_full.store(true, Ordering::Relaxed);
                }
                output.line(line.stream, line.text);
            })
        };
        let left = self.deadline.saturating_duration_since(Instant::now());
        let outcome = attached::run(&self.site.program, &task, &sink, left, self.cancel).await;
        let out_of_memory = self.clear_group(&group).await?;
        match outcome {
            Ok(exit) if exit.success() => Ok(()),
            Ok(exit) if exit.out_of_memory || out_of_memory => Err(BuildError::OutOfMemory { limit: self.request.limits.memory }),
            Ok(_) if disk_full.load(Ordering::Relaxed) => {
                Err(EngineError::DiskFull { place: text(self.site.home.root()) }.into())
            }
            Ok(exit) => Err(BuildError::StepFailed { step: words, code: Some(i64::from(exit.shell_code())) }),
            Err(AttachedError::Cancelled) => Err(BuildError::Cancelled),
            Err(AttachedError::TimedOut) => Err(BuildError::TimedOut { limit: self.request.limits.deadline }),
            Err(AttachedError::CannotStart(cause)) => {
                self.output.line(Stream::Stderr, cause);
                Err(BuildError::StepFailed { step: words, code: None })
            }
            Err(AttachedError::Shim(cause)) => Err(EngineError::Failed { action: words, cause }.into()),
        }
    }

    /// Removes the group of a step. Answers whether the kernel had to kill in it.
    async fn clear_group(&self, name: &str) -> Result<bool, BuildError> {
        let full = format!("{}/{name}", crate::confine::groups_of(self.site.owner.as_str()));
        let killed = self.site.means.hierarchy.find(&full).is_some_and(|group| group.stats().oom_kills > 0);
        let (site, name) = (Arc::clone(self.site), name.to_owned());
        in_background(move || site.remove_group(&name)).await.map_err(BuildError::from)?;
        Ok(killed)
    }

    fn task(&self, command: CommandLine, step: &Step<'_>, group: &str) -> Task {
        let mut env = passed_on();
        env.extend(std::env::vars().filter(|(name, _)| is_passed_on(name)));
        env.insert("PATH".to_owned(), join(self.site.search_path().into_iter()));
        env.insert("HOME".to_owned(), text(&self.cache));
        env.extend(step.env.iter().cloned().collect::<BTreeMap<_, _>>());
        let mut shows = vec![Show::writable(&self.cache)];
        shows.extend(step.shows.iter().cloned());
        let confines = self.site.means.confine(self.user, &self.site.home, &self.site.program, shows);
        let limits = GroupLimits {
            memory: Some(self.request.limits.memory.get()),
            cpu_milli: Some(self.request.limits.cpus.as_milli()),
            pids: Some(PIDS),
        };
        Task {
            command,
            env: env.into_iter().collect(),
            cwd: step.cwd.to_owned(),
            port: PortChoice::None,
            group: self.site.means.group(self.site.owner.as_str(), group, limits, false),
            namespaces: confines.namespaces,
            join: None,
            file_system: confines.file_system,
            confinement: confines.confinement,
        }
    }
}

fn is_passed_on(name: &str) -> bool {
    PASSED_ON.contains(&name)
        || PASSED_ON_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || name.to_ascii_lowercase().ends_with("_proxy")
}
