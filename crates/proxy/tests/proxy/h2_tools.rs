//! HTTP/2 as programs of others speak it. `scripts/setup-test` installs them; where one is missing, its test says so.

use std::process::Stdio;

use tokio::process::Command;

use crate::backend::Backend;
use crate::env::{Env, soon};

/// What a program prints; nothing if there is no such program here.
#[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
async fn run(program: &str, arguments: &[&str]) -> Option<String> {
    let run = Command::new(program).args(arguments).stdin(Stdio::null()).kill_on_drop(true).output();
    match soon(run).await {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success(), "{program}: {text}{}", String::from_utf8_lossy(&output.stderr));
            Some(text)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            assert!(std::env::var_os("CI").is_none(), "{program} is missing");
            eprintln!("{program} is missing: scripts/setup-test installs it");
            None
        }
        Err(error) => panic!("{program}: {error}"),
    }
}

#[tokio::test]
async fn curl_asks_and_uploads() {
    let app = Backend::echo().await;
    let mut env = Env::new().await;
    env.serve(&[("t", app.address)]).await;
    let url = format!("http://{}/a?b", env.http());
    let body = "x".repeat(200_000);
    let file = env.directory.path().join("body");
    std::fs::write(&file, &body).unwrap();
    let data = format!("@{}", file.display());
    let arguments = ["--silent", "--show-error", "--http2-prior-knowledge", "--write-out", "\n%{http_version} %{http_code}"];
    let Some(text) = run("curl", &[arguments.as_slice(), &["--data-binary", &data, &url]].concat()).await else { return };
    assert!(text.starts_with("POST /a?b HTTP/1.1\n") && text.contains(&body) && text.ends_with("\n2 200"), "{text}");
}

#[tokio::test]
async fn h2load_gets_every_answer() {
    let app = Backend::saying("fine").await;
    let mut env = Env::new().await;
    env.serve(&[("t", app.address)]).await;
    let url = format!("http://{}/", env.http());
    let Some(text) = run("h2load", &["-n", "2000", "-c", "4", "-m", "32", &url]).await else { return };
    assert!(text.contains("2000 succeeded, 0 failed") && text.contains("2000 2xx"), "{text}");
}
