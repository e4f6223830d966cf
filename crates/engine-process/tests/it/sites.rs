//! The static file server by itself.

use std::path::Path;

use coracle_engine_process::static_site::serve_on;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Asks a server of `root` for each path, with further header lines, and gives what it answered.
async fn ask(root: &Path, requests: &[(&str, &str)]) -> Vec<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(serve_on(root.to_owned(), listener, async {
        stopped.await.ok();
    }));
    let mut answers = Vec::new();
    for (path, headers) in requests {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n{headers}Connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        answers.push(String::from_utf8_lossy(&bytes).into_owned());
    }
    drop(stop);
    tokio::time::timeout(crate::bench::SOON, server).await.unwrap().unwrap().unwrap();
    answers
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap()
}

#[tokio::test]
async fn nothing_outside_and_nothing_hidden_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    std::fs::create_dir_all(root.join(".well-known")).unwrap();
    std::fs::create_dir_all(root.join("folder")).unwrap();
    for (file, text) in [("../secret", "secret"), ("index.html", "home"), (".env", "secret"), (".well-known/x", "known")] {
        std::fs::write(root.join(file), text).unwrap();
    }
    std::os::unix::fs::symlink("../secret", root.join("link")).unwrap();
    std::os::unix::fs::symlink("/etc", root.join("etc")).unwrap();
    let paths = ["/", "/.well-known/x", "/link", "/etc/passwd", "/.env", "/%2eenv", "/folder/", "/%2e%2e/secret", "/%00"];
    let answers = ask(&root, &paths.map(|path| (path, ""))).await;
    let statuses: Vec<&str> = answers.iter().map(|answer| status(answer)).collect();
    assert_eq!(statuses, ["200", "200", "404", "404", "404", "404", "404", "404", "404"]);
    assert!(answers.iter().all(|answer| !answer.contains("secret")), "{answers:?}");
}

#[tokio::test]
async fn stored_compressed_files_and_validators_are_used() {
    let dir = tempfile::tempdir().unwrap();
    for (file, text) in [("app.js", "plain"), ("app.js.gz", "zipped"), ("app.js.br", "brotli")] {
        std::fs::write(dir.path().join(file), text).unwrap();
    }
    let requests = [("/app.js", ""), ("/app.js", "Accept-Encoding: gzip\r\n"), ("/app.js", "Accept-Encoding: br, gzip\r\n")];
    let answers = ask(dir.path(), &requests).await;
    for (answer, body) in answers.iter().zip(["plain", "zipped", "brotli"]) {
        assert!(answer.ends_with(&format!("\r\n\r\n{body}")), "{answer}");
    }
    let tag = answers[0].lines().find(|line| line.to_lowercase().starts_with("etag:")).unwrap().split_once(':').unwrap().1;
    let again = ask(dir.path(), &[("/app.js", &format!("If-None-Match:{tag}\r\n"))]).await;
    assert_eq!(status(&again[0]), "304");
}
