//! Clients that trust only what they are told to, and some that only look. They speak HTTP/1.1.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use coracle_lab::clients::{self, Shown};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::{ALL_VERSIONS, ClientConfig, SupportedProtocolVersion};

use crate::env::Wire;

const HTTP: &[&[u8]] = &[b"http/1.1"];

/// Trusts these roots alone.
pub fn truster(roots: &str) -> ClientConfig {
    clients::truster(roots, HTTP)
}

/// The same, with these versions of TLS.
pub fn speaking(roots: &str, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    clients::speaking(roots, versions, HTTP)
}

/// Trusts everybody, and offers these protocols.
pub fn looker(alpn: &[&[u8]]) -> ClientConfig {
    clients::looker(ALL_VERSIONS, alpn)
}

/// A connection after its handshake for `name`.
pub async fn connect(config: ClientConfig, address: SocketAddr, name: &str) -> io::Result<Wire<TlsStream<TcpStream>>> {
    connect_over(config, TcpStream::connect(address).await?, name).await
}

/// The same over something.
pub async fn connect_over<S>(config: ClientConfig, stream: S, name: &str) -> io::Result<Wire<TlsStream<S>>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    crate::env::soon(clients::connect_over(config, stream, name)).await.map(Wire::over)
}

/// The serial number of the certificate that is shown for `name`.
pub async fn look(address: SocketAddr, name: &str) -> io::Result<String> {
    let wire = connect(looker(HTTP), address, name).await?;
    Ok(serial(&wire.stream))
}

/// The serial number of the certificate that was shown.
pub fn serial<S>(stream: &TlsStream<S>) -> String {
    Shown::on(stream).serial
}

/// Sends something before the first bytes, together with them.
pub struct Prefixed {
    pub stream: TcpStream,
    pub prefix: Vec<u8>,
}

impl AsyncRead for Prefixed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Prefixed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let prefix = std::mem::take(&mut self.prefix);
        if prefix.is_empty() {
            return Pin::new(&mut self.stream).poll_write(cx, bytes);
        }
        let both = [&prefix, bytes].concat();
        // A socket that is new takes as much as this.
        assert_eq!(self.stream.try_write(&both)?, both.len());
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
