//! Connections that have become something else than HTTP, WebSockets mostly: bytes are copied both ways until both sides are
//! through, one of them breaks, or the target is drained.
//!
//! There may be many thousands of them, and almost all are silent: such a tunnel is two sockets and a few numbers. Bytes are
//! read into a buffer of the worker's, and only what the other side does not take at once is kept.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use coracle_proxy_middleware::Passage;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

use crate::buffer::with_scratch;
use crate::h2::Channel;
use crate::plane::Client;
use crate::stream::ClientStream;
use crate::target::{InFlight, Target};
use crate::worker::Counted;

/// How long saying goodbye may take.
const GOODBYE: Duration = Duration::from_millis(100);
/// How many buffers full of bytes are copied before others get their turn.
const TURNS: usize = 16;

/// The two sides of an upgraded connection.
pub(crate) struct Tunnel<C = ClientStream> {
    pub(crate) client: C,
    pub(crate) server: Server,
    /// What the client has sent beyond its request.
    pub(crate) from_client: Vec<u8>,
    /// What the target has sent beyond the head of its answer.
    pub(crate) from_server: Vec<u8>,
    pub(crate) upgraded: InFlight,
    /// What limits count until it ends.
    pub(crate) passage: Option<Box<Passage>>,
    /// The client's share of connections.
    pub(crate) admitted: Option<Client>,
}

/// The target's side.
pub(crate) enum Server {
    /// A connection of its own.
    Socket(TcpStream),
    /// A stream of one that requests share.
    Stream(Box<Channel<'static>>),
}

impl AsyncRead for Server {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Socket(socket) => Pin::new(socket).poll_read(cx, into),
            Self::Stream(stream) => Pin::new(stream).poll_read(cx, into),
        }
    }
}

impl AsyncWrite for Server {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Socket(socket) => Pin::new(socket).poll_write(cx, bytes),
            Self::Stream(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Socket(socket) => Pin::new(socket).poll_flush(cx),
            Self::Stream(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Socket(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Stream(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// Runs a tunnel until it ends.
pub(crate) async fn run(tunnel: Tunnel, counted: Counted) {
    run_within(tunnel, &counted).await;
}

/// Runs a tunnel until it ends, within a connection that has others.
pub(crate) async fn run_within<C: AsyncRead + AsyncWrite + Unpin>(tunnel: Tunnel<C>, counted: &Counted) {
    let Tunnel { mut client, mut server, from_client, from_server, upgraded, passage: _counted, admitted: _admitted } = tunnel;
    let (mut up, mut down) = (Direction::new(from_client), Direction::new(from_server));
    let target = upgraded.target();
    let mut enrolled = None;
    let ended_here = poll_fn(|cx| {
        if enrolled.is_none() {
            enrolled = Some(counted.enrol(cx.waker()));
        }
        poll_both(cx, (&mut client, &mut server), (&mut up, &mut down), target)
    })
    .await;
    if ended_here {
        // An orderly end of stream rather than a reset, as far as the two sides take it.
        let ends = futures::future::join(client.shutdown(), server.shutdown());
        drop(tokio::time::timeout(GOODBYE, ends).await);
    }
}

/// Whether it was ended from here.
fn poll_both(
    cx: &mut Context<'_>,
    (client, server): (&mut (impl AsyncRead + AsyncWrite + Unpin), &mut Server),
    (up, down): (&mut Direction, &mut Direction),
    target: &Arc<Target>,
) -> Poll<bool> {
    if target.closes_upgraded() {
        return Poll::Ready(true);
    }
    let (sent, received) = (up.poll(cx, client, server), down.poll(cx, server, client));
    match (sent, received) {
        (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) | (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => Poll::Ready(false),
        _ => Poll::Pending,
    }
}

/// One of the two directions.
struct Direction {
    /// What has been read and not yet been taken.
    waiting: Vec<u8>,
    /// The side that is read from has ended.
    ended: bool,
    /// The other side has been told so.
    told: bool,
}

impl Direction {
    fn new(waiting: Vec<u8>) -> Self {
        Self { waiting, ended: false, told: false }
    }

    /// Copies until there is nothing more to copy; ready at the end of the stream, once the other side knows.
    fn poll<F, T>(&mut self, cx: &mut Context<'_>, from: &mut F, to: &mut T) -> Poll<io::Result<()>>
    where
        F: AsyncRead + Unpin,
        T: AsyncWrite + Unpin,
    {
        if self.told {
            return Poll::Ready(Ok(()));
        }
        for _ in 0..TURNS {
            while !self.waiting.is_empty() {
                let count = ready!(Pin::new(&mut *to).poll_write(cx, &self.waiting))?;
                self.took(count)?;
            }
            if self.ended {
                ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                self.told = true;
                return Poll::Ready(Ok(()));
            }
            match with_scratch(|scratch| self.poll_some(cx, from, to, scratch)) {
                Poll::Ready(Ok(())) => (),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    // What a client that speaks TLS was sent may wait in its session.
                    ready!(Pin::new(&mut *to).poll_flush(cx))?;
                    return Poll::Pending;
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads once and passes on what it can.
    fn poll_some<F, T>(&mut self, cx: &mut Context<'_>, from: &mut F, to: &mut T, scratch: &mut [u8]) -> Poll<io::Result<()>>
    where
        F: AsyncRead + Unpin,
        T: AsyncWrite + Unpin,
    {
        let mut read = ReadBuf::new(scratch);
        ready!(Pin::new(&mut *from).poll_read(cx, &mut read))?;
        let mut bytes = read.filled();
        self.ended = bytes.is_empty();
        while !bytes.is_empty() {
            match Pin::new(&mut *to).poll_write(cx, bytes)? {
                Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(count) => bytes = &bytes[count..],
                Poll::Pending => {
                    self.waiting = bytes.to_vec();
                    break;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn took(&mut self, count: usize) -> io::Result<()> {
        match count {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            all if all == self.waiting.len() => self.waiting = Vec::new(),
            some => drop(self.waiting.drain(..some)),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn bytes_that_are_not_taken_at_once_arrive_in_order_and_nothing_is_kept() {
        let (mut source, mut from) = tokio::io::duplex(1 << 20);
        let (mut to, mut sink) = tokio::io::duplex(1000);
        let bytes: Vec<u8> = (0..300_000_u32).map(|number| (number % 251) as u8).collect();
        source.write_all(&bytes).await.unwrap();
        drop(source);
        let mut direction = Direction::new(b"first".to_vec());
        let mut read = Vec::new();
        let copied = async {
            poll_fn(|cx| direction.poll(cx, &mut from, &mut to)).await.unwrap();
            assert_eq!(direction.waiting.capacity(), 0);
            drop(to);
        };
        tokio::join!(copied, async { sink.read_to_end(&mut read).await.unwrap() });
        assert!(read.starts_with(b"first") && read[5..] == bytes);
    }
}
