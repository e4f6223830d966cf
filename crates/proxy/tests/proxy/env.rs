//! A proxy of one's own, and a client that shows every byte.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use coracle_proxy::control::Client;
use coracle_proxy::table::{Admission, Route, Service, ServiceId, Table, Target, TargetId, host_and_prefix};
use coracle_proxy::{Proxy, ProxyOptions};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

pub const SOON: Duration = Duration::from_secs(20);

/// Fails a test that hangs.
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future).await.expect("took too long")
}

/// Waits until something is so.
pub async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let end = tokio::time::Instant::now() + SOON;
    while !is_so().await {
        assert!(tokio::time::Instant::now() < end, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub struct Env {
    pub proxy: Option<Proxy>,
    pub options: ProxyOptions,
    pub directory: tempfile::TempDir,
    generation: u64,
}

impl Env {
    pub async fn new() -> Self {
        Self::with(|_| ()).await
    }

    pub async fn with(change: impl FnOnce(&mut ProxyOptions)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| -> PathBuf { directory.path().join(name) };
        let mut options = ProxyOptions::new(vec!["127.0.0.1:0".parse().unwrap()], path("control"), path("state"));
        options.drain = Duration::from_secs(5);
        change(&mut options);
        let proxy = Proxy::start(options.clone()).await.unwrap();
        Self { proxy: Some(proxy), options, directory, generation: 0 }
    }

    pub fn http(&self) -> SocketAddr {
        self.proxy.as_ref().unwrap().addresses()[0]
    }

    pub fn client(&self) -> Client {
        Client::new(&self.options.control_socket)
    }

    pub async fn publish(&mut self, mut table: Table) {
        self.generation += 1;
        table.generation = self.generation;
        self.client().publish(&table).await.unwrap();
    }

    /// One open service on every host.
    pub async fn serve(&mut self, targets: &[(&str, SocketAddr)]) {
        self.publish(table(&[("*", "/", "app")], &[("app", Admission::Open, targets)])).await;
    }

    pub async fn admit(&mut self, admission: Admission, targets: &[(&str, SocketAddr)]) {
        self.publish(table(&[("*", "/", "app")], &[("app", admission, targets)])).await;
    }

    pub async fn connect(&self) -> Wire {
        Wire::to(self.http()).await
    }

    /// One GET on a connection of its own.
    pub async fn get(&self, host: &str, path: &str) -> Answer {
        soon(async {
            let mut wire = self.connect().await;
            wire.send(&format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).await;
            wire.answer().await
        })
        .await
    }

    pub async fn in_flight(&self) -> usize {
        self.client().status().await.unwrap().targets.iter().map(|target| target.in_flight).sum()
    }

    pub async fn upgraded(&self) -> usize {
        self.client().status().await.unwrap().targets.iter().map(|target| target.upgraded).sum()
    }

    pub async fn waiting(&self) -> usize {
        self.client().status().await.unwrap().waiting.iter().map(|waiting| waiting.count).sum()
    }
}

/// Its id, whether it takes requests, and its targets.
pub type Row<'r> = (&'r str, Admission, &'r [(&'r str, SocketAddr)]);

/// Routes by host and path prefix, as `host_and_prefix` writes them.
pub fn table(routes: &[(&str, &str, &str)], services: &[Row<'_>]) -> Table {
    Table {
        generation: 1,
        routes: routes
            .iter()
            .enumerate()
            .map(|(number, (host, prefix, service))| {
                Route::new(format!("r{number}"), host_and_prefix(host, prefix), ServiceId((*service).into()))
            })
            .collect(),
        services: services
            .iter()
            .map(|(id, admission, targets)| {
                let targets = targets.iter().map(|(id, address)| Target::new(*id, *address)).collect();
                (ServiceId((*id).into()), Service::new(admission.clone(), targets))
            })
            .collect(),
        ..Table::default()
    }
}

pub fn ids(ids: &[&str]) -> Vec<TargetId> {
    ids.iter().map(|id| TargetId((*id).into())).collect()
}

/// A client connection.
pub struct Wire<S = TcpStream> {
    pub stream: S,
    buffer: Vec<u8>,
}

/// One answer, taken apart.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// In lower case.
    pub head: String,
    pub body: String,
    /// The part after the last chunk.
    pub trailers: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| line.split_once(": ").filter(|(n, _)| *n == name)).map(|(_, value)| value)
    }

    #[track_caller]
    pub fn is(&self, status: u16, body: &str) {
        assert_eq!((self.status, self.body.as_str()), (status, body), "{self:?}");
    }
}

