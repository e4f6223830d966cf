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

/// Bytes of memory of its own, without what it maps to read: what a pack can make it fill.
const HEAP: u64 = 512 << 20;

/// The largest piece of memory that git asks for at once. Blobs are streamed; what is kept whole are trees, commits, and what
/// deltas are resolved with, of which a few are held at a time.
const PIECE: &str = "128m";

/// Seconds of processor time of each child: a pack that is small and becomes large takes long, and no longer.
const PROCESSOR: u64 = 15 * 60;

/// Bytes of the largest file that it writes: a pack with what completes it.
const FILE: u64 = 6 << 30;

/// What a child and each of its children may use.
const LIMITS: [(Resource, u64); 4] =
    [(Resource::As, MEMORY), (Resource::Data, HEAP), (Resource::Cpu, PROCESSOR), (Resource::Fsize, FILE)];

/// The limits of a child that writes no file larger than this.
fn limits_with(largest_file: Option<u64>) -> [(Resource, u64); 4] {
    LIMITS.map(|(resource, most)| match (resource, largest_file) {
        (Resource::Fsize, Some(own)) => (resource, own.min(most)),
        _ => (resource, most),
    })
}

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
    // A branch that has gone live cannot be taken back because another one is refused.
    ("receive.advertiseAtomic", "false"),
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
    // What comes stays a pack: as loose objects, a few small deltas of a large one would each be as large on the disk, now or when
    // the repository is tidied up.
    ("transfer.unpackLimit", "1"),
    ("gc.cruftPacks", "true"),
    ("gc.bigPackThreshold", "256m"),
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
    /// Bytes of any file that it writes.
    largest_file: Option<u64>,
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
        let mut git = Self { arguments, settings, environment: Vec::new(), home: home.to_owned(), largest_file: None };
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

    /// Ends it when a file that it writes becomes larger than this.
    pub(crate) fn writes_at_most(&mut self, bytes: u64) -> &mut Self {
        self.largest_file = Some(bytes);
        self
    }

    fn command(self) -> Command {
        let mut command = Command::new("git");
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
        command.env_clear().env("PATH", path).env("HOME", &self.home).env("LC_ALL", "C");
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_ATTR_NOSYSTEM", "1");
        command
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_NO_REPLACE_OBJECTS", "1")
            .env("GIT_NO_LAZY_FETCH", "1")
            .env("GIT_ALLOC_LIMIT", PIECE);
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
        let largest_file = self.largest_file;
        let child = self.command().spawn().map_err(DoorError::Start)?;
        let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let running = Running { child, group };
        // It waits for its input yet, or is about to read a repository; its own children inherit the limit.
        for (resource, most) in limits_with(largest_file) {
            let limit = Rlimit { current: Some(most), maximum: Some(most) };
            match rustix::process::prlimit(group, resource, limit) {
                Ok(_) | Err(rustix::io::Errno::SRCH) => {}
                // What is allowed to the server itself is less, and holds for the child.
                Err(rustix::io::Errno::PERM) if rustix::process::getrlimit(resource).maximum.is_some_and(|own| own < most) => {}
                Err(error) => return Err(DoorError::Start(error.into())),
            }
        }
        Ok(running)
    }

    /// Runs it to its end without input; what it wrote, or what it complained of.
    pub(crate) async fn ask(self) -> Result<Vec<u8>, DoorError> {
        self.ask_within(QUESTION).await
    }

    /// The same, if it may take longer.
    pub(crate) async fn ask_within(self, patience: Duration) -> Result<Vec<u8>, DoorError> {
        let mut running = self.start()?;
        drop(running.child.stdin.take());
        let (stdout, stderr) = (running.child.stdout.take(), running.child.stderr.take());
        let asking = async {
            let (answer, complaint) = tokio::join!(read(stdout, LONGEST_ANSWER), read(stderr, LONGEST_COMPLAINT));
            let status = running.child.wait().await.map_err(DoorError::Start)?;
            match status.success() {
                true if answer.len() as u64 > LONGEST_ANSWER => Err(DoorError::TooManyRefs(LONGEST_ANSWER >> 20)),
                true => Ok(answer),
                false if complaint.is_empty() => Err(DoorError::Git(format!("nothing, and ended with {status}"))),
                false => Err(DoorError::Git(told(&complaint))),
            }
        };
        tokio::time::timeout(patience, asking).await.map_err(|_| DoorError::Git("it does not end".to_owned()))?
    }
}

/// What a program beside git writes, which is asked without input.
pub(crate) async fn read_answer(program: &str, words: &[&str], most: u64) -> Result<Vec<u8>, DoorError> {
    let mut command = Command::new(program);
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    command.env_clear().env("PATH", path).env("LC_ALL", "C").args(words);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let started = |source| DoorError::Program { program: program.to_owned(), source };
    let mut child = command.spawn().map_err(started)?;
    let stdout = child.stdout.take();
    let asking = async {
        let answer = read(stdout, most).await;
        child.wait().await.map(|_| answer).map_err(started)
    };
    tokio::time::timeout(QUESTION, asking).await.map_err(|_| DoorError::Git(format!("{program} does not end")))?
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
