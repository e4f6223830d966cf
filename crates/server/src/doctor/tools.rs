//! Programs that the process engine builds and runs apps with.

use std::process::Stdio;
use std::time::Duration;

use coracle_api::Check;

use super::{ok, warn};

/// How long a program may take to tell its version.
const DEADLINE: Duration = Duration::from_secs(5);

/// What is looked for: the program, how it is asked for its version, and what goes without it.
const TOOLS: [(&str, Without); 4] = [
    ("python3", Without::Hint("Python apps of the process engine need it: `apt install python3 python3-venv`")),
    ("uv", Without::Slower("Python dependencies install faster with it")),
    ("node", Without::Hint("Node.js apps of the process engine need it: `apt install nodejs npm`")),
    ("npm", Without::Hint("Node.js apps of the process engine need it: `apt install nodejs npm`")),
];

/// What going without a program means.
#[derive(Clone, Copy)]
enum Without {
    /// Some apps cannot be built or run; what to do about it.
    Hint(&'static str),
    /// Nothing but time is lost.
    Slower(&'static str),
}

pub(super) async fn checks() -> Vec<Check> {
    let asked = TOOLS.map(|(program, without)| check(program, without));
    futures::future::join_all(asked).await
}

async fn check(program: &str, without: Without) -> Check {
    let asking = tokio::process::Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    let wrong = match tokio::time::timeout(DEADLINE, asking).await {
        Ok(Ok(output)) if output.status.success() => {
            return ok(program, String::from_utf8_lossy(&output.stdout).trim().to_owned());
        }
        Ok(Ok(output)) => format!("it is there, but does not work: {}", output.status),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => "not found".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("it does not answer within {DEADLINE:?}"),
    };
    match without {
        Without::Hint(hint) => warn(program, wrong, hint),
        Without::Slower(what) => ok(program, format!("{wrong}; optional: {what}")),
    }
}
