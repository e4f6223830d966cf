//! The responder behind an instance's port: just enough of HTTP/1.1 to be probed and proxied.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;

use super::machine::Counters;
use super::script::{Failing, Script};

/// A loopback port that is held: nobody else gets it, and connections are refused until it listens.
pub(super) struct Port {
    socket: TcpSocket,
    pub(super) address: SocketAddr,
}

impl Port {
    /// Takes a free one.
    pub(super) fn take() -> std::io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address })
    }

    /// Listens on it. Must be called inside the runtime that will serve it.
    pub(super) fn listen(self) -> std::io::Result<TcpListener> {
        self.socket.listen(1024)
    }
}

/// What to answer.
pub(super) struct Responder {
    answers: Arc<Answers>,
}

struct Answers {
    body: String,
    delay: Duration,
    failing: Option<Failing>,
    good_answers: AtomicU64,
    counters: Arc<Counters>,
}

impl Responder {
    pub(super) fn new(script: &Script, default_body: String, counters: Arc<Counters>) -> Self {
        let answers = Answers {
            body: script.body.clone().unwrap_or(default_body),
            delay: script.delay,
            failing: script.failing.clone(),
            good_answers: AtomicU64::new(0),
            counters,
        };
        Self { answers: Arc::new(answers) }
    }

    /// Answers until it is dropped, and ends all connections then.
    pub(super) async fn serve(&self, listener: &TcpListener) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                Some(_) = connections.join_next() => {}
                accepted = listener.accept() => {
                    let Ok((connection, _)) = accepted else { continue };
                    let answers = self.answers.clone();
                    connections.spawn(async move { answers.converse(connection).await });
                }
            }
        }
    }
}

impl Answers {
    /// Requests on one connection, until the client closes it or says something that is not HTTP.
    async fn converse(&self, connection: TcpStream) -> std::io::Result<()> {
        let mut connection = BufReader::new(connection);
        while let Some(path) = read_request(&mut connection).await? {
            tokio::time::sleep(self.delay).await;
            let status = self.status(&path);
            let answer = format!(
                "HTTP/1.1 {status} {}\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n{}",
                if status == 200 { "OK" } else { "Scripted" },
                self.body.len(),
                self.body
            );
            self.counters.requests.fetch_add(1, Ordering::SeqCst);
            connection.write_all(answer.as_bytes()).await?;
        }
        Ok(())
    }

    fn status(&self, path: &str) -> u16 {
        match (self.counters.status.load(Ordering::SeqCst), &self.failing) {
            (0, Some(failing)) if failing.path == path => {
                let answered = self.good_answers.fetch_add(1, Ordering::SeqCst);
                if answered < failing.after { 200 } else { failing.status }
            }
            (0, _) => 200,
            (status, _) => status,
        }
    }
}

/// Reads a request with its body; its path without the query, or `None` at the end of the connection.
async fn read_request(connection: &mut BufReader<TcpStream>) -> std::io::Result<Option<String>> {
    let mut request_line = String::new();
    if connection.read_line(&mut request_line).await? == 0 {
        return Ok(None);
    }
    let target = request_line.split(' ').nth(1).unwrap_or("/");
    let path = target.split('?').next().unwrap_or("/").to_owned();
    let mut length = 0;
    loop {
        let mut header = String::new();
        if connection.read_line(&mut header).await? == 0 {
            return Ok(None);
        }
        if header.trim_end().is_empty() {
            break;
        }
        if let Some((name, value)) = header.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    tokio::io::copy(&mut connection.take(length), &mut tokio::io::sink()).await?;
    Ok(Some(path))
}
