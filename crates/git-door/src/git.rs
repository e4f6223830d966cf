//! Git's programs as children: what they are told, what they may cost, and that they end.
//!
//! Their environment is made here and holds nothing of the server's own. Configuration comes from it alone, where it stands
//! above what a repository says; the system's and the user's are not read.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

use crate::door::DoorError;

/// Bytes of address space of each child. What git maps of its packs is kept below it by the windows below.
const MEMORY: u64 = 1536 << 20;

/// How long a short question to a repository may take.
pub(crate) const QUESTION: Duration = Duration::from_secs(60);

/// Bytes of an answer to a short question.
const LONGEST_ANSWER: u64 = 16 << 20;

/// Bytes of complaints that are kept.
const LONGEST_COMPLAINT: u64 = 16 << 10;

/// What holds for every child. Git reads later values of a key as additions where it takes several.
const ALWAYS: &[(&str, &str)] = &[
    // Nothing of a repository's choice is run.
    ("core.fsmonitor", "false"),
    ("core.attributesFile", "/dev/null"),
    ("protocol.allow", "never"),
    ("gc.auto", "0"),
    ("receive.autogc", "false"),
    ("receive.advertisePushOptions", "false"),
    // Only branches and tags are seen and moved.
    ("transfer.hideRefs", "refs"),
    ("transfer.hideRefs", "!refs/heads"),
    ("transfer.hideRefs", "!refs/tags"),
    // What is pushed must be sound; what only old versions of git wrote differently is let in.
    ("transfer.fsckObjects", "true"),
    ("receive.fsck.zeroPaddedFilemode", "ignore"),
    ("receive.fsck.badTimezone", "ignore"),
    ("receive.fsck.missingSpaceBeforeDate", "ignore"),
    ("receive.maxInputSize", "4g"),
    ("receive.shallowUpdate", "true"),
    // Memory stays flat: large files are streamed, packs are looked at through small windows, one thread works.
    ("core.bigFileThreshold", "8m"),
    ("core.packedGitWindowSize", "16m"),
    ("core.packedGitLimit", "128m"),
    ("core.deltaBaseCacheLimit", "32m"),
    ("pack.threads", "1"),
    ("pack.windowMemory", "64m"),
    ("pack.deltaCacheSize", "32m"),
    // As `coracle deploy` sends files.
    ("tar.umask", "0022"),
];

/// A git program that is about to be started.
pub(crate) struct Git {
    arguments: Vec<OsString>,
    settings: Vec<(String, OsString)>,
    environment: Vec<(&'static str, OsString)>,
    home: PathBuf,
}

impl Git {
    /// `git --git-dir REPOSITORY WORDS`.
    pub(crate) fn in_repository(repository: &Path, words: &[&str]) -> Self {
        let mut git = Self::new(repository, &[]);
        git.arguments.extend([OsString::from("--git-dir"), repository.into()]);
        git.arguments.extend(words.iter().map(OsString::from));
        git
    }

    /// `git WORDS`, at home in a directory that holds no configuration.
    pub(crate) fn new(home: &Path, words: &[&str]) -> Self {
        let settings = ALWAYS.iter().map(|(name, value)| ((*name).to_owned(), OsString::from(value))).collect();
        let arguments = words.iter().map(OsString::from).collect();
        let mut git = Self { arguments, settings, environment: Vec::new(), home: home.to_owned() };
        git.set("core.hooksPath", "/dev/null");
        git
    }

    /// Adds an argument.
    pub(crate) fn argument(&mut self, argument: impl Into<OsString>) -> &mut Self {
        self.arguments.push(argument.into());
        self
    }

    /// Adds a setting; of a key that has one value, the last holds.
    pub(crate) fn set(&mut self, name: &str, value: impl Into<OsString>) -> &mut Self {
        self.settings.push((name.to_owned(), value.into()));
        self
    }

    /// Adds a variable of its environment.
    pub(crate) fn env(&mut self, name: &'static str, value: impl Into<OsString>) -> &mut Self {
        self.environment.push((name, value.into()));
        self
    }

    fn command(self) -> Command {
        let mut command = Command::new("git");
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
        command.env_clear().env("PATH", path).env("HOME", &self.home).env("LC_ALL", "C");
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_ATTR_NOSYSTEM", "1");
        command.env("GIT_TERMINAL_PROMPT", "0").env("GIT_NO_REPLACE_OBJECTS", "1").env("GIT_NO_LAZY_FETCH", "1");
        command.env("GIT_CONFIG_COUNT", self.settings.len().to_string());
        for (number, (name, value)) in self.settings.into_iter().enumerate() {
            command.env(format!("GIT_CONFIG_KEY_{number}"), name).env(format!("GIT_CONFIG_VALUE_{number}"), value);
        }
        command.args(self.arguments).envs(self.environment).current_dir(&self.home);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
        command
    }

    /// Starts it.
    pub(crate) fn start(self) -> Result<Running, DoorError> {
        let child = self.command().spawn().map_err(DoorError::Start)?;
        let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let running = Running { child, group };
        // It waits for its input yet, or is about to read a repository; its own children inherit the limit.
        let limit = Rlimit { current: Some(MEMORY), maximum: Some(MEMORY) };
        match rustix::process::prlimit(group, Resource::As, limit) {
            Ok(_) | Err(rustix::io::Errno::SRCH) => Ok(running),
            Err(error) => Err(DoorError::Start(error.into())),
        }
    }

    /// Runs it to its end without input; what it wrote, or what it complained of.
    pub(crate) async fn ask(self) -> Result<Vec<u8>, DoorError> {
        let mut running = self.start()?;
        drop(running.child.stdin.take());
        let (stdout, stderr) = (running.child.stdout.take(), running.child.stderr.take());
        let asking = async {
            let (answer, complaint) = tokio::join!(read(stdout, LONGEST_ANSWER), read(stderr, LONGEST_COMPLAINT));
            let status = running.child.wait().await.map_err(DoorError::Start)?;
            match status.success() && answer.len() as u64 <= LONGEST_ANSWER {
                true => Ok(answer),
                false => Err(DoorError::Git(told(&complaint))),
            }
        };
        tokio::time::timeout(QUESTION, asking).await.map_err(|_| DoorError::Git("it does not end".to_owned()))?
    }
}

/// Reads to the end, and keeps the beginning: one byte more than `most` if there is more.
async fn read(from: Option<impl AsyncRead + Unpin>, most: u64) -> Vec<u8> {
    let mut kept = Vec::new();
    let Some(mut from) = from else { return kept };
    // What cannot be read is told by the way the program ends.
    if (&mut from).take(most + 1).read_to_end(&mut kept).await.is_ok() {
        tokio::io::copy(&mut from, &mut tokio::io::sink()).await.ok();
    }
    kept
}

/// What a program complained of, in one line.
pub(crate) fn told(complaint: &[u8]) -> String {
    let text = String::from_utf8_lossy(complaint);
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

/// A git program that runs. Dropping it ends it with all its children.
pub(crate) struct Running {
    pub(crate) child: Child,
    group: Option<Pid>,
}

impl Running {
    /// Everything it complains of, as far as it is kept.
    pub(crate) fn complaint(&mut self) -> impl Future<Output = Vec<u8>> + Send + 'static {
        read(self.child.stderr.take(), LONGEST_COMPLAINT)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Once it has been waited for, its number may be somebody else's.
        if let (Some(group), Ok(None)) = (self.group, self.child.try_wait())
            && let Err(error) = rustix::process::kill_process_group(group, Signal::KILL)
        {
            tracing::debug!(%error, "a git program ended by itself");
        }
    }
}
