//! The `coracle` program as a user runs it: as a process of its own, with what it printed and how it ended.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

/// The search path of everything the stories start: the system's own, so that the system's Python is found and not that
/// of a version manager, which an app under a user of its own could not read.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// No command of a story takes longer.
const PATIENCE: Duration = Duration::from_secs(300);

/// Where the program is: `CORACLE_BIN`, else in the target directory that this program is in.
pub fn path() -> PathBuf {
    std::env::var_os("CORACLE_BIN").map_or_else(|| built("coracle", "coracle"), PathBuf::from)
}

/// Where PyRunner is: `PYRUNNER_BIN`, else in the same directory.
pub fn pyrunner() -> PathBuf {
    std::env::var_os("PYRUNNER_BIN").map_or_else(|| built("pyrunner", "coracle-pyrunner"), PathBuf::from)
}

fn built(name: &str, package: &str) -> PathBuf {
    let this = std::env::current_exe().unwrap();
    let places = this.ancestors().skip(1).take(2).map(|directory| directory.join(name));
    let found = places.into_iter().find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("there is no {name} beside {}: cargo build -p {package}", this.display()))
}

/// The program, about to be run in surroundings that hold nothing of the developer's own configuration.
pub fn command(program: &Path, home: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CORACLE_") || name.to_string_lossy().starts_with("XDG_") {
            command.env_remove(name);
        }
    }
    command.env("PATH", PATH).env("HOME", home).env("NO_COLOR", "1").current_dir(home).kill_on_drop(true);
    command
}

/// What a run of the program came to.
#[derive(Debug, Clone)]
pub struct Ran {
    /// What was typed.
    pub line: String,
    /// The exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Ran {
    /// Runs the command to its end.
    pub async fn to_its_end(mut command: Command) -> Self {
        command.stdin(Stdio::null());
        Self::as_it_is(command).await
    }

    /// Runs the command to its end, with the standard input that it has been given.
    pub async fn as_it_is(mut command: Command) -> Self {
        let words = command.as_std().get_args().map(OsStr::to_string_lossy).collect::<Vec<_>>();
        let line = format!("coracle {}", words.join(" "));
        let running = command.output();
        let output = timeout(PATIENCE, running).await.unwrap_or_else(|_| panic!("{line} takes longer than {PATIENCE:?}"));
        let output = output.unwrap_or_else(|error| panic!("{line}: {error}"));
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { line, code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Everything it printed.
    pub fn output(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    /// Panics unless it did what was asked.
    #[track_caller]
    pub fn succeeds(&self) -> &Self {
        assert_eq!(self.code, Some(0), "{self}");
        self
    }

    /// Panics unless it tried and failed (exit code 1).
    #[track_caller]
    pub fn fails(&self) -> &Self {
        assert_eq!(self.code, Some(1), "{self}");
        self
    }

    /// Panics unless it was not done: whether refused as typed (2) or by the server (1), but not by a panic or a signal.
    #[track_caller]
    pub fn is_refused(&self) -> &Self {
        assert!(matches!(self.code, Some(1 | 2)) && !self.output().contains("panicked"), "{self}");
        self
    }

    /// Panics unless it printed this.
    #[track_caller]
    pub fn says(&self, text: &str) -> &Self {
        assert!(self.output().contains(text), "expected {text:?} in\n{self}");
        self
    }

    /// Panics if it printed this.
    #[track_caller]
    pub fn does_not_say(&self, text: &str) -> &Self {
        assert!(!self.output().contains(text), "did not expect {text:?} in\n{self}");
        self
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let end = self.code.map_or("killed".to_owned(), |code| format!("exit code {code}"));
        write!(f, "$ {}\n{}{}({end})", self.line, self.stdout, self.stderr)
    }
}
