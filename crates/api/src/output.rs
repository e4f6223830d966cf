//! What programs write: logs, and the output of one-off processes.

use coracle_model::{InstanceId, ProcessName};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::problem::Problem;

/// Standard output or standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A line that a program wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OutputLine {
    /// Where it was written to.
    pub stream: Stream,
    /// The line, without its end.
    pub text: String,
}

/// A line in the log of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogLine {
    /// The instance that wrote it.
    #[schema(value_type = String, example = "shop.v3.web.1")]
    pub instance: InstanceId,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Where to.
    pub stream: Stream,
    /// The line, without its end.
    pub text: String,
}

/// Which lines of an app's logs are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct LogOptions {
    /// Only the last so many lines; absent: all that are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail: Option<usize>,
    /// Only lines at or after this moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>, format = DateTime)]
    pub since: Option<Timestamp>,
    /// Go on with new lines.
    #[serde(default)]
    pub follow: bool,
    /// Only instances of this process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub process: Option<ProcessName>,
}

/// Runs a one-off process of the active release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RunRequest {
    /// The program and its arguments. No shell comes in between.
    #[schema(example = json!(["python", "manage.py", "migrate"]))]
    pub argv: Vec<String>,
}

/// Runs a program inside a running instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExecRequest {
    /// The program and its arguments. No shell comes in between.
    pub argv: Vec<String>,
    /// Which instance; absent: the first of `web`, or else of any process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "shop.v3.web.1")]
    pub instance: Option<InstanceId>,
}

/// A line of the answer to a run or an exec. The last one is `exit` or `problem`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RunLine {
    /// The program wrote a line.
    Output(OutputLine),
    /// It ended.
    Exit(Exit),
    /// It could not be run to its end.
    Problem(Problem),
}

/// How a program ended. If all fields are empty, nobody saw it end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Exit {
    /// It exited by itself with this code.
    pub code: Option<i32>,
    /// It was killed by this signal.
    pub signal: Option<i32>,
    /// The kernel killed it because it used more memory than it may.
    pub out_of_memory: bool,
}

impl Exit {
    /// Exited with code 0.
    pub fn success(self) -> bool {
        self.code == Some(0)
    }

    /// The code a shell would show: the exit code, or 128 and the signal's number.
    pub fn shell_code(self) -> i32 {
        self.code.or(self.signal.map(|signal| 128 + signal)).unwrap_or(255)
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.out_of_memory, self.code, self.signal) {
            (true, ..) => f.write_str("killed: out of memory"),
            (_, Some(code), _) => write!(f, "exit code {code}"),
            (_, None, Some(signal)) => write!(f, "killed by signal {signal}"),
            (_, None, None) => f.write_str("ended unseen"),
        }
    }
}
