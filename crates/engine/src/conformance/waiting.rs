//! Waiting for conditions, and looking at the machine's processes.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// How long anything may take that should take no time.
pub(super) const SOON: Duration = Duration::from_secs(20);

/// Asks again and again until there is an answer; panics with `what` if there is none within 20 seconds.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + SOON;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {SOON:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Awaits something that must come to an end soon.
pub(super) async fn soon<T>(what: &str, action: impl Future<Output = T>) -> T {
    let result = tokio::time::timeout(SOON, action).await;
    result.unwrap_or_else(|_| panic!("not within {SOON:?}: {what}"))
}

/// A text that nobody else on the machine uses.
pub fn unique(prefix: &str) -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}-{}-{number}-{}", std::process::id(), jiff::Timestamp::now().as_nanosecond())
}

/// Processes of this machine, containers included, in whose argument vector the text occurs.
pub fn processes_with(text: &str) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").unwrap();
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        // A process that is just gone has none.
        let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        arguments.windows(text.len()).any(|window| window == text.as_bytes())
    })
    .collect()
}

/// The answer to `GET /`, once somebody answers.
pub(super) async fn get(address: std::net::SocketAddr) -> String {
    eventually(&format!("an answer from {address}"), || async move {
        let answer = tokio::time::timeout(Duration::from_secs(2), get_once(address)).await;
        answer.ok()?.ok()
    })
    .await
}

async fn get_once(address: std::net::SocketAddr) -> std::io::Result<String> {
    let mut connection = TcpStream::connect(address).await?;
    connection.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").await?;
    let mut answer = Vec::new();
    loop {
        let mut piece = [0; 4096];
        let length = connection.read(&mut piece).await?;
        answer.extend_from_slice(&piece[..length]);
        if let Some(body) = whole_body(&String::from_utf8_lossy(&answer)) {
            return Ok(body);
        }
        if length == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}

fn whole_body(answer: &str) -> Option<String> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let headers = head.lines().filter_map(|line| line.split_once(':'));
    let length: usize = headers
        .filter(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .find_map(|(_, value)| value.trim().parse().ok())?;
    (head.contains(" 200 ") && body.len() >= length).then(|| body[..length].to_owned())
}