impl Wire {
    pub async fn to(address: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(address).await.unwrap(), buffer: Vec::new() }
    }

    pub async fn try_to(address: SocketAddr) -> std::io::Result<Self> {
        Ok(Self { stream: TcpStream::connect(address).await?, buffer: Vec::new() })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub fn over(stream: S) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    pub async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    pub async fn get(&mut self, path: &str) -> Answer {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: app\r\n\r\n")).await;
        soon(self.answer()).await
    }

    /// More bytes; false at the end of the stream.
    async fn more(&mut self) -> std::io::Result<bool> {
        Ok(self.stream.read_buf(&mut self.buffer).await? > 0)
    }

    /// Everything up to and including a text.
    pub async fn read_until(&mut self, end: &str) -> String {
        soon(self.try_read_until(end)).await.unwrap()
    }

    pub async fn try_read_until(&mut self, end: &str) -> std::io::Result<String> {
        loop {
            if let Some(at) = self.buffer.windows(end.len()).position(|window| window == end.as_bytes()) {
                let rest = self.buffer.split_off(at + end.len());
                return Ok(String::from_utf8(std::mem::replace(&mut self.buffer, rest)).unwrap());
            }
            if !self.more().await? {
                return Err(std::io::Error::other(format!("ended before {end:?}: {:?}", String::from_utf8_lossy(&self.buffer))));
            }
        }
    }

    /// Whatever comes next; nothing at the end of the stream.
    pub async fn read_any(&mut self) -> Vec<u8> {
        drop(soon(self.more()).await);
        std::mem::take(&mut self.buffer)
    }

    async fn take(&mut self, count: usize) -> std::io::Result<String> {
        while self.buffer.len() < count {
            if !self.more().await? {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        let rest = self.buffer.split_off(count);
        Ok(String::from_utf8_lossy(&std::mem::replace(&mut self.buffer, rest)).into_owned())
    }

    pub async fn answer(&mut self) -> Answer {
        self.try_answer(false).await.unwrap()
    }

    pub async fn head_answer(&mut self) -> Answer {
        self.try_answer(true).await.unwrap()
    }

    pub async fn try_answer(&mut self, to_head: bool) -> std::io::Result<Answer> {
        let head = self.try_read_until("\r\n\r\n").await?.to_ascii_lowercase();
        let status = head[9..12].parse().map_err(std::io::Error::other)?;
        let mut answer = Answer { status, head, body: String::new(), trailers: String::new() };
        if to_head || status == 204 || status == 304 || status < 200 {
            return Ok(answer);
        }
        if let Some(length) = answer.header("content-length") {
            let length = length.parse().map_err(std::io::Error::other)?;
            answer.body = self.take(length).await?;
        } else if answer.header("transfer-encoding").is_some() {
            loop {
                let size = self.try_read_until("\r\n").await?;
                let size = usize::from_str_radix(size.trim(), 16).map_err(std::io::Error::other)?;
                if size == 0 {
                    loop {
                        let line = self.try_read_until("\r\n").await?;
                        if line == "\r\n" {
                            return Ok(answer);
                        }
                        answer.trailers.push_str(&line);
                    }
                }
                answer.body.push_str(&self.take(size).await?);
                self.take(2).await?;
            }
        } else {
            while self.more().await? {}
            answer.body = String::from_utf8_lossy(&std::mem::take(&mut self.buffer)).into_owned();
        }
        Ok(answer)
    }

    /// The other side closes, and sends nothing before.
    pub async fn is_closed(&mut self) -> bool {
        match soon(self.more()).await {
            Ok(more) => !more,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}
