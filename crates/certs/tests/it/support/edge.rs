//! A server at the edge, as little of one as can be: handshakes with what it is given, and answers to challenges.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use coracle_certs::{ACME_TLS_ALPN, Certificates};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

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
