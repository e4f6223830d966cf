//! Programs that the process engine builds and runs apps with.

use std::process::Stdio;
use std::time::Duration;

use coracle_api::Check;

use super::{ok, warn};

/// How long a program may take to tell its version.
const DEADLINE: Duration = Duration::from_secs(5);

/// What is looked for: the program, how it is asked for its version, and what goes without it.
const TOOLS: [(&str, &[&str], &str); 4] = [
    ("python3", &["--version"], "Python apps of the process engine need it: `apt install python3 python3-venv`"),
    ("uv", &["--version"], "optional: with it, Python dependencies install faster; see docs.astral.sh/uv"),
    ("node", &["--version"], "Node.js apps of the process engine need it: `apt install nodejs npm`"),
    ("npm", &["--version"], "Node.js apps of the process engine need it: `apt install nodejs npm`"),
];

pub(super) async fn checks() -> Vec<Check> {
    let asked = TOOLS.map(|(program, arguments, hint)| check(program, arguments, hint));
    futures::future::join_all(asked).await
}

async fn check(program: &str, arguments: &[&str], hint: &str) -> Check {
    let asking = tokio::process::Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    match tokio::time::timeout(DEADLINE, asking).await {
        Ok(Ok(output)) if output.status.success() => ok(program, String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        Ok(Ok(output)) => warn(program, format!("it is there, but does not work: {}", output.status), hint),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => warn(program, "not found", hint),
        Ok(Err(error)) => warn(program, error.to_string(), hint),
        Err(_) => warn(program, format!("it does not answer within {DEADLINE:?}"), hint),
    }
}
