//! Listening sockets and the connections that come in over them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use crate::connection;
use crate::plane::Plane;

/// How many connections may wait to be accepted.
const BACKLOG: u32 = 4096;
/// A connection on which nothing has moved for so long is asked whether there is still somebody.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// After an error such as too many open files.
const BREATH: Duration = Duration::from_millis(20);

/// Whether new connections are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accepting {
    /// Yes.
    Yes,
    /// No: somebody else accepts from the same socket.
    HandedOver,
    /// No: the socket is closed as soon as those that already wait have been accepted.
    Stopped,
}

impl Accepting {
    /// Tells everybody to stop. False if accepting has ended already: a proxy that has handed over owns nothing any more
    /// that it could close.
    pub(crate) fn stop(accepting: &watch::Sender<Self>) -> bool {
        accepting.send_if_modified(|now| {
            let serves = *now == Self::Yes;
            if serves {
                *now = Self::Stopped;
            }
            serves
        })
    }
}

/// Opens a listening socket.
pub(crate) fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Answers are sent at once, and a client that has vanished without a word (its network is gone) is noticed by the kernel: a
/// WebSocket, on which there is no deadline, would be kept for ever otherwise.
fn prepare(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    rustix::net::sockopt::set_socket_keepalive(stream, true)?;
    Ok(rustix::net::sockopt::set_tcp_keepidle(stream, KEEPALIVE)?)
}

/// Accepts and serves until told otherwise and every connection has ended; `closed` is dropped when the socket is closed.
/// Dropping this ends its connections.
pub(crate) async fn serve(
    listener: TcpListener,
    plane: Arc<Plane>,
    mut accepting: watch::Receiver<Accepting>,
    closed: oneshot::Sender<()>,
) {
    let mut connections = JoinSet::new();
    let take = |accepted: std::io::Result<(TcpStream, SocketAddr)>, connections: &mut JoinSet<()>| {
        let (stream, peer) = accepted?;
        prepare(&stream)?;
        connections.spawn(connection::serve(stream, peer, Arc::clone(&plane)));
        std::io::Result::Ok(())
    };
    while *accepting.borrow() == Accepting::Yes {
        tokio::select! {
            biased;
            // Without a sender there is no proxy any more.
            changed = accepting.changed() => if changed.is_err() { return },
            Some(_ended) = connections.join_next(), if !connections.is_empty() => (),
            accepted = listener.accept() => if let Err(error) = take(accepted, &mut connections) {
                tracing::debug!(%error, "a connection was not accepted");
                tokio::time::sleep(BREATH).await;
            },
        }
    }
    if *accepting.borrow() == Accepting::Stopped {
        // Closing the socket resets those that have connected but have not been accepted yet.
        while let Some(accepted) = futures::FutureExt::now_or_never(listener.accept()) {
            if take(accepted, &mut connections).is_err() {
                break;
            }
        }
    }
    drop(listener);
    drop(closed);
    while connections.join_next().await.is_some() {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_client_that_vanishes_is_noticed() {
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        prepare(&stream).unwrap();
        assert!(rustix::net::sockopt::socket_keepalive(&stream).unwrap());
        assert_eq!(rustix::net::sockopt::tcp_keepidle(&stream).unwrap(), KEEPALIVE);
    }
}
