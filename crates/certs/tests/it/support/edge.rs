//! A server at the edge, as little of one as can be: handshakes with what it is given, and answers to challenges.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use coracle_certs::{ACME_TLS_ALPN, AcmeOptions, CertOptions, Certificates};
use coracle_lab::pebble::{HTTP_PORT, Lab, TLS_PORT};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use super::eventually;

/// Ends with its owner.
pub struct Edge {
    pub https: SocketAddr,
    tasks: JoinSet<()>,
}

impl Edge {
    /// Serves TLS on a free port of loopback.
    pub async fn start(certificates: &Certificates) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        Self::on(listener, certificates)
    }

    pub fn on(listener: TcpListener, certificates: &Certificates) -> Self {
        let https = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(serve_tls(listener, certificates.server_config()));
        Self { https, tasks }
    }

    /// Answers challenges over HTTP as well, and everything else with 404.
    pub fn with_http(mut self, listener: TcpListener, certificates: Arc<Certificates>) -> Self {
        self.tasks.spawn(serve_http(listener, certificates));
        self
    }
}

/// A lab with somebody who orders, and an edge where names lead to.
pub trait Manned {
    /// Orders by these options.
    fn certificates(&self, acme: AcmeOptions) -> Arc<Certificates>;

    /// An edge with both of its ports.
    async fn edge(&self, certificates: &Arc<Certificates>) -> Edge;

    /// One with the port for TLS alone.
    async fn edge_without_http(&self, certificates: &Arc<Certificates>) -> Edge;
}

impl Manned for Lab {
    fn certificates(&self, acme: AcmeOptions) -> Arc<Certificates> {
        let options = CertOptions { acme: Some(acme), poll: Duration::from_millis(200), ..CertOptions::new(self.state()) };
        Certificates::start(options).unwrap()
    }

    async fn edge(&self, certificates: &Arc<Certificates>) -> Edge {
        let edge = self.edge_without_http(certificates).await;
        edge.with_http(bind(self, HTTP_PORT).await, certificates.clone())
    }

    async fn edge_without_http(&self, certificates: &Arc<Certificates>) -> Edge {
        Edge::on(bind(self, TLS_PORT).await, certificates)
    }
}

/// The edge before may not have gone quite yet.
async fn bind(lab: &Lab, port: u16) -> TcpListener {
    eventually("a free port", || async { TcpListener::bind((lab.address, port)).await.ok() }).await
}

async fn serve_tls(listener: TcpListener, config: Arc<ServerConfig>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let acceptor = TlsAcceptor::from(config.clone());
        connections.spawn(async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            if stream.get_ref().1.alpn_protocol() == Some(ACME_TLS_ALPN) {
                return;
            }
            let mut byte = [0];
            while stream.read_exact(&mut byte).await.is_ok() && stream.write_all(&byte).await.is_ok() {}
        });
    }
}

async fn serve_http(listener: TcpListener, certificates: Arc<Certificates>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let certificates = certificates.clone();
        connections.spawn(async move { drop(answer(stream, &certificates).await) });
    }
}

async fn answer(mut stream: TcpStream, certificates: &Certificates) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    let path = head.split(' ').nth(1).unwrap_or_default();
    let host = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("host:").map(|host| host.trim().to_owned()));
    let (status, body) = match certificates.http_challenge(&host.unwrap_or_default(), path) {
        Some(body) => ("200 OK", body),
        None => ("404 Not Found", "nothing of ours".to_owned()),
    };
    let length = body.len();
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
    stream.write_all(answer.as_bytes()).await
}
