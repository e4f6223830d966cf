//! HTTP/2 and compression as programs of others know them. `scripts/setup-test` installs them; where one is missing, its test says so.

use std::process::Stdio;

use tokio::process::Command;

use crate::backend::Backend;
use crate::env::{Env, soon};
use crate::middlewares::through;

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

#[tokio::test]
async fn curl_reads_every_compression() {
    let text = "to be compressed, and again, ".repeat(2_000);
    let told = text.clone();
    let app = Backend::talking(move |mut conn| {
        let told = told.clone();
        async move {
            while conn.request().await.is_some() {
                let length = told.len();
                conn.send(&format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n{told}"))
                    .await;
            }
        }
    })
    .await;
    let env = through(&[r#"{"compress": {}}"#], &app).await;
    let url = format!("http://{}/", env.http());
    for (accepted, encoding) in [("br", "br"), ("zstd", "zstd"), ("gzip", "gzip"), ("gzip;q=0.5, br;q=0.1", "gzip")] {
        let accept = format!("Accept-Encoding: {accepted}");
        let written = "\n%header{content-encoding} %{size_download}";
        let arguments = ["--silent", "--show-error", "--compressed", "--header", &accept, "--write-out", written, &url];
        let Some(out) = run("curl", &arguments).await else { return };
        let (body, facts) = out.rsplit_once('\n').unwrap();
        assert!(body == text, "{encoding}: {} of {} bytes", body.len(), text.len());
        let (seen, size) = facts.split_once(' ').unwrap();
        assert_eq!(seen, encoding);
        assert!(size.parse::<usize>().unwrap() < text.len() / 20, "{encoding}: {size} bytes came");
    }
}
