//! Backends, written with bare sockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A backend; dropping it kills it, connections and all.
pub struct Backend {
    pub address: SocketAddr,
    pub connections: Arc<AtomicUsize>,
    pub requests: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A request as it came over the wire.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    pub line: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: String,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn path(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or_default()
    }
}

/// The server's side of a connection.
pub struct Conn {
    pub stream: TcpStream,
    pub buffer: Vec<u8>,
    pub number: usize,
}

impl Conn {
    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.buffer.windows(2).position(|w| w == b"\r\n") {
                let rest = self.buffer.split_off(at + 2);
                let line = std::mem::replace(&mut self.buffer, rest);
                return Some(String::from_utf8(line[..at].to_vec()).unwrap());
            }
            if self.stream.read_buf(&mut self.buffer).await.ok()? == 0 {
                return None;
            }
        }
    }

    /// So many bytes.
    pub async fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < count {
            if self.stream.read_buf(&mut self.buffer).await.ok()? == 0 {
                return None;
            }
        }
        let rest = self.buffer.split_off(count);
        Some(std::mem::replace(&mut self.buffer, rest))
    }

    /// The head of the next request.
    pub async fn head(&mut self) -> Option<Seen> {
        let mut seen = Seen { line: self.line().await?, ..Seen::default() };
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Some(seen);
            }
            let (name, value) = line.split_once(": ").unwrap_or((line.trim_end_matches(':'), ""));
            seen.headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
    }

    /// The next request with its body.
    pub async fn request(&mut self) -> Option<Seen> {
        let mut seen = self.head().await?;
        if let Some(length) = seen.header("content-length") {
            seen.body = self.take(length.parse().unwrap()).await?;
        } else if seen.header("transfer-encoding").is_some() {
            loop {
                let size = usize::from_str_radix(&self.line().await?, 16).unwrap();
                if size == 0 {
                    loop {
                        let line = self.line().await?;
                        if line.is_empty() {
                            return Some(seen);
                        }
                        seen.trailers += &line;
                    }
                }
                let chunk = self.take(size).await?;
                seen.body.extend(chunk);
                self.take(2).await?;
            }
        }
        Some(seen)
    }

    pub async fn send(&mut self, text: &str) {
        // The proxy may have gone: whoever cares sees it on the other side.
        drop(self.stream.write_all(text.as_bytes()).await);
    }

    pub async fn ok(&mut self, body: &str) {
        self.send(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())).await;
    }
}

impl Backend {
    /// Runs `talk` for each connection.
    pub async fn talking<F: Future<Output = ()> + Send + 'static>(talk: impl Fn(Conn) -> F + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener, talk)
    }

    pub fn on<F: Future<Output = ()> + Send + 'static>(listener: TcpListener, talk: impl Fn(Conn) -> F + Send + 'static) -> Self {
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            let mut tasks = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                let number = counted.fetch_add(1, Ordering::SeqCst);
                tasks.spawn(talk(Conn { stream, buffer: Vec::new(), number }));
                while tasks.try_join_next().is_some() {}
            }
        });
        Self { address, connections, requests: Arc::default(), task }
    }

    /// Answers each request with what `answer` makes of it.
    pub async fn answering(answer: impl Fn(&Seen) -> String + Send + Sync + Clone + 'static) -> Self {
        let requests = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&requests);
        let mut backend = Self::talking(move |mut conn| {
            let (answer, counted) = (answer.clone(), Arc::clone(&counted));
            async move {
                while let Some(seen) = conn.request().await {
                    counted.fetch_add(1, Ordering::SeqCst);
                    let answer = answer(&seen);
                    conn.ok(&answer).await;
                }
            }
        })
        .await;
        backend.requests = requests;
        backend
    }

    /// Always says the same.
    pub async fn saying(text: &'static str) -> Self {
        Self::answering(move |_| text.to_owned()).await
    }

    /// Shows the request: its line and headers.
    pub async fn echo() -> Self {
        Self::answering(|seen| {
            let mut text = format!("{}\n", seen.line);
            for (name, value) in &seen.headers {
                text += &format!("{name}: {value}\n");
            }
            text + &String::from_utf8_lossy(&seen.body)
        })
        .await
    }
}
