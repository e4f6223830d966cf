//! An upstream that answers with what reached it, as JSON.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// How many there are: as many as a table has services.
const COUNT: usize = 8;
/// The response field by which an answer is known to be an upstream's.
pub(crate) const MARK: &str = "X-Seen";

/// What reached an upstream.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// Which upstream.
    pub(crate) upstream: usize,
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) fields: Vec<(String, String)>,
}

impl Seen {
    /// The path as it came.
    pub(crate) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }
}

type Fields = Arc<Mutex<Vec<(String, String)>>>;

/// The upstreams; they end with this value.
#[derive(Debug)]
pub(crate) struct Upstreams {
    pub(crate) addresses: Vec<SocketAddr>,
    fields: Fields,
    _tasks: JoinSet<()>,
}

impl Upstreams {
    pub(crate) async fn start() -> Result<Self> {
        let (fields, mut tasks, mut addresses) = (Fields::default(), JoinSet::new(), Vec::new());
        for number in 0..COUNT {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            addresses.push(listener.local_addr()?);
            tasks.spawn(serve(listener, number, Arc::clone(&fields)));
        }
        Ok(Self { addresses, fields, _tasks: tasks })
    }

    /// What the next answers have besides their own fields.
    pub(crate) fn answer_with(&self, fields: &[(&str, &str)]) {
        let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        *self.fields.lock().unwrap_or_else(PoisonError::into_inner) = fields;
    }
}

async fn serve(listener: TcpListener, number: usize, fields: Fields) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let fields = Arc::clone(&fields);
        // How a connection ends is the proxy's affair; what it answers its client shows it.
        connections.spawn(async move { connection(stream, number, &fields).await.ok() });
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(mut stream: TcpStream, number: usize, fields: &Fields) -> Result<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            ensure!(head.len() < 64 << 10, "a head without an end");
            head.push(stream.read_u8().await?);
        }
        let seen = read_head(&head, number)?;
        let body = serde_json::to_string(&seen)?;
        let mut answer = format!("HTTP/1.1 200 OK\r\n{MARK}: {number}\r\nContent-Length: {}\r\n", body.len());
        for (name, value) in fields.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            answer += &format!("{name}: {value}\r\n");
        }
        answer += "\r\n";
        if seen.method != "HEAD" {
            answer += &body;
        }
        stream.write_all(answer.as_bytes()).await?;
    }
}

fn read_head(head: &[u8], upstream: usize) -> Result<Seen> {
    let head = String::from_utf8_lossy(head);
    let mut lines = head.trim_end().split("\r\n");
    let mut start = lines.next().context("an empty head")?.split(' ');
    let mut word = || start.next().map(str::to_owned).context("a start line without its words");
    let (method, target) = (word()?, word()?);
    let split = |line: &str| line.split_once(':').map(|(name, value)| (name.to_owned(), value.trim().to_owned()));
    Ok(Seen { upstream, method, target, fields: lines.filter_map(split).collect() })
}
