//! Meeting a server, to say what its certificate is.

use std::net::SocketAddr;

use coracle_lab::clients::{Shown, connect, looker};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// What a handshake ended with.
pub struct Met {
    pub stream: TlsStream<TcpStream>,
    pub names: Vec<String>,
    pub serial: String,
    pub alpn: Option<Vec<u8>>,
}

/// Meets a server as this client would.
pub async fn meet_with(config: ClientConfig, address: SocketAddr, name: &str) -> std::io::Result<Met> {
    let stream = connect(config, address, name).await?;
    let Shown { names, serial, alpn } = Shown::on(&stream);
    Ok(Met { stream, names, serial, alpn })
}

/// Meets a server as a usual client would that trusts everybody.
pub async fn meet(address: SocketAddr, name: &str) -> std::io::Result<Met> {
    meet_with(looker(rustls::ALL_VERSIONS, &[b"h2", b"http/1.1"]), address, name).await
}
