//! Listening sockets and the connections that come in over them.
//!
//! There is one socket per address, and one worker accepts from it; a connection is then served by the worker that has the
//! fewest. The other way, a socket per worker with `SO_REUSEPORT`, would need no second step, but the kernel has assigned
//! connections to sockets before anybody accepts them: closing a socket resets those, and a hand-over would have to take
//! over the sockets of each worker whatever the number of workers is on the other side.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use coracle_proxy_http::Trust;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{oneshot, watch};

use crate::control::ListenerStatus;
use crate::options::ListenerOptions;
use crate::worker::Seat;

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

/// What requests learn about the socket they came in by.
#[derive(Debug)]
pub(crate) struct Listener {
    /// By which routes name it.
    pub(crate) name: String,
    /// Where it really listens.
    pub(crate) address: SocketAddr,
    /// Whether clients speak TLS.
    pub(crate) tls: bool,
    /// Who begins with the PROXY header.
    pub(crate) proxy_protocol: Option<Trust>,
}

impl Listener {
    /// Of a socket that listens.
    pub(crate) fn new(options: &ListenerOptions, address: SocketAddr) -> Self {
        Self { name: options.name.clone(), address, tls: options.tls, proxy_protocol: options.proxy_protocol.clone() }
    }
}

impl Listener {
    /// For whoever asks.
    pub(crate) fn status(&self) -> ListenerStatus {
        ListenerStatus { name: self.name.clone(), address: self.address, tls: self.tls }
    }
}

/// Who has connected, and where.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    pub(crate) listener: Arc<Listener>,
}

/// A listening socket to accept from, until told otherwise.
pub(crate) struct Doorway {
    pub(crate) socket: std::net::TcpListener,
    pub(crate) listener: Arc<Listener>,
    pub(crate) accepting: watch::Receiver<Accepting>,
    /// Dropped when the socket is closed.
    pub(crate) closed: oneshot::Sender<()>,
}

/// Opens a listening socket.
pub(crate) fn bind(address: SocketAddr) -> std::io::Result<std::net::TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}

/// Answers are sent at once, and a client that has vanished without a word (its network is gone) is noticed by the kernel: a
/// WebSocket, on which there is no deadline, would be kept for ever otherwise.
fn prepare(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    rustix::net::sockopt::set_socket_keepalive(stream, true)?;
    Ok(rustix::net::sockopt::set_tcp_keepidle(stream, KEEPALIVE)?)
}

/// Accepts until told otherwise.
pub(crate) async fn accept(doorway: Doorway, seat: Seat) {
    let Doorway { socket, listener, mut accepting, closed } = doorway;
    let socket = match TcpListener::from_std(socket) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::error!(%error, address = %listener.address, "cannot accept");
            return;
        }
    };
    let take = |accepted: std::io::Result<(TcpStream, SocketAddr)>| {
        let (stream, address) = accepted?;
        prepare(&stream)?;
        seat.place(stream, Peer { address, listener: Arc::clone(&listener) })
    };
    while *accepting.borrow() == Accepting::Yes {
        tokio::select! {
            biased;
            // Without a sender there is no proxy any more.
            changed = accepting.changed() => if changed.is_err() { return },
            accepted = socket.accept() => if let Err(error) = take(accepted) {
                tracing::debug!(%error, "a connection was not accepted");
                tokio::time::sleep(BREATH).await;
            },
        }
    }
    if *accepting.borrow() == Accepting::Stopped {
        // Closing the socket resets those that have connected but have not been accepted yet. The system itself is asked for
        // them: the runtime may not have heard of them.
        accept_waiting(socket, take);
    } else {
        drop(socket);
    }
    drop(closed);
}

/// Takes those that have connected already, and closes the socket.
fn accept_waiting(socket: TcpListener, take: impl Fn(std::io::Result<(TcpStream, SocketAddr)>) -> std::io::Result<()>) {
    let Ok(socket) = socket.into_std() else { return };
    while let Ok((stream, address)) = socket.accept() {
        let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
        if let Err(error) = take(stream.map(|stream| (stream, address))) {
            tracing::debug!(%error, "a connection was not accepted");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_client_that_vanishes_is_noticed() {
        let listener = TcpListener::from_std(bind("127.0.0.1:0".parse().unwrap()).unwrap()).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        prepare(&stream).unwrap();
        assert!(rustix::net::sockopt::socket_keepalive(&stream).unwrap());
        assert_eq!(rustix::net::sockopt::tcp_keepidle(&stream).unwrap(), KEEPALIVE);
    }
}
